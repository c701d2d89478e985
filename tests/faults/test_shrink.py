"""A history that does not hold is shortened to what it takes, and plays again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dlog.faults.simulation.campaign import play
from dlog.faults.simulation.shrink import kind, shortest, shrink
from tests.faults.mutations import MUTATIONS

NEVER_ENOUGH = lambda: False  # noqa: E731


def test_of_many_actions_those_that_it_takes_are_left() -> None:
    tried: list[Sequence[int]] = []

    def fails(only: Sequence[int]) -> bool:
        tried.append(only)
        return {3, 17, 40} <= set(only)

    assert shortest(range(60), fails, NEVER_ENOUGH) == [3, 17, 40]
    assert len(tried) < 120


def test_what_fails_without_any_action_is_left_with_none() -> None:
    assert shortest(range(60), lambda only: True, NEVER_ENOUGH) == []


def test_it_ends_when_it_is_told_to() -> None:
    assert shortest(range(60), lambda only: True, lambda: True) == list(range(60))


def test_the_same_problem_at_another_place_is_of_the_same_kind() -> None:
    first = "session 5e1f00aa batch 3 run 1 photons: ACKNOWLEDGED AND LOST"
    second = "after a crash: session 0123abcd batch 17 run 2 raw: ACKNOWLEDGED AND LOST"
    assert kind(first) == kind(second)
    assert kind(first) != kind("seed 5: sources are not through; the last steps were []")


@pytest.mark.long
def test_a_history_without_some_actions_is_the_same_each_time() -> None:
    only = range(0, 60, 2)
    whole, part = play(10).fingerprint, play(10, only=only).fingerprint
    assert part != whole
    assert play(10, only=only).fingerprint == part
    assert play(10, only=range(60)).fingerprint == whole


@pytest.mark.long
def test_a_mutant_s_history_is_shortened_and_fails_again() -> None:
    mutation = next(m for m in MUTATIONS if m.name == "acknowledge-before-fsync")
    failed = next(o for o in map(mutation.play, range(20)) if o.problems)
    short = shrink(failed, mutation.menu, NEVER_ENOUGH, mutation.wrappers)
    assert short.actions is not None
    assert failed.actions is not None
    assert len(short.actions) <= 5 < len(failed.actions)
    assert len(short.story) < len(failed.story)
    again = mutation.play(short.seed, only=short.actions)
    assert (again.problems, again.story) == (short.problems, short.story)
    assert not play(short.seed, mutation.menu, only=short.actions).problems
