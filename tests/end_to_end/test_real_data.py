"""Recorded detector data through a real logger: what was recorded is what is read."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import dlog
from tests.rig.commands import dlog_command, environment, run_dlog
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.waiting import LONG

pytestmark = pytest.mark.long

CONFIGURATION = (
    QUICK_INIT
    + """
[init.stream_defaults]
reserve_bytes = "1 MiB"
[streams.small]
[streams.medium]
compression = "zstd"
filter = "shuffle"
[streams.large]
[streams.control]
ranges = false
[streams.E09-W0092]
[streams.B06-W0212]
compression = "zstd"
"""
)


@pytest.fixture(autouse=True)
def state_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def send(logger: LoggerProcess, path: Path, run: int, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        dlog_command("send", path, "--run", str(run), "-d", logger.data, "--json", *options),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip


def outcome(sending: subprocess.Popen[bytes]) -> dict[str, int]:
    said, words = sending.communicate(timeout=LONG)
    assert sending.returncode == 0, words.decode()
    found: dict[str, int] = json.loads(said)
    return found


def raw(logger: LoggerProcess, run: int, *options: str) -> bytes:
    done = run_dlog("cat", "--raw", logger.data / "runs" / str(run), *options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_the_time_tool_comes_back_from_four_streams_though_the_logger_is_killed(
    new_logger: NewLogger, real_data: Path
) -> None:
    recording = real_data / "lcls2" / "test_timetool.xtc2"
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(7)
    sending = send(
        logger, recording, 7, "--size-classes", "small=1000,medium=3000,large", "--rate", "800",
        "--wait",
    )  # fmt: skip
    for _ in range(3):
        try:
            sending.wait(0.5)
        except subprocess.TimeoutExpired:
            logger.kill()
            logger.start(auto=False)
    found = outcome(sending)
    logger.stop_run(7)
    assert found["acknowledged"] == found["events"]
    events = Counter(event.stream for event in dlog.read(logger.data / "runs" / "7"))
    assert (events["small"], events["medium"], events["large"]) == (662, 552, 111)
    assert events["control"] == found["events"] - 1325
    assert raw(logger, 7) == recording.read_bytes()
    logger.stop()
    logger.assert_verified()


def test_two_chips_of_cernatschool_are_two_sources_and_two_streams(
    new_logger: NewLogger, real_data: Path
) -> None:
    chips = sorted(
        folder for folder in (real_data / "cernatschool" / "testdata").iterdir() if folder.is_dir()
    )
    frames = {
        chip.name: sorted(chip.rglob("ASCIIxyC/*.txt"), key=lambda path: path.name)
        for chip in chips
    }
    assert len(frames) == 2
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(7)
    sendings = {
        chip: send(logger, paths[0].parent, 7, "--stream", chip, "--name", chip)
        for chip, paths in frames.items()
    }
    for chip, sending in sendings.items():
        found = outcome(sending)
        assert found["acknowledged"] == found["events"] == len(frames[chip])
    logger.stop_run(7)
    for chip, paths in frames.items():
        content = b"".join(path.read_bytes() for path in paths)
        assert raw(logger, 7, "--stream", chip) == content
    logger.stop()
    logger.assert_verified()
