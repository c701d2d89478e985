"""The program `dlog`. An interrupt at any moment, also while modules load, ends it with a short
word and 130: so it imports nothing at its top."""

from __future__ import annotations


def main() -> None:
    """Entry point of the command `dlog`."""
    try:
        from dlog.cli.interrupts import run_program

        run_program(_command_line)
    except KeyboardInterrupt:
        import os

        os.write(2, b"dlog: interrupted\n")
        os._exit(130)


def _command_line() -> None:
    from dlog.cli.main import run

    run()


if __name__ == "__main__":
    main()
