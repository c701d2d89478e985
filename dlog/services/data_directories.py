"""Data directories before anything runs on them: makes new ones, and finds out at a start which of
the configured ones are there. What is decided stands in core/data_directory.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from dlog.core.data_directory import (
    CREATED,
    MARK,
    Found,
    Further,
    further_directory,
    how_to_create,
    why_not_created,
)
from dlog.errors import ConfigurationError, Error, NoDescriptor, StorageError
from dlog.limits import KIB
from dlog.ports import Directory

_CREATED_TEXT = b"a data directory of dlog; see docs/FORMAT.md\n"


def look(directory: Directory, folder: str = "") -> Found:
    """What stands in a data directory, or in a folder that may become one."""
    below = f"{folder}/" if folder else ""
    names = tuple(directory.names(folder))
    mark = ""
    if MARK in names:
        mark = directory.read_all(below + MARK, KIB).decode(errors="replace").strip()
    return Found(names, mark)


def create(above: Directory, folder: str, *, passed_over: Collection[str] = ()) -> bool:
    """Make `folder` a new data directory. When this returns each new level of folders is durable,
    from the top, and so is what says that it was created. Repeated after a crash, it goes on.
    passed_over: what may stand in it. False: what says that it was created was there already."""
    found = look(above, folder)
    found = replace(found, names=tuple(n for n in found.names if n not in passed_over))
    path = f"{above.name}/{folder}" if folder else above.name
    problem = why_not_created(found)
    if problem:
        raise Error(f"{path}: {problem}")
    created = f"{folder}/{CREATED}" if folder else CREATED
    if found.created:
        # Who wrote it may have died before its name, or a folder above, was durable.
        above.remove(created)
    above.write_new(created, _CREATED_TEXT)
    return not found.created


def claim(directory: Directory, uuid: str) -> None:
    """Leave the logger's mark, where there is none."""
    if not directory.exists(MARK):
        directory.write_new(MARK, f"{uuid}\n".encode())


def open_further(
    paths: Sequence[str],
    open_directory: Callable[[int, str], Directory],
    *,
    uuid: str,
    known: Collection[str],
) -> tuple[list[Directory], dict[int, str]]:
    """All data directories but the first, and why those are away that are, by their position in
    `paths`. open_directory: of a position; with a reason, the directory that only says so.

    known: paths that the journal says were used. Raises `ConfigurationError`.
    """
    directories: list[Directory] = []
    away: dict[int, str] = {}
    problems: list[str] = []
    for position, path in enumerate(paths):
        try:
            directory = open_directory(position, "")
            step, reason = further_directory(look(directory), uuid, known=path in known)
            if step in (Further.USE, Further.CLAIM):
                claim(directory, uuid)
                directories.append(directory)
                continue
        except NoDescriptor:
            raise
        except StorageError as error:
            step = Further.AWAY if path in known else Further.REFUSE
            reason = error.reason
        if step is Further.REFUSE:
            problems.append(f"logger.data: {path}: {reason}; {how_to_create(path)}")
        away[position] = reason
        directories.append(open_directory(position, reason))
    if problems:
        raise ConfigurationError(problems)
    return directories, away
