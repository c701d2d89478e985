"""Each protocol rule of the design has a mutation or a test, and what the table and TESTING.md name
is there.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from tests.faults.mutations import MUTATIONS
from tests.faults.protocol_rules import PROTOCOL_RULES
from tests.model.states import Rules

TESTS = Path(__file__).parents[1]
DOCUMENT = TESTS.parent / "docs" / "TESTING.md"


def names_of_tests() -> set[str]:
    return {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
    }


def test_every_rule_is_left_out_by_a_mutation_or_held_by_a_test() -> None:
    assert [rule.words for rule in PROTOCOL_RULES if not (rule.mutations or rule.clauses)] == []
    assert [c for rule in PROTOCOL_RULES for c in rule.clauses if not c.tests] == []


def test_every_mutation_leaves_out_one_rule_of_the_table() -> None:
    named = [name for rule in PROTOCOL_RULES for name in rule.mutations]
    assert sorted(named) == sorted(mutation.name for mutation in MUTATIONS)


def test_every_rule_of_the_model_is_of_one_rule_of_the_table() -> None:
    named = [name for rule in PROTOCOL_RULES for name in rule.model]
    assert sorted(named) == sorted(field.name for field in fields(Rules))


def test_every_test_that_the_table_names_is_there() -> None:
    named = {name for rule in PROTOCOL_RULES for clause in rule.clauses for name in clause.tests}
    assert named - names_of_tests() == set()


def test_every_test_and_file_that_the_document_names_is_there() -> None:
    told = re.findall(r"`([\w./]+)`", DOCUMENT.read_text(encoding="utf-8"))
    tests = {name for name in told if re.fullmatch(r"test_\w+", name)}
    files = {name for name in told if re.match(r"(tests|dlog|fixtures)/", name)}
    assert len(files) > 20
    assert tests - names_of_tests() == set()
    assert [name for name in sorted(files) if not (TESTS.parent / name).exists()] == []
