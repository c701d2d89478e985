"""Rules of files and disks, each left out: blocks, parts, syncs, tails, reservations."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import msgspec

from dlog.core.block import Place
from dlog.core.replay import Action
from dlog.errors import StorageError
from dlog.faults.simulation.disk import SimulatedDirectory
from dlog.model.ids import BootNumber, FileKind, Offset
from dlog.services import restart, staging
from dlog.services.block_store import BlockStore
from dlog.services.committer import Progress, Ticket
from dlog.services.parts import Part, PartSync, Predecessor
from dlog.services.restart import Restart
from dlog.services.staging import Staging
from dlog.services.stream_thread import StreamWriter
from tests.faults.mutation import (
    CALM,
    CRASHES,
    CRASHES_AND_DISK,
    DISK,
    SPACE,
    Mutation,
    changed,
    replaced,
)

# --- syncs, and what is durable ------------------------------------------------------------------


class _NoSync:
    """Over as soon as it is begun, and nothing was done."""

    def is_over(self) -> bool:
        return True

    def has_failed(self) -> bool:
        return False

    def wait(self) -> None: ...


def _acknowledge_before_sync(begin: Any) -> Any:
    def sync_nothing(self: Part, over: Any) -> PartSync:
        return PartSync(self._written, _NoSync())

    return sync_nothing


def _what_is_written_meanwhile_counts(end: Any) -> Any:
    def all_that_is_written(self: Part, sync: PartSync) -> None:
        end(self, sync)
        self._synced = self._written

    return all_that_is_written


def _groups_written_meanwhile_count(report: Any) -> Any:
    def all_of_them(self: BlockStore) -> Any:
        sync = self._syncs[0]
        self._forget_syncs()
        self._syncs.append(changed(sync, groups=list(self._groups)))
        self._groups.clear()
        return report(self)

    return all_of_them


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


def _sync_failures_passed_over(end: Any) -> Any:
    def carry_on(self: Part, sync: PartSync) -> None:
        try:
            end(self, sync)
        except StorageError:
            self._synced = sync.reached

    return carry_on


def _only_the_first_part_is_synced(begin: Any) -> Any:
    def begin_one(self: BlockStore) -> None:
        before = len(self._syncs)
        begin(self)
        if len(self._syncs) > before:
            begun = self._syncs.pop()
            rest = [(slot, changed(sync, under_way=_NoSync())) for slot, sync in begun.parts[1:]]
            self._syncs.append(changed(begun, parts=[*begun.parts[:1], *rest]))

    return begin_one


def _ticket_is_not_waited_for(_: Any) -> Any:
    return lambda self: None


def _folder_is_not_synced(sync_folder: Any) -> Any:
    return lambda self, folder, path: None


def _tail_is_not_cut(_: Any) -> Any:
    return lambda self, file, record: ""


# --- blocks and pieces ---------------------------------------------------------------------------


def _garbage_takes_no_number(encode: Any) -> Any:
    def without(self: BlockStore, slot: Any, fragments: Any, *, group_end: bool) -> Any:
        block = encode(self, slot, fragments, group_end=group_end)
        if slot.kind is FileKind.GARBAGE:
            self._next_block -= 1
        return block

    return without


def _half_a_group_is_told(report: Any, *, with_its_pieces: bool) -> Any:
    """The blocks of a group are told of one by one; its pieces with the first or with the last."""

    def by_halves(self: BlockStore) -> Any:
        blocks = self._blocks[: self._syncs[0].blocks]
        if len({id(block.slot) for block in blocks}) == len(blocks) > 1:
            first, part = self._first_unreported, blocks[0].slot.part
            assert part is not None
            self._forget_syncs()
            group = self._groups.popleft()
            pieces = group.settlements if with_its_pieces else 0
            told = self._take(1, pieces)
            self.stream = msgspec.structs.replace(self.stream, next_block=first + 1)
            self._committer.progress(
                Progress(self.stream, (part.report(),), tuple(told), first, first)
            )
            self._first_unreported += 1
            # The rest is told of with the next sync.
            self._groups.appendleft(
                changed(group, blocks=group.blocks - 1, settlements=group.settlements - pieces)
            )
            return None
        return report(self)

    return by_halves


def _half_a_piece_counts(report: Any) -> Any:
    return _half_a_group_is_told(report, with_its_pieces=True)


def _half_a_group_is_committed(report: Any) -> Any:
    return _half_a_group_is_told(report, with_its_pieces=False)


def _what_was_handed_in_before_is_overtaken(take: Any) -> Any:
    def take_anyway(self: StreamWriter, piece: Any) -> Any:
        queued, self._queued = self._queued, self._unqueued
        try:
            return take(self, piece)
        finally:
            self._queued = queued

    return take_anyway


def _boot_is_always_the_first(place: Any) -> Any:
    def first(self: Part, number: Any) -> Place:
        return changed(place(self, number), boot=BootNumber(1))

    return first


# --- what a fault ends ---------------------------------------------------------------------------


def _moved_blocks_get_new_numbers(seal: Any) -> Any:
    def renumber(self: BlockStore, slot: Any, reason: str) -> None:
        seal(self, slot, reason)
        for block in self._blocks:
            if block.slot is slot:
                block.header = changed(block.header, number=self._next_block)
                self._next_block += 1

    return renumber


def _seal_is_not_committed(_: Any) -> Any:
    def seal(self: Part, reason: str, *, use_ballast: bool = False) -> Predecessor:
        self.let_go()
        return Predecessor(self.key.part, Offset(self.record.durable), self.record.chain)

    return seal


def _predecessor_is_not_named(create: Any) -> Any:
    return classmethod(
        lambda cls, *args, **options: create.__func__(
            cls, *args, **{**options, "predecessor": None}
        )
    )


# --- ranges --------------------------------------------------------------------------------------


def _late_is_garbage(sort_late: Any) -> Any:
    return lambda numbers, low, ends: sort_late(numbers, low, ())


# --- restart -------------------------------------------------------------------------------------


def _tail_is_not_saved(_: Any) -> Any:
    return lambda self, file, record, tail: None


def _creating_is_left(decide: Any) -> Any:
    def forget(*facts: Any) -> Action:
        action: Action = decide(*facts)
        return Action.FORGET if action is Action.MOVE_ASIDE else action

    return forget


# --- space ---------------------------------------------------------------------------------------


def _header_page_is_not_synced(create: Any) -> Any:
    def lazy(self: SimulatedDirectory, path: str) -> Any:
        file = create(self, path)
        true_sync = file.sync

        def skip() -> None:
            file.sync = true_sync

        file.sync = skip
        return file

    return lazy


def _reservation_is_not_committed(_: Any) -> Any:
    def reserve(self: Part, least: Offset, *, ahead_bytes: int, use_ballast: bool) -> None:
        self._allocate(Offset(least + self._config.reserve_bytes), least)

    return reserve


def _no_room_for_the_footer(_: Any) -> Any:
    def needs(self: Part, block_bytes: int) -> Offset | None:
        needed = Offset(self.end + block_bytes)
        return None if needed <= self._allocated else needed

    return needs


MUTATIONS = [
    Mutation(
        "acknowledge-before-fsync", "acknowledged means durable", CRASHES, 20,
        replaced(Part, "begin_sync", _acknowledge_before_sync),
    ),
    Mutation(
        "written-under-a-sync-is-durable", "a sync covers what was written before it began",
        CRASHES, 20, replaced(Part, "end_sync", _what_is_written_meanwhile_counts),
    ),
    Mutation(
        "added-under-a-sync-is-settled", "a sync covers what was written before it began",
        CRASHES, 20, replaced(BlockStore, "_report", _groups_written_meanwhile_count),
    ),
    Mutation(
        "half-a-group-is-synced", "a sync covers whole groups, and nothing else is written by then",
        SPACE, 20, replaced(BlockStore, "begin_sync", _half_a_group_is_synced),
    ),
    Mutation(
        "retried-fsync", "a failed fsync is never retried or passed over", CRASHES_AND_DISK, 20,
        replaced(Part, "end_sync", _sync_failures_passed_over),
    ),
    Mutation(
        "consecutive-blocks", "offsets advance along consecutive block numbers, over all parts",
        CRASHES, 20, replaced(BlockStore, "begin_sync", _only_the_first_part_is_synced),
    ),
    Mutation(
        "garbage-without-number", "block numbers run over END and garbage parts too", CALM, 20,
        replaced(BlockStore, "_encode", _garbage_takes_no_number),
    ),
    Mutation(
        "half-a-piece-counts", "a piece counts as stored only where its last byte is", CRASHES, 40,
        replaced(BlockStore, "_report", _half_a_piece_counts),
    ),
    Mutation(
        "half-a-group-is-committed", "a commit never stops inside a piece", CRASHES, 20,
        replaced(BlockStore, "_report", _half_a_group_is_committed),
    ),
    Mutation(
        "overtaken-in-its-stream", "a stream's pieces are stored in the order of their admission",
        CRASHES, 20,
        replaced(StreamWriter, "_take_at_once", _what_was_handed_in_before_is_overtaken),
    ),
    Mutation(
        "boot-always-the-first", "block headers carry the boot number", CRASHES, 20,
        replaced(Part, "place", _boot_is_always_the_first),
    ),
    Mutation(
        "journal-after-file", "no file is changed before the commit that announces it", CRASHES, 20,
        replaced(Ticket, "wait", _ticket_is_not_waited_for),
    ),
    Mutation(
        "no-directory-fsync", "OPEN only after every directory level is durable", CRASHES, 20,
        replaced(SimulatedDirectory, "_sync_folder", _folder_is_not_synced),
    ),
    Mutation(
        "header-page-not-synced", "OPEN only after the header page is durable", CRASHES, 20,
        replaced(SimulatedDirectory, "create", _header_page_is_not_synced),
    ),
    Mutation(
        "creating-left-where-it-is", "a CREATING file found at restart is moved aside", CRASHES, 20,
        replaced(restart, "decide", _creating_is_left),
    ),
    Mutation(
        "no-cut", "beyond the durable offset nothing is adopted at restart", CRASHES, 20,
        replaced(Restart, "_cut_tail", _tail_is_not_cut),
    ),
    Mutation(
        "tail-not-saved-aside", "the tail is saved aside before it is cut", CRASHES, 20,
        replaced(Restart, "_save_aside", _tail_is_not_saved),
    ),
    Mutation(
        "seal-not-committed", "SEALED at D is committed before a moved block is written",
        CRASHES_AND_DISK, 20, replaced(Part, "seal_by_fault", _seal_is_not_committed),
    ),
    Mutation(
        "moved-blocks-renumbered", "moved blocks keep their numbers", DISK, 20,
        replaced(BlockStore, "_seal", _moved_blocks_get_new_numbers),
    ),
    Mutation(
        "predecessor-not-named", "the new part's header names its predecessor and D",
        CRASHES_AND_DISK, 20,
        lambda: patch.object(Part, "create", _predecessor_is_not_named(Part.__dict__["create"])),
    ),
    Mutation(
        "reservation-not-committed", "a reservation is committed before it is made", CRASHES, 20,
        replaced(Part, "reserve", _reservation_is_not_committed),
    ),
    Mutation(
        "footer-not-reserved", "a reservation covers block and footer", SPACE, 20,
        replaced(Part, "needs_reservation", _no_room_for_the_footer),
    ),
    Mutation(
        "boundary-without-its-part", "a range's boundary is committed with the part below it",
        CRASHES, 20, lambda: patch.object(Staging, "boundary", property(lambda self: self.low)),
    ),
    Mutation(
        "late-is-garbage", "what is late goes to the END part of its range", CALM, 20,
        replaced(staging, "sort_late", _late_is_garbage),
    ),
]  # fmt: skip
