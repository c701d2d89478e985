"""`dlog faults`, as a user runs it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from cli.faults import app, real_disk
from dlog.simulation.campaign import SCENARIOS
from dlog.simulation.witness import Findings

runner = CliRunner()


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The command is a process of its own, and silences its log."""
    yield
    logging.disable(logging.NOTSET)


def test_list_names_every_scenario() -> None:
    listed = json.loads(runner.invoke(app, ["list", "--json"]).stdout)
    assert list(listed["simulated"]) == list(SCENARIOS)
    assert list(listed["real"]) == list(real_disk.SCENARIOS)


def test_a_campaign_that_holds_exits_0_and_counts() -> None:
    result = runner.invoke(app, ["run", "crashes", "--seeds", "4", "--jobs", "1", "--json"])
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["histories"] == told["survived"] == 4
    assert told["lost_acknowledged"] == 0
    assert told["restarts"] > 0


def test_a_seed_tells_its_story() -> None:
    result = runner.invoke(app, ["run", "calm", "--seed", "3"])
    assert result.exit_code == 0
    assert "START RUN run=1" in result.stdout


def test_what_does_not_hold_exits_1_with_its_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a witness that is never content."""
    monkeypatch.setattr(Findings, "unsettled", lambda self: ["a piece"])
    result = runner.invoke(app, ["run", "calm", "--seeds", "2", "--jobs", "1"])
    assert result.exit_code == 1
    assert "DID NOT HOLD" in result.stdout
    assert "dlog faults run calm --seed" in result.stderr


def test_an_unknown_scenario_is_a_wrong_use() -> None:
    assert runner.invoke(app, ["run", "nonsense"]).exit_code == 2
