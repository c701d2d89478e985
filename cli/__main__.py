"""The program `dlog`. An interrupt at any moment, also while modules load, ends it with a short
word and 130."""

from __future__ import annotations

from dlog.cli.interrupts import run_program


def _command_line() -> None:
    from dlog.cli.main import app

    app(prog_name="dlog")


def main() -> None:
    """Entry point of the command `dlog`."""
    run_program(_command_line)


if __name__ == "__main__":
    main()
