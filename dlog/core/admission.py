"""Admission: what of a session is taken, by the protocol rules. It does no I/O and knows no clock.

Only the batch behind the last admitted one is admitted; duplicates are judged against what was
admitted, acknowledgements come from what is committed. docs/PROTOCOL.md, "Sessions".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from dlog.core.batch import Batch
from dlog.core.journal_records import Diversion, Refusal, SessionRecord
from dlog.limits import HOST_LETTERS_MAX, REFUSALS_TOLD_MAX, WATERMARKS_PER_SESSION_MAX
from dlog.model.ids import MarkKey, RunNumber, SessionId, StreamName, valid_source_name
from dlog.model.messages import Hello

# What a source may say of itself: what is counted on from there must fit into 64 bits for ever.
_NUMBER_MAX: Final = 2**62


class Admission(enum.Enum):
    """What becomes of a batch that came."""

    ADMIT = "admitted"
    DUPLICATE = "admitted before: its pieces only count"
    GAP = "one before it is missing: the source is asked to send again"
    WINDOW = "outside the window: dropped"


@dataclass(eq=False, slots=True)
class SessionState:
    """A session as the protocol sees it; what is committed of it comes from the committer.

    admitted, position: the last admitted batch, and the session's bytes up to and including it; a
    HELLO may set them back. high, high_position: the highest that was ever admitted in this boot.
    diverted: its events that are stored elsewhere, as committed.
    settled_bytes: bytes of the settled batches. limit: how far the source may send, in bytes.
    refused_whole: refusals below that number change no more, and are told; later ones wait until
    the source has confirmed some.
    wanted, settle: what its source asked for in its last heartbeat, in bytes.
    limit_told: the highest limit that there was, before some of it was taken back.
    marks: highest admitted batch by run and stream as sent. end_of_run: the source's answers.
    """

    id: SessionId
    admitted: int
    position: int
    high: int
    high_position: int
    acknowledged: int
    settled_bytes: int
    limit: int
    selective: tuple[tuple[int, int], ...] = ()
    refused: tuple[Refusal, ...] = ()
    diverted: tuple[Diversion, ...] = ()
    refused_from: int = 0
    refused_whole: int = 0
    wanted: int = 0
    settle: int = 0
    limit_told: int = 0
    marks: dict[tuple[RunNumber, StreamName], int] = field(default_factory=dict)
    end_of_run: dict[RunNumber, int] = field(default_factory=dict)
    rebuilt: bool = False

    @classmethod
    def of(cls, record: SessionRecord) -> SessionState:
        """As the journal has it: nothing above the acknowledgement was admitted yet."""
        n, position = record.acknowledged, record.position_bytes
        return cls(
            SessionId(record.session),
            n,
            position,
            n,
            position,
            n,
            position,
            position,
            refused=tuple(record.refused),
            diverted=tuple(record.diverted),
            refused_from=record.refused_from,
            refused_whole=record.refused_from + REFUSALS_TOLD_MAX,
            rebuilt=record.rebuilt,
        )

    # --- HELLO -------------------------------------------------------------------------------

    def accepts(self, hello: Hello) -> bool:
        """Whether the source may go on from where it says: nothing may be missing in between. What
        is acknowledged of a rebuilt session only the source knows."""
        return hello.lowest <= self.acknowledged + 1 or self.rebuilt

    def reopen(self, hello: Hello) -> None:
        """It sends again from its lowest unacknowledged batch."""
        self.admitted = hello.lowest - 1
        self.position = hello.position_bytes
        self.settle = 0

    def adopt(self, hello: Hello) -> bool:
        """Take a rebuilt session's acknowledgement from its source; whether it is not below ours.
        Refusals to come are numbered behind those that the source has counted, or it would pass
        them over."""
        self.rebuilt = False
        seen = max(self.refused_from, hello.refusals_seen)
        self.refused = self.refused[seen - self.refused_from :]
        self.refused_from, self.refused_whole = seen, seen + REFUSALS_TOLD_MAX
        if hello.lowest - 1 < self.acknowledged:
            return False
        self.acknowledged = self.high = hello.lowest - 1
        self.settled_bytes = self.high_position = self.limit = hello.position_bytes
        return True

    # --- batches -----------------------------------------------------------------------------

    def judge(self, batch: Batch, memory_bytes: int) -> tuple[Admission, str]:
        """What becomes of the batch, and in words why it is dropped. It changes nothing."""
        n = batch.sequence
        if n > self.admitted + 1:
            return Admission.GAP, f"batch {n} came, {self.admitted + 1} is next"
        if n <= self.admitted:
            return Admission.DUPLICATE, ""
        if batch.position_bytes != self.position:
            return Admission.WINDOW, (
                f"it says that it begins at byte {batch.position_bytes} of the session, "
                f"byte {self.position} was expected"
            )
        if n <= self.high or n <= self.acknowledged:
            # It was admitted before the source said HELLO again: the first copy settles it.
            return Admission.DUPLICATE, ""
        if self.position != self.high_position:
            # The window counts bytes of the session: said too low, it would bound nothing.
            return Admission.WINDOW, (
                f"its source said that it begins at byte {self.position} of the session; the batch "
                f"before ended at byte {self.high_position}"
            )
        end = batch.position_bytes + batch.message_bytes
        beyond = end > self.limit or end - self.settled_bytes > memory_bytes
        if beyond and not batch.settled:
            return Admission.WINDOW, (
                f"it ends at byte {end} of the session, the window at {self.limit}"
            )
        return Admission.ADMIT, ""

    def was_granted(self, batch: Batch) -> bool:
        """Whether it was under way, where it belongs, when the window was taken back."""
        in_its_place = batch.position_bytes == self.position == self.high_position
        return in_its_place and batch.position_bytes + batch.message_bytes <= self.limit_told

    def admit(self, batch: Batch) -> None:
        """It is the one behind the last: what comes next is behind it."""
        if batch.sequence != self.admitted + 1:
            return
        self.admitted = batch.sequence
        self.position = batch.position_bytes + batch.message_bytes
        self.settle = max(0, self.settle - batch.message_bytes)
        if self.admitted > self.high:
            self.high, self.high_position = self.admitted, self.position

    def is_duplicate(self, mark: MarkKey, sequence: int) -> bool:
        """Whether the piece was admitted before, in this boot or, by its watermark, in another."""
        return sequence <= self.marks.get((mark.run, mark.stream), 0)

    def has_room_for(self, mark: MarkKey) -> bool:
        """Whether a watermark may be kept for it: a source cannot make up streams without end."""
        known = (mark.run, mark.stream) in self.marks
        return known or len(self.marks) < WATERMARKS_PER_SESSION_MAX

    def mark(self, mark: MarkKey, sequence: int) -> None:
        self.marks[mark.run, mark.stream] = sequence

    # --- what the source is told -------------------------------------------------------------

    def told(self) -> tuple[int, list[tuple[int, int]], tuple[Refusal, ...]]:
        """The acknowledged batch, the settled ranges above it, and the refusals that go with them:
        nothing that is settled is told before its refusals are."""
        count = max(0, self.refused_whole - self.refused_from)
        later = self.refused[count:]
        if not later:
            return self.acknowledged, list(self.selective), self.refused
        end = min(refusal.first for refusal in later) - 1
        selective = [(first, min(last, end)) for first, last in self.selective if first <= end]
        return min(self.acknowledged, end), selective, self.refused[:count]

    # --- end of run --------------------------------------------------------------------------

    def sent_events_of(self, run: RunNumber) -> bool:
        return any(of_run == run for of_run, _ in self.marks)

    def is_drained(self, run: RunNumber) -> bool:
        """The source has said what its last batch of the run is, and all up to it is settled."""
        last = self.end_of_run.get(run)
        if last is None or max(self.high, self.acknowledged) < last:
            return False
        following = self.acknowledged + 1
        for first, end in self.selective:
            if first > following:
                break
            following = max(following, end + 1)
        return following > last


def hello_problem(peer: bytes, hello: Hello) -> str:
    """What is wrong with a HELLO that came by that routing id, or ""."""
    if not valid_source_name(hello.name):
        return f"{hello.name[:80]!r} is not a source name"
    if len(hello.session) != 16:
        return f"a session of {len(hello.session)} bytes; 16 are needed"
    if peer != hello.name.encode() + b"/" + hello.session:
        return "the routing id is not name, slash and session"
    if len(hello.host) > HOST_LETTERS_MAX or not 0 <= hello.process <= _NUMBER_MAX:
        return f"a host name of {len(hello.host)} letters, process {hello.process}"
    if not 1 <= hello.lowest <= _NUMBER_MAX or not 0 <= hello.position_bytes <= _NUMBER_MAX:
        return f"lowest {hello.lowest}, position {hello.position_bytes}"
    if not 0 <= hello.refusals_seen <= _NUMBER_MAX:
        return f"{hello.refusals_seen} refusals"
    return ""
