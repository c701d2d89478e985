"""Simulated sources and their COOR: the pure protocol machine of the real source on the simulated
network, and a COOR that repeats a command until it is answered.

They keep what was sent and what the logger said to it; they judge nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from dlog.core.batch import decode_batch
from dlog.core.frame import MessageKind, check_frame, control_body, encode_control
from dlog.core.packer import Packing, StreamSet
from dlog.core.source_session import SourceSession
from dlog.errors import RunEnded
from dlog.faults.simulation.clock import SimulatedClock
from dlog.faults.simulation.network import SimulatedCoorLink, SimulatedNetwork
from dlog.limits import KIB, MESSAGE_BYTES_MAX, MIB
from dlog.model.ids import EventNumber, RunNumber, SessionId, StreamName
from dlog.model.messages import (
    Acknowledgement,
    Answer,
    Bye,
    Command,
    Hello,
    Refused,
    decode_body,
    encode_body,
    encode_json,
)

SENT_AT_ONCE_MAX: Final = 32
WILD: Final = 2**40  # no event of a random history has such a number, but for a wild one
COMMAND_PATIENCE_NS: Final = 1_000_000_000


class PieceKey(NamedTuple):
    """A batch's events for one stream of one run."""

    session: SessionId
    sequence: int
    run: RunNumber
    stream: StreamName


class SentEvent(NamedTuple):
    """An event as it was sent. position: its place in the session's sending order."""

    position: int
    number: int
    payload: bytes


@dataclass(slots=True)
class Told:
    """The best that the logger ever told a session, whether it arrived or not."""

    acknowledged: int = 0
    selective: set[int] = field(default_factory=set)
    refused: dict[tuple[int, int, str], str] = field(default_factory=dict)  # sequence, run, stream
    # Of several batches together, by run and stream: some of theirs were refused.
    together: dict[tuple[int, str], list[tuple[int, int]]] = field(default_factory=dict)

    def learn(self, ack: Acknowledgement) -> None:
        self.acknowledged = max(self.acknowledged, ack.acknowledged)
        for first, last in ack.selective:
            self.selective.update(range(first, last + 1))
        for refusal in ack.refusals:
            if refusal.first == refusal.last:
                self.refused[refusal.first, refusal.run, refusal.stream] = refusal.reason
            else:
                ranges = self.together.setdefault((refusal.run, refusal.stream), [])
                if (refusal.first, refusal.last) not in ranges:
                    ranges.append((refusal.first, refusal.last))

    def perhaps_refused(self, sequence: int, run: int, stream: str) -> bool:
        return (sequence, run, stream) in self.refused or any(
            first <= sequence <= last for first, last in self.together.get((run, stream), [])
        )

    def settled(self, sequence: int) -> bool:
        return sequence <= self.acknowledged or sequence in self.selective


class History:
    """What went over the event link, as far as the contract speaks of it."""

    def __init__(self) -> None:
        self.sent: dict[PieceKey, tuple[SentEvent, ...]] = {}
        self.told: dict[SessionId, Told] = {}
        self.names: dict[SessionId, str] = {}
        self.goodbyes: set[SessionId] = set()
        # Sessions of sources that are gone for good: what of theirs is not stored, nobody has.
        self.given_up: set[SessionId] = set()

    def message_to_logger(self, message: bytes) -> None:
        """A message of a source; batches are remembered, with what is in them."""
        if check_frame(memoryview(message), MESSAGE_BYTES_MAX) != MessageKind.EVENTS:
            return
        batch = decode_batch(memoryview(message))
        if batch.settled:
            return
        ends = np.cumsum(batch.table["size"], dtype=np.int64)
        pieces: dict[PieceKey, list[SentEvent]] = {}
        for row, end in zip(batch.table, ends.tolist(), strict=True):
            event = SentEvent(
                batch.order_base + int(row["order"]),
                int(row["number"]),
                batch.payload[end - int(row["size"]) : end].tobytes(),
            )
            for bit, stream in enumerate(batch.streams):
                if int(row["streams"]) >> bit & 1:
                    run = RunNumber(int(row["run"]))
                    key = PieceKey(batch.session, batch.sequence, run, stream)
                    pieces.setdefault(key, []).append(event)
        for key, events in pieces.items():
            before = self.sent.setdefault(key, tuple(events))
            if before != tuple(events):
                raise AssertionError(f"{key} was sent again with another content")

    def message_to_source(self, message: bytes) -> None:
        """A message of the logger; acknowledgements are remembered."""
        view = memoryview(message)
        if check_frame(view, MESSAGE_BYTES_MAX) == MessageKind.ACKNOWLEDGEMENT:
            ack = decode_body(control_body(view), Acknowledgement)
            self.told.setdefault(SessionId(ack.session), Told()).learn(ack)


class SimulatedSource:
    """A Collector/Router. `step` is its thread."""

    def __init__(
        self,
        name: str,
        session: SessionId,
        network: SimulatedNetwork,
        clock: SimulatedClock,
        history: History,
        *,
        batch_events: int = 4,
        queue_bytes: int = 4 * MIB,
    ) -> None:
        self.name = name
        self.session = session
        self.peer = name.encode() + b"/" + session
        self._network = network
        self._clock = clock
        self._history = history
        self.machine = SourceSession(
            session,
            name=name,
            host="simulated",
            process=1,
            queue_bytes=queue_bytes,
            packing=Packing(batch_bytes=64 * KIB, batch_events=batch_events, linger_ns=5_000_000),
            now_ns=clock.monotonic_ns(),
        )
        self.silent = False  # a source that hangs, or a broken network
        self.deaf = False  # what it sends arrives, what it is told does not
        network.connect(self.peer)
        history.names[session] = name

    def send(self, run: int, streams: StreamSet, number: int, payload: bytes) -> bool:
        """Take an event to be sent; False where the queue is full or the run takes none."""
        if not self.machine.has_room(RunNumber(run), len(payload) + 32):
            return False
        try:
            self.machine.add(
                RunNumber(run),
                streams,
                EventNumber(number),
                self._clock.wall_ns(),
                payload,
                self._clock.monotonic_ns(),
            )
        except RunEnded:
            return False
        return True

    def step(self) -> None:
        """Take what has come, send what may be sent."""
        if self.silent:
            return
        now = self._clock.monotonic_ns()
        come = self._network.receive_at_source(self.peer)
        for message in () if self.deaf else come:
            self.machine.receive(message, now)
        for _ in range(SENT_AT_ONCE_MAX):
            out = self.machine.next_message(now)
            if out is None:
                break
            # A copy: the machine keeps its batches, and the network may deliver later.
            message = bytes(out)
            self._history.message_to_logger(message)
            self._network.send_to_logger(self.peer, message)

    def lost(self) -> None:
        """It sees that its connection is gone."""
        self.machine.lost(self._clock.monotonic_ns())

    def hear_again(self) -> None:
        """It does not hang any more."""
        self.silent = self.deaf = False

    def close(self) -> None:
        self.machine.close()
        self._history.goodbyes.add(self.session)

    @property
    def idle(self) -> bool:
        """Everything that was taken is settled (or is over, or the session is refused)."""
        return self.machine.idle


class SimulatedLiar:
    """A peer that says HELLO as it likes, and keeps what it hears. It sends no events.

    welcomed: WELCOME came. refused: the code of the last REFUSED. expected: the batch that the
    logger said it waits for.
    """

    def __init__(self, name: str, session: SessionId, network: SimulatedNetwork) -> None:
        self.name = name
        self.welcomed = False
        self.refused = ""
        self.expected = 0
        self._session = session
        self._peer = name.encode() + b"/" + session
        self._network = network
        network.connect(self._peer)

    def hello(self, lowest: int) -> None:
        self.refused = ""
        body = Hello(
            session=self._session, name=self.name, host="simulated", process=1, lowest=lowest,
            position_bytes=1000 * (lowest - 1),
        )  # fmt: skip
        self._send(MessageKind.HELLO, body)

    def bye(self) -> None:
        self._send(MessageKind.BYE, Bye(session=self._session))

    def _send(self, kind: MessageKind, body: msgspec.Struct) -> None:
        self._network.send_to_logger(self._peer, encode_control(kind, encode_body(body)))

    def hear(self) -> None:
        for come in self._network.receive_at_source(self._peer):
            message = memoryview(come)
            match check_frame(message, MESSAGE_BYTES_MAX):
                case MessageKind.WELCOME:
                    self.welcomed = True
                case MessageKind.REFUSED:
                    self.refused = decode_body(control_body(message), Refused).code
                case MessageKind.ACKNOWLEDGEMENT:
                    self.expected = decode_body(control_body(message), Acknowledgement).next


class SimulatedCoor:
    """Gives commands, and repeats each with the same id until it is answered."""

    PEER: Final = b"coor"

    def __init__(self, session: bytes, clock: SimulatedClock) -> None:
        self._session = session
        self._clock = clock
        self._number = 0
        self._open: dict[int, tuple[bytes, int]] = {}
        self._texts: list[bytes] = []
        self.answers: dict[int, Answer] = {}

    def give(self, command: str, parameters: dict[str, Any]) -> int:
        """The number of the command; its answer will be in `answers`."""
        self._number += 1
        text = encode_json(
            Command(
                session=self._session.hex(),
                number=self._number,
                command=command,
                parameters=parameters,
            )
        )
        self._texts.append(text)
        self._open[self._number] = (text, 0)
        return self._number

    def text_of(self, number: int) -> bytes:
        """A command as it was given."""
        return self._texts[number - 1]

    def step(self, link: SimulatedCoorLink) -> None:
        """Take the answers, give what is not answered (again)."""
        while link.answers:
            _, text = link.answers.popleft()
            self._answered(msgspec.json.decode(text, type=Answer))
        now = self._clock.monotonic_ns()
        for number, (text, again_ns) in list(self._open.items()):
            if now >= again_ns:
                self._open[number] = (text, now + COMMAND_PATIENCE_NS)
                link.commands.append((self.PEER, text))

    def logger_started(self) -> None:
        """What is not answered is given at once again."""
        self._open = {number: (text, 0) for number, (text, _) in self._open.items()}

    def _answered(self, answer: Answer) -> None:
        before = self.answers.get(answer.number)
        plain = msgspec.structs.replace(answer, repeated=False)
        if before is not None and before != plain:
            raise AssertionError(f"command {answer.number}: answered {before}, then {plain}")
        self.answers[answer.number] = plain
        self._open.pop(answer.number, None)
