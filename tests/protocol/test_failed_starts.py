"""A START RUN that a fault of the disk made fail: nothing stands of it, and its number is free."""

from __future__ import annotations

import pytest

from dlog.faults.simulation.steps import Operation, When
from dlog.faults.simulation.world import World
from tests.simulated_logger import PHOTONS, RAW, configured, fail

STRIKES = [Operation.CREATE, Operation.WRITE, Operation.SYNC_FILE, Operation.SYNC_FOLDER]


def strike(world: World, operation: Operation) -> None:
    everywhere = operation is Operation.SYNC_FOLDER
    fail(world, operation, path="data/runs/7" if everywhere else "data/runs/7/raw")


def all_is_well(world: World) -> None:
    source = world.source("router-1")
    for number in range(1, 10):
        assert source.send(7, (PHOTONS, RAW), number, b"an event")
    world.settle()
    assert world.do("STOP RUN", run=7).ok
    assert world.problems(complete=True) == []
    assert world.failures == []


@pytest.mark.parametrize("operation", STRIKES)
def test_the_number_of_a_run_that_could_not_be_started_is_free(operation: Operation) -> None:
    world = configured(drain_seconds=0.0)
    strike(world, operation)
    answer = world.do("START RUN", run=7)
    assert not answer.ok
    assert "run 7 could not be started" in answer.error
    assert not [name for name in world.disks[0].contents() if "/runs/7/" in name]
    assert world.do("START RUN", run=7).ok
    all_is_well(world)


def test_a_crash_at_any_step_of_a_start_that_fails_leaves_the_number_free() -> None:
    rehearsal = configured(drain_seconds=0.0)
    strike(rehearsal, Operation.SYNC_FILE)
    begin = rehearsal.steps.count
    rehearsal.do("START RUN", run=7)
    for step in range(1, rehearsal.steps.count - begin + 1):
        world = configured(drain_seconds=0.0)
        strike(world, Operation.SYNC_FILE)
        world.steps.crash_at(world.steps.count + step, When.AFTER)
        answer = world.do("START RUN", run=7)
        world.pump(600)  # what a restart left to the housekeeper
        if not answer.ok:
            answer = world.do("START RUN", run=7)
        assert answer.ok, (step, answer)
        all_is_well(world)


def test_a_run_that_was_started_and_ended_keeps_its_number() -> None:
    world = configured(drain_seconds=0.0)
    assert world.do("START RUN", run=7).ok
    assert world.do("STOP RUN", run=7).ok
    assert "in the journal already" in world.do("START RUN", run=7).error
