"""Data go to stdout whatever stderr is: a bar on the terminal takes nothing away from a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import Final

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


_TABLE: Final = """
from dlog.cli.output import show, table
shown = table("events", *"abcd", numbers=("events",))
shown.add_row("40,000", *["data/runs/7/photons_0001.dlog"] * 3, "/a/" + "long" * 30)
show(shown)
"""


def test_a_narrow_terminal_cuts_no_cell_that_may_be_copied() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    try:
        subprocess.run(
            [sys.executable, "-c", _TABLE], stdout=theirs, timeout=LONG, check=True,
            env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        said = os.read(ours, 1 << 16).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert said.count("data/runs/7/photons_0001.dlog") == 3
    assert "/a/" + "long" * 30 in said
    assert "40,000" in said
