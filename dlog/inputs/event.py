"""What an input yields: events, control records and torn ends. It owns these records alone and
never reads a file."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias


class EventKind(enum.Enum):
    """Whether a record came from the detector or from the run control."""

    EVENT = "event"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class InputEvent:
    """One event, or one control record, as it stands in the file."""

    kind: EventKind
    label: str
    time_ns: int | None
    payload: bytes | memoryview

    @property
    def size_bytes(self) -> int:
        payload = self.payload
        return payload.nbytes if isinstance(payload, memoryview) else len(payload)


@dataclass(frozen=True, slots=True)
class Torn:
    """Bytes that are no whole event; nothing comes after them. They are reported, not sent.

    `declared_bytes` is what the file says the event has: more than `size_bytes` where it was cut
    short, and less than a header where the length itself is wrong.
    """

    offset_bytes: int
    size_bytes: int
    declared_bytes: int
    reason: str


InputItem: TypeAlias = InputEvent | Torn
