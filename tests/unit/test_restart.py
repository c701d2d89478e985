"""The restart: what it makes of the files of a program that died, also where the disk fails it."""

from __future__ import annotations

from functools import partial

import pytest

from dlog.core import journal_records as records
from dlog.core.journal_records import (
    ClosedFileRecord,
    FileRecord,
    OperationRecord,
    QuarantineRecord,
)
from dlog.core.states import FileState
from dlog.faults.simulation.steps import Operation, When
from dlog.faults.simulation.world import World
from dlog.limits import PAGE_BYTES
from dlog.model.ids import Offset
from tests.simulated_logger import (
    OTHER_RUN,
    PHOTONS,
    RUN,
    closed_files,
    fail,
    life_of,
    open_files,
    recorded,
    running,
    send,
)

FILE = "runs/7/photons_0001.dlog"


def with_an_event() -> World:
    world = running(streams={"photons": {}})
    world.power_cut = False
    send(world.source("router-1"), 1)
    world.settle()
    return world


def write_a_tail(world: World, *, synced: bool = False) -> None:
    """What a killed program may leave: a block behind the durable offset, perhaps in the page cache
    alone."""
    (directory,) = life_of(world).directories
    file = directory.open(FILE + ".part", writable=True)
    end = record_of(world).durable
    file.write(end, memoryview(b"\x55" * PAGE_BYTES))  # type: ignore[arg-type]
    if synced:
        file.sync()


def record_of(world: World) -> FileRecord:
    (found,) = (record for record in open_files(world) if record.path == FILE)
    return found


def record_or_none(world: World) -> FileRecord | None:
    return next((record for record in open_files(world) if record.path == FILE), None)


def closed_of(world: World) -> ClosedFileRecord:
    (found,) = (record for record in closed_files(world) if record.path == FILE)
    return found


def finished(world: World) -> None:
    """It all comes to a good end, with nothing left over."""
    world.steps.clear_faults()
    world.pump(600)
    world.settle()
    assert world.do("STOP RUN", run=RUN).ok
    assert world.do("STOP").ok
    assert world.problems(complete=True, stopped=True) == []
    assert world.lost == []


def test_what_cannot_be_read_now_is_sealed_and_not_lost() -> None:
    world = with_an_event()
    write_a_tail(world)
    world.kill()
    # The first of them strikes the look for an older journal.
    fail(world, Operation.READ, path="data/runs", times=2)
    world.pump(1)
    assert world.lost == []
    assert record_of(world).state is FileState.ERROR
    assert record_of(world).sealed
    finished(world)
    assert closed_of(world).sealed


def test_a_part_that_lacks_acknowledged_bytes_is_closed_as_bad_and_does_not_stay_a_part() -> None:
    world = with_an_event()
    send(world.source("router-2"), 1)
    world.settle()
    whole = record_of(world)
    (directory,) = life_of(world).directories
    file = directory.open(FILE + ".part", writable=True)
    file.write(Offset(whole.last_header_offset), memoryview(b"\x55" * PAGE_BYTES))
    file.sync()
    world.kill()
    world.pump(1)
    assert record_of(world).state is FileState.ERROR
    assert not record_of(world).sealed
    world.pump(600)  # the housekeeper closes it
    closed = closed_of(world)
    assert (closed.status, closed.sealed) == ("bad", True)
    assert closed.totals.events == whole.totals.events - 1
    assert closed.reason.startswith("1 acknowledged events are lost: ")
    assert FILE + ".part" not in {record.path for record in open_files(world)}


@pytest.mark.parametrize("killed_again", [False, True])
def test_a_part_that_somebody_gave_its_final_name_ends_where_it_was_acknowledged(
    killed_again: bool,
) -> None:
    # What lies behind is sent again: it would stand twice.
    world = with_an_event()
    acknowledged = record_of(world).durable
    life_of(world).committer.step = lambda **_: True  # type: ignore[method-assign]
    send(world.sources[0], 2)
    disk = world.disks[0]
    world.pump(50)
    assert any(disk.contents()[f"data/{FILE}.part"][acknowledged:])
    world.kill()
    disk.move(f"data/{FILE}.part", f"data/{FILE}")
    if killed_again:  # before the housekeeper looked at it
        world.pump(1)
        world.kill()
    world.pump(600)
    assert record_or_none(world) is None
    closed = closed_of(world)
    assert (closed.size_bytes, closed.totals.events) == (acknowledged, 1)
    assert (closed.status, closed.sealed) == ("good", True)
    assert [a.name for a in life_of(world).alarms.raised() if a.name.startswith("file ")] == []
    world.lost.clear()  # its first words were that events may be lost
    finished(world)


def test_a_cut_whose_sync_failed_is_made_durable_by_the_next_try() -> None:
    world = with_an_event()
    write_a_tail(world)
    world.kill()
    fail(world, Operation.SYNC_FILE, path="data/" + FILE)
    world.pump(1)
    world.pump(600)  # the housekeeper settles it
    world.power_cut = True
    world.kill()
    assert world.problems() == []
    world.pump(1)
    finished(world)


def test_a_tail_that_could_not_be_saved_is_saved_by_the_next_try_of_the_same_boot() -> None:
    world = with_an_event()
    write_a_tail(world)
    world.kill()
    fail(world, Operation.WRITE, path="data/quarantine")
    world.pump(1)
    assert record_of(world).state is FileState.ERROR
    world.pump(600)
    assert closed_of(world).sealed
    tails = [name for name in world.disks[0].contents() if name.endswith(".tail")]
    assert len(tails) == 1  # what the first try had is gone again
    finished(world)


@pytest.mark.long
def test_a_crash_in_the_sealing_of_a_part_without_range_leaves_it_closing() -> None:
    """It has no range to be END with: at each step of the restart that seals it."""

    def closing() -> World:
        world = World(1)
        world.power_cut = False
        world.do("INIT", drain_seconds=0.0)
        world.do("CONFIGURE", streams={"photons": {"ranges": False}})
        world.do("START RUN", run=RUN)
        source = world.source("router-1")
        source.send(RUN, (PHOTONS,), 1, b"x" * 100)
        world.settle()
        world.give("STOP RUN", run=RUN)
        while record_of(world).state is not FileState.CLOSING:
            world.steps.crash_at(world.steps.count + 1, When.AFTER)
            world.pump()
            if world.life is None and record_of(world).state is not FileState.CLOSING:
                world.pump()
        world.steps.no_crash()
        if world.life is not None:
            world.kill()
        return world

    for step in range(1, 40):
        world = closing()
        world.steps.crash_at(world.steps.count + step, When.AFTER)
        world.pump(1)
        world.steps.no_crash()
        world.pump(300)
        assert world.failures == []
        assert closed_of(world).totals.events == 1
        assert world.problems() == []


def tails_of(world: World) -> dict[str, bytes]:
    return {n: c for n, c in world.disks[0].contents().items() if n.endswith(".tail")}


def test_a_power_cut_while_a_tail_is_saved_leaves_no_half_of_it() -> None:
    """At each step of the saving; what is cut off is saved again, whole."""
    rehearsal = with_an_event()
    write_a_tail(rehearsal, synced=True)
    rehearsal.kill()
    begin = rehearsal.steps.count
    rehearsal.pump(1)
    (whole,) = tails_of(rehearsal).values()
    steps = rehearsal.steps.count - begin
    empty = 0
    for step in range(1, steps + 1):
        world = with_an_event()
        write_a_tail(world, synced=True)
        world.kill()
        world.power_cut = True
        world.steps.crash_at(world.steps.count + step, When.AFTER)
        world.after_crash = partial(note_sizes, world, sizes := [])
        world.pump(1)
        empty += 0 in sizes
        assert set(tails_of(world).values()) == {whole}
        kept = [
            tail
            for tail in recorded(world, records.QUARANTINE, QuarantineRecord)
            if not tail.saving
        ]
        assert {f"data/{tail.path}" for tail in kept} == set(tails_of(world))
        assert world.problems() == []
    assert empty  # what the crash bench saw came up


def note_sizes(world: World, sizes: list[int]) -> None:
    sizes += [len(content) for content in tails_of(world).values()]


@pytest.mark.parametrize("how", ["the run ends", "the source says BYE"])
def test_a_tail_that_cannot_be_read_goes_when_its_sources_have_nothing_more(how: str) -> None:
    world = with_an_event()
    write_a_tail(world)
    world.kill()
    world.pump(600)
    assert len(tails_of(world)) == 1
    (tail,) = recorded(world, records.QUARANTINE, QuarantineRecord)
    assert tail.sessions == [world.sources[0].session]
    if how == "the run ends":
        assert world.do("STOP RUN", run=RUN).ok
    else:
        world.sources[0].close()
    world.pump(1200)
    assert tails_of(world) == {}
    assert recorded(world, records.QUARANTINE, QuarantineRecord) == []
    assert world.problems() == []


def test_a_tail_that_cannot_be_read_stays_where_a_source_never_comes_back() -> None:
    world = with_an_event()
    world.sources[0].silent = True
    write_a_tail(world)
    world.kill()
    assert world.do("STOP RUN", run=RUN).ok
    world.pump(1200)
    assert len(tails_of(world)) == 1


def test_an_operation_that_failed_is_told_so_in_the_log() -> None:
    world = with_an_event()
    write_a_tail(world)
    world.kill()
    fail(world, Operation.CUT)
    world.pump(1)
    told = recorded(world, records.DONE_OPERATIONS, OperationRecord)
    assert any(o.detail.startswith("failed: ") for o in told if o.kind == "cut")
    assert recorded(world, records.OPERATIONS, OperationRecord) == []
    finished(world)


def test_a_file_whose_directory_failed_behind_its_rename_is_closed_with_its_footer() -> None:
    rehearsal = with_an_event()
    assert rehearsal.do("STOP RUN", run=RUN).ok
    steps = list(rehearsal.steps.history)
    renamed = next(s.number for s in steps if s.path == "data/" + FILE)
    assert steps[renamed].operation is Operation.SYNC_FOLDER
    world = with_an_event()
    world.disk_failed = True
    fail(world, Operation.SYNC_FOLDER, number=renamed + 1)
    assert world.do("STOP RUN", run=RUN).ok
    world.pump(600)
    closed = closed_of(world)
    assert not closed.sealed
    assert closed.size_bytes == len(world.disks[0].contents()["data/" + FILE])
    assert closed.size_bytes > PAGE_BYTES * 2
    assert world.problems(complete=True) == []


@pytest.mark.parametrize("fails", ["at its close", "at the restart", "where that closes it"])
def test_nothing_goes_on_for_a_file_whose_directory_failed_behind_its_rename(fails: str) -> None:
    # It is whole and closed with its footer. A new part said that it was sealed and went on for it.
    world = with_a_full_part()
    fail_behind_rename = partial(fail, world, Operation.SYNC_FOLDER, path="data/runs/7")
    if fails == "at its close":
        number = step_of_rename(with_a_full_part()) + 1
        fail_behind_rename(number=number)
        world.run_until(lambda: record_of(world).state is FileState.ERROR, "it does not fail")
        world.kill()
    elif fails == "at the restart":
        world.steps.crash_at(step_of_rename(with_a_full_part()), When.AFTER)
        world.on_restart = fail_behind_rename
    else:
        number = step_of_rename(killed_before_the_rename(with_a_full_part())) + 1
        killed_before_the_rename(world)
        fail_behind_rename(number=number)
    world.pump(100)
    assert world.reboots == 1
    (source,) = world.sources
    send(source, 2)
    world.settle()
    world.kill()
    world.pump(20)
    assert not closed_of(world).sealed
    assert world.problems(complete=True) == []


def step_of_rename(world: World) -> int:
    begin = world.steps.count
    world.settle()
    world.pump(100)
    steps = world.steps.history
    return next(s.number for s in steps if s.path == "data/" + FILE and s.number > begin)


def killed_before_the_rename(world: World) -> World:
    world.steps.crash_at(step_of_rename(with_a_full_part()), When.BEFORE)
    world.run_until(lambda: world.reboots == 1, "it does not die")
    return world


def with_a_full_part() -> World:
    world = running(streams={"photons": {"ranges": False, "part_events": 1}})
    world.power_cut = False
    world.disk_failed = True
    send(world.source("router-1"), 1)
    return world


def test_a_foreign_file_under_the_final_name_is_left_alone() -> None:
    world = with_an_event()
    (directory,) = life_of(world).directories
    directory.write_new(FILE, b"somebody else's")
    world.do("STOP RUN", run=RUN)
    world.pump(600)
    world.kill()
    world.pump(600)
    assert world.disks[0].contents()["data/" + FILE] == b"somebody else's"
    assert f"data/{FILE}.part" in world.disks[0].contents()
    assert world.problems() == []


def test_an_orphan_file_that_the_housekeeper_settles_is_told_with_its_own_configuration() -> None:
    world = with_an_event()
    send(world.source("router-2"), 1, run=OTHER_RUN)
    world.settle()
    world.kill()
    orphans = "data/orphans/orphan_0001.dlog"
    # Sealed at the restart; its sidecar cannot be made either.
    fail(world, Operation.READ, path=orphans, times=2)
    fail(world, Operation.CREATE, Operation.WRITE, path=orphans + ".json")
    world.pump(1)
    world.pump(600)
    assert orphans in world.disks[0].contents()
    finished(world)
