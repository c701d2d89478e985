"""A folder with one file for each event. It owns which files and in which order, and never what
stands in one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Final

from dlog.errors import FormatError
from dlog.inputs.event import EventKind, InputEvent, InputItem
from dlog.inputs.plugin import InputUsageError
from dlog.inputs.recording import opened, storage_error

ANY_DEPTH: Final = "**"


class Folder:
    """An event is a whole file; the files go by name, and by folder where names are the same.

    Hidden files and folders are passed over, and links to folders are not followed.
    """

    name = "folder"
    options: Mapping[str, str] = {
        "glob": "which files; ** stands for folders of any depth (default: *, where none are below)"
    }

    def describe(self) -> str:
        return "a folder with one file for each event, in the order of the names (option glob)"

    def recognise(self, path: Path) -> bool:
        return path.is_dir()

    def events(self, path: Path, options: Mapping[str, str]) -> Iterator[InputItem]:
        for file in _files(path, options.get("glob")):
            with opened(file, may_be_empty=True) as recording:
                payload = recording.take(recording.size_bytes)
                if len(payload) < recording.size_bytes:
                    raise recording.error("the file was cut while it was read")
            yield InputEvent(EventKind.EVENT, file.name, None, payload)


def _files(folder: Path, glob: str | None) -> list[Path]:
    if not folder.is_dir():
        raise FormatError("not a folder", path=str(folder))
    pattern = (ANY_DEPTH,) if glob is None else _pattern(glob)
    found = [file for file in _walked(folder, pattern) if _matches(file.parts, pattern)]
    if not found:
        wanted = "in it" if glob is None else f"matches glob={glob}"
        raise FormatError(f"no file {wanted}: it holds no event", path=str(folder))
    found.sort(key=lambda file: (file.name, file))
    below = [file for file in found if len(file.parts) > 1]
    # They would be left out, or sent, without having been asked for.
    if glob is None and below:
        raise InputUsageError(
            f"format folder: {folder} has files in folders below, as {below[0]}: say which are "
            "events, as with glob=* (here alone), glob=**/* (all) or glob=**/*.txt"
        )
    return [folder / file for file in found]


def _pattern(glob: str) -> tuple[str, ...]:
    pattern = PurePath(glob)
    if not pattern.parts or pattern.is_absolute() or ".." in pattern.parts:
        raise InputUsageError(f"format folder: glob={glob} does not name files in the folder")
    return pattern.parts


def _walked(folder: Path, pattern: tuple[str, ...]) -> Iterator[Path]:
    """The files below, relative to the folder, as deep as the pattern reaches."""

    # Path.glob would pass over a folder that cannot be read, and its events with it.
    def refuse(error: OSError) -> None:
        raise storage_error(error, Path(error.filename or folder)) from error

    for top, folders, names in os.walk(folder, onerror=refuse):
        inside = Path(top).relative_to(folder)
        if ANY_DEPTH not in pattern and len(inside.parts) + 1 >= len(pattern):
            folders.clear()
        folders[:] = [name for name in folders if not _hidden(name)]
        yield from (inside / name for name in names if not _hidden(name))


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern or not parts:
        return not parts and all(part == ANY_DEPTH for part in pattern)
    if pattern[0] == ANY_DEPTH:
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
