"""Rules between source and logger, each left out: admission, HELLO, sessions, acknowledgements."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import msgspec

from dlog.core.admission import Admission, SessionState
from dlog.core.batch import decode_batch
from dlog.core.frame import MessageKind
from dlog.core.source_batches import SourceBatches
from dlog.faults.simulation.network import SimulatedNetwork
from dlog.faults.simulation.port_wrappers import PortWrappers
from dlog.services.sessions import Session, Sessions
from tests.faults.mutation import (
    CALM,
    CRASHES,
    CRASHES_AND_DISK,
    CRASHES_AND_NETWORK,
    DISK,
    NETWORK,
    Mutation,
    replaced,
)
from tests.faults.wrappers import (
    Around,
    acknowledgement_in,
    acknowledgements,
    kind_of,
    message_of,
)

# --- admission and HELLO: decisions of dlog.core -------------------------------------------------


def _a_gap_is_admitted(judge: Any) -> Any:
    def lenient(self: SessionState, batch: Any, memory_bytes: int) -> Any:
        verdict = judge(self, batch, memory_bytes)
        if verdict[0] is Admission.GAP:
            self.admitted, self.position = batch.sequence - 1, batch.position_bytes
            return Admission.ADMIT, ""
        return verdict

    return lenient


def _duplicates_are_judged_by_what_is_committed(judge: Any) -> Any:
    def late(self: SessionState, batch: Any, memory_bytes: int) -> Any:
        if self.acknowledged < batch.sequence <= self.high and batch.sequence == self.admitted + 1:
            self.marks.clear()
            return Admission.ADMIT, ""
        return judge(self, batch, memory_bytes)

    return late


def _hello_names_what_comes_next(_: Any) -> Any:
    return lambda self: (self.last + 1, self.end_bytes)


# --- messages ------------------------------------------------------------------------------------


class _OneHello(Around):
    """A source says HELLO once."""

    def __init__(self, inside: SimulatedNetwork) -> None:
        super().__init__(inside)
        self._greeted: set[bytes] = set()

    def send_to_logger(self, peer: bytes, message: bytes) -> None:
        if kind_of(message) == MessageKind.HELLO:
            if peer in self._greeted:
                return
            self._greeted.add(peer)
        self.inside.send_to_logger(peer, message)


class _NoPlaceholders(Around):
    """A source passes over what is settled."""

    def send_to_logger(self, peer: bytes, message: bytes) -> None:
        is_batch = kind_of(message) == MessageKind.EVENTS
        if not is_batch or not decode_batch(memoryview(message)).settled:
            self.inside.send_to_logger(peer, message)


class _RelativeWindow(Around):
    """An acknowledgement tells what is granted beyond the one before, but for the first one behind
    a HELLO; the source adds it up."""

    def __init__(self, inside: SimulatedNetwork) -> None:
        super().__init__(inside)
        self._granted: dict[bytes, int] = {}
        self._sum: dict[bytes, int] = {}

    def send_to_source(self, peer: bytes, message: bytes) -> bool:
        if kind_of(message) == MessageKind.WELCOME:
            self._granted[peer] = 0
        elif kind_of(message) == MessageKind.ACKNOWLEDGEMENT:
            ack = acknowledgement_in(message)
            more = ack.limit_bytes - self._granted.get(peer, 0)
            self._granted[peer] = ack.limit_bytes
            message = message_of(msgspec.structs.replace(ack, limit_bytes=more))
        return self.inside.send_to_source(peer, message)

    def receive_at_source(self, peer: bytes) -> list[bytes]:
        return [self._added_up(peer, come) for come in self.inside.receive_at_source(peer)]

    def _added_up(self, peer: bytes, message: bytes) -> bytes:
        if kind_of(message) == MessageKind.WELCOME:
            self._sum[peer] = 0
        elif kind_of(message) == MessageKind.ACKNOWLEDGEMENT:
            ack = acknowledgement_in(message)
            self._sum[peer] = self._sum.get(peer, 0) + ack.limit_bytes
            return message_of(msgspec.structs.replace(ack, limit_bytes=self._sum[peer]))
        return message


class _ToldOnlyWithNews(Around):
    def __init__(self, inside: Any) -> None:
        super().__init__(inside)
        self._told: dict[bytes, bytes] = {}

    def send(self, peer: bytes, message: bytes) -> bool:
        if kind_of(message) == MessageKind.WELCOME:
            self._told.pop(peer, None)
        elif kind_of(message) == MessageKind.ACKNOWLEDGEMENT:
            if self._told.get(peer) == message:
                return True
            self._told[peer] = message
        return self.inside.send(peer, message)


MUTATIONS = [
    Mutation(
        "a-gap-is-admitted", "only the last admitted + 1 is admitted", NETWORK, 20,
        replaced(SessionState, "judge", _a_gap_is_admitted),
    ),
    Mutation(
        "duplicates-by-what-is-committed", "duplicates are judged against the highest admitted",
        NETWORK, 30,
        replaced(SessionState, "judge", _duplicates_are_judged_by_what_is_committed),
    ),
    # Who takes a piece is chosen between the event server and the streams, before any port.
    Mutation(
        "another-taker-at-once", "a piece goes to another taker only behind all before it",
        CRASHES, 30, lambda: patch.object(Session, "may_go_to", lambda self, mark, taker: True),
    ),
    Mutation(
        "hello-from-the-next", "HELLO names the lowest unacknowledged batch", CRASHES, 20,
        replaced(SourceBatches, "lowest", _hello_names_what_comes_next),
    ),
    Mutation(
        "hello-above-is-accepted", "a HELLO above the acknowledgement + 1 is refused", NETWORK, 20,
        lambda: patch.object(SessionState, "accepts", lambda self, hello: True),
    ),
    Mutation(
        "hello-not-said-again", "silence and another boot make the source say HELLO again", CRASHES,
        20, PortWrappers(network=_OneHello),
    ),
    Mutation(
        "no-placeholders", "what is settled is sent again as an empty batch in its place",
        CRASHES_AND_DISK, 20, PortWrappers(network=_NoPlaceholders),
    ),
    # Who has a name, now and after a restart, the event server alone knows.
    Mutation(
        "name-not-looked-at", "a second live session of a name is refused", NETWORK, 20,
        lambda: patch.object(Sessions, "named", lambda self, name: None),
    ),
    Mutation(
        "name-given-away-at-restart", "and after a restart until its heartbeats are missed",
        CRASHES_AND_NETWORK, 20,
        lambda: patch.object(Session, "may_come_back", lambda self, now_ns: False),
    ),
    Mutation(
        "told-only-with-news", "the acknowledgement is repeated with each heartbeat", CALM, 20,
        PortWrappers(event_link=_ToldOnlyWithNews),
    ),
    Mutation(
        "window-is-relative", "acknowledgement and window are absolute", NETWORK, 40,
        PortWrappers(network=_RelativeWindow),
    ),
    Mutation(
        "selective-not-told", "a stalled stream does not hold back durable batches of others", DISK,
        20, acknowledgements(selective=[]),
    ),
]  # fmt: skip
