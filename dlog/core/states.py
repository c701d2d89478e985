"""The state machines of logger, run, file and connection: one table each, data rather than code.

A pair that is not in its table raises `TransitionRefused` and changes nothing. docs/STATES.md is
drawn from here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from dlog.errors import TransitionRefused


class LoggerState(enum.StrEnum):
    PREINITIALIZED = "PREINITIALIZED"
    INITIALIZED = "INITIALIZED"
    CONFIGURED = "CONFIGURED"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"


class LoggerEvent(enum.StrEnum):
    INIT = "INIT"
    CONFIGURE = "CONFIGURE"
    START_RUN = "START RUN"
    LAST_RUN_OVER = "last run over"
    STOP = "STOP"
    FAIL = "failure"
    FALL_TO_INITIALIZED = "failure, on_failure = initialized"
    FALL_TO_CONFIGURED = "failure, on_failure = configured"


class RunState(enum.StrEnum):
    STARTING = "STARTING"  # committed; its files are being created
    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    ENDING = "ENDING"  # the sources drain
    ENDED = "ENDED"
    ABORTED = "ABORTED"
    FAILED = "FAILED"


class RunEvent(enum.StrEnum):
    STARTED = "streams open"
    START_FAILED = "streams failed to open"
    PAUSE = "PAUSE RUN"
    RESUME = "RESUME RUN"
    STOP = "STOP RUN"
    ABORT = "ABORT RUN"
    DRAINED = "drained, or the drain time is over"
    FAIL = "failure"


class FileState(enum.StrEnum):
    CREATING = "CREATING"  # announced; a name may exist, nothing in it is acknowledged
    OPEN = "OPEN"  # header page and every directory level durable; blocks durable below D
    END = "END"  # as OPEN; full, takes late events of its range
    CLOSING = "CLOSING"  # takes nothing; footer, sidecar, rename and mode are under way
    CLOSED = "CLOSED"  # footer, sidecar, final name and read-only mode durable
    ERROR = "ERROR"  # sealed at its durable offset D, without footer


class FileEvent(enum.StrEnum):
    CREATED = "header durable"
    CREATE_FAILED = "creation failed"
    FULL = "full"
    CLOSE = "close"
    SEALED = "footer, sidecar and name durable"
    FAULT = "write or sync failed"


class ConnectionState(enum.StrEnum):
    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"
    REFUSED = "refused"


class ConnectionEvent(enum.StrEnum):
    OPENED = "opened"
    ACCEPTED = "accepted"
    DROPPED = "heartbeats missed or disconnected"
    REJECTED = "rejected"


S = TypeVar("S", bound=enum.StrEnum)
E = TypeVar("E", bound=enum.StrEnum)


@dataclass(frozen=True, slots=True)
class Machine(Generic[S, E]):
    """A state machine: its name, and the state that each accepted (state, event) pair leads to."""

    name: str
    table: Mapping[tuple[S, E], S]

    def next(self, state: S, event: E) -> S:
        """Raises `TransitionRefused` for a pair that is not in the table."""
        try:
            return self.table[state, event]
        except KeyError:
            raise TransitionRefused(self.name, state, event, self.accepts(state)) from None

    def accepts(self, state: S) -> list[str]:
        return [str(event) for (begin, event) in self.table if begin == state]


def _table(
    rows: dict[S, dict[E, S]],
) -> Mapping[tuple[S, E], S]:
    return MappingProxyType(
        {(state, event): end for state, row in rows.items() for event, end in row.items()}
    )


_L, _LE = LoggerState, LoggerEvent
LOGGER: Final = Machine(
    "logger",
    _table(
        {
            _L.PREINITIALIZED: {
                _LE.INIT: _L.INITIALIZED,
                _LE.STOP: _L.STOPPED,
                _LE.FAIL: _L.FAILED,
            },
            _L.INITIALIZED: {
                _LE.INIT: _L.INITIALIZED,
                _LE.CONFIGURE: _L.CONFIGURED,
                _LE.STOP: _L.STOPPED,
                _LE.FAIL: _L.FAILED,
                _LE.FALL_TO_INITIALIZED: _L.INITIALIZED,
            },
            _L.CONFIGURED: {
                _LE.INIT: _L.CONFIGURED,
                _LE.CONFIGURE: _L.CONFIGURED,
                _LE.START_RUN: _L.RUNNING,
                _LE.STOP: _L.STOPPED,
                _LE.FAIL: _L.FAILED,
                _LE.FALL_TO_INITIALIZED: _L.INITIALIZED,
                _LE.FALL_TO_CONFIGURED: _L.CONFIGURED,
            },
            _L.RUNNING: {
                # INIT in RUNNING would move the port under the sources' feet: it is refused.
                _LE.CONFIGURE: _L.RUNNING,
                _LE.START_RUN: _L.RUNNING,
                _LE.LAST_RUN_OVER: _L.CONFIGURED,
                _LE.STOP: _L.STOPPED,  # ends the runs first
                _LE.FAIL: _L.FAILED,
                _LE.FALL_TO_INITIALIZED: _L.INITIALIZED,
                _LE.FALL_TO_CONFIGURED: _L.CONFIGURED,
            },
            _L.STOPPED: {},
            _L.FAILED: {},
        }
    ),
)

_R, _RE = RunState, RunEvent
RUN: Final = Machine(
    "run",
    _table(
        {
            _R.STARTING: {
                _RE.STARTED: _R.ACTIVE,
                _RE.START_FAILED: _R.FAILED,
                _RE.ABORT: _R.ABORTED,
                _RE.FAIL: _R.FAILED,
            },
            _R.ACTIVE: {
                _RE.PAUSE: _R.PAUSED,
                _RE.STOP: _R.ENDING,
                _RE.ABORT: _R.ABORTED,
                _RE.FAIL: _R.FAILED,
            },
            _R.PAUSED: {
                _RE.RESUME: _R.ACTIVE,
                _RE.STOP: _R.ENDING,
                _RE.ABORT: _R.ABORTED,
                _RE.FAIL: _R.FAILED,
            },
            _R.ENDING: {
                _RE.DRAINED: _R.ENDED,
                _RE.ABORT: _R.ABORTED,
                _RE.FAIL: _R.FAILED,
            },
            _R.ENDED: {},
            _R.ABORTED: {},
            _R.FAILED: {},
        }
    ),
)

_F, _FE = FileState, FileEvent
FILE: Final = Machine(
    "file",
    _table(
        {
            _F.CREATING: {_FE.CREATED: _F.OPEN, _FE.CREATE_FAILED: _F.ERROR},
            _F.OPEN: {_FE.FULL: _F.END, _FE.CLOSE: _F.CLOSING, _FE.FAULT: _F.ERROR},
            _F.END: {_FE.CLOSE: _F.CLOSING, _FE.FAULT: _F.ERROR},
            _F.CLOSING: {_FE.SEALED: _F.CLOSED, _FE.FAULT: _F.ERROR},
            _F.CLOSED: {},
            # Settled: its sealed bytes get the final name and the catalogue says "bad".
            _F.ERROR: {_FE.SEALED: _F.CLOSED},
        }
    ),
)

_C, _CE = ConnectionState, ConnectionEvent
CONNECTION: Final = Machine(
    "connection",
    _table(
        {
            _C.CONNECTING: {
                _CE.ACCEPTED: _C.CONNECTED,
                _CE.REJECTED: _C.REFUSED,
                _CE.DROPPED: _C.LOST,
            },
            _C.CONNECTED: {
                _CE.ACCEPTED: _C.CONNECTED,
                _CE.DROPPED: _C.LOST,
                _CE.REJECTED: _C.REFUSED,
            },
            _C.LOST: {
                _CE.OPENED: _C.CONNECTING,
                _CE.ACCEPTED: _C.CONNECTED,
                _CE.REJECTED: _C.REFUSED,
            },
            _C.REFUSED: {_CE.OPENED: _C.CONNECTING, _CE.ACCEPTED: _C.CONNECTED},
        }
    ),
)

RUN_LIVE: Final = frozenset({RunState.STARTING, RunState.ACTIVE, RunState.PAUSED, RunState.ENDING})
