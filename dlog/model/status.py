"""The status document: what STATUS answers, monitor reports and `dlog status --json` carry.

It holds facts and no judgement; rates are computed by whoever sees two documents (`monotonic_ns`
apart). Every field has a default, so that a viewer reads documents of other versions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from dlog.errors import MessageError
from dlog.limits import MIB
from dlog.model.messages import AlarmState

# A document is cut down to this (`within`) before it is sent; receivers take a little more.
STATUS_BYTES_MAX: Final = 4 * MIB


class LoggerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The process. since_ns: wall clock of the last change of `state`; addresses: by use."""

    name: str = ""
    uuid: str = ""
    boot: int = 0
    state: str = ""
    since_ns: int = 0
    started_ns: int = 0
    pid: int = 0
    host: str = ""
    version: str = ""
    debug_level: str = ""
    data: list[str] = []
    addresses: dict[str, str] = {}  # control, events, coor_listen, coor_connect, alarm_server, ...


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Pieces: received = stored + duplicate + garbage + orphan + refused + pending."""

    received: int = 0
    stored: int = 0
    duplicate: int = 0
    garbage: int = 0
    orphan: int = 0
    refused: dict[str, int] = {}  # by reason
    pending: int = 0  # in memory, unacknowledged

    def settled(self) -> int:
        return (
            self.stored + self.duplicate + self.garbage + self.orphan + sum(self.refused.values())
        )


class FileStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is not CLOSED. durable_bytes: D; reserved_bytes: R; low exclusive, -1: open."""

    path: str = ""
    kind: str = "events"
    state: str = ""
    durable_bytes: int = 0
    reserved_bytes: int = 0
    low: int = -1
    high: int = -1
    events: int = 0
    reason: str = ""


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of a run, all sources together; `sources` has the counts of each."""

    name: str = ""
    counts: Counts = Counts()
    sources: dict[str, Counts] = {}
    payload_bytes: int = 0  # of what is stored
    file_bytes: int = 0  # durable bytes of its files, closed ones too
    memory_bytes: int = 0  # what it holds of the logger's memory now
    directory: int = 0
    parts_closed: int = 0
    files: list[FileStatus] = []
    failed: str = ""  # why this stream can write nothing now


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A live run. `omitted` streams were left out of a document that grew too large."""

    run: int = 0
    state: str = ""
    since_ns: int = 0
    started_ns: int = 0
    comment: str = ""
    streams: list[StreamStatus] = []
    omitted: int = 0


class ConnectionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One connection. kind: source, coor, control, alarm-server, monitor.

    skipped: messages that were passed over, by type or reason. detail: why it is refused or waits.
    """

    kind: str = ""
    state: str = ""
    name: str = ""
    host: str = ""
    process: int = 0
    address: str = ""
    since_ns: int = 0
    reconnects: int = 0
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    last_message_ns: int = 0
    skipped: dict[str, int] = {}
    detail: str = ""


class DiskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A data directory. low: below its low-water mark now, no credit is granted."""

    path: str = ""
    free_bytes: int = 0
    total_bytes: int = 0
    low_water_bytes: int = 0
    low: bool = False
    problem: str = ""


class JournalStatus(msgspec.Struct, frozen=True, kw_only=True):
    size_bytes: int = 0
    commits: int = 0
    full: bool = False


class MemoryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is held in memory unacknowledged, of what may be."""

    in_use_bytes: int = 0
    budget_bytes: int = 0


class CommandStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One of COOR's last commands."""

    id: str = ""
    command: str = ""
    ok: bool = False
    error: str = ""
    time_ns: int = 0


class LatencyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """From a batch's arrival to its acknowledgement, over the last `samples` batches."""

    samples: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole document. `monotonic_ns` is for differences in one boot, `time_ns` for people."""

    version: int = 1
    time_ns: int = 0
    monotonic_ns: int = 0
    logger: LoggerStatus = LoggerStatus()
    runs: list[RunStatus] = []
    orphans: Counts = Counts()
    orphan_files: list[FileStatus] = []
    connections: list[ConnectionStatus] = []
    disks: list[DiskStatus] = []
    journal: JournalStatus = JournalStatus()
    memory: MemoryStatus = MemoryStatus()
    alarms: list[AlarmState] = []
    commands: list[CommandStatus] = []
    latency: LatencyStatus = LatencyStatus()
    omitted: list[str] = []  # what was left out for size


def status_data(status: Status) -> dict[str, Any]:
    """The document as plain data, for `Answer.data` and `MonitorReport.status`."""
    return dict(msgspec.to_builtins(status))


def read_status(data: Mapping[str, Any]) -> Status:
    """The document in an answer or report. Raises `MessageError` where it is none."""
    try:
        return msgspec.convert(data, Status)
    except (msgspec.ValidationError, ValueError) as error:
        raise MessageError("status", f"not a status document: {error}") from error


def within(status: Status, bytes_max: int = STATUS_BYTES_MAX) -> Status:
    """The document, cut down in steps until its JSON is within the bound; `omitted` says what.

    The states of logger and runs, alarms and disks are never left out.
    """
    for what, cut in _CUTS:
        if len(msgspec.json.encode(status)) <= bytes_max:
            break
        status = msgspec.structs.replace(cut(status), omitted=[*status.omitted, what])
    return status


def _each_stream(
    status: Status, change: Callable[[StreamStatus], StreamStatus], keep: int | None = None
) -> Status:
    runs = [
        msgspec.structs.replace(
            run,
            streams=[change(stream) for stream in run.streams[:keep]],
            omitted=run.omitted + len(run.streams) - len(run.streams[:keep]),
        )
        for run in status.runs
    ]
    return msgspec.structs.replace(status, runs=runs)


_CUTS: Final[tuple[tuple[str, Callable[[Status], Status]], ...]] = (
    (
        "files",
        lambda s: msgspec.structs.replace(
            _each_stream(s, lambda stream: msgspec.structs.replace(stream, files=[])),
            orphan_files=[],
        ),
    ),
    ("sources", lambda s: _each_stream(s, lambda i: msgspec.structs.replace(i, sources={}))),
    ("connections", lambda s: msgspec.structs.replace(s, connections=s.connections[:32])),
    ("streams", lambda s: _each_stream(s, lambda stream: stream, keep=16)),
    ("more streams", lambda s: _each_stream(s, lambda stream: stream, keep=0)),
    ("commands", lambda s: msgspec.structs.replace(s, commands=[])),
)


class Whereabouts(msgspec.Struct, frozen=True, kw_only=True):
    """DATA/logger.json: how the logger that runs (or last ran) on a data directory is reached."""

    name: str = ""
    uuid: str = ""
    pid: int = 0
    boot: int = 0
    control: str = ""
    coor_listen: str = ""
    event_address: str = ""
