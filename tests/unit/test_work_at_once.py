"""What others do of a stream's work without waiting, and what they leave to its own thread."""

from __future__ import annotations

import pytest

from dlog.errors import InvariantBroken
from dlog.faults.simulation.steps import FaultKind, Operation
from dlog.limits import MIB, SMALL_BLOCK_BYTES
from dlog.services.stream_thread import SMALL_SYNC_BYTES
from tests.simulated_logger import PHOTONS_FILES, StreamByHand, fail


def test_an_event_is_stored_and_acknowledged_without_the_streams_own_thread() -> None:
    rig = StreamByHand()
    rig.send(1)
    assert rig.syncs == 1
    assert rig.acknowledged == 1
    rig.sync()
    assert rig.acknowledged == 2
    assert rig.world.problems(complete=True) == []


def test_what_comes_during_a_small_sync_is_synced_beside_it_and_the_rest_together() -> None:
    rig = StreamByHand()
    for number in range(1, 5):
        rig.send(number)
    assert rig.syncs == 2
    rig.sync()
    assert (rig.acknowledged, rig.syncs) == (2, 2)
    rig.sync()
    assert (rig.acknowledged, rig.syncs) == (3, 1)
    rig.sync()
    assert rig.acknowledged == 5
    assert rig.world.problems(complete=True) == []


def test_what_comes_during_a_large_sync_goes_with_the_next_one() -> None:
    rig = StreamByHand(reserve_bytes=64 * MIB)
    rig.send(1, 2 * SMALL_SYNC_BYTES)  # from here on it reserves more than that at once
    rig.own_thread()
    rig.sync()
    rig.own_thread()
    rig.send(2, SMALL_SYNC_BYTES)
    for number in range(3, 5):
        rig.send(number)
    assert rig.syncs == 1
    rig.sync()
    assert (rig.acknowledged, rig.syncs) == (3, 1)
    rig.sync()
    assert rig.acknowledged == 5
    assert rig.world.problems(complete=True) == []


def test_the_first_small_block_of_a_quiet_time_waits_for_nothing() -> None:
    rig = StreamByHand(flush_interval_ms=100)
    rig.world.clock.advance(100_000_000)
    rig.send(1, 100)
    assert not rig.is_woken()
    assert rig.syncs == 1
    rig.sync()
    assert rig.acknowledged == 2


@pytest.mark.parametrize(
    ("size_bytes", "waits_ms"), [(100, 10_000), (SMALL_BLOCK_BYTES // 2, 5_000)]
)
def test_the_next_small_block_waits_the_longer_the_smaller_it_is(
    size_bytes: int, waits_ms: int
) -> None:
    rig = StreamByHand(flush_interval_ms=10_000)
    begin_ns = rig.world.clock.monotonic_ns()  # the first small block was some moments ago
    rig.send(1, size_bytes)
    assert rig.is_woken()  # its own thread: nobody else comes when it is time
    assert rig.syncs == 0
    now_ns = rig.world.clock.monotonic_ns()
    rig.world.clock.advance(int((waits_ms * 0.9) * 1_000_000) - (now_ns - begin_ns))
    rig.writer.step()
    assert rig.syncs == 0
    rig.world.clock.advance(waits_ms * 100_000)
    rig.writer.step()
    assert rig.syncs == 1
    rig.sync()
    assert rig.acknowledged == 2


def test_its_own_thread_is_woken_for_what_a_sync_leaves() -> None:
    rig = StreamByHand(flush_interval_ms=10_000)
    rig.send(1)
    rig.send(2, 100)
    assert not rig.is_woken()
    rig.sync()
    assert rig.is_woken()
    assert rig.acknowledged == 2
    rig.world.clock.advance(10_000_000_000)
    rig.own_thread()
    rig.sync()
    assert rig.acknowledged == 3


def test_nothing_overtakes_what_its_own_thread_was_handed() -> None:
    rig = StreamByHand()
    rig.hand(1)
    rig.send(2)
    assert rig.syncs == 0
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
    rig = StreamByHand(**stream)
    rig.send(1)
    assert rig.syncs == 0
    rig.own_thread()
    assert rig.syncs == 1


def test_what_needs_a_reservation_is_left_to_its_own_thread() -> None:
    rig = StreamByHand()
    rig.send(1, 4 * MIB)
    assert rig.syncs == 0
    rig.own_thread()
    assert rig.syncs == 1


@pytest.mark.parametrize("events", [1, 2])
def test_a_write_that_failed_is_not_tried_again(events: int) -> None:
    # Of some failed writes the simulated disk tells at once, of others later, by where they go.
    rig = StreamByHand()
    rig.world.disk_failed = True
    for number in range(1, events):
        rig.send(number)
        rig.sync()
    fail(rig.world, Operation.WRITE, path=PHOTONS_FILES, kind=FaultKind.SHORT_WRITE)
    rig.send(events)
    for _ in range(4):
        rig.own_thread()
        rig.sync()
    assert rig.acknowledged == 1 + events
    assert f"{PHOTONS_FILES}_0002.dlog.part" in rig.world.disks[0].contents()
    assert rig.world.problems(complete=True) == []


def test_a_sync_that_failed_is_left_to_the_streams_own_thread() -> None:
    rig = StreamByHand()
    rig.world.disk_failed = True
    rig.send(1)
    fail(rig.world, Operation.SYNC_FILE, path=PHOTONS_FILES)
    rig.sync()
    assert rig.acknowledged == 1
    for _ in range(3):
        rig.own_thread()
        rig.sync()
    assert rig.acknowledged == 2
    assert rig.world.problems(complete=True) == []


class _ReleasedTwice:
    """A pool's buffer that is given back by mistake once more."""

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))

    def release(self) -> None:
        raise InvariantBroken("a buffer is released twice")


def test_what_goes_wrong_when_a_sync_is_over_ends_the_streams_own_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = StreamByHand()
    monkeypatch.setattr(rig.life.storage.buffers, "take", _ReleasedTwice)
    rig.send(1)
    rig.sync()
    with pytest.raises(InvariantBroken, match="released twice"):
        rig.writer.step()


def test_nobody_goes_on_with_a_stream_whose_thread_met_what_nobody_foresaw() -> None:
    # The logger ends for it, but not at once. What came meanwhile was synced, and told of with a
    # block that was never written.
    rig = StreamByHand()
    rig.hand(1)
    rig.world.disks[0].no_threads = True
    with pytest.raises(RuntimeError):
        rig.writer.step()
    rig.world.disks[0].no_threads = False
    rig.send(2)
    rig.sync()
    assert rig.syncs == 0
    assert rig.acknowledged == 1
    with pytest.raises(RuntimeError):
        rig.writer.step()


def test_nobody_goes_on_with_a_stream_in_which_the_event_server_met_it() -> None:
    rig = StreamByHand()
    rig.world.disks[0].no_threads = True
    with pytest.raises(RuntimeError):
        rig.send(1)
    rig.world.disks[0].no_threads = False
    with pytest.raises(RuntimeError):
        rig.writer.step()
    assert rig.syncs == 0


@pytest.mark.parametrize("events", range(2, 8))
def test_a_sync_that_failed_is_one_fault_though_a_write_met_it_too(events: int) -> None:
    # Of a failed write the simulated disk tells at once or later, by where it goes.
    rig = StreamByHand(directories=2)
    rig.world.disk_failed = True
    rig.send(1)
    fail(rig.world, Operation.SYNC_FILE, path=PHOTONS_FILES)
    with rig.writer.turn:
        rig.sync()
    for number in range(2, 1 + events):
        rig.send(number)
    for _ in range(4):
        rig.own_thread()
        rig.sync()
    assert rig.acknowledged == 1 + events
    assert rig.files == [(1, 0, "ERROR"), (2, 1, "OPEN")]
    assert rig.world.problems(complete=True) == []
