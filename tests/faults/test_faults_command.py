"""`dlog faults`, as a user runs it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dlog.cli.faults import app
from dlog.errors import Error
from dlog.faults import campaign, judge, real_disk, system_calls
from dlog.faults.simulation.campaign import SCENARIOS
from dlog.faults.simulation.witness import Findings

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


@pytest.mark.long
def test_a_campaign_that_holds_exits_0_and_counts() -> None:
    result = runner.invoke(app, ["run", "crashes", "--seeds", "2", "--jobs", "1", "--json"])
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["histories"] == told["survived"] == 2
    assert told["lost_acknowledged"] == 0
    assert told["restarts"] > 0


def test_a_seed_tells_its_story() -> None:
    result = runner.invoke(app, ["run", "calm", "--seed", "3"])
    assert result.exit_code == 0
    assert "START RUN run=1" in result.stdout


@pytest.mark.long
def test_what_does_not_hold_exits_1_with_its_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a witness that is never content."""
    monkeypatch.setattr(Findings, "unsettled", lambda self: ["a piece"])
    result = runner.invoke(app, ["run", "calm", "--seeds", "2", "--jobs", "1"])
    assert result.exit_code == 1
    assert "DID NOT HOLD" in result.stdout
    # Nothing at all is needed for it, and the command says so.
    assert "dlog faults run calm --seed 0 --only ''" in result.stderr


def test_a_part_of_a_seed_s_history_is_played_alone() -> None:
    whole = runner.invoke(app, ["run", "calm", "--seed", "3"])
    part = runner.invoke(app, ["run", "calm", "--seed", "3", "--only", "4,9"])
    assert part.exit_code == 0
    told = {line.split("]")[0].strip() for line in part.stdout.splitlines() if "]" in line}
    assert told <= {"[4", "[9"}
    assert len(part.stdout) < len(whole.stdout)


@pytest.mark.parametrize("wrong", [["--only", "3"], ["--seed", "1", "--only", "three"]])
def test_only_takes_numbers_of_a_seed(wrong: list[str]) -> None:
    assert runner.invoke(app, ["run", "calm", *wrong]).exit_code == 2


@pytest.mark.long
def test_a_play_on_a_disk_leaves_it_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("notes")
    result = runner.invoke(app, ["run", "kill", "--dir", str(tmp_path), "--seed", "401"])
    assert result.exit_code == 0, result.stdout
    assert "kill after" in result.stdout or "storage calls cannot be held here" in result.stderr
    assert "the logger is gone, -9" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.long
def test_a_play_on_a_disk_that_does_not_hold_is_kept_with_the_command_that_plays_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a judge that is never content."""
    monkeypatch.setattr(judge, "at_the_end", lambda *_: ["ACKNOWLEDGED AND LOST: an event"])
    arguments = ["run", "kill-any-time", "--dir", str(tmp_path), "--seeds", "1", "--jobs", "1"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    assert f"dlog faults run --dir {tmp_path} kill-any-time --seed 0" in result.stderr
    (kept,) = tmp_path.glob("dlog-faults-*/dlog-faults-*")
    assert f"it is all in {kept}" in result.stdout
    assert (kept / "data" / "runs").is_dir()


@pytest.mark.parametrize(
    ("error", "is_kept"), [(Error("it did not hold"), True), (KeyboardInterrupt(), False)]
)
def test_what_an_error_tells_of_is_kept_and_an_interrupted_campaign_leaves_nothing(
    tmp_path: Path, error: BaseException, is_kept: bool
) -> None:
    def campaign_that_ends() -> None:
        with campaign.fresh_folder(tmp_path) as folder:
            (folder / "play").mkdir()
            raise error

    with pytest.raises(type(error)):
        campaign_that_ends()
    assert bool(list(tmp_path.glob("dlog-faults-*/play"))) is is_kept


def test_the_disk_of_data_is_tried_beside_them(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "journal").mkdir(parents=True)
    for place in (data, data / "journal"):
        result = runner.invoke(app, ["run", "kill", "--dir", str(place)])
        assert result.exit_code == 1
        assert "is a data directory" in str(result.exception)
    assert [path.name for path in data.iterdir()] == ["journal"]
    assert list((data / "journal").iterdir()) == []


@pytest.mark.long
def test_where_no_call_can_be_held_there_are_kills_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check() -> None:
        raise system_calls.Refused("not on this machine")

    monkeypatch.setattr(system_calls, "check", check)
    result = runner.invoke(app, ["run", "eio", "--dir", str(tmp_path), "--seed", "1"])
    assert result.exit_code == 0, result.stdout
    assert "not on this machine: storage calls cannot be held" in result.stderr
    assert result.stdout.startswith("kill-any-time, seed 1: held")


def test_an_unknown_scenario_is_a_wrong_use() -> None:
    assert runner.invoke(app, ["run", "nonsense"]).exit_code == 2
    of_a_disk = runner.invoke(app, ["run", "kill"])
    assert of_a_disk.exit_code == 2
    assert "without --dir" in of_a_disk.output
