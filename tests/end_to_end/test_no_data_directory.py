"""A data directory that is not there: it is made by `dlog create` alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dlog
from tests.rig.commands import run_dlog
from tests.rig.processes import QUICK_INIT, NewLogger
from tests.waiting import until

pytestmark = pytest.mark.long


def test_a_start_makes_no_data_directory(tmp_path: Path) -> None:
    config = tmp_path / "dlog.toml"
    config.write_text('[logger]\ndata = ["disk/daq"]\n')
    disk = tmp_path / "disk"
    disk.mkdir()  # the mount point without its disk
    refused = run_dlog("start", "-c", config)
    assert refused.returncode == 78
    assert f"`dlog create {disk / 'daq'}`" in refused.stderr.decode()
    assert b"is its disk mounted?" in refused.stderr
    assert list(disk.iterdir()) == []
    config.write_text('[logger]\ndata = ["disk"]\n')
    assert run_dlog("start", "-c", config).returncode == 78
    assert list(disk.iterdir()) == []
    created = run_dlog("create", "-c", config)
    assert (created.returncode, created.stderr.decode()) == (0, f"created {disk}\n")
    repeated = run_dlog("create", disk)
    assert repeated.returncode == 0
    assert repeated.stderr.decode() == f"{disk} was created before, and is not used yet\n"
    again = run_dlog("create", tmp_path)
    assert again.returncode == 1
    assert b"a data directory begins empty" in again.stderr


def test_a_source_keeps_its_events_from_a_logger_that_was_begun_anew(
    new_logger: NewLogger, tmp_path: Path
) -> None:
    configuration = QUICK_INIT + "[streams.photons]\n"
    logger = new_logger(configuration).start()
    logger.start_run(1)
    source = dlog.Source(logger.event_address, name="source", run=1)
    source.send("photons", b"acknowledged", number=1)
    source.flush(30)
    logger.kill()
    source.send("photons", b"not yet", number=2)
    port = json.loads((logger.data / "logger.json").read_text())["event_address"]
    other = new_logger(
        QUICK_INIT + f'event_address = "{port}"\n[streams.photons]\n', name="other"
    ).start()
    other.start_run(1)
    until(lambda: "another logger" in source.report().waiting, "the source says whom it waits for")
    assert source.report().pending == 1
    other.stop()
    logger.start(state="RUNNING")
    source.flush(30)
    source.close()
    logger.stop_run(1)
    logger.stop()
    assert [bytes(e.payload) for e in dlog.read(logger.data / "runs" / "1")] == [
        b"acknowledged",
        b"not yet",
    ]
