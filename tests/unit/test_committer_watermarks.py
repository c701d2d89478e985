"""What the committer makes of settlements: the watermark that duplicates are judged by."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from dlog.core import journal_records as records
from dlog.core.journal_records import MarkRecord, SessionRecord
from dlog.model.ids import MarkKey, RunNumber, SessionId, StreamName
from dlog.services.committer import Committer, Settlement
from dlog.simulation.clock import SimulatedClock
from dlog.simulation.journal import SimulatedJournal
from dlog.simulation.steps import StorageSteps

SESSION = SessionId(b"session-A-------")
MARK = MarkKey(SESSION, RunNumber(7), StreamName("photons"))
PIECE = Settlement(
    SESSION, 1, 2, 1000, "source", MARK, MARK.run, MARK.stream, stored=10, payload_bytes=100
)


def test_a_duplicate_never_lowers_the_watermark() -> None:
    # Batches 1 to 5 wait for another stream, so their source sends them again after a crash. If the
    # second copy of batch 1 set the mark back, another crash would let 2 to 5 in a second time.
    journal = SimulatedJournal(StorageSteps(Random(1)))
    before = committer_of(journal)
    before.submit_made(lambda c: c.open_session(SessionRecord(session=SESSION, name="source")))
    for sequence in range(1, 6):
        before.settle(replace(PIECE, sequence=sequence))
    before.step()
    assert mark_in(journal) == 5

    after = committer_of(journal)
    after.settle(replace(PIECE, stored=0, duplicate=10))
    after.step()
    assert mark_in(journal) == 5


def committer_of(journal: SimulatedJournal) -> Committer:
    committer = Committer(journal, SimulatedClock(), single_thread=True)
    committer.load()
    return committer


def mark_in(journal: SimulatedJournal) -> int:
    key = records.mark_key(MARK)
    value = journal.get(key)
    assert value is not None
    return records.decode_record(key, value, MarkRecord).sequence
