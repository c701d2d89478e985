"""What the simulated disk and journal lose in a crash, and what they never lose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import pytest

from dlog.errors import (
    DataDirectoryGone,
    DiskFull,
    JournalFailed,
    JournalFull,
    NameTaken,
    StorageError,
)
from dlog.faults.simulation.clock import SimulatedClock
from dlog.faults.simulation.disk import SECTOR_BYTES, SimulatedDirectory, SimulatedDisk
from dlog.faults.simulation.journal import JournalStore, SimulatedJournal
from dlog.faults.simulation.steps import (
    LOOKING,
    Fault,
    FaultKind,
    Operation,
    SimulatedCrash,
    StorageSteps,
    When,
)
from dlog.limits import PAGE_BYTES
from dlog.model.ids import Offset

Scenario = Callable[[SimulatedDirectory], None]


def page(mark: int, count: int = 1) -> memoryview:
    return memoryview(bytes([mark]) * (count * PAGE_BYTES))


class World:
    """One disk with one directory, through several lives."""

    def __init__(self, seed: int = 1, **options: int) -> None:
        self.random = Random(seed)
        self.clock = SimulatedClock()
        self.steps = StorageSteps(Random(seed), self.clock)
        self.disk = SimulatedDisk(self.steps, **options)
        self.directory = self.disk.directory("data")

    def power_cut(self) -> SimulatedDirectory:
        self.disk.crash(self.random)
        return self.program_death()

    def program_death(self) -> SimulatedDirectory:
        self.steps.restart()
        self.directory = self.disk.directory("data")
        return self.directory


def crashes(scenario: Scenario, prepare: Scenario) -> Iterator[World]:
    """The world after a power cut before, in and after each step of the scenario, many seeds."""
    for seed in range(12):
        for when in When:
            number = 0
            while True:
                world = World(seed)
                prepare(world.directory)
                number += 1
                world.steps.crash_at(world.steps.count + number, when)
                try:
                    scenario(world.directory)
                except SimulatedCrash:
                    world.power_cut()
                    yield world
                else:
                    break
            assert number > 1, "the scenario has no steps"


def nothing(directory: SimulatedDirectory) -> None:
    pass


# --- data -------------------------------------------------------------------------------------


def test_what_was_synced_survives_every_power_cut() -> None:
    for seed in range(50):
        world = World(seed)
        file = world.directory.create("runs/1/a")
        file.write(Offset(0), page(1, 2))
        file.sync()
        file.write(Offset(2 * PAGE_BYTES), page(2, 2))
        found = world.power_cut().open("runs/1/a", writable=False)
        assert found.read(Offset(0), 2 * PAGE_BYTES) == page(1, 2)


def test_what_was_not_synced_is_lost_kept_or_torn_between_sectors() -> None:
    fates: set[str] = set()
    for seed in range(200):
        world = World(seed)
        file = world.directory.create("a")
        file.write(Offset(0), page(1))
        file.sync()
        file.write(Offset(PAGE_BYTES), page(2, 2))
        found = world.power_cut().open("a", writable=False)
        tail = found.read(Offset(PAGE_BYTES), 8 * PAGE_BYTES)
        assert len(tail) % SECTOR_BYTES == 0
        sectors = [tail[n : n + SECTOR_BYTES] for n in range(0, len(tail), SECTOR_BYTES)]
        assert all(sector in (bytes(SECTOR_BYTES), b"\2" * SECTOR_BYTES) for sector in sectors)
        whole = tail == page(2, 2)
        fates.add("kept" if whole else "torn" if any(tail) else "lost")
    assert fates == {"kept", "torn", "lost"}


def test_a_later_write_may_survive_an_earlier_one() -> None:
    found = set()
    for seed in range(100):
        world = World(seed)
        file = world.directory.create("a")
        file.reserve(Offset(2 * PAGE_BYTES))
        file.sync()
        file.write(Offset(0), page(1))
        file.write(Offset(PAGE_BYTES), page(2))
        content = world.power_cut().open("a", writable=False).read(Offset(0), 2 * PAGE_BYTES)
        found.add((content[0], content[-1]))
    assert {(0, 2), (1, 0), (1, 2), (0, 0)} <= found


def test_when_only_the_program_dies_the_kernel_still_has_it_all() -> None:
    world = World()
    world.directory.create("a").write(Offset(0), page(1))
    found = world.program_death().open("a", writable=False)
    assert found.read(Offset(0), PAGE_BYTES) == page(1)


def test_a_cut_is_durable_once_it_returned_and_may_be_undone_before() -> None:
    def prepare(directory: SimulatedDirectory) -> None:
        file = directory.create("a")
        file.write(Offset(0), page(1, 4))
        file.sync()

    def scenario(directory: SimulatedDirectory) -> None:
        directory.open("a", writable=True).cut(Offset(PAGE_BYTES))

    sizes = set()
    for world in crashes(scenario, prepare):
        file = world.directory.open("a", writable=False)
        sizes.add(file.size())
        assert file.read(Offset(0), 4 * PAGE_BYTES) == page(1, 4)[: file.size()]
    assert sizes == {PAGE_BYTES, 4 * PAGE_BYTES}

    world = World()
    prepare(world.directory)
    scenario(world.directory)
    assert world.power_cut().open("a", writable=False).size() == PAGE_BYTES


# --- names ------------------------------------------------------------------------------------


def test_a_created_name_is_durable_once_it_returned() -> None:
    for seed in range(30):
        world = World(seed)
        world.directory.create("runs/1/a")
        assert world.power_cut().exists("runs/1/a")


def test_a_crash_inside_create_leaves_an_empty_file_or_none() -> None:
    there = set()
    for world in crashes(lambda directory: _ignore(directory.create("runs/1/a")), nothing):
        there.add(world.directory.exists("runs/1/a"))
        if world.directory.exists("runs/1/a"):
            assert world.directory.open("runs/1/a", writable=False).size() == 0
            with pytest.raises(NameTaken):
                world.directory.create("runs/1/a")
        else:
            world.directory.create("runs/1/a")
    assert there == {True, False}


def _ignore(_: object) -> None:
    pass


def test_a_file_does_not_outlive_its_folder() -> None:
    for world in crashes(lambda directory: directory.write_new("runs/1/a", b"x"), nothing):
        if world.directory.exists("runs/1/a"):
            assert world.directory.names("runs") == ["1"]
            assert world.directory.names("") == ["runs"]


def test_a_crash_inside_rename_leaves_one_name_or_both_and_never_none() -> None:
    left = set()
    for world in crashes(
        lambda directory: directory.rename("a.part", "closed/a"),
        lambda directory: directory.write_new("a.part", b"content"),
    ):
        names = [name for name in ("a.part", "closed/a") if world.directory.exists(name)]
        assert names
        assert all(world.directory.read_all(name, 100) == b"content" for name in names)
        left.add(tuple(names))
    assert left == {("a.part",), ("closed/a",), ("a.part", "closed/a")}


def test_a_crash_inside_write_new_leaves_the_whole_file_or_none() -> None:
    there = set()
    for world in crashes(lambda directory: directory.write_new("a", bytes(5000)), nothing):
        there.add(world.directory.exists("a"))
        if world.directory.exists("a"):
            assert world.directory.read_all("a", 9999) == bytes(5000)
    assert there == {True, False}


def test_a_crash_inside_remove_leaves_the_whole_file_or_none() -> None:
    there = set()
    for world in crashes(
        lambda directory: directory.remove("a"),
        lambda directory: directory.write_new("a", b"content"),
    ):
        there.add(world.directory.exists("a"))
        if world.directory.exists("a"):
            assert world.directory.read_all("a", 100) == b"content"
    assert there == {True, False}


# --- faults -----------------------------------------------------------------------------------


def fault(kind: FaultKind, *operations: Operation, **more: int) -> Fault:
    return Fault(kind, frozenset(operations), **more)  # type: ignore[arg-type]


def test_a_failed_sync_loses_pages_that_it_still_reads_back() -> None:
    lost = 0
    for seed in range(40):
        world = World(seed)
        file = world.directory.create("a")
        file.write(Offset(0), page(1))
        file.sync()
        file.write(Offset(PAGE_BYTES), page(2))
        world.steps.inject(fault(FaultKind.EIO, Operation.SYNC_FILE))
        with pytest.raises(StorageError, match="Input/output"):
            file.sync()
        assert file.read(Offset(PAGE_BYTES), PAGE_BYTES) == page(2)
        # A second sync must not be taken for a success, nor by way of a second handle.
        with pytest.raises(StorageError, match="earlier sync"):
            file.sync()
        with pytest.raises(StorageError, match="earlier sync"):
            file.write(Offset(2 * PAGE_BYTES), page(3))
        world.directory.open("a", writable=True).sync()
        found = world.power_cut().open("a", writable=False)
        assert found.read(Offset(0), PAGE_BYTES) == page(1)
        lost += found.read(Offset(PAGE_BYTES), PAGE_BYTES) != page(2)
    assert 0 < lost < 40


def test_a_sync_behind_covers_what_was_written_before_it_began_and_no_more() -> None:
    lost = 0
    for seed in range(40):
        world = World(seed)
        file = world.directory.create("a")
        file.write(Offset(0), page(1))
        sync = file.sync_behind(lambda: None)
        file.write(Offset(PAGE_BYTES), page(2))
        sync.wait()
        found = world.power_cut().open("a", writable=False)
        assert found.read(Offset(0), PAGE_BYTES) == page(1)
        lost += found.read(Offset(PAGE_BYTES), PAGE_BYTES) != page(2)
    assert 0 < lost < 40


def test_a_sync_behind_that_fails_ends_the_file_for_good() -> None:
    world = World()
    file = world.directory.create("a")
    file.write(Offset(0), page(1))
    world.steps.inject(fault(FaultKind.EIO, Operation.SYNC_FILE))
    sync = file.sync_behind(lambda: None)
    with pytest.raises(StorageError, match="Input/output"):
        sync.wait()
    with pytest.raises(StorageError, match="earlier sync"):
        file.write(Offset(PAGE_BYTES), page(2))
    with pytest.raises(StorageError):
        file.sync_behind(lambda: None).wait()
    with pytest.raises(StorageError, match="earlier sync"):
        file.sync()


def test_others_may_do_something_before_a_sync_behind_is_over() -> None:
    at_once = set()
    for seed in range(20):
        world = World(seed)
        file = world.directory.create("a")
        file.write(Offset(0), page(1))
        at_once.add(file.sync_behind(lambda: None).is_over())
    assert at_once == {True, False}


def test_a_cache_that_is_forgotten_shows_what_a_failed_sync_lost() -> None:
    for seed in range(40):
        world = World(seed)
        file = world.directory.create("a")
        file.write(Offset(0), page(1))
        world.steps.inject(fault(FaultKind.EIO, Operation.SYNC_FILE))
        with pytest.raises(StorageError):
            file.sync()
        world.disk.forget_cache()
        if world.program_death().open("a", writable=False).size() == 0:
            return
    pytest.fail("no failed sync ever lost a page")


@pytest.mark.parametrize("kind", [FaultKind.EIO, FaultKind.NO_SPACE, FaultKind.SHORT_WRITE])
def test_a_failed_write_leaves_an_unknown_part(kind: FaultKind) -> None:
    sizes = set()
    for seed in range(40):
        world = World(seed)
        file = world.directory.create("a")
        world.steps.inject(fault(kind, Operation.WRITE))
        with pytest.raises(DiskFull if kind is FaultKind.NO_SPACE else StorageError):
            file.write(Offset(0), page(1, 2))
        sizes.add(file.size())
        assert file.read(Offset(0), 2 * PAGE_BYTES) == page(1, 2)[: file.size()]
        file.write(Offset(2 * PAGE_BYTES), page(2))  # once only
    assert len(sizes) > 4


def test_a_fault_lasts_as_long_as_it_is_told_to() -> None:
    world = World()
    world.steps.inject(fault(FaultKind.NO_SPACE, Operation.RESERVE, times=2))
    file = world.directory.create("a")
    for _ in range(2):
        with pytest.raises(DiskFull):
            file.reserve(Offset(PAGE_BYTES))
    file.reserve(Offset(PAGE_BYTES))
    world.steps.inject(Fault(FaultKind.EIO, frozenset({Operation.READ}), "data/b", times=None))
    world.directory.write_new("b", b"x")
    for _ in range(3):
        with pytest.raises(StorageError):
            world.directory.read_all("b", 1)
    file.read(Offset(0), 1)
    world.steps.clear_faults()
    assert world.directory.read_all("b", 1) == b"x"


def test_a_fault_can_strike_one_numbered_step() -> None:
    world = World()
    world.directory.create("a")
    first = world.steps.count
    world.steps.inject(fault(FaultKind.EIO, *Operation, number=first + 2))
    file = world.directory.open("a", writable=True)
    file.write(Offset(0), page(1))
    with pytest.raises(StorageError):
        file.sync()


def test_a_slow_sync_takes_its_time_and_succeeds() -> None:
    world = World()
    file = world.directory.create("a")
    before = world.clock.monotonic_ns()
    world.steps.inject(fault(FaultKind.SLOW, Operation.SYNC_FILE, delay_ns=3_000_000_000))
    file.write(Offset(0), page(1))
    file.sync()
    assert world.clock.monotonic_ns() == before + 3_000_000_000
    assert world.power_cut().open("a", writable=False).size() == PAGE_BYTES


def test_a_disk_holds_no_more_than_its_capacity() -> None:
    world = World(capacity_bytes=16 * PAGE_BYTES)
    file = world.directory.create("a")
    file.reserve(Offset(10 * PAGE_BYTES))
    assert world.directory.space() == (6 * PAGE_BYTES, 16 * PAGE_BYTES)
    with pytest.raises(DiskFull):
        file.reserve(Offset(20 * PAGE_BYTES))
    world.disk.fill()
    file.write(Offset(0), page(1, 10))  # what was reserved is had
    for call in (
        lambda: file.write(Offset(10 * PAGE_BYTES), page(1)),
        lambda: _ignore(world.directory.create("b")),
        lambda: world.directory.write_new("b", b"x"),
        lambda: world.directory.write_new("folder/b", b""),
    ):
        with pytest.raises(DiskFull):
            call()
    world.disk.others_bytes = 0
    world.directory.create("b")
    world.directory.remove("a")
    assert world.directory.space().free == 16 * PAGE_BYTES


def test_a_disk_that_is_gone_is_a_failure() -> None:
    world = World()
    file = world.directory.create("a")
    world.disk.gone = True
    with pytest.raises(DataDirectoryGone):
        world.directory.space()
    with pytest.raises(DataDirectoryGone):
        world.directory.create("b")
    with pytest.raises(StorageError):
        file.sync()


# --- steps ------------------------------------------------------------------------------------


def scenario_of_everything(directory: SimulatedDirectory) -> None:
    file = directory.create("runs/1/a.part")
    file.reserve(Offset(8 * PAGE_BYTES))
    file.write(Offset(0), page(1, 3))
    file.sync()
    file.cut(Offset(2 * PAGE_BYTES))
    directory.write_new("runs/1/a.json", b"{}")
    directory.rename("runs/1/a.part", "runs/1/a")
    directory.make_read_only("runs/1/a")
    directory.remove("runs/1/a.json")


def test_every_step_is_numbered_and_in_the_history() -> None:
    world = World()
    scenario_of_everything(world.directory)
    assert [step.number for step in world.steps.history] == list(range(1, world.steps.count + 1))
    done = {step.operation for step in world.steps.history}
    assert done == set(Operation) - LOOKING - {Operation.COMMIT}
    assert [step.operation for step in world.steps.history][:7] == [
        *(Operation.MAKE_FOLDER, Operation.SYNC_FOLDER) * 2,
        *(Operation.CREATE, Operation.SYNC_FILE, Operation.SYNC_FOLDER),
    ]


def test_the_same_seed_gives_the_same_history_and_the_same_disk() -> None:
    def history(seed: int) -> tuple[object, object]:
        world = World(seed)
        world.steps.crash_at(9, When.DURING)  # the write
        with pytest.raises(SimulatedCrash):
            scenario_of_everything(world.directory)
        world.power_cut()
        return list(world.steps.history), world.disk.contents()

    assert all(history(seed) == history(seed) for seed in range(20))
    assert len({repr(history(seed)) for seed in range(20)}) > 1


def test_a_dead_program_does_nothing_more() -> None:
    world = World()
    file = world.directory.create("a")
    world.steps.crash_at(world.steps.count + 1, When.BEFORE)
    with pytest.raises(SimulatedCrash):
        file.write(Offset(0), page(1))
    # Not in its finally clauses either, nor through handles that it left behind.
    old = world.directory
    for _ in range(2):
        with pytest.raises(SimulatedCrash):
            file.sync()
        with pytest.raises(SimulatedCrash):
            old.create("b")
        world.program_death()
    assert world.directory.names("") == ["a"]


def test_a_crash_is_caught_by_no_handler_of_errors() -> None:
    assert not issubclass(SimulatedCrash, Exception)


# --- the journal ------------------------------------------------------------------------------


def test_a_commit_that_the_program_died_around_happened_or_not() -> None:
    outcomes: dict[When, set[bytes | None]] = {}
    for when in When:
        for seed in range(20):
            world, store = World(seed), JournalStore()
            journal = SimulatedJournal(world.steps, store)
            journal.commit([(b"a", b"0")])
            world.steps.crash_at(world.steps.count + 1, when)
            with pytest.raises(SimulatedCrash):
                journal.commit([(b"a", b"1"), (b"b", b"1")])
            world.power_cut()
            journal = SimulatedJournal(world.steps, store)
            assert (journal.get(b"a") == b"1") == (journal.get(b"b") == b"1")
            outcomes.setdefault(when, set()).add(journal.get(b"a"))
    assert outcomes == {
        When.BEFORE: {b"0"},
        When.DURING: {b"0", b"1"},
        When.AFTER: {b"1"},
    }


def test_a_failed_commit_is_of_unknown_outcome_and_poisons_the_journal() -> None:
    outcomes = set()
    for seed in range(20):
        world, store = World(seed), JournalStore()
        journal = SimulatedJournal(world.steps, store)
        world.steps.inject(fault(FaultKind.EIO, Operation.COMMIT))
        for call in (
            lambda journal=journal: journal.commit([(b"a", b"1")]),
            lambda journal=journal: journal.commit([(b"a", b"2")], use_ballast=True),
            lambda journal=journal: journal.get(b"a"),
            lambda journal=journal: list(journal.scan(b"")),
            lambda journal=journal: journal.size_bytes(),
        ):
            with pytest.raises(JournalFailed):
                call()
        world.program_death()
        outcomes.add(SimulatedJournal(world.steps, store).get(b"a"))
    assert outcomes == {None, b"1"}


def test_a_full_simulated_journal_is_unchanged_and_gives_its_ballast_to_those_who_may() -> None:
    world = World()
    store = JournalStore(capacity_bytes=1000, ballast_bytes=500)
    journal = SimulatedJournal(world.steps, store)
    journal.commit([(b"a", bytes(900))])
    with pytest.raises(JournalFull):
        journal.commit([(b"a", b"x"), (b"b", bytes(1200))])
    assert journal.get(b"a") == bytes(900)
    journal.commit([(b"stop", bytes(300))], use_ballast=True)
    with pytest.raises(JournalFull):
        journal.commit([(b"b", bytes(300))])
    with pytest.raises(JournalFull):
        journal.commit([(b"stop2", bytes(500))], use_ballast=True)
    # Overwriting goes on; so does everything once there is space.
    journal.commit([(b"a", bytes(899))])
    store.capacity_bytes = 5000
    journal.commit([(b"b", bytes(300))])


def test_journal_and_disk_share_one_numbering() -> None:
    world = World()
    journal = SimulatedJournal(world.steps)
    journal.commit([(b"a", b"1")])
    world.directory.write_new("a", b"")
    journal.commit([(b"a", b"2")])
    commits = [s.number for s in world.steps.history if s.operation is Operation.COMMIT]
    assert commits == [1, world.steps.count]
