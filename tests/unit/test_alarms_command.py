"""`dlog alarms`: what it shows on a narrow terminal and to scripts, and what it asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from dlog.cli import alarms as alarms_command
from dlog.core.alarm_kinds import KINDS
from dlog.model.messages import AlarmState
from dlog.model.status import Status
from tests.unit.test_cli import StandIn, document, run

LONG_TEXT = "runs/7/photons_0001.dlog.part at byte 94208: Input/output error " * 3
ALARMS = [
    AlarmState(name="disk-low", severity="error", text="low", since_ns=1, count=2),
    AlarmState(
        name="storage run 7 stream a", severity="error", text=LONG_TEXT, since_ns=1, count=1
    ),
]


@pytest.fixture
def logger(tmp_path: Path) -> Iterator[StandIn]:
    made = StandIn(tmp_path)
    yield made
    made.end()


def shown(width: int) -> str:
    status: Status = document(alarms=ALARMS)
    console = Console(width=width, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(alarms_command._view(status))
    return capture.get()


def test_the_alarms_are_listed_with_what_they_wait_for(logger: StandIn, tmp_path: Path) -> None:
    result = run("alarms", "-d", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "disk-low" in result.stdout
    assert "the journal is not full" in result.stdout
    assert logger.told[-1].command == "STATUS"


def test_scripts_get_a_list(logger: StandIn, tmp_path: Path) -> None:
    (alarm,) = json.loads(run("alarms", "-d", str(tmp_path), "--json").stdout)
    assert (alarm["name"], alarm["count"]) == ("disk-low", 2)
    assert alarm["until"] == KINDS["disk-low"].until.replace("`", "")


def test_a_narrow_terminal_shows_all_within_its_width() -> None:
    lines = shown(80).splitlines()
    assert max(map(len, lines)) <= 80
    text = "".join("".join(lines).split())
    assert "untilitisacknowledged" in text


def test_a_name_and_its_subject_are_sent_and_what_went_is_said(
    logger: StandIn, tmp_path: Path
) -> None:
    logger.data = {"alarms": ["storage run 7 stream a"]}
    words = ("storage", "run", "7", "stream", "a")
    for arguments in (
        ("alarms", "ack", *words, "-d", str(tmp_path)),
        ("alarms", "-d", str(tmp_path), "ack", "storage", "run 7 stream a"),
    ):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert result.stderr == "acknowledged: storage run 7 stream a\n"
        told = logger.told[-1]
        assert told.command == "ACKNOWLEDGE ALARM"
        assert told.parameters == {"name": "storage", "subject": "run 7 stream a"}


def test_a_refusal_exits_1(logger: StandIn, tmp_path: Path) -> None:
    logger.ok = False
    result = run("alarms", "ack", "storage", "-d", str(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "dlog: logger is RUNNING: not accepted\n"
