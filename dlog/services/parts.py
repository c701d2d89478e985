"""One part: an event file from its creation to its seal. Each step is journalled before it is done.

What is on disk in each state stands at `FileState` in core/states.py. A part is used by one thread
at a time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from dlog.core.block import (
    FRAGMENT_BYTES,
    HEADER_BYTES,
    BlockHeader,
    BlockType,
    Place,
    decode_header,
    padded,
)
from dlog.core.checksum import joined
from dlog.core.event_file import (
    INDEX_DTYPE,
    FileHeader,
    HeaderText,
    Sidecar,
    Totals,
    decode_sidecar,
    encode_file_header,
    encode_footer,
    encode_sidecar,
    footer_bytes,
    sidecar_path,
)
from dlog.core.journal_records import (
    ClosedFileRecord,
    FileRecord,
    OperationKind,
    StreamRecord,
    closed_file_key,
    encode_record,
    file_key,
    stream_key,
)
from dlog.core.rotation import Fill
from dlog.core.run_files import PART_SUFFIX
from dlog.core.states import FILE, FileEvent, FileState
from dlog.errors import DiskFull, FileLost, FormatError, InvariantBroken, NameTaken, StorageError
from dlog.limits import MIB, PAGE_BYTES, RESERVE_BYTES_MIN
from dlog.model.config import StreamConfig
from dlog.model.ids import (
    BlockNumber,
    BootNumber,
    FileKey,
    FileKind,
    Offset,
    PartNumber,
    RunNumber,
    StreamKey,
    StreamName,
    file_path,
)
from dlog.ports import (
    Alarms,
    Buffers,
    Change,
    Clock,
    Commits,
    DataFile,
    Directory,
    Severity,
    SyncUnderWay,
)
from dlog.services.lost_files import LostFiles
from dlog.services.operations import Operations

log = logging.getLogger("dlog.parts")


@dataclass(slots=True)
class Marks:
    """What INIT says of disk space. low_water_bytes: of a directory, kept free of what is reserved
    ahead."""

    low_water_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Storage:
    """What every part of this logger is made with."""

    logger: str
    logger_uuid: bytes
    boot: BootNumber
    directories: Sequence[Directory]
    buffers: Buffers
    commits: Commits
    operations: Operations
    clock: Clock
    alarms: Alarms
    lost_files: LostFiles
    random_bytes: Callable[[int], bytes] = os.urandom
    marks: Marks = field(default_factory=Marks)


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The part that a fault sealed and that a new one goes on for."""

    part: PartNumber
    sealed: Offset
    chain: int


def key_of(record: FileRecord) -> FileKey:
    return FileKey(
        RunNumber(record.run),
        StreamName(record.stream),
        FileKind(record.kind),
        PartNumber(record.part),
    )


def allot(stream: StreamRecord, kind: FileKind) -> tuple[FileKey, StreamRecord]:
    """The key of the stream's next part of that kind, and the stream's record without it."""
    part = PartNumber(stream.next_part.get(kind, 1))
    key = FileKey(RunNumber(stream.run), StreamName(stream.stream), kind, part)
    return key, msgspec.structs.replace(stream, next_part={**stream.next_part, kind: part + 1})


class _Reached(NamedTuple):
    """How far a part is written, or synced: what its record says of that."""

    end: Offset
    crc: int
    chain: int
    last_header: int
    totals: Totals


class PartSync(NamedTuple):
    """A sync of a part that was begun, and how far the part was written then."""

    reached: _Reached
    under_way: SyncUnderWay


class Part:
    """An event file that is not CLOSED.

    `record` is what the journal says of it, or will once the committer has done what it was handed.
    """

    def __init__(
        self, storage: Storage, config: StreamConfig, record: FileRecord, file: DataFile
    ) -> None:
        self._storage = storage
        self._config = config
        self._file = file
        self.record = record
        self.key = key_of(record)
        self._written = self._synced = _Reached(
            Offset(record.durable),
            record.crc32c,
            record.chain,
            record.last_header_offset,
            record.totals,
        )
        self._committed = Offset(record.durable)
        self._allocated = record.reserved
        self._tried = Offset(record.durable)  # the highest end of a write, that failed or not
        self._index = bytearray()
        # Blocks that were written before this boot are not in `_index`: they are read when the part
        # is sealed, since a restart must not take longer the larger its files are.
        self._index_from = record.totals.blocks
        self._index_end = Offset(record.durable)
        self._unseen = ""  # why its name could not be looked at
        self.opened_ns = storage.clock.monotonic_ns()
        self.ended_ns = 0

    # --- creation ----------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        storage: Storage,
        config: StreamConfig,
        key: FileKey,
        stream: StreamRecord,
        *,
        run_started_ns: int,
        streams: tuple[str, ...],
        low: int = -1,
        state: FileState = FileState.OPEN,
        high: int = -1,
        predecessor: Predecessor | None = None,
        use_ballast: bool = False,
    ) -> Part:
        """A new part, OPEN (or END) when this returns. `key` and `stream` come from `allot`.

        Raises `StorageError`; then the record is in ERROR, and what lies on disk under its name is
        moved aside later; where there is nothing, there is no record either.
        """
        before = predecessor or Predecessor(PartNumber(0), Offset(0), 0)
        record = FileRecord(
            run=key.run,
            stream=key.stream,
            kind=key.kind,
            part=key.part,
            state=FileState.CREATING,
            directory=stream.directory,
            path=file_path(key),
            file_uuid=storage.random_bytes(16),
            salt=storage.random_bytes(16),
            boot=storage.boot,
            created_ns=storage.clock.wall_ns(),
            low=low,
            high=high,
            predecessor_part=before.part,
            predecessor_sealed=before.sealed,
            predecessor_chain=before.chain,
        )
        number, announced = storage.operations.announce(OperationKind.CREATE, record.path)
        storage.commits.submit(
            [announced, put_file(record), put_stream(stream)], use_ballast=use_ballast
        ).wait()
        page, crc = _header_page(
            FileHeader(
                key,
                record.file_uuid,
                storage.logger_uuid,
                record.salt,
                storage.boot,
                record.created_ns,
                BlockNumber(stream.next_block),
                HeaderText(
                    logger=storage.logger,
                    config=config,
                    run_started_ns=run_started_ns,
                    streams=streams,
                    low=low,
                ),
                before.part,
                before.sealed,
                before.chain,
            )
        )
        directory = storage.directories[stream.directory]
        try:
            file = directory.create(record.path + PART_SUFFIX)
            _write_pages(storage, file, Offset(0), page)
            file.sync()
        except StorageError as error:
            if not isinstance(error, NameTaken):
                _take_away(storage, directory, record, use_ballast=use_ballast)
            state = FILE.next(record.state, FileEvent.CREATE_FAILED)
            failed = put_file(
                msgspec.structs.replace(record, state=state, sealed=True, reason=str(error))
            )
            if not _is_there(directory, record.path + PART_SUFFIX):
                failed = (file_key(key), None)  # nothing is left for a restart to settle
            storage.commits.submit(
                [failed, *storage.operations.done(number, f"failed: {error}")],
                use_ballast=use_ballast,
            ).wait()
            raise
        record = msgspec.structs.replace(
            record,
            state=FILE.next(record.state, FileEvent.CREATED),
            durable=PAGE_BYTES,
            reserved=PAGE_BYTES,
            crc32c=crc32c(page),
            chain=crc,
        )
        if state is FileState.END:
            record = msgspec.structs.replace(record, state=FILE.next(record.state, FileEvent.FULL))
        storage.commits.submit(
            [put_file(record), *storage.operations.done(number)], use_ballast=use_ballast
        ).wait()
        log.info("%s created", directory.name + "/" + record.path)
        return cls(storage, config, record, file)

    def use(self, storage: Storage) -> None:
        """From the restart's commits to the committer's."""
        self._storage = storage

    # --- writing -----------------------------------------------------------------------------

    @property
    def directory(self) -> Directory:
        return self._storage.directories[self.record.directory]

    @property
    def end(self) -> Offset:
        """The write position."""
        return self._written.end

    @property
    def dirty(self) -> bool:
        """Whether something is written that is not known to be synced."""
        return self._synced.end != self._written.end

    def fill(self, staged_bytes: int, staged_events: int) -> Fill:
        """How full it is, with what is staged for it."""
        return Fill(
            self.end + staged_bytes,
            self._written.totals.events + staged_events,
            self._written.totals.blocks,
            self._storage.clock.monotonic_ns() - self.opened_ns,
        )

    def place(self, number: BlockNumber) -> Place:
        """Where the next block goes."""
        return Place(
            self.end,
            number,
            self._storage.boot,
            self.record.salt,
            self._written.chain,
            self._committed,
        )

    def committed(self, durable: int) -> None:
        """The journal has that durable offset; from the committer's thread."""
        self._committed = Offset(durable)

    def needs_reservation(self, block_bytes: int) -> Offset | None:
        """The end that a reservation must reach before a block of that length, or None."""
        needed = self.end + block_bytes + footer_bytes(self._written.totals.blocks + 1)
        return None if needed <= self._allocated else Offset(padded(needed))

    def reserve(
        self, least: Offset, *, ahead_bytes: int = RESERVE_BYTES_MIN, use_ballast: bool = False
    ) -> None:
        """Commit a reservation of at least that, and of `ahead_bytes` more where there is space for
        it, then allocate it. Raises `StorageError`, also `DiskFull`."""
        end = Offset(padded(least + self._ahead(least, ahead_bytes)))
        number, announced = self._storage.operations.announce(
            OperationKind.RESERVE, self.record.path, f"to {end}"
        )
        self.record = msgspec.structs.replace(self.record, reserved=end)
        self._storage.commits.submit(
            [announced, put_file(self.record)], use_ballast=use_ballast
        ).wait()
        try:
            self._allocate(end, least)
        except StorageError as error:
            self._storage.commits.submit(
                self._storage.operations.done(number, f"failed: {error}"), use_ballast=use_ballast
            )
            raise
        self._storage.commits.submit(self._storage.operations.done(number), use_ballast=use_ballast)

    def give_back(self) -> None:
        """Give the space back that is reserved beyond the next footer, for other streams. There is
        nothing under way. Raises `StorageError`."""
        keep = Offset(padded(self.end + footer_bytes(self._written.totals.blocks + 1)))
        if self._allocated - keep < RESERVE_BYTES_MIN:
            return
        number, announced = self._storage.operations.announce(
            OperationKind.CUT, self.record.path, f"reservation from {self._allocated} to {keep}"
        )
        self._storage.commits.submit([announced]).wait()
        try:
            self._file.cut(keep)
        except StorageError as error:
            self._storage.commits.submit(self._storage.operations.done(number, f"failed: {error}"))
            raise
        # Behind the cut: what lies beyond the reservation must not exist, and until now it did.
        self._allocated = keep
        self.record = msgspec.structs.replace(self.record, reserved=keep)
        self._storage.commits.submit(
            [put_file(self.record), *self._storage.operations.done(number)]
        )

    def _ahead(self, least: Offset, wanted_bytes: int) -> int:
        """How much beyond `least`: what is reserved is taken from other streams. Not much beyond
        the end of the part, and where the space above the low-water mark is short, half of it."""
        ahead = min(wanted_bytes, self._config.reserve_bytes)
        if self._config.part_bytes:
            ahead = min(ahead, max(0, self._config.part_bytes - self.end))
        kept = self._storage.marks.low_water_bytes + least - self._allocated
        left = max(0, self._file.free_bytes() - kept)
        return ahead if ahead <= left else left // 2

    def _allocate(self, end: Offset, least: Offset) -> None:
        try:
            self._file.reserve(end)
            self._allocated = end
        except DiskFull:
            # Not that far ahead, then; what is needed now must do.
            self._file.reserve(least)
            self._allocated = least

    def write(self, header: BlockHeader, data: memoryview, payload_bytes: int) -> None:
        """Write an encoded block at the write position; `data` stays as it is until `settle`,
        `end_sync` or `let_go` returned. Raises `StorageError`, also of an earlier block."""
        block = data[: header.block_bytes]
        if header.offset != self.end or self.end + len(block) > self._allocated:
            raise InvariantBroken(f"{self.record.path}: block at {header.offset}, end {self.end}")
        self._tried = Offset(self.end + len(block))
        self._file.write_behind(self.end, block)
        self._index += np.array(
            [
                (
                    header.offset,
                    header.number,
                    header.first_event,
                    header.last_event,
                    header.time_ns,
                    header.events,
                    header.block_bytes,
                )
            ],
            INDEX_DTYPE,
        ).tobytes()
        self._written = _Reached(
            Offset(self.end + len(block)),
            self._crc_with(header, block),
            header.crc,
            header.offset,
            self._written.totals.plus(header, payload_bytes),
        )

    def _crc_with(self, header: BlockHeader, block: memoryview) -> int:
        """The file's checksum with a block more, whose stored bytes have theirs already."""
        framed = HEADER_BYTES + header.fragments * FRAGMENT_BYTES
        crc = joined(
            crc32c(block[:framed], self._written.crc), header.stored_crc, header.stored_bytes
        )
        return crc32c(block[framed + header.stored_bytes :], crc)

    def forget(self) -> None:
        """Give up what is written and not synced; its memory is free after that."""
        self._file.forget()

    def begin_sync(self, over: Callable[[], None]) -> PartSync:
        """Begin to sync what is written up to now; `over` is called, by any thread, when it is
        done. They are ended in their order."""
        return PartSync(self._written, self._file.sync_behind(over))

    def end_sync(self, sync: PartSync) -> None:
        """Wait until it is over. Raises `StorageError`."""
        sync.under_way.wait()
        self._synced = sync.reached

    def report(self) -> FileRecord:
        """The record that tells of everything synced, for the commit that the caller hands in now.

        Only here does the durable offset move: what is synced but not part of a whole group may not
        be told, whatever else is committed of the part meanwhile.
        """
        synced = self._synced
        self.record = msgspec.structs.replace(
            self.record,
            durable=synced.end,
            crc32c=synced.crc,
            chain=synced.chain,
            last_header_offset=synced.last_header,
            totals=synced.totals,
        )
        return self.record

    @property
    def unreported(self) -> bool:
        """Whether there are blocks that no commit was told of."""
        return self.end != self.record.durable

    def ended(self, high: int) -> None:
        """Full: it takes late events of its range alone. The next commit of progress tells it."""
        self.record = msgspec.structs.replace(
            self.record, state=FILE.next(self.record.state, FileEvent.FULL), high=high
        )
        self.ended_ns = self._storage.clock.monotonic_ns()

    # --- its name ----------------------------------------------------------------------------

    @property
    def where(self) -> str:
        return f"{self.directory.name}/{self.record.path}"

    def lost(self) -> str:
        """Why neither of its names leads to its file, "" where one does. Raises `StorageError`."""
        why = self._file.lost(self.record.path + PART_SUFFIX)
        return why if why and self._file.lost(self.record.path) else ""

    def check_name(self) -> None:
        """Raise `FileLost` where somebody took its name away."""
        try:
            why = self.lost()
        except StorageError as error:
            # It may be where it was: a write or a sync will tell.
            if str(error) != self._unseen:
                log.warning("%s", error)
            self._unseen = str(error)
            return
        self._unseen = ""
        if why:
            raise FileLost(why, path=self.where)

    def save(self, why: str) -> str:
        """Give the file its name again, with what is durable of it; what was done, for people.
        Raises `StorageError`."""
        path = self.record.path + PART_SUFFIX
        if not self.lost():
            self.directory.sync_names(path.rpartition("/")[0])
            return "it has its name again"
        if self.directory.exists(path):
            move_aside(self._storage, self.record.directory, path)
        what = f"{self.record.durable} bytes: {why}"
        with announced(self._storage, OperationKind.SAVE, self.record.path, what):
            how = self._file.save(Offset(self.record.durable))
        return f"its {self.record.durable} acknowledged bytes were saved {how}"

    def _is_held_as_lost(self) -> bool:
        try:
            self.check_name()
        except FileLost:
            self._storage.lost_files.hold(self)
        return self._storage.lost_files.holds(self.key)

    # --- the end -----------------------------------------------------------------------------

    def close(self, *, use_ballast: bool = False) -> None:
        """Seal it: footer, sidecar, mode, name. What was written has been synced and handed to the
        committer. Raises `StorageError`; the file is then in ERROR at its durable offset, and an
        alarm says so."""
        if self.unreported:
            raise InvariantBroken(f"{self.record.path}: closed with blocks that were not told of")
        commits = self._storage.commits
        number, announced = self._storage.operations.announce(OperationKind.CLOSE, self.record.path)
        self.record = msgspec.structs.replace(
            self.record, state=FILE.next(self.record.state, FileEvent.CLOSE)
        )
        commits.submit([announced, put_file(self.record)], use_ballast=use_ballast).wait()
        try:
            self.check_name()
            size, file_crc = self._write_footer()
            closed = self._finish(size, file_crc)
            self.check_name()
        except (StorageError, FormatError) as error:
            commits.submit(
                self._storage.operations.done(number, f"failed: {error}"), use_ballast=use_ballast
            )
            # Before the seal: a sealed part may be settled at any time, and then the alarm goes.
            self._storage.alarms.raise_alarm(f"close {self.key}", Severity.ERROR, str(error))
            self.seal_by_fault(str(error), use_ballast=use_ballast)
            if isinstance(error, FormatError):
                raise StorageError(str(error), path=self.record.path) from error
            raise
        commits.submit(
            [
                (file_key(self.key), None),
                put_closed(closed),
                *self._storage.operations.done(number),
            ],
            use_ballast=use_ballast,
        ).wait()
        self.close_file()
        log.info("%s closed: %d events", self.record.path, closed.totals.events)

    def _write_footer(self) -> tuple[int, int]:
        """Index and closing block at the durable offset; the file's size and checksum with them."""
        footer = encode_footer(
            self._whole_index(),
            self.record.totals,
            offset=self.end,
            boot=self._storage.boot,
            salt=self.record.salt,
            previous_crc=self.record.chain,
            time_ns=self._storage.clock.wall_ns(),
        )
        self._tried = Offset(self.end + len(footer))
        _write_pages(self._storage, self._file, self.end, footer)
        self._file.sync()
        size = self.end + len(footer)
        self._file.cut(Offset(size))
        return size, crc32c(footer, self.record.crc32c)

    def _finish(self, size: int, file_crc: int) -> ClosedFileRecord:
        return finish_file(self._storage, self._config, self.record, size, file_crc)

    def _whole_index(self) -> NDArray[Any]:
        here = np.frombuffer(bytes(self._index), INDEX_DTYPE)
        if self._index_from == 0:
            return here
        return np.concatenate([read_index(self._file, self.record, self._index_end), here])

    def seal_by_fault(self, reason: str, *, use_ballast: bool = False) -> Predecessor:
        """The seal at D is committed when this returns: nothing beyond D counts, whatever is there.

        D is what the committer was last told of, so it is committed with or before this.
        """
        closing = self.record.state is FileState.CLOSING
        lost = self._is_held_as_lost()  # before the seal: the housekeeper settles sealed parts
        number, announced = self._storage.operations.announce(
            OperationKind.SEAL, self.record.path, f"at {self.record.durable}: {reason}"
        )
        self.record = msgspec.structs.replace(
            self.record,
            state=FILE.next(self.record.state, FileEvent.FAULT),
            sealed=True,
            reason=reason,
        )
        self._storage.commits.submit(
            [announced, put_file(self.record), *self._storage.operations.done(number)],
            use_ballast=use_ballast,
        ).wait()
        self.let_go()
        if not closing:  # then nothing lies behind D but a footer
            if not lost:  # otherwise the file of that name may be a copy
                self._give_space_back()
            tell_sealed(self._storage, self._config, self.record)
        return Predecessor(self.key.part, Offset(self.record.durable), self.record.chain)

    def _give_space_back(self) -> None:
        """What was reserved and never written: on a full disk it is room for the sidecar."""
        if self._tried >= self._allocated:
            return
        try:
            # Anew: the old descriptor may be one that refuses everything after a failed sync.
            file = self.directory.open(self.record.path + PART_SUFFIX, writable=True)
            try:
                file.cut(self._tried)
            finally:
                file.close()
        except StorageError as error:
            log.warning("%s", error)

    @property
    def holds_blocks(self) -> bool:
        """Whether anything was ever written behind its header page."""
        return self._tried > PAGE_BYTES

    def discard(self, *, use_ballast: bool = False) -> None:
        """Remove it, with its record: no event is in it. Raises `StorageError`; then it is moved
        aside later, as a part whose creation failed."""
        reason = "its run could not be started"
        number, announced = self._storage.operations.announce(
            OperationKind.REMOVE, self.record.path, reason
        )
        self.record = msgspec.structs.replace(
            self.record,
            state=FILE.next(self.record.state, FileEvent.FAULT),
            sealed=True,
            durable=0,
            last_header_offset=0,
            reason=reason,
        )
        commits = self._storage.commits
        commits.submit([announced, put_file(self.record)], use_ballast=use_ballast).wait()
        self.let_go()
        try:
            self.directory.remove(self.record.path + PART_SUFFIX)
        except StorageError as error:
            commits.submit(
                self._storage.operations.done(number, f"failed: {error}"), use_ballast=use_ballast
            )
            raise
        commits.submit(
            [(file_key(self.key), None), *self._storage.operations.done(number)],
            use_ballast=use_ballast,
        ).wait()

    def let_go(self) -> None:
        """Close the descriptor; what is durable stays, the rest is not waited for. A file that lost
        its name gets it again before, or is kept open."""
        if self._is_held_as_lost():
            self._storage.lost_files.save(self.key)
        else:
            self.close_file()

    def close_file(self) -> None:
        try:
            self._file.close()
        except StorageError as error:
            log.error("%s", error)


def _take_away(
    storage: Storage, directory: Directory, record: FileRecord, *, use_ballast: bool
) -> None:
    """What a creation that failed left under its name: nothing was ever in it. Where that does not
    go, it is moved aside later."""
    path = record.path + PART_SUFFIX
    try:
        if not directory.exists(path):
            return
        number, announced = storage.operations.announce(
            OperationKind.REMOVE, record.path, "it could not be created"
        )
        storage.commits.submit([announced], use_ballast=use_ballast).wait()
        outcome = "failed"
        try:
            directory.remove(path)
            outcome = ""
        finally:
            storage.commits.submit(
                storage.operations.done(number, outcome), use_ballast=use_ballast
            )
    except StorageError as error:
        log.warning("%s", error)


def _is_there(directory: Directory, path: str) -> bool:
    try:
        return directory.exists(path)
    except StorageError:
        return True  # nobody knows: the restart looks again


class SealedPart(Part):
    """A part that a fault sealed, as a restart finds it: it takes nothing any more, and a new one
    goes on for it. What lies behind its durable offset may still be there."""

    def __init__(self, storage: Storage, config: StreamConfig, record: FileRecord) -> None:
        self._storage = storage
        self._config = config
        self.record = record
        self.key = key_of(record)

    @property
    def predecessor(self) -> Predecessor:
        return Predecessor(self.key.part, Offset(self.record.durable), self.record.chain)


def read_index(file: DataFile, record: FileRecord, end: Offset) -> NDArray[Any]:
    """The index of the blocks below `end`, from their headers. Raises `FormatError`."""
    rows = []
    at = Offset(PAGE_BYTES)
    while at < end:
        header = decode_header(
            file.read(at, HEADER_BYTES), salt=record.salt, offset=at, path=record.path
        )
        if header.type is BlockType.EVENTS:
            rows.append(
                (
                    at,
                    header.number,
                    header.first_event,
                    header.last_event,
                    header.time_ns,
                    header.events,
                    header.block_bytes,
                )
            )
        at = Offset(at + header.block_bytes)
    return np.array(rows, INDEX_DTYPE)


def finish_file(
    storage: Storage,
    config: StreamConfig,
    record: FileRecord,
    size: int,
    file_crc: int,
    *,
    sealed: bool = False,
    status: str = "good",
) -> ClosedFileRecord:
    """Sidecar, mode and final name of a file whose bytes are complete. May be repeated after a
    crash at any step; what an earlier attempt left half-done is moved aside first."""
    directory = storage.directories[record.directory]
    sidecar = _sidecar(storage, config, record, size, file_crc, sealed=sealed, status=status)
    closed_ns = sidecar.closed_ns
    _put_sidecar(storage, directory, record, sidecar)
    if directory.exists(record.path + PART_SUFFIX):
        directory.rename(record.path + PART_SUFFIX, record.path)
    # Only now: a restart between the two could not open a read-only `.part` to settle it.
    directory.make_read_only(record.path)
    return ClosedFileRecord(
        run=record.run,
        stream=record.stream,
        kind=record.kind,
        part=record.part,
        directory=record.directory,
        path=record.path,
        file_uuid=record.file_uuid,
        size_bytes=size,
        crc32c=file_crc,
        created_ns=record.created_ns,
        closed_ns=closed_ns,
        totals=record.totals,
        status=status,
        sealed=sealed,
        reason=record.reason,
        chain=record.chain,
    )


def _sidecar(
    storage: Storage,
    config: StreamConfig,
    record: FileRecord,
    size: int,
    file_crc: int,
    *,
    sealed: bool,
    status: str,
) -> Sidecar:
    return Sidecar(
        file=record.path.rsplit("/", 1)[-1],
        file_uuid=record.file_uuid.hex(),
        logger=storage.logger,
        logger_uuid=storage.logger_uuid.hex(),
        run=record.run,
        stream=record.stream,
        kind=FileKind(record.kind).name.lower(),
        part=record.part,
        size_bytes=size,
        crc32c=f"{file_crc:08x}",
        file_content_status=status,
        sealed=record.reason if sealed else "",
        created_ns=record.created_ns,
        closed_ns=storage.clock.wall_ns(),
        totals=record.totals,
        predecessor_part=record.predecessor_part,
        config=config,
    )


def tell_away(storage: Storage, number: int, reason: str) -> None:
    """Raise the alarm that names a data directory which cannot be used."""
    name = storage.directories[number].name
    storage.alarms.raise_alarm(
        f"directory {name}",
        Severity.ERROR,
        f"its files stay as they are, and streams go on in other directories: {name}: {reason}",
    )


def tell_sealed(storage: Storage, config: StreamConfig, record: FileRecord) -> None:
    """The sidecar of a part that a fault sealed, at once: what lies behind its durable offset may
    not be to cut for long, and who reads it without the journal must not take it for events. Where
    that fails, it is done with the rest."""
    directory = storage.directories[record.directory]
    sidecar = _sidecar(
        storage, config, record, record.durable, record.crc32c, sealed=True, status="good"
    )
    try:
        if directory.exists(record.path + PART_SUFFIX) and not directory.exists(
            sidecar_path(record.path)
        ):
            directory.write_new(sidecar_path(record.path), encode_sidecar(sidecar))
    except StorageError as error:
        log.warning("%s", error)


def _put_sidecar(
    storage: Storage, directory: Directory, record: FileRecord, sidecar: Sidecar
) -> None:
    path = sidecar_path(record.path)
    if directory.exists(path):
        try:
            there = decode_sidecar(directory.read_all(path, MIB), path=path)
        except FormatError:
            there = None
        same = ("size_bytes", "crc32c", "file_uuid", "totals", "sealed")
        if there is not None and all(getattr(there, f) == getattr(sidecar, f) for f in same):
            return
        move_aside(storage, record.directory, path)
    directory.write_new(path, encode_sidecar(sidecar))


@contextmanager
def announced(
    storage: Storage, kind: OperationKind, path: str, detail: str, *changes: Change
) -> Iterator[None]:
    """Do something to a file: announced in the journal before, told done or failed after."""
    number, announcement = storage.operations.announce(kind, path, detail)
    storage.commits.submit([announcement, *changes]).wait()
    try:
        yield
    except StorageError as error:
        storage.commits.submit(storage.operations.done(number, f"failed: {error}")).wait()
        raise
    storage.commits.submit(storage.operations.done(number)).wait()


def move_aside(storage: Storage, directory: int, path: str) -> str:
    """Move a file into `quarantine/`, announced; the new path."""
    aside = f"quarantine/{path.replace('/', '_')}.{storage.boot}.{storage.clock.wall_ns()}"
    with announced(storage, OperationKind.MOVE_ASIDE, path, f"to {aside}"):
        storage.directories[directory].rename(path, aside)
    log.warning("%s moved aside to %s", path, aside)
    return aside


def _header_page(header: FileHeader) -> tuple[bytes, int]:
    """The header page and its crc. A run may have more streams than a page has room to name: then
    none is named, and no reader needs them."""
    try:
        return encode_file_header(header)
    except FormatError:
        unnamed = msgspec.structs.replace(header.text, streams=())
        return encode_file_header(replace(header, text=unnamed))


def _write_pages(storage: Storage, file: DataFile, offset: Offset, pages: bytes) -> None:
    buffer = storage.buffers.take(len(pages))
    try:
        buffer.view[: len(pages)] = pages
        file.write(offset, buffer.view[: len(pages)])
    finally:
        buffer.release()


def put_file(record: FileRecord) -> Change:
    key = file_key(key_of(record))
    return key, encode_record(key, record)


def put_closed(record: ClosedFileRecord) -> Change:
    key = closed_file_key(
        FileKey(
            RunNumber(record.run),
            StreamName(record.stream),
            FileKind(record.kind),
            PartNumber(record.part),
        )
    )
    return key, encode_record(key, record)


def put_stream(record: StreamRecord) -> Change:
    key = stream_key(StreamKey(RunNumber(record.run), StreamName(record.stream)))
    return key, encode_record(key, record)
