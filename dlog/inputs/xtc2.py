"""XTC2, the recorded data of LCLS-II: datagrams one behind the other. It owns their framing and
never looks inside one.

A datagram is a transition (nanoseconds, seconds, env; bits 24..27 of env are its id) and an Xtc
(source, damage, type, extent), whose extent covers the Xtc's own header and its payload.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from dlog.inputs.event import EventKind, InputEvent, InputItem, Torn
from dlog.inputs.recording import Recording, first_bytes, opened

# nanoseconds, seconds, env | source, damage, type, extent; little-endian
HEADER: Final = struct.Struct("<IIIIHHI")
assert HEADER.size == 24
TRANSITION_BYTES: Final = 12
XTC_BYTES_MIN: Final = 12

TRANSITIONS: Final = (
    "ClearReadout",
    "Reset",
    "Configure",
    "Unconfigure",
    "BeginRun",
    "EndRun",
    "BeginStep",
    "EndStep",
    "Enable",
    "Disable",
    "SlowUpdate",
    "L1Accept_EndOfBatch",
    "L1Accept",
)
# The experiment's own reader takes both for events; older files leave 11 unused.
EVENTS: Final = frozenset({"L1Accept", "L1Accept_EndOfBatch"})

NANOSECONDS: Final = 1_000_000_000
TYPE_ID_MASK: Final = 0x0FFF  # the rest is the type's version
TYPE_PARENT: Final = 0  # what every datagram's outermost Xtc is


class Header(NamedTuple):
    """The header of a datagram, as it stands there."""

    nanoseconds: int
    seconds: int
    env: int
    source: int
    damage: int
    type: int
    extent: int

    @property
    def transition(self) -> int:
        return (self.env >> 24) & 0x0F

    @property
    def time_ns(self) -> int:
        return self.seconds * NANOSECONDS + self.nanoseconds

    @property
    def datagram_bytes(self) -> int:
        return TRANSITION_BYTES + self.extent

    def problem(self) -> str | None:
        """Why this is no header; the length that it declares can be believed only if None."""
        if self.extent < XTC_BYTES_MIN:
            return f"its extent of {self.extent} B is less than its own header's"
        if self.transition >= len(TRANSITIONS):
            return f"its transition id {self.transition} is unknown"
        return None

    def foreign(self) -> str | None:
        """Why a file does not begin like XTC2: more is asked than of a later header."""
        if self.nanoseconds >= NANOSECONDS:
            return f"its time has {self.nanoseconds} ns in a second"
        if self.type & TYPE_ID_MASK != TYPE_PARENT:
            return f"its outermost type is {self.type & TYPE_ID_MASK}, not {TYPE_PARENT}"
        return self.problem()


class Xtc2:
    """L1Accepts are events; every other transition is a control record."""

    name = "xtc2"
    options: Mapping[str, str] = {}

    def describe(self) -> str:
        return "XTC2 of LCLS-II: L1Accept datagrams are events, other transitions control records"

    def recognise(self, path: Path) -> bool:
        if path.is_file() and path.suffix == ".xtc2":
            return True
        start = first_bytes(path)
        return len(start) >= HEADER.size and Header(*HEADER.unpack_from(start)).foreign() is None

    def events(self, path: Path, options: Mapping[str, str]) -> Iterator[InputItem]:
        with opened(path) as recording:
            _refuse_foreign(recording)
            while recording.left_bytes:
                item = _datagram(recording)
                yield item
                if isinstance(item, Torn):
                    return


def _refuse_foreign(recording: Recording) -> None:
    start = recording.ahead(HEADER.size)
    if len(start) < HEADER.size:
        raise recording.error(f"not XTC2: {len(start)} B, less than a datagram's header")
    if foreign := Header(*HEADER.unpack(start)).foreign():
        raise recording.error(f"not XTC2: {foreign}")


def _datagram(recording: Recording) -> InputItem:
    """The datagram at the recording's offset; none is sought behind one that is torn."""
    start, left_bytes = recording.offset_bytes, recording.left_bytes
    header_bytes = recording.ahead(HEADER.size)
    if len(header_bytes) < HEADER.size:
        return Torn(start, len(header_bytes), HEADER.size, "the file ends in a datagram's header")
    header = Header(*HEADER.unpack(header_bytes))
    declared_bytes = header.datagram_bytes
    if problem := header.problem():
        return Torn(start, left_bytes, declared_bytes, f"no datagram: {problem}")
    label = TRANSITIONS[header.transition]
    if declared_bytes > left_bytes:
        return Torn(start, left_bytes, declared_bytes, f"the file ends inside a datagram ({label})")
    payload = recording.take(declared_bytes)
    if len(payload) < declared_bytes:
        return Torn(start, len(payload), declared_bytes, "the file was cut while it was read")
    kind = EventKind.EVENT if label in EVENTS else EventKind.CONTROL
    return InputEvent(kind, label, header.time_ns, payload)
