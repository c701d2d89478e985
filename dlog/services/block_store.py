"""The block store of a stream: makes blocks of groups, writes and syncs them, tells the committer.

A fault seals the part at its durable offset and moves what was not told of into a new one
(contract 8). It decides nothing about which part an event belongs to.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import msgspec

from dlog.core.block import (
    BlockHeader,
    Fragment,
    Packing,
    Place,
    block_bytes_max,
    encode_block,
    moved_block,
)
from dlog.core.event_file import footer_bytes
from dlog.core.fate import Stall
from dlog.core.filters import Compression, Compressor, Filter
from dlog.core.journal_records import OperationKind, StreamRecord
from dlog.core.run_files import PART_SUFFIX
from dlog.core.states import FileState
from dlog.errors import DiskFull, FileLost, FileTooLarge, NoDescriptor, StorageError
from dlog.limits import MIB, PAGE_BYTES, RESERVE_BYTES_MIN
from dlog.model.config import StreamConfig
from dlog.model.ids import (
    BlockNumber,
    Offset,
    RunNumber,
    SessionId,
    StreamKey,
    StreamName,
    file_path,
)
from dlog.ports import Buffer, Change, Commits, CommitTicket, Severity
from dlog.services.committer import Committer, Progress, Settlement
from dlog.services.parts import Part, PartSync, Storage, allot, put_file, put_stream
from dlog.services.staging import Slot

log = logging.getLogger("dlog.stream")

RETRY_NS: Final = 200_000_000  # between two tries for space
RETRY_NS_MAX: Final = 10_000_000_000  # for a directory that goes on failing
PARTS_RETRY_NS_MAX: Final = 120_000_000_000  # and for one that takes a new part first
RESERVED_PER_WRITTEN: Final = 3  # bytes ahead
NEW_PART_BYTES: Final = MIB  # what a new part needs beside its first block


@dataclass(slots=True)
class _Block:
    """An encoded block that is not synced yet; its number never changes."""

    slot: Slot
    header: BlockHeader
    buffer: Buffer
    payload_bytes: int
    written: bool = False


class _Group(NamedTuple):
    """How much there is of a group, and how the stream stands behind it. since_ns: when its oldest
    piece was staged."""

    blocks: int
    settlements: int
    bytes: int
    next_block: int
    highest: int
    anew: Sequence[SessionId]
    since_ns: int


class _Sync(NamedTuple):
    """A sync under way: whole groups, behind those of the one before, and what is synced for which
    slot."""

    groups: list[_Group]
    parts: list[tuple[Slot, PartSync]]

    @property
    def blocks(self) -> int:
        return sum(group.blocks for group in self.groups)


class _Commits:
    """The committer as the stream's parts see it: once the stream ends, the ballast is there for
    each commit of theirs, also in the middle of what was begun before."""

    def __init__(self, commits: Commits, store: BlockStore) -> None:
        self._commits = commits
        self._store = store

    def submit(self, changes: Sequence[Change], *, use_ballast: bool = False) -> CommitTicket:
        use_ballast = use_ballast or self._store.ending
        ticket = self._commits.submit(changes, use_ballast=use_ballast)
        if self._store.ending and not use_ballast:
            self._commits.submit([], use_ballast=True)  # it takes along what is before it
        return ticket


class BlockStore:
    """Used by one thread at a time. ending: commits may use the ballast, for the run must end.
    journal_full: it was when the ending began, so that no new part is begun any more.

    `stream` is the stream's record as it was last handed to the committer. stalled: why nothing can
    be written now, None where it can. doubtful: nothing was stored since something failed, or since
    the start of a resumed stream. settled: events that the committer was told of. `sync_over` is
    called, by any thread, when one is; `boundary` tells what the journal may be told of
    the stream's ranges (`Staging.boundary`).
    """

    def __init__(
        self,
        storage: Storage,
        committer: Committer,
        config: StreamConfig,
        stream: StreamRecord,
        *,
        run_started_ns: int,
        streams: tuple[str, ...],
        sync_over: Callable[[], None],
        boundary: Callable[[], int],
    ) -> None:
        self._sync_over = sync_over
        self._boundary = boundary
        self._key = StreamKey(RunNumber(stream.run), StreamName(stream.stream))
        # For the stream's parts, too.
        self.storage = self._storage = replace(storage, commits=_Commits(storage.commits, self))
        self._clock = storage.clock
        self._committer = committer
        self._config = config
        self._run_started_ns = run_started_ns
        self._streams = streams
        if stream.directory >= len(storage.directories):
            # The orphans' stream outlives a directory that holds no open file of it any more.
            stream = msgspec.structs.replace(stream, directory=0)
        self.stream = stream
        self.ending = False
        self.journal_full = False
        self.stalled: Stall | None = None
        self._next_block = stream.next_block  # runs ahead of the record
        self._first_unreported = self._next_block
        self._blocks: list[_Block] = []
        self._settlements: list[Settlement] = []
        self._groups: deque[_Group] = deque()  # that no sync covers
        self._syncs: deque[_Sync] = deque()
        self.settled = 0
        self._written_bytes = 0  # in this boot
        self._retry_ns = 0
        self._tries = 0
        # An earlier boot may have met the fault: its tries leave no files either.
        self.doubtful = bool(stream.next_part)
        self._made_a_part = False  # since the last try
        self._met: tuple[Slot, Part, StorageError] | None = None  # by `try_store`
        compression = Compression[config.compression.upper()]
        self._packing = Packing(
            Filter[config.filter.upper()] if compression else Filter.NONE,
            config.element_bytes,
            Compressor(config.compression_level) if compression else None,
        )

    # --- what is under way -------------------------------------------------------------------

    @property
    def bytes(self) -> int:
        """Length of the blocks that no commit was told of."""
        return sum(block.header.block_bytes for block in self._blocks)

    @property
    def pending(self) -> bool:
        """Whether there is anything that no commit was told of."""
        return bool(self._blocks or self._settlements)

    @property
    def syncs(self) -> int:
        """How many are under way."""
        return len(self._syncs)

    @property
    def unsynced_bytes(self) -> int:
        """Length of the blocks that no sync covers, nor one under way."""
        return sum(group.bytes for group in self._groups)

    @property
    def syncing_bytes(self) -> int:
        """Length of the blocks that the syncs under way cover."""
        return sum(group.bytes for sync in self._syncs for group in sync.groups)

    @property
    def received_ns(self) -> int:
        """When the oldest piece was staged that no sync covers; 0 for none."""
        return self._groups[0].since_ns if self._groups else 0

    def busy(self) -> set[int]:
        """The slots (by id) with blocks that no commit was told of."""
        return {id(block.slot) for block in self._blocks}

    def nudge(self) -> None:
        """Space may be back; from any thread."""
        self._retry_ns = 0

    def drop(self) -> list[Settlement]:
        """Give up on everything under way; what the committer was never told of it."""
        for part in {id(b.slot): b.slot.part for b in self._blocks if b.written}.values():
            if part is not None and part.dirty:
                part.forget()
        self._syncs.clear()
        self._groups.clear()
        return self._take(len(self._blocks), len(self._settlements))

    def _take(self, blocks: int, settlements: int) -> list[Settlement]:
        """The oldest ones out; their memory is free."""
        for block in self._blocks[:blocks]:
            block.buffer.release()
        del self._blocks[:blocks]
        taken = self._settlements[:settlements]
        del self._settlements[:settlements]
        return taken

    # --- a group -----------------------------------------------------------------------------

    def add(
        self,
        blocks: list[tuple[Slot, list[Fragment]]],
        settlements: list[Settlement],
        since_ns: int,
        highest: int,
        anew: Sequence[SessionId],
    ) -> None:
        """A group: one block a slot, numbered in that order; the last one ends the group. highest,
        anew: how far the stream's numbers are followed with it, and the sessions that count anew.
        """
        end = len(blocks) - 1
        made = [
            self._encode(s, fragments, group_end=i == end)
            for i, (s, fragments) in enumerate(blocks)
        ]
        size = sum(block.header.block_bytes for block in made)
        self._blocks += made
        self._settlements += settlements
        self._groups.append(
            _Group(len(made), len(settlements), size, self._next_block, highest, anew, since_ns)
        )

    def _encode(self, slot: Slot, fragments: list[Fragment], *, group_end: bool) -> _Block:
        events = sum(f.entry.events for f in fragments)
        payload_bytes = sum(f.entry.payload_bytes for f in fragments)
        buffer = self._storage.buffers.take(block_bytes_max(len(fragments), events, payload_bytes))
        number = BlockNumber(self._next_block)
        self._next_block += 1
        # Where it goes is put into the header when it is written: its part may not exist yet.
        nowhere = Place(Offset(0), number, self._storage.boot, bytes(16), 0, Offset(0))
        header = encode_block(
            fragments,
            buffer.view,
            nowhere,
            self._packing,
            group_end=group_end,
            time_ns=self._clock.wall_ns(),
        )
        return _Block(slot, header, buffer, payload_bytes)

    # --- to the disk -------------------------------------------------------------------------

    @property
    def compresses(self) -> bool:
        """Whether a block takes long to make."""
        return self._packing.compressor is not None

    def has_room(self, part: Part | None, fragments: int, content_bytes: int) -> bool:
        """Whether a block of so much, tables and payloads, can be written to the part without any
        waiting: nothing has to be made, reserved or written before it."""
        if part is None or not all(block.written for block in self._blocks):
            return False
        return part.needs_reservation(block_bytes_max(fragments, 0, content_bytes)) is None

    def try_store(self) -> bool:
        """As `store`, where there is room for every block; a fault is left for that. False then."""
        for block in self._blocks:
            if not block.written:
                try:
                    self._write(block)
                except StorageError as error:
                    assert block.slot.part is not None
                    self._met = block.slot, block.slot.part, error
                    return False
        return True

    def store(self) -> bool:
        """Write every block that is not written. False (and stalled) where that cannot be now."""
        if self.stalled and self._clock.monotonic_ns() < self._retry_ns:
            return False
        failures = 0
        if self._met is not None:
            (slot, part, error), self._met = self._met, None
            if slot.part is part:  # else that is sealed already, for what its sync met
                self._fault(slot, error)
                failures = 1
        while (block := next((b for b in self._blocks if not b.written), None)) is not None:
            try:
                self._make_room(block.slot, block.header.block_bytes)
            except DiskFull as error:
                if isinstance(error, FileTooLarge) and block.slot.holds_blocks:
                    self._leave_part(block.slot, "no file of its filesystem may be longer")
                    continue
                failures += 1
                if failures >= self._directories():
                    return self._stall(Stall.NO_SPACE, error)
                self._leave_directory(block.slot)
                continue
            except StorageError as error:
                failures += 1
                self._fault(block.slot, error)
                if failures > self._directories():
                    return self._stall(Stall.STORAGE_FAILED, error)
                continue
            try:
                self._write(block)
            except StorageError as error:
                failures += 1
                self._fault(block.slot, error)
                if failures > self._directories():
                    return self._stall(Stall.STORAGE_FAILED, error)
        if self.stalled:
            log.warning("%s: writing again", self._key)
            self._stalls_no_more()
        return True

    def over(self) -> None:
        """The stream ends: from now on it waits for no space."""
        if self.stalled:
            self._stalls_no_more()

    def _stalls_no_more(self) -> None:
        self._storage.alarms.clear_alarm(f"stalled {self._key}")
        self.stalled = None

    def _make_room(self, slot: Slot, block_bytes: int) -> None:
        """A part with space reserved for the block and the footer behind it."""
        if slot.part is None:
            self._refuse_without_space(block_bytes)
            if self.doubtful:
                self._try_out(slot, block_bytes)
            self.open(slot)
        assert slot.part is not None
        end = slot.part.needs_reservation(block_bytes)
        if end is not None:
            slot.part.check_name()
            # In proportion to what was written: a busy stream reserves seldom, and a quiet one
            # holds little that others lack.
            written = self._written_bytes + block_bytes
            ahead = max(RESERVE_BYTES_MIN, RESERVED_PER_WRITTEN * written)
            slot.part.reserve(end, ahead_bytes=ahead, use_ballast=self.ending)

    def _refuse_without_space(self, block_bytes: int) -> None:
        """No file is begun that could not take the block: each try would leave one behind."""
        directory = self._storage.directories[self.stream.directory]
        if self.ending and self.journal_full:
            # A backlog may be thousands of parts, and each is a record that stays: the ballast is
            # for the end of the run.
            raise DiskFull("the journal is full: no new part is begun", path=directory.name)
        if directory.space().free < block_bytes + NEW_PART_BYTES:
            raise DiskFull("no space left for a new part", path=directory.name)

    def _try_out(self, slot: Slot, block_bytes: int) -> None:
        """Another part is begun only where it would take the block. Otherwise each try on a disk
        that goes on failing would leave one behind."""
        key, _ = allot(self.stream, slot.kind)
        directory = self._storage.directories[self.stream.directory]
        size = PAGE_BYTES + block_bytes + footer_bytes(1)
        directory.try_out(file_path(key) + PART_SUFFIX, size)

    def open_first(self, slot: Slot) -> str:
        """Make the slot's part in the first directory of the stream that takes it; why none did."""
        problem = ""
        for _ in range(self._directories()):
            directory = self._storage.directories[self.stream.directory]
            try:
                directory.space()  # no record is begun of a file in a directory that is away
                self.open(slot)
            except NoDescriptor as error:
                return str(error)
            except StorageError as error:
                problem = str(error)
                log.error("%s: %s", self._key, error)
                self._next_directory()
            else:
                return ""
        return problem

    def open(self, slot: Slot) -> None:
        key, self.stream = allot(self.stream, slot.kind)
        ended = slot.ended
        slot.part = Part.create(
            self._storage,
            self._config,
            key,
            self.stream,
            run_started_ns=self._run_started_ns,
            streams=self._streams,
            low=slot.low,
            high=ended.high if ended else -1,
            state=FileState.END if ended else FileState.OPEN,
            predecessor=slot.predecessor,
            use_ballast=self.ending,
        )
        self._made_a_part = True
        self._forget_range(slot)

    def _forget_range(self, slot: Slot) -> None:
        """Its part is made, or it is over: told with the next commit."""
        if slot.ended is not None and self.stream.unmade:
            mine = (slot.ended.low, slot.ended.high)
            unmade = [one for one in self.stream.unmade if tuple(one) != mine]
            self.stream = msgspec.structs.replace(self.stream, unmade=unmade)

    def _write(self, block: _Block) -> None:
        part = block.slot.part
        assert part is not None
        block.header = moved_block(block.buffer.view, block.header, part.place(block.header.number))
        part.write(block.header, block.buffer.view, block.payload_bytes)
        block.written = True
        self._written_bytes += block.header.block_bytes

    def _directories(self) -> int:
        return len(self._config.directories or self._storage.directories)

    def _next_directory(self) -> None:
        order = self._config.directories or tuple(range(len(self._storage.directories)))
        here = order.index(self.stream.directory) if self.stream.directory in order else -1
        self.stream = msgspec.structs.replace(self.stream, directory=order[(here + 1) % len(order)])

    def _leave_directory(self, slot: Slot) -> None:
        """No space here: the blocks of the slot go to a part in the next directory."""
        if self._leave_part(slot, "no space left in its directory"):
            self._next_directory()

    def _leave_part(self, slot: Slot, why: str) -> bool:
        """The blocks of the slot go to another part; False where a fault came in between, which
        left the directory.

        Where some of an unfinished group are written in the old part, they are written again in the
        new one, and so the old one is sealed like after a fault; else it is closed as any other.
        """
        if slot.part is not None and slot.part.unreported and not self._sync_what_is_whole():
            return False
        if slot.part is not None and slot.part.unreported:
            self._seal(slot, why)
        elif slot.part is not None:
            self._keep_range(slot)
            self._close_part(slot)
        return True

    def _fault(self, slot: Slot, error: StorageError) -> None:
        """Contract 8: the part is sealed at its durable offset, its blocks go to a new one."""
        lost = isinstance(error, FileLost)  # that alarm is the file's, and the disk is sound
        if not lost:
            self._storage.alarms.raise_alarm(f"storage {self._key}", Severity.ERROR, str(error))
        log.error("%s: %s", self._key, error)
        self.doubtful = True
        if slot.part is not None:
            self._seal(slot, str(error))
        if not lost:
            self._next_directory()

    def look_at_names(self, slots: Sequence[Slot]) -> None:
        """Seal and save each part whose file was deleted or moved, as after a fault."""
        for slot in slots:
            try:
                if slot.part is not None:
                    slot.part.check_name()
            except FileLost as error:
                self._fault(slot, error)

    def _seal(self, slot: Slot, reason: str) -> None:
        assert slot.part is not None
        # Before the seal: a sealed part may be settled at any time.
        self._keep_range(slot)
        slot.predecessor = slot.part.seal_by_fault(reason, use_ballast=self.ending)
        slot.part = None
        self._forget_syncs()
        for block in self._blocks:
            if block.slot is slot:
                block.written = False

    def _keep_range(self, slot: Slot) -> None:
        """Its part is over and another one takes what is late: until that is made, nothing tells of
        the range but this."""
        if slot.ended is not None:
            unmade = [*self.stream.unmade, (slot.ended.low, slot.ended.high)]
            self.stream = msgspec.structs.replace(self.stream, unmade=unmade)
            self._storage.commits.submit([put_stream(self.stream)], use_ballast=self.ending)

    def _stall(self, why: Stall, error: StorageError) -> bool:
        self._tries += 1
        self.doubtful = True
        longest_ns = PARTS_RETRY_NS_MAX if self._made_a_part else RETRY_NS_MAX
        self._made_a_part = False
        longer_ns = min(RETRY_NS << min(self._tries, 16), longest_ns)
        wait_ns = RETRY_NS if why is Stall.NO_SPACE else longer_ns
        self._retry_ns = self._clock.monotonic_ns() + wait_ns
        if not self.stalled:
            log.error("%s: nothing can be written: %s", self._key, error)
            self._storage.alarms.raise_alarm(f"stalled {self._key}", Severity.ERROR, str(error))
        self.stalled = why
        return False

    # --- syncs -------------------------------------------------------------------------------

    def begin_sync(self) -> None:
        """Begin to fdatasync the groups that are written and that no sync covers yet, if there are
        any. What is added and written meanwhile waits for the next one."""
        covered = end = sum(sync.blocks for sync in self._syncs)
        groups: list[_Group] = []
        for group in self._groups:
            if not all(block.written for block in self._blocks[end : end + group.blocks]):
                break
            groups.append(group)
            end += group.blocks
        # A part tells of all that is written in it, and of half a group it must not.
        if not groups or any(block.written for block in self._blocks[end:]):
            return
        slots = {id(block.slot): block.slot for block in self._blocks[covered:end]}.values()
        parts = [(s, s.part.begin_sync(self._sync_over)) for s in slots if s.part is not None]
        for _ in groups:
            self._groups.popleft()
        self._syncs.append(_Sync(groups, parts))

    def sync_is_over(self) -> bool:
        """Whether one is under way for which `end_sync` would not wait."""
        return bool(self._syncs) and all(
            sync.under_way.is_over() for _, sync in self._syncs[0].parts
        )

    def sync_has_failed(self) -> bool:
        """Whether the oldest one, which is over, did."""
        return any(sync.under_way.has_failed() for _, sync in self._syncs[0].parts)

    def end_sync(self) -> bool:
        """Wait for the oldest sync under way, and tell the committer what it covered. Where it
        failed, all is written and synced anew; False where that cannot be now."""
        failures = 0
        while self._syncs and (failed := self._await_sync()) is not None:
            self._fault(*failed)
            failures += 1
            # A disk may take every new header and no block: each try would leave a file there.
            if failures > self._directories():
                return self._stall(Stall.STORAGE_FAILED, failed[1])
            if not self.store():
                return False
            self.begin_sync()
        self._tries = 0
        self.doubtful = False
        if self._syncs:
            self._report()
        return True

    def _sync_what_is_whole(self) -> bool:
        """Sync every group that is written. False where a fault came in between."""
        self.begin_sync()
        while self._syncs:
            failed = self._await_sync()
            if failed is not None:
                self._fault(*failed)
                return False
            self._report()
        return True

    def _await_sync(self) -> tuple[Slot, StorageError] | None:
        for slot, sync in self._syncs[0].parts:
            assert slot.part is not None
            try:
                slot.part.end_sync(sync)
            except StorageError as error:
                return slot, error
        return None

    def _forget_syncs(self) -> None:
        """What they cover is no longer all there; the parts that are left are synced once more."""
        while self._syncs:
            self._groups.extendleft(reversed(self._syncs.pop().groups))

    def _report(self) -> None:
        """What the oldest sync covered is durable: tell the committer."""
        sync = self._syncs.popleft()
        last = sync.groups[-1]
        touched = {id(b.slot): b.slot for b in self._blocks[: sync.blocks]}.values()
        self.stream = msgspec.structs.replace(
            self.stream,
            next_block=last.next_block,
            highest_event=last.highest,
            anew=list(last.anew),
            low=self._boundary(),
        )
        settlements = self._take(sync.blocks, sum(group.settlements for group in sync.groups))
        parts = [slot.part for slot in touched if slot.part is not None]
        files = tuple(part.report() for part in parts)

        def committed() -> None:
            for part, file in zip(parts, files, strict=True):
                part.committed(file.durable)

        self._committer.progress(
            Progress(
                self.stream,
                files,
                tuple(settlements),
                self._first_unreported,
                last.next_block - 1,
                sync.groups[0].since_ns,
                committed,
            )
        )
        self._first_unreported = last.next_block
        self.settled += sum(s.events for s in settlements)

    # --- the parts' states -------------------------------------------------------------------

    def ended(self, part: Part, high: int) -> None:
        """The part is full; its END is on its way into the journal before a new part can be."""
        part.ended(high)
        self.stream = msgspec.structs.replace(self.stream, low=high)
        number, announced = self._storage.operations.announce(
            OperationKind.END, part.record.path, f"at event {high}"
        )
        self._storage.commits.submit([announced, put_file(part.record), put_stream(self.stream)])
        self._storage.commits.submit(self._storage.operations.done(number))

    def give_back(self, slots: Sequence[Slot]) -> None:
        """Give back the space that is reserved ahead; nothing is under way."""
        for slot in slots:
            try:
                if slot.part is not None:
                    slot.part.give_back()
            except StorageError as error:
                self._fault(slot, error)

    def discard(self, slot: Slot) -> None:
        """Remove a part in which there never was an event."""
        if slot.part is None or slot.part.holds_blocks:
            self.close(slot)
            return
        part, slot.part = slot.part, None
        try:
            part.discard(use_ballast=self.ending)
        except StorageError as error:
            log.warning("%s: %s", self._key, error)

    def close(self, slot: Slot) -> None:
        """A part that cannot be sealed stays in ERROR at its durable offset; the next start tries
        again. Ending a run always succeeds."""
        told = self.stream
        self._forget_range(slot)  # where a crash came between the part's making and the next commit
        if self.stream is not told:
            # Before the part is closed, or the next start would open its range once more.
            self._storage.commits.submit([put_stream(self.stream)], use_ballast=self.ending)
        self._close_part(slot)

    def _close_part(self, slot: Slot) -> None:
        part, slot.part = slot.part, None
        if part is None:
            return
        ballast = self.ending
        try:
            if part.unreported:
                part.seal_by_fault(
                    "ended with blocks that could not be stored", use_ballast=ballast
                )
            else:
                part.close(use_ballast=ballast)
        except StorageError as error:
            log.error("%s: %s", self._key, error)
