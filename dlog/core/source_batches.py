"""A source's closed batches, from the packer to the acknowledgement: what waits for a number, what
has one, what is settled. It knows positions and counts, and sends nothing.

A batch gets its number when it is about to be sent for the first time, so that a held run's
batches keep nobody waiting. Only a replay (`dlog send`) numbers in packing order whatever comes,
since after a restart each batch must get the number that it had.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dlog.core.batch import Batch, encode_batch, number_batch
from dlog.core.packer import PackedBatch, cut
from dlog.core.source_counts import TOO_LARGE, SourceCounts
from dlog.errors import SourceRefused
from dlog.model import ids
from dlog.model.events import EVENT_DTYPE
from dlog.model.ids import RunNumber, SessionId, StreamName

# Runs for which the last batch's number is kept.
_LAST_OF_RUN_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Progress:
    """What must outlive the process so that another one can go on with the session: the cumulative
    acknowledgement, the bytes of the session up to there, the refusals accounted for, and the
    logger that acknowledged (b"" for none)."""

    acknowledged: int = 0
    position_bytes: int = 0
    refusals_seen: int = 0
    logger_uuid: bytes = b""


@dataclass(slots=True, eq=False)
class NumberedBatch:
    """A batch that has its place in the session; its message is the same at every resend.

    message_bytes: length of the original, also when only the placeholder is sent. content: None
    when the batch is settled, or the logger cannot take it (`given_up`): its memory is free.
    """

    place: int  # in the packing order, from 0
    number: int
    position_bytes: int
    message_bytes: int
    events: int
    pieces: dict[StreamName, int]
    queue_bytes: int
    content: bytearray | None
    run: RunNumber
    sent: bool = False
    given_up: bool = False
    settled: bool = False

    @property
    def end_bytes(self) -> int:
        return self.position_bytes + self.message_bytes

    def message(self, session: SessionId) -> bytearray:
        """What is sent for it: itself, or the empty batch in its place."""
        if self.content is not None:
            return self.content
        placeholder = Batch(
            session,
            ids.Sequence(self.number),
            self.position_bytes,
            0,
            (),
            np.empty(0, EVENT_DTYPE),
            np.empty(0, np.uint8),
            self.message_bytes,
            settled=True,
        )
        return encode_batch(placeholder)


class SourceBatches:
    """See the module. Numbers from 1; `cursor` is the next number to go out.

    acknowledged: cumulative. selective: settled ranges above it. admitted: the logger's last
    admitted, as it last said; a HELLO sets it back.
    """

    def __init__(
        self,
        session: SessionId,
        counts: SourceCounts,
        *,
        replayed: RunNumber | None,
        progress: Progress,
    ) -> None:
        self._session = session
        self._counts = counts
        self._replayed = replayed
        self._resume_from = progress
        self.progress = progress
        # Closed batches by run, each with its place in the packing order.
        self._queues: dict[RunNumber, deque[tuple[int, PackedBatch]]] = {}
        self.closed = 0
        self.queued_bytes = 0  # of all events that are not settled, those in open batches too
        self._run_bytes: dict[RunNumber, int] = {}  # of those that have no number yet
        self._numbered: dict[int, NumberedBatch] = {}
        self.last = 0  # highest number given
        self.end_bytes = 0  # position behind it
        self.cursor = 1
        self._last_of_run: dict[RunNumber, int] = {}
        self.acknowledged = progress.acknowledged
        self.selective: Sequence[tuple[int, int]] = ()
        self.admitted = 0
        self.given_up = False  # of a replay: some of its events were dropped, nothing may follow
        self.events_settled = 0
        self.events_run_ended = 0

    # --- in ---------------------------------------------------------------------------------------

    def take(self, run: RunNumber, size_bytes: int) -> None:
        """Events of so many bytes went to the packer."""
        self.queued_bytes += size_bytes
        self._run_bytes[run] = self._run_bytes.get(run, 0) + size_bytes

    def waiting_bytes(self, run: RunNumber) -> int:
        """What the run's events without a number take."""
        return self._run_bytes.get(run, 0)

    def enqueue(self, batches: Iterable[PackedBatch]) -> None:
        """Closed batches, in the order in which they were closed."""
        for batch in batches:
            self._counts.taken(batch.pieces)
            self._queues.setdefault(batch.run, deque()).append((self.closed, batch))
            self.closed += 1

    # --- what is known ----------------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        """Every closed batch is settled."""
        return not self._queues and not self._numbered

    def settled_before(self, place: int) -> bool:
        """Whether every batch before that place in the packing order is settled."""
        waits = any(queue[0][0] < place for queue in self._queues.values())
        return not waits and all(
            batch.settled or batch.place >= place for batch in self._numbered.values()
        )

    @property
    def runs_waiting(self) -> set[RunNumber]:
        """Runs with events that are not settled."""
        numbered = {batch.run for batch in self._numbered.values() if not batch.settled}
        return numbered | self._queues.keys()

    def settle_bytes(self, is_over: Callable[[int], bool]) -> int:
        """From the cursor on, the bytes of the batches whose runs are over."""
        size = 0
        for number in range(self.cursor, self.last + 1):
            batch = self._numbered[number]
            if not batch.settled and not is_over(batch.run):
                break
            size += batch.message_bytes
        return size

    @property
    def anything_queued(self) -> bool:
        return bool(self._queues)

    def last_of(self, run: RunNumber) -> int:
        """The highest number with events of the run; 0 for none."""
        return max(self._last_of_run.get(run, 0), self.known if run == self._replayed else 0)

    def sent_all_of(self, run: RunNumber) -> bool:
        """Whether each of its batches that are closed was sent."""
        if run in self._queues or (run == self._replayed and self.repeating):
            return False
        return self.last_of(run) < self.cursor

    def skip_to_progress(self) -> None:
        """Of a replay that was acknowledged to its end: nothing is given again."""
        self.last = self.progress.acknowledged
        self.end_bytes = self.progress.position_bytes
        self.cursor = self.last + 1

    @property
    def known(self) -> int:
        """Of a replay: up to here, batches may have been sent by an earlier process."""
        if self._replayed is None:
            return 0
        return max(self.acknowledged, self.admitted, self.selective[-1][1] if self.selective else 0)

    @property
    def repeating(self) -> bool:
        """Of a replay: what an earlier process sent is still being given again."""
        return not self.given_up and self.last < self.known

    def lowest(self) -> tuple[int, int]:
        """The lowest unacknowledged number, and the bytes of the session before it."""
        if self.last < self._resume_from.acknowledged:
            return self._resume_from.acknowledged + 1, self._resume_from.position_bytes
        for batch in self._numbered.values():
            return batch.number, batch.position_bytes
        return self.last + 1, self.end_bytes

    # --- out --------------------------------------------------------------------------------------

    def at_cursor(self) -> NumberedBatch | None:
        return self._numbered.get(self.cursor)

    def next_run(self, held: Collection[int]) -> RunNumber | None:
        """The run whose oldest batch is the next to get a number."""
        heads = [(queue[0][0], run) for run, queue in self._queues.items()]
        if self._replayed is not None:
            run = min(heads)[1] if heads else None
            return None if run in held and not self.repeating else run
        return min((head for head in heads if head[1] not in held), default=(0, None))[1]

    def next_bytes(self, run: RunNumber) -> int:
        """The length of the run's oldest batch."""
        return len(self._queues[run][0][1].message)

    def cut_next(self, run: RunNumber, message_bytes_max: int) -> None:
        """Cut the run's oldest batch into shorter ones."""
        place, packed = self._queues[run].popleft()
        self._queues[run].extendleft((place, part) for part in cut(packed, message_bytes_max)[::-1])

    def next_events(self, run: RunNumber) -> int:
        """How many events are in the run's oldest batch."""
        return self._queues[run][0][1].events

    def give_up(self, batch: NumberedBatch) -> None:
        """The logger cannot take it: an empty batch goes in its place, and it counts as refused."""
        batch.given_up = True
        batch.content = None
        self.queued_bytes -= batch.queue_bytes

    def number_next(self, run: RunNumber) -> NumberedBatch:
        """Give the run's oldest batch the next number.

        Raises `SourceRefused` for a replay that does not repeat what was sent before.
        """
        recalled = self.repeating
        place = self._queues[run][0][0]
        packed = self._dequeue(run)
        self.last += 1
        number_batch(packed.message, ids.Sequence(self.last), self.end_bytes)
        batch = NumberedBatch(
            place,
            self.last,
            self.end_bytes,
            len(packed.message),
            packed.events,
            packed.pieces,
            packed.queue_bytes,
            packed.message,
            run,
        )
        self.end_bytes = batch.end_bytes
        self._last_of_run[run] = self.last
        if len(self._last_of_run) > _LAST_OF_RUN_MAX:
            self._forget_runs()
        self._numbered[self.last] = batch
        if recalled:
            self._recall(batch)
        return batch

    def _recall(self, batch: NumberedBatch) -> None:
        """A batch that an earlier process of this session may have sent."""
        resume = self._resume_from
        if batch.number == resume.acknowledged and batch.end_bytes != resume.position_bytes:
            raise SourceRefused("the events given again are not those of the session")
        self._settle_known()
        # What is admitted is not sent again; should it be needed, the logger says so.
        if batch.number <= self.admitted:
            self.cursor = max(self.cursor, batch.number + 1)
        self.cursor = max(self.cursor, min(self.acknowledged, self.last) + 1)

    def _forget_runs(self) -> None:
        """Of a run whose batches are all acknowledged, the last one's number is of no use."""
        for run, last in list(self._last_of_run.items()):
            if last <= self.acknowledged:
                del self._last_of_run[run]

    def _dequeue(self, run: RunNumber) -> PackedBatch:
        queue = self._queues[run]
        packed = queue.popleft()[1]
        if not queue:
            del self._queues[run]
        left = self._run_bytes[run] - packed.queue_bytes
        if left:
            self._run_bytes[run] = left
        else:
            del self._run_bytes[run]
        return packed

    # --- settled ----------------------------------------------------------------------------------

    def acknowledge(
        self, acknowledged: int, selective: Sequence[tuple[int, int]], admitted: int
    ) -> None:
        """Take over what the logger says."""
        self.acknowledged = max(self.acknowledged, acknowledged)
        self.selective = [r for r in selective if r[1] > self.acknowledged]
        self.admitted = admitted
        self._settle_known()
        self.cursor = max(self.cursor, min(self.acknowledged, self.last) + 1)

    def _settle_known(self) -> None:
        while self._numbered:
            number = next(iter(self._numbered))
            if number > self.acknowledged:
                break
            batch = self._numbered.pop(number)
            self._settle(batch)
            # A replay begins below what it was told when it was begun.
            if number >= self.progress.acknowledged:
                self.progress = Progress(number, batch.end_bytes, self.progress.refusals_seen)
        for first, last in self.selective:
            for number in range(max(first, self.acknowledged + 1), min(last, self.last) + 1):
                self._settle(self._numbered[number])

    def _settle(self, batch: NumberedBatch) -> None:
        if batch.settled:
            return
        batch.settled = True
        self.events_settled += batch.events
        self._counts.settled(batch.pieces)
        if batch.given_up:
            self._counts.given_up(batch.pieces, TOO_LARGE)
        else:
            batch.content = None
            self.queued_bytes -= batch.queue_bytes

    # --- given up ---------------------------------------------------------------------------------

    def drop_run(self, run: RunNumber) -> None:
        """The run is over: what has no number is counted, and never sent."""
        while run in self._queues:
            self._drop(self._dequeue(run))
        self._last_of_run.pop(run, None)

    def drop_newest(self, run: RunNumber, batches: int) -> None:
        """The same for the run's last so many batches in the queue."""
        kept: deque[tuple[int, PackedBatch]] = self._queues.get(run, deque())
        dropped = [kept.pop()[1] for _ in range(batches)]
        for packed in dropped:
            self._run_bytes[run] -= packed.queue_bytes
            self._drop(packed)
        if not kept:
            self._queues.pop(run, None)
            self._run_bytes.pop(run, None)

    def _drop(self, packed: PackedBatch) -> None:
        self.queued_bytes -= packed.queue_bytes
        self.events_run_ended += packed.events
        self._counts.run_ended(packed.pieces)
