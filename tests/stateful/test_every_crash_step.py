"""A crash before, in and after every numbered storage step of the scripted scenario, and in its
recovery: nothing acknowledged is lost, nothing stands twice, and it all goes on by itself."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import pytest

from dlog.faults.simulation.scenario import length, play
from dlog.faults.simulation.steps import Operation, When
from dlog.faults.simulation.world import World

STEPS = length()


def crashed(
    step: int,
    when: When,
    *,
    power_cut: bool = True,
    second: tuple[int, When] | None = None,
    seed: int | None = None,
) -> World:
    """The scenario with a crash at a step of it, and a power cut so many steps behind it."""
    world = World(seed=step if seed is None else seed)
    world.power_cut = power_cut
    problems: list[str] = []

    def look() -> None:
        problems.extend(f"after crash {world.reboots}: {p}" for p in world.problems())
        world.power_cut = True
        if second is not None and world.reboots == 1:
            # The step numbers go on; the crash is set once the program starts anew.
            world.on_restart = lambda: world.steps.crash_at(
                world.steps.count + second[0], second[1]
            )

    world.after_crash = look
    world.steps.crash_at(step, when)
    play(world)
    problems += world.problems(complete=True, stopped=True)
    problems += [*world.lost, *world.unsettled, *map(repr, world.failures)]
    assert problems == []
    assert world.reboots >= 1
    return world


# In a step is some of it, perhaps none and perhaps all. Behind a step is, but for what was said in
# between, before the next one.
STEPS_TRIED = [
    (When.DURING, range(1, STEPS + 1, 2)),
    pytest.param(When.DURING, range(2, STEPS + 1, 2), marks=pytest.mark.long),
    pytest.param(When.BEFORE, range(1, STEPS + 1), marks=pytest.mark.long),
    pytest.param(When.AFTER, range(1, STEPS + 1), marks=pytest.mark.soak),
]


@pytest.mark.parametrize(("when", "steps"), STEPS_TRIED)
def test_a_power_cut_at_every_step_costs_nothing(when: When, steps: range) -> None:
    # On all processors: each step is a world of its own.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for _ in pool.map(partial(_power_cut, when), steps, chunksize=8):
            pass


def _power_cut(when: When, step: int) -> None:
    crashed(step, when)


@pytest.mark.long
def test_a_killed_program_goes_on_from_every_fourth_step() -> None:
    for step in range(1, STEPS + 1, 4):
        crashed(step, When.AFTER, power_cut=False)


def _sample(every: int) -> Iterator[tuple[int, int, When]]:
    """Steps of the scenario, each with one of the recovery; all of the recovery in the long run."""
    whens = list(When)
    for n, step in enumerate(range(1, STEPS + 1, every)):
        yield step, 1 + n % 12, whens[n % len(whens)]


@pytest.mark.long
def test_a_second_crash_inside_the_recovery_costs_nothing() -> None:
    for step, later, when in _sample(every=3):
        crashed(step, When.DURING, second=(later, when))


@pytest.mark.long
def test_a_power_cut_behind_the_restart_of_a_killed_program_costs_nothing() -> None:
    """What the killed program did to names and was not durable is in the page cache only."""
    for step in range(2, STEPS + 1, 3):
        crashed(step, When.AFTER, power_cut=False, second=(3 + step % 31, When.BEFORE))


@pytest.mark.long
def test_a_file_whose_new_name_was_not_durable_can_still_be_settled_after_a_power_cut() -> None:
    # The restart made it read-only first: under its old name nobody could write to it any more.
    world = World(seed=1)
    play(world)
    renames = [
        step.number
        for step in world.steps.history
        if step.operation is Operation.NAME and step.path.endswith(".dlog")
    ]
    assert len(renames) > 3
    for step in renames:
        for later in range(1, 13):
            crashed(step, When.AFTER, power_cut=False, second=(later, When.BEFORE), seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("later", range(1, 60))
def test_a_power_cut_anywhere_behind_the_restart_of_a_killed_program(later: int) -> None:
    for step in range(1, STEPS + 1):
        crashed(step, When.BEFORE, power_cut=False, second=(later, When.BEFORE))


@pytest.mark.soak
@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("later", range(1, 30))
def test_a_second_crash_at_every_step_of_every_recovery_costs_nothing(
    later: int, when: When
) -> None:
    for step in range(1, STEPS + 1):
        crashed(step, When.DURING, second=(later, when))
