"""Every way for the logger to end, and what the next start makes of it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from dlog.adapters.coor_link import CoorClient
from dlog.model.messages import Answer
from tests.rig.commands import run_dlog
from tests.rig.exactly_once import finish
from tests.rig.processes import (
    DURABLE_STEPS,
    QUICK_INIT,
    LoggerProcess,
    NewLogger,
    dies_at_step,
    strace_on,
)
from tests.rig.sources import Sender
from tests.waiting import LONG, until

pytestmark = pytest.mark.long

CONFIGURATION = (
    QUICK_INIT
    + """
[streams.ranged]
part_events = 100
late_seconds = 0.5
reserve_bytes = "1 MiB"

[streams.plain]
ranges = false
part_events = 150
reserve_bytes = "1 MiB"
"""
)
# Every how manyth step is tried; 1 takes them all.
STRIDE = int(os.environ.get("DLOG_STEP_STRIDE", "2"))
PATTERN = ("ranged", "plain", "ranged+plain")

needs_strace = pytest.mark.usefixtures("strace")


def a_source(logger: LoggerProcess, *runs: int, name: str = "source", events: int = 60) -> Sender:
    """A source that has sent into every stream; everything is acknowledged."""
    sender = Sender(logger.data, name, runs, PATTERN)
    for run in runs:
        for _ in range(events):
            sender.send(run)
    sender.source.flush(LONG)
    return sender


# --- crashes inside what is under way ----------------------------------------------------------


@needs_strace
def test_a_crash_at_any_step_of_the_resume_changes_nothing(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(7)
    sender = a_source(logger, 7, events=400)
    deaths = 0
    for step in range(1, 1000, 2 * STRIDE):
        for _ in range(30):
            sender.send(7)
        logger.kill()
        logger.spawn(auto=False, prefix=dies_at_step(step))
        until(
            lambda: logger.exit_code() is not None or not sender.source.report().pending,
            "the logger dies, or resumes and stores what is sent",
        )
        if logger.exit_code() is None:
            break
        deaths += 1
    print(f"\n{deaths} deaths inside the resume")
    assert deaths >= 3
    logger.kill()
    logger.start(auto=False)
    finish(logger, sender)


@needs_strace
@pytest.mark.parametrize("command", ["START RUN", "STOP RUN", "ABORT RUN"])
def test_a_command_that_a_crash_falls_into_is_answered_after_the_restart(
    new_logger: NewLogger, command: str
) -> None:
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(1)  # so that the sources have a run to send to all the time
    sender = a_source(logger, 1)
    deaths, died = 0, True
    while died:
        run = deaths + 2
        if command != "START RUN":
            logger.start_run(run)
            for _ in range(130):
                sender.send(run)
            sender.source.flush(LONG)
        answer, died = ask_through_a_crash(logger, command, run, step=1 + deaths * STRIDE)
        assert answer.ok, answer.error
        deaths += died
        if command == "START RUN":
            sender.send(run)
            sender.source.flush(LONG)
            logger.stop_run(run)
        state = logger.ended_run(run).state
        assert state == ("ABORTED" if command == "ABORT RUN" else "ENDED")
    print(f"\n{deaths} deaths inside {command}")
    assert deaths >= 2
    finish(logger, sender)


def ask_through_a_crash(
    logger: LoggerProcess, command: str, run: int, step: int
) -> tuple[Answer, bool]:
    """The answer to a command in whose nth step the logger dies, and whether it died."""
    with (
        logger.coor() as coor,
        strace_on(logger, DURABLE_STEPS, f"signal=SIGKILL:when={step}"),
    ):
        answered = threading.Event()
        revived = threading.Thread(target=revive, args=(logger, answered))
        revived.start()
        boot = logger_boot(coor)
        answer = coor.ask(command, {"run": run})
        answered.set()
        revived.join()
        again = coor.ask(command, {"run": run}, command_id=(answer.session, answer.number))
        assert again.repeated
        assert again.data == answer.data
        return answer, logger_boot(coor) != boot


def revive(logger: LoggerProcess, answered: threading.Event) -> None:
    """Start it again should it die."""
    while not answered.wait(0.01):
        if logger.exit_code() is not None:
            logger.spawn(auto=False)
            return


def logger_boot(coor: CoorClient) -> int:
    boot = coor.ask("STATUS").data["logger"]["boot"]
    assert isinstance(boot, int)
    return boot


# --- the ends that are asked for ---------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_logger_with_0_and_the_next_start_goes_on(
    new_logger: NewLogger, number: signal.Signals
) -> None:
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), PATTERN, pause_seconds=0.005)
    sender.start()
    until(lambda: sender.source.acknowledged > 100, "events are stored")
    logger.signal(number)
    assert logger.ended() == 0
    assert logger.files(7, "*.part"), "the run's files stay open"
    logger.start(auto=False, state="RUNNING")
    assert logger.run_status(7).state == "ACTIVE"
    before = sender.source.acknowledged
    until(lambda: sender.source.acknowledged > before, "the source goes on")
    finish(logger, sender)


def test_what_was_taken_before_sigterm_is_stored_before_the_end(new_logger: NewLogger) -> None:
    patient = CONFIGURATION.replace("settle_seconds = 2", "settle_seconds = 60")
    logger = new_logger(
        patient.replace("[streams.plain]", "[streams.plain]\nflush_interval_ms = 10000")
    ).start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), ("plain",))
    sender.send(7)
    sender.source.flush(LONG)
    sender.send(7)  # so soon after the first one it waits for more
    until(lambda: logger.stream_status(7, "plain").counts.pending == 1, "the event is in memory")
    logger.signal(signal.SIGTERM)
    assert logger.ended() == 0
    until(lambda: sender.source.acknowledged == 2, "the acknowledgement came before the end")
    logger.start(auto=False)
    finish(logger, sender)


def test_resume_goes_on_without_the_configuration(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(7)
    sender = a_source(logger, 7)
    logger.kill()
    logger.config_file.unlink()
    logger.start(resume=True, state="RUNNING")
    # As configured, though the journal has them by name.
    assert [stream.name for stream in logger.run_status(7).streams] == ["ranged", "plain"]
    sender.send(7)
    finish(logger, sender)


def test_a_resumed_run_keeps_its_frozen_configuration(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(7)
    sender = a_source(logger, 7)
    logger.kill()
    logger.configure_with(QUICK_INIT + "[streams.other]\n")
    logger.start()
    assert {s.name for s in logger.run_status(7).streams} == {"ranged", "plain"}
    logger.start_run(8)
    assert {s.name for s in logger.run_status(8).streams} == {"other"}
    sender.send(7)
    logger.stop_run(8)
    finish(logger, sender)


# --- starts that are refused -------------------------------------------------------------------


def test_a_second_logger_on_the_same_data_directory_exits_75(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start()
    for refused in (
        run_dlog("start", "-c", logger.config_file),
        run_dlog("resume", "-d", logger.data),
    ):
        assert refused.returncode == 75
        assert f"process {logger.pid}" in refused.stderr.decode()
    assert logger.status().logger.state == "CONFIGURED"


def test_resume_exits_66_where_there_is_nothing_to_resume(
    new_logger: NewLogger, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run_dlog("resume", "-d", empty).returncode == 66
    assert list(empty.iterdir()) == []
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(7)
    logger.stop_run(7)
    logger.stop()
    ended = run_dlog("resume", "-d", logger.data)
    assert ended.returncode == 66
    assert "no run was active" in ended.stderr.decode()


def test_a_bad_configuration_exits_78_and_names_every_key_at_once(tmp_path: Path) -> None:
    file = tmp_path / "dlog.toml"
    file.write_text(
        """
        [logger]
        data = ["data"]
        name = "no name"
        coor_listen = "nowhere"
        [init]
        drain_seconds = -1
        memory_bytes = "many"
        event_port = 7
        [streams.good]
        part_events = "ten"
        directories = [1]
        [streams."bad.name"]
        [stream]
        """
    )
    refused = run_dlog("start", "-c", file)
    assert refused.returncode == 78
    words = refused.stderr.decode()
    for key in (
        "logger.name", "logger.coor_listen", "init.drain_seconds", "init.memory_bytes",
        "init.event_port", "streams.good.part_events", "streams.good.directories",
        "streams.bad.name", "stream: unknown table",
    ):  # fmt: skip
        assert key in words, f"{key} is not told:\n{words}"
    assert not (tmp_path / "data").exists()
    file.write_text("[logger\n")
    broken = run_dlog("start", "-c", file)
    assert broken.returncode == 78
    assert "line 1" in broken.stderr.decode()
    assert run_dlog("start", "-c", tmp_path / "none.toml").returncode == 78


def test_other_data_directories_are_not_taken_over_while_a_run_is_live(
    new_logger: NewLogger, tmp_path: Path
) -> None:
    logger = new_logger(CONFIGURATION)
    both = f'[logger]\ndata = ["{logger.data}", "{tmp_path}/second"]\n' + CONFIGURATION
    logger.configure_with(both)
    logger.start()
    logger.start_run(7)
    sender = a_source(logger, 7)
    logger.kill()
    logger.configure_with(both.replace(f"{tmp_path}/second", f"{tmp_path}/third"))
    logger.start(state="RUNNING")
    assert "logger.data: run 7 is active" in logger.alarms()["configuration"]
    assert [disk.path for disk in logger.status().disks] == [
        str(logger.data),
        f"{tmp_path}/second",
    ]
    assert not (tmp_path / "third").exists()
    finish(logger, sender)
