"""Sources in threads of their own that send under load, and what each of them sent.

An event tells who it is, and its payload follows from that alone, so that one that is missing,
doubled, changed or in the wrong file is found whatever happened in between.
"""

from __future__ import annotations

import random
import threading
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

import dlog
from dlog.errors import EventsDiverted, RunEnded
from dlog.limits import MIB
from dlog.source import Report
from tests.waiting import LONG, until, until_still

Numbers: TypeAlias = NDArray[np.uint64]
Key = tuple[str, int, str]  # source, run, streams as sent ("a" or "a+b")
# By who sent them, and the stream in whose files they stand.
Found: TypeAlias = Mapping[tuple[Key, str], Numbers]


class SourceThread(threading.Thread):
    """One source that sends until it is told to halt. Each kind says what its events are."""

    def __init__(self, address: str | Path, name: str, **options: Any) -> None:
        super().__init__(name=f"sender {name}", daemon=True)
        self.source_name = name
        self.source = dlog.Source(address, name=name, **options)
        self._halt = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._halt.is_set():
                self.send_some()
        except BaseException as error:  # noqa: BLE001 - `halt` raises it
            self.error = error

    def send_some(self) -> None:
        raise NotImplementedError

    def expected(self) -> dict[Key, Numbers]:
        """The event numbers that were sent."""
        raise NotImplementedError

    @staticmethod
    def readable(directories: Sequence[Path], runs: Iterable[int]) -> Found:
        """The events of this kind of source that stand in the files of the runs; fails where one
        is changed or misfiled."""
        raise NotImplementedError

    def goes_on(self, more: int = 100) -> None:
        before = self.source.acknowledged
        until(lambda: self.source.acknowledged > before + more, f"{more} more acknowledgements")

    def until_still(self) -> int:
        """The acknowledged pieces, once there are no more of them."""
        return until_still(lambda: self.source.acknowledged, f"what {self.name} has acknowledged")

    def ended_with_its_run(self) -> None:
        """Wait until an end of the run ends the thread."""
        self.join(LONG)
        assert isinstance(self.error, RunEnded), self.error

    def halt(self, *, run_is_over: bool = False) -> None:
        """No more events; raises what ended the thread, but for an end of the run where it is."""
        self._halt.set()
        if self.ident is not None:
            self.join(LONG)
            assert not self.is_alive(), f"{self.name} hangs in send: {self.source.report()}"
        if self.error is not None and not (run_is_over and isinstance(self.error, RunEnded)):
            raise self.error

    def finish(self) -> Report:
        """No more events; wait for the acknowledgements, and say goodbye. Late events are stored
        too, in garbage files."""
        self.halt()
        with suppress(EventsDiverted):
            self.source.close(LONG)
        return self.source.report()


# --- events of many sizes, to several streams and runs -------------------------------------------

_BASE: Final = random.Random(1).randbytes(64 * 1024) + bytes(64 * 1024)
_SMALL: Final = tuple(int(20 * 1.075**i) for i in range(64))  # 20 B to 1.9 kB
_MIDDLE_BYTES: Final = 60_000
_LARGE_BYTES: Final = 1_200_000  # larger than a block and than the smallest part


class Id(NamedTuple):
    source: str
    run: int
    streams: str
    number: int


def payload_of(source: str, run: int, streams: str, number: int) -> bytes:
    head = f"{source}/{run}/{streams}/{number}|".encode()
    mixed = zlib.crc32(head)
    if mixed & 0x1FFF == 0:
        return head + (_BASE * (_LARGE_BYTES // len(_BASE) + 1))[:_LARGE_BYTES]
    size = _MIDDLE_BYTES if mixed & 0xFF == 1 else _SMALL[mixed >> 8 & 63]
    begin = mixed >> 15
    return head + _BASE[begin : begin + size]


def id_of(payload: bytes | memoryview) -> Id:
    """Who an event is; an AssertionError where a byte of it is not as it was sent."""
    head = bytes(payload[:80]).partition(b"|")[0].decode()
    source, run, streams, number = head.split("/")
    found = Id(source, int(run), streams, int(number))
    assert bytes(payload) == payload_of(*found), f"changed bytes in {found}"
    return found


def readable(directories: Sequence[Path], runs: Iterable[int]) -> Found:
    found: dict[tuple[Key, str], list[int]] = defaultdict(list)
    for run in runs:
        folders = [each / "runs" / str(run) for each in directories]
        for event in dlog.read([folder for folder in folders if any(folder.glob("*.dlog*"))]):
            who = id_of(event.payload)
            stands = f"{who} stands in run {event.run} stream {event.stream}"
            assert event.run == who.run == run, stands
            assert event.stream in who.streams.split("+"), stands
            assert event.number == who.number, stands
            found[who[:3], event.stream].append(who.number)
    return {where: np.array(numbers, np.uint64) for where, numbers in found.items()}


class Sender(SourceThread):
    """Sends events of several runs and streams in bursts.

    Event number n of a run is `step * k + offset`, so that the sources of a run share one numbering
    as the events of an experiment do; the stream(s) follow from k. Everything that `send` took is
    in `sent`.
    """

    readable = staticmethod(readable)

    def __init__(
        self,
        address: str | Path,
        name: str,
        runs: Sequence[int],
        pattern: Sequence[str],
        *,
        offset: int = 0,
        step: int = 1,
        seed: int = 0,
        burst: int = 20,
        pause_seconds: float = 0.05,
        lag_seconds: float = 0.0,
        hold_back: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(address, name, **options)
        self.runs = tuple(runs)
        self._pattern = tuple(pattern)
        self._offset, self._step = offset, step
        self._random = random.Random(seed)
        self._burst, self._pause_seconds, self._lag_seconds = burst, pause_seconds, lag_seconds
        self._hold_back = hold_back
        self._held: dict[int, list[int]] = defaultdict(list)  # run -> k, to be sent much later
        self.sent: Counter[int] = Counter()  # run -> events of it

    def send_some(self) -> None:
        for run in self.runs:
            for _ in range(self._random.randint(1, 2 * self._burst)):
                self.send(run)
        lag = self._random.random() < 0.02
        self._halt.wait(self._lag_seconds if lag else self._pause_seconds)

    def send(self, run: int, timeout: float | None = None) -> None:
        """The next event of the run; counted once it was taken. With `hold_back`, every so manyth
        one waits until a hundred of them do, and then goes out very late."""
        k, held = self.sent[run], self._held[run]
        if self._hold_back and k % self._hold_back == self._hold_back - 1:
            held.append(k)
            self.sent[run] += 1
            while len(held) > 100:
                self._send(run, held[0], timeout)
                del held[0]
            return
        self._send(run, k, timeout)
        self.sent[run] += 1

    def _send(self, run: int, k: int, timeout: float | None) -> None:
        streams = self._pattern[k % len(self._pattern)]
        number = k * self._step + self._offset
        self.source.send(
            streams.split("+"), payload_of(self.source_name, run, streams, number), run=run,
            number=number, timeout=timeout,
        )  # fmt: skip

    def send_acknowledged(self, events: int) -> None:
        """Events of all its runs; each fifty of them are synced for themselves."""
        for _ in range(0, events, 50):
            for run in self.runs:
                for _ in range(min(events, 50)):
                    self.send(run)
            self.source.flush(LONG)

    def expected(self) -> dict[Key, Numbers]:
        numbers: dict[Key, list[int]] = defaultdict(list)
        for run, events in self.sent.items():
            for k in sorted(set(range(events)) - set(self._held[run])):
                streams = self._pattern[k % len(self._pattern)]
                numbers[self.source_name, run, streams].append(k * self._step + self._offset)
        return {key: np.array(sent, np.uint64) for key, sent in numbers.items()}


# --- events as fast as the logger takes them: whole arrays, no Python for each event -------------

EVENT_BYTES: Final = 1024  # its number, who sent it, then the same bytes in all of them
CHUNK_EVENTS: Final = 1024
FLOOD_STREAMS: Final = ("a", "b")  # each chunk to the next of them
_FLOOD_EVENTS_MAX: Final = 200 * MIB // EVENT_BYTES
_FLOOD_QUEUE_BYTES: Final = 8 * MIB  # so that not much is sent while the logger is down
_BODY: Final = np.random.default_rng(1).integers(0, 256, EVENT_BYTES - 16, np.uint8)


class Flood(SourceThread):
    """Sends events of one run, numbered from 0."""

    def __init__(self, data: Path, place: int, run: int) -> None:
        super().__init__(data, _flood_name(place), queue_bytes=_FLOOD_QUEUE_BYTES)
        self._run = run
        self.sent = 0
        self._offered = 0  # given to `send_many`, which may have raised over a part of them
        self._payload = np.empty((CHUNK_EVENTS, EVENT_BYTES), np.uint8)
        self._payload[:, 16:] = _BODY
        self._head = self._payload[:, :16].view("<u8")
        self._head[:, 1] = place

    def send_some(self) -> None:
        if self.sent >= _FLOOD_EVENTS_MAX:
            self._halt.set()
            return
        numbers = np.arange(self.sent, self.sent + CHUNK_EVENTS, dtype=np.uint64)
        self._head[:, 0] = numbers
        self._offered = self.sent + CHUNK_EVENTS
        stream = FLOOD_STREAMS[self.sent // CHUNK_EVENTS % len(FLOOD_STREAMS)]
        self.source.send_many(stream, self._payload, numbers=numbers, run=self._run, timeout=LONG)
        self.sent += CHUNK_EVENTS

    def expected(self) -> dict[Key, Numbers]:
        numbers = np.arange(self._offered, dtype=np.uint64)
        return {
            (self.source_name, self._run, stream): numbers[_meant_for(numbers) == which]
            for which, stream in enumerate(FLOOD_STREAMS)
        }

    @staticmethod
    def readable(directories: Sequence[Path], runs: Iterable[int]) -> Found:
        """Orphans of the runs stand in the stream that they were meant for."""
        found: dict[tuple[Key, str], list[Numbers]] = defaultdict(list)
        for directory in directories:
            for run in runs:
                for block_numbers, places in _flood_events(directory, run):
                    for place in np.unique(places).tolist():
                        mine = block_numbers[places == place]
                        for which, stream in enumerate(FLOOD_STREAMS):
                            where = (_flood_name(place), run, stream), stream
                            found[where].append(mine[_meant_for(mine) == which])
        return {where: np.concatenate(numbers) for where, numbers in found.items()}


def _flood_name(place: int) -> str:
    return f"flood-{place}"


def _meant_for(numbers: Numbers) -> NDArray[np.uint64]:
    """The place of each event's stream in FLOOD_STREAMS."""
    return numbers // np.uint64(CHUNK_EVENTS) % np.uint64(len(FLOOD_STREAMS))


def _flood_events(directory: Path, run: int) -> Iterator[tuple[Numbers, Numbers]]:
    """Numbers and places of the run's events, block by block."""
    orphans = directory / "orphans"
    folders = [(directory / "runs" / str(run), stream) for stream in FLOOD_STREAMS]
    folders += [(orphans, "orphan")] if orphans.is_dir() else []
    for folder, stream in folders:
        for block in dlog.read(folder, streams=[stream]).blocks():
            events = np.frombuffer(block.payload, np.uint8).reshape(-1, EVENT_BYTES)
            assert (events[:, 16:] == _BODY).all(), f"{block}: changed bytes"
            head = events[:, :16].copy().view("<u8")[block.table["run"] == run]
            numbers, places = head[:, 0], head[:, 1]
            told = block.table["number"][block.table["run"] == run]
            assert np.array_equal(numbers, told), f"{block}: other events"
            if stream != "orphan":
                meant = _meant_for(numbers) == FLOOD_STREAMS.index(stream)
                assert meant.all(), f"{block}: misfiled"
            yield numbers, places
