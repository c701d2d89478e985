"""BYE, to a logger that knows the session from the journal alone."""

from __future__ import annotations

from dlog.core import journal_records as records
from dlog.core.frame import MessageKind, check_frame, encode_control
from dlog.faults.simulation.world import World
from dlog.model.messages import Bye, encode_body
from tests.simulated_logger import connected


def said(world: World, peer: bytes) -> list[int]:
    return [check_frame(memoryview(m), 2**20) for m in world.network.receive_at_source(peer)]


def test_a_bye_after_a_restart_closes_the_session() -> None:
    world, _, source = connected()
    world.kill()
    world.boot()
    world.settle()
    assert world.life is not None
    events = world.life.events
    assert events is not None
    key = records.session_key(source.session)
    assert world.life.journal.get(key) is not None
    bye = encode_control(MessageKind.BYE, encode_body(Bye(session=source.session)))
    events.receive(source.peer, memoryview(bye), "")
    world.pump(5)
    assert world.life.journal.get(key) is None
    assert MessageKind.BYE_DONE in said(world, source.peer)
