"""The selective list of an acknowledgement is bounded, however long a stream stalls."""

from __future__ import annotations

from typing import Any

import pytest

from dlog.core.frame import MessageKind
from dlog.faults.simulation.port_wrappers import PortWrappers
from dlog.faults.simulation.world import World
from dlog.model.ids import StreamName
from dlog.model.messages import Acknowledgement
from dlog.services import event_server
from tests.faults.wrappers import Around, acknowledgement_in, kind_of

RUN, RANGES, EVENTS = 7, 8, 60


def test_no_acknowledgement_lists_more_ranges_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_server, "SELECTIVE_RANGES_MAX", RANGES)  # not 1024 batches of each
    told: list[Acknowledgement] = []

    class Listening(Around):
        def send(self, peer: bytes, message: bytes) -> Any:
            if kind_of(message) == MessageKind.ACKNOWLEDGEMENT:
                told.append(acknowledgement_in(message))
            return self.inside.send(peer, message)

    world = World(wrappers=PortWrappers(event_link=Listening))
    world.do("INIT")
    world.do("CONFIGURE", streams={"photons": {}, "stalled": {}})
    world.do("START RUN", run=RUN)
    world.asleep = frozenset({"stalled"})
    source = world.source("router-1", batch_events=1)
    for number in range(EVENTS):
        stream = StreamName("photons" if number % 2 else "stalled")
        assert source.send(RUN, (stream,), number, bytes(100))
    world.run_until(lambda: any(len(ack.selective) == RANGES for ack in told), "a full list")
    world.pump(200)
    assert max(len(ack.selective) for ack in told) == RANGES
    world.asleep = frozenset()
    world.settle()
    assert world.problems(complete=True) == []
