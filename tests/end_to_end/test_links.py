"""Symbolic links and other second names of directories: used, or refused with words."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import dlog
from tests.rig.commands import run_dlog
from tests.rig.exactly_once import finish
from tests.rig.processes import QUICK_INIT, NewLogger
from tests.rig.sources import Sender
from tests.waiting import until

pytestmark = pytest.mark.long

CONFIGURATION = f"{QUICK_INIT}\n[streams.s]\n"


def move_runs(data: Path, disk: Path) -> None:
    (data / "runs").rename(disk)
    (data / "runs").symlink_to(disk)


def test_runs_that_were_moved_and_linked_are_named_and_no_number_is_lost(
    new_logger: NewLogger, tmp_path: Path
) -> None:
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(1)
    logger.stop_run(1)
    move_runs(logger.data, tmp_path / "disk")
    refused = logger.ask("START RUN", {"run": 2})
    assert f"{logger.data}/runs: a symbolic link to {tmp_path}/disk" in refused.error
    assert logger.status().logger.state == "CONFIGURED"
    logger.assert_verified()
    assert run_dlog("ls", logger.data).returncode == 0
    (logger.data / "runs").unlink()
    (tmp_path / "disk").rename(logger.data / "runs")
    logger.start_run(2)
    logger.stop()
    logger.assert_verified()


def test_a_run_that_is_active_waits_for_its_folder(new_logger: NewLogger, tmp_path: Path) -> None:
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(1)
    sender = Sender(logger.data, "source", (1,), ("s",))
    sender.send_acknowledged(30)
    logger.signal(signal.SIGTERM)
    assert logger.ended() == 0
    move_runs(logger.data, tmp_path / "disk")
    logger.start(state="RUNNING")
    until(lambda: "a symbolic link to" in str(logger.alarms()), "an alarm names the link")
    sender.send(1)
    (logger.data / "runs").unlink()
    (tmp_path / "disk").rename(logger.data / "runs")
    finish(logger, sender)


def test_a_new_directory_with_a_link_to_runs_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/runs").symlink_to(tmp_path / "disk")
    done = run_dlog("create", tmp_path / "data")
    assert done.returncode == 0
    assert b"runs is a symbolic link to" in done.stderr


def test_data_directories_may_be_links(new_logger: NewLogger, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / f"disk-{name}").mkdir()
        (tmp_path / name).symlink_to(tmp_path / f"disk-{name}")
    logger = new_logger(
        f'[logger]\ndata = ["{tmp_path}/first", "{tmp_path}/second"]\n{QUICK_INIT}\n[streams.a]\n'
        "[streams.b]\ndirectories = [1]\n",
        data=tmp_path / "first",
    ).start()
    logger.start_run(1)
    with dlog.Source(logger.data, name="c", run=1) as source:
        source.send("a", b"x")
        source.send("b", b"y")
    logger.stop_run(1)
    logger.stop()
    logger.assert_verified()
    assert len(list((tmp_path / "disk-second/runs/1").glob("*.dlog"))) == 1


@pytest.mark.parametrize("second", ["data", "./data", "x/../data", "link"])
def test_a_directory_that_is_named_twice_is_refused(
    new_logger: NewLogger, tmp_path: Path, second: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "x").mkdir()
    logger = new_logger(
        f'[logger]\ndata = ["{tmp_path}/data", "{tmp_path}/{second}"]\n{CONFIGURATION}',
        data=tmp_path / "data",
    )
    logger.spawn()
    assert logger.ended() == 78
    assert "logger.data: " in logger.log()
    assert "names a directory twice" in logger.log() or "are one directory" in logger.log()
    assert not (tmp_path / "data").exists()
