"""What is known of event files before they are judged: their bytes, names, sidecars, and what one
read of the journal says of them. It opens everything read-only, judges nothing and writes nothing.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dlog.adapters.buffers import HUGE_PAGE_BYTES, map_memory
from dlog.adapters.directory_lock import is_locked
from dlog.adapters.journal_files import may_register
from dlog.core.data_directory import MARK, Found, Further, further_directory
from dlog.core.event_file import (
    FileHeader,
    Sidecar,
    decode_sidecar,
    sidecar_path,
)
from dlog.core.journal_records import (
    ClosedFileRecord,
    FileRecord,
    JournalMeta,
)
from dlog.core.run_files import PART_SUFFIX, LeftOut, named
from dlog.core.states import FileState
from dlog.errors import (
    DlogError,
    FormatError,
    JournalUnreadable,
    NotReadable,
    ResourcesExhausted,
    StorageError,
)
from dlog.limits import MIB, PAGE_BYTES
from dlog.model.ids import (
    NO_RUN,
    FileKey,
    FileKind,
    PartNumber,
    RunNumber,
    StreamName,
)
from dlog.reader.beside import Beside
from dlog.reader.file_bytes import READ_ONLY
from dlog.reader.run_folder import ORPHANS, own_files, root_of, run_of
from dlog.recovery.report import shown
from dlog.recovery.snapshot import READ_ORDER, Snapshot, read_journal

SIDECAR_BYTES_MAX: Final = 4 * MIB
# Stands for bytes that the disk did not give: no zeros, no block.
UNREAD_BYTE: Final = 0xEE
# How often a journal is read that is being written by a logger that does not know of the reader.
_UNSEEN_TRIES: Final = 5


# --- bytes of one file ------------------------------------------------------------------------


class FileSource:
    """A regular file, opened read-only. A `ByteSource`; used by one thread.

    What is read into `memory` comes from the disk itself where the filesystem allows it (O_DIRECT),
    past what the system keeps of the file: that is what is to be judged, and nothing that others
    need is driven out of memory for it.
    """

    def __init__(self, path: Path) -> None:
        """Raises `OSError`, and `StorageError` where it is no regular file."""
        self.path = path
        self._fd = os.open(path, READ_ONLY)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise StorageError("is not a regular file", path=str(path))
        self._direct: int | None = None
        self.unread: list[tuple[int, int]] = []

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        if self._direct is not None:
            os.close(self._direct)

    def memory(self, size: int) -> memoryview:
        """So many bytes of memory to read into, aligned and in huge pages if there are so many."""
        if size < HUGE_PAGE_BYTES:
            return memoryview(bytearray(size))
        if self._direct is None:
            with contextlib.suppress(OSError, AttributeError):  # it reads as any file then
                self._direct = os.open(f"/proc/self/fd/{self._fd}", READ_ONLY | os.O_DIRECT)
        return memoryview(map_memory(size))[:size]

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read_into(self, offset: int, buffer: memoryview) -> int:
        done = 0
        fd = self._fd if self._direct is None else self._direct
        while done < len(buffer):
            try:
                got = os.preadv(fd, [buffer[done:]], offset + done)
            except OSError as error:
                if fd != self._fd:
                    # Not aligned, or this filesystem cannot; or a bad sector, of which it would not
                    # tell where, and each page before it would ask for it once more.
                    fd = self._fd
                    continue
                if error.errno != errno.EIO:
                    raise
                got = self._page_by_page(offset + done, buffer[done : done + PAGE_BYTES])
            if got == 0:
                break
            done += got
        return done

    def _page_by_page(self, offset: int, page: memoryview) -> int:
        """One page of a stretch with a bad sector; filled where the disk gives nothing."""
        page = page[: max(0, self.size() - offset)]
        try:
            return os.preadv(self._fd, [page], offset)
        except OSError:
            page[:] = bytes([UNREAD_BYTE]) * len(page)
            if self.unread and self.unread[-1][1] == offset:
                self.unread[-1] = (self.unread[-1][0], offset + len(page))
            else:
                self.unread.append((offset, offset + len(page)))
            return len(page)

    def next_data(self, offset: int) -> int:
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: nothing but a hole up to the end. Else the filesystem does not know holes.
            return self.size() if error.errno == errno.ENXIO else offset

    def read(self, offset: int, size: int) -> bytes:
        buffer = bytearray(size)
        got = self.read_into(offset, memoryview(buffer))
        return bytes(buffer[:got])

    def header_page(self) -> bytes:
        return self.read(0, PAGE_BYTES)


def read_sidecar(path: Path) -> Sidecar | None:
    """The sidecar of the event file `path`; None for none. Raises `FormatError` or `OSError`."""
    try:
        with FileSource(Path(sidecar_path(str(path)))) as source:
            if source.size() > SIDECAR_BYTES_MAX:
                raise FormatError("sidecar is too large", path=str(path))
            return decode_sidecar(source.read(0, source.size()), path=str(path))
    except FileNotFoundError:
        return None
    except StorageError as error:
        raise FormatError(f"sidecar {error.reason}", path=str(path)) from error


# --- names ------------------------------------------------------------------------------------

_TAIL: Final = re.compile(
    r"(?P<run>\d+)_(?P<stream>[A-Za-z][A-Za-z0-9_-]*)_(?P<kind>\d+|[A-Za-z]+)_(?P<part>\d+)"
    r"_(?P<begin>\d+)_(?P<boot>\d+)(?:-\d+)?\.tail\Z"
)


@dataclass(frozen=True, slots=True)
class Place:
    """What the name of a file, and the folders that it lies in, say about it.

    run: None where the folder does not tell. root: the data directory, where there is one.
    """

    path: Path
    stream: StreamName | None
    kind: FileKind | None
    part: PartNumber | None
    run: RunNumber | None
    root: Path | None
    is_part: bool
    tail_begin: int | None = None

    @property
    def key(self) -> FileKey | None:
        if self.stream is None or self.kind is None or self.part is None or self.run is None:
            return None
        return FileKey(self.run, self.stream, self.kind, self.part)

    @property
    def final_path(self) -> Path:
        return self.path.with_name(self.path.name.removesuffix(PART_SUFFIX))


def place_of(path: Path) -> Place:
    """What a path says; everything None where it follows no rule of dlog."""
    is_part = path.name.endswith(PART_SUFFIX)
    folder = path.absolute().parent
    tail = _TAIL.match(path.name)
    if tail is not None:
        kind = _kind_of(tail["kind"])
        root = folder.parent if folder.name == "quarantine" else None
        return Place(
            path, StreamName(tail["stream"]), kind, PartNumber(int(tail["part"])),
            RunNumber(int(tail["run"])), root, False, int(tail["begin"]),
        )  # fmt: skip
    told = named(path.name)
    number = run_of(folder)
    run = RunNumber(number) if number is not None else None
    root = root_of(folder)
    if told is None:
        return Place(path, None, None, None, run, root, is_part)
    kind = FileKind.GARBAGE if told.garbage else FileKind.EVENTS
    if number == NO_RUN:
        kind = FileKind.ORPHAN
    return Place(path, StreamName(told.stream), kind, PartNumber(told.part), run, root, is_part)


def _kind_of(text: str) -> FileKind | None:
    try:
        return FileKind(int(text)) if text.isdecimal() else FileKind[text.upper()]
    except (ValueError, KeyError):
        return None


# --- data directories -------------------------------------------------------------------------


@dataclass(slots=True)
class Survey:
    """What lies in the folders of a data directory.

    paths: every event file and every saved tail, with the number of its directory, in order. left:
    what else has such names. shut: why a folder could not be looked into.
    """

    paths: list[tuple[int, Path]] = field(default_factory=list)
    left: list[LeftOut] = field(default_factory=list)
    shut: dict[Path, str] = field(default_factory=dict)


@dataclass(slots=True)
class DataDirectory:
    """One logger's data: its directories (the first holds the journal) and one read of the journal.

    snapshot: None where there is no journal or it was not read. Then `journal_problem` says what is
    wrong with it, `journal_shut` why it could not be looked at, and both are "" where there is none
    at all. running: a logger held the lock when the journal was read, or may have. away: why a
    directory, by its number, is not looked into: its disk is not mounted, say.
    """

    root: Path
    folders: list[Path]
    snapshot: Snapshot | None
    journal_problem: str
    running: bool
    away: dict[int, str] = field(default_factory=dict)
    journal_shut: str = ""

    @property
    def roots(self) -> list[Path]:
        """Its directories that can be looked into."""
        return [folder for n, folder in enumerate(self.folders) if n not in self.away]

    def paths(self) -> list[tuple[int, Path]]:
        return self.survey().paths

    def survey(self) -> Survey:
        """Look into the run folders, `orphans/` and `quarantine/` of each directory."""
        found = Survey()
        logger = None
        if self.snapshot is not None and self.snapshot.meta is not None:
            logger = self.snapshot.meta.logger_uuid
        folders: dict[Path, int] = {}
        for number, folder in enumerate(self.folders):
            if number in self.away:
                continue
            for below in (*_run_folders(folder, found.shut), folder / ORPHANS):
                folders[below] = number
        own, found.left = own_files(folders, logger=logger, known=self.knows(), shut=found.shut)
        found.paths = [(folders[path.parent], path) for path in own]
        instead, found.left = self.instead_of_files(found.left)
        found.paths += [(folders[path.parent], path) for path in instead]
        for number, folder in enumerate(self.folders):
            if number not in self.away:
                names = _entries(folder / "quarantine", found.shut)
                found.paths += [(number, path) for path in names if path.name.endswith(".tail")]
        found.paths.sort(key=lambda path: path[0])
        return found

    def instead_of_files(self, left: Iterable[LeftOut]) -> tuple[list[Path], list[LeftOut]]:
        """What stands where an event file should be, as its name says and no journal denies; and
        all else."""
        known = self.knows()
        instead: list[Path] = []
        others: list[LeftOut] = []
        for out in left:
            path = Path(out.folder, out.name)
            expected = known(path) or self.snapshot is None
            if out.obstacle and named(out.name) is not None and expected:
                instead.append(path)
            else:
                others.append(out)
        return instead, others

    def knows(self) -> Callable[[Path], bool]:
        """Whether the journal knows a file under this name, relative or not."""
        known: set[Path] = set()
        for record in self.snapshot.records() if self.snapshot is not None else ():
            if 0 <= record.directory < len(self.folders):
                suffix = PART_SUFFIX if isinstance(record, FileRecord) else ""
                known.add(self.folders[record.directory].absolute() / (record.path + suffix))
        return lambda path: path.absolute() in known


def is_folder(path: Path) -> bool:
    """Whether there is a folder. Raises `OSError` where that cannot be seen."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_there(path: Path) -> bool:
    """Whether something has this name, as far as that can be seen."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def is_data_directory(path: Path) -> bool:
    """Raises `OSError` where that cannot be seen."""
    return is_folder(path / "journal") or is_folder(path / "runs")


def look_at(root: Path) -> DataDirectory:
    """The facts of a data directory. The lock is looked at first, then the journal, then names."""
    running = logger_runs(root)
    snapshot, problem, shut = None, "", ""
    folder = root / "journal"
    try:
        if is_folder(folder):
            snapshot = read_beside_a_logger(folder, running=running)
    except JournalUnreadable as error:
        problem = str(error)
    except (NotReadable, ResourcesExhausted) as error:
        shut = str(error)
    except OSError as error:
        shut = f"{folder}: {error.strerror}"
    folders, away = [root], dict[int, str]()
    if snapshot is not None and snapshot.meta is not None:
        for number, other in enumerate(snapshot.meta.data[1:], start=1):
            folders.append(Path(other))
            reason = why_away(folders[-1], snapshot.meta)
            if reason:
                away[number] = reason
    return DataDirectory(root, folders, snapshot, problem, running, away, shut)


def read_beside_a_logger(
    folder: Path, prefixes: Sequence[bytes] = READ_ORDER, *, running: bool
) -> Snapshot:
    """Where the reader cannot tell the logger of itself, pages may be used again while it reads
    them, and that may kill it. Then it is read again: it is no damage. Raises `NotReadable`."""
    if not running or may_register(folder):
        return read_journal(folder, prefixes)
    for _ in range(_UNSEEN_TRIES):
        with contextlib.suppress(JournalUnreadable):
            return read_journal(folder, prefixes)
    raise NotReadable(f"{folder}: it is being written, and could not be read meanwhile")


def why_away(folder: Path, meta: JournalMeta | None) -> str:
    """Why a data directory is not the one that the journal means, or none at all where there is no
    journal; "" where it is."""
    try:
        names = tuple(os.listdir(folder))
        mark = mark_of(folder)
    except OSError as error:
        return f"cannot be reached: {error.strerror}"
    if meta is None:
        return ""
    known = str(folder) in meta.marked
    step, reason = further_directory(Found(names, mark), meta.logger_uuid.hex(), known=known)
    return reason if known and step is Further.AWAY else ""


def mark_of(folder: Path) -> str:
    """The logger whose data directory it is, "" where it says none. Raises `OSError`."""
    with contextlib.suppress(FileNotFoundError, StorageError), FileSource(folder / MARK) as source:
        return source.read(0, PAGE_BYTES).decode(errors="replace").strip()
    return ""


def logger_runs(root: Path) -> bool:
    """Whether a logger holds the locks of this data directory. True also where that cannot be seen:
    what one may be writing now is no damage."""
    return is_locked(root) is not False


def _entries(folder: Path, shut: dict[Path, str] | None = None) -> list[Path]:
    """The names in a folder, none where it is not there. shut: takes why it cannot be listed."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if shut is None:
            raise
        shut[folder] = error.strerror or str(error)
        return []


def _run_folders(root: Path, shut: dict[Path, str]) -> list[Path]:
    folders = [p for p in _entries(root / "runs", shut) if p.name.isdecimal()]
    return sorted(folders, key=lambda p: int(p.name))


# --- how much of a file counts ----------------------------------------------------------------


class FileStage(enum.StrEnum):
    """What a file is, as far as its witnesses tell."""

    CREATING = "creating"
    OPEN = "open"
    CLOSED = "closed"
    SEALED = "sealed"  # a fault ended it, without footer
    TAIL = "tail"  # in quarantine


@dataclass(frozen=True, slots=True)
class Known:
    """How much of a file counts, and who says so.

    durable: everything below was acknowledged; None where that is not known, or all of it was.
    chain: crc of the last header below `durable`, where known. record, closed: the journal's.
    """

    stage: FileStage
    witness: str
    durable: int | None = None
    chain: int | None = None
    record: FileRecord | None = None
    closed: ClosedFileRecord | None = None
    problem: str = ""


def known_of(
    place: Place, header: FileHeader | None, data: DataDirectory | None, beside: Beside
) -> Known:
    """Asks the journal first, then the sidecar, then the successor's header."""
    if place.tail_begin is not None:
        return Known(FileStage.TAIL, "a saved tail was never acknowledged")
    snapshot = data.snapshot if data is not None else None
    record = closed = None
    problem = ""
    key = place.key or (header.key if header is not None else None)
    if snapshot is not None and key is not None:
        closed = snapshot.closed.get(key)
        record = None if closed is not None else snapshot.files.get(key)
        told = closed or record
        if told is not None and header is not None and told.file_uuid != header.file_uuid:
            problem = "the journal knows another file under this name (file uuid)"
            record = closed = None
    if record is not None and place.is_part:
        return _known_open(record)
    if closed is not None and closed.sealed:
        return Known(FileStage.SEALED, "the journal", closed.size_bytes, closed.chain, None, closed)
    if record is not None and record.sealed:
        return Known(FileStage.SEALED, "the journal", record.durable, record.chain, record, closed)
    if closed is None and record is None:
        seal = _seal_without_journal(place, header, beside)
        if seal is not None:
            return seal
    if place.is_part:
        if closed is not None:
            problem = "the journal says that it is closed, and it has its open name"
        return Known(FileStage.OPEN, "", None, None, None, closed, problem)
    return Known(FileStage.CLOSED, "a closed file was acknowledged as a whole", None, None, record,
                 closed, problem)  # fmt: skip


def _known_open(record: FileRecord) -> Known:
    if record.sealed:
        stage = FileStage.SEALED
    elif record.state is FileState.CREATING:
        stage = FileStage.CREATING
    else:
        stage = FileStage.OPEN
    durable = 0 if stage is FileStage.CREATING else record.durable
    return Known(stage, "the journal", durable, record.chain, record)


def _seal_without_journal(place: Place, header: FileHeader | None, beside: Beside) -> Known | None:
    sidecar = None
    with contextlib.suppress(DlogError, OSError):
        sidecar = read_sidecar(place.final_path)
    if header is None:
        if sidecar is None or not sidecar.sealed:
            return None
        return Known(FileStage.SEALED, "its sidecar", sidecar.size_bytes)
    told = beside.seal(place.path, header, sidecar)
    if told is None:
        return None
    seal, successor = told
    witness = "its sidecar"
    if successor is not None:
        here = successor.parent == place.path.absolute().parent
        witness = f"its successor {successor.name if here else shown(successor)}"
    return Known(FileStage.SEALED, witness, seal.at, seal.chain)
