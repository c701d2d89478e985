"""Child processes: the last line of one that has ended is taken before it counts as gone."""

from __future__ import annotations

import subprocess
import sys

from dlog.adapters.child_processes import Lines
from tests.waiting import LONG, until


def test_a_process_is_not_over_before_its_last_line_was_taken() -> None:
    lines = Lines()
    program = "print('first')\nprint('last', flush=True)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        lines.of(process)
        process.wait(LONG)
        assert not lines.over(process)
        assert lines.next(LONG) == b"first\n"
        assert not lines.over(process)
        assert lines.next(LONG) == b"last\n"
        until(lambda: lines.over(process), "its output is at its end")
