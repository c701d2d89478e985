"""`make bench`, see program.py. An interrupt ends it with a short word and 130."""

from __future__ import annotations

from dlog.cli.interrupts import run_program


def _program() -> int:
    from tests.benchmarks.program import main

    return main()


if __name__ == "__main__":
    run_program(_program)
