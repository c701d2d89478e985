"""A data directory whose journal is gone is never begun anew over files that are still open."""

from __future__ import annotations

import fcntl
import shutil
import threading
import time

import pytest

from dlog.adapters.directory_lock import DirectoryLock
from tests.end_to_end.conftest import NewLogger
from tests.end_to_end.processes import QUICK_INIT, run_dlog

CONFIGURATION = QUICK_INIT + "\n[streams.photons]\n"


@pytest.mark.long
def test_a_start_without_journal_over_open_files_is_refused(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(1)
    logger.kill()
    shutil.rmtree(logger.data / "journal")
    logger.spawn()
    assert logger.ended() == 70
    assert f"dlog journal rebuild {logger.data}" in logger.log()
    assert not (logger.data / "journal").exists()
    rebuilt = run_dlog("journal", "rebuild", str(logger.data))
    assert rebuilt.returncode == 0, rebuilt.stderr
    logger.start()
    logger.stop_run(1)


def test_a_glance_at_the_lock_does_not_keep_a_logger_out(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION)
    logger.data.mkdir(parents=True)
    with (logger.data / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        glance = threading.Timer(0.2, fcntl.flock, (lock, fcntl.LOCK_UN))
        glance.start()
        begin = time.monotonic()
        DirectoryLock.acquire(logger.data).release()
        assert time.monotonic() - begin < 0.5
        glance.join()
