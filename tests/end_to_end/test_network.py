"""Networks that are cut and held up, processes that stand still: the sources go on, and every event
stands once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import dlog
from dlog.errors import EventsRefused
from tests.rig.commands import dlog_command, environment, start_python
from tests.rig.exactly_once import assert_acknowledged_once, finish
from tests.rig.network import Relay
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.rig.sources import Sender, readable
from tests.waiting import LONG, until, until_still

pytestmark = pytest.mark.long

CONFIGURATION = (
    QUICK_INIT
    + """
[init.stream_defaults]
reserve_bytes = "1 MiB"
[streams.a]
part_events = 200
[streams.b]
ranges = false
part_events = 500
"""
)
BOTH = ("a", "b", "a+b")


@pytest.fixture
def logger(new_logger: NewLogger) -> LoggerProcess:
    """With run 7 active."""
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(7)
    return logger


# --- the network -------------------------------------------------------------------------------


def test_connections_that_are_cut_lose_and_double_nothing(logger: LoggerProcess) -> None:
    chance = random.Random(7)
    with Relay(logger.event_address) as relay:
        senders = [
            Sender(relay.address, f"source-{i}", (7,), BOTH, offset=i, step=2, pause_seconds=0.005)
            for i in range(2)
        ]
        for sender in senders:
            sender.start()
        for _ in range(20):
            senders[0].goes_on(0)
            time.sleep(chance.uniform(0.0, 0.1))  # so that each cut falls somewhere else
            relay.cut()
        for sender in senders:
            sender.goes_on()
        assert all(sender.source.report().reconnects >= 10 for sender in senders)
        finish(logger, *senders)


def test_a_network_that_holds_everything_up_is_noticed_and_survived(logger: LoggerProcess) -> None:
    with Relay(logger.event_address) as relay:
        sender = Sender(relay.address, "source", (7,), BOTH, pause_seconds=0.005)
        sender.start()
        sender.goes_on()
        relay.hold()
        until(lambda: logger.source_status("source").state == "lost", "the logger misses it")
        assert "source-lost source" in logger.alarms()
        relay.let_go()
        sender.goes_on()
        until(lambda: not logger.alarms(), "the alarm is cleared, and there is no other")
        assert logger.source_status("source").skipped == {}
        finish(logger, sender)


def test_a_run_that_is_stopped_while_the_network_is_away_leaves_no_source_waiting(
    new_logger: NewLogger, tmp_path: Path
) -> None:
    """What was under way is lost, the run ends without it, and no other run is active then."""
    logger = new_logger(CONFIGURATION.replace("drain_seconds = 5", "drain_seconds = 0.5")).start()
    logger.start_run(7)
    recording = tmp_path / "recording.txt"
    recording.write_bytes(b"line\n" * 100_000)
    with Relay(logger.event_address) as relay:
        source = dlog.Source(relay.address, name="source", run=7)
        source.send_many("a", b"before", sizes=[1] * 6)
        source.flush(LONG)
        replay = subprocess.Popen(
            dlog_command(
                "send", recording, "--run", 7, "--to", relay.address, "--stream", "b", "--rate",
                4000, "--name", "replay", "--state", tmp_path / "state",
            ),
            env=environment(), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            until(lambda: logger.stream_status(7, "b").counts.stored > 0, "the replay has begun")
            relay.hold()
            source.send_many("a", b"lost", sizes=[1] * 4)
            until(lambda: source.report().waiting != "", "the source misses the logger")
            logger.stop_run(7)
            relay.cut()
            relay.let_go()
            with pytest.raises(EventsRefused, match="no-run-active") as refused:
                source.close(LONG)
            assert refused.value.reasons == {"no-run-active": 4}
            assert source.report().acknowledged == 6
            _, said = replay.communicate(timeout=LONG)
            assert replay.returncode == 1, said
            assert "no-run-active" in said
        finally:
            replay.kill()
            replay.wait()


# --- processes that stand still, or die --------------------------------------------------------


def test_a_logger_that_stands_still_for_a_while_goes_on(logger: LoggerProcess) -> None:
    sender = Sender(logger.data, "source", (7,), BOTH, pause_seconds=0.005)
    sender.start()
    sender.goes_on()
    logger.signal(signal.SIGSTOP)
    until(lambda: sender.source.report().state != "connected", "the source misses it")
    logger.signal(signal.SIGCONT)
    sender.goes_on()
    finish(logger, sender)


_COLLECTOR = """
import sys
import dlog
from tests.rig.sources import payload_of

with dlog.Source(sys.argv[1], name="collector", run=7) as source:
    for number in range(int(sys.argv[2]), 10**9):
        source.send("b", payload_of("collector", 7, "b", number), number=number)
        if number % 50 == 0:
            source.flush()
            print(number, flush=True)
"""


def test_a_source_that_is_killed_keeps_what_was_acknowledged_and_its_successor_goes_on(
    logger: LoggerProcess,
) -> None:
    acknowledged: list[int] = []
    for first in (0, 1_000_000):
        with start_python(_COLLECTOR, logger.data, first) as process:
            assert process.stdout is not None
            for _ in range(5):
                acknowledged.append(int(process.stdout.readline()))
            process.kill()
    # Nothing more will come of it; the run ends when the drain time is over.
    logger.stop_run(7)
    numbers = readable([logger.data], [7])[("collector", 7, "b"), "b"].tolist()
    assert len(numbers) == len(set(numbers))
    for first, last in ((0, acknowledged[4]), (1_000_000, acknowledged[9])):
        assert set(range(first, last + 1)) <= set(numbers)
    logger.stop()
    logger.assert_verified()


# --- ends of runs, killed under way ------------------------------------------------------------


@pytest.mark.parametrize("command", ["STOP RUN", "ABORT RUN"])
def test_a_run_that_ends_under_load_while_the_logger_is_killed_is_accounted_for(
    logger: LoggerProcess, command: str
) -> None:
    chance = random.Random(3)
    for run in (8, 9, 10):
        logger.start_run(run)
        sender = Sender(logger.data, f"source-{run}", (run,), BOTH, pause_seconds=0.002)
        sender.start()
        sender.goes_on()
        with logger.coor() as coor:
            asking = threading.Thread(target=coor.ask, args=(command, {"run": run}))
            asking.start()
            time.sleep(chance.uniform(0.0, 0.05))
            logger.kill()
            logger.start(auto=False)
            asking.join(LONG)
            assert not asking.is_alive()
        sender.ended_with_its_run()
        with suppress(EventsRefused):
            sender.source.close(LONG)
        report = sender.source.report()
        if command == "STOP RUN":
            assert set(report.refused) <= {"run-ended"}
        else:
            assert set(report.refused) <= {"run-aborted", "run-ended", "no-run-active"}
        assert_acknowledged_once(logger.data, sender)
        wanted = "ENDED" if command == "STOP RUN" else "ABORTED"
        assert logger.ended_run(run).state == wanted
    logger.assert_verified()


# --- nothing is left behind --------------------------------------------------------------------


def test_forty_runs_leave_no_thread_and_no_open_file_behind(logger: LoggerProcess) -> None:
    with dlog.Source(logger.data, name="source") as source:
        early = (0, 0)
        for run in range(8, 48):
            logger.start_run(run)
            for number in range(20):
                source.send(["a", "b"], b"x" * 100, run=run, number=number)
            source.flush(LONG)
            logger.stop_run(run)
            if run == 12:
                early = until_still(lambda: resources(logger), "the number of threads and files")
        until(
            lambda: all(n <= m for n, m in zip(resources(logger), early, strict=True)),
            "as few threads and files as at the beginning",
        )
    for run in range(8, 48):
        assert logger.ended_run(run).state == "ENDED"
        assert {count.stored for count in logger.counts(run).values()} == {20}


def resources(logger: LoggerProcess) -> tuple[int, int]:
    """Threads and open files of the logger."""
    process = Path(f"/proc/{logger.pid}")
    return len(os.listdir(process / "task")), len(os.listdir(process / "fd"))
