"""A batch split into its pieces: the events of it that are meant for one stream of one run.

It does no I/O. A batch of a single run and stream is one piece made of views; a mixed one goes by
numpy masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlog.core.batch import Batch
from dlog.core.block import OrphanReason
from dlog.core.rotation import Selection
from dlog.model.events import EventTable, Payload
from dlog.model.ids import MarkKey, RunNumber, Sequence


@dataclass(frozen=True, slots=True)
class Piece:
    """The events of one batch for one (run, stream as sent), in sending order.

    shares: into how many settlements the batch was split; once all are committed it is settled.
    orphan_reason: NONE unless the piece goes to the orphan file.
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
    return table[chosen], payload[np.repeat(chosen, sizes)]


def split(batch: Batch) -> list[tuple[MarkKey, Selection]]:
    """The pieces of a batch: which run and stream, and which of its events."""
    table = batch.table
    runs, masks = table["run"], table["streams"]
    mixed_runs = bool((runs != runs[0]).any())
    mixed_streams = len(batch.streams) > 1
    if not mixed_runs and not mixed_streams:
        mark = MarkKey(batch.session, RunNumber(int(runs[0])), batch.streams[0])
        return [(mark, slice(None))]
    pieces: list[tuple[MarkKey, Selection]] = []
    for run in np.unique(runs) if mixed_runs else runs[:1]:
        of_run: NDArray[np.bool_] = runs == run
        for bit, stream in enumerate(batch.streams):
            chosen: NDArray[np.bool_] = of_run & ((masks >> np.uint32(bit)) & np.uint32(1)).astype(
                np.bool_
            )
            if chosen.any():
                mark = MarkKey(batch.session, RunNumber(int(run)), stream)
                pieces.append((mark, slice(None) if chosen.all() else chosen))
    return pieces
