"""Somebody takes away what the logger has open, or its disk does not answer: the run goes on, the
operator is told, and nothing acknowledged is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.end_to_end.conftest import NewLogger
from tests.end_to_end.events import Sender, assert_exactly_once
from tests.end_to_end.processes import LoggerProcess, strace_on, until

QUICK = """
[init]
drain_seconds = 1
low_water_bytes = 0
resume_bytes = 0
[streams.a]
[streams.b]
"""
BOTH = ("a", "b")

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def acknowledges(sender: Sender, more: int = 200) -> None:
    before = sender.source.acknowledged
    until(lambda: sender.source.acknowledged > before + more, f"{more} more acknowledgements")


def sending(logger: LoggerProcess) -> Sender:
    """A run whose both streams take events."""
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH, pause_seconds=0.002)
    sender.start()
    acknowledges(sender)
    return sender


def ends_well(logger: LoggerProcess, sender: Sender) -> None:
    acknowledges(sender)
    sender.halt()
    sender.source.flush(60)
    logger.stop_run(7)
    sender.finish()
    logger.stop()
    assert_exactly_once(logger.data, sender.expected())
    logger.assert_verified()


def test_an_open_file_that_is_deleted_is_saved_while_the_run_goes_on(new_logger: NewLogger) -> None:
    logger = new_logger(QUICK).start()
    sender = sending(logger)
    (logger.data / "runs/7/a_0001.dlog.part").unlink()
    alarm = "file-lost run 7 a_0001.dlog"
    until(lambda: "nothing acknowledged is lost" in logger.alarms().get(alarm, ""), "the alarm")
    assert "runs/7/a_0001.dlog was deleted" in logger.alarms()[alarm]
    ends_well(logger, sender)


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
@needs_strace
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
        acknowledges(sender)
    until(lambda: alarm not in logger.alarms(), "the alarm is cleared")
    logger.start_run(8)
    logger.stop_run(8)
    ends_well(logger, sender)
