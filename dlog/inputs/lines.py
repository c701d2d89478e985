"""Plain lines: each is an event. It owns where a line ends and never what stands in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from dlog.inputs.event import EventKind, InputEvent, InputItem
from dlog.inputs.recording import first_bytes, opened

# Control characters that text does not hold; tab, newline, form feed and return it does.
NOT_TEXT: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")


class Lines:
    """An event is a line with its newline; the last one may lack it."""

    name = "lines"
    options: Mapping[str, str] = {}

    def describe(self) -> str:
        return "text: each line, with its newline, is an event"

    def recognise(self, path: Path) -> bool:
        start = first_bytes(path)
        return bool(start) and NOT_TEXT.search(start) is None

    def events(self, path: Path, options: Mapping[str, str]) -> Iterator[InputItem]:
        label = path.name
        with opened(path) as recording:
            while line := recording.line():
                yield InputEvent(EventKind.EVENT, label, None, line)
