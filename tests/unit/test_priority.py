"""The logger's claim on the processors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dlog.adapters import priority


def niceness_of(begin: int) -> int:
    program = (
        "import os\n"
        "from dlog.adapters.priority import run_before_others\n"
        # Not nice(): a test before this one may have run a logger in this very process.
        f"os.setpriority(os.PRIO_PROCESS, 0, {begin})\n"
        "print(run_before_others())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user may not")
def test_it_runs_before_others() -> None:
    assert niceness_of(0) == priority.NICENESS


def test_a_niceness_that_was_given_is_kept() -> None:
    assert niceness_of(5) == 5


def test_who_may_not_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    before = os.getpriority(os.PRIO_PROCESS, 0)
    monkeypatch.setattr(priority.os, "setpriority", refuse)
    assert priority.run_before_others() == before
