"""A source's accounts: (event, stream) pieces by stream, from the caller's hand to their end.

It only counts. sent = acknowledged + refused + run_ended + pending, at any moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from dlog.errors import SourceError
from dlog.limits import DIVERSIONS_KEPT_MAX, WATERMARKS_PER_SESSION_MAX
from dlog.model.ids import StreamName
from dlog.model.messages import Acknowledgement, RefusedRange

RUN_ENDED: Final = "run-ended"
TOO_LARGE: Final = "event-too-large"
# A logger that makes up reasons must not grow the table.
_REASONS_MAX: Final = 32
_OTHER: Final = "other"
LATE: Final = "late"
STREAM_UNKNOWN: Final = "stream-unknown"
_DIVERTED_MAX: Final = DIVERSIONS_KEPT_MAX + _REASONS_MAX


@dataclass(frozen=True, slots=True)
class StreamReport:
    """(event, stream) pieces of a stream. sent = acknowledged + refused + run_ended + pending.

    sent: accepted from the caller. acknowledged: durable. refused: settled without being stored, by
    reason. run_ended: never left the source, because their run was over. pending: the rest.
    garbage, orphan: of the acknowledged, those that are not in the stream's files but in its
    garbage file (they were late) or in the orphan file (run or stream was not there).
    """

    sent: int
    acknowledged: int
    refused: dict[str, int]
    run_ended: int
    pending: int
    garbage: int = 0
    orphan: int = 0

    @property
    def stored(self) -> int:
        """In the stream's own files. What was diverted may be told before all of its batch is
        acknowledged."""
        return max(0, self.acknowledged - self.garbage - self.orphan)


@dataclass(slots=True)
class _Count:
    """taken: accepted from the caller, in closed batches. settled: answered for by the logger, the
    refused ones too."""

    taken: int = 0
    settled: int = 0
    run_ended: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def refuse(self, reason: str, pieces: int) -> None:
        known = reason in self.refused or len(self.refused) < _REASONS_MAX
        key = reason if known else _OTHER
        if pieces:
            self.refused[key] = self.refused.get(key, 0) + pieces


class SourceCounts:
    """The accounts of a session. refusals_seen: how many refusals were taken, from the first.
    diverted: durable pieces that are not in their stream's files, by run, stream and reason."""

    def __init__(self, refusals_seen: int) -> None:
        self.refusals_seen = refusals_seen
        self._streams: dict[StreamName, _Count] = {}
        self.diverted: dict[tuple[int, str, str], int] = {}

    def open_stream(self, name: StreamName) -> None:
        """Raises `SourceError` where there are too many streams."""
        if name in self._streams:
            return
        if len(self._streams) >= WATERMARKS_PER_SESSION_MAX:
            raise SourceError(f"more than {WATERMARKS_PER_SESSION_MAX} streams")
        self._streams[name] = _Count()

    def taken(self, pieces: Mapping[StreamName, int]) -> None:
        for name, number in pieces.items():
            self._streams.setdefault(name, _Count()).taken += number

    def settled(self, pieces: Mapping[StreamName, int]) -> None:
        for name, number in pieces.items():
            self._streams[name].settled += number

    def run_ended(self, pieces: Mapping[StreamName, int]) -> None:
        for name, number in pieces.items():
            self._streams[name].run_ended += number

    def given_up(self, pieces: Mapping[StreamName, int], reason: str) -> None:
        """Settled, by an empty batch in their place: the logger cannot take them."""
        for name, number in pieces.items():
            self._streams[name].refuse(reason, number)

    def refusals(self, ack: Acknowledgement) -> None:
        """Count what was not counted before: refusals are repeated until they are confirmed."""
        for number, refusal in enumerate(ack.refusals, ack.refusals_from):
            if number >= self.refusals_seen:
                self._refused(refusal)
                self.refusals_seen = number + 1

    def _refused(self, refusal: RefusedRange) -> None:
        name = StreamName(refusal.stream)
        # Of a replay, a refusal may come before its events were given again.
        if name not in self._streams and len(self._streams) >= WATERMARKS_PER_SESSION_MAX:
            name = next(iter(self._streams))
        self._streams.setdefault(name, _Count()).refuse(refusal.reason, refusal.events)

    def learn_diverted(self, ack: Acknowledgement) -> None:
        """The logger tells all of them each time; only so many, so that the table is bounded."""
        for told in ack.diverted:
            key = (told.run, told.stream, told.why)
            if key in self.diverted or len(self.diverted) < _DIVERTED_MAX:
                self.diverted[key] = max(told.events, self.diverted.get(key, 0))

    def diverted_to(self, *, garbage: bool, stream: str | None = None) -> int:
        """Pieces in garbage files, or in the orphan file; of one stream, or all."""
        return sum(
            pieces
            for (_, name, why), pieces in self.diverted.items()
            if (why == LATE) is garbage and stream in (None, name)
        )

    def reasons(self) -> dict[str, int]:
        """Pieces that were settled without being stored, by reason, over all streams."""
        reasons: dict[str, int] = {}
        for count in self._streams.values():
            lost = [*count.refused.items(), (RUN_ENDED, count.run_ended)]
            for reason, pieces in lost:
                if pieces:
                    reasons[reason] = reasons.get(reason, 0) + pieces
        return reasons

    def report(self, open_pieces: Mapping[StreamName, int]) -> dict[str, StreamReport]:
        """By stream; `open_pieces` are those in batches that are not closed yet."""
        return {
            str(name): replace(
                _stream_report(count, open_pieces.get(name, 0)),
                garbage=self.diverted_to(garbage=True, stream=name),
                orphan=self.diverted_to(garbage=False, stream=name),
            )
            for name, count in {**{n: _Count() for n in open_pieces}, **self._streams}.items()
        }


def _stream_report(count: _Count, open_pieces: int) -> StreamReport:
    sent = count.taken + open_pieces
    refused = sum(count.refused.values())
    # A refusal may be told before the rest of its batch is settled.
    acknowledged = max(0, count.settled - refused)
    return StreamReport(
        sent=sent,
        acknowledged=acknowledged,
        refused=dict(count.refused),
        run_ended=count.run_ended,
        pending=max(0, sent - acknowledged - refused - count.run_ended),
    )
