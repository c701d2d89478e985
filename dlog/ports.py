"""What the services need of the world, as Protocols; adapters and the simulation implement them.

One contract suite (`tests/contract/`) runs on every implementation. All faults come in here: a
service never learns whether the disk under it is real. Errors are those of `dlog.errors`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from dlog.model.ids import Offset

# A change of the journal: the value to put under a key, or None to delete the key.
Change = tuple[bytes, bytes | None]


class Clock(Protocol):
    """Durations come from `monotonic_ns`; `wall_ns` is only ever recorded."""

    def monotonic_ns(self) -> int: ...

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        ...


class Journal(Protocol):
    """An ordered map of bytes to bytes whose changes are durable when `commit` returns.

    One thread commits; any thread may read. `commit` is atomic: all changes or none.
    """

    def commit(self, changes: Sequence[Change], *, use_ballast: bool = False) -> None:
        """Apply the changes in order and make them durable.

        Raises `JournalFull` (nothing changed; may be retried; with `use_ballast`, given for STOP,
        STOP RUN and ABORT RUN, space kept aside is used first) or `JournalFailed` (outcome unknown;
        every later call raises it too).
        """
        ...

    def get(self, key: bytes) -> bytes | None:
        """The committed value, copied, or None."""
        ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Committed (key, value) pairs below the prefix, in key order.

        Copied in chunks of at least 16,384 pairs or 16 MiB, each as of one moment; between chunks
        nothing is held, however long the caller takes. So a scan below that size, or at a restart,
        when nobody commits, is as of one moment throughout.
        """
        ...

    def size_bytes(self) -> int:
        """Bytes that the journal takes on its disk."""
        ...

    def check_place(self) -> str:
        """Raise `JournalGone` where the next start would not find what is committed here; what else
        is wrong with its files, in words. From any thread."""
        ...

    def close(self) -> None: ...


class SyncUnderWay(Protocol):
    """A sync that was begun."""

    def is_over(self) -> bool: ...

    def has_failed(self) -> bool:
        """Whether it is over, and `wait` would raise."""
        ...

    def wait(self) -> None:
        """Until it is over. Raises `StorageError`, as `DataFile.sync` does."""
        ...


class DataFile(Protocol):
    """One open event file. Used by one thread at a time. Every call is complete or raises
    `StorageError` (`DiskFull` where space was short); short writes are retried or raised, never
    passed over."""

    @property
    def path(self) -> str:
        """Path inside its directory."""
        ...

    def reserve(self, end: Offset) -> None:
        """Allocate space up to `end`; the file reads as zeros there. Never shrinks the file."""
        ...

    def write(self, offset: Offset, data: memoryview) -> None:
        """Write whole pages at a page boundary. `data` should lie on a page-aligned address.

        Not durable until `sync`.
        """
        ...

    def write_behind(self, offset: Offset, data: memoryview) -> None:
        """The same, but it may return before: `data` stays as it is until `settle`, `sync`, a
        later `sync_behind` or `close` is over, and all but the last raise what failed."""
        ...

    def settle(self) -> None:
        """Wait for the writes that were begun. Not durable until `sync`."""
        ...

    def forget(self) -> None:
        """Wait for the syncs that were begun, whatever becomes of them; what none was begun for is
        not written, or not durable, and the memory is the caller's again. No write follows."""
        ...

    def sync(self) -> None:
        """`settle`, then fdatasync. After it raised, what was not synced is of unknown state."""
        ...

    def sync_behind(self, over: Callable[[], None]) -> SyncUnderWay:
        """Begin to sync all that was written up to now; what is written meanwhile is not covered.
        `over` is called when it is over, perhaps by another thread. What fails is told by `wait`.
        """
        ...

    def read(self, offset: Offset, size: int) -> bytes:
        """The bytes that are there: fewer than `size` only at the end of the file."""
        ...

    def size(self) -> Offset: ...

    def free_bytes(self) -> int:
        """Space left on its filesystem for this process."""
        ...

    def cut(self, size: Offset) -> None:
        """Truncate and make that durable (fsync)."""
        ...

    def lost(self, path: str) -> str:
        """Why this path does not lead to the file, in words; "" where it does."""
        ...

    def save(self, size: Offset) -> str:
        """Give the file its path again, and say how: as another name of itself where it has one
        left, otherwise as a copy of its first `size` bytes. The name is durable when this returns,
        and appears with all of them. Raises `NameTaken`."""
        ...

    def data_extents(self, begin: Offset, end: Offset) -> list[tuple[Offset, Offset]]:
        """The parts of [begin, end) that may hold something other than zeros (SEEK_DATA)."""
        ...

    def close(self) -> None: ...


class Space(NamedTuple):
    """Space of the filesystem below a directory, in bytes."""

    free: int  # available to this process
    total: int


class Directory(Protocol):
    """One data directory. Paths are relative to it, with `/` between their parts.

    What makes a name appear or vanish is durable when the call returns: the parent directory is
    fsynced, and so is every new directory level.
    """

    @property
    def name(self) -> str:
        """Where it is, for people."""
        ...

    def create(self, path: str) -> DataFile:
        """A new, empty file (O_EXCL) whose name is durable. Raises `NameTaken`."""
        ...

    def open(self, path: str, *, writable: bool) -> DataFile: ...

    def try_out(self, path: str, size: int) -> None:
        """Raise the `StorageError` that a new file at this path would meet with so many bytes: they
        are allocated, written and synced in a file that has no name and leaves nothing behind."""
        ...

    def exists(self, path: str) -> bool: ...

    def names(self, folder: str) -> list[str]:
        """Names in the folder, sorted; empty where it does not exist."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Rename without replacing (RENAME_NOREPLACE or link + unlink). Raises `NameTaken`."""
        ...

    def sync_names(self, folder: str) -> None:
        """Make durable which names stand in the folder and which do not: a program that was killed
        may have died before its fsync. Nothing is done where there is no such folder."""
        ...

    def write_new(self, path: str, content: bytes) -> None:
        """A small new file, exclusively created, fsynced and read-only. Raises `NameTaken`.

        Its name appears with all of its content or not at all.
        """
        ...

    def read_all(self, path: str, size_max: int) -> bytes:
        """The content of a small file; more than `size_max` bytes raise `StorageError`."""
        ...

    def make_read_only(self, path: str) -> None:
        """Nobody may write it any more: durable."""
        ...

    def remove(self, path: str) -> None: ...

    def space(self) -> Space:
        """Raises `DataDirectoryGone` where the directory itself cannot be reached."""
        ...


class Buffer(Protocol):
    """A page-aligned, recycled piece of memory of fixed capacity."""

    @property
    def view(self) -> memoryview:
        """All of it, writable, format 'B'."""
        ...

    def release(self) -> None:
        """Back to its pool; the view must not be used any more."""
        ...


class Buffers(Protocol):
    """A pool of page-aligned buffers, bounded by what admission lets in."""

    def take(self, size: int) -> Buffer:
        """A buffer of at least `size` bytes."""
        ...


class EventLink(Protocol):
    """The event server's end of the link to the sources; used by its thread alone, save `wake`."""

    @property
    def address(self) -> str:
        """Where it listens, with the port that was bound."""
        ...

    def receive(self, timeout_ms: int) -> list[tuple[bytes, memoryview, str]]:
        """(routing id, message, address of the peer) of what has come, a bounded number at a time;
        empty after the timeout or a `wake`. The memory of a message lives as long as its view."""
        ...

    def wake(self) -> None:
        """Make `receive` return; from any thread."""
        ...

    def send(self, peer: bytes, message: bytes) -> bool:
        """Queue a message for the peer (its routing id); False where it is not reachable now."""
        ...


class CoorLink(Protocol):
    """The commander's end of all ways that commands come in; for its thread alone, save `wake`.

    A peer stands for one COOR (or command line) on one of the ways: the local control address, the
    address where the logger listens, the COOR that it connects to.
    """

    def receive(self, timeout_ms: int) -> list[tuple[bytes, bytes]]:
        """(peer, JSON text) of what has come; empty after the timeout or a `wake`."""
        ...

    def wake(self) -> None:
        """Make `receive` return; from any thread."""
        ...

    def send(self, peer: bytes, message: bytes) -> None:
        """Queue an answer; never blocks. An unreachable peer asks again, with the same id."""
        ...

    def tell(self, message: bytes) -> None:
        """A request or identification, to the COOR that we connect to and to each that wrote us."""
        ...


class Peer(NamedTuple):
    """What is known of the other end of a connection, for status and alarms."""

    name: str
    host: str
    process: int
    address: str


class Severity(enum.StrEnum):
    """WARNING: look at it today. ERROR: look at it now. FAILURE: the logger went down on it."""

    WARNING = "warning"
    ERROR = "error"
    FAILURE = "failure"


class Alarms(Protocol):
    """Alarms by name: raised once, counted, cleared. Never blocks and never grows."""

    def raise_alarm(self, name: str, severity: Severity, text: str) -> None: ...

    def clear_alarm(self, name: str) -> None: ...


class CommitTicket(Protocol):
    """A group of changes on its way into the journal."""

    def wait(self) -> None:
        """Return when committed. Raises `JournalFailed`; never returns where the journal is full
        unless it was handed in with `use_ballast`."""
        ...


class Commits(Protocol):
    """The committer, as the other services see it."""

    def submit(self, changes: Sequence[Change], *, use_ballast: bool = False) -> CommitTicket: ...
