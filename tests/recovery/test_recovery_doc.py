"""Each command in docs/RECOVERY.md, run where that page says that it helps."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from dlog.limits import PAGE_BYTES
from dlog.recovery.journal import rebuild
from tests.event_files import build_run, make_events, make_pieces, overwrite
from tests.rig.commands import CHECKOUT, dlog_command, environment, run_dlog
from tests.waiting import LONG, until

PAGE: Final = CHECKOUT / "docs" / "RECOVERY.md"
TAGGED: Final = re.compile(r"<!-- test: ([a-z ]+), exits (\d) -->\n```sh\n(.*?)```", re.DOTALL)


class Commands(NamedTuple):
    """A code block of the page."""

    scenario: str
    exits: int
    lines: tuple[str, ...]


def blocks() -> list[Commands]:
    return [
        Commands(scenario, int(code), tuple(text.strip().splitlines()))
        for scenario, code, text in TAGGED.findall(PAGE.read_text())
    ]


def _run_seven(folder: Path) -> Path:
    data = folder / "DATA"
    build_run(data, {"photons": make_pieces(make_events(80), 10)}, last_open=True)
    (folder / "dlog.toml").write_text(
        '[logger]\ndata = ["DATA"]\n[init]\nlow_water_bytes = 0\nresume_bytes = 0\n'
        "[streams.photons]\n"
    )
    return data


def whole(folder: Path) -> None:
    rebuild(_run_seven(folder))


def damaged(folder: Path) -> None:
    data = _run_seven(folder)
    overwrite(data / "runs/7/photons_0001.dlog", 2 * PAGE_BYTES + 900, b"\xff\xff")


def recovered(folder: Path) -> None:
    damaged(folder)
    done = run_dlog(
        "recover", "DATA/runs/7/photons_0001.dlog", "-o", "photons_0001.dlog", cwd=folder
    )
    assert done.returncode == 3


def tail(folder: Path) -> None:
    data = _run_seven(folder)
    (data / "quarantine").mkdir()
    shutil.copy(
        data / "runs/7/photons_0003.dlog.part",
        data / f"quarantine/7_photons_events_0003_{PAGE_BYTES}_2.tail",
    )


def no_journal(folder: Path) -> None:
    _run_seven(folder)


def no_sidecar(folder: Path) -> None:
    whole(folder)
    (folder / "DATA/runs/7/photons_0001.dlog.json").unlink()


SCENARIOS: Final[dict[str, Callable[[Path], None]]] = {
    "whole": whole, "killed": whole, "rebuilt": whole, "damaged": damaged,
    "recovered": recovered, "tail": tail, "no journal": no_journal,
    "no sidecar": no_sidecar,
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("commands", blocks(), ids=lambda c: f"{c.scenario}: {c.lines[0]}")
def test_the_commands_of_the_page_do_what_it_says(commands: Commands, tmp_path: Path) -> None:
    SCENARIOS[commands.scenario](tmp_path)
    for line in commands.lines:
        words = line.split()
        assert words[0] == "dlog"
        if words[1] in ("start", "resume"):
            assert _started_and_settled(words[1:], tmp_path) == commands.exits, line
            continue
        done = run_dlog(*words[1:], cwd=tmp_path)
        assert done.returncode == commands.exits, (line, done.stdout, done.stderr)


def _started_and_settled(arguments: list[str], folder: Path) -> int:
    """Start a logger, see that it goes on with run 7, and end it with SIGTERM."""
    log = folder / "log"
    with log.open("wb") as out:
        logger = subprocess.Popen(
            dlog_command(*arguments), cwd=folder, env=environment(), stdout=out, stderr=out
        )
    try:
        until(lambda: logger.poll() is not None or "resumed run 7" in log.read_text(), "a resume")
        until(lambda: logger.poll() is not None or "control at" in log.read_text(), "a logger")
        assert logger.poll() is None, log.read_text()
        logger.send_signal(signal.SIGTERM)
        return logger.wait(LONG)
    finally:
        logger.kill()
        logger.wait(LONG)


def test_every_command_of_the_page_is_run_by_a_test() -> None:
    text = PAGE.read_text()
    assert len(re.findall(r"```sh", text)) == len(blocks())
    assert {c.scenario for c in blocks()} <= set(SCENARIOS)


def test_every_verdict_and_outcome_is_explained_on_the_page() -> None:
    from dlog.recovery.rebuild import Outcome
    from dlog.recovery.report import Verdict

    text = PAGE.read_text()
    for verdict in Verdict:
        assert f"| {verdict.exit_code} | {verdict} |" in text
    for outcome in (Outcome.NOTHING, Outcome.UNSUPPORTED, Outcome.FAILED):
        assert f"*{outcome}*" in text
