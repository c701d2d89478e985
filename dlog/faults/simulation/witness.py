"""Says what must hold of a simulated logger's disks and journal, and does not (contract 1 to 7).

It looks at what survives, at any moment, with the program dead or alive; it changes nothing. What
was sent and what was answered it has from `History`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from crc32c import crc32c

from dlog.core import journal_records as records
from dlog.core.event_file import FileHeader, decode_file_header, decode_sidecar, sidecar_path
from dlog.core.journal_records import (
    ClosedFileRecord,
    CountRecord,
    EndedRunRecord,
    FileRecord,
    LoggerRecord,
    MarkRecord,
    OperationRecord,
    RunRecord,
    SessionRecord,
    StreamRecord,
)
from dlog.core.scan import Depth, Span, SpanKind, scan
from dlog.core.states import RUN_LIVE, FileState, LoggerState
from dlog.errors import FormatError
from dlog.faults.simulation.disk import SimulatedDisk
from dlog.faults.simulation.files_alone import BytesOf, doubled_blocks
from dlog.faults.simulation.journal import JournalStore
from dlog.faults.simulation.sources import WILD, History, PieceKey, SentEvent
from dlog.limits import END_PARTS_MAX, PAGE_BYTES
from dlog.model.events import EVENT_BYTES
from dlog.model.ids import (
    NO_RUN,
    ORPHAN_STREAM,
    FileKind,
    MarkKey,
    RunNumber,
    SessionId,
    StreamName,
)

__all__ = ["BytesOf", "Findings"]

FOR_EVER_SECONDS: Final = 1e6  # of `late_seconds`: no range closes before its run
Counted = tuple[str, RunNumber, StreamName]  # source, run, stream


@dataclass(frozen=True, slots=True)
class _File:
    """An event file as the journal knows it, with its bytes below the durable offset."""

    record: FileRecord | ClosedFileRecord
    path: str
    content: bytes
    whole: int  # bytes of it on disk

    @property
    def kind(self) -> FileKind:
        return FileKind(self.record.kind)


class Findings:
    """What a look at disks and journal gave. problems: what should hold and does not."""

    def __init__(
        self, store: JournalStore, disks: Sequence[tuple[SimulatedDisk, str]], history: History
    ) -> None:
        self._store = store
        self._contents = [
            {p[len(root) + 1 :]: c for p, c in disk.contents().items() if p.startswith(root + "/")}
            for disk, root in disks
        ]
        self._history = history
        self.problems: list[str] = []
        self.stored: dict[PieceKey, list[SentEvent]] = {}
        self.by_kind: Counter[tuple[Counted, FileKind]] = Counter()
        self.counts: dict[Counted, CountRecord] = {}
        self.files: list[_File] = []
        self.boots: list[tuple[tuple[int, str], int, int]] = []  # stream, block, boot
        self._headers: dict[str, FileHeader] = {}
        self._zeros_in_garbage: list[str] = []
        self._blocks: dict[tuple[int, str], list[int]] = {}
        self._look()

    def _look(self) -> None:
        self._read_counts()
        for record in self._records(records.FILES, FileRecord):
            self._open_file(record)
        for closed in self._records(records.CLOSED_FILES, ClosedFileRecord):
            self._closed_file(closed)
        self._check_pieces()
        self._check_acknowledged()
        self._check_blocks()
        self._check_counts()
        self._check_marks()
        self._check_states()
        self._check_names()
        self._check_ranges()
        self._check_predecessors()
        self.problems += doubled_blocks(self._contents)

    def _records(self, prefix: bytes, kind: type[records.R]) -> Iterator[records.R]:
        for key in self._store.keys:
            if key.startswith(prefix):
                yield records.decode_record(key, self._store.pairs[key], kind)

    # --- files -------------------------------------------------------------------------------

    def _open_file(self, record: FileRecord) -> None:
        if record.state is FileState.CREATING or record.durable == 0:
            return
        if record.state is FileState.ERROR and not record.sealed:
            self.problems.append(f"{record.path}: said to be lost: {record.reason}")
        names = self._contents[record.directory]
        found = next((n for n in (record.path + ".part", record.path) if n in names), None)
        if found is None:
            self.problems.append(f"{record.path} is gone, {record.durable} B were acknowledged")
            return
        content = names[found]
        if len(content) < record.durable:
            self.problems.append(f"{found} has {len(content)} B of {record.durable}")
        file = _File(record, found, content[: record.durable], len(content))
        self._read(file, record.salt)
        for span in scan(
            BytesOf(content), salt=record.salt, path=found, begin=record.durable, depth=Depth.STORED
        ):
            if span.header is not None and span.header.durable > record.durable:
                self.problems.append(
                    f"{found} [{span.begin}..{span.end}): it says that {span.header.durable} B "
                    f"were committed, and {record.durable} are"
                )

    def _closed_file(self, closed: ClosedFileRecord) -> None:
        content = self._contents[closed.directory].get(closed.path)
        if content is None:
            self.problems.append(f"{closed.path} is gone, and it is in the catalogue")
            return
        if len(content) != closed.size_bytes:
            self.problems.append(
                f"{closed.path} has {len(content)} B; the catalogue says {closed.size_bytes}"
            )
        if crc32c(content[: closed.size_bytes]) != closed.crc32c:
            self.problems.append(f"{closed.path}: not the checksum of the catalogue")
        self._sidecar(closed, content)
        if closed.path + ".part" in self._contents[closed.directory]:
            self.problems.append(f"{closed.path} is closed, and its .part is there too")
        file = _File(closed, closed.path, content[: closed.size_bytes], len(content))
        spans = self._read(file, None)
        kinds = [s.kind for s in spans]
        ending = [] if closed.sealed else [SpanKind.INDEX, SpanKind.CLOSING]
        if [k for k in kinds if k is not SpanKind.BLOCK] != ending:
            self.problems.append(f"{closed.path}: its blocks are {', '.join(kinds)}")

    def _sidecar(self, closed: ClosedFileRecord, content: bytes) -> None:
        path = sidecar_path(closed.path)
        found = self._contents[closed.directory].get(path)
        if found is None:
            self.problems.append(f"{path} is gone")
            return
        sidecar = decode_sidecar(found, path=path)
        if sidecar.crc32c != f"{closed.crc32c:08x}":
            self.problems.append(f"{path}: not the checksum of the catalogue")
        try:
            header = decode_file_header(content[:PAGE_BYTES], path=closed.path)
        except FormatError:
            return  # told with the file
        if sidecar.config != header.text.config:
            self.problems.append(f"{path}: not the configuration of the file")

    def _read(self, file: _File, salt: bytes | None) -> list[Span]:
        """The events of a file; its spans."""
        self.files.append(file)
        try:
            header = decode_file_header(file.content[:PAGE_BYTES], path=file.path)
        except FormatError as error:
            self.problems.append(str(error))
            return []
        self._headers[file.path] = header
        if header.file_uuid != file.record.file_uuid or salt not in (None, header.salt):
            self.problems.append(f"{file.path}: the header page of another file")
        spans = []
        events = 0
        for span in scan(
            BytesOf(file.content),
            salt=header.salt,
            path=file.path,
            chain=header.crc,
            depth=Depth.FULL,
        ):
            spans.append(span)
            if span.kind not in (SpanKind.BLOCK, SpanKind.INDEX, SpanKind.CLOSING) or span.reason:
                self.problems.append(
                    f"{file.path} [{span.begin}..{span.end}): {span.kind} {span.reason}"
                )
            if span.kind is SpanKind.BLOCK:
                assert span.header is not None
                events += span.header.events
                stream = (file.record.run, file.record.stream)
                self._blocks.setdefault(stream, []).append(span.header.number)
                self.boots.append((stream, span.header.number, span.header.boot))
                self._read_block(file, span)
        if events != file.record.totals.events:
            self.problems.append(
                f"{file.path}: {events} events, its record says {file.record.totals.events}"
            )
        return spans

    def _read_block(self, file: _File, span: Span) -> None:
        assert span.content is not None
        at = byte = 0
        for entry in span.content.fragments:
            key = PieceKey(entry.session, int(entry.sequence), entry.run, entry.stream)
            if file.kind is not FileKind.ORPHAN and (key.run, key.stream) != (
                file.record.run,
                file.record.stream,
            ):
                self.problems.append(f"{file.path}: holds events of run {key.run} {key.stream}")
            for row in span.content.table[at : at + entry.events]:
                size = int(row["size"])
                payload = span.content.payload[byte : byte + size].tobytes()
                byte += size
                event = SentEvent(entry.order_base + int(row["order"]), int(row["number"]), payload)
                self.stored.setdefault(key, []).append(event)
                if event.number == 0 and file.kind is FileKind.GARBAGE:
                    self._zeros_in_garbage.append(file.path)
            at += entry.events
            orphan = file.kind is FileKind.ORPHAN
            counted = (
                self._history.names.get(entry.session, "?"),
                NO_RUN if orphan else key.run,
                ORPHAN_STREAM if orphan else key.stream,
            )
            self.by_kind[counted, file.kind] += entry.events
        assert byte == len(span.content.payload)
        assert at * EVENT_BYTES == span.content.table.nbytes

    # --- what must hold ----------------------------------------------------------------------

    def _check_pieces(self) -> None:
        """Nothing unsent, everything byte-equal, whole, and at most once."""
        for key, events in self.stored.items():
            sent = self._history.sent.get(key)
            if sent is None:
                self.problems.append(f"{_words(key)}: stored, and never sent")
            elif sorted(events) != sorted(sent):
                twice = len(events) - len(set(events))
                strange = len(set(events) - set(sent))
                missing = len(set(sent) - set(events))
                self.problems.append(
                    f"{_words(key)}: {twice} events twice, {strange} not as sent, "
                    f"{missing} of {len(sent)} missing"
                )

    def _check_acknowledged(self) -> None:
        for key in self._history.sent:
            told = self._history.told.get(key.session)
            if told is None or not told.settled(key.sequence):
                continue
            refused = (key.sequence, key.run, key.stream) in told.refused
            if refused and key in self.stored:
                self.problems.append(f"{_words(key)}: refused, and stored")
            perhaps = told.perhaps_refused(key.sequence, key.run, key.stream)
            if not perhaps and key not in self.stored:
                self.problems.append(f"{_words(key)}: ACKNOWLEDGED AND LOST")

    def _check_blocks(self) -> None:
        """Numbers per (run, stream) across all files: each once, none left out."""
        following = {
            (r.run, r.stream): r.next_block for r in self._records(records.STREAMS, StreamRecord)
        }
        for stream, numbers in self._blocks.items():
            end = following.get(stream, len(numbers) + 1)
            if sorted(numbers) != list(range(1, end)):
                self.problems.append(
                    f"run {stream[0]} {stream[1]}: durable blocks {sorted(numbers)}, next {end}"
                )

    def _read_counts(self) -> None:
        for key in self._store.keys:
            if key.startswith(records.COUNTS):
                run, source, stream = key[len(records.COUNTS) :].split(b"/")
                counted = (source.decode(), RunNumber(int(run)), StreamName(stream.decode()))
                self.counts[counted] = records.decode_record(
                    key, self._store.pairs[key], CountRecord
                )
        for ended in self._records(records.ENDED_RUNS, EndedRunRecord):
            for source_name, stream_name, count in ended.counts:
                counted = (source_name, RunNumber(ended.run), StreamName(stream_name))
                self.counts[counted] = count

    def _check_counts(self) -> None:
        """The counters say of each stream and source what its files hold."""
        kinds = (FileKind.EVENTS, FileKind.GARBAGE, FileKind.ORPHAN)
        for counted in {c for c, _ in self.by_kind} | set(self.counts):
            there = tuple(self.by_kind[counted, kind] for kind in kinds)
            record = self.counts.get(counted, CountRecord())
            said = (record.stored, record.garbage, record.orphan)
            if there != said:
                self.problems.append(
                    f"{counted}: stored, garbage, orphan are {there}, counted {said}"
                )

    def _check_marks(self) -> None:
        """No piece in a file is above its watermark: it would be taken twice."""
        marks = {}
        for key in self._store.keys:
            if key.startswith(records.MARKS):
                record = records.decode_record(key, self._store.pairs[key], MarkRecord)
                marks[key] = record.sequence
        sessions = list(self._records(records.SESSIONS, SessionRecord))
        known = {SessionId(s.session) for s in sessions}
        open_ones = {SessionId(s.session) for s in sessions if not s.closed}
        for piece in self.stored:
            key = records.mark_key(MarkKey(piece.session, piece.run, piece.stream))
            if piece.session in open_ones and marks.get(key, 0) < piece.sequence:
                self.problems.append(f"{_words(piece)}: stored above its watermark")
        for key in marks:
            session = bytes.fromhex(key[len(records.MARKS) :].split(b"/")[0].decode())
            if session not in known:
                self.problems.append(f"{key.decode()}: a watermark of no session")

    def _check_states(self) -> None:
        value = self._store.pairs.get(records.LOGGER)
        if value is None:
            return
        logger = records.decode_record(records.LOGGER, value, LoggerRecord)
        live = [r.run for r in self._records(records.RUNS, RunRecord) if r.state in RUN_LIVE]
        if live and logger.state is not LoggerState.RUNNING:
            self.problems.append(f"the logger is {logger.state}, and run {live[0]} is live")
        if logger.state is LoggerState.RUNNING and not live:
            self.problems.append("the logger is RUNNING without a run")

    def _check_names(self) -> None:
        """A name has one session that may still send; the one before it is closed."""
        names = Counter(
            s.name for s in self._records(records.SESSIONS, SessionRecord) if not s.closed
        )
        self.problems += [f"{n} open sessions of {name}" for name, n in names.items() if n > 1]

    def _check_ranges(self) -> None:
        """Nothing is late for a range that was never closed, or that a wild number closed, or for
        a counter that was set back to 0."""
        wild = [f.path for f in self._records(records.FILES, FileRecord) if f.high >= WILD]
        wild += [path for path, header in self._headers.items() if header.text.low >= WILD]
        self.problems += [f"{path}: a wild number closed a range" for path in wild]
        self.problems += [f"{path}: event 0 is said to be late" for path in self._zeros_in_garbage]
        runs: list[RunRecord | EndedRunRecord] = [*self._records(records.RUNS, RunRecord)]
        runs += self._records(records.ENDED_RUNS, EndedRunRecord)
        configs = {(r.run, name): config for r in runs for name, config in r.streams.items()}
        parts = Counter((f.record.run, f.record.stream) for f in self.files)
        for file in self.files:
            stream = (file.record.run, file.record.stream)
            config = configs.get(stream)
            if file.kind is not FileKind.GARBAGE or config is None or not file.record.totals.events:
                continue
            if config.late_seconds >= FOR_EVER_SECONDS and parts[stream] <= END_PARTS_MAX:
                self.problems.append(f"{file.path}: events in it, and no range was closed")

    def _check_predecessors(self) -> None:
        """A part that goes on for another one: that is sealed, where the header says."""
        sealed = {
            (f.record.run, f.record.stream, f.record.kind, f.record.part): len(f.content)
            for f in self.files
            if f.record.sealed
        }
        for path, header in self._headers.items():
            before = (*header.key[:3], header.predecessor_part)
            if header.predecessor_part and sealed.get(before) != header.predecessor_sealed:
                self.problems.append(
                    f"{path} goes on for part {header.predecessor_part}, which is not sealed at "
                    f"{header.predecessor_sealed}"
                )

    # --- when all is quiet -------------------------------------------------------------------

    def left_over(self) -> list[str]:
        """What a logger that was stopped, and met no fault, should have finished."""
        found = [
            f"{record.path} is left in {record.state}: {record.reason}"
            for record in self._records(records.FILES, FileRecord)
        ]
        found += [
            f"run {r.run} is left in {r.state}" for r in self._records(records.RUNS, RunRecord)
        ]
        found += [
            f"{operation.kind} of {operation.path} was announced and is not done"
            for operation in self._records(records.OPERATIONS, OperationRecord)
        ]
        return found

    def tails(self) -> list[str]:
        """Files that take events again after a restart, with bytes behind their durable offset."""
        return [
            f"{file.path}: {file.whole - len(file.content)} B behind its durable offset"
            for file in self.files
            if isinstance(file.record, FileRecord)
            and file.record.state in (FileState.OPEN, FileState.END)
            and file.whole > len(file.content)
        ]

    def names_left_over(self) -> list[str]:
        """Open files without a record. A directory whose sync failed may bring back, after a power
        cut, the name of a part whose creation failed; it holds no event."""
        return [
            f"{path} is left on the disk"
            for names in self._contents
            for path in names
            if path.endswith(".part")
        ]

    def unsettled(self) -> list[str]:
        """Pieces that were sent and are neither stored nor refused."""
        missing = []
        for key in self._history.sent:
            told = self._history.told.get(key.session)
            refused = told is not None and told.perhaps_refused(key.sequence, key.run, key.stream)
            gone = key.session in self._history.given_up
            if key not in self.stored and not refused and not gone:
                missing.append(_words(key))
        return missing


def _words(key: PieceKey) -> str:
    session = key.session.hex()[:8]
    return f"session {session} batch {key.sequence} run {key.run} {key.stream}"
