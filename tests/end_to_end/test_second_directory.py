"""A second data directory that is not there at a start, or is another logger's."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

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
    logger.spawn()
    assert logger.ended() == 70
    assert "is its disk mounted?" in logger.log()
    second.rmdir()
    mounted.rename(second)
    logger.start()
    sender.send(1)
    finish(logger, sender)


def test_two_loggers_do_not_share_a_second_directory(new_logger: NewLogger, tmp_path: Path) -> None:
    with_second(new_logger, tmp_path).start()
    other = with_second(new_logger, tmp_path, name="other")
    other.spawn()
    assert other.ended() == 78
    assert "is a data directory of another logger" in other.log()
