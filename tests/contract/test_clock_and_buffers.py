"""What clocks and buffer pools promise. Buffers are memory: the real pool serves a simulation."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import pytest

from dlog.adapters.buffers import BufferPool
from dlog.adapters.clock import SystemClock
from dlog.errors import InvariantBroken
from dlog.faults.simulation.clock import SimulatedClock
from dlog.limits import BLOCK_BYTES_MAX, KIB, MIB, PAGE_BYTES
from dlog.ports import Buffers, Clock


@pytest.fixture(params=["system", "simulated"])
def clock(request: pytest.FixtureRequest) -> Clock:
    return SystemClock() if request.param == "system" else SimulatedClock()


def test_durations_are_never_negative(clock: Clock) -> None:
    readings = [clock.monotonic_ns() for _ in range(1000)]
    assert readings == sorted(readings)


def test_the_wall_clock_counts_from_1970(clock: Clock) -> None:
    assert clock.wall_ns() > 1_600_000_000_000_000_000


def test_a_simulated_clock_moves_only_when_told() -> None:
    clock = SimulatedClock()
    before = clock.monotonic_ns()
    assert clock.monotonic_ns() == before
    clock.advance(5)
    assert clock.monotonic_ns() == before + 5
    clock.set_wall(1)
    assert (clock.wall_ns(), clock.monotonic_ns()) == (1, before + 5)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


def address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


@pytest.fixture
def buffers() -> Buffers:
    return BufferPool()


@pytest.mark.parametrize("size", [1, PAGE_BYTES, 100_000, MIB, MIB + 1, BLOCK_BYTES_MAX])
def test_a_buffer_is_aligned_writable_and_large_enough(buffers: Buffers, size: int) -> None:
    buffer = buffers.take(size)
    assert len(buffer.view) >= size
    assert buffer.view.format == "B"
    assert not buffer.view.readonly
    assert address(buffer.view) % PAGE_BYTES == 0
    buffer.view[size - 1] = 1
    buffer.release()


def test_a_released_buffer_is_used_again() -> None:
    pool = BufferPool()
    first = pool.take(MIB)
    where = address(first.view)
    first.release()
    assert pool.idle_bytes == MIB
    assert address(pool.take(MIB).view) == where
    assert (pool.idle_bytes, pool.lent_bytes) == (0, MIB)


def test_two_buffers_in_use_are_two(buffers: Buffers) -> None:
    one, two = buffers.take(PAGE_BYTES), buffers.take(PAGE_BYTES)
    one.view[0], two.view[0] = 1, 2
    assert (one.view[0], two.view[0]) == (1, 2)


def test_a_buffer_given_back_is_not_used(buffers: Buffers) -> None:
    buffer = buffers.take(PAGE_BYTES)
    view = buffer.view
    buffer.release()
    with pytest.raises(InvariantBroken):
        _ = buffer.view
    with pytest.raises(InvariantBroken):
        buffer.release()
    with pytest.raises(ValueError, match="released"):
        _ = view[0]


@pytest.mark.parametrize("piece", ["slice", "array"])
def test_memory_that_is_still_looked_at_is_not_recycled(piece: str) -> None:
    pool = BufferPool()
    buffer = pool.take(MIB)
    buffer.view[0] = 42
    held = buffer.view[:10] if piece == "slice" else np.frombuffer(buffer.view, np.uint8)
    buffer.release()
    pool.take(MIB).view[0] = 7
    assert held[0] == 42
    assert pool.dropped_in_use == 1


def test_idle_memory_is_bounded() -> None:
    pool = BufferPool(idle_bytes_max=3 * MIB)
    taken = [pool.take(MIB) for _ in range(8)]
    for buffer in taken:
        buffer.release()
    assert pool.idle_bytes == 3 * MIB
    assert pool.lent_bytes == 0


@pytest.mark.parametrize("size", [0, -1, BLOCK_BYTES_MAX + 1])
def test_a_buffer_beyond_the_limit_is_refused_before_it_is_allocated(size: int) -> None:
    with pytest.raises(InvariantBroken):
        BufferPool().take(size)


def test_threads_never_share_a_buffer() -> None:
    pool = BufferPool(idle_bytes_max=MIB)
    faults: list[int] = []

    def use(mark: int) -> None:
        for _ in range(500):
            buffer = pool.take(64 * KIB)
            buffer.view[:8] = bytes([mark]) * 8
            if bytes(buffer.view[:8]) != bytes([mark]) * 8:
                faults.append(mark)
            buffer.release()

    threads = [threading.Thread(target=use, args=(mark,)) for mark in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert (pool.lent_bytes, pool.dropped_in_use) == (0, 0)


@pytest.mark.parametrize(
    "size", [1, 65_536, 65_537, MIB, MIB + 40_000, 3 * MIB + 1, BLOCK_BYTES_MAX]
)
def test_a_buffer_wastes_an_eighth_at_most(size: int) -> None:
    pool = BufferPool()
    buffer = pool.take(size)
    assert size <= buffer.capacity <= max(65_536, size * 9 / 8)
    buffer.release()


def test_memory_of_a_size_that_is_not_asked_for_any_more_makes_room() -> None:
    # It took the place of what was used now: each block paid for fresh pages, for ever.
    pool = BufferPool(idle_bytes_max=4 * MIB)
    for buffer in [pool.take(MIB) for _ in range(4)]:
        buffer.release()
    for mark in range(1, 4):
        buffers = [pool.take(2 * MIB) for _ in range(2)]
        assert {buffer.view[0] for buffer in buffers} == {mark - 1}
        for buffer in buffers:
            buffer.view[0] = mark
            buffer.release()
    assert pool.idle_bytes == 4 * MIB


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


@pytest.mark.parametrize("size", [64 * KIB, MIB + 40_000, 9 * MIB])
def test_memory_that_is_too_much_goes_back_to_the_system(size: int) -> None:
    gc.collect()  # the pools of other tests
    pool = BufferPool(idle_bytes_max=0)
    before = resident_bytes()
    for _ in range(3):
        buffers = [pool.take(size) for _ in range(128 * MIB // size)]
        assert resident_bytes() - before > 100 * MIB
        for buffer in buffers:
            assert bytes(buffer.view[:8]) == bytes(8)
            buffer.view[:8] = b"not zero"
            buffer.release()
        assert resident_bytes() - before < 16 * MIB
    assert pool.idle_bytes == 0


def test_memory_that_was_looked_at_is_used_again_later() -> None:
    pool = BufferPool()
    first = [pool.take(9 * MIB) for _ in range(3)]
    addresses = {address(buffer.view) for buffer in first}
    held = [buffer.view[:10] for buffer in first]
    for buffer in first:
        buffer.release()
    other = pool.take(9 * MIB)
    assert address(other.view) not in addresses
    held.clear()
    assert {address(pool.take(9 * MIB).view) for _ in range(3)} == addresses
