"""Looks into folders with event files, and sorts out what lies there. It reads names and header
pages alone; the rule is `dlog.core.run_files`."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from dlog.core.data_directory import MARK
from dlog.core.run_files import (
    Entry,
    LeftOut,
    is_event_file_name,
    is_strange_name,
    sort_out,
)
from dlog.reader.file_bytes import READ_ONLY, header_of

ORPHANS: Final = "orphans"
_MARK_BYTES: Final = 64
_OBSTACLES: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def run_of(folder: Path) -> int | None:
    """The run whose files the folder holds, 0 for `orphans/`, None where its name does not say."""
    folder = folder.absolute()
    if folder.name == ORPHANS:
        return 0
    if folder.parent.name == "runs" and folder.name.isdecimal():
        return int(folder.name)
    return None


def root_of(folder: Path) -> Path | None:
    """The data directory that such a folder lies in, None for any other folder."""
    run, folder = run_of(folder), folder.absolute()
    if run is None:
        return None
    return folder.parent if folder.name == ORPHANS else folder.parent.parent


def own_files(
    folders: Iterable[Path],
    *,
    logger: bytes | None = None,
    known: Callable[[Path], bool] = lambda path: False,
    shut: dict[Path, str] | None = None,
) -> tuple[list[Path], list[LeftOut]]:
    """The event files in these folders, folder by folder, and what else has such names there.

    logger: its uuid, where it is known; otherwise the mark of each data directory tells. known:
    whether the journal knows a file, so that its header need not be read. shut: takes the folders
    that cannot be listed, each with the reason; without it they raise `OSError`.
    """
    found: list[Entry] = []
    left: list[LeftOut] = []
    folders = list(folders)
    for folder in folders:
        run = run_of(folder)
        names = _names(folder, shut)
        for name in names:
            if is_strange_name(name, of_run=run is not None):
                what = _what(folder / name) or "no event file by its name"
                left.append(LeftOut(str(folder), name, what))
        names = [name for name in names if is_event_file_name(name)]
        knowns = [known(folder / name) for name in names]
        # Where all is as the journal says, no header need be read to see it.
        read = not all(knowns)
        found += [
            _entry(folder / name, run, known=is_known, read=read)
            for name, is_known in zip(names, knowns, strict=True)
        ]
    whose = {str(folder): logger or logger_of(folder) for folder in folders}
    own, others = sort_out(found, whose)
    return [Path(entry.folder, entry.name) for entry in own], [*left, *others]


def _names(folder: Path, shut: dict[Path, str] | None) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        if shut is None:
            raise
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            shut[folder] = error.strerror or str(error)
        return []


def _entry(path: Path, run: int | None, *, known: bool, read: bool) -> Entry:
    obstacle = _what(path) if read else ""
    header = header_of(path) if read and not obstacle else None
    return Entry(str(path.parent), path.name, run, header, obstacle, known)


def _what(path: Path) -> str:
    """What stands there instead of a file, "" for a file or where it cannot be seen."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "a link that leads nowhere" if path.is_symlink() else ""
    except OSError as error:
        return "a link that leads to itself" if error.errno == errno.ELOOP else ""
    return next((what for is_so, what in _OBSTACLES if is_so(mode)), "")


def logger_of(folder: Path) -> bytes | None:
    """Whose data directory the folder lies in, where its mark tells."""
    root = root_of(folder)
    if root is None:
        return None
    with suppress(OSError, ValueError):
        fd = os.open(root / MARK, READ_ONLY)
        try:
            return bytes.fromhex(os.read(fd, _MARK_BYTES).decode("ascii").strip()) or None
        finally:
            os.close(fd)
    return None
