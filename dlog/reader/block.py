"""An events block and its events, as numpy views of bytes whose checksums were checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlog.core.block import BlockHeader
from dlog.model.events import EventTable, Payload
from dlog.model.ids import (
    EventNumber,
    FileKind,
    RunNumber,
    Sequence,
    SessionId,
    StreamName,
    valid_stream_name,
)


class Event(NamedTuple):
    """An event as it was sent. `payload` is a view of its block's bytes: `bytes(event.payload)`
    copies them, `np.frombuffer(event.payload, "<u2")` looks at them.

    time_ns: the source's clock, nanoseconds since 1970-01-01 UTC; 0 is unknown. stream: as it was
    sent; streams: every stream in which the event was found (more than one only in the order sent).
    kind: of the file that it lies in. session, sequence: the batch that brought it. position: in
    the sending order of its session.
    """

    number: EventNumber
    time_ns: int
    run: RunNumber
    stream: StreamName
    payload: memoryview
    kind: FileKind
    session: SessionId
    sequence: Sequence
    position: int
    streams: tuple[StreamName, ...]


class Block:
    """An events block. All arrays are views, read-only.

    pieces: a row for each part of a batch in it, dtype FRAGMENT_DTYPE; their events lie one behind
    the other. table: a row for each event, dtype EVENT_DTYPE. payload: the bytes of the events, one
    behind the other; raw_payload: the same as a memoryview.
    """

    __slots__ = ("_offsets", "header", "kind", "path", "payload", "pieces", "raw_payload", "table")

    def __init__(
        self,
        path: str,
        kind: FileKind,
        header: BlockHeader,
        pieces: NDArray[Any],
        table: EventTable,
        raw_payload: memoryview,
    ) -> None:
        self.path = path
        self.kind = kind
        self.header = header
        self.pieces = pieces
        self.table = table
        self.raw_payload = raw_payload
        self.payload: Payload = np.frombuffer(raw_payload, np.uint8)
        self._offsets: NDArray[np.int64] | None = None

    @property
    def number(self) -> int:
        """Its number in the (run, stream), across all files."""
        return self.header.number

    @property
    def offset(self) -> int:
        """Where it begins in its file, in bytes."""
        return self.header.offset

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Shape (events + 1,): event i is `payload[offsets[i]:offsets[i + 1]]`."""
        if self._offsets is None:
            offsets = np.zeros(len(self.table) + 1, np.int64)
            np.cumsum(self.table["size"], out=offsets[1:])
            offsets.flags.writeable = False
            self._offsets = offsets
        return self._offsets

    def __len__(self) -> int:
        """Events in it."""
        return len(self.table)

    def __repr__(self) -> str:
        return f"<Block {self.number} of {self.path} at byte {self.offset}: {len(self)} events>"

    def __iter__(self) -> Iterator[Event]:
        """The events, in file order."""
        table, payload, kind = self.table, self.raw_payload, self.kind
        numbers, times = table["number"].tolist(), table["time_ns"].tolist()
        runs, orders = table["run"].tolist(), table["order"].tolist()
        offsets = self.offsets.tolist()
        row = 0
        for piece in self.pieces:
            session, stream = SessionId(piece["session"].tobytes()), stream_of(piece)
            sequence, base = Sequence(int(piece["sequence"])), int(piece["order_base"])
            streams = (stream,)
            begin, row = row, row + int(piece["events"])
            for i in range(begin, row):
                yield Event(
                    numbers[i], times[i], runs[i], stream, payload[offsets[i] : offsets[i + 1]],
                    kind, session, sequence, base + orders[i], streams,
                )  # fmt: skip


def stream_of(piece: Any) -> StreamName:
    """The stream as sent, of a row of `Block.pieces`."""
    return StreamName(bytes(piece["stream"]).decode("ascii", "replace"))


def content_problem(block: Block) -> str:
    """Why table, fragments and header do not fit each other, "" where they do."""
    header, table, pieces, offsets = block.header, block.table, block.pieces, block.offsets
    if int(offsets[-1]) != len(block.payload):
        return "sizes of the events do not add up to the payload"
    ends = np.cumsum(pieces["events"], dtype=np.int64)
    if (int(ends[-1]) if len(ends) else 0) != len(table):
        return "fragment table does not add up to the block"
    for name in set(pieces["stream"].tolist()):
        if not valid_stream_name(name.decode("ascii", "replace")):
            return f"fragment of a stream called {name!r}"
    if len(table) == 0:
        return ""
    numbers = table["number"]
    first, last = int(numbers.min()), int(numbers.max())
    if (first, last) != (header.first_event, header.last_event):
        return f"events {first} to {last}, but the header says otherwise (event range)"
    sizes = offsets[ends] - offsets[ends - pieces["events"]]
    if not bool((sizes == pieces["payload_bytes"]).all()):
        return "sizes of the events do not add up to their fragment"
    runs = pieces["run"][0] if len(pieces) == 1 else np.repeat(pieces["run"], pieces["events"])
    if not bool((table["run"] == runs).all()):
        return "events of another run than their fragment says"
    return ""
