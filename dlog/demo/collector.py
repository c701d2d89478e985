"""A Collector/Router of the demo, a process of its own: `python -m dlog.demo.collector`.

It sends its share of the events when their time has come, whether or not the logger lives, and says
every 0.1 s how it stands: one JSON object a line on stdout. It holds back the last
part of its events until a line on stdin tells it to go on, and ends when its stdin does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

import dlog
from dlog.demo.detectors import DETECTORS, RUNS, events, schedule, streams_of
from dlog.errors import DlogError, EventsDiverted

TICK_SECONDS: Final = 0.02
TELL_SECONDS: Final = 0.1
# Of its time, what a collector sends before its parent says that the logger was killed: on a slow
# machine, too, events are left to be sent after the restart.
HOLD_AT: Final = 0.6


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the collector is to do, its one argument. begin_ns: of the monotonic clock."""

    data: str
    name: str
    source: int
    seconds: float
    begin_ns: int


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a collector. phase: sending, sent (all is handed over), done (all is answered for),
    failed. runs_over: runs whose events are all handed over. sent, acknowledged: (event, stream)
    pieces by stream; refused: by reason."""

    name: str
    phase: str
    runs_over: list[int] = []
    sent: dict[str, int] = {}
    acknowledged: dict[str, int] = {}
    refused: dict[str, int] = {}
    pending: int = 0
    reconnects: int = 0
    batches_resent: int = 0
    problem: str = ""


class _Teller:
    """Says how the source stands, from a thread of its own: a full queue holds up the sending."""

    def __init__(self, source: dlog.Source) -> None:
        self._source = source
        self.phase = "sending"
        self.runs_over: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="teller", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(TELL_SECONDS):
            self.say()

    def say(self, problem: str = "") -> None:
        report = self._source.report()
        said = Said(
            name=report.name, phase=self.phase, runs_over=self.runs_over,
            sent={name: stream.sent for name, stream in report.streams.items()},
            acknowledged={name: stream.acknowledged for name, stream in report.streams.items()},
            refused=report.refused, pending=report.pending, reconnects=report.reconnects,
            batches_resent=report.batches_resent, problem=problem,
        )  # fmt: skip
        print(msgspec.json.encode(said).decode(), flush=True)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def main() -> int:
    order = msgspec.json.decode(sys.argv[1], type=Order)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the demo ends us
    go_on = threading.Event()
    threading.Thread(target=_listen_to_the_demo, args=(go_on,), name="stdin", daemon=True).start()
    source = dlog.Source(Path(order.data), name=order.name)
    teller = _Teller(source)
    try:
        _send(source, order, teller, go_on)
        teller.phase = "sent"
        with contextlib.suppress(EventsDiverted):  # the late ones, whose files the proof looks at
            source.close()
        teller.phase = "done"
        problem = ""
    except DlogError as error:
        teller.phase, problem = "failed", str(error)
    teller.stop()
    teller.say(problem)
    return 1 if problem else 0


def _send(source: dlog.Source, order: Order, teller: _Teller, go_on: threading.Event) -> None:
    """Every event at its time; when the queue was full for a while, what is due goes at once."""
    plans = {
        (run, detector): (*schedule(detector, run, order.source, order.seconds), 0)
        for run in RUNS
        for detector in DETECTORS
    }
    while plans:
        now = (time.monotonic_ns() - order.begin_ns) / 1e9
        if not go_on.is_set():
            now = min(now, HOLD_AT * order.seconds)
        for (run, detector), (numbers, times, begin) in list(plans.items()):
            end = int(np.searchsorted(times, now, side="right"))
            _send_some(source, detector, run, numbers[begin:end])
            plans[run, detector] = (numbers, times, end)
            if end == len(numbers):
                del plans[run, detector]
        teller.runs_over = sorted(set(RUNS) - {run for run, _ in plans})
        time.sleep(TICK_SECONDS)


def _send_some(source: dlog.Source, detector: str, run: int, numbers: NDArray[np.uint64]) -> None:
    for streams, chosen in streams_of(detector, numbers).items():
        if not chosen.any():
            continue
        made = events(detector, run, numbers[chosen])
        if len(streams) == 1:
            source.send_many(
                streams, made.payload, sizes=made.sizes, numbers=numbers[chosen], run=run
            )
            continue
        ends = np.cumsum(made.sizes).tolist()
        for number, begin, end in zip(numbers[chosen].tolist(), [0, *ends], ends, strict=False):
            source.send(streams, made.payload[begin:end], run=run, number=number)


def _listen_to_the_demo(go_on: threading.Event) -> None:
    """A line says "go on"; the end of the input says that the demo is gone."""
    # Not sys.stdin: its lock, held while we wait, would abort the interpreter at its end.
    while os.read(0, 4096):
        go_on.set()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
