"""How a program of ours ends by Ctrl-C or by a signal: with a short word, and an exit code that
says so. It imports little, so that an interrupt finds it already there."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

_BY_SIGNAL: Final = 128
INTERRUPTED: Final = _BY_SIGNAL + signal.SIGINT
_told: Final[list[str]] = []


def run_program(program: Callable[[], int | None]) -> NoReturn:
    """Call it, and exit with what it returns, or with what it raises `SystemExit` with.

    What it needs it imports itself: an interrupt in these imports ends it as any other.
    """
    try:
        code: object = program()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        code = INTERRUPTED
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if code == INTERRUPTED:
        tell_interrupt()
    if isinstance(code, int) and code >= _BY_SIGNAL:
        # At once: threads that still read a file, or wait for a play, are not waited for.
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)  # type: ignore[arg-type]


def tell_interrupt(text: str = "interrupted") -> None:
    """Once, by whoever knows the best word for it first."""
    if not _told:
        _told.append(text)
        with suppress(OSError, ValueError):
            print(f"dlog: {text}", file=sys.stderr, flush=True)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """A terminal that is closed, or a SIGTERM, ends what is inside as Ctrl-C does: cleaned up."""

    def end(number: int, _: object) -> None:
        raise SystemExit(_BY_SIGNAL + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
