"""The packer: a source's events in, batches without a number out. It decides what goes together and
when a batch is closed; it knows nothing of windows, acknowledgements or the network.

What decides:

* One run to a batch, so that a paused run's batches wait and those of other runs go on.
* One open batch per (run, stream set) while no two sets of a run overlap. Where they do, the sets
  share one batch (or the older ones are closed first), so that the events of each stream stay in
  the caller's order within the sequence of batches.
* A batch is closed by bytes (when another event like its last would not fit), by events, or because
  too much lies in open batches; what is given at once and is a little larger stays together. And,
  where `linger_ns` is given, by time: at once when no batch was closed within the last
  `linger_ns`, otherwise `linger_ns` after the last one, at most `linger_ns`
  after its first event. So the first event of a quiet time does not wait, and at a high rate the
  batches are large.

Without `linger_ns` the batches follow from the events and the options alone: the same events give
the same batches again, which is how `dlog send` goes on after it was killed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from struct import Struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dlog.core.batch import (
    Batch,
    Buffer,
    batch_bytes,
    decode_batch,
    encode_batch,
    encode_pieces,
    number_batch,
)
from dlog.core.many_events import ManyEvents
from dlog.core.message_memory import MessageMemory
from dlog.limits import (
    BATCH_BYTES_DEFAULT,
    BATCH_EVENTS_MAX,
    EVENT_BYTES_MAX,
    KIB,
    MESSAGE_BYTES_MAX,
    STREAM_NAME_BYTES_MAX,
    STREAMS_PER_BATCH_MAX,
)
from dlog.model.events import EVENT_BYTES, EVENT_DTYPE, EventTable, Payload
from dlog.model.ids import EventNumber, RunNumber, Sequence, SessionId, StreamName

StreamSet = tuple[StreamName, ...]

# number, time_ns, run, size, streams, order: EVENT_DTYPE, for one event.
_ROW: Final = Struct("<QQIIII")
assert _ROW.size == EVENT_BYTES
# Payloads below this are copied behind each other; a larger one is kept as the object that it is.
_COPIED_BYTES_MAX: Final = 4 * KIB
_ORDER_SPAN_MAX: Final = 2**32 - 1 - BATCH_EVENTS_MAX
# A batch is never smaller than this: below it the header and the work per message dominate.
BATCH_BYTES_MIN: Final = 4 * KIB
OPEN_BATCHES_MAX: Final = 1024
# By so much (an eighth) a batch may grow, rather than that a readout's events are cut in two.
_LARGER_PART: Final = 8


@dataclass(frozen=True, slots=True)
class Packing:
    """How events are packed. batch_events: events in a batch at most. linger_ns: see above, None
    for never. open_bytes: what may lie in open batches. span_events: all open batches are closed
    after so many events, 0 for never."""

    batch_bytes: int = BATCH_BYTES_DEFAULT
    batch_events: int = BATCH_EVENTS_MAX
    linger_ns: int | None = 5_000_000
    open_bytes: int = 16 * BATCH_BYTES_DEFAULT
    span_events: int = 0

    def __post_init__(self) -> None:
        if not BATCH_BYTES_MIN <= self.batch_bytes <= MESSAGE_BYTES_MAX:
            raise ValueError(
                f"batch_bytes {self.batch_bytes}: from {BATCH_BYTES_MIN} to {MESSAGE_BYTES_MAX}"
            )
        if not 1 <= self.batch_events <= BATCH_EVENTS_MAX:
            raise ValueError(f"batch_events {self.batch_events}: from 1 to {BATCH_EVENTS_MAX}")
        if self.open_bytes < 0 or self.span_events < 0 or (self.linger_ns or 0) < 0:
            raise ValueError("linger_ns, open_bytes and span_events cannot be negative")

    @property
    def message_bytes_max(self) -> int:
        """What a batch of several events may take. Without `linger_ns`, batches must not depend on
        how much was given at once."""
        if self.linger_ns is None:
            return self.batch_bytes
        return min(MESSAGE_BYTES_MAX, self.batch_bytes + self.batch_bytes // _LARGER_PART)


def event_bytes(size: int) -> int:
    """What an event of so many payload bytes takes of the queue."""
    return EVENT_BYTES + size


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """A closed batch that waits for its number. pieces: (event, stream) pieces by stream.

    queue_bytes: what its events take of the queue. message: whole but for sequence and position.
    """

    run: RunNumber
    events: int
    pieces: dict[StreamName, int]
    queue_bytes: int
    message: bytearray


def cut(packed: PackedBatch, message_bytes_max: int) -> list[PackedBatch]:
    """The same events in batches of at most that length, in their order. An event that fits into
    none stands in one by itself."""
    number_batch(packed.message, Sequence(1), 0)  # one without a number cannot be decoded
    whole = decode_batch(memoryview(packed.message))
    ends = np.cumsum(whole.table["size"], dtype=np.int64)
    weights = ends + EVENT_BYTES * np.arange(1, len(ends) + 1)
    room = message_bytes_max - batch_bytes(0, len(whole.streams), 0)
    found: list[PackedBatch] = []
    begin = at = taken = 0
    while begin < len(ends):
        end = max(begin + 1, int(np.searchsorted(weights, taken + room, side="right")))
        stop = int(ends[end - 1])
        table, payload = whole.table[begin:end], whole.payload[at:stop]
        pieces = {
            name: int((table["streams"] >> position & 1).sum())
            for position, name in enumerate(whole.streams)
        }
        message = encode_batch(replace(whole, table=table, payload=payload))
        queue_bytes = EVENT_BYTES * len(table) + len(payload)
        found.append(PackedBatch(packed.run, len(table), pieces, queue_bytes, message))
        begin, at, taken = end, stop, int(weights[end - 1])
    return found


_NO_TABLE: Final[EventTable] = np.empty(0, EVENT_DTYPE)
_NO_PAYLOAD: Final[Payload] = np.empty(0, np.uint8)


@dataclass(slots=True, eq=False)
class _OpenBatch:
    """A batch that still takes events."""

    run: RunNumber
    streams: list[StreamName]
    order_base: int
    opened_ns: int
    masks: dict[StreamSet, int] = field(default_factory=dict)
    # Events by stream set: multiplied out into pieces only when the batch is closed.
    counts: dict[StreamSet, int] = field(default_factory=dict)
    table: bytearray = field(default_factory=bytearray)
    payload: list[Buffer] = field(default_factory=list)
    events: int = 0
    payload_bytes: int = 0

    @property
    def queue_bytes(self) -> int:
        return self.events * EVENT_BYTES + self.payload_bytes

    @property
    def message_bytes(self) -> int:
        return batch_bytes(self.events, len(self.streams), self.payload_bytes)

    def widen(self, streams: StreamSet) -> None:
        """Let the batch take events for this stream set too."""
        if streams in self.masks:
            return
        self.streams.extend(name for name in streams if name not in self.streams)
        self.masks[streams] = sum(1 << self.streams.index(name) for name in streams)
        self.counts[streams] = 0

    def tail(self) -> bytearray:
        """Where small payloads are put behind each other."""
        if self.payload and type(self.payload[-1]) is bytearray:
            return self.payload[-1]
        tail = bytearray()
        self.payload.append(tail)
        return tail

    def pieces(self) -> dict[StreamName, int]:
        """The (event, stream) pieces by stream."""
        pieces = dict.fromkeys(self.streams, 0)
        for streams, events in self.counts.items():
            for name in streams:
                pieces[name] += events
        return pieces

    def closed(self, session: SessionId, memory: MessageMemory) -> PackedBatch:
        # Made here, in the thread that filled it: to copy and to checksum gives way to that thread
        # again and again, which costs the link's thread far more than the work.
        header = Batch(
            session,
            Sequence(0),
            0,
            self.order_base,
            tuple(self.streams),
            _NO_TABLE,
            _NO_PAYLOAD,
            self.message_bytes,
        )
        message = encode_pieces(header, self.events, [self.table], self.payload, memory.take)
        return PackedBatch(self.run, self.events, self.pieces(), self.queue_bytes, message)


class Packer:
    """Open batches, and the closed ones that were not taken yet."""

    def __init__(self, session: SessionId, packing: Packing) -> None:
        self.session = session
        self.packing = packing
        self.events = 0  # taken in so far: the position of the next event in the session
        self.open_bytes = 0
        self._memory = MessageMemory(packing.message_bytes_max)
        # Insertion order is the order of each batch's first event.
        self._open: dict[tuple[RunNumber, StreamSet], _OpenBatch] = {}
        # Which open batch a stream of a run is in: at most one at any time.
        self._batch_of: dict[tuple[RunNumber, StreamName], _OpenBatch] = {}
        self._closed: list[PackedBatch] = []
        self._now_ns = 0
        self._last_close_ns: int | None = None
        self._span = 0

    def bound(self, message_bytes_max: int) -> None:
        """Make no batch of several events that is longer."""
        part = message_bytes_max * _LARGER_PART // (_LARGER_PART + 1)
        batch_bytes_max = min(self.packing.batch_bytes, max(part, BATCH_BYTES_MIN))
        self.packing = replace(self.packing, batch_bytes=batch_bytes_max)

    # --- events in ------------------------------------------------------------------------------

    def add(
        self,
        run: RunNumber,
        streams: StreamSet,
        number: EventNumber,
        time_ns: int,
        payload: bytes | bytearray | memoryview,
        now_ns: int,
    ) -> None:
        """One event. `payload` is a flat buffer of bytes; what is not `bytes` is copied."""
        size = len(payload)
        self._now_ns = now_ns
        batch = self._open_batch(run, streams, EVENT_BYTES + size)
        batch.table += _ROW.pack(
            number, time_ns, run, size, batch.masks[streams], self.events - batch.order_base
        )
        if size > _COPIED_BYTES_MAX:
            batch.payload.append(payload if type(payload) is bytes else bytes(payload))
        else:
            batch.tail().extend(payload)
        self._added(batch, streams, 1, size, size)

    def add_many(self, run: RunNumber, streams: StreamSet, events: ManyEvents, now_ns: int) -> None:
        """Events of one stream set, without any code per event; the payload is copied."""
        self._now_ns = now_ns
        sizes = events.sizes
        ends: NDArray[np.int64] | None = None
        begin = at = 0
        batch: _OpenBatch | None = None
        while begin < len(sizes):
            batch = self._open_batch(run, streams, EVENT_BYTES + int(sizes[begin]))
            if begin == 0 and self._fits_whole(batch, events):
                end, size = len(sizes), len(events.payload)
            else:
                ends = np.cumsum(sizes, dtype=np.int64) if ends is None else ends
                end = self._fitting(batch, ends, begin, at)
                size = int(ends[end - 1]) - at
            chosen = slice(begin, end)
            batch.table += self._rows(batch, run, streams, events, chosen).tobytes()
            part = events.payload[at : at + size]
            if size > _COPIED_BYTES_MAX:
                batch.payload.append(part)
            else:
                batch.tail().extend(part.data)
            self._added(batch, streams, end - begin, size, int(sizes[end - 1]))
            begin, at = end, at + size
        # What was closed was copied into its message. What stays open must be ours before the
        # caller goes on: only the last batch can, and only its last part can be the caller's.
        if batch is not None and self._open.get((run, streams)) is batch:
            last = batch.payload[-1]
            batch.payload[-1] = last.tobytes() if isinstance(last, np.ndarray) else last

    def _rows(
        self,
        batch: _OpenBatch,
        run: RunNumber,
        streams: StreamSet,
        events: ManyEvents,
        chosen: slice,
    ) -> EventTable:
        assert events.numbers is not None
        times_ns = events.times_ns
        table = np.empty(chosen.stop - chosen.start, EVENT_DTYPE)
        table["number"] = events.numbers[chosen]
        table["time_ns"] = times_ns if isinstance(times_ns, int) else times_ns[chosen]
        table["run"] = run
        table["size"] = events.sizes[chosen]
        table["streams"] = batch.masks[streams]
        first = self.events - batch.order_base
        table["order"] = np.arange(first, first + len(table), dtype=np.uint64)
        return table

    def _open_batch(self, run: RunNumber, streams: StreamSet, more_bytes: int) -> _OpenBatch:
        """The open batch that takes an event of so many bytes for these streams."""
        batch = self._open.get((run, streams)) or self._joined(run, streams)
        if batch is not None and (
            batch.message_bytes + more_bytes > self.packing.batch_bytes
            or self.events - batch.order_base > _ORDER_SPAN_MAX
        ):
            self._close(batch)
            batch = None
        return batch or self._new_batch(run, streams)

    def _joined(self, run: RunNumber, streams: StreamSet) -> _OpenBatch | None:
        """An open batch with one of these streams in it, widened to take them all."""
        touched = {
            id(batch): batch
            for name in streams
            if (batch := self._batch_of.get((run, name))) is not None
        }
        if not touched:
            return None
        if len(touched) == 1:
            (batch,) = touched.values()
            if len({*batch.streams, *streams}) <= STREAMS_PER_BATCH_MAX:
                batch.widen(streams)
                for name in batch.streams:
                    self._batch_of[run, name] = batch
                self._open[run, streams] = batch
                return batch
        # A stream's events of two batches would come in the wrong order: the older ones go first.
        for batch in self._batches():
            if id(batch) in touched:
                self._close(batch)
        return None

    def _new_batch(self, run: RunNumber, streams: StreamSet) -> _OpenBatch:
        if len(self._open) >= OPEN_BATCHES_MAX:
            self._close(next(iter(self._open.values())))
        batch = _OpenBatch(run, [], self.events, self._now_ns)
        batch.widen(streams)
        self._open[run, streams] = batch
        for name in streams:
            self._batch_of[run, name] = batch
        return batch

    def _fits_whole(self, batch: _OpenBatch, events: ManyEvents) -> bool:
        count = len(events)
        return (
            batch.message_bytes + events.queue_bytes <= self.packing.message_bytes_max
            and batch.events + count <= self.packing.batch_events
            and (not self.packing.span_events or self._span + count <= self.packing.span_events)
        )

    def _fitting(self, batch: _OpenBatch, ends: NDArray[np.int64], begin: int, at: int) -> int:
        """The end of what fits, from event `begin` whose payload starts at `at`; one at least."""
        room = self.packing.batch_bytes - batch.message_bytes
        # Length of the message with the events up to each one of the next in it.
        most = min(len(ends), begin + self.packing.batch_events - batch.events)
        if self.packing.span_events:
            most = min(most, begin + self.packing.span_events - self._span)
        lengths = ends[begin:most] - at + np.arange(1, most - begin + 1) * EVENT_BYTES
        return begin + max(1, int(np.searchsorted(lengths, room, side="right")))

    def _added(
        self, batch: _OpenBatch, streams: StreamSet, events: int, size: int, last_size: int
    ) -> None:
        batch.counts[streams] += events
        batch.events += events
        batch.payload_bytes += size
        self.events += events
        self.open_bytes += events * EVENT_BYTES + size
        self._span += events
        if (
            batch.events >= self.packing.batch_events
            # Another one like the last would not fit, so there is nothing to wait for.
            or batch.message_bytes + EVENT_BYTES + last_size > self.packing.batch_bytes
        ):
            self._close(batch)
        if self.packing.span_events and self._span >= self.packing.span_events:
            self.close_all()
        while self.open_bytes > self.packing.open_bytes and self._open:
            self._close(next(iter(self._open.values())))

    # --- batches out ----------------------------------------------------------------------------

    def due_ns(self) -> int | None:
        """When the oldest open batch is to be closed; None for not by time."""
        if not self._open or self.packing.linger_ns is None:
            return None
        opened_ns = next(iter(self._open.values())).opened_ns
        if self._last_close_ns is None:
            return opened_ns
        # Not later, although other batches are closed all the time.
        latest_ns = opened_ns + self.packing.linger_ns
        return max(opened_ns, min(self._last_close_ns + self.packing.linger_ns, latest_ns))

    def close_due(self, now_ns: int) -> None:
        """Close the batches whose time has come."""
        self._now_ns = now_ns
        while (due_ns := self.due_ns()) is not None and now_ns >= due_ns:
            self._close(next(iter(self._open.values())))

    def close_all(self) -> None:
        """Close every open batch, in the order of their first events."""
        while self._open:
            self._close(next(iter(self._open.values())))
        self._span = 0

    def close_run(self, run: RunNumber) -> None:
        """Close the open batches of a run."""
        for batch in self._batches():
            if batch.run == run:
                self._close(batch)

    @property
    def anything_open(self) -> bool:
        return bool(self._open)

    def open_pieces(self) -> dict[StreamName, int]:
        """The (event, stream) pieces in open batches."""
        pieces: dict[StreamName, int] = {}
        for batch in self._batches():
            for name, count in batch.pieces().items():
                pieces[name] = pieces.get(name, 0) + count
        return pieces

    @property
    def anything_closed(self) -> bool:
        return bool(self._closed)

    def taken(self) -> list[PackedBatch]:
        """The closed batches, in the order in which they were closed; they are the caller's now."""
        batches, self._closed = self._closed, []
        return batches

    def _batches(self) -> list[_OpenBatch]:
        """The open batches, in the order of their first events."""
        return list(dict.fromkeys(self._open.values()))

    def _close(self, batch: _OpenBatch) -> None:
        for streams in batch.masks:
            del self._open[batch.run, streams]
        for name in batch.streams:
            del self._batch_of[batch.run, name]
        self.open_bytes -= batch.queue_bytes
        self._last_close_ns = self._now_ns
        self._closed.append(batch.closed(self.session, self._memory))


assert batch_bytes(1, STREAMS_PER_BATCH_MAX, EVENT_BYTES_MAX) <= MESSAGE_BYTES_MAX
assert STREAM_NAME_BYTES_MAX * STREAMS_PER_BATCH_MAX < BATCH_BYTES_MIN
