"""The restart's decision table: every pair has its row, and the rows say what the design says."""

from __future__ import annotations

import itertools

import pytest

from dlog.core.replay import TABLE, Action, OnDisk, decide, on_disk
from dlog.core.states import FileState
from dlog.limits import PAGE_BYTES

SETTLED = [s for s in FileState if s is not FileState.CLOSED]
PART_IS_THERE = [OnDisk.PART, OnDisk.PART_SIDECAR]
FINAL_IS_THERE = [OnDisk.FINAL, OnDisk.FINAL_SIDECAR]
NOTHING_IS_THERE = [OnDisk.NOTHING, OnDisk.SIDECAR]


def test_every_pair_has_its_row_and_a_closed_file_none() -> None:
    assert set(TABLE) == set(itertools.product(SETTLED, OnDisk))


def rows() -> list[tuple[FileState, OnDisk, Action]]:
    state = FileState
    found = [
        *((state.CREATING, disk, Action.MOVE_ASIDE) for disk in [*PART_IS_THERE, OnDisk.BOTH]),
        *((state.CREATING, disk, Action.FORGET) for disk in FINAL_IS_THERE + NOTHING_IS_THERE),
        *((state.CLOSING, disk, Action.RESEAL) for disk in PART_IS_THERE),
        *((state.ERROR, disk, Action.SETTLE_SEALED) for disk in PART_IS_THERE),
    ]
    for opened in (state.OPEN, state.END):
        found += [(opened, disk, Action.REOPEN) for disk in [*PART_IS_THERE, OnDisk.BOTH]]
        found += [(opened, disk, Action.LOST) for disk in FINAL_IS_THERE + NOTHING_IS_THERE]
    for ending in (state.CLOSING, state.ERROR):
        found += [(ending, disk, Action.FINISH) for disk in FINAL_IS_THERE]
        found += [(ending, disk, Action.LOST) for disk in NOTHING_IS_THERE]
        found.append((ending, OnDisk.BOTH, Action.FINISH_RENAME))
    return found


@pytest.mark.parametrize(("state", "disk", "action"), rows())
def test_row(state: FileState, disk: OnDisk, action: Action) -> None:
    assert decide(state, disk, 2 * PAGE_BYTES) is action


def test_the_rows_above_are_the_whole_table() -> None:
    assert {(state, disk): action for state, disk, action in rows()} == TABLE


@pytest.mark.parametrize("disk", OnDisk)
def test_an_error_with_nothing_durable_is_a_creation_that_failed(disk: OnDisk) -> None:
    assert decide(FileState.ERROR, disk, 0) is TABLE[FileState.CREATING, disk]


def test_acknowledged_bytes_are_never_forgotten_or_moved_aside() -> None:
    for (state, _), action in TABLE.items():
        if state is not FileState.CREATING:
            assert action not in (Action.FORGET, Action.MOVE_ASIDE)


@pytest.mark.parametrize(
    ("part", "final", "sidecar", "expected"),
    [
        (False, False, False, OnDisk.NOTHING),
        (False, False, True, OnDisk.SIDECAR),
        (False, True, False, OnDisk.FINAL),
        (False, True, True, OnDisk.FINAL_SIDECAR),
        (True, False, False, OnDisk.PART),
        (True, False, True, OnDisk.PART_SIDECAR),
        (True, True, False, OnDisk.BOTH),
        (True, True, True, OnDisk.BOTH),
    ],
)
def test_what_stands_on_the_disk_has_one_name(
    part: bool, final: bool, sidecar: bool, expected: OnDisk
) -> None:
    assert on_disk(part, final, sidecar) is expected
