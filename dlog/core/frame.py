"""The 16 bytes that every message of the event link begins with. It does no I/O.

Layout: docs/PROTOCOL.md, "Frame".
"""

from __future__ import annotations

import enum
import struct
from typing import Final

from crc32c import crc32c

from dlog.errors import MessageError
from dlog.limits import CONTROL_MESSAGE_BYTES_MAX

MAGIC: Final = b"DLOG"
PROTOCOL_VERSION: Final = 1

# magic, protocol version, message kind, bytes behind the frame, crc32c
_FRAME: Final = struct.Struct("<4sHHII")
FRAME_BYTES: Final = _FRAME.size
assert FRAME_BYTES == 16
_COVERED_BY_FRAME_CRC: Final = 112  # of a batch: its header, which has the crc of the rest


class MessageKind(enum.IntEnum):
    """Odd kinds go from the source to the logger, even ones back."""

    EVENTS = 1
    HELLO = 3
    HEARTBEAT = 5
    END_OF_RUN = 7
    BYE = 9
    WELCOME = 2
    ACKNOWLEDGEMENT = 4
    RESEND = 6
    REFUSED = 8
    BYE_DONE = 10
    RUN_STREAMS = 12


def encode_frame(kind: MessageKind, body_bytes: int, covered: bytes) -> bytes:
    """The frame before a body. `covered`: the whole body, of a batch its header alone.

    The crc begins with the frame's own first 12 bytes, so that kind and length are covered too.
    """
    head = _FRAME.pack(MAGIC, PROTOCOL_VERSION, kind, body_bytes, 0)[:12]
    return head + struct.pack("<I", crc32c(covered, crc32c(head)))


def encode_control(kind: MessageKind, body: bytes) -> bytes:
    """A whole message that is not a batch."""
    if len(body) > CONTROL_MESSAGE_BYTES_MAX:
        raise MessageError("oversized", f"a {kind.name} of {len(body)} bytes")
    return encode_frame(kind, len(body), body) + body


def check_frame(message: memoryview, size_max: int) -> int:
    """The message kind, as a number (it may be one that we do not know). Raises `MessageError`."""
    if len(message) < FRAME_BYTES:
        raise MessageError("truncated", f"{len(message)} bytes are less than a frame")
    magic, version, kind, body_bytes, crc = _FRAME.unpack_from(message)
    if magic != MAGIC:
        raise MessageError("magic", f"the message begins with {bytes(message[:4])!r}")
    if version != PROTOCOL_VERSION:
        raise MessageError("version", f"protocol version {version}; this is {PROTOCOL_VERSION}")
    if len(message) > size_max:
        raise MessageError("oversized", f"{len(message)} bytes; at most {size_max}")
    if body_bytes != len(message) - FRAME_BYTES:
        raise MessageError(
            "length", f"the frame announces {body_bytes} bytes, {len(message) - FRAME_BYTES} follow"
        )
    end = FRAME_BYTES + _COVERED_BY_FRAME_CRC if kind == MessageKind.EVENTS else len(message)
    if crc32c(message[FRAME_BYTES:end], crc32c(message[:12])) != crc:
        raise MessageError("crc", "checksum of the frame does not hold")
    return int(kind)


def control_body(message: memoryview) -> memoryview:
    """The body of a checked control message."""
    if len(message) > FRAME_BYTES + CONTROL_MESSAGE_BYTES_MAX:
        raise MessageError("oversized", f"a control message of {len(message)} bytes")
    return message[FRAME_BYTES:]
