"""The campaign on the real program: a fault at the storage calls of a scripted life, judged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlog.faults import campaign, real_disk

pytestmark = pytest.mark.usefixtures("held_calls")

# So many plays of each scenario in `make test-all`; `make soak` tries every storage call.
PLAYS = int(os.environ.get("DLOG_FAULT_PLAYS", "3"))
JOBS = (os.cpu_count() or 1) + 1  # a play waits half of the time


def play_all(folder: Path, name: str, plays: int) -> None:
    (tried,) = campaign.spread(folder, [name], plays)
    print(f"{name}: {len(tried.seeds)} plays; of {tried.calls} calls, k = {tried.every}")
    tasks = [(name, seed) for seed in tried.seeds]
    struck = 0
    for _, outcome in campaign.play_all(campaign.on_disk(folder), tasks, JOBS):
        told = [f"{name} --seed {outcome.seed}", *outcome.story, *outcome.problems]
        assert not outcome.problems, "\n".join(told)
        struck += outcome.faults.total() > 0
    # How many calls there are varies with the order of threads, and a moment may come too late.
    assert 2 * struck > len(tasks) or name == real_disk.MOMENTS


@pytest.mark.long
@pytest.mark.parametrize("name", real_disk.SCENARIOS)
def test_the_contract_holds_at_every_kth_storage_call(name: str, tmp_path: Path) -> None:
    play_all(tmp_path, name, PLAYS)


@pytest.mark.soak
@pytest.mark.parametrize("name", real_disk.SCENARIOS)
def test_the_contract_holds_at_every_storage_call(name: str, tmp_path: Path) -> None:
    play_all(tmp_path, name, 10_000 if name != real_disk.MOMENTS else 1_000)
