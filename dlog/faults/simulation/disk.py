"""A disk in memory that keeps what was written apart from what was synced, loses the difference in
a crash, and fails where it is told to. Nothing here is real, waits, or depends on anything but a
seed.

Every step that changes what a disk holds or makes it durable is numbered, over all disks and the
journal of one run (steps.py), so that a scenario can be ended before, in or after each of them. One
call of a port may be several steps: `create` in a new folder is MAKE_FOLDER, SYNC_FOLDER, CREATE,
SYNC_FILE, SYNC_FOLDER.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

from dlog.adapters.data_files import path_parts
from dlog.errors import (
    DataDirectoryGone,
    DiskFull,
    FileTooLarge,
    InvariantBroken,
    NameTaken,
    StorageError,
)
from dlog.faults.simulation.steps import FaultKind, OpenStep, Operation, StorageSteps
from dlog.limits import PAGE_BYTES
from dlog.model.ids import Offset
from dlog.ports import Space

SECTOR_BYTES: Final = 512
OVER: Final = 0.2  # how probably a sync is over when somebody looks


class SimulatedHang(BaseException):
    """The call does not return: its thread gets no further, and is asked for no more."""


# --- what a disk holds ------------------------------------------------------------------------


class _Written(NamedTuple):
    offset: int
    data: bytes


class _Sized(NamedTuple):
    """The end of the file was set: cut, or moved out by a reservation."""

    size: int


class _Mode(NamedTuple):
    read_only: bool


_Change = _Written | _Sized | _Mode


@dataclass(slots=True, eq=False)
class _Content:
    """The bytes of a file and its mode, once as the program sees them and once as they are."""

    data: bytearray = field(default_factory=bytearray)
    read_only: bool = False

    def apply(self, change: _Change) -> None:
        data = self.data
        match change:
            case _Written(offset, written):
                if len(data) < offset:
                    data.extend(bytes(offset - len(data)))
                data[offset : offset + len(written)] = written
            case _Sized(size):
                del data[size:]
                data.extend(bytes(size - len(data)))
            case _Mode(read_only):
                self.read_only = read_only

    def copy(self) -> _Content:
        return _Content(bytearray(self.data), self.read_only)


@dataclass(slots=True, eq=False)
class _File:
    seen: _Content = field(default_factory=_Content)
    stored: _Content = field(default_factory=_Content)
    unsynced: list[_Change] = field(default_factory=list)
    decided: int = 0  # changes that were synced, or given up
    allocated_bytes: int = 0

    def change(self, change: _Change) -> None:
        self.seen.apply(change)
        self.unsynced.append(change)
        size = len(self.seen.data)
        if isinstance(change, _Sized) and size < self.allocated_bytes:
            self.allocated_bytes = 0
        self.allocated_bytes = max(self.allocated_bytes, size + -size % PAGE_BYTES)

    @property
    def changes(self) -> int:
        """How many there were up to now."""
        return self.decided + len(self.unsynced)

    def sync(self, changes: int) -> None:
        """The first so many of all changes."""
        for change in self._decide(changes):
            self.stored.apply(change)

    def fail_to_sync(self, changes: int, random: Random) -> None:
        """A part of what was written gets to the disk, and no one will try the rest again."""
        for change in self._decide(changes):
            if random.random() < 0.5:
                self.stored.apply(change)

    def lose_power(self, random: Random) -> None:
        for change in self._decide(self.changes):
            for part in _survivors(change, random):
                self.stored.apply(part)
        self.forget_cache()

    def _decide(self, changes: int) -> list[_Change]:
        count = max(0, changes - self.decided)
        decided, self.unsynced = self.unsynced[:count], self.unsynced[count:]
        self.decided += count
        return decided

    def forget_cache(self) -> None:
        self.seen = self.stored.copy()
        for change in self.unsynced:
            self.seen.apply(change)
        size = len(self.seen.data)
        self.allocated_bytes = size + -size % PAGE_BYTES


def _survivors(change: _Change, random: Random) -> list[_Change]:
    """What a power cut leaves of an unsynced change: nothing, all, or some of its sectors."""
    fate = random.randrange(3)
    if fate == 0:
        return []
    if fate == 1 or not isinstance(change, _Written):
        return [change]
    offsets = range(0, len(change.data), SECTOR_BYTES)
    if random.random() < 0.5:
        kept = list(offsets[: random.randint(0, len(offsets))])
    else:
        kept = [offset for offset in offsets if random.random() < 0.5]
    return [_Written(change.offset + o, change.data[o : o + SECTOR_BYTES]) for o in kept]


_FOLDER: Final = "folder"
_Named = _File | str  # a file, or _FOLDER


@dataclass(frozen=True, slots=True, eq=False)
class _NameChange:
    """A name that appears (with what it names) or vanishes, not durable until its folder is."""

    folder: str
    path: str
    named: _Named | None
    # A name that a rename takes away goes only where the one that it gives has come: a crash may
    # leave both, or either, never none.
    only_after: _NameChange | None = None


class SimulatedDisk:
    """One disk, with the directories on it. `capacity_bytes`, `others_bytes` (what other programs
    have written) and `file_bytes_max` (of its longest file) may be set at any time; `gone` makes
    everything on it unreachable, `hangs` keeps whoever asks for its space waiting."""

    def __init__(
        self, steps: StorageSteps, *, name: str = "disk", capacity_bytes: int = 1 << 40
    ) -> None:
        self.steps = steps
        self.name = name
        self.capacity_bytes = capacity_bytes
        self.others_bytes = 0
        self.file_bytes_max = capacity_bytes
        self.gone = False
        self.hangs = False
        self._seen: dict[str, _Named] = {}
        self._stored: dict[str, _Named] = {}
        self._unsynced: list[_NameChange] = []
        self.syncs: list[SimulatedSync] = []  # begun in the present life of the program
        self.syncs_end = True  # by themselves; otherwise when somebody waits or ends them
        self.no_threads = False  # the program cannot start a thread that would sync
        self.while_syncing: Callable[[], None] = lambda: None  # what happens elsewhere meanwhile

    def directory(
        self, name: str, *, holds_journal: bool = True, away: str = ""
    ) -> SimulatedDirectory:
        """A data directory on this disk, for the present life of the program."""
        self.syncs.clear()
        self._seen.setdefault(name, _FOLDER)
        self._stored.setdefault(name, _FOLDER)
        return SimulatedDirectory(self, name, holds_journal=holds_journal, away=away)

    def work(self) -> None:
        """The thread that syncs has its turn."""
        self.syncs = [sync for sync in self.syncs if not sync.done]
        if self.syncs and self._sync_is_over():
            self.syncs[0].finish()

    def begin_sync(self, sync: Callable[[], None], over: Callable[[], None]) -> SimulatedSync:
        if self.no_threads:
            raise RuntimeError("can't start new thread")
        begun = SimulatedSync(sync, over, self._sync_is_over)
        self.syncs.append(begun)
        return begun

    def _sync_is_over(self) -> bool:
        return self.syncs_end and self.steps.random.random() < OVER

    def crash(self, random: Random) -> None:
        """A power cut: what was not synced is lost, kept or torn, each piece for itself."""
        for change in self._unsynced:
            if random.random() < 0.5:
                self._store(change)
        self._unsynced.clear()
        for path in sorted(self._stored):
            if any(above not in self._stored for above in _folders_above(path)):
                del self._stored[path]
        for named in self._stored.values():
            if isinstance(named, _File):
                named.lose_power(random)
        self._seen = dict(self._stored)

    def forget_cache(self) -> None:
        """The kernel drops clean pages: what a failed sync lost is no longer read back."""
        for named in self._seen.values():
            if isinstance(named, _File):
                named.forget_cache()

    def free_bytes(self) -> int:
        used = sum(n.allocated_bytes for n in self._seen.values() if isinstance(n, _File))
        return max(0, self.capacity_bytes - self.others_bytes - used)

    def fill(self) -> None:
        """Other programs take all the space that is left."""
        self.others_bytes += self.free_bytes()

    # --- what somebody does on it who is not the logger, and has synced it

    def delete(self, path: str) -> None:
        self._change_for_good(path, None)

    def put(self, path: str, content: bytes) -> None:
        """A file of that content."""
        file = _File()
        file.change(_Written(0, content))
        file.sync(file.changes)
        self._change_for_good(path, file)

    def move(self, old: str, new: str) -> None:
        """A file, or a folder with all that is in it."""
        for path in [p for p in self._seen if p == old or p.startswith(old + "/")]:
            for folder in _folders_above(new):
                self._change_for_good(folder, _FOLDER)
            self._change_for_good(new + path.removeprefix(old), self._seen[path])
            self._change_for_good(path, None)

    def _change_for_good(self, path: str, named: _Named | None) -> None:
        change = _NameChange(_folder_of(path), path, named)
        self.rename_name(change)
        self._unsynced.remove(change)
        self._store(change)

    def contents(self) -> dict[str, bytes]:
        """What would be read now, by path on the disk; for tests."""
        return {p: bytes(n.seen.data) for p, n in self._seen.items() if isinstance(n, _File)}

    def has_aside(self, offset: int, data: bytes) -> bool:
        """Whether a file in quarantine would have these bytes there after a power cut."""
        return any(
            "/quarantine/" in path
            and isinstance(named, _File)
            and named.stored.data[offset : offset + len(data)] == data
            for path, named in self._stored.items()
        )

    # --- for directories and files of this module alone

    def named(self, path: str) -> _Named | None:
        return self._seen.get(path)

    def names_of(self, file: _File) -> list[str]:
        return [path for path, named in self._seen.items() if named is file]

    def names_below(self, folder: str) -> list[str]:
        begin = folder + "/"
        return sorted(
            path[len(begin) :]
            for path in self._seen
            if path.startswith(begin) and "/" not in path[len(begin) :]
        )

    def rename_name(self, change: _NameChange) -> None:
        if change.named is None:
            del self._seen[change.path]
        else:
            self._seen[change.path] = change.named
        self._unsynced.append(change)

    def sync_names(self, folder: str) -> None:
        waiting: list[_NameChange] = []
        for change in self._unsynced:
            if change.folder != folder or not self._store(change):
                waiting.append(change)
        self._unsynced = waiting

    def fail_to_sync_names(self, folder: str, random: Random) -> None:
        """Some of them get to the disk; the rest only a power cut can decide."""
        waiting: list[_NameChange] = []
        for change in self._unsynced:
            if change.folder != folder or random.random() < 0.5 or not self._store(change):
                waiting.append(change)
        self._unsynced = waiting

    def _store(self, change: _NameChange) -> bool:
        first = change.only_after
        if first is not None and self._stored.get(first.path) is not first.named:
            return False
        if change.named is None:
            self._stored.pop(change.path, None)
        else:
            self._stored[change.path] = change.named
        return True


def _folders_above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


# --- the ports --------------------------------------------------------------------------------


class SimulatedSync:
    """A sync under way. It is over when it is waited for, or, as the seed has it, one of the next
    times that somebody looks or the disk's own thread has its turn: so others do something in
    between."""

    def __init__(
        self, sync: Callable[[], None], over: Callable[[], None], chance: Callable[[], bool]
    ) -> None:
        self._sync = sync
        self._over = over
        self._chance = chance
        self.done = False
        self._begun = False
        self._error: StorageError | None = None

    def is_over(self) -> bool:
        if not self._begun and self._chance():
            self.finish()
        return self.done

    def has_failed(self) -> bool:
        return self.done and self._error is not None

    def wait(self) -> None:
        self.finish()
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        if not self._begun:
            self._begun = True
            try:
                self._sync()
            except StorageError as error:
                self._error = error
            self.done = True
            self._over()


@dataclass(frozen=True, slots=True, eq=False)
class _Behind:
    """A write behind: its memory, and what that held when it was begun."""

    data: memoryview
    held: bytes


class SimulatedFile:
    """`ports.DataFile` on a simulated disk."""

    def __init__(self, disk: SimulatedDisk, file: _File, path: str, disk_path: str) -> None:
        self._disk = disk
        self._steps = disk.steps
        self._life = disk.steps.life
        self._file = file
        self._path = path
        self._disk_path = disk_path
        self._broken: str | None = None
        self._reserved_end = 0  # by this handle; 0 for never
        self._written_end = 0  # the same
        self._behind: list[_Behind] = []  # not settled
        self._failed_behind: StorageError | None = None
        self._sync_behind: SimulatedSync | None = None  # the last one
        self._writable = True
        self._closed = False

    def opened_read_only(self) -> SimulatedFile:
        self._writable = False
        return self

    @property
    def path(self) -> str:
        return self._path

    def reserve(self, end: Offset) -> None:
        self._refuse_unless_usable(end)
        if end <= self.size():
            return
        with self._steps.step(Operation.RESERVE, self._disk_path) as step:
            self._raise_fault(step.fault, end)
            self._refuse_too_large(end)
            allocated = end + -end % PAGE_BYTES
            if allocated - self._file.allocated_bytes > self._disk.free_bytes():
                raise DiskFull("No space left on device", path=self._path, offset_bytes=end)
            if not step.dies_inside or self._steps.random.random() < 0.5:
                self._file.change(_Sized(end))
        self._reserved_end = end

    def write(self, offset: Offset, data: memoryview) -> None:
        if offset % PAGE_BYTES or data.nbytes % PAGE_BYTES or offset < 0:
            raise InvariantBroken(f"{self._path}: {data.nbytes} bytes at {offset} not whole pages")
        self._refuse_unless_usable(offset)
        content = bytes(data)
        self._watch_write(offset, offset + len(content))
        self._refuse_too_large(offset + len(content))
        with self._steps.step(Operation.WRITE, self._disk_path) as step:
            room = self._file.allocated_bytes + self._disk.free_bytes() - offset
            fault = step.fault
            if fault is None and room < len(content):
                fault = FaultKind.NO_SPACE
            if fault is not None or step.dies_inside:
                self._write_a_part(offset, content[: max(0, room)])
                self._raise_fault(fault, offset)
            else:
                self._file.change(_Written(offset, content))

    def write_behind(self, offset: Offset, data: memoryview) -> None:
        # As on a real disk, of some failures the caller hears at once.
        if offset // PAGE_BYTES % 2:
            self.write(offset, data)
            return
        self._behind.append(_Behind(data, bytes(data)))
        try:
            self.write(offset, data)
        except StorageError as error:
            self._failed_behind = self._failed_behind or error

    def settle(self) -> None:
        begun, self._sync_behind = self._sync_behind, None
        try:
            if begun is not None:
                begun.wait()
        finally:
            self._settle(self._behind)

    def _settle(self, behind: list[_Behind]) -> None:
        self._watch_memory(behind)
        failed, self._failed_behind = self._failed_behind, None
        if failed is not None:
            self._broken = self._broken or "an earlier write failed"
            raise failed

    def forget(self) -> None:
        begun, self._sync_behind = self._sync_behind, None
        if begun is not None:
            with suppress(StorageError):
                begun.wait()
        self._watch_memory(self._behind)
        self._broken = self._broken or "what was written before was given up"

    def sync(self) -> None:
        self._refuse_unless_usable(0)
        self.settle()
        self._sync(self._file.changes)

    def sync_behind(self, over: Callable[[], None]) -> SimulatedSync:
        self._steps.refuse_if_dead(self._life)
        earlier, behind, changes = self._sync_behind, list(self._behind), self._file.changes

        def sync() -> None:
            self._disk.while_syncing()
            try:
                self._settle(behind)
            finally:
                if earlier is not None:
                    earlier.wait()
            self._refuse_unless_usable(0)
            self._sync(changes)

        self._sync_behind = self._disk.begin_sync(sync, over)
        return self._sync_behind

    def _sync(self, changes: int) -> None:
        with self._steps.step(Operation.SYNC_FILE, self._disk_path) as step:
            if step.fault is not None:
                self._file.fail_to_sync(changes, self._steps.random)
                self._broken = "an earlier sync failed"
            elif not step.dies_inside:  # else: the power cut decides what of it was done
                self._file.sync(changes)
            self._raise_fault(step.fault, 0)

    def read(self, offset: Offset, size: int) -> bytes:
        self._refuse_if_dead()
        fault = self._steps.look(Operation.READ, self._disk_path)
        self._raise_fault(None if fault is None else fault.kind, offset)
        return bytes(self._file.seen.data[offset : offset + size])

    def size(self) -> Offset:
        self._refuse_if_dead()
        return Offset(len(self._file.seen.data))

    def free_bytes(self) -> int:
        self._refuse_if_dead()
        return self._disk.free_bytes()

    def cut(self, size: Offset) -> None:
        self._refuse_unless_usable(size)
        self._watch_cut(size)
        with self._steps.step(Operation.CUT, self._disk_path) as step:
            self._raise_fault(step.fault, size)
            if not step.dies_inside or self._steps.random.random() < 0.5:
                self._file.change(_Sized(size))
        self.sync()

    def lost(self, path: str) -> str:
        self._refuse_if_dead()
        found = self._disk.named(f"{self._root}/{path}")
        if found is self._file:
            return ""
        names = self._disk.names_of(self._file)
        went = f"was moved to {names[0]}" if names else "was deleted"
        return went if found is None else f"{went}, and another file stands in its place"

    def save(self, size: Offset) -> str:
        self._refuse_if_dead()
        directory = SimulatedDirectory(self._disk, self._root)
        if self._disk.names_of(self._file):
            directory.name_file(self._path, self._file)
            return "by a link"
        copy = _File()
        directory.fill_unnamed(copy, self._path, bytes(self._file.seen.data[:size]))
        directory.name_file(self._path, copy)
        return "as a copy"

    @property
    def _root(self) -> str:
        return self._disk_path.removesuffix("/" + self._path)

    def data_extents(self, begin: Offset, end: Offset) -> list[tuple[Offset, Offset]]:
        self._refuse_if_dead()
        seen = self._file.seen.data
        end = Offset(min(end, len(seen)))
        extents: list[tuple[Offset, Offset]] = []
        position: int = begin
        while position < end:
            after = Offset(min(end, position - position % PAGE_BYTES + PAGE_BYTES))
            if seen.count(0, position, after) < after - position:
                joins = bool(extents) and extents[-1][1] == position
                extents.append((extents.pop()[0] if joins else Offset(position), after))
            position = after
        return extents

    def close(self) -> None:
        # A sync under way is dropped: who does not wait for it knows nothing of what it did.
        self._watch_memory(self._behind)
        self._closed = True

    def _watch_memory(self, behind: list[_Behind]) -> None:
        """What is written is not changed, nor given back, before it is settled."""
        unsettled = set(behind).intersection(self._behind)
        if any(bytes(each.data) != each.held for each in unsettled):
            self._steps.breaches.append(f"{self._disk_path}: memory changed while it was written")
        self._behind = [each for each in self._behind if each not in unsettled]

    def _watch_write(self, begin: int, end: int) -> None:
        """Blocks and footer go to space that was reserved for both, and no page twice."""
        if self._reserved_end and end > self._reserved_end:
            self._steps.breaches.append(
                f"{self._disk_path}: written up to {end}, reserved up to {self._reserved_end}"
            )
        if begin < self._written_end:
            self._steps.breaches.append(
                f"{self._disk_path}: written at {begin} and before up to {self._written_end}"
            )
        self._written_end = end

    def _watch_cut(self, size: int) -> None:
        """What is cut off an event file, and is not zeros, lies durable in quarantine."""
        lost = bytes(self._file.seen.data[size:]).rstrip(b"\0")
        if lost and self._path.endswith(".part") and not self._disk.has_aside(size, lost):
            self._steps.breaches.append(
                f"{self._disk_path}: cut at {size}, and {len(lost)} B behind are nowhere else"
            )

    def _write_a_part(self, offset: int, content: bytes) -> None:
        sectors = self._steps.random.randint(0, len(content) // SECTOR_BYTES)
        if sectors:
            self._file.change(_Written(offset, content[: sectors * SECTOR_BYTES]))

    def _refuse_too_large(self, end: int) -> None:
        if end > self._disk.file_bytes_max:
            raise FileTooLarge("File too large", path=self._path, offset_bytes=end)

    def _refuse_if_dead(self) -> None:
        self._steps.refuse_if_dead(self._life)
        if self._closed:
            raise StorageError("Bad file descriptor", path=self._path)
        if self._disk.gone:
            raise StorageError("Input/output error", path=self._path)

    def _refuse_unless_usable(self, offset: int) -> None:
        self._refuse_if_dead()
        if not self._writable:
            raise StorageError("Bad file descriptor", path=self._path, offset_bytes=offset)
        if self._broken is not None:
            raise StorageError(self._broken, path=self._path, offset_bytes=offset)

    def _raise_fault(self, fault: FaultKind | None, offset: int) -> None:
        _raise_fault(fault, self._path, offset)


class SimulatedDirectory:
    """`ports.Directory` on a simulated disk."""

    def __init__(
        self, disk: SimulatedDisk, root: str, *, holds_journal: bool = True, away: str = ""
    ) -> None:
        self._holds_journal = holds_journal
        self._away = away
        self._disk = disk
        self._steps = disk.steps
        self._life = disk.steps.life
        self._root = root
        self._durable_folders: set[str] = {root}

    @property
    def name(self) -> str:
        return f"{self._disk.name}:{self._root}"

    def create(self, path: str) -> SimulatedFile:
        disk_path = self._with_folder(path)
        file = _File()
        with self._steps.step(Operation.CREATE, disk_path) as step:
            self._raise_fault(step, path)
            self._refuse_taken(disk_path, path)
            self._refuse_without_a_page(path)
            if not step.dies_inside or self._steps.random.random() < 0.5:
                self._change_name(disk_path, file)
        created = SimulatedFile(self._disk, file, path, disk_path)
        created.sync()
        self._sync_folder(_folder_of(disk_path), path)
        return created

    def open(self, path: str, *, writable: bool) -> SimulatedFile:
        disk_path = self._on_disk(path)
        fault = self._steps.look(Operation.OPEN, disk_path)
        _raise_fault(None if fault is None else fault.kind, path, 0)
        file = self._file(disk_path, path)
        if writable and file.seen.read_only:
            raise StorageError("Permission denied", path=path)
        opened = SimulatedFile(self._disk, file, path, disk_path)
        return opened if writable else opened.opened_read_only()

    def try_out(self, path: str, size: int) -> None:
        disk_path = self._on_disk(path)
        with self._steps.step(Operation.CREATE, disk_path) as step:
            self._raise_fault(step, path)
            self._refuse_without_a_page(path)
        file = SimulatedFile(self._disk, _File(), path, disk_path)
        file.reserve(Offset(size + -size % PAGE_BYTES))
        file.write(Offset(0), memoryview(bytes(size + -size % PAGE_BYTES)))
        file.sync()

    def exists(self, path: str) -> bool:
        return self._disk.named(self._on_disk(path)) is not None

    def names(self, folder: str) -> list[str]:
        return self._disk.names_below(self._on_disk(folder) if folder else self._checked_root())

    def rename(self, old: str, new: str) -> None:
        old_path = self._on_disk(old)
        named = self._disk.named(old_path)
        if named is None:
            raise StorageError("No such file or directory", path=old)
        new_path = self._with_folder(new)
        with self._steps.step(Operation.NAME, new_path) as step:
            self._raise_fault(step, new)
            self._refuse_taken(new_path, new)
            if not step.dies_inside or self._steps.random.random() < 0.5:
                # One step for the program; for the disk a name that comes and one that goes.
                came = self._change_name(new_path, named)
                self._change_name(old_path, None, only_after=came)
        self._sync_folder(_folder_of(new_path), new)
        self._sync_folder(_folder_of(old_path), old)

    def sync_names(self, folder: str) -> None:
        disk_path = self._on_disk(folder)
        if self._disk.named(disk_path) is not None:
            self._sync_folder(disk_path, folder)

    def write_new(self, path: str, content: bytes) -> None:
        file = _File()
        self._with_folder(path)
        self.fill_unnamed(file, path, content, read_only=True)
        self.name_file(path, file)

    def name_file(self, path: str, file: _File) -> None:
        disk_path = self._with_folder(path)
        with self._steps.step(Operation.NAME, disk_path) as step:
            self._raise_fault(step, path)
            self._refuse_taken(disk_path, path)
            if not step.dies_inside or self._steps.random.random() < 0.5:
                self._change_name(disk_path, file)
        self._sync_folder(_folder_of(disk_path), path)

    def read_all(self, path: str, size_max: int) -> bytes:
        file = self.open(path, writable=False)
        content = file.read(Offset(0), size_max + 1)
        if len(content) > size_max:
            raise StorageError(f"more than {size_max} bytes", path=path)
        return content

    def make_read_only(self, path: str) -> None:
        disk_path = self._on_disk(path)
        file = self._file(disk_path, path)
        with self._steps.step(Operation.SET_MODE, disk_path) as step:
            self._raise_fault(step, path)
            file.change(_Mode(True))
        SimulatedFile(self._disk, file, path, disk_path).sync()

    def remove(self, path: str) -> None:
        disk_path = self._on_disk(path)
        self._file(disk_path, path)
        with self._steps.step(Operation.UNNAME, disk_path) as step:
            self._raise_fault(step, path)
            if not step.dies_inside or self._steps.random.random() < 0.5:
                self._change_name(disk_path, None)
        self._sync_folder(_folder_of(disk_path), path)

    def space(self) -> Space:
        self._checked_root()
        if self._disk.hangs:
            raise SimulatedHang
        return Space(self._disk.free_bytes(), self._disk.capacity_bytes)

    def fill_unnamed(
        self, file: _File, path: str, content: bytes, *, read_only: bool = False
    ) -> None:
        """What is not named is lost in any crash; so its own steps need no care."""
        disk_path = self._on_disk(path)
        with self._steps.step(Operation.WRITE, disk_path) as step:
            self._raise_fault(step, path)
            if len(content) + -len(content) % PAGE_BYTES > self._disk.free_bytes():
                raise DiskFull("No space left on device", path=path)
            file.change(_Written(0, content))
            file.change(_Mode(read_only))
        with self._steps.step(Operation.SYNC_FILE, disk_path) as step:
            self._raise_fault(step, path)
            file.sync(file.changes)

    def _checked_root(self) -> str:
        self._steps.refuse_if_dead(self._life)
        if self._disk.gone and self._holds_journal:
            raise DataDirectoryGone(f"{self.name}: Input/output error")
        if self._disk.gone or self._away:
            raise StorageError(self._away or "Input/output error", path=self.name)
        return self._root

    def _on_disk(self, path: str) -> str:
        return "/".join((self._checked_root(), *path_parts(path)))

    def _with_folder(self, path: str) -> str:
        """The path on the disk, once every folder above it is durable."""
        disk_path = self._on_disk(path)
        for folder in _folders_above(disk_path):
            if folder in self._durable_folders:
                continue
            if self._disk.named(folder) is None:
                with self._steps.step(Operation.MAKE_FOLDER, folder) as step:
                    self._raise_fault(step, path)
                    self._refuse_without_a_page(path)
                    if not step.dies_inside or self._steps.random.random() < 0.5:
                        self._change_name(folder, _FOLDER)
            self._sync_folder(_folder_of(folder), path)
            self._durable_folders.add(folder)
        return disk_path

    def _sync_folder(self, folder: str, path: str) -> None:
        with self._steps.step(Operation.SYNC_FOLDER, folder) as step:
            if step.fault is not None:
                self._disk.fail_to_sync_names(folder, self._steps.random)
            elif not step.dies_inside:
                self._disk.sync_names(folder)
            self._raise_fault(step, path)

    def _change_name(
        self, disk_path: str, named: _Named | None, *, only_after: _NameChange | None = None
    ) -> _NameChange:
        change = _NameChange(_folder_of(disk_path), disk_path, named, only_after)
        self._disk.rename_name(change)
        return change

    def _file(self, disk_path: str, path: str) -> _File:
        named = self._disk.named(disk_path)
        if named is None:
            raise StorageError("No such file or directory", path=path)
        if not isinstance(named, _File):
            raise StorageError("Is a directory", path=path)
        return named

    def _refuse_taken(self, disk_path: str, path: str) -> None:
        if self._disk.named(disk_path) is not None:
            raise NameTaken("File exists", path=path)

    def _refuse_without_a_page(self, path: str) -> None:
        if self._disk.free_bytes() < PAGE_BYTES:
            raise DiskFull("No space left on device", path=path)

    def _raise_fault(self, step: OpenStep, path: str) -> None:
        _raise_fault(step.fault, path, 0)


def _folder_of(disk_path: str) -> str:
    return disk_path.rpartition("/")[0]


def _raise_fault(fault: FaultKind | None, path: str, offset: int) -> None:
    match fault:
        case None | FaultKind.SLOW:
            return
        case FaultKind.NO_SPACE:
            raise DiskFull("No space left on device", path=path, offset_bytes=offset)
        case FaultKind.SHORT_WRITE:
            raise StorageError("a short write", path=path, offset_bytes=offset)
        case FaultKind.EIO:
            raise StorageError("Input/output error", path=path, offset_bytes=offset)
