"""A Collector/Router of the benchmark, a process of its own: `python -m dlog.bench.sender ORDER`.

It sends at full speed or by a timetable, and says at the end what it sent and how long the
acknowledgements took: one JSON object a line on stdout. It ends when its stdin does.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

import dlog
from dlog.bench.events import Chunk, chunks
from dlog.errors import DlogError

# How often it is looked what is acknowledged: latencies are told too long by half of this.
LOOK_SECONDS: Final = 0.001
_PATIENCE_SECONDS: Final = 60.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, the one argument. rate: payload bytes a second, 0 for as fast as it goes.

    bytes_max: of payload, then it ends, also before `seconds` are over.
    """

    address: str
    name: str
    run: int
    streams: list[str]
    event_bytes: int
    seconds: float
    bytes_max: int
    rate: float = 0.0
    content: str = "random"
    mixed: bool = False
    queue_bytes: int = 0


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a sender: ready (nothing else is told), done, or failed with a problem.

    Times are of the monotonic clock. given_ns: when the last event was handed over; done_ns: when
    all were acknowledged. pieces, piece_bytes: counted once for each stream that they go to.
    latencies: milliseconds from the moment at which events were due to the moment at which their
    acknowledgement was seen, and how many events; empty at full speed. behind_ms: how late the last
    event was handed over.
    """

    phase: str
    problem: str = ""
    begin_ns: int = 0
    given_ns: int = 0
    done_ns: int = 0
    events: int = 0
    payload_bytes: int = 0
    pieces: int = 0
    piece_bytes: int = 0
    latencies: list[tuple[float, int]] = []
    behind_ms: float = 0.0
    cpu_seconds: float = 0.0
    batches_resent: int = 0


class _Watch:
    """Sees when what was sent is acknowledged, stream by stream: a stream's events are acknowledged
    in the order in which they were sent."""

    def __init__(self, source: dlog.Source, streams: list[str]) -> None:
        self._source = source
        self._sent = dict.fromkeys(streams, 0)
        # Up to which event of the stream, how many events, when they were due.
        self._due: dict[str, deque[tuple[int, int, int]]] = {name: deque() for name in streams}
        self.latencies: list[tuple[float, int]] = []
        self._settled = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def sent(self, chunk: Chunk, due_ns: int) -> None:
        """Before it is handed over."""
        for name in chunk.streams:
            self._sent[name] += len(chunk.sizes)
            self._due[name].append((self._sent[name], len(chunk.sizes), due_ns))

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        settled = self._source.events_settled
        if settled == self._settled:
            return  # the report takes much longer
        self._settled = settled
        streams = self._source.report().streams
        now_ns = time.monotonic_ns()
        for name, due in self._due.items():
            if name not in streams:
                continue
            acknowledged = streams[name].acknowledged
            while due and due[0][0] <= acknowledged:
                _, events, due_ns = due.popleft()
                self.latencies.append(((now_ns - due_ns) / 1e6, events))


def main() -> int:
    order = msgspec.json.decode(sys.argv[1], type=Order)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the benchmark ends us
    try:
        _say(_send(order))
    except DlogError as error:
        _say(Sent(phase="failed", problem=str(error)))
        return 1
    return 0


def _send(order: Order) -> Sent:
    made = made_for(order)
    more = {"queue_bytes": order.queue_bytes} if order.queue_bytes else {}
    target = order.address if "://" in order.address else Path(order.address)
    with dlog.Source(target, name=order.name, run=order.run, **more) as source:
        source.wait_for_run(timeout=_PATIENCE_SECONDS)
        gc.collect()
        gc.freeze()  # our own pauses are not the logger's
        _say(Sent(phase="ready"))
        if not os.read(0, 1):
            os._exit(1)
        threading.Thread(target=_end_with_the_benchmark, name="stdin", daemon=True).start()
        return _sent(source, order, made)


def _sent(source: dlog.Source, order: Order, made: list[Chunk]) -> Sent:
    watch = _Watch(source, order.streams) if order.rate else None
    cpu_before = time.process_time()
    begin_ns = time.monotonic_ns()
    events = payload_bytes = pieces = piece_bytes = 0
    due_ns = begin_ns
    for chunk, due_ns in timetable(order, made, begin_ns):
        if watch is not None:
            watch.sent(chunk, due_ns)
        streams = chunk.streams if len(chunk.streams) > 1 else chunk.streams[0]
        source.send_many(streams, chunk.payload, sizes=chunk.sizes)
        events += len(chunk.sizes)
        payload_bytes += len(chunk.payload)
        pieces += chunk.pieces
        piece_bytes += len(chunk.payload) * len(chunk.streams)
    given_ns = time.monotonic_ns()
    report = source.flush(timeout=_PATIENCE_SECONDS)
    done_ns = time.monotonic_ns()
    cpu_seconds = time.process_time() - cpu_before
    if watch is not None:
        watch.stop()
    return Sent(
        phase="done", begin_ns=begin_ns, given_ns=given_ns, done_ns=done_ns, events=events,
        payload_bytes=payload_bytes, pieces=pieces, piece_bytes=piece_bytes,
        latencies=watch.latencies if watch is not None else [],
        behind_ms=max(0.0, (given_ns - due_ns) / 1e6) if order.rate else 0.0,
        cpu_seconds=cpu_seconds, batches_resent=report.batches_resent,
    )  # fmt: skip


def made_for(order: Order) -> list[Chunk]:
    """A round of what is sent, before the clock runs."""
    made = chunks(order.streams, order.event_bytes, content=order.content, mixed=order.mixed)
    return [part for chunk in made for part in _parts(chunk, order.rate)] if order.rate else made


def timetable(order: Order, made: list[Chunk], begin_ns: int) -> Iterator[tuple[Chunk, int]]:
    """What to send, and when it was due. By a rate, events come as they would from a readout: at
    their time, however the ones before fared."""
    end_ns = begin_ns + int(order.seconds * 1e9)
    left = order.bytes_max
    due_ns = float(begin_ns)
    position = 0
    while left > 0:
        chunk = made[position % len(made)]
        position += 1
        if not order.rate:
            if time.monotonic_ns() >= end_ns:
                return
            yield chunk, 0
        else:
            if due_ns >= end_ns:
                return
            wait = due_ns - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait / 1e9)
            yield chunk, int(due_ns)
            due_ns += len(chunk.payload) / order.rate * 1e9
        left -= len(chunk.payload)


def _parts(chunk: Chunk, rate: float) -> Iterator[Chunk]:
    """The chunk in parts of about two milliseconds: smaller ones would measure how often Python
    wakes up, on the processors that the logger needs."""
    ends = np.cumsum(chunk.sizes, dtype=np.int64)
    events = max(1, int(np.searchsorted(ends, rate / 500)))
    for begin in range(0, len(ends), events):
        end = min(begin + events, len(ends))
        first = int(ends[begin - 1]) if begin else 0
        yield Chunk(
            chunk.streams, chunk.sizes[begin:end], chunk.payload[first : int(ends[end - 1])]
        )


def _say(sent: Sent) -> None:
    print(msgspec.json.encode(sent).decode(), flush=True)


def _end_with_the_benchmark() -> None:
    # Not sys.stdin: its lock, held while we wait, would abort the interpreter at its end.
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
