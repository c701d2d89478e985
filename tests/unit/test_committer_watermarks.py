"""What the committer makes of settlements: the watermark that duplicates are judged by, and the
counters that a run leaves behind."""

from __future__ import annotations

from random import Random

from msgspec.structs import replace

from dlog.core import journal_records as records
from dlog.core.journal_records import EndedRunRecord, MarkRecord, SessionRecord, StreamRecord
from dlog.core.states import RunState
from dlog.faults.simulation.clock import SimulatedClock
from dlog.faults.simulation.journal import SimulatedJournal
from dlog.faults.simulation.steps import StorageSteps
from dlog.limits import COUNTS_PER_RUN_MAX, ORPHAN_SOURCES_MAX
from dlog.model.config import StreamConfig
from dlog.model.ids import (
    NO_RUN,
    ORPHAN_STREAM,
    MarkKey,
    RunNumber,
    SessionId,
    StreamKey,
    StreamName,
)
from dlog.services.committer import Committer, Settlement

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


ENDED = EndedRunRecord(
    run=MARK.run,
    state=RunState.ENDED,
    started_ns=0,
    ended_ns=1,
    streams={"photons": StreamConfig()},
)


def test_a_stream_that_stored_nothing_leaves_the_live_state_with_its_run() -> None:
    journal = SimulatedJournal(StorageSteps(Random(1)))
    committer = committer_of(journal)
    key = records.stream_key(StreamKey(MARK.run, MARK.stream))
    stream = records.encode_record(key, StreamRecord(run=MARK.run, stream=MARK.stream))
    committer.submit([(key, stream)])
    committer.submit_made(lambda c: c.end_run(ENDED))
    committer.step()
    assert [found for found, _ in journal.scan(records.STREAMS)] == []


def test_a_run_that_very_many_sources_sent_to_can_be_ended_with_its_sums() -> None:
    # Its record was larger than a journal's value may be, which no start got past.
    journal = SimulatedJournal(StorageSteps(Random(1)))
    committer = committer_of(journal)
    sources = 3 * COUNTS_PER_RUN_MAX
    for n in range(sources):
        committer.settle(replace(PIECE, source=f"router-with-a-long-name-on-host-{n:06d}"))
    committer.submit_made(lambda c: c.end_run(ENDED))
    committer.step()
    key = records.ended_run_key(MARK.run)
    value = journal.get(key)
    assert value is not None
    counts = records.decode_record(key, value, EndedRunRecord).counts
    assert sum(count.stored for _, _, count in counts) == sources * PIECE.stored
    assert len(counts) == COUNTS_PER_RUN_MAX + 1


def test_sources_without_end_that_send_orphans_share_a_counter_at_last() -> None:
    journal = SimulatedJournal(StorageSteps(Random(1)))
    committer = committer_of(journal)
    sources = 3 * ORPHAN_SOURCES_MAX
    orphan = replace(
        PIECE, count_run=NO_RUN, count_stream=ORPHAN_STREAM, stored=0, orphan=10, shares=0
    )
    for n in range(sources):
        committer.settle(replace(orphan, source=f"router-{n}"))
    committer.step()
    after = committer_of(journal).counts_now()
    assert len(after) == ORPHAN_SOURCES_MAX + 1
    assert sum(count.orphan for count in after.values()) == 10 * sources


def committer_of(journal: SimulatedJournal) -> Committer:
    committer = Committer(journal, SimulatedClock(), single_thread=True)
    committer.load()
    return committer


def mark_in(journal: SimulatedJournal) -> int:
    key = records.mark_key(MARK)
    value = journal.get(key)
    assert value is not None
    return records.decode_record(key, value, MarkRecord).sequence
