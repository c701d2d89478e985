"""docs/STATES.md is what the tables say, and its handwritten tables agree with the code."""

from __future__ import annotations

import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dlog
from dlog.core import fate
from dlog.core.states import CONNECTION, FILE, LOGGER, RUN, Machine
from dlog.errors import DlogError, Error, Failure
from tests.rig.commands import CHECKOUT

SCRIPT = CHECKOUT / "docs" / "make_states.py"


@pytest.fixture(scope="module")
def make_states() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_states", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_document_is_what_would_be_written(make_states: ModuleType) -> None:
    assert make_states.TARGET.read_text() == make_states.document()
    assert make_states.main(["--check"]) == 0


def test_a_document_that_is_not_is_found(
    make_states: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_states, "TARGET", tmp_path / "STATES.md")
    assert make_states.main(["--check"]) == 1
    assert make_states.main([]) == 0
    assert make_states.main(["--check"]) == 0
    assert make_states.main(["--nonsense"]) == 2


@pytest.mark.parametrize("machine", [LOGGER, RUN, FILE, CONNECTION], ids=lambda m: m.name)
def test_every_transition_stands_in_its_diagram(
    make_states: ModuleType, machine: Machine[Any, Any]
) -> None:
    lines = make_states.document().splitlines()
    for (begin, event), end in machine.table.items():
        arrow = f"    {begin} --> {end}: "
        assert any(line.startswith(arrow) and event in line for line in lines)


def test_every_state_has_its_own_words(make_states: ModuleType) -> None:
    states = {(type(state), state) for m in (LOGGER, RUN, FILE, CONNECTION) for state, _ in m.table}
    assert states <= set(make_states.MEANINGS)
    assert len(set(make_states.MEANINGS.values())) == len(make_states.MEANINGS)


def test_every_reason_of_the_event_table_is_told(make_states: ModuleType) -> None:
    verdicts = set(fate._TABLE.values())
    reasons = {verdict.reason for verdict in verdicts if verdict.reason} | {fate.NO_RUN_ACTIVE}
    for reason in reasons:
        assert f"`{reason}`" in make_states.EVENTS


def test_every_error_class_stands_in_the_table(make_states: ModuleType) -> None:
    for module in pkgutil.walk_packages(dlog.__path__, "dlog."):
        importlib.import_module(module.name)
    everywhere: set[type[DlogError]] = set()
    unseen: list[type[DlogError]] = [DlogError]
    while unseen:
        children = unseen.pop().__subclasses__()
        everywhere.update(children)
        unseen.extend(children)
    ours = {each for each in everywhere if each.__module__.startswith("dlog.")}
    assert ours == set(make_states.error_classes())


def test_every_class_is_of_one_branch(make_states: ModuleType) -> None:
    for each in make_states.error_classes():
        assert issubclass(each, Error) != issubclass(each, Failure)
