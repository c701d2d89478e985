"""The formats that are installed, and which of them reads a path. It owns the entry point group
`dlog.inputs` and never reads an event itself."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Final

from dlog.inputs.event import InputItem
from dlog.inputs.plugin import Input, InputBroken, InputUsageError, refuse_unknown_options
from dlog.inputs.recording import opened, storage_error

GROUP: Final = "dlog.inputs"
OURS: Final = "dlog.inputs."


class Catalogue:
    """Formats by name. A plug-in is imported only when it is asked for."""

    def __init__(self, entry_points: Iterable[EntryPoint]) -> None:
        # What each name loads: more than one only where two packages chose the same name.
        self._values: dict[str, dict[str, EntryPoint]] = {}
        for entry_point in sorted(entry_points, key=lambda e: (e.name, e.value)):
            self._values.setdefault(entry_point.name, {})[entry_point.value] = entry_point

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._values)

    def __iter__(self) -> Iterator[Input]:
        return (self[name] for name in self._values)

    def __getitem__(self, name: str) -> Input:
        values = self._values.get(name)
        if values is None:
            raise InputUsageError(f"no format is called {name!r}; {self._known()}")
        if len(values) > 1:
            raise InputBroken(f"more than one format is called {name!r}: {', '.join(values)}")
        (entry_point,) = values.values()
        return _loaded(entry_point)

    def events(
        self, path: Path, options: Mapping[str, str], *, format_name: str | None = None
    ) -> Iterator[InputItem]:
        """What stands in a path, by the named format or by the one that recognises it."""
        plugin = self[format_name] if format_name else self.recognised(path)
        refuse_unknown_options(plugin, options)
        return plugin.events(path, options)

    def recognised(self, path: Path) -> Input:
        """The one format that takes the path for its own."""
        _refuse_unreadable(path)
        candidates = [name for name in self._values if self[name].recognise(path)]
        # An installed format is meant for its files, although they may be text as well.
        candidates = [name for name in candidates if not self._is_ours(name)] or candidates
        if not candidates:
            raise InputUsageError(f"{path}: its format must be said; {self._known()}")
        if len(candidates) > 1:
            raise InputUsageError(f"{path}: its format must be said: {' or '.join(candidates)}")
        return self[candidates[0]]

    def _is_ours(self, name: str) -> bool:
        return all(value.startswith(OURS) for value in self._values[name])

    def _known(self) -> str:
        if not self._values:
            return "none is installed, as dlog itself is not (pip install -e . in its checkout)"
        return f"there are {', '.join(self._values)}"


def installed() -> Catalogue:
    """The formats of dlog and of all packages that are installed beside it."""
    return Catalogue(importlib.metadata.entry_points(group=GROUP))


def _loaded(entry_point: EntryPoint) -> Input:
    described = f"format {entry_point.name} ({entry_point.value})"
    try:
        factory = entry_point.load()
        plugin = factory()
    except Exception as error:
        raise InputBroken(f"{described} cannot be loaded: {error!r}") from error
    if not isinstance(plugin, Input) or plugin.name != entry_point.name:
        raise InputBroken(f"{described} is no Input of that name")
    return plugin


def _refuse_unreadable(path: Path) -> None:
    """Before any format is asked, so that each may count on a folder or a file with bytes in it."""
    try:
        if path.is_dir():
            return
    except OSError as error:
        raise storage_error(error, path) from error
    with opened(path):
        return
