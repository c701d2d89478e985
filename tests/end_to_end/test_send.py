"""`dlog send` with a real logger: recordings come back byte for byte, also when the logger and the
replay are killed again and again."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.rig.commands import dlog_command, environment, run_dlog
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.waiting import LONG, until

pytestmark = pytest.mark.long

STREAMS = "[streams.small]\n[streams.large]\n[streams.control]\n[streams.events]\n"
RECORD_BYTES = 1500
RECORDS = 30_000
KILLS = 6


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def raw(logger: LoggerProcess, run: int) -> bytes:
    done = run_dlog("cat", "--raw", logger.data / "runs" / str(run))
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def sent(logger: LoggerProcess, path: Path, run: int, *options: str) -> dict[str, Any]:
    """The outcome of a `dlog send` that must succeed."""
    done = run_dlog("send", path, "--run", str(run), "-d", logger.data, "--json", *options)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.usefixtures("state")
def test_recordings_come_back_byte_for_byte(new_logger: NewLogger, real_data: Path) -> None:
    logger = new_logger(QUICK_INIT + STREAMS).start()
    classes = ("--size-classes", "small=1000,large")
    torn = 0
    for run, name in enumerate(("test_timetool", "test_epix_calib", "test_hsd"), 1):
        recording = real_data / "lcls2" / f"{name}.xtc2"
        logger.start_run(run)
        found = sent(logger, recording, run, *classes)
        logger.stop_run(run)
        assert found["acknowledged"] == found["events"] > 0
        torn = sum(each["size_bytes"] for each in found["torn"])
        content = recording.read_bytes()
        assert raw(logger, run) == content[: len(content) - torn]
    assert torn, "the last one has a torn end"
    logger.assert_verified()


def test_a_replay_and_a_logger_that_are_killed_lose_and_double_nothing(
    new_logger: NewLogger, tmp_path: Path, state: Path
) -> None:
    chance = random.Random(7)
    recording = tmp_path / "records.bin"
    recording.write_bytes(np.random.default_rng(7).bytes(RECORD_BYTES * RECORDS))
    logger = new_logger(QUICK_INIT + STREAMS).start()
    logger.start_run(7)
    command = dlog_command(
        "send", recording, "--run", "7", "-d", logger.data, "--format", "records", "-o",
        f"size={RECORD_BYTES}", "--rate", "8000", "--wait", "--timeout", str(LONG), "--json",
    )  # fmt: skip
    for _ in range(KILLS):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
        until(lambda: list(state.glob("dlog/send/*.json")), "a state file")
        time.sleep(chance.uniform(0.5, 1.2))
        if chance.random() < 0.5:
            logger.kill()
            logger.start()
            time.sleep(chance.uniform(0.0, 0.5))
        process.kill()
        process.communicate()
    done = subprocess.run(
        command, capture_output=True, env=environment(), timeout=LONG, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    logger.stop_run(7)
    content = raw(logger, 7)
    assert len(content) == recording.stat().st_size
    assert content == recording.read_bytes()
    if not found["sent_before"]:
        assert found["acknowledged"] == found["events"] == RECORDS
    logger.assert_verified()
    assert os.listdir(state / "dlog" / "send")
