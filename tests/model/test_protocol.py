"""The protocol model, exhausted within the bounds of its scenarios: with all rules nothing is
found, and each rule left out is missed. docs/TESTING.md, "The model".

`pytest -rP tests/model` prints the number of states, and the counterexample of each rule.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from tests.model.exploration import explore
from tests.model.scenarios import MISSED, SCENARIOS, WIDER
from tests.model.states import Rules

DOCUMENT = Path(__file__).parents[2] / "docs" / "TESTING.md"


@pytest.mark.long
@pytest.mark.parametrize("name", SCENARIOS)
def test_with_all_rules_everything_holds(name: str) -> None:
    found = explore(SCENARIOS[name])
    print(f"{name}: {found}")
    assert not found.kind, found
    assert found.exhausted
    assert f"| {name} | {found.states} |" in documented(), "docs/TESTING.md says another number"


@pytest.mark.long
@pytest.mark.parametrize("rule", MISSED)
def test_a_rule_left_out_is_missed(rule: str) -> None:
    name, kind = MISSED[rule]
    scenario = SCENARIOS[name]
    found = explore(replace(scenario, rules=scenario.rules.without(rule)))
    print(f"without {rule}, {name}: {found}")
    assert found.kind == kind, found
    row = f"| `{rule}` | {kind} | {name} | {len(found.actions)} |"
    assert row in documented(), f"docs/TESTING.md has not: {row}"


def test_every_rule_of_the_model_has_its_counterexample() -> None:
    assert [field.name for field in fields(Rules)] == list(MISSED)


@pytest.mark.soak
@pytest.mark.parametrize("name", WIDER)
def test_with_all_rules_everything_holds_in_wider_bounds(name: str) -> None:
    found = explore(WIDER[name], states_max=5_000_000)
    print(f"{name}: {found}")
    assert not found.kind, found


def documented() -> str:
    return DOCUMENT.read_text(encoding="utf-8")
