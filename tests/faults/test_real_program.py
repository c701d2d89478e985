"""The campaign on the real program: a fault at the storage calls of a scripted life, judged."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from dlog.faults import campaign, real_disk, system_calls
from dlog.faults.simulation.campaign import Outcome

# So many plays of each scenario in `make test-all`; `make soak` tries every storage call.
PLAYS = int(os.environ.get("DLOG_FAULT_PLAYS", "2"))
JOBS = (os.cpu_count() or 1) + 1  # a play waits half of the time


@pytest.fixture(scope="module", autouse=True)
def _allowed() -> None:
    try:
        system_calls.check()
    except system_calls.Refused as refused:
        pytest.skip(f"no fault can be put into a real program here: {refused}")


def holds(name: str, outcome: Outcome) -> None:
    said = [f"{name} --seed {outcome.seed}", *outcome.story, *outcome.problems]
    assert not outcome.problems, "\n".join(said)


def play_all(folder: Path, names: Sequence[str], plays: int) -> None:
    tasks: list[campaign.Task] = []
    for tried in campaign.spread(folder, names, plays):
        print(
            f"\n{tried.name}: {len(tried.seeds)} plays; of {tried.calls} calls, k = {tried.every}"
        )
        tasks += [(tried.name, seed) for seed in tried.seeds]
    struck = 0
    for name, outcome in campaign.play_all(campaign.on_disk(folder), tasks, JOBS):
        holds(name, outcome)
        struck += name != real_disk.MOMENTS and outcome.faults.total() > 0
    # The number of calls varies a little with the order of threads, the moments with the machine.
    assert struck >= 0.8 * sum(name != real_disk.MOMENTS for name, _ in tasks)


@pytest.mark.long
def test_the_contract_holds_at_every_kth_storage_call(tmp_path: Path) -> None:
    play_all(tmp_path, list(real_disk.SCENARIOS), PLAYS)


@pytest.mark.soak
@pytest.mark.parametrize("name", real_disk.SCENARIOS)
def test_the_contract_holds_at_every_storage_call(name: str, tmp_path: Path) -> None:
    play_all(tmp_path, [name], 10_000 if name != real_disk.MOMENTS else 1_000)
