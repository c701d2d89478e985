"""Routes that were given before a message was sent hold for it."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from dlog.core.batch import Batch, encode_batch
from dlog.core.pieces import Piece
from dlog.core.states import RunState
from dlog.model.events import EVENT_DTYPE
from dlog.model.ids import RunNumber, Sequence
from dlog.services.routes import Routes, RunRoute
from tests.simulated_logger import PHOTONS, RUN, connected


class _Taker:
    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    def offer(self, piece: Piece) -> None:
        self.pieces.append(piece)


def test_events_sent_behind_the_answer_to_start_run_are_the_runs() -> None:
    _, life, source = connected()
    events = life.events
    assert events is not None
    session = events._sessions.get(source.session)
    assert session is not None
    table = np.zeros(1, EVENT_DTYPE)
    table["run"], table["size"], table["streams"] = RUN + 1, 1, 1
    batch = Batch(
        source.session,
        Sequence(session.state.admitted + 1),
        session.state.position,
        0,
        (PHOTONS,),
        table,
        np.frombuffer(b"x", np.uint8),
        0,
    )
    message = memoryview(encode_batch(batch))
    taker = _Taker()
    writers = MappingProxyType({PHOTONS: taker})
    runs = {RunNumber(r): RunRoute(RunState.ACTIVE, writers) for r in (RUN, RUN + 1)}
    events.routes(Routes(MappingProxyType(runs)))
    receive = events._link.receive
    events._link.receive = lambda _: [(source.peer, message, "")]  # type: ignore[method-assign]
    try:
        events.step()
    finally:
        events._link.receive = receive  # type: ignore[method-assign]
    assert [piece.mark.run for piece in taker.pieces] == [RUN + 1]
