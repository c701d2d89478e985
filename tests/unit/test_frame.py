"""The frame of a message: what passes it, and what each kind of damage is called."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlog.core.frame import (
    FRAME_BYTES,
    MessageKind,
    check_frame,
    control_body,
    encode_control,
    encode_frame,
)
from dlog.errors import MessageError
from dlog.limits import CONTROL_MESSAGE_BYTES_MAX

CONTROL_KINDS = [kind for kind in MessageKind if kind is not MessageKind.EVENTS]
REASONS = {"truncated", "magic", "version", "oversized", "length", "crc"}


def refused(message: bytes, size_max: int = 10_000) -> str:
    with pytest.raises(MessageError) as caught:
        check_frame(memoryview(message), size_max)
    assert caught.value.detail
    return caught.value.reason


@given(kind=st.sampled_from(CONTROL_KINDS), body=st.binary(max_size=300))
def test_a_control_message_comes_back(kind: MessageKind, body: bytes) -> None:
    message = memoryview(encode_control(kind, body))
    assert len(message) == FRAME_BYTES + len(body)
    assert check_frame(message, 10_000) == kind
    assert control_body(message) == body


@given(body=st.binary(max_size=40), data=st.data())
def test_any_flipped_bit_is_found(body: bytes, data: st.DataObject) -> None:
    message = bytearray(encode_control(MessageKind.HELLO, body))
    bit = data.draw(st.integers(0, 8 * len(message) - 1))
    message[bit // 8] ^= 1 << bit % 8
    assert refused(message) in REASONS


@given(body=st.binary(max_size=40), data=st.data())
def test_any_truncation_and_any_excess_is_found(body: bytes, data: st.DataObject) -> None:
    message = encode_control(MessageKind.HELLO, body)
    cut = data.draw(st.integers(0, len(message) - 1))
    assert refused(message[:cut]) in {"truncated", "length"}
    assert refused(message + b"\0") == "length"


@given(noise=st.binary(max_size=200))
def test_noise_is_a_message_error(noise: bytes) -> None:
    assert refused(noise) in REASONS


def test_each_damage_has_its_word() -> None:
    good = encode_control(MessageKind.BYE, b"body")
    assert refused(good[:15]) == "truncated"
    assert refused(b"HTTP" + good[4:]) == "magic"
    assert refused(good[:4] + b"\x02\0" + good[6:]) == "version"
    assert refused(good, size_max=len(good) - 1) == "oversized"
    assert refused(good[:-1]) == "length"
    assert refused(good[:-1] + b"!") == "crc"


def test_an_unknown_kind_is_handed_on_as_a_number() -> None:
    head = struct.pack("<4sHHI", b"DLOG", 1, 99, 0)
    from crc32c import crc32c

    message = head + struct.pack("<I", crc32c(head))
    assert check_frame(memoryview(message), 100) == 99


def test_the_frame_of_a_batch_covers_its_header_alone() -> None:
    header, rest = bytes(range(112)), b"payload"
    frame = encode_frame(MessageKind.EVENTS, len(header + rest), header)
    assert check_frame(memoryview(frame + header + b"PAYLOAD"), 1000) == MessageKind.EVENTS
    assert refused(frame + header[:-1] + b"\xff" + rest) == "crc"


def test_a_control_message_has_a_limit_on_both_sides() -> None:
    body = bytes(CONTROL_MESSAGE_BYTES_MAX + 1)
    with pytest.raises(MessageError, match="oversized"):
        encode_control(MessageKind.HELLO, body)
    with pytest.raises(MessageError, match="oversized"):
        control_body(memoryview(bytes(FRAME_BYTES) + body))


def test_odd_kinds_go_to_the_logger_and_even_ones_back() -> None:
    to_logger = {kind.name for kind in MessageKind if kind % 2}
    assert to_logger == {"EVENTS", "HELLO", "HEARTBEAT", "END_OF_RUN", "BYE"}
