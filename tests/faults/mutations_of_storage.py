"""Rules of files and disks, each left out: blocks, parts, syncs, tails, reservations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

from dlog.core.block import moved_block
from dlog.core.event_file import encode_file_header, footer_bytes
from dlog.core.journal_records import FILES, FileRecord
from dlog.core.numbering import Latecomers, Numbering
from dlog.core.replay import Action, decide
from dlog.core.rotation import sort_late
from dlog.core.sealed_end import void_from
from dlog.core.states import FileState
from dlog.errors import StorageError
from dlog.faults.simulation.disk import SimulatedDisk
from dlog.faults.simulation.port_wrappers import PortWrappers
from dlog.model.ids import BlockNumber, BootNumber, FileKind, Offset
from dlog.ports import Change
from dlog.services.block_store import BlockStore
from dlog.services.committer import Progress
from dlog.services.staging import Staging
from dlog.services.stream_thread import StreamWriter
from tests.faults.mutation import (
    CALM,
    CRASHES,
    CRASHES_AND_DISK,
    DIRECTORIES,
    DISK,
    SPACE,
    Mutation,
    changed,
    decided,
    replaced,
)
from tests.faults.wrappers import Around, AroundDirectory, AroundFile, committed, files

# --- syncs, and what is durable ------------------------------------------------------------------


class _WithoutSync:
    """Over as soon as it is begun: the writes are waited for, and nothing is synced."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def is_over(self) -> bool:
        return True

    def has_failed(self) -> bool:
        return False

    def wait(self) -> None:
        self._file.settle()


class _NeverSynced(AroundFile):
    def sync_behind(self, over: Callable[[], None]) -> _WithoutSync:
        return _WithoutSync(self.inside)


class _Joined(Around):
    """A sync that began before what it is asked for was written."""

    def __init__(self, inside: Any, file: Any) -> None:
        super().__init__(inside)
        self._file = file

    def wait(self) -> None:
        self.inside.wait()
        self._file.settle()


class _JoinsTheSyncUnderWay(AroundFile):
    under_way: Any = None

    def sync_behind(self, over: Callable[[], None]) -> Any:
        if self.under_way is not None and not self.under_way.is_over():
            return _Joined(self.under_way, self.inside)
        self.under_way = self.inside.sync_behind(over)
        return self.under_way


class _Retried(Around):
    def __init__(self, inside: Any, file: _RetriesFailedSyncs) -> None:
        super().__init__(inside)
        self._file = file

    def has_failed(self) -> bool:
        return False

    def wait(self) -> None:
        try:
            self.inside.wait()
        except StorageError:
            self._file.sync_again()


class _RetriesFailedSyncs(AroundFile):
    """As the kernel has it: what a failed sync gave up is clean, and another one succeeds."""

    def sync_behind(self, over: Callable[[], None]) -> _Retried:
        return _Retried(self.inside.sync_behind(over), self)

    def sync_again(self) -> None:
        path = self.inside.path
        self.inside.close()
        self.inside = self.directory.inside.open(path, writable=True)
        self.inside.sync()


class _SyncsTheFirst(AroundFile):
    """Of the parts of a stream that are synced together, one is."""

    def write_behind(self, offset: Offset, data: memoryview) -> None:
        self.directory.written.add(self._stream())
        self.inside.write_behind(offset, data)

    def sync_behind(self, over: Callable[[], None]) -> Any:
        if self._stream() not in self.directory.written:
            return _WithoutSync(self.inside)
        self.directory.written.remove(self._stream())
        return self.inside.sync_behind(over)

    def _stream(self) -> str:
        """Of `runs/7/photons.garbage_0001.dlog.part`: `runs/7/photons`."""
        return self.inside.path.split("_")[0].removesuffix(".garbage")


class _DirectoryOfTheFirst(AroundDirectory):
    """written: the streams that wrote since they synced."""

    def __init__(self, inside: Any) -> None:
        super().__init__(_SyncsTheFirst, inside)
        self.written: set[str] = set()


class _HeaderPageNotSynced(AroundFile):
    skipped = False

    def sync(self) -> None:
        if self.skipped or not self.made:
            self.inside.sync()
        self.skipped = True


class _TailNotCut(AroundFile):
    """A restart cuts before it writes; only its cuts are left out."""

    written = False

    def write(self, offset: Offset, data: memoryview) -> None:
        self.written = True
        self.inside.write(offset, data)

    def cut(self, size: Offset) -> None:
        if self.made or self.written:
            self.inside.cut(size)


class _TailNotSaved(AroundFile):
    def write(self, offset: Offset, data: memoryview) -> None:
        if not self.inside.path.startswith("quarantine/"):
            self.inside.write(offset, data)


class _DoneAtOnce:
    def wait(self) -> None:
        """A commit that is not waited for."""


class _NothingWaits(Around):
    def submit(self, changes: Sequence[Change], *, use_ballast: bool = False) -> _DoneAtOnce:
        self.inside.submit(changes, use_ballast=use_ballast)
        return _DoneAtOnce()


# --- what the committer is told ------------------------------------------------------------------

STEPS_BETWEEN_HALVES = 20


class _OneSyncBehind(Around):
    """Files are told as they stood at the sync before; the pieces as they are now."""

    def __init__(self, inside: Any) -> None:
        super().__init__(inside)
        self._reached: dict[str, dict[str, Any]] = {}

    def progress(self, progress: Progress) -> None:
        told = [changed(file, **self._before(file)) for file in progress.files]
        self.inside.progress(changed(progress, files=tuple(told)))

    def _before(self, file: FileRecord) -> dict[str, Any]:
        names = ("durable", "crc32c", "chain", "last_header_offset", "totals")
        now = {name: getattr(file, name) for name in names}
        before = self._reached.get(file.path, now)
        self._reached[file.path] = now
        return before


class _ByHalves(Around):
    """A group that stands in several parts is told in two commits, the second some steps later.

    with_its_pieces: they are settled by the first commit.
    """

    def __init__(self, inside: Any, *, with_its_pieces: bool) -> None:
        super().__init__(inside)
        self._with_its_pieces = with_its_pieces
        self._rest: Progress | None = None
        self._steps = 0  # since the first half

    def progress(self, progress: Progress) -> None:
        self._tell_the_rest()
        first, blocks = progress.first_block, progress.last_block - progress.first_block + 1
        if not len(progress.files) == blocks > 1:
            self.inside.progress(progress)
            return
        now, later = (), progress.settlements
        if self._with_its_pieces:
            now, later = later, now
        self.inside.progress(
            Progress(changed(progress.stream, next_block=first + 1), progress.files[:1], now,
                     first, first)
        )  # fmt: skip
        self._steps = 0
        self._rest = Progress(
            progress.stream, progress.files[1:], later, first + 1, progress.last_block
        )

    def step(self, *, block: bool = False) -> bool:
        self._steps += 1
        if self._steps == STEPS_BETWEEN_HALVES:
            self._tell_the_rest()
        more: bool = self.inside.step(block=block)
        return more

    def submit(self, changes: Sequence[Change], *, use_ballast: bool = False) -> Any:
        self._tell_the_rest()
        return self.inside.submit(changes, use_ballast=use_ballast)

    def _tell_the_rest(self) -> None:
        if self._rest is not None:
            self.inside.progress(self._rest)
            self._rest = None


# --- decisions -----------------------------------------------------------------------------------


def _boot_is_the_first(move: Any, out: memoryview, header: Any, place: Any) -> Any:
    return move(out, header, changed(place, boot=BootNumber(1)))


def _moved_block_gets_a_new_number(move: Any, out: memoryview, header: Any, place: Any) -> Any:
    if header.offset:  # it has been written before
        header = changed(header, number=BlockNumber(header.number + 100))
    return move(out, header, place)


def _predecessor_is_not_named(encode: Any, header: Any) -> Any:
    return encode(changed(header, predecessor_part=0, predecessor_sealed=0, predecessor_chain=0))


def _creating_is_forgotten(decision: Any, *facts: Any) -> Action:
    action: Action = decision(*facts)
    return Action.FORGET if action is Action.MOVE_ASIDE else action


# --- what no port sees ---------------------------------------------------------------------------


def _half_a_group_is_synced(begin: Any) -> Any:
    """A part tells of its block although another one of the group is to be written again."""

    def begin_anyway(self: BlockStore) -> None:
        end = sum(sync.blocks for sync in self._syncs)
        for group in self._groups:
            if not all(block.written for block in self._blocks[end : end + group.blocks]):
                break
            end += group.blocks
        beyond = [block for block in self._blocks[end:] if block.written]
        for block in beyond:
            block.written = False
        begin(self)
        for block in beyond:
            block.written = True

    return begin_anyway


def _garbage_takes_no_number(encode: Any) -> Any:
    def without(self: BlockStore, slot: Any, fragments: Any, *, group_end: bool) -> Any:
        block = encode(self, slot, fragments, group_end=group_end)
        if slot.kind is FileKind.GARBAGE:
            self._next_block -= 1
        return block

    return without


def _what_was_handed_in_before_is_overtaken(take: Any) -> Any:
    def take_anyway(self: StreamWriter, piece: Any) -> Any:
        queued, self._queued = self._queued, self._unqueued
        try:
            return take(self, piece)
        finally:
            self._queued = queued

    return take_anyway


# --- ranges --------------------------------------------------------------------------------------


def _highest_number_is_followed(_: Any) -> Any:
    def follows(self: Numbering, lowest: int, highest: int, events: int) -> bool:
        self.highest = max(self.highest, highest)
        return True

    return follows


def _nobody_counts_anew(_: Any) -> Any:
    return lambda self, session, numbers, positions, closed, boundary: False


MUTATIONS = [
    Mutation(
        "acknowledge-before-fsync", "acknowledged means durable", CRASHES, 20, files(_NeverSynced)
    ),
    Mutation(
        "written-under-a-sync-is-durable", "a sync covers what was written before it began",
        CRASHES, 30, files(_JoinsTheSyncUnderWay),
    ),
    Mutation(
        "added-under-a-sync-is-settled", "a sync covers what was written before it began",
        CRASHES, 20, PortWrappers(committer=_OneSyncBehind),
    ),
    # Which blocks make a group, the block store alone knows.
    Mutation(
        "half-a-group-is-synced", "a sync covers whole groups, and nothing else is written by then",
        SPACE, 80, replaced(BlockStore, "begin_sync", _half_a_group_is_synced),
    ),
    Mutation(
        "retried-fsync", "a failed fsync is never retried or passed over", CRASHES_AND_DISK, 20,
        files(_RetriesFailedSyncs),
    ),
    Mutation(
        "consecutive-blocks", "offsets advance along consecutive block numbers, over all parts",
        CRASHES, 20, PortWrappers(directory=_DirectoryOfTheFirst),
    ),
    # A number is given when a block is encoded, and no port has seen it before.
    Mutation(
        "garbage-without-number", "block numbers run over END and garbage parts too", CALM, 20,
        replaced(BlockStore, "_encode", _garbage_takes_no_number),
    ),
    Mutation(
        "half-a-piece-counts", "a piece counts as stored only where its last byte is", CRASHES, 20,
        PortWrappers(committer=partial(_ByHalves, with_its_pieces=True)),
    ),
    Mutation(
        "half-a-group-is-committed", "a commit never stops inside a piece", CRASHES, 20,
        PortWrappers(committer=partial(_ByHalves, with_its_pieces=False)),
    ),
    # The order of pieces is made between two threads, before any port.
    Mutation(
        "overtaken-in-its-stream", "a stream's pieces are stored in the order of their admission",
        CRASHES, 50,
        replaced(StreamWriter, "_take_at_once", _what_was_handed_in_before_is_overtaken),
    ),
    Mutation(
        "boot-always-the-first", "block headers carry the boot number", CRASHES, 20,
        decided(moved_block, _boot_is_the_first),
    ),
    Mutation(
        "journal-after-file", "no file is changed before the commit that announces it", CRASHES, 20,
        PortWrappers(committer=_NothingWaits),
    ),
    # The port promises that names are durable: this one is left out of the simulated disk.
    Mutation(
        "no-directory-fsync", "OPEN only after every directory level is durable", CRASHES, 20,
        lambda: patch.object(SimulatedDisk, "sync_names", lambda self, folder: None),
    ),
    Mutation(
        "header-page-not-synced", "OPEN only after the header page is durable", CRASHES, 20,
        files(_HeaderPageNotSynced),
    ),
    Mutation(
        "creating-left-where-it-is", "a CREATING file found at restart is moved aside", CRASHES, 20,
        decided(decide, _creating_is_forgotten),
    ),
    Mutation(
        "no-cut", "beyond the durable offset nothing is adopted at restart", CRASHES, 20,
        files(_TailNotCut),
    ),
    Mutation(
        "tail-not-saved-aside", "the tail is saved aside before it is cut", CRASHES, 20,
        files(_TailNotSaved),
    ),
    Mutation(
        "seal-not-committed", "SEALED at D is committed before a moved block is written",
        CRASHES_AND_DISK, 20,
        committed(
            FILES, FileRecord,
            lambda r: None if r.state is FileState.ERROR and r.sealed and r.durable else r,
        ),
    ),
    Mutation(
        "moved-blocks-renumbered", "moved blocks keep their numbers", DISK, 20,
        decided(moved_block, _moved_block_gets_a_new_number),
    ),
    Mutation(
        "predecessor-not-named", "the new part's header names its predecessor and D",
        CRASHES_AND_DISK, 20, decided(encode_file_header, _predecessor_is_not_named),
    ),
    Mutation(
        "void-blocks-are-read", "what a later boot numbered again does not count", DIRECTORIES, 26,
        decided(void_from, lambda true, *others: None),
    ),
    Mutation(
        "reservation-not-committed", "a reservation is committed before it is made", CRASHES, 20,
        committed(FILES, FileRecord, lambda r: changed(r, reserved=r.durable)),
    ),
    Mutation(
        "footer-not-reserved", "a reservation covers block and footer", SPACE, 20,
        decided(footer_bytes, lambda true, blocks: 0),
    ),
    # What may be told of a range is known where its parts are planned.
    Mutation(
        "boundary-without-its-part", "a range's boundary is committed with the part below it",
        CRASHES, 20, lambda: patch.object(Staging, "boundary", property(lambda self: self.low)),
    ),
    Mutation(
        "wild-number-closes", "no single event number closes a range for those that follow", CALM,
        20, replaced(Numbering, "follows", _highest_number_is_followed),
    ),
    Mutation(
        "anew-is-late", "a source whose numbers begin anew is not late", CALM, 20,
        replaced(Latecomers, "came", _nobody_counts_anew),
    ),
    Mutation(
        "late-is-garbage", "what is late goes to the END part of its range", CALM, 20,
        decided(sort_late, lambda true, numbers, low, ends: true(numbers, low, ())),
    ),
]  # fmt: skip
