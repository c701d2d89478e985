"""What the journal holds: keys, records, and their bytes. It does no I/O.

docs/ARCHITECTURE.md, "Journal". Every value is the crc32c of key and body, then the body
(MessagePack), since LMDB pages carry none. Restart reads the live prefixes alone.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec
from crc32c import crc32c

from dlog.core.event_file import Totals
from dlog.core.states import FileState, LoggerState, RunState
from dlog.errors import JournalUnreadable
from dlog.limits import DIVERSIONS_KEPT_MAX
from dlog.model.config import InitConfig, StreamConfig
from dlog.model.ids import (
    CommandId,
    FileKey,
    MarkKey,
    RunNumber,
    SessionId,
    StreamKey,
)

SCHEMA_VERSION: Final = 1

# --- keys ------------------------------------------------------------------------------------

META: Final = b"meta"
BOOT: Final = b"boot"
LOGGER: Final = b"logger"
RUNS: Final = b"run/"
STREAMS: Final = b"stream/"
FILES: Final = b"file/"
SESSIONS: Final = b"session/"
MARKS: Final = b"mark/"
COUNTS: Final = b"count/"
OPERATIONS: Final = b"operation/"  # announced, not done
QUARANTINE: Final = b"quarantine/"
ACKNOWLEDGED: Final = b"acknowledged/"
# What restart never scans:
DONE_OPERATIONS: Final = b"done/"
COMMANDS: Final = b"command/"
COMMAND_ORDER: Final = b"command-order/"
ENDED_RUNS: Final = b"ended/"
CLOSED_FILES: Final = b"closed/"

LIVE_PREFIXES: Final = (
    META, BOOT, LOGGER, RUNS, STREAMS, FILES, SESSIONS, MARKS, COUNTS, OPERATIONS, QUARANTINE,
    ACKNOWLEDGED,
)  # fmt: skip

# All that a start reads, and so what is probed before it does.
START_PREFIXES: Final = (*LIVE_PREFIXES, DONE_OPERATIONS)


def run_key(run: RunNumber) -> bytes:
    return RUNS + b"%010d" % run


def ended_run_key(run: RunNumber) -> bytes:
    return ENDED_RUNS + b"%010d" % run


def stream_key(key: StreamKey) -> bytes:
    return STREAMS + b"%010d/" % key.run + key.stream.encode()


def _file_tail(key: FileKey) -> bytes:
    return b"%010d/%s/%d/%08d" % (key.run, key.stream.encode(), key.kind, key.part)


def file_key(key: FileKey) -> bytes:
    return FILES + _file_tail(key)


def closed_file_key(key: FileKey) -> bytes:
    return CLOSED_FILES + _file_tail(key)


def run_files(run: RunNumber, prefix: bytes) -> bytes:
    """Prefix of a run's files: `prefix` is FILES or CLOSED_FILES."""
    return prefix + b"%010d/" % run


def session_key(session: SessionId) -> bytes:
    return SESSIONS + session.hex().encode()


def mark_key(key: MarkKey) -> bytes:
    return MARKS + b"%s/%010d/%s" % (key.session.hex().encode(), key.run, key.stream.encode())


def session_marks(session: SessionId) -> bytes:
    """Prefix of a session's watermarks."""
    return MARKS + session.hex().encode() + b"/"


def count_key(source: str, run: RunNumber, stream: str) -> bytes:
    # A source's name may hold `:` and `@` but no slash.
    return COUNTS + b"%010d/%s/%s" % (run, source.encode(), stream.encode())


def run_counts(run: RunNumber) -> bytes:
    """Prefix of a run's counters."""
    return COUNTS + b"%010d/" % run


def operation_key(number: int) -> bytes:
    return OPERATIONS + b"%016d" % number


def done_operation_key(number: int) -> bytes:
    return DONE_OPERATIONS + b"%016d" % number


def command_key(command: CommandId) -> bytes:
    return COMMANDS + b"%s/%020d" % (command.session.hex().encode(), command.number)


def command_order_key(order: int) -> bytes:
    return COMMAND_ORDER + b"%016d" % order


def quarantine_key(path: str) -> bytes:
    return QUARANTINE + path.encode()


def acknowledged_key(alarm: str) -> bytes:
    return ACKNOWLEDGED + alarm.encode()


# --- records ---------------------------------------------------------------------------------


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    pass


class JournalMeta(_Record, frozen=True, kw_only=True):
    schema: int = SCHEMA_VERSION
    logger_uuid: bytes
    name: str
    data: tuple[str, ...]  # data directories, as absolute paths
    marked: tuple[str, ...] = ()  # those, but the first, that hold this logger's mark
    created_ns: int
    coor_listen: str = ""  # the COOR link, for `dlog resume`
    coor_connect: str = ""
    rebuilt_ns: int = 0  # when `dlog journal rebuild` made this journal from the files


class BootRecord(_Record, frozen=True, kw_only=True):
    boot: int
    clean: bool = False  # the boot before ended by itself


class LoggerRecord(_Record, frozen=True, kw_only=True):
    """The logger's state; init and streams hold from INIT and CONFIGURE on.

    event_address: the address that was bound, so that the sources find us again after a restart.
    """

    state: LoggerState
    init: InitConfig | None = None
    streams: dict[str, StreamConfig] = {}
    event_address: str = ""
    next_command_order: int = 1


class Pending(_Record, frozen=True, kw_only=True):
    """A command that is being carried out, so that a restart answers it."""

    session: bytes
    number: int
    body_crc: int
    order: int


class RunRecord(_Record, frozen=True, kw_only=True):
    """A live run. streams: its frozen configuration as it stood at Start Run. pending: the command
    that changes its state, and others that ask for the same."""

    run: int
    state: RunState
    streams: dict[str, StreamConfig]
    started_ns: int
    comment: str = ""
    pending: list[Pending] = []
    abort_reason: str = ""


class EndedRunRecord(_Record, frozen=True, kw_only=True):
    """A run of the catalogue. counts: per source and stream, see CountRecord."""

    run: int
    state: RunState
    started_ns: int
    ended_ns: int
    comment: str = ""
    reason: str = ""
    streams: dict[str, StreamConfig]
    files: int = 0
    counts: list[tuple[str, str, CountRecord]] = []


class StreamRecord(_Record, frozen=True, kw_only=True):
    """A live stream of a run.

    next_block: number of the next block to be written. highest_event: the number up to which the
    stream follows its events, -1 for none; wild numbers stand above it (core/numbering.py). low:
    what is at or below it is late. next_part: per file kind. directory: position of the data
    directory that new parts go to. unmade: ranges (low exclusive, high inclusive) that take late
    events, though a fault ended their part: it may be settled and gone from the live records before
    there is one that goes on for it. anew: sessions whose numbers began anew below `low`, and which
    are not late.
    """

    run: int
    stream: str
    next_block: int = 1
    highest_event: int = -1
    low: int = -1
    next_part: dict[int, int] = {}
    directory: int = 0
    unmade: list[tuple[int, int]] = []
    anew: list[bytes] = []


class FileRecord(_Record, frozen=True, kw_only=True):
    """A file that is not CLOSED.

    path: final path inside its directory; on disk `.part` is behind it until it is closed.
    durable: D, bytes. reserved: R, bytes. crc32c: of the first D bytes. last_header_offset, chain:
    where the last block below D begins, and its header's crc (the file header's crc for none).
    low, high: the range of event numbers, low exclusive, high inclusive; -1 for open.
    predecessor_*: as in the file header.
    """

    run: int
    stream: str
    kind: int
    part: int
    state: FileState
    directory: int
    path: str
    file_uuid: bytes
    salt: bytes
    boot: int
    created_ns: int
    durable: int = 0
    reserved: int = 0
    crc32c: int = 0
    last_header_offset: int = 0
    chain: int = 0
    totals: Totals = Totals()
    low: int = -1
    high: int = -1
    predecessor_part: int = 0
    predecessor_sealed: int = 0
    predecessor_chain: int = 0
    sealed: bool = False  # of ERROR: "sealed at D" is committed; readers stop there
    reason: str = ""


class ClosedFileRecord(_Record, frozen=True, kw_only=True):
    """A file of the catalogue. size_bytes and crc32c are of the whole file.

    status: good; bad where acknowledged bytes were lost. sealed: a fault ended it at `size_bytes`,
    without footer; what is below is whole.
    """

    run: int
    stream: str
    kind: int
    part: int
    directory: int
    path: str
    file_uuid: bytes
    size_bytes: int
    crc32c: int
    created_ns: int
    closed_ns: int
    totals: Totals
    status: str = "good"
    sealed: bool = False
    reason: str = ""
    chain: int = 0  # crc of the last event block's header


class Refusal(_Record, frozen=True, kw_only=True):
    """Batches of a session, some of whose events were refused; first and last inclusive."""

    first: int
    last: int
    run: int
    stream: str
    reason: str
    events: int


class Diversion(_Record, frozen=True, kw_only=True):
    """Events of a session for a stream of a run, as sent, that are stored elsewhere, all in all.

    why: `late` (in the garbage file), or the reason of an orphan. stream "", run 0: what found no
    place of its own.
    """

    run: int
    stream: str
    why: str
    events: int


class SessionRecord(_Record, frozen=True, kw_only=True):
    """A session of a source. acknowledged: the cumulative acknowledgement, a batch number.

    position_bytes: bytes of the session's messages up to and including that batch. refused: not yet
    known to have reached the source. rebuilt: made by `journal rebuild` from the blocks, so that
    the acknowledged number is only a lower bound.
    """

    session: bytes
    name: str
    host: str = ""
    process: int = 0
    acknowledged: int = 0
    position_bytes: int = 0
    since_ns: int = 0
    closed: bool = False
    rebuilt: bool = False
    refused: list[Refusal] = []
    refused_from: int = 0  # number of the first of `refused` in the session
    diverted: list[Diversion] = []


LATE: Final = "late"


def with_diversion(diverted: Sequence[Diversion], more: Diversion) -> list[Diversion]:
    """One more, added to those of its run, stream and reason."""
    kept = {(d.run, d.stream, d.why): d.events for d in diverted}
    key = (more.run, more.stream, more.why)
    if key not in kept and len(kept) >= DIVERSIONS_KEPT_MAX:
        key = (0, "", more.why)
    kept[key] = kept.get(key, 0) + more.events
    return [
        Diversion(run=run, stream=stream, why=why, events=events)
        for (run, stream, why), events in kept.items()
    ]


class MarkRecord(_Record, frozen=True, kw_only=True):
    """sequence: highest batch of the session whose piece for this run and stream is committed."""

    sequence: int


class CountRecord(_Record, frozen=True, kw_only=True):
    """Settled (event, stream) pieces of a source in a stream of a run; events, not batches."""

    stored: int = 0
    duplicate: int = 0
    garbage: int = 0
    orphan: int = 0
    refused: dict[str, int] = {}
    payload_bytes: int = 0  # of what was stored, in garbage and orphan files too

    @property
    def received(self) -> int:
        return (
            self.stored + self.duplicate + self.garbage + self.orphan + sum(self.refused.values())
        )


class OperationKind(enum.StrEnum):
    CREATE = "create"
    RESERVE = "reserve"
    END = "end"
    SEAL = "seal"
    CLOSE = "close"
    CUT = "cut"
    SAVE_ASIDE = "save-aside"
    MOVE_ASIDE = "move-aside"
    SAVE = "save"  # give an open file that lost its name that name again
    REMOVE = "remove"
    REBUILD = "rebuild"


class OperationRecord(_Record, frozen=True, kw_only=True):
    """One file operation: announced before it is done, moved to the done log after."""

    kind: OperationKind
    path: str
    boot: int
    announced_ns: int
    done_ns: int = 0
    detail: str = ""


class CommandRecord(_Record, frozen=True, kw_only=True):
    """A command of COOR with its answer, so that a repeated id does nothing."""

    order: int
    body_crc: int
    command: str
    answer: dict[str, Any]
    answered_ns: int


class QuarantineRecord(_Record, frozen=True, kw_only=True):
    """A tail that was saved aside; the file is dropped once all that it may hold has been stored.

    needed: (session, run, stream, batch) of the pieces inside. sessions: where a block in it cannot
    be read, those that may have had a piece in it and have not finished since. saving: the copy is
    not known to be whole; then the tail still stands in its own file.
    """

    path: str
    directory: int
    run: int
    stream: str
    kind: int
    part: int
    begin: int
    end: int
    saved_ns: int
    needed: list[tuple[bytes, int, str, int]] = []
    sessions: list[bytes] = []
    saving: bool = False


class AcknowledgedRecord(_Record, frozen=True, kw_only=True):
    """An alarm that COOR has acknowledged, and whose cause each start finds again: while its text
    is the same, it is not raised. It goes with the cause."""

    name: str
    text: str
    acknowledged_ns: int


# --- bytes -----------------------------------------------------------------------------------

R = TypeVar("R", bound=_Record)
_CRC: Final = struct.Struct("<I")
_encoder: Final = msgspec.msgpack.Encoder()


def encode_record(key: bytes, record: _Record) -> bytes:
    body = _encoder.encode(record)
    return _CRC.pack(crc32c(body, crc32c(key))) + body


def decode_record(key: bytes, value: bytes, kind: type[R]) -> R:
    """Raises `JournalUnreadable` where the checksum or the shape does not hold."""
    if len(value) < _CRC.size:
        raise JournalUnreadable(f"journal record {key!r} is cut short")
    body = value[_CRC.size :]
    if _CRC.unpack_from(value)[0] != crc32c(body, crc32c(key)):
        raise JournalUnreadable(f"journal record {key!r}: checksum does not hold")
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise JournalUnreadable(f"journal record {key!r}: {error}") from error
