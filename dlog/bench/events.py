"""What the benchmark's sources send: bytes as a detector gives them, made before the clock runs.

It does no I/O. Bytes that are not to be compressed are random; the others are 16-bit waveforms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dlog.limits import MIB

# More than the processors' caches hold, so that what is sent comes from memory as in life.
POOL_BYTES: Final = 48 * MIB
# What a readout hands over at once: many small events, or one large one.
GIVEN_AT_ONCE_BYTES: Final = MIB
SAMPLES_PER_WAVEFORM: Final = 512
_MIXED_EVENTS_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events that are sent by one call: for these streams, of these sizes."""

    streams: tuple[str, ...]
    sizes: NDArray[np.uint32]
    payload: NDArray[np.uint8]

    @property
    def pieces(self) -> int:
        """(event, stream) pieces."""
        return len(self.sizes) * len(self.streams)


def random_bytes(size: int, seed: int = 1) -> NDArray[np.uint8]:
    return np.frombuffer(np.random.default_rng(seed).bytes(size), np.uint8)


def waveforms(size: int, seed: int = 1) -> NDArray[np.uint8]:
    """16-bit samples of a digitizer: a slow baseline, noise of a few counts, pulses here and there.

    No real detector, but as hard to compress as many: the lower byte is mostly noise.
    """
    rng = np.random.default_rng(seed)
    rows = size // (2 * SAMPLES_PER_WAVEFORM) + 1
    time = np.arange(SAMPLES_PER_WAVEFORM, dtype=np.float32)
    samples = 2000 + 40 * np.sin(2 * np.pi * time / SAMPLES_PER_WAVEFORM)[None, :]
    samples = samples + rng.normal(0, 3, (rows, SAMPLES_PER_WAVEFORM)).astype(np.float32)
    at = rng.integers(50, SAMPLES_PER_WAVEFORM, rows)[:, None]
    height = rng.exponential(600, rows).astype(np.float32)[:, None]
    since = time[None, :] - at
    samples += np.where(since > 0, height * np.exp(-np.maximum(since, 0) / 30), 0)
    return samples.astype("<u2").reshape(-1).view(np.uint8)[:size]


def chunks(streams: list[str], event_bytes: int, *, content: str, mixed: bool) -> list[Chunk]:
    """A round of what a source sends; it goes through it again and again.

    mixed: sizes vary from a half to one and a half of `event_bytes`, the streams change every few
    events, and every second group of events is meant for two streams.
    """
    made = waveforms if content == "waveforms" else random_bytes
    pool = made(max(POOL_BYTES, event_bytes))
    found: list[Chunk] = []
    at = 0
    rng = np.random.default_rng(2)
    while True:
        position = len(found)
        if mixed:
            first, second = position % len(streams), (position + 1) % len(streams)
            names = (streams[first],) if position % 2 else (streams[first], streams[second])
            sizes = rng.integers(event_bytes // 2, event_bytes * 3 // 2, _MIXED_EVENTS_AT_ONCE)
        else:
            names = (streams[position % len(streams)],)
            sizes = np.full(max(1, GIVEN_AT_ONCE_BYTES // event_bytes), event_bytes)
        size = int(sizes.sum())
        if at + size > len(pool) and position >= len(streams) and position % len(streams) == 0:
            return found
        at = 0 if at + size > len(pool) else at
        found.append(Chunk(names, sizes.astype(np.uint32), pool[at : at + size]))
        at += size
