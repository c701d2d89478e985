"""What the demo's detectors see: events that follow from run, stream and number alone, so that who
reads them back makes them again and compares. It does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# The runs, and for how much of the time the detectors send to each.
RUNS: Final = {1: 0.8, 2: 1.0}
SOURCES: Final = ("collector-1", "collector-2")

SAMPLES: Final = 4096  # of 16 bits: 8 KiB an event
PULSE_SAMPLES: Final = 300
HITS_MAX: Final = 20
HIT: Final = np.dtype([("channel", "<u2"), ("adc", "<u2"), ("time", "<u4")])

# A few events are late, as when a front end is slow to answer: by seconds, or until the run ends.
LATE_EVERY: Final = 97
LATE_SECONDS: Final = 2.0
EXPRESS_EVERY: Final = 20


@dataclass(frozen=True, slots=True)
class Stream:
    """detector: whose events it takes. every: it takes those whose number is a multiple of that."""

    name: str
    detector: str
    every: int


# Waveforms in `express` stand in `waveforms` too: each is one event for two streams.
DETECTORS: Final = {"waveforms": 500, "hits": 6000}  # events a second and run, of both sources
STREAMS: Final = (
    Stream("waveforms", "waveforms", 1),
    Stream("express", "waveforms", EXPRESS_EVERY),
    Stream("hits", "hits", 1),
)
CONFIGURATION: Final = """\
# Streams of different kinds; fixtures/example/dlog.toml has every key.
[streams.waveforms]       # 8 KiB of 16-bit samples
part_bytes = "6 MiB"
late_seconds = 1
compression = "zstd"
filter = "delta"
element_bytes = 2
reserve_bytes = "4 MiB"

[streams.express]         # every 20th of them, for a first look: a file every few seconds
part_seconds = 4
ranges = false
compression = "zstd"
filter = "shuffle"
reserve_bytes = "1 MiB"

[streams.hits]            # many small events of different sizes
part_events = 20_000
late_seconds = 1
reserve_bytes = "4 MiB"
"""


@dataclass(frozen=True, slots=True)
class Events:
    """Some events: their sizes, and their payloads one behind the other."""

    sizes: NDArray[np.uint32]
    payload: NDArray[np.uint8]


def events_of_run(detector: str, run: int, seconds: float) -> int:
    """How many events the detector has in a run; they are numbered from 0."""
    return int(DETECTORS[detector] * RUNS[run] * seconds)


def numbers_of(stream: Stream, run: int, seconds: float) -> NDArray[np.uint64]:
    """The numbers of the events that a run has in the stream."""
    end = events_of_run(stream.detector, run, seconds)
    return np.arange(0, end, stream.every, dtype=np.uint64)


def total(stream: Stream, seconds: float) -> int:
    """The stream's events in all runs."""
    return sum(len(numbers_of(stream, run, seconds)) for run in RUNS)


def streams_of(detector: str, numbers: NDArray[np.uint64]) -> dict[tuple[str, ...], Any]:
    """Which of the events are for which streams: masks by the names."""
    if detector == "hits":
        return {("hits",): np.ones(len(numbers), np.bool_)}
    both = numbers % np.uint64(EXPRESS_EVERY) == 0
    return {("waveforms",): ~both, ("waveforms", "express"): both}


def schedule(
    detector: str, run: int, source: int, seconds: float
) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """The numbers that a source sends of a run, in the order in which it sends them, and when, in
    seconds. Each source has every second event, as from a switch that shares them out."""
    end = events_of_run(detector, run, seconds)
    numbers = np.arange(source, end, len(SOURCES), dtype=np.uint64)
    times = numbers / DETECTORS[detector]
    at_end = RUNS[run] * seconds
    turn = _mixed(numbers) % np.uint64(LATE_EVERY)
    times = np.where(turn == 0, np.minimum(times + LATE_SECONDS, at_end), times)
    times = np.where(turn == 1, at_end, times)
    order = np.argsort(times, kind="stable")
    return numbers[order], times[order]


def is_late(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of the events were sent late."""
    late: NDArray[np.bool_] = _mixed(numbers.astype(np.uint64)) % np.uint64(LATE_EVERY) < 2
    return late


def events(detector: str, run: int, numbers: NDArray[Any]) -> Events:
    """The events with these numbers."""
    made = {"waveforms": _waveforms, "hits": _hits}
    return made[detector](run, numbers.astype(np.uint64))


def _waveforms(run: int, numbers: NDArray[np.uint64]) -> Events:
    """Traces of a digitizer: noise, and a pulse where something came. Run and number lead."""
    noise, pulse = _templates()
    mixed = _mixed(numbers + np.uint64(run << 40))
    traces = noise[(mixed % np.uint64(len(noise))).astype(np.intp)]
    begins = (mixed >> np.uint64(8)) % np.uint64(SAMPLES - PULSE_SAMPLES)
    heights = 1 + (mixed >> np.uint64(32)) % np.uint64(40)
    for trace, begin, height in zip(traces, begins.tolist(), heights.tolist(), strict=True):
        trace[begin : begin + PULSE_SAMPLES] += pulse * np.int16(height)
    leads = traces.view("<u8")
    leads[:, 0] = run
    leads[:, 1] = numbers
    sizes = np.full(len(numbers), 2 * SAMPLES, np.uint32)
    return Events(sizes, traces.view(np.uint8).reshape(-1))


@cache
def _templates() -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    noise = np.random.default_rng(1).normal(8192, 3, (64, SAMPLES)).astype("<i2")
    at = np.arange(PULSE_SAMPLES)
    pulse = 100 * (np.exp(-at / 60) - np.exp(-at / 8))
    return noise, pulse.astype("<i2")


def _hits(run: int, numbers: NDArray[np.uint64]) -> Events:
    """One to twenty hits of channel, charge and time."""
    mixed = _mixed(numbers + np.uint64(run << 40))
    counts = (1 + mixed % np.uint64(HITS_MAX)).astype(np.int64)
    place = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    each = _mixed(np.repeat(mixed, counts) + place.astype(np.uint64))
    hits = np.empty(len(each), HIT)
    hits["channel"] = each & np.uint64(0x3FF)
    hits["adc"] = (each >> np.uint64(16)) & np.uint64(0xFFF)
    hits["time"] = each >> np.uint64(32)
    return Events((counts * HIT.itemsize).astype(np.uint32), hits.view(np.uint8))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64: numbers that look random, and are the same everywhere."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
