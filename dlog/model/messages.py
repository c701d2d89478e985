"""The messages that are not batches, as msgspec structs: event link, COOR link, alarm and monitor.

docs/PROTOCOL.md specifies them. Unknown fields are passed over, so that fields can be added.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from dlog.errors import MessageError

# --- event link, source to logger ------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Opens or reopens a session. lowest: lowest unacknowledged batch, from which it resends.

    position_bytes: bytes of the session's messages before that batch. refusals_seen: how many
    refusals it has counted: a logger whose journal was rebuilt numbers those to come behind them.
    """

    session: bytes
    name: str
    host: str
    process: int
    lowest: int
    position_bytes: int
    refusals_seen: int = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """I am here. sent: highest batch sent; refusals_seen: refusals that reached the caller;
    wanted_bytes: length of the message that waits for the window, 0 for none. settle_bytes: of the
    batches from that one on that were sent before, of runs that are over: they are sent again to be
    settled. unlisted: runs whose events wait, and of which the logger has said nothing."""

    session: bytes
    sent: int
    refusals_seen: int = 0
    wanted_bytes: int = 0
    settle_bytes: int = 0
    unlisted: list[int] = []


class EndOfRun(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `Acknowledgement.ending`: my last batch with events of that run, 0 for none.

    It is sent once all batches up to `last` have been sent.
    """

    session: bytes
    run: int
    last: int


class Bye(msgspec.Struct, frozen=True, kw_only=True):
    """The session is over; everything was acknowledged or given up."""

    session: bytes


# --- event link, logger to source ------------------------------------------------------------


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """The session is open. From here on `Acknowledgement` says everything else."""

    session: bytes
    boot: int
    logger: str
    logger_uuid: bytes
    heartbeat_ms: int
    message_bytes_max: int
    event_bytes_max: int


class RefusedRange(msgspec.Struct, frozen=True, kw_only=True):
    """Events of these batches (inclusive) for a stream of a run that were settled by refusal."""

    first: int
    last: int
    run: int
    stream: str
    reason: str
    events: int


class DivertedEvents(msgspec.Struct, frozen=True, kw_only=True):
    """How many events of the session, for a stream of a run as sent, are stored elsewhere.

    why: `late` in the stream's garbage file; `stream-unknown`, `run-unknown`, `run-ended` or
    `run-failed` in the orphan file. stream "", run 0: of all that found no place of its own.
    """

    run: int
    stream: str
    why: str
    events: int


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a source must know, absolute, so that one message replaces all before it.

    acknowledged: every batch up to it is settled. selective: settled ranges above it (inclusive).
    limit_bytes: the source may send messages up to this position of the session.
    next: the batch that is admitted next.
    refusals: numbered from `refusals_from`; repeated until a heartbeat says that they were seen.
    diverted: since the session began, so that it only grows.
    held: paused runs. ending: runs whose end the source must answer with `EndOfRun`. ended: runs
    that were active in this session and take nothing any more. active: runs that take events.
    waiting: why no credit is granted ("" where it is).
    """

    session: bytes
    boot: int
    acknowledged: int
    limit_bytes: int
    next: int
    selective: list[tuple[int, int]] = []
    refusals_from: int = 0
    refusals: list[RefusedRange] = []
    diverted: list[DivertedEvents] = []
    active: list[int] = []
    held: list[int] = []
    ending: list[int] = []
    ended: list[int] = []
    waiting: str = ""


class RunStreams(msgspec.Struct, frozen=True, kw_only=True):
    """The streams of a run that takes events: after WELCOME, and when a run becomes active."""

    session: bytes
    boot: int
    run: int
    streams: list[str]


class Resend(msgspec.Struct, frozen=True, kw_only=True):
    """A batch above `next` came: send again from `next` on. `why` is for people."""

    session: bytes
    boot: int
    next: int
    why: str


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """HELLO or a message outside a session was refused. code: unknown-session, name-in-use, gap,
    closed, bad-name, too-many, expired. `retry`: it may hold later. logger, logger_uuid: who
    refuses; a source gives nothing up on the word of another logger than the one that has
    acknowledged."""

    session: bytes
    boot: int
    logger: str
    logger_uuid: bytes
    code: str
    detail: str
    retry: bool


class ByeDone(msgspec.Struct, frozen=True, kw_only=True):
    """The session is closed in the journal."""

    session: bytes


# --- COOR link (JSON) ------------------------------------------------------------------------


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command of COOR. id: COOR's random session (hex) and its number in it."""

    session: str
    number: int
    command: str
    parameters: dict[str, Any] = {}
    type: str = "command"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a command; the recorded one for a repeated id.

    error: what was wrong; code: transition, parameters, configuration, run, id-reused,
    unknown-command, message. accepts: what the state accepts, for code transition.
    """

    session: str
    number: int
    command: str
    ok: bool
    state: str
    error: str = ""
    code: str = ""
    accepts: list[str] = []
    data: dict[str, Any] = {}
    repeated: bool = False
    type: str = "answer"


class Identification(msgspec.Struct, frozen=True, kw_only=True):
    """The logger tells COOR who it is, after every (re)connection and as its heartbeat."""

    name: str
    uuid: str
    host: str
    process: int
    boot: int
    state: str
    runs: dict[str, str] = {}
    type: str = "identification"


class Introduction(msgspec.Struct, frozen=True, kw_only=True):
    """COOR tells the logger who it is, for the status and the log. It may be left out."""

    name: str
    host: str = ""
    process: int = 0
    type: str = "introduction"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The logger asks COOR for something: `pause` (disk nearly full) or `resume`."""

    name: str
    request: str
    runs: list[int]
    reason: str
    type: str = "request"


# --- alarm server and monitor (JSON) ---------------------------------------------------------


class AlarmState(msgspec.Struct, frozen=True, kw_only=True):
    """One alarm that is raised. count: how often since it was raised."""

    name: str
    severity: str
    text: str
    since_ns: int
    count: int


class AlarmReport(msgspec.Struct, frozen=True, kw_only=True):
    """All alarms of a logger that are raised, and those cleared since the last report.

    Sent at every change and every `interval_ms`, so that a lost one does no harm. last: the logger
    ends, in order; silence after it means nothing.
    """

    logger: str
    uuid: str
    host: str
    process: int
    number: int
    time_ns: int
    raised: list[AlarmState]
    cleared: list[str] = []
    interval_ms: int = 1000
    last: bool = False
    type: str = "alarms"


class MonitorReport(msgspec.Struct, frozen=True, kw_only=True):
    """The logger's state, as `dlog status --json` shows it; sent periodically and on request."""

    logger: str
    uuid: str
    host: str = ""
    process: int = 0
    number: int
    time_ns: int
    status: dict[str, Any]
    interval_ms: int = 1000
    last: bool = False
    type: str = "monitor"


class StatusRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A monitor asks for a report now."""

    type: str = "status-request"


M = TypeVar("M", bound=msgspec.Struct)


def decode_body(body: memoryview | bytes, kind: type[M]) -> M:
    """A control message of the event link. Raises `MessageError`."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MessageError("body", f"{kind.__name__}: {error}") from error


def encode_body(message: msgspec.Struct) -> bytes:
    return msgspec.msgpack.encode(message)


def decode_json(text: memoryview | bytes, kind: type[M]) -> M:
    """A message of the COOR, alarm or monitor link. Raises `MessageError`."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MessageError("body", f"{kind.__name__}: {error}") from error


def encode_json(message: msgspec.Struct) -> bytes:
    return msgspec.json.encode(message)
