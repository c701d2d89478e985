"""Tables and lines of parts that fit the terminal: no number is ever cut, on none.

Where a table is too wide, each of its rows becomes a few lines of `title value` instead. It formats
and decides nothing about what is in it; like `rich`, it is imported only where it is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import Style
from rich.table import Table as RichTable
from rich.text import Text

_GAP: Final = "  "
_PADDING: Final = 3  # between two columns, as the box has it
_WIDE: Final = 100  # columns of a terminal in which a cell may take several lines


class Parts:
    """Parts that are never broken, as many to a line as fit; further lines are indented.

    A part that is longer than a line has lines of its own, broken at its words; only where the
    output is to be copied it stays whole (`rich`: overflow "ignore").
    """

    def __init__(self, parts: Iterable[str | Text], *, indent: int = 2, style: str = "") -> None:
        made = [Text(part) if isinstance(part, str) else part for part in parts]
        self._parts = [part for part in made if part.plain]
        self._indent = " " * indent
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self._lines(console, options):
            line.stylize_before(self._style)
            yield line

    def _lines(self, console: Console, options: ConsoleOptions) -> Iterable[Text]:
        line = Text()
        for part in self._parts:
            if line.plain.strip() and _length(line) + len(_GAP) + _length(part) > options.max_width:
                yield line
                line = Text(self._indent)
            elif line.plain.strip():
                line.append(_GAP)
            line.append_text(part)
            if _length(line) > options.max_width and options.overflow != "ignore":
                *whole, line = self._folded(console, line, options.max_width)
                yield from whole
        if line.plain.strip():
            yield line

    def _folded(self, console: Console, line: Text, width: int) -> list[Text]:
        """The line in several ones, broken between words, and in a word that has no room at all."""
        first, *rest = line.wrap(console, width, overflow="fold")
        below = Text("").join(rest)
        indented = below.wrap(console, max(1, width - len(self._indent)), overflow="fold")
        return [first, *(Text.assemble(self._indent, each) for each in indented)]


class Table:
    """A table in the one style. It is drawn as one where it fits; where it does not, each row is
    drawn as the titles and values of its cells that are not empty.

    numbers: the columns that are right-aligned. A column without a title belongs to the one before
    it.
    """

    def __init__(self, *columns: str, numbers: tuple[str, ...] = ()) -> None:
        self._columns = columns
        self._numbers = numbers
        self._rows: list[tuple[list[Text], str]] = []
        self._sections: set[int] = set()

    def add_row(self, *cells: str | Text, style: str = "") -> None:
        row = [Text(cell) if isinstance(cell, str) else cell for cell in cells]
        assert len(row) == len(self._columns)
        self._rows.append((row, style))

    def add_section(self) -> None:
        """A line between the rows before and after."""
        self._sections.add(len(self._rows))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._widths(options.max_width)
        if widths is None:
            yield from self._records()
        else:
            yield self._grid(widths)

    def _widths(self, width: int) -> list[int] | None:
        """Of each column. None where they do not fit: not even with cells of several lines, or on
        a terminal on which these would be hard to read."""
        cells = [[Text(title), *(row[i] for row, _ in self._rows)] for i, title in self._titles()]
        most = [max(_length(line) for cell in column for line in cell.split()) for column in cells]
        least = [
            number if self._is_number(i) else max(_word(cell) for cell in column)
            for i, (number, column) in enumerate(zip(most, cells, strict=True))
        ]
        room = width - _PADDING * (len(most) - 1)
        while sum(most) > room:
            widest = max(range(len(most)), key=lambda i: most[i] if most[i] > least[i] else 0)
            if width < _WIDE or most[widest] <= least[widest]:
                return None
            most[widest] -= 1
        return most

    def _titles(self) -> Iterable[tuple[int, str]]:
        return enumerate(self._columns)

    def _is_number(self, column: int) -> bool:
        return self._columns[column] in self._numbers

    def _grid(self, widths: Sequence[int]) -> RenderableType:
        shown = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
        for i, title in self._titles():
            number = self._is_number(i)
            shown.add_column(
                title, justify="right" if number else "left", no_wrap=number, overflow="fold",
                width=widths[i],
            )  # fmt: skip
        for at, (row, style) in enumerate(self._rows):
            if at in self._sections:
                shown.add_section()
            shown.add_row(*row, style=style or None)
        return shown

    def _records(self) -> RenderResult:
        for at, (row, style) in enumerate(self._rows):
            if at in self._sections:
                yield Text("")
            yield Parts(self._pairs(row), style=style)

    def _pairs(self, row: Sequence[Text]) -> Iterable[Text]:
        """`title value` of each cell; the first one says what the row is about, and needs no title
        unless it is a number."""
        pairs: list[Text] = []
        for i, title in self._titles():
            value = Text(" ").join(line for line in row[i].split() if line.plain)
            if not title.strip() and pairs:
                if value.plain:
                    pairs[-1].append(" ").append_text(value)
            elif i == 0 and not self._is_number(0):
                value.stylize_before(Style(bold=True))
                pairs.append(value)
            elif value.plain:
                words = title.replace("-\n", "").replace("\n", " ")
                pairs.append(Text.assemble((f"{words} ", "dim"), value))
        return pairs


def _length(text: Text) -> int:
    return text.cell_len


def _word(text: Text) -> int:
    """Length of the longest word of a text."""
    return max((Text(word).cell_len for word in text.plain.split()), default=0)
