"""Rules between source and logger, each left out: admission, HELLO, sessions, acknowledgements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from dlog.core.admission import Admission, SessionState
from dlog.core.frame import MessageKind
from dlog.core.source_batches import SourceBatches
from dlog.core.source_session import Happening, SourceSession
from dlog.services.committer import _Ledger
from dlog.services.event_server import EventServer
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

# --- admission -----------------------------------------------------------------------------------


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


# --- HELLO ---------------------------------------------------------------------------------------


def _hello_names_what_comes_next(_: Any) -> Any:
    return lambda self: (self.last + 1, self.end_bytes)


def _silence_means_nothing(step: Any) -> Any:
    def stubborn(self: SourceSession, happening: Happening) -> None:
        if happening not in (Happening.SILENCE, Happening.REFUSED_FOR_NOW):
            step(self, happening)

    return stubborn


def _placeholders_are_left_out(_: Any) -> Any:
    def at_cursor(self: SourceBatches) -> Any:
        while (batch := self._numbered.get(self.cursor)) and batch.content is None:
            self.cursor += 1
        return batch

    return at_cursor


# --- acknowledgements ----------------------------------------------------------------------------


def _told_only_with_news(tick: Any) -> Any:
    def quiet(self: EventServer) -> None:
        with patch.object(self, "_acknowledge", lambda session: None):
            tick(self)

    return quiet


@contextmanager
def _the_window_is_relative() -> Iterator[None]:
    """An acknowledgement tells what is granted beyond the one before, but for the first one behind
    a HELLO; the source adds it up."""
    true_send, true_take = EventServer._send, SourceSession._on_acknowledgement

    def send(self: EventServer, session: Session, kind: MessageKind, message: Any) -> None:
        told: dict[Any, int] = self.__dict__.setdefault("told", {})
        if kind is MessageKind.WELCOME:
            told.pop(session.id, None)
        elif kind is MessageKind.ACKNOWLEDGEMENT:
            before, told[session.id] = told.get(session.id, 0), message.limit_bytes
            more = message.limit_bytes - before
            message = msgspec.structs.replace(message, limit_bytes=more)
        true_send(self, session, kind, message)

    def take(self: SourceSession, ack: Any, now_ns: int) -> None:
        before = self._limit_bytes if self.told else 0
        more = ack.limit_bytes + before
        true_take(self, msgspec.structs.replace(ack, limit_bytes=more), now_ns)

    with (
        patch.object(EventServer, "_send", send),
        patch.object(SourceSession, "_on_acknowledgement", take),
    ):
        yield


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
        20, replaced(SourceSession, "_step", _silence_means_nothing),
    ),
    Mutation(
        "no-placeholders", "what is settled is sent again as an empty batch in its place",
        CRASHES_AND_DISK, 20, replaced(SourceBatches, "at_cursor", _placeholders_are_left_out),
    ),
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
        replaced(EventServer, "_tick", _told_only_with_news),
    ),
    Mutation(
        "window-is-relative", "acknowledgement and window are absolute", NETWORK, 40,
        _the_window_is_relative,
    ),
    Mutation(
        "selective-not-told", "a stalled stream does not hold back durable batches of others", DISK,
        20, lambda: patch.object(_Ledger, "selective", lambda self: ()),
    ),
]  # fmt: skip
