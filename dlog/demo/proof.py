"""The demo's proof: every event that is in the files against every event that was sent. It reads
the event files alone, neither the journal nor anything that the sources said.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dlog
from dlog.demo.detectors import RUNS, STREAMS, Stream, events, is_late, numbers_of
from dlog.errors import NotThere
from dlog.model.ids import FileKind
from dlog.reader import Block


@dataclass(slots=True)
class Found:
    """A stream of all runs, as its files hold it. late: events that were sent late and stand in the
    part of their range; garbage: events in garbage files. Missing, doubled, altered and unknown are
    0 where every event stands exactly once."""

    events: int = 0
    payload_bytes: int = 0
    late: int = 0
    garbage: int = 0
    files: int = 0
    missing: int = 0
    doubled: int = 0
    altered: int = 0
    unknown: int = 0


class _Tally:
    """How often each event of a stream of a run was found."""

    def __init__(self, stream: Stream, run: int, seconds: float, found: Found) -> None:
        self._stream, self._run, self._found = stream, run, found
        self._numbers = numbers_of(stream, run, seconds)
        self._times = np.zeros(len(self._numbers), np.int64)

    def add(self, block: Block) -> None:
        found, numbers = self._found, block.table["number"]
        place = numbers // np.uint64(self._stream.every)
        known = (place < len(self._numbers)) & (numbers % np.uint64(self._stream.every) == 0)
        np.add.at(self._times, place[known].astype(np.intp), 1)
        found.unknown += int((~known).sum())
        found.altered += self._altered(block)
        found.events += len(block)
        found.payload_bytes += len(block.payload)
        if block.kind is FileKind.GARBAGE:
            found.garbage += len(block)
        else:
            found.late += int(is_late(numbers).sum())

    def _altered(self, block: Block) -> int:
        """Events of the block whose payload is not the one that was sent."""
        table = block.table
        made = events(self._stream.detector, self._run, table["number"])
        sizes_hold = np.array_equal(made.sizes, table["size"])
        if sizes_hold and np.array_equal(made.payload, block.payload):
            return int((table["run"] != self._run).sum())
        ends = np.cumsum(made.sizes)
        return sum(
            bytes(event.payload) != made.payload[end - size : end].tobytes()
            for event, size, end in zip(block, made.sizes.tolist(), ends.tolist(), strict=True)
        )

    def close(self) -> None:
        self._found.missing += int((self._times == 0).sum())
        self._found.doubled += int((self._times[self._times > 1] - 1).sum())


def compare(
    data: Path, seconds: float, progress: Callable[[int], None] = lambda events: None
) -> dict[str, Found]:
    """Read all files of the runs, and say by stream what was found. progress: events read."""
    found = {stream.name: Found() for stream in STREAMS}
    for run in RUNS:
        for stream in STREAMS:
            tally = _Tally(stream, run, seconds, found[stream.name])
            # No file of the stream: all of its events are missing.
            with (
                suppress(NotThere),
                dlog.read(data / "runs" / str(run), streams=[stream.name]) as reader,
            ):
                found[stream.name].files += len(reader.files)
                for block in reader.blocks():
                    tally.add(block)
                    progress(len(block))
            tally.close()
    return found
