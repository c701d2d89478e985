"""That two loggers never run on one data directory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlog.adapters.directory_lock import DirectoryLock
from dlog.errors import DataDirectoryGone, LockedByAnother
from dlog.recovery.facts import logger_runs

CHECKOUT = Path(__file__).resolve().parent.parent.parent
_HOLD = """
import os, sys, time
from pathlib import Path
from dlog.adapters.directory_lock import DirectoryLock
lock = DirectoryLock.acquire(Path(sys.argv[1]))
if len(sys.argv) > 2 and os.fork() == 0:
    time.sleep(60)
print("held", flush=True)
sys.stdin.read()
"""


def holder(root: Path, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(root), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_logger_is_refused_and_told_who_runs(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        with pytest.raises(LockedByAnother, match=f"process {other.pid}") as refused:
            DirectoryLock.acquire(tmp_path)
        assert refused.value.exit_code == 75
        other.kill()


def test_a_second_logger_is_refused_where_the_lock_file_was_deleted(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        (tmp_path / "lock").unlink()
        assert logger_runs(tmp_path)
        for _ in range(2):  # the first try makes a lock file
            with pytest.raises(LockedByAnother, match="was deleted") as refused:
                DirectoryLock.acquire(tmp_path)
            assert refused.value.exit_code == 75
        other.kill()
    DirectoryLock.acquire(tmp_path).release()
    assert not logger_runs(tmp_path)


def test_the_lock_goes_with_its_process_however_it_dies(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        other.kill()
    with DirectoryLock.acquire(tmp_path) as lock:
        assert (tmp_path / "lock").read_text().strip() == str(os.getpid())
        assert lock.root == tmp_path


def test_a_forked_child_that_outlives_the_logger_does_not_keep_the_lock(tmp_path: Path) -> None:
    other = holder(tmp_path, "fork")
    try:
        other.kill()
        other.wait()
        DirectoryLock.acquire(tmp_path).release()
    finally:
        os.killpg(other.pid, 9)
        other.communicate()


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    lock = DirectoryLock.acquire(tmp_path)
    with pytest.raises(LockedByAnother, match=str(os.getpid())):
        DirectoryLock.acquire(tmp_path)
    lock.release()
    lock.release()
    DirectoryLock.acquire(tmp_path).release()


def test_waiting_for_a_lock_is_never_done(tmp_path: Path) -> None:
    with DirectoryLock.acquire(tmp_path):
        began = time.monotonic()
        with pytest.raises(LockedByAnother):
            DirectoryLock.acquire(tmp_path)
        assert time.monotonic() - began < 1.0


def test_a_missing_directory_is_gone(tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryGone):
        DirectoryLock.acquire(tmp_path / "nowhere")
