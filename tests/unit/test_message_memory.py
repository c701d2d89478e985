"""Memory of messages: used again, but never while anyone still looks into it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dlog.core.batch import Batch, encode_pieces
from dlog.core.message_memory import MessageMemory
from dlog.limits import KIB, MIB
from dlog.model.events import EVENT_BYTES, EVENT_DTYPE
from dlog.model.ids import Sequence, SessionId, StreamName

FULL = 64 * 1024


def test_what_nobody_refers_to_any_more_is_used_again() -> None:
    memory = MessageMemory(FULL)
    first = memory.take(FULL)
    assert first is not None
    address = id(first)
    del first
    again = memory.take(FULL - 100)
    assert again is not None
    assert (id(again), len(again)) == (address, FULL - 100)
    assert memory.known_bytes == FULL


def test_what_is_still_looked_at_is_left_alone() -> None:
    memory = MessageMemory(FULL)
    for look in (lambda m: m, memoryview, lambda m: np.frombuffer(m, np.uint8)[10:20]):
        lent = memory.take(FULL)
        assert lent is not None
        lent[:] = b"x" * FULL
        kept = look(lent)
        address = id(lent)
        del lent
        other = memory.take(FULL)
        assert other is not None
        assert id(other) != address
        other[:] = b"y" * FULL
        assert set(bytes(kept)) == {ord("x")}
        del kept, other


def test_a_small_message_gets_memory_of_its_own_size() -> None:
    memory = MessageMemory(FULL)
    assert memory.take(FULL // 2) is None
    assert memory.take(FULL + 1) is None
    assert memory.known_bytes == 0


def test_a_queue_that_was_long_gives_its_memory_back_in_time() -> None:
    memory = MessageMemory(FULL)
    queue = [memory.take(FULL) for _ in range(64)]
    assert memory.known_bytes == 64 * FULL
    queue.clear()
    for _ in range(64 * 32):
        memory.take(FULL)
    assert memory.known_bytes < 8 * FULL


@given(st.lists(st.tuples(st.integers(1, 70), st.integers(0, 1000)), min_size=1, max_size=30))
def test_a_message_is_the_same_whatever_memory_it_lies_in(shapes: list[tuple[int, int]]) -> None:
    memory = MessageMemory(4096)
    kept = []
    for i, (events, size) in enumerate(shapes):
        payload = bytes((i + n) % 256 for n in range(size))
        table = np.zeros(events, EVENT_DTYPE)
        table["number"] = np.arange(events) + i
        header = Batch(
            SessionId(bytes(16)), Sequence(1), 0, 0, (StreamName("s"),), table,
            np.empty(0, np.uint8), 0,
        )  # fmt: skip
        pieces = [table.view(np.uint8)]
        afresh = encode_pieces(header, events, pieces, [payload])
        assert len(afresh) >= events * EVENT_BYTES
        kept.append((encode_pieces(header, events, pieces, [payload], memory.take), afresh))
        if i % 3 == 2:
            kept.pop(0)
    assert all(lent == afresh for lent, afresh in kept)


def test_a_batch_of_large_events_is_nearly_full() -> None:
    """Another event would not fit into a MiB; and a batch may grow beyond it."""
    memory = MessageMemory(MIB + MIB // 8)
    assert memory.take(7 * (128 * KIB + EVENT_BYTES)) is not None
