"""The event server: what it says to a source, in whatever order it hears of it."""

from __future__ import annotations

import numpy as np

from dlog.core.batch import Batch, encode_batch
from dlog.core.frame import MessageKind, check_frame, control_body, encode_control
from dlog.core.journal_records import Refusal
from dlog.faults.simulation.sources import SimulatedSource
from dlog.faults.simulation.world import World
from dlog.model.events import EVENT_DTYPE
from dlog.model.ids import Sequence
from dlog.model.messages import Acknowledgement, Heartbeat, decode_body, encode_body
from dlog.services.committer import Settled
from tests.simulated_logger import PHOTONS, RUN, connected


def last_acknowledgement(world: World, source: SimulatedSource) -> Acknowledgement:
    messages = [memoryview(m) for m in world.network.receive_at_source(source.peer)]
    acks = [m for m in messages if check_frame(m, 2**20) == MessageKind.ACKNOWLEDGEMENT]
    return decode_body(control_body(acks[-1]), Acknowledgement)


def refusal(batch: int) -> Refusal:
    return Refusal(
        first=batch, last=batch, run=RUN, stream="photons", reason="run-aborted", events=1
    )


def test_an_acknowledgement_tells_every_refusal_that_was_not_seen() -> None:
    """The source confirms one refusal while a commit with another is being told."""
    world, life, source = connected()
    events = life.events
    assert events is not None

    def settled(acknowledged: int, *refused: Refusal) -> Settled:
        return Settled(source.session, acknowledged, 0, (), 10**6, refused, 0)

    events.settled([settled(2, refusal(2))])
    events.work()
    heartbeat = Heartbeat(session=source.session, sent=1, refusals_seen=1)
    message = encode_control(MessageKind.HEARTBEAT, encode_body(heartbeat))
    events.receive(source.peer, memoryview(message), "")
    events.settled([settled(3, refusal(2), refusal(3))])  # committed before the heartbeat came
    events.work()
    ack = last_acknowledgement(world, source)
    assert ack.acknowledged == 3
    assert ack.refusals_from == 1
    assert [r.first for r in ack.refusals] == [3]


def test_a_batch_that_lies_about_its_place_is_told_though_its_window_was_granted() -> None:
    _, life, source = connected()
    events = life.events
    assert events is not None
    table = np.zeros(1, EVENT_DTYPE)
    table["run"], table["size"], table["streams"] = RUN, 5, 1
    payload = np.frombuffer(b"event", np.uint8)
    batch = Batch(source.session, Sequence(2), 10, 1, (PHOTONS,), table, payload, 0)
    events.receive(source.peer, memoryview(encode_batch(batch)), "")
    (session,) = events.connections()
    assert session.skipped["window"] == 1
    assert "window router-1" in [alarm.name for alarm in life.alarms.raised()]
