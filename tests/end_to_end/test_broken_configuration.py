"""A configuration that does not hold at a restart: what is live goes on as it is in the journal,
and what is new is refused."""

from __future__ import annotations

import pytest

from tests.rig.commands import run_dlog
from tests.rig.exactly_once import assert_exactly_once
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.rig.sources import Sender

pytestmark = pytest.mark.long

STREAM = "[streams.photons]\n"


def killed_in_a_run(new_logger: NewLogger) -> tuple[LoggerProcess, Sender]:
    logger = new_logger(QUICK_INIT + STREAM).start()
    logger.start_run(1)
    sender = Sender(logger.data, "source", (1,), ("photons",))
    sender.send_acknowledged(20)
    logger.kill()
    return logger, sender


def broken(logger: LoggerProcess) -> None:
    logger.configure_with(f"{QUICK_INIT}{STREAM}part_bites = 7\n")
    with logger.config_file.open("a") as file:
        file.write("[streams.other\n")


def test_live_runs_go_on_and_the_new_configuration_is_refused(new_logger: NewLogger) -> None:
    logger, sender = killed_in_a_run(new_logger)
    broken(logger)
    logger.start(state="RUNNING")
    assert "Expected ']'" in logger.alarms()["configuration"]
    sender.send_acknowledged(20)
    sender.source.close()
    logger.stop_run(1)
    logger.stop()
    assert_exactly_once(logger.directories, sender)
    refused = run_dlog("start", "-c", logger.config_file)  # nothing is live any more
    assert refused.returncode == 78
    assert b"Expected ']'" in refused.stderr


def test_when_no_source_is_left_the_start_ends_as_it_is_documented(new_logger: NewLogger) -> None:
    logger, sender = killed_in_a_run(new_logger)
    logger.configure_with(QUICK_INIT)  # no stream
    logger.start(state="RUNNING")
    assert "at least one" in logger.alarms()["configuration"]
    sender.source.close()
    assert logger.ended() == 78
    logger.configure_with(QUICK_INIT + STREAM)
    logger.start(state="RUNNING")  # the run was left as it was
    assert "configuration" not in logger.alarms()
    logger.stop_run(1)
    logger.stop()
