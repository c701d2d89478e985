"""Routes that were given before a message was sent hold for it."""

from __future__ import annotations

from types import MappingProxyType

from dlog.core.pieces import Piece
from dlog.core.states import RunState
from dlog.services.routes import Routes, RunRoute
from tests.simulated_logger import OTHER_RUN, PHOTONS, RUN, connected, send


class _Taker:
    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    def offer(self, piece: Piece) -> None:
        self.pieces.append(piece)


def test_events_sent_behind_the_answer_to_start_run_are_the_runs() -> None:
    world, life, source = connected()
    taker = _Taker()
    writers = MappingProxyType({PHOTONS: taker})
    runs = {run: RunRoute(RunState.ACTIVE, writers) for run in (RUN, OTHER_RUN)}
    assert life.events is not None
    life.events.routes(Routes(MappingProxyType(runs)))
    send(source, 1, run=OTHER_RUN)
    world.clock.advance(10_000_000)
    source.silent = False
    source.step()
    life.events.step()  # finds both
    assert [piece.mark.run for piece in taker.pieces] == [OTHER_RUN]
