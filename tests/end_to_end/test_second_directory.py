"""A second data directory that is not there at a start, or is another logger's."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.rig.commands import run_dlog
from tests.rig.exactly_once import finish
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.rig.sources import Sender

pytestmark = pytest.mark.long


def with_second(new_logger: NewLogger, folder: Path, name: str = "logger") -> LoggerProcess:
    data, second = folder / name / "data", folder / "second"
    return new_logger(
        f'[logger]\ndata = ["{data}", "{second}"]\n{QUICK_INIT}\n[streams.far]\n'
        'directories = [1]\nreserve_bytes = "1 MiB"\n',
        name=name,
    )


def test_a_disk_that_is_not_mounted_is_not_taken_for_one_that_lost_all(
    new_logger: NewLogger, tmp_path: Path
) -> None:
    logger = with_second(new_logger, tmp_path).start()
    logger.start_run(1)
    sender = Sender(logger.data, "source", (1,), ("far",))
    sender.send_acknowledged(30)
    logger.signal(signal.SIGTERM)
    assert logger.ended() == 0
    second, mounted = tmp_path / "second", tmp_path / "elsewhere"
    second.rename(mounted)
    second.mkdir()  # the mount point without its disk
    logger.start()
    assert "is its disk mounted?" in logger.alarms()[f"directory {second}"]
    sender.send(1)  # for a stream that has no other directory: it waits
    assert list(second.iterdir()) == []
    verified = run_dlog("verify", logger.data)
    assert verified.returncode == 1, verified.stdout  # neither good nor damaged
    assert "1 files in it were not looked at" in verified.stdout.decode()
    assert run_dlog("ls", logger.data).returncode == 0
    check = run_dlog("journal", "check", logger.data)
    assert check.returncode == 0, check.stdout
    logger.signal(signal.SIGTERM)
    assert logger.ended() == 0
    second.rmdir()
    mounted.rename(second)
    logger.start()
    assert f"directory {second}" not in logger.alarms()
    finish(logger, sender)


def test_two_loggers_do_not_share_a_second_directory(new_logger: NewLogger, tmp_path: Path) -> None:
    with_second(new_logger, tmp_path).start()
    other = with_second(new_logger, tmp_path, name="other")
    other.spawn()
    assert other.ended() == 78
    assert "is a data directory of another logger" in other.log()
