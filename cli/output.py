"""What every command says, the same way: data to stdout, words to stderr, progress on a terminal.

It formats and prints; it decides nothing. `rich` is imported only where it is needed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from dlog.cli.tables import Table

_WIDTH_OF_A_PIPE: Final = 100_000
_NARROW: Final = 100  # a narrower terminal has the short bar
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
_CONTROLS: Final = {n: f"\\x{n:02x}" for n in (*range(32), *range(127, 160))}


def words(text: str) -> None:
    """Something for a person. A stream that takes nothing ends no command."""
    with suppress(OSError):
        print("\n".join(plain(line) for line in text.split("\n")), file=sys.stderr, flush=True)


def problem(text: str) -> None:
    """What went wrong, as every command says it."""
    words(f"dlog: {text}")


def plain(text: str) -> str:
    """The text with its control characters shown: what a peer or a file says stays text, and in
    its line."""
    return text.translate(_CONTROLS)


def json_out(value: Any) -> None:
    """A JSON document to stdout: on one line for a script, indented for a terminal."""
    text = _json(value)
    if sys.stdout.isatty():
        text = msgspec.json.format(text, indent=2)
    print(_readable_json(text), flush=True)


def json_line(value: Any) -> None:
    """One of several JSON documents, each on its line."""
    print(_readable_json(_json(value)), flush=True)


def _json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # a path that is no UTF-8: its bytes stand as lone surrogates
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()


def _readable_json(text: bytes) -> str:
    """In ASCII where stdout is not UTF-8: escapes are the same document in each encoding."""
    letters = text.decode()
    if sys.stdout.encoding.lower().replace("-", "") == "utf8":
        return letters
    return _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], letters)


def console(*, stderr: bool = False) -> Console:
    """Where tables go. Names that hold brackets are no markup. Nothing is cut in a pipe: it has no
    width."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDTH_OF_A_PIPE
    return Console(
        file=stream, markup=False, highlight=False, emoji=False, width=width, soft_wrap=False
    )


def show(what: RenderableType, *, style: str = "") -> None:
    """Print to stdout what may be copied: a word that is longer than a line stays whole, and the
    terminal wraps it."""
    console().print(what, style=style or None, soft_wrap=True)


def table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table in the one style. numbers: the columns that are right-aligned."""
    from dlog.cli.tables import Table

    return Table(*columns, numbers=numbers)


class Progress(Protocol):
    def advance(self, amount: float) -> None: ...

    def say(self, text: str) -> None: ...


class _Quiet:
    def advance(self, amount: float) -> None:
        pass

    def say(self, text: str) -> None:
        pass


@contextmanager
def progress(what: str, total: float | None, *, unit: str = "") -> Iterator[Progress]:
    """Progress of long work, on stderr, where that is a terminal. unit "bytes" shows sizes."""
    if not sys.stderr.isatty():
        yield _Quiet()
        return
    from rich import progress as rich_progress

    columns: list[rich_progress.ProgressColumn] = [
        rich_progress.TextColumn("{task.description}", markup=False)
    ]
    out = console(stderr=True)
    bar_width = 40 if out.width >= _NARROW else 8
    columns += [rich_progress.BarColumn(bar_width), rich_progress.TaskProgressColumn()]
    if unit == "bytes":
        columns += [rich_progress.DownloadColumn(binary_units=True)]
        columns += [rich_progress.TransferSpeedColumn()]
    else:
        columns += [rich_progress.MofNCompleteColumn()]
    columns += [rich_progress.TimeRemainingColumn(compact=True)]
    with rich_progress.Progress(
        *columns, console=out, transient=True,
        # What is printed goes above the bar by way of stderr; data for a pipe must not.
        redirect_stdout=sys.stdout.isatty(),
    ) as shown:  # fmt: skip
        task = shown.add_task(what, total=total)

        class _Shown:
            def advance(self, amount: float) -> None:
                shown.advance(task, amount)

            def say(self, text: str) -> None:
                shown.update(task, description=plain(text))

        yield _Shown()


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A sign of life on a terminal while something is waited for."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.text import Text

    with console(stderr=True).status(Text(plain(what))):
        yield
