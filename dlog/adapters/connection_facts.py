"""What is known of one connection, for the status: its state by the table, its peer, its counts.

It is filled by the link that owns the connection and never talks to the network itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from dlog.core.states import CONNECTION, ConnectionEvent, ConnectionState
from dlog.model.status import ConnectionStatus

# A peer that makes up types must not grow the table of what was skipped.
SKIPPED_TYPES_MAX: Final = 32
_TYPE_LETTERS_MAX: Final = 40
_DETAIL_LETTERS_MAX: Final = 300


@dataclass(slots=True)
class ConnectionFacts:
    """One connection or, for the command lines on the control address, all of a kind."""

    kind: str
    address: str
    state: ConnectionState = ConnectionState.CONNECTING
    name: str = ""
    host: str = ""
    process: int = 0
    since_ns: int = field(default_factory=time.time_ns)
    connects: int = 0
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    last_message_ns: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    detail: str = ""

    def happened(self, event: ConnectionEvent, detail: str = "") -> bool:
        """Step by the table; whether the state is another one now. What the table does not hold
        (a second "lost" of a lost connection) says nothing new."""
        after = CONNECTION.table.get((self.state, event))
        if after is None:
            return False
        self.detail = detail[:_DETAIL_LETTERS_MAX]
        if after is self.state:
            return False
        self.state = after
        self.since_ns = time.time_ns()
        if after is ConnectionState.CONNECTED:
            self.connects += 1
        return True

    def came(self, size: int) -> None:
        self.messages_in += 1
        self.bytes_in += size
        self.last_message_ns = time.time_ns()

    def went(self, size: int) -> None:
        self.messages_out += 1
        self.bytes_out += size

    def skip(self, what: str) -> None:
        """Count a message that is passed over, by its type or by what was wrong with it."""
        key = what[:_TYPE_LETTERS_MAX]
        if key not in self.skipped and len(self.skipped) >= SKIPPED_TYPES_MAX:
            key = "other"
        self.skipped[key] = self.skipped.get(key, 0) + 1

    def status(self) -> ConnectionStatus:
        return ConnectionStatus(
            kind=self.kind,
            state=self.state,
            name=self.name,
            host=self.host,
            process=self.process,
            address=self.address,
            since_ns=self.since_ns,
            reconnects=max(0, self.connects - 1),
            messages_in=self.messages_in,
            messages_out=self.messages_out,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            last_message_ns=self.last_message_ns,
            skipped=dict(self.skipped),
            detail=self.detail,
        )
