"""A data directory whose journal is gone is never begun anew over files that are still open."""

from __future__ import annotations

import shutil

import pytest

from tests.rig.commands import run_dlog
from tests.rig.processes import QUICK_INIT, NewLogger

pytestmark = pytest.mark.long

CONFIGURATION = QUICK_INIT + "\n[streams.photons]\n"


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
