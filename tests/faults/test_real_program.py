"""The campaign on the real program: a fault at the storage calls of a scripted life, judged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.faults import campaign, real_disk, system_calls
from dlog.simulation.campaign import Outcome

# So many plays of each scenario in the default run; `make soak` tries every storage call.
PLAYS = int(os.environ.get("DLOG_FAULT_PLAYS", "5"))
JOBS = (os.cpu_count() or 1) + 1  # a play waits half of the time


@pytest.fixture(scope="module", autouse=True)
def _allowed() -> None:
    try:
        system_calls.check()
    except system_calls.Refused as refused:
        pytest.skip(f"no fault can be put into a real program here: {refused}")


@pytest.fixture(scope="module")
def length(tmp_path_factory: pytest.TempPathFactory) -> real_disk.Length:
    """How many storage calls the life has; it holds where nothing fails."""
    return real_disk.length(tmp_path_factory.mktemp("length"))


def holds(name: str, outcome: Outcome) -> None:
    said = [f"{name} --seed {outcome.seed}", *outcome.story, *outcome.problems]
    assert not outcome.problems, "\n".join(said)


def play_all(folder: Path, name: str, seeds: range, every: int, calls: int) -> None:
    print(f"\n{name}: {calls} calls, k = {every}: {len(seeds)} plays of every kth possibility")
    tasks = [(name, seed) for seed in seeds]
    struck = 0
    for _, outcome in campaign.play_all(campaign.on_disk(folder), tasks, JOBS):
        holds(name, outcome)
        struck += outcome.faults.total() > 0
    # The number of calls varies a little with the order of threads.
    assert struck >= 0.9 * len(seeds)


@pytest.mark.parametrize("name", real_disk.SCENARIOS)
def test_the_contract_holds_at_every_kth_storage_call(
    name: str, length: real_disk.Length, tmp_path: Path
) -> None:
    seeds, every = campaign.spread(name, length, PLAYS)
    play_all(tmp_path, name, seeds, every, length.of(real_disk.SCENARIOS[name]))


@pytest.mark.soak
@pytest.mark.parametrize("name", real_disk.SCENARIOS)
def test_the_contract_holds_at_every_storage_call(
    name: str, length: real_disk.Length, tmp_path: Path
) -> None:
    scenario = real_disk.SCENARIOS[name]
    play_all(tmp_path, name, range(length.seeds(scenario)), 1, length.of(scenario))
