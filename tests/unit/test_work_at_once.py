"""What others do of a stream's work without waiting, and what they leave to its own thread."""

from __future__ import annotations

import pytest

from dlog.errors import InvariantBroken
from dlog.faults.simulation.disk import SimulatedSync
from dlog.faults.simulation.sources import SimulatedSource
from dlog.faults.simulation.steps import Fault, FaultKind, Operation
from dlog.faults.simulation.world import World
from dlog.limits import MIB, SMALL_BLOCK_BYTES
from dlog.model.ids import RunNumber, StreamName
from dlog.services.block_store import BlockStore
from dlog.services.stream_thread import SMALL_SYNC_BYTES, StreamWriter

RUN = RunNumber(7)
PHOTONS = StreamName("photons")
LARGE_BYTES = SMALL_BLOCK_BYTES + 1000
DATA = "data/runs/7/photons"


@pytest.fixture(autouse=True)
def nobody_else_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlog.faults.simulation.world.BUSY", 0.0)
    monkeypatch.setattr(SimulatedSync, "is_over", lambda self: self.done)


class Rig:
    """A stream whose own thread does nothing unless it is told to."""

    def __init__(self, *, directories: int = 1, **stream: object) -> None:
        self.world = World(seed=1, directories=directories)
        self.world.do("INIT")
        self.world.do("CONFIGURE", streams={"photons": {"ranges": False, **stream}})
        self.world.do("START RUN", run=RUN)
        self.source: SimulatedSource = self.world.source("router-1", batch_events=1)
        self.world.pump(5)
        assert self.world.life is not None
        self.life = self.world.life
        (writer,) = (w.writer for w in self.life.writers if w.writer.key.run == RUN)
        self.writer: StreamWriter = writer
        self.send(0, 100)  # the first block needs a part and a reservation
        self.own_thread()
        self.sync()
        self.own_thread()
        assert self.acknowledged == 1

    @property
    def store(self) -> BlockStore:
        return self.writer._store

    @property
    def acknowledged(self) -> int:
        return self.source.machine.counts.report({})[PHOTONS].acknowledged

    def send(self, number: int, size_bytes: int = LARGE_BYTES) -> None:
        self.source.send(RUN, (PHOTONS,), number, b"x" * size_bytes)
        self.others_work()

    def others_work(self, rounds: int = 4) -> None:
        for _ in range(rounds):
            self.world.clock.advance(10_000_000)
            self.source.step()
            self.life.committer.step()
            assert self.life.events is not None
            self.life.events.step()

    def sync(self) -> None:
        """The disk is through with the oldest sync."""
        for disk in self.world.disks:
            for sync in [sync for sync in disk.syncs if not sync.done][:1]:
                sync.finish()
        self.others_work()

    def woken(self) -> bool:
        """Whether the stream's own thread would find something now."""
        return not self.writer._inbox.empty()

    def own_thread(self, steps: int = 4) -> None:
        for _ in range(steps):
            self.world.clock.advance(30_000_000)
            self.writer.step()
        self.others_work()


def test_an_event_is_stored_and_acknowledged_without_the_streams_own_thread() -> None:
    rig = Rig()
    rig.send(1)
    assert rig.store.syncs == 1
    assert rig.acknowledged == 1
    rig.sync()
    assert rig.acknowledged == 2
    assert rig.world.problems(complete=True) == []


def test_what_comes_during_a_small_sync_is_synced_beside_it_and_the_rest_together() -> None:
    rig = Rig()
    for number in range(1, 5):
        rig.send(number)
    assert rig.store.syncs == 2
    rig.sync()
    assert (rig.acknowledged, rig.store.syncs) == (2, 2)
    rig.sync()
    assert (rig.acknowledged, rig.store.syncs) == (3, 1)
    rig.sync()
    assert rig.acknowledged == 5
    assert rig.world.problems(complete=True) == []


def test_what_comes_during_a_large_sync_goes_with_the_next_one() -> None:
    rig = Rig(reserve_bytes=64 * MIB)
    rig.send(1, 2 * SMALL_SYNC_BYTES)  # from here on it reserves as much at once
    rig.own_thread()
    rig.sync()
    rig.own_thread()
    rig.send(2, SMALL_SYNC_BYTES)
    for number in range(3, 5):
        rig.send(number)
    assert rig.store.syncs == 1
    rig.sync()
    assert (rig.acknowledged, rig.store.syncs) == (3, 1)
    rig.sync()
    assert rig.acknowledged == 5
    assert rig.world.problems(complete=True) == []


def test_the_first_small_block_of_a_quiet_time_waits_for_nothing() -> None:
    rig = Rig(flush_interval_ms=100)
    rig.world.clock.advance(100_000_000)
    rig.send(1, 100)
    assert not rig.woken()
    assert rig.store.syncs == 1
    rig.sync()
    assert rig.acknowledged == 2


@pytest.mark.parametrize(
    ("size_bytes", "waits_ms"), [(100, 10_000), (SMALL_BLOCK_BYTES // 2, 5_000)]
)
def test_the_next_small_block_waits_the_longer_the_smaller_it_is(
    size_bytes: int, waits_ms: int
) -> None:
    rig = Rig(flush_interval_ms=10_000)
    begin_ns = rig.writer._small_ns
    rig.send(1, size_bytes)
    assert rig.woken()  # its own thread: nobody else comes when it is time
    assert rig.store.syncs == 0
    now_ns = rig.world.clock.monotonic_ns()
    rig.world.clock.advance(int((waits_ms * 0.9) * 1_000_000) - (now_ns - begin_ns))
    rig.writer.step()
    assert rig.store.syncs == 0
    rig.world.clock.advance(waits_ms * 100_000)
    rig.writer.step()
    assert rig.store.syncs == 1
    rig.sync()
    assert rig.acknowledged == 2


def test_its_own_thread_is_woken_for_what_a_sync_leaves() -> None:
    rig = Rig(flush_interval_ms=10_000)
    rig.send(1)
    rig.send(2, 100)
    assert not rig.woken()
    rig.sync()
    assert rig.woken()
    assert rig.acknowledged == 2
    rig.world.clock.advance(10_000_000_000)
    rig.own_thread()
    rig.sync()
    assert rig.acknowledged == 3


def test_nothing_overtakes_what_its_own_thread_was_handed() -> None:
    rig = Rig()
    with rig.writer.turn:
        rig.send(1)
    rig.send(2)
    assert rig.store.syncs == 0
    rig.own_thread()
    for _ in range(2):
        rig.sync()
        rig.own_thread()
    assert rig.acknowledged == 3
    assert rig.world.problems(complete=True) == []


@pytest.mark.parametrize(
    "stream", [{"compression": "zstd"}, {"part_events": 1}], ids=["compressed", "a part is full"]
)
def test_what_takes_long_is_left_to_its_own_thread(stream: dict[str, object]) -> None:
    rig = Rig(**stream)
    rig.send(1)
    assert not rig.store.pending
    rig.own_thread()
    assert rig.store.pending


def test_what_needs_a_reservation_is_left_to_its_own_thread() -> None:
    rig = Rig()
    rig.send(1, 4 * MIB)
    assert not rig.store.pending
    rig.own_thread()
    assert rig.store.pending


@pytest.mark.parametrize("events", [1, 2])
def test_a_write_that_failed_is_not_tried_again(events: int) -> None:
    # Of some failed writes the simulated disk tells at once, of others later, by where they go.
    rig = Rig()
    rig.world.disk_failed = True
    for number in range(1, events):
        rig.send(number)
        rig.sync()
    short = Fault(FaultKind.SHORT_WRITE, frozenset({Operation.WRITE}), DATA, times=1)
    rig.world.steps.inject(short)
    rig.send(events)
    for _ in range(4):
        rig.own_thread()
        rig.sync()
    assert rig.acknowledged == 1 + events
    assert f"{DATA}_0002.dlog.part" in rig.world.disks[0].contents()
    assert rig.world.problems(complete=True) == []


def test_a_sync_that_failed_is_left_to_the_streams_own_thread() -> None:
    rig = Rig()
    rig.world.disk_failed = True
    rig.send(1)
    rig.world.steps.inject(Fault(FaultKind.EIO, frozenset({Operation.SYNC_FILE}), DATA, times=1))
    rig.sync()
    assert rig.acknowledged == 1
    for _ in range(3):
        rig.own_thread()
        rig.sync()
    assert rig.acknowledged == 2
    assert rig.world.problems(complete=True) == []


def test_what_goes_wrong_when_a_sync_is_over_ends_the_streams_own_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    rig.send(1)

    def broken(self: BlockStore) -> None:
        raise InvariantBroken("no consecutive number")

    monkeypatch.setattr(BlockStore, "_report", broken)
    rig.sync()
    with pytest.raises(InvariantBroken, match="no consecutive number"):
        rig.writer.step()


def no_more_threads(self: BlockStore) -> None:
    raise RuntimeError("can't start new thread")


def test_nobody_goes_on_with_a_stream_whose_thread_met_what_nobody_foresaw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The logger ends for it, but not at once. What came meanwhile was synced, and told of with a
    # block that was never written.
    rig = Rig()
    with rig.writer.turn:
        rig.send(1)
    with monkeypatch.context() as patch:
        patch.setattr(BlockStore, "begin_sync", no_more_threads)
        with pytest.raises(RuntimeError):
            rig.writer.step()
    rig.send(2)
    rig.sync()
    assert rig.store.syncs == 0
    assert rig.acknowledged == 1
    with pytest.raises(RuntimeError):
        rig.writer.step()


def test_nobody_goes_on_with_a_stream_in_which_the_event_server_met_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    with monkeypatch.context() as patch:
        patch.setattr(BlockStore, "begin_sync", no_more_threads)
        with pytest.raises(RuntimeError):
            rig.send(1)
    with pytest.raises(RuntimeError):
        rig.writer.step()
    assert rig.store.syncs == 0


def test_a_sync_that_failed_is_one_fault_though_a_write_met_it_too() -> None:
    rig = Rig(directories=2)
    rig.world.disk_failed = True
    rig.send(1)
    rig.world.steps.inject(Fault(FaultKind.EIO, frozenset({Operation.SYNC_FILE}), DATA, times=1))
    with rig.writer.turn:
        rig.sync()
    number = 1
    while rig.store._met is None:
        number += 1
        assert number < 8
        rig.send(number)
    for _ in range(4):
        rig.own_thread()
        rig.sync()
    assert rig.acknowledged == 1 + number
    assert rig.store.stream.directory == 1
    assert rig.world.problems(complete=True) == []
