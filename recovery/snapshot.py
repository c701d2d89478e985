"""Everything that a journal says, read once and by a child process. It changes nothing.

A scrambled data.mdb kills its reader with a signal, and a held read transaction would make the
journal grow: so this process never opens it. The child's program is journal_dump.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from dlog.adapters.child_processes import begun_deaf, environment
from dlog.adapters.journal_probe import SHUT, UNABLE
from dlog.core.journal_records import (
    ACKNOWLEDGED,
    BOOT,
    CLOSED_FILES,
    COMMAND_ORDER,
    COMMANDS,
    COUNTS,
    DONE_OPERATIONS,
    ENDED_RUNS,
    FILES,
    LOGGER,
    MARKS,
    META,
    OPERATIONS,
    QUARANTINE,
    RUNS,
    SESSIONS,
    STREAMS,
    BootRecord,
    ClosedFileRecord,
    EndedRunRecord,
    FileRecord,
    JournalMeta,
    LoggerRecord,
    MarkRecord,
    QuarantineRecord,
    R,
    RunRecord,
    SessionRecord,
    StreamRecord,
)
from dlog.core.record_rules import read_record
from dlog.errors import JournalUnreadable, NotReadable, ResourcesExhausted
from dlog.limits import JOURNAL_VALUE_BYTES_MAX
from dlog.model.ids import (
    FileKey,
    FileKind,
    MarkKey,
    PartNumber,
    RunNumber,
    SessionId,
    StreamKey,
    StreamName,
)

JOURNAL_KEY_BYTES_MAX: Final = 4096
JOURNAL_IDLE_SECONDS: Final = 30.0

# Each prefix is read as of one moment, and they are read in this order, so that on a running logger
# what passes from one to another is seen at least once, and an ended run with all of its files.
READ_ORDER: Final = (
    META, BOOT, LOGGER, RUNS, FILES, STREAMS, SESSIONS, MARKS, COUNTS, OPERATIONS, QUARANTINE,
    ACKNOWLEDGED, ENDED_RUNS, CLOSED_FILES, DONE_OPERATIONS, COMMANDS, COMMAND_ORDER,
)  # fmt: skip


@dataclass(slots=True)
class Snapshot:
    """Everything that the journal says, as of one moment. problems: records that do not hold."""

    meta: JournalMeta | None = None
    boot: BootRecord | None = None
    logger: LoggerRecord | None = None
    runs: dict[RunNumber, RunRecord] = field(default_factory=dict)
    ended: dict[RunNumber, EndedRunRecord] = field(default_factory=dict)
    streams: dict[StreamKey, StreamRecord] = field(default_factory=dict)
    files: dict[FileKey, FileRecord] = field(default_factory=dict)
    closed: dict[FileKey, ClosedFileRecord] = field(default_factory=dict)
    sessions: dict[SessionId, SessionRecord] = field(default_factory=dict)
    marks: dict[MarkKey, MarkRecord] = field(default_factory=dict)
    quarantine: list[QuarantineRecord] = field(default_factory=list)
    others: dict[bytes, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def records(self) -> list[FileRecord | ClosedFileRecord]:
        """Of all files: the closed ones, and those that are not."""
        return [*self.closed.values(), *(r for k, r in self.files.items() if k not in self.closed)]

    def put(self, key: bytes, value: bytes) -> None:
        """One pair of the journal; a record that does not hold becomes a problem."""
        try:
            self._put(key, value)
        except (JournalUnreadable, ValueError) as error:
            self.problems.append(str(error))

    def _put(self, key: bytes, value: bytes) -> None:
        def record(kind: type[R]) -> R:
            return read_record(key, value, kind)

        if key == META:
            self.meta = record(JournalMeta)
        elif key == BOOT:
            self.boot = record(BootRecord)
        elif key == LOGGER:
            self.logger = record(LoggerRecord)
        elif key.startswith(RUNS):
            run = record(RunRecord)
            self.runs[RunNumber(run.run)] = run
        elif key.startswith(ENDED_RUNS):
            ended = record(EndedRunRecord)
            self.ended[RunNumber(ended.run)] = ended
        elif key.startswith(STREAMS):
            stream = record(StreamRecord)
            self.streams[StreamKey(RunNumber(stream.run), StreamName(stream.stream))] = stream
        elif key.startswith(FILES):
            file = record(FileRecord)
            self.files[record_key(file)] = file
        elif key.startswith(CLOSED_FILES):
            closed = record(ClosedFileRecord)
            self.closed[record_key(closed)] = closed
        elif key.startswith(SESSIONS):
            session = record(SessionRecord)
            self.sessions[SessionId(session.session)] = session
        elif key.startswith(MARKS):
            self.marks[_mark_of(key)] = record(MarkRecord)
        elif key.startswith(QUARANTINE):
            self.quarantine.append(record(QuarantineRecord))
        else:
            self.others[key] = value


def record_key(record: FileRecord | ClosedFileRecord) -> FileKey:
    return FileKey(
        RunNumber(record.run), StreamName(record.stream), FileKind(record.kind),
        PartNumber(record.part),
    )  # fmt: skip


def _mark_of(key: bytes) -> MarkKey:
    session, run, stream = key[len(MARKS) :].split(b"/")
    return MarkKey(
        SessionId(bytes.fromhex(session.decode())), RunNumber(int(run)), StreamName(stream.decode())
    )


def read_journal(folder: Path, prefixes: Sequence[bytes] = READ_ORDER) -> Snapshot:
    """All of the journal below these prefixes, by a child process: a scrambled data.mdb kills its
    reader with a signal, and a held read transaction would make the journal grow.

    Raises `JournalUnreadable` with words that name `dlog journal rebuild`. `NotReadable` and
    `ResourcesExhausted` say nothing of the journal: it was not looked at.
    """
    data = folder.parent
    remedy = f"; the event files are a second witness: dlog journal rebuild {data}"
    try:
        os.stat(folder / "data.mdb")
    except FileNotFoundError:
        raise JournalUnreadable(f"{folder} holds no journal{remedy}") from None
    except OSError as error:
        raise NotReadable(f"{folder}: {error.strerror}") from error
    try:
        with begun_deaf():
            child = subprocess.Popen(
                [
                    sys.executable, "-P", "-m", "dlog.recovery.journal_dump", str(folder),
                    *(prefix.decode() for prefix in prefixes),
                ],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=environment(),
            )  # fmt: skip
    except OSError as error:
        raise ResourcesExhausted(
            f"{folder}: no process to read it with: {error.strerror}"
        ) from error
    assert child.stdout is not None
    assert child.stderr is not None
    snapshot = Snapshot()
    words: list[bytes] = []
    # A full pipe of words would stop the child.
    listener = threading.Thread(target=lambda: words.append(child.stderr.read()), daemon=True)  # type: ignore[union-attr]
    listener.start()
    alive = _Watchdog(child)
    complete = False
    try:
        for key, value in _pairs(child.stdout, alive):
            if key == b"":
                complete = True
                break
            snapshot.put(key, value)
    finally:
        alive.stop()
        if not complete:
            child.kill()
        code = child.wait()
        listener.join()
        child.stdout.close()
        child.stderr.close()
    if complete and code == 0:
        return snapshot
    said = b"".join(words).decode(errors="replace").strip()
    if code == SHUT:
        raise NotReadable(said)
    if code == UNABLE:
        raise ResourcesExhausted(f"{folder}: the process to read it with failed: {said}")
    if alive.fired:
        why = f"it gave nothing for {JOURNAL_IDLE_SECONDS:.0f} s"
    elif code < 0 and complete is False and not words[0]:
        why = f"it killed its reader with signal {-code}: data.mdb is scrambled or cut short"
    else:
        last = words[0].decode(errors="replace").strip().splitlines()[-1:]
        why = last[0] if last else "it broke off"
    raise JournalUnreadable(f"the journal in {folder} cannot be read: {why}{remedy}")


class _Watchdog:
    """Kills the child that gives nothing any more: a scrambled tree of pages may be a circle."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._timer: threading.Timer | None = None
        self.fired = False
        self.reset()

    def reset(self) -> None:
        self.stop()
        self._timer = threading.Timer(JOURNAL_IDLE_SECONDS, self._fire)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            # An interpreter that ends while one of its daemon threads does may crash.
            self._timer.join()

    def _fire(self) -> None:
        self.fired = True
        self._child.kill()


def _pairs(stream: IO[bytes], alive: _Watchdog) -> Iterator[tuple[bytes, bytes]]:
    """Key and value, each behind its length; an empty key says that these were all."""
    count = 0
    while True:
        lengths = stream.read(8)
        if len(lengths) < 8:
            return
        key_bytes = int.from_bytes(lengths[:4], "little")
        value_bytes = int.from_bytes(lengths[4:], "little")
        if key_bytes > JOURNAL_KEY_BYTES_MAX or value_bytes > 2 * JOURNAL_VALUE_BYTES_MAX:
            return
        key, value = stream.read(key_bytes), stream.read(value_bytes)
        if len(value) < value_bytes:
            return
        yield key, value
        count += 1
        if count % 10_000 == 0:
            alive.reset()
