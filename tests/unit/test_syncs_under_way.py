"""A stream whose syncs take their time: what happens meanwhile, and what the end of a run makes of
it. A sync here is over when somebody waits for it, and not before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dlog.core import journal_records as records
from dlog.core.journal_records import ClosedFileRecord, FileRecord, decode_record
from dlog.errors import StorageError
from dlog.faults.simulation.disk import SimulatedSync
from dlog.faults.simulation.sources import SimulatedSource
from dlog.faults.simulation.steps import Fault, FaultKind, Operation
from dlog.faults.simulation.world import World
from dlog.limits import MIB
from dlog.model.ids import RunNumber, StreamName
from dlog.services import stream_thread
from dlog.services.block_store import BlockStore
from dlog.services.committer import Settlement
from dlog.services.stream_thread import Ending, StreamWriter

RUN = RunNumber(7)
PHOTONS = StreamName("photons")
NO_SPACE = Fault(FaultKind.NO_SPACE, frozenset({Operation.RESERVE, Operation.CREATE}), times=None)
LARGE_BYTES = 70_000  # of an event that makes a block by itself


@pytest.fixture(autouse=True)
def slow_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedSync, "is_over", lambda self: self.done)


class Rig:
    def __init__(self, *, directories: int = 1, batch_events: int = 1, **stream: object) -> None:
        self.world = World(seed=1, directories=directories)
        self.world.do("INIT", drain_seconds=0.05)
        self.world.do("CONFIGURE", streams={"photons": {}})
        self.world.do("START RUN", run=RUN)
        self.source: SimulatedSource = self.world.source("router-1", batch_events=1)
        self.world.pump(5)
        assert self.world.life is not None
        self.life = self.world.life
        self.writer: StreamWriter = next(
            w.writer for w in self.life.writers if w.writer.key.run == RUN
        )
        self.refused: list[Settlement] = []
        settle = self.writer._committer.settle

        def listen(settlement: Settlement) -> None:
            self.refused.append(settlement)
            settle(settlement)

        self.writer._committer.settle = listen  # type: ignore[method-assign]

    @property
    def store(self) -> BlockStore:
        return self.writer._store

    def send(self, number: int, size_bytes: int = LARGE_BYTES) -> None:
        """An event that comes as far as the stream's inbox, for its thread has its turn."""
        self.source.send(RUN, (PHOTONS,), number, b"x" * size_bytes)
        with self.writer.turn:
            self.others_work()

    def end_sync(self) -> None:
        with self.writer.turn:
            assert self.store.end_sync()

    def others_work(self, rounds: int = 10) -> None:
        for _ in range(rounds):
            self.world.clock.advance(10_000_000)
            self.source.step()
            self.world.coor.step(self.life.link)
            self.life.commander.step()
            self.life.committer.step()
            if self.life.events is not None:
                self.life.events.step()

    def files(self) -> list[FileRecord | ClosedFileRecord]:
        found: list[FileRecord | ClosedFileRecord] = []
        for key, value in sorted(self.world.store.pairs.items()):
            if key.startswith(records.FILES):
                found.append(decode_record(key, value, FileRecord))
            elif key.startswith(records.CLOSED_FILES):
                found.append(decode_record(key, value, ClosedFileRecord))
        return [file for file in found if file.run == RUN]


def test_what_is_written_meanwhile_waits_for_the_next_sync() -> None:
    rig = Rig()
    rig.send(1)
    rig.writer.step()
    rig.send(2)
    rig.writer.step()
    assert (rig.store.syncs, rig.store.settled) == (1, 0)
    rig.end_sync()
    assert rig.store.settled == 1
    assert rig.store.pending


def test_groups_that_are_whole_do_not_wait_for_one_that_finds_no_space() -> None:
    rig = Rig()
    rig.send(1)
    rig.writer.step()
    rig.send(2)
    rig.writer.step()  # written whole, and not covered by the sync that is under way
    rig.world.steps.inject(NO_SPACE)
    rig.send(3, 2 * MIB)
    rig.writer.step()
    assert rig.writer.stalled
    rig.writer.step()
    while rig.store.syncs:
        rig.end_sync()
    assert rig.store.settled == 2
    rig.writer.end(Ending.FINISH)
    rig.writer.step()
    assert [s.sequence for s in rig.refused] == [3]


def test_a_run_that_ends_refuses_no_group_that_is_whole() -> None:
    rig = Rig()
    rig.send(1)
    rig.writer.step()
    rig.send(2)
    rig.writer.step()
    rig.world.steps.inject(NO_SPACE)
    rig.send(3, 2 * MIB)
    rig.writer.end(Ending.FINISH)
    rig.writer.step()
    assert [s.sequence for s in rig.refused] == [3]
    assert {s.reason for s in rig.refused} == {"no-space-at-end-of-run"}
    assert rig.store.settled == 2


def test_a_run_that_ends_goes_on_where_space_is_back_by_then() -> None:
    # Its last sync took long and failed. Meanwhile there was space: what was staged and waiting was
    # refused all the same, and without a reason.
    rig = Rig()
    rig.send(1)
    rig.writer.step()
    rig.world.steps.inject(NO_SPACE)
    for number in range(2, 25):
        rig.send(number, 100_000)
    for _ in range(20):
        rig.writer.step()
    assert rig.writer.stalled
    rig.send(25)
    rig.writer.end(Ending.FINISH)

    def slow_and_failing() -> None:
        rig.world.clock.advance(500_000_000)
        rig.world.steps.clear_faults()
        raise StorageError("Input/output error", path="photons")

    (_, sync), *_ = rig.store._syncs[0].parts
    assert isinstance(sync.under_way, SimulatedSync)
    sync.under_way._sync = slow_and_failing
    for _ in range(5):
        rig.writer.step()
    assert rig.refused == []
    assert rig.writer.over
    assert rig.store.settled == 25


def test_a_directory_that_is_full_is_left_without_an_error_where_all_is_whole() -> None:
    rig = Rig(directories=2)
    rig.send(1)
    rig.writer.step()
    rig.send(2)
    rig.writer.step()
    rig.world.disks[0].fill()
    rig.send(3, 2 * MIB)
    rig.writer.step()
    rig.others_work()
    assert [(f.part, f.directory, f.sealed) for f in rig.files()] == [(1, 0, False), (2, 1, False)]
    assert [isinstance(f, ClosedFileRecord) for f in rig.files()] == [True, False]
    assert rig.store.settled == 2


def test_nothing_is_synced_where_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_thread, "SYNC_BYTES_MAX", LARGE_BYTES // 2)
    rig = Rig()
    for number in range(3):
        rig.send(number)
    rig.world.steps.inject(
        Fault(FaultKind.EIO, frozenset({Operation.SYNC_FILE}), "data/runs/7/photons")
    )
    begun: list[int] = []
    begin = rig.store.begin_sync

    def look() -> None:
        before = rig.store.syncs
        begin()
        begun.extend(sync.blocks for sync in list(rig.store._syncs)[before:])

    rig.store.begin_sync = look  # type: ignore[method-assign]
    for _ in range(4):
        rig.writer.step()
    assert begun
    assert 0 not in begun


def test_a_part_is_not_told_of_a_block_whose_group_lost_another_one() -> None:
    # Of three blocks the last two are a group; the second is to be written again, for its part was
    # sealed. The first group is whole, but its part would tell of the third block with it.
    rig = Rig()
    rig.send(1)
    rig.writer.step()
    store = rig.store
    store._forget_syncs()
    (block,), (group,) = store._blocks, store._groups
    store._blocks += [replace(block, written=False), replace(block)]
    store._groups.append(group._replace(blocks=2))
    store.begin_sync()
    assert store.syncs == 0
    store._blocks[1].written = True
    store.begin_sync()
    assert store.syncs == 1
