"""A source made by hand on a raw ZeroMQ socket: it may say anything, in any order."""

from __future__ import annotations

import os
import socket as sockets
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final

import msgspec
import numpy as np
import zmq

from dlog.core.batch import Batch, encode_batch
from dlog.core.frame import MessageKind, check_frame, control_body, encode_control
from dlog.model.events import EVENT_DTYPE
from dlog.model.ids import Sequence as SequenceNumber
from dlog.model.ids import SessionId, StreamName
from dlog.model.messages import (
    Acknowledgement,
    Bye,
    EndOfRun,
    Heartbeat,
    Hello,
    Refused,
    Resend,
    Welcome,
    decode_body,
    encode_body,
)
from tests.waiting import until

_BODIES: Final[dict[int, type[msgspec.Struct]]] = {
    MessageKind.WELCOME: Welcome,
    MessageKind.ACKNOWLEDGEMENT: Acknowledgement,
    MessageKind.RESEND: Resend,
    MessageKind.REFUSED: Refused,
}


def hello_message(name: str, session: bytes, lowest: int = 1, position: int = 0) -> bytes:
    hello = Hello(
        session=session,
        name=name,
        host=sockets.gethostname(),
        process=os.getpid(),
        lowest=lowest,
        position_bytes=position,
    )
    return encode_control(MessageKind.HELLO, encode_body(hello))


class RawSource:
    """Knows the session's next sequence number and position; sends nothing by itself."""

    def __init__(self, address: str, name: str, *, session: bytes | None = None) -> None:
        self.name = name
        self.session = SessionId(session or os.urandom(16))
        self.sequence = 0
        self.position = 0
        self.welcome: Welcome | None = None
        self.ack: Acknowledgement | None = None
        self.heard: list[msgspec.Struct] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.ROUTING_ID, name.encode() + b"/" + self.session)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(address)

    def __enter__(self) -> RawSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close(0)
        self._context.term()

    # --- out

    def send(self, message: bytes | bytearray) -> None:
        self.socket.send(bytes(message))

    def say(self, kind: int, body: msgspec.Struct) -> None:
        self.send(encode_control(MessageKind(kind), encode_body(body)))

    def hello(self, *, lowest: int = 1, position: int = 0, name: str = "") -> None:
        self.send(hello_message(name or self.name, self.session, lowest, position))

    def heartbeat(self, sent: int | None = None) -> None:
        said = self.sequence if sent is None else sent
        self.say(MessageKind.HEARTBEAT, Heartbeat(session=self.session, sent=said))

    def end_of_run(self, run: int, last: int) -> None:
        self.say(MessageKind.END_OF_RUN, EndOfRun(session=self.session, run=run, last=last))

    def bye(self) -> None:
        self.say(MessageKind.BYE, Bye(session=self.session))

    def batch(
        self,
        run: int,
        stream: str,
        payloads: Sequence[bytes],
        *,
        first: int = 0,
        sequence: int | None = None,
        position: int | None = None,
        session: bytes | None = None,
    ) -> bytearray:
        """The session's next batch, or another one; it is not sent."""
        table = np.zeros(len(payloads), EVENT_DTYPE)
        table["number"] = np.arange(first, first + len(payloads))
        table["run"], table["streams"] = run, 1
        table["size"] = [len(payload) for payload in payloads]
        table["order"] = np.arange(len(payloads))
        n = self.sequence + 1 if sequence is None else sequence
        return encode_batch(
            Batch(
                SessionId(session or self.session), SequenceNumber(n),
                self.position if position is None else position, n * 1000, (StreamName(stream),),
                table, np.frombuffer(b"".join(payloads), np.uint8), 0,
            )
        )  # fmt: skip

    def send_next(self, message: bytearray) -> None:
        """Send what `batch` made, and count it as sent."""
        self.sequence += 1
        self.position += len(message)
        self.send(message)

    # --- in

    def hear(self, seconds: float = 0.0) -> msgspec.Struct | None:
        """The next message; the last WELCOME and acknowledgement are remembered."""
        if not self.socket.poll(int(seconds * 1000), zmq.POLLIN):
            return None
        message = memoryview(self.socket.recv())
        kind = check_frame(message, len(message))
        if kind not in _BODIES:
            return None
        said = decode_body(control_body(message), _BODIES[kind])
        if isinstance(said, Welcome):
            self.welcome = said
        elif isinstance(said, Acknowledgement):
            self.ack = said
        self.heard.append(said)
        return said

    def hear_until(self, holds: Callable[[], Any], what: str) -> Any:
        """Listen, with a heartbeat now and then, until `holds()`."""
        beat = time.monotonic() + 0.4

        def heard() -> Any:
            nonlocal beat
            if result := holds():
                return result
            self.hear(0.05)
            if time.monotonic() >= beat and self.welcome is not None:
                beat = time.monotonic() + 0.4
                self.heartbeat()
            return None

        return until(heard, f"{self.name} hears: {what}", every=0.0)

    def last(self, kind: type[msgspec.Struct]) -> Any:
        return next((said for said in reversed(self.heard) if isinstance(said, kind)), None)

    def open(self) -> RawSource:
        """HELLO, WELCOME, and credit to send."""
        self.hello()
        self.hear_until(lambda: self.ack is not None and self.ack.limit_bytes, "credit")
        return self

    def acknowledged(self, sequence: int | None = None) -> None:
        """Wait until everything (or so much) is acknowledged."""
        wanted = self.sequence if sequence is None else sequence
        self.hear_until(
            lambda: self.ack is not None and self.ack.acknowledged >= wanted,
            f"acknowledgement of batch {wanted}",
        )
