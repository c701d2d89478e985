"""What becomes of an event: every row of the design's table, and every pair of it."""

from __future__ import annotations

import itertools

import pytest

from dlog.core.block import OrphanReason
from dlog.core.fate import NO_RUN_ACTIVE, RUN_ABORTED, Fate, Knowledge, Verdict, fate
from dlog.core.states import RUN_LIVE, RunState

K, S = Knowledge, RunState
STORED = Verdict(Fate.STORED, "")
EVERY = list(itertools.product([None, *RunState], Knowledge))


@pytest.mark.parametrize(("run", "knowledge"), EVERY)
def test_without_an_active_run_everything_is_refused(
    run: RunState | None, knowledge: Knowledge
) -> None:
    reason = RUN_ABORTED if run is S.ABORTED else NO_RUN_ACTIVE
    assert fate(False, run, knowledge) == Verdict(Fate.REFUSED, reason)


@pytest.mark.parametrize("run", sorted(RUN_LIVE))
def test_a_live_run_stores_what_comes_for_its_streams(run: RunState) -> None:
    """Also PAUSED: what comes anyway is stored. Also ENDING, until it is drained."""
    assert fate(True, run, K.STREAM_KNOWN) == STORED


@pytest.mark.parametrize("run", sorted(RUN_LIVE))
def test_a_stream_that_the_run_does_not_know_goes_to_the_orphans(run: RunState) -> None:
    assert fate(True, run, K.STREAM_UNKNOWN) == Verdict(Fate.ORPHAN, "stream-unknown")


@pytest.mark.parametrize("knowledge", Knowledge)
@pytest.mark.parametrize(
    ("run", "reason"),
    [(S.ENDED, "run-ended"), (S.FAILED, "run-failed"), (None, "run-unknown")],
)
def test_a_run_that_is_over_or_never_was_goes_to_the_orphans(
    run: RunState | None, reason: str, knowledge: Knowledge
) -> None:
    assert fate(True, run, knowledge) == Verdict(Fate.ORPHAN, reason)


@pytest.mark.parametrize("knowledge", Knowledge)
@pytest.mark.parametrize("active", [True, False])
def test_an_aborted_run_refuses_always(active: bool, knowledge: Knowledge) -> None:
    assert fate(active, S.ABORTED, knowledge) == Verdict(Fate.REFUSED, RUN_ABORTED)


@pytest.mark.parametrize(("run", "knowledge"), EVERY)
def test_every_pair_has_a_verdict_with_a_reason_unless_it_is_stored(
    run: RunState | None, knowledge: Knowledge
) -> None:
    if run in RUN_LIVE and knowledge is K.RUN_UNKNOWN:
        return  # a live run is known
    verdict = fate(True, run, knowledge)
    assert (verdict.fate is Fate.STORED) == (verdict.reason == "")


def test_every_reason_for_the_orphans_can_be_told_in_a_block() -> None:
    known = {reason.words for reason in OrphanReason}
    for run, knowledge in EVERY:
        if run in RUN_LIVE and knowledge is K.RUN_UNKNOWN:
            continue
        verdict = fate(True, run, knowledge)
        if verdict.fate is Fate.ORPHAN:
            assert verdict.reason in known
