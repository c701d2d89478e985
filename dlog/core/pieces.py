"""A batch split into its pieces: the events of it that are meant for one stream of one run.

It does no I/O. A batch of a single run and stream is one piece made of views; a mixed one goes by
numpy masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dlog.core.batch import Batch
from dlog.core.block import Checksums, OrphanReason
from dlog.core.rotation import Selection
from dlog.model.events import EventTable, Payload
from dlog.model.ids import MarkKey, RunNumber, Sequence

# Payload between two runs of chosen events, on average, from which on they are copied run by run.
_RUN_BYTES_MIN: Final = 512


@dataclass(frozen=True, slots=True)
class Piece:
    """The events of one batch for one (run, stream as sent), in sending order.

    shares: into how many settlements the batch was split; once all are committed it is settled.
    orphan_reason: NONE unless the piece goes to the orphan file. checksums: of table and payload,
    where they are those of the whole batch. numbers: the lowest and the highest event number, where
    they are known.
    """

    mark: MarkKey
    source: str
    sequence: Sequence
    order_base: int
    table: EventTable
    payload: Payload
    shares: int
    message_bytes: int
    orphan_reason: OrphanReason = OrphanReason.NONE
    checksums: Checksums | None = None
    numbers: tuple[int, int] | None = None


def select(table: EventTable, payload: Payload, chosen: Selection) -> tuple[EventTable, Payload]:
    """The chosen events and their payloads; views for a slice, copies for a mask."""
    if isinstance(chosen, slice):
        if chosen == slice(None):
            return table, payload
        begin, end, _ = chosen.indices(len(table))
        ends = np.cumsum(table["size"][:end], dtype=np.int64)
        first = int(ends[begin - 1]) if begin else 0
        last = int(ends[end - 1]) if end else 0
        return table[begin:end], payload[first:last]
    sizes = table["size"]
    if len(sizes) and int(sizes.min()) == int(sizes.max()):
        return table[chosen], payload.reshape(len(sizes), -1)[chosen].reshape(-1)
    return table[chosen], _payload_of(sizes, payload, chosen)


def _payload_of(sizes: NDArray[Any], payload: Payload, chosen: NDArray[np.bool_]) -> Payload:
    """The payloads of the chosen events, of different sizes, behind each other."""
    edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
    if len(edges) * _RUN_BYTES_MIN > 2 * len(payload):
        return payload[np.repeat(chosen, sizes)]
    # Neighbours that are chosen are copied at once, and no loop of ours turns for each of the rest:
    # a mask over all bytes takes three times as long for events of 1 KiB.
    ends = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=ends[1:])
    begins, stops = ends[edges[0::2]].tolist(), ends[edges[1::2]].tolist()
    runs = map(payload.data.__getitem__, map(slice, begins, stops))
    return np.frombuffer(b"".join(runs), np.uint8)


def split(batch: Batch) -> list[tuple[MarkKey, Selection]]:
    """The pieces of a batch: which run and stream, and which of its events."""
    table = batch.table
    runs, masks = table["run"], table["streams"]
    mixed_streams = len(batch.streams) > 1
    if not batch.mixed_runs and not mixed_streams:
        mark = MarkKey(batch.session, RunNumber(int(runs[0])), batch.streams[0])
        return [(mark, slice(None))]
    pieces: list[tuple[MarkKey, Selection]] = []
    for run in np.unique(runs) if batch.mixed_runs else runs[:1]:
        of_run: NDArray[np.bool_] = runs == run
        for bit, stream in enumerate(batch.streams):
            chosen: NDArray[np.bool_] = of_run & ((masks >> np.uint32(bit)) & np.uint32(1)).astype(
                np.bool_
            )
            if chosen.any():
                mark = MarkKey(batch.session, RunNumber(int(run)), stream)
                pieces.append((mark, slice(None) if chosen.all() else chosen))
    return pieces
