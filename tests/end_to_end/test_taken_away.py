"""Somebody takes away what the logger has open, or its disk does not answer: the run goes on, the
operator is told, and nothing acknowledged is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rig.exactly_once import finish
from tests.rig.processes import LoggerProcess, NewLogger, strace_on
from tests.rig.sources import Sender
from tests.waiting import until

pytestmark = pytest.mark.long

QUICK = """
[init]
drain_seconds = 1
low_water_bytes = 0
resume_bytes = 0
[streams.a]
[streams.b]
"""
BOTH = ("a", "b")


def sending(logger: LoggerProcess) -> Sender:
    """A run whose both streams take events."""
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH, pause_seconds=0.002)
    sender.start()
    sender.goes_on()
    return sender


def ends_well(logger: LoggerProcess, sender: Sender) -> None:
    sender.goes_on()
    finish(logger, sender)


def test_an_open_file_that_is_deleted_is_saved_while_the_run_goes_on(new_logger: NewLogger) -> None:
    logger = new_logger(QUICK).start()
    sender = sending(logger)
    (logger.data / "runs/7/a_0001.dlog.part").unlink()
    alarm = "file-lost run 7 a_0001.dlog"
    until(lambda: "nothing acknowledged is lost" in logger.alarms().get(alarm, ""), "the alarm")
    assert "runs/7/a_0001.dlog was deleted" in logger.alarms()[alarm]
    ends_well(logger, sender)


def test_a_run_whose_folder_is_moved_goes_on_in_a_new_one(
    new_logger: NewLogger, tmp_path: Path
) -> None:
    logger = new_logger(QUICK).start()
    sender = sending(logger)
    (logger.data / "runs/7").rename(tmp_path / "kept")
    alarms = {f"file-lost run 7 {stream}_0001.dlog" for stream in BOTH}
    until(lambda: alarms <= set(logger.alarms()), "the alarms")
    assert str(tmp_path / "kept") in logger.alarms()["file-lost run 7 a_0001.dlog"]
    ends_well(logger, sender)


def test_a_journal_that_is_moved_ends_the_logger_which_goes_on_once_it_is_back(
    new_logger: NewLogger, tmp_path: Path
) -> None:
    logger = new_logger(QUICK).start()
    sender = sending(logger)
    (logger.data / "journal").rename(tmp_path / "journal")
    assert logger.ended() == 70
    assert f"was moved to {tmp_path / 'journal'}" in logger.log()
    (tmp_path / "journal").rename(logger.data / "journal")
    logger.start()
    ends_well(logger, sender)


@pytest.mark.usefixtures("strace")
def test_a_disk_that_hangs_is_named_and_commands_are_answered(new_logger: NewLogger) -> None:
    logger = new_logger(QUICK).start()
    sender = sending(logger)
    alarm = f"hung {logger.data}"
    # Each look at the free space of the directory takes a minute.
    with strace_on(logger, "fstatfs", "delay_enter=60000000", path=logger.data):
        until(lambda: alarm in logger.alarms(), "the alarm")
        assert logger.ask("SET DEBUG", {"level": "info"}).ok
        assert logger.ask("PAUSE RUN", {"run": 7}).ok
        assert logger.ask("RESUME RUN", {"run": 7}).ok
        refused = logger.ask("START RUN", {"run": 8})
        assert not refused.ok
        assert "does not answer" in refused.error
        sender.goes_on()
    until(lambda: alarm not in logger.alarms(), "the alarm is cleared")
    logger.start_run(8)
    logger.stop_run(8)
    ends_well(logger, sender)
