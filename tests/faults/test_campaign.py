"""The random campaign: many seeds in which the contract holds, and mutations that it catches.

What it found once has a test of its own, in tests/unit/ and tests/protocol/: another action on the
menu changes the history of every seed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from dlog.faults.simulation.campaign import Menu, Outcome, play
from dlog.faults.simulation.menu import SCENARIOS
from tests.faults.mutation import Mutation
from tests.faults.mutations import MUTATIONS

SEEDS = 40
SEEDS_AT_ONCE = 1
# A mutated logger may never come to an end: not much is waited for.
ROUNDS_OF_A_MUTANT = 1500


def holds(outcome: Outcome) -> None:
    assert not outcome.problems, "\n".join(
        [f"seed {outcome.seed}", *outcome.story, *outcome.problems]
    )


@pytest.mark.parametrize("seed", range(SEEDS_AT_ONCE))
def test_the_contract_holds_under_every_fault(seed: int) -> None:
    holds(play(seed))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(SEEDS_AT_ONCE, SEEDS))
def test_the_contract_holds_under_every_fault_in_more_histories(seed: int) -> None:
    holds(play(seed))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(SEEDS, SEEDS + 20))
def test_crashes_and_a_bad_network_alone(seed: int) -> None:
    holds(play(seed, Menu(disk=False, space=False, journal=False)))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(23, 33))
def test_all_that_can_happen_to_disks_at_once(seed: int) -> None:
    """Seed 25: blocks in a directory that is away, whose numbers a later boot gives again."""
    holds(play(seed, SCENARIOS["directories"].menu))


@pytest.mark.long
def test_everything_and_a_directory_that_goes_away() -> None:
    holds(play(23, Menu(outsiders=True, away=True)))


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """pytest keeps what is logged until the test is over: errors with their frames, and so each
    world of a hundred."""
    with caplog.at_level(logging.CRITICAL + 1):
        yield


@pytest.mark.soak
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("block", range(40))
def test_thousands_of_seeds(block: int) -> None:
    for seed in range(10_000 + 100 * block, 10_000 + 100 * (block + 1)):
        holds(play(seed))


@pytest.mark.soak
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("block", range(10))
def test_hundreds_of_seeds_with_all_that_can_happen_to_disks(block: int) -> None:
    for seed in range(10_000 + 100 * block, 10_000 + 100 * (block + 1)):
        holds(play(seed, SCENARIOS["directories"].menu))


def test_the_same_seed_plays_the_same_history() -> None:
    history = play(9).fingerprint
    assert play(9).fingerprint == history
    assert play(10).fingerprint != history


@pytest.mark.long
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_a_rule_left_out_is_caught_within_its_seeds(
    mutation: Mutation, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL + 1):  # what a mutant's loggers say is not looked at
        assert any(_is_caught(mutation, seed) for seed in range(mutation.seeds)), (
            f"{mutation.rule}: {mutation.seeds} histories without it showed nothing"
        )


def _is_caught(mutation: Mutation, seed: int) -> bool:
    problems = mutation.play(seed, rounds_max=ROUNDS_OF_A_MUTANT).problems
    # Of the mutant itself, which is no longer made for the product: that catches nothing.
    broken = [p for p in problems if re.search(r"^(Type|Attribute|Name)Error: ", p, re.M)]
    assert broken == []
    return bool(problems)
