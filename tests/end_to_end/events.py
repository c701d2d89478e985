"""Events that say who they are: sent by threads under load, and compared with what can be read.

An event's payload follows from (source, run, streams, number) alone, so that one that is missing,
doubled, changed or in the wrong file is found whatever happened in between.
"""

from __future__ import annotations

import random
import threading
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import dlog
from dlog.source import Report

_BASE: Final = random.Random(1).randbytes(64 * 1024) + bytes(64 * 1024)
_SMALL: Final = tuple(int(20 * 1.075**i) for i in range(64))  # 20 B to 1.9 kB
_MIDDLE_BYTES: Final = 60_000
_LARGE_BYTES: Final = 1_200_000  # larger than a block and than the smallest part

Key = tuple[str, int, str]  # source, run, streams as sent ("a" or "a+b")


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


class Sender(threading.Thread):
    """One source that sends events of several runs and streams in bursts until told to stop.

    Event number n of a run is `step * k + offset`, so that the sources of a run share one numbering
    as the events of an experiment do; the stream(s) follow from k. Everything that `send` took is
    in `sent`.
    """

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
    ) -> None:
        super().__init__(name=f"sender {name}", daemon=True)
        self.source = dlog.Source(address, name=name)
        self.source_name = name
        self.runs = tuple(runs)
        self._pattern = tuple(pattern)
        self._offset, self._step = offset, step
        self._random = random.Random(seed)
        self._burst, self._pause_seconds, self._lag_seconds = burst, pause_seconds, lag_seconds
        self._hold_back = hold_back
        self._held: dict[int, list[int]] = defaultdict(list)  # run -> k, to be sent much later
        self._halt = threading.Event()
        self._may_go = threading.Event()
        self._may_go.set()
        self.sent: Counter[int] = Counter()  # run -> events of it
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._halt.is_set():
                self._may_go.wait(0.1)
                for run in self.runs:
                    for _ in range(self._random.randint(1, 2 * self._burst)):
                        self.send(run)
                lag = self._random.random() < 0.02
                self._halt.wait(self._lag_seconds if lag else self._pause_seconds)
        except BaseException as error:  # noqa: BLE001 - `stop` raises it
            self.error = error

    def send(self, run: int) -> None:
        """The next event of the run; counted once it was taken. With `hold_back`, every so manyth
        one waits until a hundred of them do, and then goes out very late."""
        k, held = self.sent[run], self._held[run]
        if self._hold_back and k % self._hold_back == self._hold_back - 1:
            held.append(k)
            self.sent[run] += 1
            while len(held) > 100:
                self._send(run, held[0])
                del held[0]
            return
        self._send(run, k)
        self.sent[run] += 1

    def _send(self, run: int, k: int) -> None:
        streams = self._pattern[k % len(self._pattern)]
        number = k * self._step + self._offset
        self.source.send(
            streams.split("+"), payload_of(self.source_name, run, streams, number), run=run,
            number=number,
        )  # fmt: skip

    def expected(self) -> dict[Key, list[int]]:
        """The event numbers that were sent."""
        numbers: dict[Key, list[int]] = defaultdict(list)
        for run, events in self.sent.items():
            for k in sorted(set(range(events)) - set(self._held[run])):
                streams = self._pattern[k % len(self._pattern)]
                numbers[self.source_name, run, streams].append(k * self._step + self._offset)
        return dict(numbers)

    def halt(self) -> None:
        """No more events; raises what ended the thread."""
        self._halt.set()
        if self.ident is not None:
            self.join(60)
            assert not self.is_alive(), f"{self.name} hangs in send: {self.source.report()}"
        if self.error is not None:
            raise self.error

    def finish(self, timeout: float = 60.0) -> Report:
        """No more events; wait for the acknowledgements, and say goodbye."""
        self.halt()
        return self.source.close(timeout)


def readable(data: Path | Iterable[Path], runs: Iterable[int]) -> dict[tuple[Key, str], list[int]]:
    """The event numbers that stand in the files of each stream, by who sent them."""
    found: dict[tuple[Key, str], list[int]] = defaultdict(list)
    directories = [data] if isinstance(data, Path) else list(data)
    for run in runs:
        folders = [folder for each in directories if (folder := each / "runs" / str(run)).is_dir()]
        for event in dlog.read([folder for folder in folders if any(folder.glob("*.dlog*"))]):
            who = id_of(event.payload)
            stands = f"{who} stands in run {event.run} stream {event.stream}"
            assert event.run == who.run == run, stands
            assert event.stream in who.streams.split("+"), stands
            assert event.number == who.number, stands
            found[who[:3], event.stream].append(who.number)
    return found


def assert_exactly_once(
    data: Path | Iterable[Path], expected: Mapping[Key, Sequence[int]]
) -> Counter[tuple[str, int, str]]:
    """Each event stands once in each of its streams, and nothing else does. The (event, stream)
    pieces by (source, run, stream)."""
    found = readable(data, sorted({run for _, run, _ in expected}))
    wanted = {
        (key, stream): numbers
        for key, numbers in expected.items()
        for stream in key[2].split("+")
        if numbers
    }
    problems = []
    for where in sorted({*found, *wanted}):
        have, should = Counter(found.get(where, [])), Counter(wanted.get(where, []))
        missing, extra = sorted((should - have).elements()), sorted((have - should).elements())
        if missing:
            problems.append(f"{where}: {len(missing)} missing: {_few(missing)}")
        if extra:
            problems.append(f"{where}: {len(extra)} too many: {_few(extra)}")
    assert not problems, "\n".join(problems)
    pieces: Counter[tuple[str, int, str]] = Counter()
    for ((source, run, _), stream), numbers in wanted.items():
        pieces[source, run, stream] += len(numbers)
    return pieces


def _few(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")


def merged(*expected: Mapping[Key, Sequence[int]]) -> dict[Key, list[int]]:
    """What several sources sent."""
    return {key: list(numbers) for each in expected for key, numbers in each.items()}
