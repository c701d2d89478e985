"""The source's session, rule by rule: what it says to what it hears, and what it never does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from dlog.core.batch import Batch, decode_batch
from dlog.core.frame import MessageKind, check_frame, control_body, encode_control
from dlog.core.packer import Packing
from dlog.core.source_batches import Progress
from dlog.core.source_runs import RunsTold
from dlog.core.source_session import PHASES, Happening, Phase, SourceSession
from dlog.errors import RunEnded, SourceError, SourceRefused, TransitionRefused
from dlog.limits import HEARTBEATS_MISSED_MAX, MESSAGE_BYTES_MAX, WATERMARKS_PER_SESSION_MAX
from dlog.model.ids import EventNumber, RunNumber, SessionId, StreamName
from dlog.model.messages import (
    Acknowledgement,
    Bye,
    ByeDone,
    EndOfRun,
    Heartbeat,
    Hello,
    Refused,
    RefusedRange,
    Resend,
    Welcome,
    decode_body,
    encode_body,
)
from tests.logger_model import pieces_of

SESSION = SessionId(b"0123456789abcdef")
MS = 1_000_000
HEARTBEAT_MS = 100
A, B = StreamName("a"), StreamName("b")
BODIES: dict[int, type[msgspec.Struct]] = {
    MessageKind.HELLO: Hello, MessageKind.HEARTBEAT: Heartbeat, MessageKind.END_OF_RUN: EndOfRun,
    MessageKind.BYE: Bye,
}  # fmt: skip
PLENTY = 10**9


class Rig:
    """A session, and a hand that plays the logger."""

    def __init__(self, **options: Any) -> None:
        self.now_ns = 10**12
        self.boot = 5
        packing = {"batch_bytes": 4096, "batch_events": 2, "linger_ns": 0}
        if options.get("replayed") is not None:
            packing["linger_ns"] = None  # type: ignore[assignment]
        self.session = SourceSession(
            SESSION,
            **{
                "name": "s", "host": "h", "process": 1, "queue_bytes": 100_000,
                "packing": Packing(**packing),  # type: ignore[arg-type]
                "now_ns": self.now_ns, **options,
            },
        )  # fmt: skip

    # --- what it says

    def says(self) -> list[Batch | msgspec.Struct]:
        """All that it has to say now."""
        said: list[Batch | msgspec.Struct] = []
        while (message := self.session.next_message(self.now_ns)) is not None:
            view = memoryview(bytes(message))
            kind = check_frame(view, MESSAGE_BYTES_MAX)
            if kind == MessageKind.EVENTS:
                said.append(decode_batch(view))
            else:
                said.append(decode_body(control_body(view), BODIES[kind]))
            assert len(said) < 1000, "it does not stop talking"
        return said

    def batches(self) -> list[int]:
        return [said.sequence for said in self.says() if isinstance(said, Batch)]

    def said(self, kind: type[msgspec.Struct]) -> list[Any]:
        return [said for said in self.says() if isinstance(said, kind)]

    # --- what it hears

    def hears(self, kind: MessageKind, body: msgspec.Struct) -> None:
        self.session.receive(encode_control(kind, encode_body(body)), self.now_ns)

    def welcome(self, **changes: Any) -> None:
        body: dict[str, Any] = {
            "session": SESSION, "boot": self.boot, "logger": "l", "logger_uuid": b"u" * 16,
            "heartbeat_ms": HEARTBEAT_MS, "message_bytes_max": MESSAGE_BYTES_MAX,
            "event_bytes_max": MESSAGE_BYTES_MAX, **changes,
        }  # fmt: skip
        self.hears(MessageKind.WELCOME, Welcome(**body))

    def ack(self, acknowledged: int = 0, next: int | None = None, **changes: Any) -> None:
        body: dict[str, Any] = {
            "session": SESSION, "boot": self.boot, "acknowledged": acknowledged,
            "limit_bytes": PLENTY, "next": acknowledged + 1 if next is None else next,
            "active": [7], **changes,
        }  # fmt: skip
        self.hears(MessageKind.ACKNOWLEDGEMENT, Acknowledgement(**body))

    def refuse(self, code: str, *, retry: bool, uuid: bytes = b"u" * 16) -> None:
        refused = Refused(
            session=SESSION, boot=self.boot, logger="l", logger_uuid=uuid, code=code, detail="why",
            retry=retry,
        )  # fmt: skip
        self.hears(MessageKind.REFUSED, refused)

    def resend(self, next: int, boot: int | None = None) -> None:
        boot = self.boot if boot is None else boot
        self.hears(MessageKind.RESEND, Resend(session=SESSION, boot=boot, next=next, why=""))

    # --- what happens

    def open(self, **ack: Any) -> Rig:
        assert isinstance(self.says()[0], Hello)
        self.welcome()
        self.ack(**ack)
        self.says()
        return self

    def send(self, events: int = 2, run: int = 7, stream: StreamName = A, size: int = 10) -> None:
        """Events that make a batch for each two."""
        for _ in range(events):
            number = EventNumber(self.session.packer.events)
            self.session.add(RunNumber(run), (stream,), number, 0, bytes(size), self.now_ns)

    def wait(self, ms: int) -> None:
        self.now_ns += ms * MS


def test_it_opens_with_hello_and_repeats_it_until_it_is_answered() -> None:
    rig = Rig()
    (hello,) = rig.says()
    assert hello == Hello(
        session=SESSION, name="s", host="h", process=1, lowest=1, position_bytes=0
    )
    assert rig.says() == []
    rig.wait(500)
    assert rig.says() == [hello]


def test_nothing_is_sent_before_the_first_acknowledgement() -> None:
    rig = Rig()
    rig.send()
    rig.says()
    rig.welcome()
    assert rig.batches() == []
    rig.ack()
    assert rig.batches() == [1]


def test_batches_are_numbered_from_one_with_their_positions() -> None:
    rig = Rig().open()
    rig.send(4)
    first, second = (said for said in rig.says() if isinstance(said, Batch))
    assert (first.sequence, first.position_bytes) == (1, 0)
    assert (second.sequence, second.position_bytes) == (2, first.message_bytes)


def test_an_acknowledgement_frees_memory() -> None:
    rig = Rig().open()
    rig.send(4)
    rig.says()
    queued = rig.session.batches.queued_bytes
    rig.ack(1)
    assert rig.session.batches.queued_bytes == queued // 2
    assert not rig.session.idle
    rig.ack(2)
    assert rig.session.idle
    assert rig.session.batches.queued_bytes == 0


def test_a_batch_beyond_the_limit_waits_and_says_how_long_it_is() -> None:
    rig = Rig().open(limit_bytes=500)
    rig.send(4, size=200)
    said = rig.says()
    assert [type(s) for s in said] == [Heartbeat]
    (waiting,) = said
    assert waiting.wanted_bytes == 128 + 32 + 2 * (32 + 200)
    rig.ack(limit_bytes=waiting.wanted_bytes)
    assert rig.batches() == [1]


def test_a_held_run_keeps_its_events_and_other_runs_go_on() -> None:
    rig = Rig().open(active=[8], held=[7])
    rig.send(2, run=7)
    rig.send(2, run=8)
    batches = [said for said in rig.says() if isinstance(said, Batch)]
    assert [int(batch.table["run"][0]) for batch in batches] == [8]
    # Numbered when it is sent, so that no number is missing while it waits.
    assert [batch.sequence for batch in batches] == [1]
    rig.ack(1, active=[7, 8])
    assert rig.batches() == [2]


def test_a_held_run_leaves_half_of_the_queue_to_the_others() -> None:
    rig = Rig(queue_bytes=8000).open(active=[8], held=[7])
    while rig.session.has_room(RunNumber(7), 132):
        rig.send(1, run=7, size=100)
    assert rig.session.batches.queued_bytes <= 4000
    assert rig.session.has_room(RunNumber(8), 132)


def test_something_larger_than_the_queue_is_taken_when_it_is_empty() -> None:
    rig = Rig(queue_bytes=8000)
    assert rig.session.has_room(RunNumber(7), 9000)
    rig.send(1)
    assert not rig.session.has_room(RunNumber(7), 9000)


# --- loss and restart -------------------------------------------------------------------------


def test_after_a_restart_of_the_logger_it_says_hello_and_sends_again() -> None:
    rig = Rig().open()
    rig.send(6)
    messages = [said for said in rig.says() if isinstance(said, Batch)]
    rig.ack(1, next=4)
    rig.boot += 1
    rig.ack(1)
    (hello,) = rig.said(Hello)
    assert (hello.lowest, hello.position_bytes) == (2, messages[1].position_bytes)
    rig.welcome()
    rig.ack(1)
    again = [said for said in rig.says() if isinstance(said, Batch)]
    assert [b.sequence for b in again] == [2, 3]
    assert [b.position_bytes for b in again] == [m.position_bytes for m in messages[1:]]


def test_what_this_boot_has_admitted_is_not_sent_again() -> None:
    rig = Rig().open()
    rig.send(6)
    rig.says()
    rig.session.lost(rig.now_ns)
    rig.says()
    rig.welcome()
    rig.ack(0, next=3)
    assert rig.batches() == [3]


def test_a_silent_logger_is_greeted_again() -> None:
    rig = Rig().open()
    for _ in range(HEARTBEATS_MISSED_MAX - 1):
        rig.wait(HEARTBEAT_MS)
        assert [type(said) for said in rig.says()] == [Heartbeat]
    rig.wait(HEARTBEAT_MS)
    assert [type(said) for said in rig.says()] == [Hello]
    assert rig.session.reconnects == 1


def test_an_old_boot_says_nothing() -> None:
    rig = Rig().open()
    rig.send(2)
    rig.says()
    rig.boot -= 1
    rig.ack(1)
    rig.resend(1)
    assert rig.session.batches.acknowledged == 0
    assert rig.says() == []


def test_resend_goes_back_and_only_once_for_what_was_under_way() -> None:
    rig = Rig().open()
    rig.send(8)
    assert rig.batches() == [1, 2, 3, 4]
    rig.resend(2)
    assert rig.batches() == [2, 3, 4]
    rig.resend(2)
    assert rig.batches() == []
    rig.wait(HEARTBEAT_MS)
    rig.resend(2)
    assert rig.batches() == [2, 3, 4]
    assert rig.session.batches_resent == 6


def test_a_resend_of_what_is_acknowledged_or_not_sent_is_ignored() -> None:
    rig = Rig().open()
    rig.send(4)
    rig.says()
    rig.ack(1, next=3)
    rig.resend(1)
    rig.resend(3)
    rig.resend(9)
    assert rig.batches() == []


def test_it_sends_again_by_itself_when_the_logger_does_not_get_on() -> None:
    rig = Rig().open()
    rig.send(4)
    assert rig.batches() == [1, 2]
    for _ in range(5):
        rig.wait(HEARTBEAT_MS)
        rig.ack(0)
        assert rig.batches() == []
    rig.wait(HEARTBEAT_MS)
    rig.ack(0)
    assert rig.batches() == [1, 2]


def test_the_heartbeat_says_what_was_sent() -> None:
    rig = Rig().open()
    rig.send(4)
    rig.says()
    rig.wait(HEARTBEAT_MS)
    (heartbeat,) = rig.said(Heartbeat)
    assert heartbeat.sent == 2


# --- the selective list -----------------------------------------------------------------------


def test_a_selective_acknowledgement_frees_memory() -> None:
    rig = Rig().open()
    rig.send(6)
    rig.says()
    queued = rig.session.batches.queued_bytes
    rig.ack(0, next=4, selective=[(2, 3)])
    assert rig.session.batches.queued_bytes == queued // 3
    assert rig.session.batches.events_settled == 4


def test_a_settled_batch_is_sent_again_as_a_placeholder() -> None:
    rig = Rig().open()
    rig.send(6)
    before = [said for said in rig.says() if isinstance(said, Batch)]
    rig.ack(0, next=4, selective=[(2, 2)])
    rig.boot += 1
    rig.session.lost(rig.now_ns)
    rig.says()
    rig.welcome()
    rig.ack(0, selective=[(2, 2)])
    after = [said for said in rig.says() if isinstance(said, Batch)]
    assert [b.settled for b in after] == [False, True, False]
    for was, now in zip(before, after, strict=True):
        assert now.sequence == was.sequence
        assert now.position_bytes == was.position_bytes
        assert now.message_bytes == was.message_bytes


def test_a_hello_that_came_too_low_is_said_again() -> None:
    """The logger committed more than the acknowledgements told, and waits for what HELLO named."""
    rig = Rig().open()
    rig.send(6)
    rig.says()
    rig.session.lost(rig.now_ns)
    (hello,) = rig.said(Hello)
    assert hello.lowest == 1
    rig.welcome()
    rig.ack(2, next=1)
    (hello,) = rig.said(Hello)
    assert hello.lowest == 3
    rig.welcome()
    rig.ack(2, next=3)
    assert rig.batches() == [3]


def test_a_logger_that_an_old_hello_set_back_is_greeted_again() -> None:
    """Around a reconnection an earlier HELLO came behind the one that was answered."""
    rig = Rig().open()
    rig.send(6)
    rig.says()
    rig.ack(2)
    rig.session.lost(rig.now_ns)
    (hello,) = rig.said(Hello)
    assert hello.lowest == 3
    rig.welcome()
    for _ in range(20):
        rig.ack(2, next=1)
        rig.wait(HEARTBEAT_MS // 2)
        rig.says()
        if rig.session.phase is Phase.GREETING:
            break
    assert rig.session.failure is None
    rig.wait(HEARTBEAT_MS)
    assert [hello.lowest for hello in rig.said(Hello)] == [3]
    rig.welcome()
    rig.ack(2, next=3)
    assert rig.batches() == [3]


# --- runs that end ----------------------------------------------------------------------------


def test_the_end_of_a_run_is_answered_when_all_its_events_are_sent() -> None:
    rig = Rig().open()
    rig.send(3)
    rig.ack(0, limit_bytes=0, active=[], ending=[7])
    assert rig.said(EndOfRun) == []
    rig.ack(0, active=[], ending=[7])
    said = rig.says()
    assert [s.sequence for s in said if isinstance(s, Batch)] == [1, 2]
    assert [s for s in said if isinstance(s, EndOfRun)] == [
        EndOfRun(session=SESSION, run=7, last=2)
    ]


def test_the_end_of_a_held_run_lets_its_events_go() -> None:
    rig = Rig().open(active=[], held=[7])
    rig.send(3)
    assert rig.batches() == []
    rig.ack(0, active=[], ending=[7])
    said = rig.says()
    assert [s.sequence for s in said if isinstance(s, Batch)] == [1, 2]
    assert isinstance(said[-1], EndOfRun)


def test_the_end_is_answered_again_while_it_is_asked_for() -> None:
    rig = Rig().open(active=[], ending=[7])
    rig.ack(0, active=[], ending=[7])
    assert rig.said(EndOfRun) == []
    rig.wait(HEARTBEAT_MS)
    rig.ack(0, active=[], ending=[7])
    assert rig.said(EndOfRun) == [EndOfRun(session=SESSION, run=7, last=0)]


def test_a_run_that_ends_takes_no_more_events() -> None:
    rig = Rig().open(active=[], ending=[7])
    with pytest.raises(RunEnded):
        rig.send(1)
    rig.send(1, run=8)


def test_what_was_not_sent_when_the_run_is_over_is_counted() -> None:
    rig = Rig().open(limit_bytes=0)
    rig.send(3)
    rig.ack(0, active=[], ended=[7])
    assert rig.session.idle
    assert rig.session.batches.queued_bytes == 0
    assert rig.session.batches.events_run_ended == 3
    assert rig.session.counts.reasons() == {"run-ended": 3}
    (report,) = rig.session.counts.report({}).values()
    assert (report.sent, report.run_ended, report.pending, report.acknowledged) == (3, 3, 0, 0)
    with pytest.raises(RunEnded):
        rig.send(1)


def test_what_was_sent_is_sent_again_although_the_run_is_over() -> None:
    """It has a number: without it nothing after it could be admitted."""
    rig = Rig().open()
    rig.send(2)
    assert rig.batches() == [1]
    rig.ack(0, active=[8], ended=[7])
    rig.resend(1)
    assert rig.batches() == [1]


def test_a_run_that_is_listed_no_more_is_over() -> None:
    rig = Rig().open()
    rig.ack(0, active=[8])
    with pytest.raises(RunEnded):
        rig.send(1)


def test_a_logger_that_was_started_again_may_take_its_time_to_list_its_runs() -> None:
    rig = Rig().open()
    rig.boot += 1
    rig.session.lost(rig.now_ns)
    rig.says()
    rig.welcome()
    for _ in range(HEARTBEATS_MISSED_MAX):
        rig.ack(0, active=[])
        rig.send(1)
        rig.wait(HEARTBEAT_MS)
    rig.ack(0, active=[])
    with pytest.raises(RunEnded):
        rig.send(1)


def test_ended_runs_are_remembered_within_bounds() -> None:
    runs = RunsTold()
    for run in range(1, 6000):
        ack = Acknowledgement(
            session=SESSION, boot=1, acknowledged=0, limit_bytes=0, next=1, ended=[run]
        )
        runs.learn(ack, 0)
    assert runs.is_over(5999)
    assert len(runs.closing()) == 4096


# --- refusals ---------------------------------------------------------------------------------


def refusal(batch: int, events: int = 2, reason: str = "run-aborted") -> RefusedRange:
    return RefusedRange(first=batch, last=batch, run=7, stream="a", reason=reason, events=events)


def test_refusals_are_counted_once_and_confirmed() -> None:
    rig = Rig().open()
    rig.send(6)
    rig.says()
    rig.ack(2, next=4, refusals=[refusal(1), refusal(2)])
    rig.ack(3, refusals=[refusal(1), refusal(2), refusal(3, reason="no-space")])
    rig.wait(HEARTBEAT_MS)
    assert rig.said(Heartbeat)[0].refusals_seen == 3
    (report,) = rig.session.counts.report({}).values()
    assert report.refused == {"run-aborted": 4, "no-space": 2}
    assert (report.sent, report.acknowledged, report.pending) == (6, 0, 0)
    rig.ack(3, refusals=[refusal(3, reason="no-space")], refusals_from=2)
    assert rig.session.counts.reasons() == {"run-aborted": 4, "no-space": 2}


def test_refusals_are_confirmed_at_once_so_that_the_next_ones_come() -> None:
    rig = Rig().open()
    rig.says()
    rig.ack(0, refusals=[refusal(1), refusal(2)])
    assert rig.said(Heartbeat)[0].refusals_seen == 2
    rig.ack(0, refusals=[refusal(1), refusal(2)])
    assert rig.said(Heartbeat) == []


def test_a_refusal_told_before_its_batch_is_settled_makes_no_account_negative() -> None:
    rig = Rig().open()
    rig.send(6)
    rig.says()
    rig.ack(0, next=4, refusals=[refusal(1)])
    (report,) = rig.session.counts.report({}).values()
    assert (report.sent, report.acknowledged, report.pending) == (6, 0, 4)
    assert report.refused == {"run-aborted": 2}


def test_made_up_reasons_do_not_grow_the_table() -> None:
    rig = Rig().open()
    rig.ack(0, refusals=[refusal(1, reason=f"r{i}") for i in range(100)])
    assert len(rig.session.counts.reasons()) == 33
    assert sum(rig.session.counts.reasons().values()) == 200


def test_streams_are_bounded() -> None:
    session = Rig().session
    for i in range(WATERMARKS_PER_SESSION_MAX):
        session.check_streams((StreamName(f"s{i}"),))
    with pytest.raises(SourceError, match="streams"):
        session.check_streams((StreamName("one-more"),))
    with pytest.raises(SourceError, match="at most 32"):
        Rig().session.check_streams(tuple(StreamName(f"s{i}") for i in range(33)))


# --- refused, and over ------------------------------------------------------------------------


def test_a_refusal_for_now_is_tried_again_and_reported() -> None:
    rig = Rig()
    rig.says()
    rig.refuse("name-in-use", retry=True)
    assert rig.session.detail == "name-in-use: why"
    assert rig.said(Hello) == []
    rig.wait(500)
    assert len(rig.said(Hello)) == 1
    rig.welcome()
    assert rig.session.detail == ""


def test_a_logger_that_does_not_know_us_gets_hello() -> None:
    rig = Rig().open()
    rig.refuse("unknown-session", retry=True)
    assert len(rig.said(Hello)) == 1


OTHER = b"v" * 16


def acknowledged_once() -> Rig:
    """A batch is acknowledged, another one is on its way, and the connection is gone."""
    rig = Rig().open()
    rig.send()
    assert rig.batches() == [1]
    rig.ack(1)
    rig.send()
    assert rig.batches() == [2]
    rig.session.lost(rig.now_ns)
    return rig


@pytest.mark.parametrize("code", ["expired", "closed", "gap", "bad-name"])
def test_nothing_is_given_up_on_the_word_of_another_logger(code: str) -> None:
    rig = acknowledged_once()
    rig.boot = 1
    for _ in range(20):
        rig.says()
        rig.refuse(code, retry=False, uuid=OTHER)
        assert rig.session.failure is None
        assert f"another logger (l, {OTHER.hex()})" in rig.session.detail
        assert code in rig.session.detail
        rig.wait(500)
    assert rig.session.events_pending == 2
    rig.boot = 6  # the one that it waits for, started again
    rig.welcome()
    rig.ack(1)
    assert rig.batches() == [2]
    rig.ack(2)
    assert rig.session.idle


def test_another_logger_is_not_told_of_a_session_that_the_first_has_acknowledged() -> None:
    rig = acknowledged_once()
    rig.says()
    rig.welcome(logger_uuid=OTHER)
    assert rig.session.phase is Phase.GREETING
    rig.wait(500)
    assert rig.batches() == []


def test_a_session_of_which_nothing_was_acknowledged_goes_to_whichever_logger_there_is() -> None:
    rig = Rig().open()
    rig.send()
    assert rig.batches() == [1]
    rig.send()
    rig.session.lost(rig.now_ns)
    rig.says()
    rig.boot = 1
    rig.welcome(logger_uuid=OTHER)
    rig.ack(active=[])  # the run was active in the other one: here it is still to begin
    for _ in range(10):
        rig.wait(500)
        rig.ack(active=[])
        rig.says()
    assert rig.session.events_pending == 4
    rig.ack(active=[7])
    rig.says()
    rig.ack(2)
    assert rig.session.idle


def test_an_earlier_process_knew_which_logger_acknowledged() -> None:
    progress = Progress(acknowledged=3, position_bytes=100, logger_uuid=OTHER)
    rig = Rig(replayed=RunNumber(7), progress=progress)
    rig.says()
    rig.refuse("expired", retry=False)
    assert rig.session.failure is None
    assert rig.session.progress.logger_uuid == OTHER


def test_a_refusal_for_good_ends_it() -> None:
    rig = Rig().open()
    rig.refuse("closed", retry=False)
    assert isinstance(rig.session.failure, SourceRefused)
    rig.wait(10_000)
    assert rig.says() == []
    assert rig.session.due_ns() is None


def test_goodbye_is_said_when_all_is_acknowledged_and_until_it_is_answered() -> None:
    rig = Rig().open()
    rig.send(1)
    rig.session.close()
    assert [type(said) for said in rig.says()] == [Batch]
    rig.ack(1)
    assert [type(said) for said in rig.says()] == [Bye]
    rig.wait(HEARTBEAT_MS)
    assert [type(said) for said in rig.says()] == [Bye]
    rig.hears(MessageKind.BYE_DONE, ByeDone(session=SESSION))
    assert rig.session.phase is Phase.OVER
    rig.wait(1000)
    assert rig.says() == []


def test_goodbye_outlives_a_restart_of_the_logger() -> None:
    rig = Rig().open()
    rig.session.close()
    assert [type(said) for said in rig.says()] == [Bye]
    rig.boot += 1
    rig.session.lost(rig.now_ns)
    assert [type(said) for said in rig.says()] == [Hello]
    rig.welcome()
    rig.ack(0)
    assert [type(said) for said in rig.says()] == [Bye]


def test_a_session_that_is_forgotten_after_goodbye_is_over() -> None:
    rig = Rig().open()
    rig.session.close()
    rig.says()
    rig.refuse("unknown-session", retry=True)
    rig.says()
    rig.refuse("expired", retry=False)
    assert rig.session.phase is Phase.OVER
    assert rig.session.failure is None


# --- a logger that errs -----------------------------------------------------------------------


def test_a_logger_that_knows_batches_that_were_never_sent_is_left() -> None:
    rig = Rig().open()
    rig.ack(3)
    assert isinstance(rig.session.failure, SourceRefused)


def test_a_logger_that_lost_its_journal_is_left_after_a_while() -> None:
    rig = Rig().open()
    rig.send(4)
    rig.says()
    rig.ack(2)
    rig.session.lost(rig.now_ns)
    rig.says()
    rig.welcome()
    for _ in range(HEARTBEATS_MISSED_MAX):
        rig.ack(0, next=1)
        assert rig.session.failure is None
        rig.wait(HEARTBEAT_MS)
    rig.ack(0, next=1)
    assert isinstance(rig.session.failure, SourceRefused)


@pytest.mark.parametrize(
    "message",
    [
        b"", b"DLOG", b"x" * 40,
        encode_control(MessageKind.WELCOME, b"\xff"),
        encode_control(MessageKind.HELLO, b""),
        encode_control(
            MessageKind.BYE_DONE, encode_body(ByeDone(session=b"another session!"))
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_counted_and_skipped(message: bytes) -> None:
    rig = Rig().open()
    rig.session.receive(message, rig.now_ns)
    assert sum(rig.session.skipped.values()) == 1
    assert rig.session.phase is Phase.OPEN


def test_a_transition_that_is_not_in_the_table_changes_nothing() -> None:
    for phase in Phase:
        for happening in Happening:
            if (phase, happening) not in PHASES.table:
                with pytest.raises(TransitionRefused):
                    PHASES.next(phase, happening)
    assert {phase for phase, _ in PHASES.table} == {Phase.GREETING, Phase.OPEN, Phase.LEAVING}


# --- what this logger cannot take -------------------------------------------------------------

SMALL = {"message_bytes_max": 4096 + 300, "event_bytes_max": 4096}


def test_an_event_larger_than_the_logger_takes_is_refused_alone() -> None:
    """It was taken before the limit was known. An empty batch goes in its place, which needs no
    window."""
    rig = Rig()
    rig.says()
    rig.send(2)
    rig.send(1, size=9000)
    rig.send(2)
    rig.welcome(**SMALL)
    rig.ack(0, limit_bytes=2000)
    first, second = (said for said in rig.says() if isinstance(said, Batch))
    assert (len(first.table), first.settled) == (2, False)
    assert (len(second.table), second.settled) == (0, True)
    rig.ack(2)
    (third,) = (said for said in rig.says() if isinstance(said, Batch))
    assert (len(third.table), third.settled) == (2, False)
    assert third.position_bytes == second.position_bytes + second.message_bytes
    rig.ack(3)
    assert rig.session.failure is None
    assert rig.session.idle
    assert rig.session.batches.queued_bytes == 0
    (report,) = rig.session.counts.report({}).values()
    assert (report.sent, report.acknowledged, report.pending) == (5, 4, 0)
    assert report.refused == {"event-too-large": 1}


def test_it_is_refused_while_no_run_is_active_too() -> None:
    rig = Rig()
    rig.says()
    rig.send(1, size=9000)
    rig.welcome(**SMALL)
    rig.ack(0, active=[], limit_bytes=0)
    assert rig.batches() == [1]
    rig.ack(1, active=[])
    assert rig.session.counts.reasons() == {"event-too-large": 1}


def test_a_batch_larger_than_the_logger_takes_is_cut_into_smaller_ones() -> None:
    """Only the event in it that is too large is refused; order, numbers and masks stay."""
    rig = Rig(packing=Packing(batch_bytes=64 * 1024, linger_ns=0))
    rig.says()
    payloads = [bytes([n]) * size for n, size in enumerate((10, 2000, 2000, 5000, 0, 4096, 7))]
    for n, payload in enumerate(payloads):
        streams = ((A,), (B,), (A, B))[n % 3]
        rig.session.add(RunNumber(7), streams, EventNumber(n), n, payload, rig.now_ns)
    place = rig.session.flush()
    rig.welcome(**SMALL)
    rig.ack(0)
    sent = [said for said in rig.says() if isinstance(said, Batch)]
    assert all(batch.message_bytes <= 4396 for batch in sent if not batch.settled)
    assert sum(batch.settled for batch in sent) == 1
    events = [event for b in sent for _, found in pieces_of(b) for event in found]
    assert sorted(set(events)) == [
        (n, n, payload) for n, payload in enumerate(payloads) if len(payload) != 5000
    ]
    rig.ack(sent[-1].sequence - 1)
    assert not rig.session.settled_before(place)
    rig.ack(sent[-1].sequence)
    assert rig.session.settled_before(place)
    assert rig.session.idle
    assert rig.session.batches.queued_bytes == 0
    assert rig.session.batches.events_settled == 7
    reports = rig.session.counts.report({})
    assert {name: (r.sent, r.acknowledged, r.refused) for name, r in reports.items()} == {
        "a": (5, 4, {"event-too-large": 1}), "b": (4, 4, {}),
    }  # fmt: skip


def test_batches_are_made_as_small_as_the_logger_takes_them() -> None:
    rig = Rig(packing=Packing(batch_bytes=64 * 1024, linger_ns=0))
    rig.says()
    rig.welcome(message_bytes_max=20_000, event_bytes_max=10_000)
    rig.ack(0)
    rig.send(100, size=3000)
    rig.session.flush()
    sent = [said for said in rig.says() if isinstance(said, Batch)]
    assert sum(len(batch.table) for batch in sent) == 100
    assert max(batch.message_bytes for batch in sent) <= 20_000
    assert len(sent) < 30


def test_a_batch_that_a_smaller_logger_does_not_take_again_is_refused() -> None:
    """It was sent to a boot with more memory, and not acknowledged."""
    rig = Rig().open()
    rig.send(1, size=9000)
    rig.send(2)
    assert rig.batches() == [1, 2]
    rig.boot += 1
    rig.session.lost(rig.now_ns)
    rig.says()
    rig.welcome(**SMALL)
    rig.ack(0, limit_bytes=0)
    assert rig.batches() == [1]
    rig.ack(1)
    assert rig.batches() == [2]
    rig.ack(2)
    assert rig.session.idle
    assert rig.session.counts.reasons() == {"event-too-large": 1}


def test_a_batch_that_the_earlier_boot_had_stored_is_not_refused() -> None:
    rig = Rig().open()
    rig.send(1, size=9000)
    rig.send(2)
    assert rig.batches() == [1, 2]
    rig.boot += 1
    rig.session.lost(rig.now_ns)
    rig.says()
    rig.welcome(**SMALL)
    rig.ack(1, next=1)
    rig.says()
    rig.welcome(**SMALL)
    rig.ack(1)
    rig.says()
    rig.ack(2)
    assert rig.session.idle
    assert rig.session.counts.reasons() == {}


def test_a_replay_refuses_the_same_event_under_the_same_number_each_time() -> None:
    def begun(progress: Progress | None, acknowledged: int) -> Rig:
        rig = replay(progress)
        rig.says()
        rig.welcome(**SMALL)
        rig.ack(acknowledged)
        rig.send(2)
        rig.send(1, size=9000)
        rig.send(4)
        return rig

    first = begun(None, 0)
    sent = [said for said in first.says() if isinstance(said, Batch)]
    assert [(b.sequence, b.settled) for b in sent] == [
        (1, False), (2, True), (3, False), (4, False),
    ]  # fmt: skip
    first.ack(3)
    assert first.session.counts.reasons() == {"event-too-large": 1}
    second = begun(first.session.progress, 3)
    assert second.batches() == [4]
    second.ack(4)
    assert second.session.idle
    assert second.session.counts.reasons() == {}  # counted by the first, with its progress


# --- a run that ended while the connection was away -------------------------------------------


def test_what_was_sent_for_a_run_that_is_over_asks_for_window_to_be_settled() -> None:
    """While no run is active no credit is granted: without asking it would wait for ever."""
    rig = Rig().open()
    rig.send(4)
    assert rig.batches() == [1, 2]
    rig.send(2, run=8)
    rig.session.lost(rig.now_ns)
    rig.says()
    rig.welcome()
    rig.ack(0, active=[], ended=[7], limit_bytes=0)
    said = rig.says()
    assert not any(isinstance(s, Batch) for s in said)
    asked = [s for s in said if isinstance(s, Heartbeat)][-1]
    first, second = (rig.session.batches._numbered[n] for n in (1, 2))
    assert asked.wanted_bytes == first.message_bytes
    assert asked.settle_bytes == second.end_bytes  # both, and not what waits for run 8
    rig.ack(0, active=[], ended=[7], limit_bytes=first.end_bytes)
    assert rig.batches() == [1]
    rig.wait(HEARTBEAT_MS)
    (asked,) = rig.said(Heartbeat)
    assert asked.settle_bytes == second.message_bytes
    rig.ack(0, active=[], ended=[7], next=2)
    assert rig.batches() == [2]
    rig.ack(2, active=[], refusals=[refusal(1), refusal(2)])
    rig.wait(HEARTBEAT_MS)
    (asked,) = rig.said(Heartbeat)
    assert asked.settle_bytes == 0


def test_what_was_sent_for_a_run_that_is_not_over_waits_for_it() -> None:
    rig = Rig().open(active=[9])
    rig.send(2, run=8)
    assert rig.batches() == [1]
    rig.session.lost(rig.now_ns)
    rig.says()
    rig.welcome()
    rig.ack(0, active=[], limit_bytes=0)
    asked = rig.said(Heartbeat)[-1]
    assert asked.settle_bytes == 0
    rig.ack(0, active=[8])
    assert rig.batches() == [1]


def test_nothing_is_numbered_while_no_run_is_listed() -> None:
    """Although there is window left from the run before: sent now, it would be refused."""
    rig = Rig().open()
    rig.ack(0, active=[], ended=[7])
    rig.send(2, run=8)
    assert rig.batches() == []
    rig.ack(0, active=[8])
    assert rig.batches() == [1]


def test_it_asks_what_became_of_the_runs_that_its_events_wait_for() -> None:
    """Run 7 may have ended before the source was there."""
    rig = Rig().open(active=[])
    rig.send(2)
    rig.send(2, run=8)
    rig.wait(HEARTBEAT_MS)
    (asked,) = rig.said(Heartbeat)
    assert asked.unlisted == [7, 8]
    rig.ack(0, active=[], ended=[7])
    assert rig.batches() == []
    rig.wait(HEARTBEAT_MS)
    (asked,) = rig.said(Heartbeat)
    assert asked.unlisted == [8]
    assert rig.session.counts.reasons() == {"run-ended": 2}
    with pytest.raises(RunEnded):
        rig.send(1)
    rig.ack(0, active=[8], ended=[7])
    assert rig.batches() == [1]
    rig.wait(HEARTBEAT_MS)
    (asked,) = rig.said(Heartbeat)
    assert asked.unlisted == []


def test_a_replay_asks_what_became_of_its_run_while_others_are_active() -> None:
    rig = replay().open(active=[8])
    rig.send(3)
    rig.wait(HEARTBEAT_MS)
    (asked,) = rig.said(Heartbeat)
    assert asked.unlisted == [7]
    rig.ack(0, active=[8], ended=[7])
    with pytest.raises(RunEnded):
        rig.send(1)
    rig.session.flush()
    assert rig.session.idle


# --- a replay ---------------------------------------------------------------------------------


def replay(progress: Progress | None = None) -> Rig:
    return Rig(replayed=RunNumber(7), progress=progress)


def progress_after(batches: int) -> Progress:
    rig = replay().open()
    rig.send(2 * batches)
    rig.says()
    rig.ack(batches)
    return rig.session.progress


def test_a_replay_goes_on_where_it_was_acknowledged() -> None:
    progress = progress_after(2)
    rig = replay(progress)
    (hello,) = rig.says()
    assert (hello.lowest, hello.position_bytes) == (3, progress.position_bytes)
    rig.welcome()
    rig.ack(2)
    assert rig.session.batches.repeating
    rig.send(8)
    assert rig.batches() == [3, 4]
    assert not rig.session.batches.repeating
    rig.ack(4)
    (report,) = rig.session.counts.report({}).values()
    assert (report.sent, report.acknowledged) == (8, 8)


def test_a_replay_whose_record_is_old_learns_from_the_logger() -> None:
    rig = replay(progress_after(1))
    rig.says()
    rig.welcome()
    rig.ack(3, next=2)  # what HELLO named; more is committed
    rig.send(4)
    assert rig.batches() == []
    rig.send(4)
    (hello,) = rig.said(Hello)
    assert hello.lowest == 4
    rig.welcome()
    rig.ack(3)
    assert rig.batches() == [4]


def test_a_replay_of_other_events_is_refused() -> None:
    rig = replay(progress_after(2)).open(acknowledged=2)
    rig.send(4, size=11)
    assert rig.says() == []
    assert isinstance(rig.session.failure, SourceRefused)


def test_a_replay_of_fewer_events_is_refused() -> None:
    rig = replay(progress_after(2)).open(acknowledged=2)
    rig.send(2)
    rig.session.flush()
    rig.says()
    rig.wait(HEARTBEAT_MS)
    rig.says()
    assert isinstance(rig.session.failure, SourceRefused)


def test_a_replay_waits_for_its_run_to_be_active() -> None:
    rig = replay().open(active=[8])
    rig.send(2)
    assert rig.batches() == []
    rig.ack(0, active=[7, 8])
    assert rig.batches() == [1]


def test_a_replay_gives_up_what_is_open_when_its_run_ends() -> None:
    """Cut short, that batch would not come out the same another time."""
    rig = replay().open()
    rig.send(3)
    rig.ack(0, active=[], ending=[7])
    said = rig.says()
    assert [s.sequence for s in said if isinstance(s, Batch)] == [1]
    assert [s.last for s in said if isinstance(s, EndOfRun)] == [1]
    with pytest.raises(RunEnded):
        rig.send(1)
    rig.ack(1, active=[], ending=[7])
    rig.session.flush()
    assert rig.session.idle
    assert rig.session.batches.events_run_ended == 1


def test_a_replay_that_is_repeating_takes_events_of_a_run_that_ends() -> None:
    rig = replay(progress_after(2)).open(acknowledged=2, active=[], ending=[7])
    assert rig.said(EndOfRun) == []
    rig.send(4)
    assert [answer.last for answer in rig.said(EndOfRun)] == [2]
    with pytest.raises(RunEnded):
        rig.send(1)
    assert rig.session.events_pending == 0


def test_a_replay_confirms_refusals_only_when_they_are_saved() -> None:
    rig = replay().open()
    rig.send(2)
    rig.says()
    rig.ack(1, refusals=[refusal(1)])
    rig.wait(HEARTBEAT_MS)
    assert rig.said(Heartbeat)[0].refusals_seen == 0
    rig.session.progress_saved(rig.session.progress)
    rig.wait(HEARTBEAT_MS)
    assert rig.said(Heartbeat)[0].refusals_seen == 1


def test_a_replay_that_was_acknowledged_to_its_end_only_says_goodbye() -> None:
    rig = replay(progress_after(2))
    rig.session.batches.skip_to_progress()
    rig.open(acknowledged=2)
    rig.session.close()
    assert [type(said) for said in rig.says()] == [Bye]


def test_a_replay_is_packed_without_linger() -> None:
    build: Callable[[], Rig] = lambda: Rig(replayed=RunNumber(7), packing=Packing())  # noqa: E731
    with pytest.raises(ValueError, match="linger"):
        build()
