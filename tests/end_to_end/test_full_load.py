"""Faults while several sources send as fast as the logger takes it: the contract holds at full
speed."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from dlog.faults.call_table import SYNCS, WRITES
from dlog.faults.system_calls import PASS, Call, Deed, Fate
from tests.rig.exactly_once import finish
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.rig.sources import Flood
from tests.waiting import until, until_still

pytestmark = pytest.mark.long

CONFIGURATION = (
    QUICK_INIT
    + """
memory_bytes = "64 MiB"
[streams.a]
ranges = false
part_bytes = "64 MiB"
[streams.b]
ranges = false
part_bytes = "32 MiB"
"""
)
RUN = 7
SOURCES = 3


class Switch:
    """Turned on and off while the logger runs: then the calls that `hits` take this fate."""

    def __init__(self, fate: Fate, hits: Callable[[Call], bool]) -> None:
        self.fate, self._hits = fate, hits
        self.on = False
        self.struck = 0

    def __call__(self, call: Call) -> Fate:
        if self.on and self._hits(call):
            self.struck += 1
            return self.fate
        return PASS


def flood(logger: LoggerProcess) -> list[Flood]:
    logger.start_run(RUN)
    floods = [Flood(logger.data, n, RUN) for n in range(SOURCES)]
    for each in floods:
        each.start()
    goes_on(floods)
    return floods


def acknowledged(floods: list[Flood]) -> int:
    return sum(each.source.acknowledged for each in floods)


def goes_on(floods: list[Flood], events: int = 40_000) -> None:
    before = acknowledged(floods)
    until(lambda: acknowledged(floods) > before + events, f"{events} more acknowledgements")


def test_kills_at_full_speed_cost_nothing(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start()
    floods = flood(logger)
    for _ in range(3):
        logger.kill()
        logger.start(auto=False, state="RUNNING")
        goes_on(floods)
    finish(logger, *floods)


def of_a_part(calls: frozenset[str]) -> Callable[[Call], bool]:
    return lambda call: call.name in calls and call.path.endswith(".part")


def of_the_journal(calls: frozenset[str]) -> Callable[[Call], bool]:
    return lambda call: call.name in calls and call.path == "journal/data.mdb"


@pytest.mark.usefixtures("held_calls")
@pytest.mark.parametrize(
    ("code", "calls"),
    [
        (errno.EIO, SYNCS),
        pytest.param(errno.EIO, WRITES, marks=pytest.mark.soak),
        (errno.ENOSPC, WRITES),
    ],
)
def test_a_disk_that_fails_for_a_while_at_full_speed_costs_nothing(
    new_logger: NewLogger, code: int, calls: frozenset[str]
) -> None:
    fault = Switch(Fate(Deed.FAIL, code=code), of_a_part(calls))
    logger = new_logger(CONFIGURATION).start(decide=fault)
    floods = flood(logger)
    fault.on = True
    until(lambda: fault.struck, "the fault strikes")
    # What was durable before may still be told.
    until_still(lambda: acknowledged(floods), "what is acknowledged")
    fault.on = False
    goes_on(floods)
    finish(logger, *floods)


@pytest.mark.usefixtures("held_calls")
@pytest.mark.parametrize(
    ("code", "calls"),
    [(errno.EIO, SYNCS), pytest.param(errno.EIO, WRITES, marks=pytest.mark.soak)],
)
def test_a_journal_that_fails_at_full_speed_costs_a_restart_and_nothing_else(
    new_logger: NewLogger, code: int, calls: frozenset[str]
) -> None:
    fault = Switch(Fate(Deed.FAIL, code=code), of_the_journal(calls))
    logger = new_logger(CONFIGURATION).start(decide=fault)
    floods = flood(logger)
    fault.on = True
    assert logger.ended() == 70
    logger.start(auto=False, state="RUNNING")
    goes_on(floods)
    finish(logger, *floods)


@pytest.mark.usefixtures("held_calls")
def test_slow_syncs_at_full_speed_hold_up_the_sources_and_no_command(
    new_logger: NewLogger,
) -> None:
    slow = Switch(Fate(Deed.DELAY, seconds=2.0), of_a_part(SYNCS))
    logger = new_logger(CONFIGURATION).start(decide=slow)
    floods = flood(logger)
    slow.on = True
    until(lambda: slow.struck >= 2, "syncs are slow")

    def answered_while_all_syncs_wait() -> bool:
        """As nothing is acknowledged meanwhile, no sync has come to its end."""
        before = acknowledged(floods)
        for _ in range(5):
            memory = logger.status().memory
            assert memory.in_use_bytes <= memory.budget_bytes
        return acknowledged(floods) == before

    until(answered_while_all_syncs_wait, "STATUS is answered before the disk is done")
    goes_on(floods, events=1000)
    slow.on = False
    goes_on(floods)
    finish(logger, *floods)
