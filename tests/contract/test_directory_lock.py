"""That two loggers never run on one data directory."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from pathlib import Path

import pytest

from dlog.adapters import directory_lock
from dlog.adapters.directory_lock import DirectoryLock, is_locked
from dlog.errors import DataDirectoryGone, LockedByAnother
from tests.rig.commands import start_python

_HOLD = """
import os, sys, time
from pathlib import Path
from dlog.adapters.directory_lock import DirectoryLock
lock = DirectoryLock.acquire(Path(sys.argv[1]))
if len(sys.argv) > 2 and os.fork() == 0:
    time.sleep(600)
print("held", flush=True)
sys.stdin.read()
"""


def holder(root: Path, *arguments: str) -> subprocess.Popen[str]:
    process = start_python(_HOLD, root, *arguments, start_new_session=True)
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
        assert is_locked(tmp_path)
        for _ in range(2):  # the first try makes a lock file
            with pytest.raises(LockedByAnother, match="was deleted") as refused:
                DirectoryLock.acquire(tmp_path)
            assert refused.value.exit_code == 75
        other.kill()
    DirectoryLock.acquire(tmp_path).release()
    assert not is_locked(tmp_path)


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


def test_a_glance_at_the_lock_does_not_keep_a_logger_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused at first, and the glance is over before it gives up."""
    monkeypatch.setattr(directory_lock, "LOOK_SECONDS_MAX", 10.0)
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        glance = threading.Timer(0.1, fcntl.flock, (lock, fcntl.LOCK_UN))
        glance.start()
        DirectoryLock.acquire(tmp_path).release()
        glance.join()


def test_a_missing_directory_is_gone(tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryGone):
        DirectoryLock.acquire(tmp_path / "nowhere")
