"""Data go to stdout whatever stderr is: a bar on the terminal takes nothing away from a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from tests.waiting import LONG

_PROGRAM = """
from dlog.cli.output import progress
with progress("working", 3) as shown:
    for i in range(3):
        print("line", i)
        shown.advance(1)
"""


def test_lines_printed_beside_a_bar_reach_the_pipe() -> None:
    ours, theirs = pty.openpty()
    try:
        run = subprocess.run(
            [sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, stderr=theirs, timeout=LONG,
            check=True,
        )  # fmt: skip
    finally:
        os.close(theirs)
        os.close(ours)
    assert run.stdout.decode().splitlines() == ["line 0", "line 1", "line 2"]
