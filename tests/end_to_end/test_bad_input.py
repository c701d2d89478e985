"""Whatever comes on the event socket: counted, told, and of no harm to the source beside it."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import zmq
from crc32c import crc32c

import dlog
from dlog.core.batch import HEADER_BYTES, Batch, encode_batch
from dlog.core.frame import FRAME_BYTES, MessageKind, encode_control, encode_frame
from dlog.limits import BATCH_EVENTS_MAX, CONTROL_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, MIB
from dlog.model.events import EVENT_DTYPE
from dlog.model.messages import Refused, Resend
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.rig.raw_source import RawSource, hello_message
from tests.waiting import LONG, until

pytestmark = pytest.mark.long

CONFIGURATION = (
    QUICK_INIT
    + """
memory_bytes = "64 MiB"
[streams.a]
reserve_bytes = "1 MiB"
"""
)
GOOD = [b"event one", b"event two"]
_HEADER = struct.Struct("<16sQQQQIIIIQII32x")  # of a batch: see core/batch.py


@pytest.fixture(scope="module")
def logger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoggerProcess]:
    """One with run 7 active, for all that does no harm."""
    logger = LoggerProcess(tmp_path_factory.mktemp("bad-input"), CONFIGURATION).start()
    logger.start_run(7)
    yield logger
    logger.kill()


@pytest.fixture(scope="module")
def good(logger: LoggerProcess) -> Iterator[dlog.Source]:
    """The source beside the bad one."""
    with dlog.Source(logger.data, name="good", run=7) as source:
        yield source


@pytest.fixture(scope="module")
def bad(logger: LoggerProcess) -> Iterator[RawSource]:
    with RawSource(logger.event_address, "bad").open() as raw:
        raw.send_next(raw.batch(7, "a", GOOD))
        raw.acknowledged()
        yield raw


def goes_on(source: dlog.Source) -> None:
    """It sends an event, which is acknowledged."""
    before = source.acknowledged
    source.send("a", b"still here")
    source.flush(LONG)
    assert source.acknowledged == before + 1


# --- messages that are not what they should be -------------------------------------------------


def framed(raw: RawSource, **fields: Any) -> bytearray:
    """A good batch with fields of its header changed, and all checksums made to hold again."""
    return checksummed(raw.batch(7, "a", GOOD), **fields)


def checksummed(message: bytearray, **fields: Any) -> bytearray:
    """The message of GOOD, whatever was changed in it, with checksums that hold."""
    names = ["session", "sequence", "position", "order", "payload", "events", "streams",
             "names_crc", "flags", "original", "table_crc", "payload_crc"]  # fmt: skip
    header = dict(zip(names, _HEADER.unpack_from(message, FRAME_BYTES), strict=True))
    body = message[FRAME_BYTES + HEADER_BYTES :]
    table_at, payload_at = 32, 32 + EVENT_DTYPE.itemsize * len(GOOD)
    header["names_crc"] = crc32c(bytes(body[:table_at]))
    header["table_crc"] = crc32c(bytes(body[table_at:payload_at]))
    header["payload_crc"] = crc32c(bytes(body[payload_at:]))
    return reframed(bytearray(_HEADER.pack(*(header | fields).values())) + body)


def reframed(covered: bytearray, kind: int = MessageKind.EVENTS) -> bytearray:
    """A frame before a batch's header and body."""
    frame = encode_frame(MessageKind(kind), len(covered), bytes(covered[:HEADER_BYTES]))
    return bytearray(frame) + covered


def with_table(raw: RawSource, **columns: int) -> bytearray:
    """A good batch with columns of its event table changed, checksums that hold."""
    message = raw.batch(7, "a", GOOD)
    begin = FRAME_BYTES + HEADER_BYTES + 32
    table = np.frombuffer(message, EVENT_DTYPE, len(GOOD), begin).copy()
    for name, value in columns.items():
        table[name][0] = value
    message[begin : begin + table.nbytes] = table.tobytes()
    return checksummed(message)


def flipped(message: bytearray, at: int) -> bytearray:
    message[at] ^= 0x10
    return message


def versioned(message: bytearray) -> bytearray:
    message[4:6] = (2).to_bytes(2, "little")
    return message


def named(raw: RawSource, name: bytes) -> bytearray:
    message = raw.batch(7, "a", GOOD)
    at = FRAME_BYTES + HEADER_BYTES
    message[at : at + 32] = name.ljust(32, b"\0")
    return checksummed(message)


def unknown_kind(kind: int) -> bytes:
    head = struct.pack("<4sHHI", b"DLOG", 1, kind, 0)
    return head + struct.pack("<I", crc32c(b"", crc32c(head)))


MESSAGES: dict[str, tuple[str, Callable[[RawSource], bytes | bytearray]]] = {
    "nothing": ("truncated", lambda raw: b""),
    "less than a frame": ("truncated", lambda raw: raw.batch(7, "a", GOOD)[:15]),
    "no magic": ("magic", lambda raw: b"GET / HTTP/1.1\r\n\r\n"),
    "noise": ("magic", lambda raw: random.Random(1).randbytes(5000)),
    "another version": ("version", lambda raw: versioned(raw.batch(7, "a", GOOD))),
    "cut short": ("length", lambda raw: raw.batch(7, "a", GOOD)[:-1]),
    "cut in its header": ("length", lambda raw: raw.batch(7, "a", GOOD)[:60]),
    "too long": ("length", lambda raw: raw.batch(7, "a", GOOD) + b"x"),
    "a flipped bit in the frame": ("crc", lambda raw: flipped(raw.batch(7, "a", GOOD), 6)),
    "a flipped bit in the header": ("crc", lambda raw: flipped(raw.batch(7, "a", GOOD), 40)),
    "a flipped bit in the payload": ("crc", lambda raw: flipped(raw.batch(7, "a", GOOD), -1)),
    "a header without room": (
        "truncated", lambda raw: reframed(raw.batch(7, "a", GOOD)[FRAME_BYTES:][:50]),
    ),
    "a lie about its events": ("length", lambda raw: framed(raw, events=3)),
    "a lie about its streams": ("length", lambda raw: framed(raw, streams=2)),
    "a lie about its payload": ("length", lambda raw: framed(raw, payload=2**63)),
    "too many events": ("oversized", lambda raw: framed(raw, events=BATCH_EVENTS_MAX + 1)),
    "too many streams": ("oversized", lambda raw: framed(raw, streams=33)),
    "a lie about an event": ("length", lambda raw: with_table(raw, size=200)),
    "an event too large": ("oversized", lambda raw: with_table(raw, size=2**31)),
    "an event for no stream": ("stream-mask", lambda raw: with_table(raw, streams=0)),
    "an event for a stream not named": ("stream-mask", lambda raw: with_table(raw, streams=2)),
    "no stream name": ("stream-name", lambda raw: named(raw, b"../../etc/passwd")),
    "no ASCII": ("stream-name", lambda raw: named(raw, b"\xff\xfe")),
    "batch number 0": ("sequence", lambda raw: framed(raw, sequence=0)),
    "a settled batch with events": ("flags", lambda raw: framed(raw, flags=1, original=1000)),
    "another session": ("session", lambda raw: raw.batch(7, "a", GOOD, session=os.urandom(16))),
    "an unknown type": ("unknown-type-99", lambda raw: unknown_kind(99)),
    "the logger's own type": ("unknown-type-4", lambda raw: unknown_kind(4)),
    "a body that is none": (
        "body", lambda raw: encode_control(MessageKind.HEARTBEAT, b"\xc1\xc1"),
    ),
    "a body of another shape": (
        "body", lambda raw: encode_control(MessageKind.END_OF_RUN, b"\x93\x01\x02\x03"),
    ),
    "a body nested without end": (
        "body", lambda raw: encode_control(MessageKind.HEARTBEAT, b"\x91" * 100_000),
    ),
    "a large body": (
        "oversized",
        lambda raw: bytes(reframed_control(bytes(CONTROL_MESSAGE_BYTES_MAX + 1))),
    ),
}  # fmt: skip


def reframed_control(body: bytes) -> bytes:
    return encode_frame(MessageKind.HEARTBEAT, len(body), body) + body


@pytest.mark.parametrize("what", MESSAGES)
def test_a_message_that_is_wrong_is_counted_and_alarmed(
    logger: LoggerProcess, good: dlog.Source, bad: RawSource, what: str
) -> None:
    reason, make = MESSAGES[what]
    before = logger.source_status("bad").skipped.get(reason, 0)
    bad.send(make(bad))
    until(
        lambda: logger.source_status("bad").skipped.get(reason, 0) > before,
        f"{reason} is counted: {logger.source_status('bad').skipped}", 10,
    )  # fmt: skip
    if not reason.startswith("unknown-type"):
        assert "malformed bad" in logger.alarms()
    goes_on(good)


def test_after_all_that_the_bad_source_may_still_send_what_is_right(
    bad: RawSource, good: dlog.Source
) -> None:
    bad.send_next(bad.batch(7, "a", GOOD))
    bad.acknowledged()
    goes_on(good)


def test_an_empty_batch_is_counted(logger: LoggerProcess, bad: RawSource) -> None:
    empty = Batch(
        bad.session, bad.sequence + 1, bad.position, 0, (), np.empty(0, EVENT_DTYPE),  # type: ignore[arg-type]
        np.empty(0, np.uint8), 0,
    )  # fmt: skip
    bad.send(encode_batch(empty))
    until(lambda: logger.source_status("bad").skipped.get("empty"), "it is counted")


def test_a_message_of_several_frames_is_counted(
    logger: LoggerProcess, bad: RawSource, good: dlog.Source
) -> None:
    before = logger.source_status("bad").skipped.get("truncated", 0)
    batch = bytes(bad.batch(7, "a", GOOD))
    bad.socket.send_multipart([batch[:100], batch[100:]])
    bad.socket.send_multipart([b"", batch])
    until(
        lambda: logger.source_status("bad").skipped.get("truncated", 0) == before + 2,
        "both are counted", 10,
    )  # fmt: skip
    goes_on(good)


def test_noise_on_the_port_harms_nobody(logger: LoggerProcess, good: dlog.Source) -> None:
    host, _, port = logger.event_address.removeprefix("tcp://").rpartition(":")
    noise = random.Random(2)
    for length in (0, 1, 10, 64, 1000, 100_000):
        with socket.create_connection((host, int(port))) as plain:
            plain.settimeout(2)
            try:
                plain.sendall(noise.randbytes(length))
            except OSError:
                continue  # it was shown the door already
    goes_on(good)


def test_a_message_over_the_limit_is_not_gathered(logger: LoggerProcess, good: dlog.Source) -> None:
    resident = logger.resident_bytes()
    with RawSource(logger.event_address, "huge").open() as huge:
        huge.send(bytes(MESSAGE_BYTES_MAX + MIB))
        goes_on(good)
        assert logger.resident_bytes() < resident + 32 * MIB
        # The connection was closed by that; a new one is made, and the session goes on.
        huge.hello()
        huge.send_next(huge.batch(7, "a", GOOD))
        huge.acknowledged()
        huge.bye()


# --- the protocol's rules ----------------------------------------------------------------------


def test_a_gap_is_dropped_and_asked_for_again(
    logger: LoggerProcess, bad: RawSource, good: dlog.Source
) -> None:
    first = bad.batch(7, "a", [b"first"])
    second = bad.batch(
        7, "a", [b"second"], sequence=bad.sequence + 2, position=bad.position + len(first)
    )
    bad.heard.clear()
    bad.send(second)
    resend = bad.hear_until(lambda: bad.last(Resend), "RESEND")
    assert resend.next == bad.sequence + 1
    assert logger.source_status("bad").skipped["out-of-sequence"] >= 1
    bad.send_next(first)
    bad.send_next(second)
    bad.acknowledged()
    goes_on(good)


def test_a_duplicate_is_counted_and_not_stored(logger: LoggerProcess, bad: RawSource) -> None:
    before = logger.stream_status(7, "a").sources["bad"]
    message = bad.batch(7, "a", GOOD)
    bad.send_next(message)
    bad.send(message)
    bad.send(message)
    bad.acknowledged()

    def counted() -> bool:
        counts = logger.stream_status(7, "a").sources["bad"]
        return (counts.stored, counts.duplicate) == (before.stored + 2, before.duplicate + 4)

    until(counted, "two stored, four duplicates")


def test_a_batch_outside_the_window_is_dropped_and_told(
    logger: LoggerProcess, good: dlog.Source
) -> None:
    with RawSource(logger.event_address, "greedy").open() as greedy:
        assert greedy.ack is not None
        # One message, so that nothing is settled and granted anew before the limit is reached.
        events = greedy.ack.limit_bytes // MIB + 1
        greedy.send(greedy.batch(7, "a", [bytes(MIB)] * events))
        message = greedy.batch(7, "a", [bytes(MIB)])
        until(lambda: logger.source_status("greedy").skipped.get("window"), "it is counted")
        assert "window greedy" in logger.alarms()
        goes_on(good)
        greedy.acknowledged()
        greedy.send_next(message)
        greedy.acknowledged()
        greedy.bye()


def test_a_lie_about_the_position_is_dropped_and_told(logger: LoggerProcess) -> None:
    with RawSource(logger.event_address, "liar").open() as liar:
        for position in (2**63, 2**64 - 1, 100):
            liar.send(liar.batch(7, "a", GOOD, position=position))
        until(lambda: logger.source_status("liar").skipped.get("window") == 3, "counted")
        liar.send_next(liar.batch(7, "a", GOOD))
        liar.acknowledged()
        liar.bye()


def test_events_before_hello_are_refused(logger: LoggerProcess) -> None:
    with RawSource(logger.event_address, "rude") as rude:
        rude.send(rude.batch(7, "a", GOOD))
        refused = rude.hear_until(lambda: rude.last(Refused), "REFUSED")
        assert (refused.code, refused.retry) == ("unknown-session", True)
        assert rude.open().ack is not None
        rude.bye()


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        ({"lowest": 5, "position": 100}, "expired"),
        ({"name": "someone-else"}, "bad-name"),
        ({"name": "../x"}, "bad-name"),
        ({"lowest": 0}, "bad-name"),
        ({"position": -1}, "bad-name"),
    ],
)
def test_a_hello_that_cannot_be_is_refused(
    logger: LoggerProcess, hello: dict[str, Any], code: str
) -> None:
    with RawSource(logger.event_address, "wrong") as wrong:
        wrong.hello(**hello)
        refused = wrong.hear_until(lambda: wrong.last(Refused), "REFUSED")
        assert (refused.code, refused.retry) == (code, False)


def test_a_hello_above_what_is_committed_is_a_gap(logger: LoggerProcess) -> None:
    with RawSource(logger.event_address, "skipper").open() as skipper:
        skipper.send_next(skipper.batch(7, "a", GOOD))
        skipper.acknowledged()
        skipper.hello(lowest=3, position=2 * skipper.position)
        refused = skipper.hear_until(lambda: skipper.last(Refused), "REFUSED")
        assert (refused.code, refused.retry) == ("gap", False)
        assert "gap skipper" in logger.alarms()
        skipper.bye()


# --- names -------------------------------------------------------------------------------------


def test_a_second_source_of_a_name_waits_until_the_first_says_goodbye(
    logger: LoggerProcess,
) -> None:
    with dlog.Source(logger.data, name="twin", run=7) as first:
        goes_on(first)
        with dlog.Source(logger.data, name="twin", run=7) as second:
            second.send("a", b"from the second")
            until(lambda: "name-in-use" in second.report().waiting, "the second is told")
            assert "name-in-use twin" in logger.alarms()
            goes_on(first)
            assert second.acknowledged == 0
            first.close(LONG)
            second.flush(LONG)
            assert second.acknowledged == 1
    until(lambda: "name-in-use twin" not in logger.alarms(), "the alarm is cleared")


def test_a_name_is_free_again_when_its_source_is_silent_for_too_long(
    logger: LoggerProcess,
) -> None:
    with RawSource(logger.event_address, "ghost").open() as ghost:
        ghost.send_next(ghost.batch(7, "a", [b"from the first"]))
        ghost.acknowledged()
        with dlog.Source(logger.data, name="ghost", run=7) as second:
            second.send("a", b"from the second")
            second.flush(LONG)
            # The first one comes back: its session is closed for good.
            ghost.heard.clear()
            ghost.hello(lowest=2, position=ghost.position)
            refused = ghost.hear_until(lambda: ghost.last(Refused), "REFUSED")
            assert not refused.retry or refused.code == "name-in-use"
            goes_on(second)
        ghost.heard.clear()
        ghost.hello(lowest=2, position=ghost.position)
        refused = ghost.hear_until(lambda: ghost.last(Refused), "REFUSED")
        assert (refused.code, refused.retry) == ("closed", False)


# --- strangers ---------------------------------------------------------------------------------


def test_what_comes_outside_any_session_stands_in_the_status(logger: LoggerProcess) -> None:
    with RawSource(logger.event_address, "stranger") as stranger:
        stranger.send(b"no frame at all, and long enough")
        until(lambda: strangers(logger).get("magic"), "it is counted")


def strangers(logger: LoggerProcess) -> dict[str, int]:
    found = [c for c in logger.status().connections if c.kind == "source" and not c.name]
    return found[0].skipped if found else {}


def test_a_crowd_of_strangers_does_not_hide_other_alarms(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(7)
    address = logger.event_address
    with zmq.Context() as context, ExitStack() as crowd:
        for i in range(300):
            stranger = crowd.enter_context(dealer(context, address, b"stranger-%d" % i))
            stranger.send(b"no frame at all, and long enough")
        until(lambda: strangers(logger).get("magic") == 300, "all are counted")
        with RawSource(logger.event_address, "known").open() as known:
            known.send(b"no frame at all, and long enough")
            until(lambda: "malformed known" in logger.alarms(), "its alarm is seen")


def dealer(
    context: zmq.Context[zmq.Socket[bytes]], address: str, routing_id: bytes
) -> zmq.Socket[bytes]:
    made = context.socket(zmq.DEALER)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.ROUTING_ID, routing_id)
    made.connect(address)
    return made


def test_sources_that_are_gone_do_not_keep_new_ones_out(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(7)
    address = logger.event_address
    with zmq.Context() as context:
        for i in range(260):
            name, session = f"gone-{i}", os.urandom(16)
            with dealer(context, address, name.encode() + b"/" + session) as gone:
                gone.send(hello_message(name, session))
                assert gone.poll(int(LONG * 1000)), name
    with dlog.Source(logger.data, name="new", run=7) as new:
        new.send("a", b"there is room for me")
        new.flush(LONG)
