"""A stream whose syncs take their time: what happens meanwhile, and what the end of a run makes of
it. A sync here is over when somebody waits for it, and not before."""

from __future__ import annotations

import pytest

from dlog.faults.simulation.steps import FaultKind, Operation
from dlog.limits import MIB
from dlog.services import stream_thread
from dlog.services.stream_thread import Ending
from tests.simulated_logger import (
    LARGE_BYTES,
    PHOTONS_FILES,
    StreamByHand,
    closed_files,
    fail,
    send,
)

NO_SPACE_REASON = "no-space-at-end-of-run"


def no_space(rig: StreamByHand) -> None:
    """Nothing new is made or reserved any more; what is reserved can be written."""
    fail(rig.world, Operation.RESERVE, Operation.CREATE, kind=FaultKind.NO_SPACE, times=None)


def with_two_written(*, directories: int = 1) -> StreamByHand:
    """Event 1 has a sync under way; event 2 is written whole, and no sync covers it."""
    rig = StreamByHand(directories=directories)
    for number in (1, 2):
        rig.hand(number)
        rig.own_thread(1)
    assert (rig.acknowledged, rig.syncs) == (1, 1)
    return rig


def test_what_is_written_meanwhile_waits_for_the_next_sync() -> None:
    rig = with_two_written()
    rig.sync()
    assert (rig.acknowledged, rig.syncs) == (2, 1)
    rig.sync()
    assert (rig.acknowledged, rig.syncs) == (3, 0)


def test_groups_that_are_whole_do_not_wait_for_one_that_finds_no_space() -> None:
    rig = with_two_written()
    no_space(rig)
    rig.hand(3, 2 * MIB)
    rig.own_thread(2)
    assert rig.writer.stalled
    while rig.syncs:
        rig.sync()
        rig.own_thread(1)
    assert rig.acknowledged == 3
    rig.writer.end(Ending.FINISH)
    rig.own_thread(1)
    assert rig.refused == {NO_SPACE_REASON: 1}
    assert rig.world.problems(complete=True) == []


def test_a_run_that_ends_refuses_no_group_that_is_whole() -> None:
    rig = with_two_written()
    no_space(rig)
    rig.hand(3, 2 * MIB)
    rig.writer.end(Ending.FINISH)
    rig.own_thread(1)
    assert rig.refused == {NO_SPACE_REASON: 1}
    assert rig.world.problems(complete=True) == []
    assert rig.acknowledged == 3


def test_a_run_that_ends_goes_on_where_space_is_back_by_then() -> None:
    # Its last sync took long and failed. Meanwhile there was space: what was staged and waiting was
    # refused all the same, and without a reason.
    rig = StreamByHand()
    rig.hand(1)
    rig.own_thread(1)
    no_space(rig)
    for number in range(2, 25):
        rig.hand(number, 100_000)
    rig.own_thread(20)
    assert rig.writer.stalled
    rig.hand(25)
    rig.writer.end(Ending.FINISH)

    def space_comes_back_and_the_sync_fails() -> None:
        rig.world.clock.advance(500_000_000)
        rig.world.steps.clear_faults()
        fail(rig.world, Operation.SYNC_FILE, path=f"{PHOTONS_FILES}_0001")

    rig.world.disks[0].while_syncing = space_comes_back_and_the_sync_fails
    rig.own_thread(5)
    assert rig.refused == {}
    assert rig.writer.over
    assert rig.acknowledged == 26


def test_a_directory_that_is_full_is_left_without_an_error_where_all_is_whole() -> None:
    rig = with_two_written(directories=2)
    rig.world.disks[0].fill()
    rig.hand(3, 2 * MIB)
    rig.own_thread(1)
    ((first,), second) = closed_files(rig.world), rig.files
    assert (first.part, first.directory, first.sealed) == (1, 0, False)
    assert second == [(2, 1, "OPEN")]
    assert rig.acknowledged == 3
    rig.goes_on()


def test_nothing_is_synced_where_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # A sync of no block came to its end like any other, and ended the stream's thread.
    monkeypatch.setattr(stream_thread, "SYNC_BYTES_MAX", LARGE_BYTES // 2)
    rig = StreamByHand()
    for number in range(1, 4):
        rig.hand(number)
    rig.world.disk_failed = True
    fail(rig.world, Operation.SYNC_FILE, path=PHOTONS_FILES)
    rig.own_thread(4)
    rig.goes_on()


def test_a_part_is_not_told_of_a_block_whose_group_lost_another_one() -> None:
    # Of three blocks the last two are a group, and its first one is to be written again, since its
    # part in END was sealed. The first group is whole, but the commit that tells of it would tell
    # of the third block, which is in the same part.
    rig = StreamByHand(batch_events=2, part_events=4, late_seconds=1e6)
    rig.world.disk_failed = True
    send(rig.source, *range(1, 5))
    for _ in range(4):
        rig.own_thread()
        rig.sync()
    assert [(part, state) for part, _, state in rig.files] == [(1, "END"), (2, "OPEN")]
    with rig.writer.turn:
        send(rig.source, 5, size_bytes=LARGE_BYTES)
        send(rig.source, 2, 6)
        rig.others_work()
    fail(rig.world, Operation.SYNC_FILE, path=f"{PHOTONS_FILES}_0001")
    no_space(rig)
    for _ in range(6):
        rig.own_thread(1)
        rig.sync()
    assert rig.writer.stalled
    assert rig.world.problems() == []
    assert rig.acknowledged == 5
    rig.goes_on()
