"""A journal that is lost under a run: rebuilt from the files alone, the run goes on, and what the
sources send again is still not stored twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.rig.commands import run_dlog
from tests.rig.exactly_once import finish
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.rig.sources import Sender
from tests.waiting import until

pytestmark = pytest.mark.long

CONFIGURATION = (
    QUICK_INIT
    + """
[streams.ranged]
part_events = 300
late_seconds = 0.3
reserve_bytes = "1 MiB"

[streams.packed]
part_bytes = "1 MiB"
compression = "zstd"
filter = "shuffle"
reserve_bytes = "1 MiB"
"""
)
PATTERN = ("ranged", "packed", "ranged+packed")


def _under_load(logger: LoggerProcess, acknowledged: int) -> list[Sender]:
    """Two sources, killed in the middle of what they send."""
    logger.start_run(7, 8)
    senders = [
        Sender(logger.data, f"source-{i}", (7, 8), PATTERN, offset=i, step=2, seed=i)
        for i in range(2)
    ]
    for sender in senders:
        sender.start()
    until(
        lambda: all(s.source.report().acknowledged > acknowledged for s in senders),
        "acknowledgements",
    )
    logger.kill()
    return senders


def _finish(logger: LoggerProcess, senders: list[Sender]) -> None:
    for sender in senders:
        sender.goes_on(0)
    finish(logger, *senders, counted=False)


def _rebuilt(data: Path) -> dict[str, Any]:
    done = run_dlog("journal", "rebuild", data, "--json")
    assert done.returncode == 0, done.stderr.decode()
    told: dict[str, Any] = json.loads(done.stdout)
    # A kill may leave a later block on the disk and not an earlier one, of other parts too.
    assert [text for text in told["problems"] if "are not trusted" not in text] == []
    checked = run_dlog("journal", "check", data)
    assert checked.returncode == 0, checked.stdout.decode()
    return told


def test_a_run_goes_on_exactly_once_after_its_journal_was_lost(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start()
    senders = _under_load(logger, 1500)
    shutil.rmtree(logger.data / "journal")
    told = _rebuilt(logger.data)
    assert told["live_runs"] == [7, 8]
    assert told["old_journal"] == ""
    logger.start(auto=False, state="RUNNING")
    _finish(logger, senders)


def test_a_scrambled_journal_is_named_kept_aside_and_replaced(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start()
    senders = _under_load(logger, 500)
    database = logger.data / "journal" / "data.mdb"
    content = bytearray(database.read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    database.write_bytes(content)

    for command in (["verify", logger.data], ["journal", "check", logger.data]):
        done = run_dlog(*command)
        assert done.returncode == 5
        assert f"dlog journal rebuild {logger.data}" in done.stdout.decode()
    assert run_dlog("start", "-c", logger.config_file).returncode != 0

    told = _rebuilt(logger.data)
    aside = logger.data / "journal.old-1"
    assert told["old_journal"] == str(aside)
    assert (aside / "data.mdb").read_bytes() == bytes(content)
    logger.start(auto=False, state="RUNNING")
    _finish(logger, senders)


def test_verify_of_a_running_logger_finds_nothing_and_hurts_nothing(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(7)
    sender = Sender(logger.data, "source-0", (7,), PATTERN)
    sender.start()
    for n in range(4):
        until(lambda n=n: sender.source.report().acknowledged > 100 * n, "acknowledgements")
        done = run_dlog("verify", logger.data, "--json")
        assert done.returncode == 0, done.stdout.decode()
    checked = run_dlog("journal", "check", logger.data)
    assert checked.returncode == 0, checked.stdout.decode()
    refused = run_dlog("journal", "rebuild", logger.data)
    assert refused.returncode == 1
    assert b"another logger runs" in refused.stderr
    finish(logger, sender)


@pytest.mark.soak
def test_a_journal_may_be_lost_again_and_again(new_logger: NewLogger) -> None:
    """With late events, several boots in a file, and kills at random moments."""
    cycles = int(os.environ.get("DLOG_REBUILD_CYCLES", "50"))
    chance = random.Random(int(os.environ.get("DLOG_KILL_SEED", "1")))
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(7, 8)
    senders = [
        Sender(
            logger.data, f"source-{i}", (7, 8), PATTERN, offset=i, step=2, seed=i,
            lag_seconds=0.6 * i,
        )
        for i in range(2)
    ]  # fmt: skip
    for sender in senders:
        sender.start()
    for _ in range(cycles):
        before = [s.source.report().acknowledged for s in senders]
        until(
            lambda before=before: any(
                s.source.report().acknowledged > n for s, n in zip(senders, before, strict=True)
            ),
            "acknowledgements",
        )
        time.sleep(chance.uniform(0.0, 0.8))
        logger.kill()
        shutil.rmtree(logger.data / "journal")
        _rebuilt(logger.data)
        logger.spawn(auto=False)
    _finish(logger, senders)
