"""Sources that send as fast as the logger takes it, and the comparison of what they sent with what
can be read: whole arrays at a time, no Python for each event.

An event is 1 KiB: its number, who sent it, then the same bytes in all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

import dlog
from dlog.errors import RunEnded
from dlog.limits import MIB

EVENT_BYTES: Final = 1024
CHUNK_EVENTS: Final = 1024
_BODY: Final = np.random.default_rng(1).integers(0, 256, EVENT_BYTES - 16, np.uint8)
_SEND_SECONDS: Final = 30.0
_QUEUE_BYTES: Final = 8 * MIB  # so that not much is sent while the logger is down


class Flood(threading.Thread):
    """One source; `sent` events of the run, numbered from 0, each chunk to the next stream."""

    def __init__(
        self, data: Path, place: int, run: int, streams: Sequence[str], events_max: int
    ) -> None:
        super().__init__(name=f"flood {place}", daemon=True)
        self.source = dlog.Source(data, name=f"flood-{place}", queue_bytes=_QUEUE_BYTES)
        self._place, self._run, self.streams = place, run, tuple(streams)
        self._events_max = events_max
        self._halt = threading.Event()
        self.sent = 0
        self.offered = 0  # given to `send_many`, which may have raised over a part of them
        self.error: BaseException | None = None

    def run(self) -> None:
        payload = np.empty((CHUNK_EVENTS, EVENT_BYTES), np.uint8)
        payload[:, 16:] = _BODY
        head = payload[:, :16].view("<u8")
        head[:, 1] = self._place
        try:
            while not self._halt.is_set() and self.sent < self._events_max:
                numbers = np.arange(self.sent, self.sent + CHUNK_EVENTS, dtype=np.uint64)
                head[:, 0] = numbers
                self.offered = self.sent + CHUNK_EVENTS
                stream = self.streams[self.sent // CHUNK_EVENTS % len(self.streams)]
                self.source.send_many(
                    stream, payload, numbers=numbers, run=self._run, timeout=_SEND_SECONDS
                )
                self.sent += CHUNK_EVENTS
        except BaseException as error:  # noqa: BLE001 - `halt` raises it
            self.error = error

    def halt(self, *, run_is_over: bool = False) -> None:
        """No more events; raises what ended the thread, but for an end of the run where it is."""
        self._halt.set()
        self.join(60)
        assert not self.is_alive(), f"{self.name} hangs: {self.source.report()}"
        if self.error is not None and not (run_is_over and isinstance(self.error, RunEnded)):
            raise self.error


def assert_floods_stand_once(data: Path, run: int, floods: Sequence[Flood]) -> None:
    """Every event of every flood stands once, whole, in the stream it was meant for."""
    for place, counted in enumerate(times_found(data, run, floods)):
        missing, doubled = int((counted == 0).sum()), int((counted > 1).sum())
        assert (missing, doubled) == (0, 0), f"flood {place}: {missing} missing, {doubled} doubled"


def times_found(data: Path, run: int, floods: Sequence[Flood]) -> list[NDArray[np.int64]]:
    """How often each event of each flood stands in the stream it was meant for, or among the
    orphans; nothing else may stand anywhere."""
    found: list[list[NDArray[np.uint64]]] = [[] for _ in floods]
    streams = floods[0].streams
    folder, orphans = data / "runs" / str(run), data / "orphans"
    places = [(folder, stream) for stream in streams]
    places += [(orphans, "orphan")] if orphans.is_dir() else []
    for which, (place_on_disk, stream) in enumerate(places):
        for block in dlog.read(place_on_disk, streams=[stream]).blocks():
            events = np.frombuffer(block.payload, np.uint8).reshape(-1, EVENT_BYTES)
            head = events[:, :16].copy().view("<u8")
            head = head[block.table["run"] == run]
            numbers_told = block.table["number"][block.table["run"] == run]
            assert np.array_equal(head[:, 0], numbers_told), f"{block}: other events"
            assert (events[:, 16:] == _BODY).all(), f"{block}: changed bytes"
            meant = head[:, 0] // CHUNK_EVENTS % len(streams)
            assert stream == "orphan" or (meant == which).all(), f"{block}: misfiled"
            for place, numbers in enumerate(found):
                numbers.append(head[head[:, 1] == place, 0])
    times = []
    for place, flood in enumerate(floods):
        counted = np.bincount(np.concatenate(found[place]).astype(np.intp), minlength=flood.offered)
        assert len(counted) == flood.offered, f"flood {place}: an event that was never sent"
        times.append(counted)
    return times
