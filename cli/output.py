"""What every command says, the same way: data to stdout, words to stderr, progress on a terminal.

It formats and prints; it decides nothing. `rich` is imported only where it is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDTH_OF_A_PIPE: Final = 200
_WIDTH_MAX: Final = 10_000
_CONTROLS: Final = {n: f"\\x{n:02x}" for n in (*range(32), *range(127, 160))}


def words(text: str) -> None:
    """Something for a person."""
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
    text = msgspec.json.encode(value)
    if sys.stdout.isatty():
        text = msgspec.json.format(text, indent=2)
    print(text.decode(), flush=True)


def json_line(value: Any) -> None:
    """One of several JSON documents, each on its line."""
    print(msgspec.json.encode(value).decode(), flush=True)


def console(*, stderr: bool = False) -> Console:
    """Where tables go. Names that hold brackets are no markup."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDTH_OF_A_PIPE
    return Console(file=stream, markup=False, highlight=False, width=width, soft_wrap=False)


def table(*columns: str, title: str | None = None, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table in the one style. numbers: the columns that are right-aligned, and keep their
    width on a narrow terminal. The text of other columns goes on in the next line there."""
    from rich import box
    from rich.table import Table

    made = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
        header_style="bold", pad_edge=False, show_edge=False,
    )  # fmt: skip
    for column in columns:
        number = column in numbers
        made.add_column(
            column, justify="right" if number else "left", no_wrap=number, overflow="fold"
        )
    return made


def print_in_full(shown: Table) -> None:
    """Print a table whose cells are copied. On a terminal that is too narrow the terminal wraps the
    lines, so that no number and no path is cut."""
    from rich.measure import Measurement

    out = console()
    natural = Measurement.get(out, out.options.update(max_width=_WIDTH_MAX), shown).maximum
    out.width = max(out.width, natural)
    out.print(shown)


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

    columns: list[rich_progress.ProgressColumn | str] = ["{task.description}"]
    columns += [rich_progress.BarColumn(), rich_progress.TaskProgressColumn()]
    if unit == "bytes":
        columns += [rich_progress.DownloadColumn(binary_units=True)]
        columns += [rich_progress.TransferSpeedColumn()]
    else:
        columns += [rich_progress.MofNCompleteColumn()]
    columns += [rich_progress.TimeRemainingColumn(compact=True)]
    with rich_progress.Progress(
        *columns, console=console(stderr=True), transient=True,
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
    with console(stderr=True).status(what):
        yield
