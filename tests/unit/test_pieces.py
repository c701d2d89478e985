"""A batch is split into pieces: each event is in those of its streams, and in no other."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from dlog.core.batch import Batch, decode_batch, encode_batch
from dlog.core.pieces import select, split
from dlog.model.events import EVENT_DTYPE
from dlog.model.ids import MarkKey, RunNumber, Sequence, SessionId, StreamName

SESSION = SessionId(bytes(range(16)))
NAMES = tuple(StreamName(n) for n in ("photons", "raw", "slow", "control"))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    streams = NAMES[: draw(st.integers(1, len(NAMES)))]
    # Neighbours of some KiB are copied at once, small ones by a mask.
    scale = draw(st.sampled_from([1, 500]))
    same_size = draw(st.booleans())
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 2**64 - 1),
                st.integers(1, 3),
                st.integers(0, 0 if same_size else 9),
                st.integers(1, 2 ** len(streams) - 1),
            ),
            min_size=1,
            max_size=30,
        )
    )
    if draw(st.booleans()):
        rows = [(number, 1, size, mask) for number, _, size, mask in rows]
    table = np.zeros(len(rows), EVENT_DTYPE)
    for i, (number, run, size, mask) in enumerate(rows):
        table[i] = (number, i, run, size * scale + 2, mask, i)
    # Each payload begins with the event's place, so that it is known where it came from.
    payload = b"".join(
        i.to_bytes(2, "little") + bytes([i % 251]) * (row[2] * scale) for i, row in enumerate(rows)
    )
    batch = Batch(SESSION, Sequence(1), 0, 0, streams, table, np.frombuffer(payload, np.uint8), 0)
    return decode_batch(memoryview(encode_batch(batch)))


@given(batches())
def test_pieces_are_a_partition_of_the_pairs_of_event_and_stream(batch: Batch) -> None:
    found: dict[MarkKey, list[int]] = {}
    for mark, chosen in split(batch):
        table, payload = select(batch.table, batch.payload, chosen)
        at = 0
        for row in table:
            content = payload[at : at + int(row["size"])].tobytes()
            at += int(row["size"])
            place = int.from_bytes(content[:2], "little")
            assert content[2:] == bytes([place % 251]) * (len(content) - 2)
            assert place == int(row["order"])
            assert int(row["run"]) == mark.run
            assert mark not in found or found[mark][-1] < place  # sending order
            found.setdefault(mark, []).append(place)
        assert at == len(payload)
        assert len(table)
    expected: dict[MarkKey, list[int]] = {}
    for place, row in enumerate(batch.table):
        for bit, name in enumerate(batch.streams):
            if int(row["streams"]) >> bit & 1:
                mark = MarkKey(SESSION, RunNumber(int(row["run"])), name)
                expected.setdefault(mark, []).append(place)
    assert found == expected


@given(batches(), st.integers(0, 30), st.integers(0, 30))
def test_a_slice_of_a_piece_has_its_own_payloads(batch: Batch, begin: int, end: int) -> None:
    begin, end = sorted((min(begin, len(batch.table)), min(end, len(batch.table))))
    whole = [p.tobytes() for p in np.split(batch.payload, np.cumsum(batch.table["size"])[:-1])]
    table, payload = select(batch.table, batch.payload, slice(begin, end))
    assert len(table) == end - begin
    assert payload.tobytes() == b"".join(whole[begin:end])


@given(batches())
def test_a_batch_for_one_stream_is_not_copied(batch: Batch) -> None:
    for _, chosen in split(batch):
        if isinstance(chosen, slice):
            table, payload = select(batch.table, batch.payload, chosen)
            assert np.shares_memory(table, batch.table)
            assert not len(payload) or np.shares_memory(payload, batch.payload)
