"""Standard input, output and error as a command finds them: closed, full, or not in UTF-8. It makes
each safe to write to, and never decides what is written.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, Final, TextIO

# Of our own words and tables.
_PLAIN: Final = {
    "…": "...",
    "–": "-",
    "—": "-",
    "→": "->",
    "×": "x",
    "•": "*",
}
_NAMES: Final = {0: "stdin", 1: "stdout", 2: "stderr"}


def open_what_is_closed() -> None:
    """Let /dev/null stand for each stream that is closed (`2>&-`). The next file that is opened,
    perhaps the journal, would get its number, and words for people would go into that file."""
    for number, name in _NAMES.items():
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                # The lowest free number: those below are open by now.
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def show_what_cannot_be_encoded() -> None:
    """On a terminal that has no such letter (Latin-1, LC_ALL=C), or for a path that is no text, the
    letter is shown as an escape; none of our words or tables ends in an error for it."""
    codecs.register_error("dlog.shown", _shown)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="dlog.shown")


def _shown(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter) or _escape(ord(letter)) for letter in letters), error.end


def _escape(letter: int) -> str:
    if 0xDC80 <= letter < 0xDD00:  # a byte of a path that is no UTF-8
        letter -= 0xDC00
    if 0x2800 <= letter < 0x2900:  # what turns while a command waits
        return "."
    if letter < 0x100:
        return f"\\x{letter:02x}"
    return f"\\u{letter:04x}" if letter < 0x10000 else f"\\U{letter:08x}"


class _Outlasting:
    """stdout of such a command."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except BrokenPipeError:
            reader_went_away()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            reader_went_away()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def outlasting_its_reader() -> Iterator[None]:
    """Let the command's work or verdict matter also when its reader went away (`| head`): what is
    printed from then on goes nowhere, and the command goes on to its end."""
    before = sys.stdout
    sys.stdout = _Outlasting(before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = before


def reader_went_away() -> None:
    """What is still buffered, and all that follows, goes nowhere: it must not raise at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def stdout_fails() -> str:
    """Why standard output does not take what was printed, for example a full disk; "" where it
    does, or where the reader of the pipe has gone."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return "" if error.errno == errno.EPIPE else error.strerror or str(error)
    except ValueError:
        return "it is closed"
    return ""


def drop_what_no_stream_takes() -> None:
    """The interpreter flushes at its end, and would turn what fails there into exit code 120."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        if not _flushed(stream):
            with contextlib.suppress(OSError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, number)
                os.close(null)
            _flushed(stream)


def _flushed(stream: TextIO) -> bool:
    try:
        stream.flush()
    except (OSError, ValueError):
        return False
    return True
