"""kill -9 at random moments, under load: every acknowledged event stands exactly once."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Sequence

import pytest

from tests.rig.exactly_once import finish
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.rig.sources import Sender
from tests.waiting import until

RUNS = (7, 8)
FEW_CYCLES = 5
CYCLES = int(os.environ.get("DLOG_KILL_CYCLES", "50"))
SOAK_CYCLES = int(os.environ.get("DLOG_SOAK_CYCLES", "2000"))
SEED = int(os.environ.get("DLOG_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)

CONFIGURATION = (
    QUICK_INIT
    + """
[streams.ranged]
part_events = 150
late_seconds = 0.3
reserve_bytes = "1 MiB"

[streams.packed]
part_bytes = "1 MiB"
late_seconds = 0.3
compression = "zstd"
filter = "shuffle"
reserve_bytes = "1 MiB"

[streams.plain]
ranges = false
part_seconds = 1.0
reserve_bytes = "1 MiB"
"""
)
# Of eight events, which go where; two of them to two streams.
PATTERN = (
    "ranged",
    "ranged",
    "packed",
    "plain",
    "ranged+packed",
    "packed",
    "ranged+plain",
    "plain",
)


def test_every_event_stands_exactly_once_after_a_few_kills(new_logger: NewLogger) -> None:
    kill_and_compare(new_logger, FEW_CYCLES, SEED)


@pytest.mark.long
def test_every_event_stands_exactly_once_after_fifty_kills(new_logger: NewLogger) -> None:
    kill_and_compare(new_logger, CYCLES, SEED)


@pytest.mark.soak
def test_every_event_stands_exactly_once_after_thousands_of_kills(new_logger: NewLogger) -> None:
    kill_and_compare(new_logger, SOAK_CYCLES, SEED)


def kill_and_compare(new_logger: NewLogger, cycles: int, seed: int) -> None:
    print(f"\nDLOG_KILL_SEED={seed} DLOG_KILL_CYCLES={cycles}")
    chance = random.Random(seed)
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(*RUNS)
    senders = [
        Sender(
            logger.data, f"source-{i}", RUNS, PATTERN, offset=i, step=2, seed=seed + i,
            # The second one falls behind at times, and some of its events come when their ranges
            # are long closed.
            lag_seconds=0.6 if i else 0.0, hold_back=31 if i else 0,
        )
        for i in range(2)
    ]  # fmt: skip
    for sender in senders:
        sender.start()
    recoveries = []
    killed_at = 0.0
    for cycle in range(cycles):
        # A third of the kills hits the start and the resume; the others what goes on after.
        if cycle == 0 or chance.random() < 0.67:
            recovered_at = wait_for_acknowledgement(logger, senders)
            if killed_at:
                recoveries.append(recovered_at - killed_at)
            time.sleep(chance.uniform(0.0, 0.25))
        else:
            time.sleep(chance.uniform(0.0, 0.6))
        logger.kill()
        killed_at = time.monotonic()
        logger.spawn(auto=False, resume=chance.random() < 0.2)
    recoveries.append(wait_for_acknowledgement(logger, senders) - killed_at)
    sent = finish(logger, *senders).total()
    print(
        f"{cycles} kills, {sent} pieces; from kill to acknowledgement: median "
        f"{statistics.median(recoveries):.2f} s, worst {max(recoveries):.2f} s"
    )
    assert_files_are_closed(logger, RUNS)


def wait_for_acknowledgement(logger: LoggerProcess, senders: Sequence[Sender]) -> float:
    """When the first batch of this boot was acknowledged."""
    before: dict[str, int] = {}

    def acknowledged() -> bool:
        code = logger.exit_code()
        assert code is None, f"the logger ended with {code}"
        for sender in senders:
            assert sender.error is None, sender.error
            report = sender.source.report()
            if report.state != "connected":
                # What is still under way from a logger that was killed does not count.
                before[report.name] = report.acknowledged
            elif report.acknowledged > before.setdefault(report.name, report.acknowledged):
                return True
        return False

    until(acknowledged, "an acknowledgement after the restart", every=0.005)
    return time.monotonic()


def assert_files_are_closed(logger: LoggerProcess, runs: Sequence[int]) -> None:
    for run in runs:
        folder = logger.data / "runs" / str(run)
        files = logger.files(run)
        assert files
        assert list(folder.glob("*.part")) == []
        assert {path.stat().st_mode & 0o777 for path in files} == {0o444}
