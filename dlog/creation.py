"""Makes data directories: the only place where one comes into being.

It runs no logger. `dlog start` makes none, because the mount point of a disk that is not mounted
looks like a new directory.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from dlog.adapters.access import Access
from dlog.adapters.data_files import DataDirectory
from dlog.core.data_directory import First, Found, first_directory
from dlog.core.system_errors import storage_error
from dlog.errors import Error
from dlog.services.data_directories import create, look


def create_data_directory(path: Path, *, mode: str = "", group: str = "") -> bool:
    """A new data directory, durable when this returns: each level of folders that it needs, from
    the top. False: it was created before, and no logger has used it yet. Raises `Error` where
    something stands there already, or the group cannot have it.

    mode, group: as in the configuration.
    """
    refuse_no_text(path)
    access = Access.configured(mode, group)
    access.hold()
    refuse_dangling_link(path)
    whole = Path(os.path.realpath(path))
    there = whole
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise Error(f"{path}: {there} is not a directory")
    try:
        _sync_names_above(there)
    except OSError as error:
        raise Error(f"{path}: {error.strerror}") from error
    below = whole.relative_to(there)
    above = DataDirectory(there, holds_journal=False)
    links = ("runs",) if link_to_runs(whole) else ()
    new = create(above, "" if there == whole else str(below), passed_over=links)
    if problem := access.give_directory(whole):
        raise Error(problem)
    return new


def create_where_none_is(paths: Sequence[Path], *, mode: str = "", group: str = "") -> None:
    """For `dlog start --create`: all that a configuration names, where its first one is none yet.
    The first one last, so that this goes on after a crash."""
    if first_directory(found_at(paths[0])) is not First.NOT_CREATED:
        return
    for path in (*paths[1:], paths[0]):
        found = found_at(path)
        if not found.mark and not found.created:
            create_data_directory(path, mode=mode, group=group)


def found_at(path: Path) -> Found:
    """What stands there; nothing where there is no directory. Raises `StorageError`."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Found(())
    except OSError as error:
        raise storage_error(error, str(path)) from error
    return look(DataDirectory(path, holds_journal=False))


def link_to_runs(data: Path) -> str:
    """What keeps START RUN from being done, in words, where `runs` was moved and linked."""
    runs = data / "runs"
    if not runs.is_symlink():
        return ""
    return (
        f"{runs} is a symbolic link to {os.readlink(runs)}, and the logger follows none inside a "
        "data directory: START RUN is refused until the link is gone. Put the whole data directory "
        "on that disk, or create a further one there and add it to [logger] data"
    )


def refuse_no_text(path: Path) -> None:
    """The journal, the status and logger.json name the directory, in UTF-8."""
    whole = os.path.realpath(path)
    try:
        whole.encode()
    except UnicodeEncodeError as error:
        raise Error(
            f"{whole}: byte {ord(whole[error.start]) & 0xFF:#x} in the path is not UTF-8; a data "
            "directory needs another name"
        ) from None


def refuse_dangling_link(path: Path) -> None:
    """A new directory where a link leads to would stand on the mount point of the missing disk."""
    for level in (path, *path.parents):
        if os.path.islink(level) and not os.path.exists(level):
            raise Error(
                f"{path}: {level} is a link to {os.readlink(level)}, which is not there; "
                "is its disk mounted?"
            )


def _sync_names_above(path: Path) -> None:
    """Who made these levels may have died before their names were durable."""
    for level in reversed((path, *path.parents)):
        with contextlib.suppress(PermissionError):
            fd = os.open(level, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
