"""The protocol model, exhausted within the bounds of its scenarios: with all rules nothing is
found, and each rule left out is missed. `python -m tests.model` prints what is found.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from typing import Any

import pytest

from tests.model.exploration import explore
from tests.model.scenarios import MISSED, SCENARIOS, STATES, WIDER
from tests.model.states import Rules

QUICK = {
    "two streams", "full journal", "another logger", "acknowledge_committed", "all_pieces_settle",
    "duplicates_by_admitted", "exit_on_failed_commit", "hello_again",
    "journal_copied_after_failure", "name_held_over_restart", "predecessor_named",
    "readers_stop_at_sealed", "refusal_until_seen", "resend_from_lowest", "sealed_not_retried",
    "whole_pieces",
}  # fmt: skip


def all_of(names: Collection[str]) -> list[Any]:
    return [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.long]) for n in names]


@pytest.mark.parametrize("name", all_of(SCENARIOS))
def test_with_all_rules_everything_holds(name: str) -> None:
    found = explore(SCENARIOS[name])
    assert not found.kind, found
    assert found.exhausted
    assert found.states == STATES[name]


@pytest.mark.parametrize("rule", all_of(MISSED))
def test_a_rule_left_out_is_missed(rule: str) -> None:
    missed = MISSED[rule]
    scenario = SCENARIOS[missed.scenario]
    found = explore(replace(scenario, rules=scenario.rules.without(rule)))
    assert (found.kind, len(found.actions)) == (missed.kind, missed.actions), found


def test_every_rule_of_the_model_has_its_counterexample() -> None:
    assert [field.name for field in fields(Rules)] == list(MISSED)


@pytest.mark.soak
@pytest.mark.parametrize("name", WIDER)
def test_with_all_rules_everything_holds_in_wider_bounds(name: str) -> None:
    found = explore(WIDER[name], states_max=5_000_000)
    assert not found.kind, found
