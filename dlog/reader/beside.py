"""The other files of a stream, in all folders that are known: what they tell of one file's end.

It reads headers alone; the rules are those of core/sealed_end.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from dlog.core.block import HEADER_BYTES, BlockType, decode_header
from dlog.core.event_file import FileHeader, Sidecar
from dlog.core.run_files import PART_SUFFIX, is_event_file_name
from dlog.core.sealed_end import (
    Numbered,
    Seal,
    block_headers,
    is_beside,
    last_boot,
    numbered_by,
    own_of,
    seal_of,
    void_from,
)
from dlog.errors import DlogError, FormatError
from dlog.limits import PAGE_BYTES
from dlog.model.ids import file_path
from dlog.reader.file_bytes import FileBytes, header_of


class Beside:
    """Folders with event files. Each is listed, and each header read, once; by any thread.

    folders: those of the run. roots: data directories, whose folder of the run is meant.
    """

    def __init__(self, folders: Iterable[Path] = (), roots: Iterable[Path] = ()) -> None:
        self._folders = [folder.absolute() for folder in folders]
        self._roots = [root.absolute() for root in roots]
        self._names: dict[Path, list[str]] = {}
        self._headers: dict[Path, FileHeader | None] = {}
        self._last_boots: dict[Path, int] = {}

    def add(self, roots: Iterable[Path]) -> None:
        """Further data directories. Before the first question."""
        self._roots += [root.absolute() for root in roots]

    def add_folder(self, folder: Path) -> None:
        """A further folder of the run. Before the first question."""
        if folder not in self._folders:
            self._folders.append(folder)

    def folders_of(self, path: Path, header: FileHeader) -> list[Path]:
        """Where the stream's files are looked for: beside the file first."""
        below = Path(file_path(header.key)).parent
        found = [path.absolute().parent, *self._folders, *(root / below for root in self._roots)]
        return list(dict.fromkeys(found))

    def seal(
        self, path: Path, header: FileHeader, sidecar: Sidecar | None
    ) -> tuple[Seal, Path | None] | None:
        """Where a fault ended the file, and the file that says so if it is another one."""
        others = dict[bytes, Path]()

        def headers() -> Iterator[FileHeader]:
            for other, found in self._others(path, header):
                others[found.file_uuid] = other
                yield found

        is_open = path.name.endswith(PART_SUFFIX)
        seal = seal_of(header, sidecar, headers(), is_open=is_open)
        if seal is None:
            return None
        return seal, others[seal.successor.file_uuid] if seal.successor is not None else None

    def void_from(self, path: Path, header: FileHeader) -> int | None:
        """The block number from which on this open file, which no fault ended, is void."""
        others = list(self._others(path, header))
        # Most often the file is of the last boot that there was: no block of it is looked at.
        later = [
            (other, found) for other, found in others
            if found.boot > header.boot or self._last_boot(other, found) > header.boot
        ]  # fmt: skip
        if not later:
            return None
        with suppress(DlogError, OSError), closing(FileBytes(path)) as file:
            own = own_of(header, block_headers(file, header, path=str(path)))
            told = (n for other, found in later for n in _after(own.boot, other, found))
            return void_from(own, told)
        return None

    def _others(self, path: Path, header: FileHeader) -> Iterator[tuple[Path, FileHeader]]:
        starts = (f"{header.key.stream}_", f"{header.key.stream}.")
        for folder in self.folders_of(path, header):
            for name in self._listed(folder):
                if name.startswith(starts):
                    other = folder / name
                    found = self._header(other)
                    if found is not None and is_beside(header, found):
                        yield other, found

    def _listed(self, folder: Path) -> list[str]:
        if folder not in self._names:
            names: set[str] = set()
            with suppress(OSError):
                names = {name for name in os.listdir(folder) if is_event_file_name(name)}
            # One that is being renamed may have two names.
            self._names[folder] = sorted(
                name for name in names
                if not name.endswith(PART_SUFFIX) or name.removesuffix(PART_SUFFIX) not in names
            )  # fmt: skip
        return self._names[folder]

    def _header(self, path: Path) -> FileHeader | None:
        # Several threads ask: there is no entry before it is read.
        if path not in self._headers:
            self._headers[path] = header_of(path)
        return self._headers[path]

    def _last_boot(self, path: Path, header: FileHeader) -> int:
        if path not in self._last_boots:
            self._last_boots[path] = _last_boot(path, header)
        return self._last_boots[path]


class Alone(Beside):
    """No folder at all: only the file itself tells of its end."""

    def folders_of(self, path: Path, header: FileHeader) -> list[Path]:
        return []


def _last_boot(path: Path, header: FileHeader) -> int:
    """The highest boot number in a file; of a closed one its closing block tells."""
    with suppress(DlogError, OSError), closing(FileBytes(path)) as file:
        at = file.size() - PAGE_BYTES
        if not path.name.endswith(PART_SUFFIX) and at >= PAGE_BYTES:
            with suppress(FormatError):
                end = file.read(at, HEADER_BYTES)
                last = decode_header(end, salt=header.salt, offset=at, path=str(path))
                if last.type is BlockType.CLOSING:
                    return last.boot
        return last_boot(header, block_headers(file, header, path=str(path)))
    return header.boot


def _after(boot: int, path: Path, header: FileHeader) -> Iterator[Numbered]:
    """What a file says of the first number of boots after that one."""
    if header.boot > boot:
        yield numbered_by(header)
        return
    with suppress(DlogError, OSError), closing(FileBytes(path)) as file:
        for block in block_headers(file, header, path=str(path)):
            if block.boot > boot:  # numbers rise in a file
                yield Numbered(block.boot, block.number)
                return
