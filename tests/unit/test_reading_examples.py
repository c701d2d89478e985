"""The examples of docs/READING.md run, and do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.event_files import Piece, build_run, make_events
from tests.rig.commands import CHECKOUT

PAGE = CHECKOUT / "docs" / "READING.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def run_of_a_hundred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [e._replace(order=e.number) for e in make_events(100, size=8)]
    even = [e._replace(payload=e.payload[: len(e.payload) // 2 * 2]) for e in events]
    streams = {
        "photons": [Piece([e for e in even if e.number % 3], sequence=1)],
        "control": [Piece([e for e in even if e.number % 3 != 1], sequence=1)],
    }
    build_run(tmp_path / "data", streams, events_per_block=15, last_open=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("run_of_a_hundred")
def test_the_examples_run_one_behind_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(EXAMPLES) == 8
    names: dict[str, object] = {}
    for example in EXAMPLES:
        exec(compile(example, str(PAGE), "exec"), names)
    assert names["events"] == 133, "every third event stands in two streams"
    assert "damaged" not in (said := capsys.readouterr().out)
    assert "(7,) ('control', 'photons') 4" in said
    sent = [e.payload[: len(e.payload) // 2 * 2] for e in make_events(100, size=8)]
    assert Path("replayed.raw").read_bytes() == b"".join(sent)
