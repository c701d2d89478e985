"""The restart: settles every file that is not CLOSED, before any thread runs.

What is to be done stands in core/replay.py; each step is announced in the journal first, so that a
crash in here changes nothing. It never looks at closed files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
from crc32c import crc32c

from dlog.core.block import HEADER_BYTES, BlockHeader, BlockType, decode_header
from dlog.core.event_file import Totals, decode_file_header, sidecar_path
from dlog.core.journal_records import (
    FileRecord,
    OperationKind,
    QuarantineRecord,
    StreamRecord,
    acknowledged_key,
    encode_record,
    file_key,
    quarantine_key,
)
from dlog.core.replay import Action, decide, on_disk
from dlog.core.run_files import PART_SUFFIX
from dlog.core.scan import Depth, SpanKind, payload_bytes, scan
from dlog.core.states import FILE, FileEvent, FileState
from dlog.errors import (
    DataDirectoryGone,
    DiskFull,
    FormatError,
    JournalOutdated,
    NoDescriptor,
    StorageError,
)
from dlog.limits import MIB, PAGE_BYTES
from dlog.model.config import StreamConfig
from dlog.model.ids import NO_RUN, FileKind, Offset, file_path
from dlog.ports import Change, DataFile, Directory, Journal, Severity
from dlog.services.parts import (
    Part,
    SealedPart,
    Storage,
    allot,
    announced,
    finish_file,
    key_of,
    move_aside,
    put_closed,
    put_file,
    tell_away,
    tell_sealed,
)

LOST = "acknowledged events may be lost"

log = logging.getLogger("dlog.restart")

COPY_BYTES = 4 * MIB
FOOTER_END_MAX = 2**62


def refuse_outdated(
    storage: Storage, files: Sequence[FileRecord], streams: Sequence[StreamRecord]
) -> None:
    """By an older copy of the journal, acknowledged events would be cut off as a tail. Raises
    `JournalOutdated`, before anything is touched, where a file tells of a later commit."""
    for record in files:
        found = _later_commit(storage.directories[record.directory], record)
        if found:
            raise JournalOutdated(f"the journal is an older copy: {found}")
    for stream in streams:
        path = _unknown_part(storage, stream)
        if path:
            raise JournalOutdated(
                f"the journal is an older copy: {path} is of this logger, and the journal has not "
                "heard of it"
            )


def _later_commit(directory: Directory, record: FileRecord) -> str:
    """What a block behind the durable offset says of a commit that the journal does not know."""
    for path in (record.path + PART_SUFFIX, record.path):
        with suppress(StorageError, FormatError):  # told when the file is settled
            if not directory.exists(path):
                continue
            for header in _headers_from(directory, path, record):
                where = f"the block at byte {header.offset} of {directory.name}/{path}"
                if header.durable > record.durable:
                    return (
                        f"{where} was written when {header.durable} bytes were acknowledged; the "
                        f"journal knows of {record.durable}"
                    )
                is_footer = header.type is not BlockType.EVENTS
                if is_footer and record.state in (FileState.OPEN, FileState.END):
                    return f"{where} closes it; to the journal it is {record.state}"
    return ""


def _headers_from(directory: Directory, path: str, record: FileRecord) -> Iterator[BlockHeader]:
    """The headers that hold from the durable offset on, one behind the other."""
    file = directory.open(path, writable=False)
    try:
        at = max(record.durable, PAGE_BYTES)
        while at < file.size():
            data = file.read(Offset(at), HEADER_BYTES)
            try:
                header = decode_header(data, salt=record.salt, offset=at, path=path)
            except FormatError:
                return
            yield header
            at += header.block_bytes
    finally:
        file.close()


def _unknown_part(storage: Storage, stream: StreamRecord) -> str:
    """A file under the number that the stream's next part would get, if it is one of ours."""
    of_run = (FileKind.EVENTS, FileKind.GARBAGE)
    for kind in of_run if stream.run != NO_RUN else (FileKind.ORPHAN,):
        key, _ = allot(stream, kind)
        for directory in storage.directories:
            for path in (file_path(key) + PART_SUFFIX, file_path(key)):
                with suppress(StorageError, FormatError):
                    if not directory.exists(path):
                        continue
                    file = directory.open(path, writable=False)
                    try:
                        header = decode_file_header(file.read(Offset(0), PAGE_BYTES), path=path)
                    finally:
                        file.close()
                    if (header.logger_uuid, header.key) == (storage.logger_uuid, key):
                        return f"{directory.name}/{path}"
    return ""


class DirectCommits:
    """Commits of the restart, while there is no committer yet."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def submit(self, changes: Sequence[Change], *, use_ballast: bool = False) -> DirectCommits:
        # A restart must come to its end: it moves and drops records more than it adds any.
        self._journal.commit(changes, use_ballast=True)
        return self

    def wait(self) -> None:
        """It is committed already."""


@dataclass(slots=True)
class Settlement:
    """What a restart found: parts to go on with, and how many bytes were saved aside or lost."""

    parts: list[Part] = field(default_factory=list)
    saved_bytes: int = 0
    lost: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Tail:
    """[D, end) of a file, not all zeros. foreign: it holds what cannot be of this file."""

    begin: int
    end: int
    needed: tuple[tuple[bytes, int, str, int], ...]
    readable: bool
    foreign: str


class Restart:
    """`storage.commits` commits at once here; see `DirectCommits`. sessions: those that are not
    closed, whose events may stand in what cannot be read."""

    def __init__(self, storage: Storage, sessions: Sequence[bytes]) -> None:
        self._storage = storage
        self._sessions = sessions
        self._found = Settlement()
        self._away: dict[int, StorageError] = {}
        self._sealed: FileRecord | None = None  # of the file at hand, where a fault ended it

    def settle(self, records: Sequence[tuple[FileRecord, StreamConfig, bool]]) -> Settlement:
        """Settle the files; each with its frozen configuration and whether its run goes on."""
        self._away = self._directories_away([record for record, _, _ in records])
        for record, config, live in records:
            self._settle(record, config, live)
        return self._found

    def drop_unfinished(self, tails: Sequence[QuarantineRecord]) -> None:
        """Copies whose saving was cut off: their tails still stand in their files, and are saved
        again. Before `settle`."""
        for tail in tails:
            if tail.saving:
                self._drop_unfinished(tail)

    def _drop_unfinished(self, tail: QuarantineRecord) -> None:
        directory = self._storage.directories[tail.directory]
        try:
            if directory.exists(tail.path):
                why = "its saving was not finished"
                with announced(self._storage, OperationKind.REMOVE, tail.path, why):
                    directory.remove(tail.path)
        except StorageError as error:
            log.warning("%s", error)  # tried again at the next start
            return
        self._commit([(quarantine_key(tail.path), None)])

    def _directories_away(self, records: Sequence[FileRecord]) -> dict[int, StorageError]:
        """Positions of the directories that cannot be reached, each with the reason.

        The journal's directory has no mark that was looked at: without anything in it, though files
        were acknowledged there, it is another one, the place where a disk is mounted, say. Who
        mounts it finds nothing changed."""
        away: dict[int, StorageError] = {}
        for number in sorted({record.directory for record in records}):
            directory = self._storage.directories[number]
            try:
                empty = not directory.names("runs") and not directory.names("orphans")
            except NoDescriptor:
                continue  # each file may have more luck
            except StorageError as error:
                away[number] = error
                tell_away(self._storage, number, error.reason)
                continue
            if number == 0 and empty and any(r.durable for r in records if r.directory == 0):
                raise DataDirectoryGone(
                    f"{directory.name}: it is empty, and files of it are open; is its disk mounted?"
                )
        return away

    def finish_operations(self) -> None:
        """What an earlier boot announced and did not do is settled with its file: the log says so.
        After `settle`, and before any thread announces operations of its own."""
        for number in self._storage.operations.open_numbers():
            self._commit(self._storage.operations.done(number, "settled by the restart"))

    def _is_whole(self, record: FileRecord) -> bool:
        """Whether it has its final name and its footer, though something failed behind that:
        nothing goes on for it."""
        directory = self._storage.directories[record.directory]
        try:
            if directory.exists(record.path + PART_SUFFIX) or not directory.exists(record.path):
                return False
            file = directory.open(record.path, writable=False)
            try:
                return file.size() > record.durable
            finally:
                file.close()
        except StorageError:
            return False

    # --- one file ----------------------------------------------------------------------------

    def _settle(self, record: FileRecord, config: StreamConfig, live: bool) -> None:
        self._sealed = record if record.state is FileState.ERROR and record.sealed else None
        try:
            self._do(self._action(record), record, config, live)
        except StorageError as error:
            # The others are settled all the same; this one is tried again, once it is sealed by
            # the housekeeper, else at the next start.
            log.error("%s stays as it is: %s", record.path, error)
            if record.directory not in self._away:  # else one alarm tells of all of them
                self._alarm(record, f"could not be settled: {error}")
            if record.state in (FileState.OPEN, FileState.END, FileState.CLOSING):
                self._seal(record, str(error))
        if self._sealed is not None and self._sealed.durable and not self._is_whole(self._sealed):
            tell_sealed(self._storage, config, self._sealed)
            if live:
                self._found.parts.append(SealedPart(self._storage, config, self._sealed))

    def _action(self, record: FileRecord) -> Action:
        """What the decision table says of it. Raises `StorageError`."""
        if record.directory in self._away:
            raise self._away[record.directory]
        directory = self._storage.directories[record.directory]
        disk = on_disk(
            directory.exists(record.path + PART_SUFFIX),
            directory.exists(record.path),
            directory.exists(sidecar_path(record.path)),
        )
        action = decide(record.state, disk, record.durable)
        log.info("%s: %s, on disk %s: %s", record.path, record.state, disk.value, action.value)
        return action

    def _do(self, action: Action, record: FileRecord, config: StreamConfig, live: bool) -> None:
        match action:
            case Action.FORGET:
                # Else a name that only the page cache has lost would come back without a record.
                self._sync_names(record)
                self._over(record)
            case Action.MOVE_ASIDE:
                move_aside(self._storage, record.directory, record.path + PART_SUFFIX)
                self._over(record)
            case Action.REOPEN:
                part = self._reopen(record, config)
                if part is not None and live:
                    self._found.parts.append(part)
                elif part is not None:
                    part.close()
            case Action.RESEAL:
                # As if it were still open: the footer is written again from the blocks. The torn
                # one may lie beyond what was reserved, where the part had no blocks.
                opened = msgspec.structs.replace(
                    record, state=FileState.END, reserved=max(record.reserved, FOOTER_END_MAX)
                )
                part = self._reopen(opened, config, told=FileState.CLOSING)
                if part is not None:
                    part.close()
            case Action.SETTLE_SEALED:
                self._settle_sealed(record, config)
            case Action.FINISH:
                self._finish(record, config)
            case Action.FINISH_RENAME:
                self._finish_rename(record, config)
            case Action.LOST:
                self._lost(record, "the file is gone, or stands under another name")

    def _reopen(
        self, record: FileRecord, config: StreamConfig, *, told: FileState | None = None
    ) -> Part | None:
        """The part, at its durable offset; None where it is not to go on with. told: its state in
        the journal meanwhile, if another than the record's."""
        directory = self._storage.directories[record.directory]
        file = directory.open(record.path + PART_SUFFIX, writable=True)
        problem = _problem_below_durable(file, record)
        if problem:
            file.close()
            self._lost(record, problem)
            return None
        try:
            foreign = self._cut_tail(file, record)
        except DiskFull as error:
            file.close()
            reason = f"no space to save its tail aside: {error}"
            self._alarm(record, reason)
            self._seal(record, reason)
            return None
        if foreign:
            file.close()
            self._alarm(record, foreign)
            self._seal(record, foreign)
            return None
        settled = msgspec.structs.replace(record, reserved=record.durable)
        self._commit([put_file(msgspec.structs.replace(settled, state=told or record.state))])
        return Part(self._storage, config, settled, file)

    def _settle_sealed(self, record: FileRecord, config: StreamConfig) -> None:
        directory = self._storage.directories[record.directory]
        file = directory.open(record.path + PART_SUFFIX, writable=True)
        try:
            problem = _problem_below_durable(file, record)
            if not problem:
                self._cut_tail(file, record)
        finally:
            file.close()
        if problem:
            self._lost(record, problem)
            return
        closed = finish_file(
            self._storage, config, record, record.durable, record.crc32c, sealed=True
        )
        self._over(record, put_closed(closed))

    def _finish(self, record: FileRecord, config: StreamConfig) -> None:
        """The name is final, so footer and sidecar were durable before: only the catalogue lacks.

        The size is what is on disk, and the sidecar says the checksum; where that is not so, the
        file is not ours to tell of."""
        directory = self._storage.directories[record.directory]
        file = directory.open(record.path, writable=False)
        try:
            problem = _problem_below_durable(file, record)
            size = file.size()
            renamed = size > record.durable and not self._has_footer(record)
            # Where only the directory failed after the rename, the footer is there and durable.
            sealed = record.state is FileState.ERROR and size == record.durable
            file_crc = _crc_on(file, record.crc32c, record.durable, size)
        finally:
            file.close()
        if problem:
            self._lost(record, problem)
            return
        if renamed:  # by somebody, before it was closed
            self.close_lost(record, config)
            return
        # Who renamed it may have been killed before the name was durable; and before it is made
        # read-only, or a power cut would leave a `.part` that nobody can write to.
        self._sync_names(record)
        closed = finish_file(self._storage, config, record, size, file_crc, sealed=sealed)
        self._over(record, put_closed(closed))

    def _over(self, record: FileRecord, *closed: Change) -> None:
        """It is settled for good: nothing that was said of it holds any more."""
        alarm = f"file {record.path}"
        self._commit([(file_key(key_of(record)), None), (acknowledged_key(alarm), None), *closed])
        self._storage.alarms.clear_alarm(f"close {key_of(record)}")
        self._storage.alarms.clear_alarm(alarm)

    def _sync_names(self, record: FileRecord) -> None:
        """What moved between the two folders moved in both."""
        for folder in ("quarantine", record.path.rpartition("/")[0]):
            self._storage.directories[record.directory].sync_names(folder)

    def _finish_rename(self, record: FileRecord, config: StreamConfig) -> None:
        """Both names are there. The final one may be somebody else's: then it is left alone."""
        opened = record.path + PART_SUFFIX
        directory = self._storage.directories[record.directory]
        sizes = []
        for path in (opened, record.path):
            file = directory.open(path, writable=False)
            try:
                if not _problem_below_durable(file, record):
                    sizes.append(file.size())
            finally:
                file.close()
        if len(sizes) < 2 or sizes[0] != sizes[1]:
            sealed = record.state is FileState.ERROR
            self._do(Action.SETTLE_SEALED if sealed else Action.RESEAL, record, config, False)
            return
        same = f"the same file is {record.path}"
        with announced(self._storage, OperationKind.REMOVE, opened, same):
            directory.remove(opened)
        self._finish(record, config)

    # --- the tail ----------------------------------------------------------------------------

    def _cut_tail(self, file: DataFile, record: FileRecord) -> str:
        """Save aside what is behind D and not zeros, then cut. What must not be there, if any."""
        size = file.size()
        if size <= record.durable:
            # An earlier try may have cut it, and died or failed before that was durable.
            file.cut(Offset(size))
            return ""
        tail = _look_at_tail(file, record, size)
        if tail is not None:
            self._save_aside(file, record, tail)
            self._found.saved_bytes += tail.end - tail.begin
        what = f"from {size} to {record.durable}"
        with announced(self._storage, OperationKind.CUT, record.path, what):
            file.cut(Offset(record.durable))
        return tail.foreign if tail is not None else ""

    def _save_aside(self, file: DataFile, record: FileRecord, tail: _Tail) -> None:
        """A sparse copy: the header page at 0, the tail at its own offsets."""
        directory = self._storage.directories[record.directory]
        path = self._path_aside(directory, record, tail)
        saved = QuarantineRecord(
            path=path,
            directory=record.directory,
            run=record.run,
            stream=record.stream,
            kind=record.kind,
            part=record.part,
            begin=tail.begin,
            end=tail.end,
            saved_ns=self._storage.clock.wall_ns(),
            needed=list(tail.needed),
            sessions=[] if tail.readable else list(self._sessions),
            saving=True,
        )
        what = f"[{tail.begin}..{tail.end}) to {path}"
        try:
            with announced(
                self._storage, OperationKind.SAVE_ASIDE, record.path, what, _put_tail(saved)
            ):
                copy = directory.create(path)
                try:
                    self._copy(file, copy, 0, PAGE_BYTES)
                    for begin, end in file.data_extents(Offset(tail.begin), Offset(tail.end)):
                        self._copy(file, copy, begin // PAGE_BYTES * PAGE_BYTES, end)
                    copy.sync()
                finally:
                    copy.close()
                directory.make_read_only(path)
        except StorageError:
            self._drop_unfinished(saved)
            raise
        self._commit([_put_tail(msgspec.structs.replace(saved, saving=False))])
        log.warning("%s: [%d..%d) saved aside to %s", record.path, tail.begin, tail.end, path)

    def _path_aside(self, directory: Directory, record: FileRecord, tail: _Tail) -> str:
        """Where a tail goes: a path of its own at every try, an earlier one may have failed."""
        kind = FileKind(record.kind).name.lower()
        path = (
            f"quarantine/{record.run}_{record.stream}_{kind}_{record.part:04d}_{tail.begin}"
            f"_{self._storage.boot}"
        )
        again, tries = "", 0
        while directory.exists(f"{path}{again}.tail"):
            tries += 1
            again = f"-{tries}"
        return f"{path}{again}.tail"

    def _copy(self, source: DataFile, copy: DataFile, begin: int, end: int) -> None:
        buffer = self._storage.buffers.take(COPY_BYTES)
        try:
            for at in range(begin, end, COPY_BYTES):
                data = source.read(Offset(at), min(COPY_BYTES, end - at))
                pages = -(-len(data) // PAGE_BYTES) * PAGE_BYTES
                buffer.view[: len(data)] = data
                buffer.view[len(data) : pages] = bytes(pages - len(data))
                copy.write(Offset(at), buffer.view[:pages])
        finally:
            buffer.release()

    # --- what went wrong ---------------------------------------------------------------------

    def _seal(self, record: FileRecord, reason: str) -> None:
        sealed = msgspec.structs.replace(
            record, state=FILE.next(record.state, FileEvent.FAULT), sealed=True, reason=reason
        )
        self._sealed = sealed
        number, announced = self._storage.operations.announce(
            OperationKind.SEAL, record.path, f"at {record.durable}: {reason}"
        )
        self._commit([announced, put_file(sealed), *self._storage.operations.done(number)])

    def _lost(self, record: FileRecord, problem: str) -> None:
        """Acknowledged bytes are not there: nothing is touched, everyone is told."""
        self._sealed = None
        state = record.state
        if state is not FileState.ERROR:
            state = FILE.next(state, FileEvent.FAULT)
        text = f"{LOST}: {problem}; see `dlog verify`"
        self._commit(
            [put_file(msgspec.structs.replace(record, state=state, sealed=False, reason=text))]
        )
        self._found.lost.append(f"{record.path}: {text}")
        self._storage.alarms.clear_alarm(f"close {key_of(record)}")  # it is not tried again
        self._alarm(record, text)

    def close_lost(self, record: FileRecord, config: StreamConfig) -> None:
        """Close a file whose acknowledged bytes are not all there: what is whole gets its final
        name, and sidecar and catalogue say "bad"; "good" where all of it is there after all, such
        as under the final name that somebody gave it. What lies behind its durable offset, and is
        no footer, is saved aside and cut first; nothing below it is touched. A file that is gone,
        or another's, stays as it is. Raises `StorageError`."""
        directory = self._storage.directories[record.directory]
        opened = record.path + PART_SUFFIX
        path = opened if directory.exists(opened) else record.path
        if not directory.exists(path):
            return
        may_cut = path == opened or not self._has_footer(record)
        file = directory.open(path, writable=may_cut)
        try:
            if not _is_of(file, record):
                return
            if may_cut:
                self._cut_tail(file, record)
            size = file.size()
            held = _what_is_whole(file, record, size)
            file_crc = _crc_on(file, 0, 0, size)
            problem = _problem_below_durable(file, record)
        finally:
            file.close()
        missing = record.totals.events - held.totals.events
        status, reason = "bad", f"{missing} acknowledged events are lost: {record.reason}"
        if not missing and not problem:
            status, reason = "good", "it was found whole, up to where it was acknowledged"
        settled = msgspec.structs.replace(held, reason=reason, sealed=True)
        closed = finish_file(
            self._storage, config, settled, size, file_crc, sealed=True, status=status
        )
        log.error("%s: closed as %s: %s", record.path, status, reason)
        if status == "good":
            self._over(record, put_closed(closed))
        else:  # what was said of it goes on to hold
            self._commit([(file_key(key_of(record)), None), put_closed(closed)])

    def _has_footer(self, record: FileRecord) -> bool:
        """Whether the file of that final name ends in a closing block of its own."""
        file = self._storage.directories[record.directory].open(record.path, writable=False)
        try:
            at = file.size() - PAGE_BYTES
            if at < PAGE_BYTES:
                return False
            page = file.read(Offset(at), HEADER_BYTES)
            found = decode_header(page, salt=record.salt, offset=at, path=record.path)
            return found.type is BlockType.CLOSING
        except FormatError:
            return False
        finally:
            file.close()

    def _alarm(self, record: FileRecord, text: str) -> None:
        log.error("%s: %s", record.path, text)
        self._storage.alarms.raise_alarm(
            f"file {record.path}", Severity.ERROR, f"{record.path}: {text}"
        )

    def _commit(self, changes: Sequence[Change]) -> None:
        self._storage.commits.submit(changes).wait()


def _put_tail(record: QuarantineRecord) -> Change:
    key = quarantine_key(record.path)
    return key, encode_record(key, record)


def _problem_below_durable(file: DataFile, record: FileRecord) -> str:
    """Why [0, D) is not what the journal says, or "". Bounded: header page and last block."""
    size = file.size()
    if size < record.durable:
        return f"it has {size} bytes, {record.durable} were acknowledged"
    try:
        header = decode_file_header(file.read(Offset(0), PAGE_BYTES), path=record.path)
        if header.file_uuid != record.file_uuid or header.salt != record.salt:
            return "its header page is that of another file"
        if record.totals.blocks == 0:
            return ""
        at = record.last_header_offset
        block = decode_header(
            file.read(Offset(at), HEADER_BYTES), salt=record.salt, offset=at, path=record.path
        )
    except FormatError as error:
        return str(error)
    if block.crc != record.chain or at + block.block_bytes != record.durable:
        return f"its last acknowledged block, at byte {at}, is not the one of the journal"
    return ""


def _is_of(file: DataFile, record: FileRecord) -> bool:
    """Whether its header page is the one of the record."""
    try:
        header = decode_file_header(file.read(Offset(0), PAGE_BYTES), path=record.path)
    except FormatError:
        return False
    return header.file_uuid == record.file_uuid and header.salt == record.salt


def _what_is_whole(file: DataFile, record: FileRecord, end: int) -> FileRecord:
    """The record with the totals of the blocks that hold, and the crc of the last one's header."""
    totals = Totals()
    last = record
    for span in scan(_Bytes(file), salt=record.salt, path=record.path, end=end, depth=Depth.STORED):
        if span.kind is SpanKind.BLOCK and span.header is not None:
            totals = totals.plus(span.header, payload_bytes(span.header))
            last = msgspec.structs.replace(last, chain=span.header.crc)
    return msgspec.structs.replace(last, totals=totals)


class _Bytes:
    """A data file as a `ByteSource` for the scan."""

    def __init__(self, file: DataFile) -> None:
        self._file = file

    def size(self) -> int:
        return self._file.size()

    def read_into(self, offset: int, buffer: memoryview) -> int:
        data = self._file.read(Offset(offset), len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def next_data(self, offset: int) -> int:
        size = self._file.size()
        extents = self._file.data_extents(Offset(offset), Offset(size))
        return extents[0][0] if extents else size


def _look_at_tail(file: DataFile, record: FileRecord, size: int) -> _Tail | None:
    """What lies in [D, size), or None for nothing but zeros."""
    needed: list[tuple[bytes, int, str, int]] = []
    end, readable, foreign = 0, True, ""
    for span in scan(
        _Bytes(file),
        salt=record.salt,
        path=record.path,
        begin=record.durable,
        end=size,
        chain=record.chain,
        depth=Depth.STORED,
    ):
        if span.kind is SpanKind.ZEROS:
            continue
        end = span.end
        readable = readable and span.kind in (SpanKind.BLOCK, SpanKind.INDEX, SpanKind.CLOSING)
        if "salt" in span.reason:
            foreign = f"[{span.begin}..{span.end}) holds blocks of another file"
        if span.begin >= max(record.reserved, record.durable):
            foreign = foreign or f"[{span.begin}..{span.end}) lies beyond what was reserved"
        needed += [
            (f.session, int(f.run), str(f.stream), int(f.sequence))
            for f in span.fragments
            if f.last
        ]
    if end == 0:
        return None
    return _Tail(record.durable, end, tuple(needed), readable, foreign)


def _crc_on(file: DataFile, file_crc: int, begin: int, end: int) -> int:
    """The checksum carried on over [begin, end)."""
    for at in range(begin, end, COPY_BYTES):
        file_crc = crc32c(file.read(Offset(at), min(COPY_BYTES, end - at)), file_crc)
    return file_crc
