"""The committer: one commit for all that waits, told after it, and the ledger of the sessions."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from dlog.core import journal_records as records
from dlog.core.journal_records import SessionRecord
from dlog.errors import JournalFailed, JournalFull
from dlog.faults.simulation.clock import SimulatedClock
from dlog.faults.simulation.journal import JournalStore, SimulatedJournal
from dlog.faults.simulation.steps import Fault, FaultKind, Operation, StorageSteps
from dlog.limits import DIVERSIONS_KEPT_MAX
from dlog.model.ids import MarkKey, RunNumber, SessionId, StreamName
from dlog.services.committer import Committer, Settled, Settlement

SESSION = SessionId(bytes(range(16)))
RUN, PHOTONS = RunNumber(7), StreamName("photons")
MARK = MarkKey(SESSION, RUN, PHOTONS)


class Bench:
    """A committer with its journal, and what it told."""

    def __init__(self) -> None:
        self.steps = StorageSteps(Random(1))
        self.store = JournalStore()
        self.journal = SimulatedJournal(self.steps, self.store)
        self.committer = Committer(self.journal, SimulatedClock(), single_thread=True)
        self.news: list[Settled] = []
        self.committer.listen(self)
        record = SessionRecord(session=SESSION, name="router-1")
        self.committer.submit_made(lambda c: c.open_session(record)).wait()

    def settled(self, news: Sequence[Settled]) -> None:
        self.news += news

    def settle(self, sequence: int, *, shares: int = 1, events: int = 1) -> None:
        self.committer.settle(
            Settlement(
                SESSION, sequence, shares, 100, "router-1", MARK, RUN, PHOTONS, stored=events
            )
        )

    def marks(self) -> list[bytes]:
        return [key for key, _ in self.journal.scan(records.MARKS)]


def test_all_that_waits_is_one_commit_told_after_it() -> None:
    bench = Bench()
    before = bench.committer.commits
    for sequence in (1, 2, 3):
        bench.settle(sequence)
    assert bench.news == []
    bench.committer.step()
    assert bench.committer.commits == before + 1
    assert bench.news[-1].acknowledged == 3
    assert bench.news[-1].position_bytes == 300


def test_a_batch_is_acknowledged_once_all_its_shares_are_settled() -> None:
    bench = Bench()
    bench.settle(1, shares=2)
    bench.committer.step()
    assert bench.news[-1].acknowledged == 0
    bench.settle(1, shares=2)
    bench.committer.step()
    assert bench.news[-1].acknowledged == 1


def test_what_is_settled_above_a_gap_is_told_selectively() -> None:
    bench = Bench()
    for sequence in (2, 3, 5):
        bench.settle(sequence)
    bench.committer.step()
    assert bench.news[-1].acknowledged == 0
    assert bench.news[-1].selective == ((2, 3), (5, 5))
    assert bench.news[-1].settled_bytes == 300
    bench.settle(1)
    bench.committer.step()
    assert bench.news[-1].acknowledged == 3
    assert bench.news[-1].selective == ((5, 5),)


def test_nothing_is_told_while_the_journal_is_full_and_the_same_group_is_retried() -> None:
    bench = Bench()
    bench.store.capacity_bytes = bench.store.used_bytes
    bench.settle(1)
    bench.committer.step()
    bench.settle(2)
    bench.committer.step()
    assert bench.news == []
    assert bench.committer.full_since_ns is not None
    bench.store.capacity_bytes = 1 << 30
    bench.committer.step()
    assert bench.news[-1].acknowledged == 2
    assert bench.committer.full_since_ns is None
    counted = dict(bench.journal.scan(records.COUNTS))
    (value,) = counted.items()
    assert records.decode_record(*value, records.CountRecord).stored == 2


def diverted(sequence: int, stream: str, *, garbage: int = 0, orphan: int = 0) -> Settlement:
    mark = MarkKey(SESSION, RUN, StreamName(stream))
    why = "run-unknown" if orphan else ""
    return Settlement(
        SESSION, sequence, 1, 100, "router-1", mark, RUN, PHOTONS, stored=1, garbage=garbage,
        orphan=orphan, reason=why,
    )  # fmt: skip


def test_diverted_events_are_counted_in_the_commit_that_settles_them() -> None:
    bench = Bench()
    bench.committer.settle(diverted(1, "a", garbage=2))
    bench.committer.settle(diverted(2, "a", garbage=3))
    bench.committer.settle(diverted(3, "b", orphan=4))
    bench.committer.step()
    again = Committer(bench.journal, SimulatedClock(), single_thread=True)
    again.load()
    for settled in (bench.news[-1], again.settled_of(SESSION)):
        assert [(d.run, d.stream, d.why, d.events) for d in settled.diverted] == [
            (RUN, "a", "late", 5), (RUN, "b", "run-unknown", 4),
        ]  # fmt: skip


def test_what_is_told_of_diverted_events_is_bounded_and_adds_up() -> None:
    bench = Bench()
    streams = DIVERSIONS_KEPT_MAX + 10
    for n in range(streams):
        bench.committer.settle(diverted(2 * n + 1, f"s{n}", garbage=1))
        bench.committer.settle(diverted(2 * n + 2, f"s{n}", orphan=1))
    bench.committer.step()
    kept = bench.news[-1].diverted
    assert len(kept) <= DIVERSIONS_KEPT_MAX + 2
    for why in ("late", "run-unknown"):
        assert sum(d.events for d in kept if d.why == why) == streams
        assert [(d.run, d.stream) for d in kept if d.why == why][-1] == (0, "")


def test_who_waits_alone_on_a_full_journal_is_told_so() -> None:
    bench = Bench()
    bench.store.capacity_bytes = bench.store.used_bytes
    with pytest.raises(JournalFull):
        bench.committer.submit([(b"key", b"x" * 1000)]).wait()


def test_a_failed_commit_is_raised_to_everyone_and_told_to_nobody() -> None:
    bench = Bench()
    bench.settle(1)
    ticket = bench.committer.submit([(b"key", b"value")])
    bench.steps.inject(Fault(FaultKind.EIO, frozenset({Operation.COMMIT})))
    with pytest.raises(JournalFailed):
        bench.committer.step()
    with pytest.raises(JournalFailed):
        ticket.wait()
    with pytest.raises(JournalFailed):
        bench.committer.submit([(b"key", b"value")])
    assert bench.news == []


def test_a_session_that_is_forgotten_leaves_no_watermark_of_the_same_commit() -> None:
    bench = Bench()
    bench.settle(1)
    bench.committer.submit_made(lambda c: c.close_session(SESSION, forget=True))
    bench.committer.step()
    assert bench.marks() == []


def test_a_new_committer_goes_on_with_what_the_journal_has() -> None:
    bench = Bench()
    bench.settle(1)
    bench.committer.step()
    again = Committer(bench.journal, SimulatedClock(), single_thread=True)
    again.load()
    assert again.settled_of(SESSION).acknowledged == 1
    assert again.counts_now()["router-1", RUN, PHOTONS].stored == 1


def test_nothing_is_committed_behind_what_is_the_last() -> None:
    # A logger that begins anew after a FAILURE ends its runs in one commit, while its other threads
    # are still at it: what they hand in later must not bring the runs back.
    bench = Bench()
    bench.settle(1)
    last = bench.committer.submit_made(lambda c: [(b"last", b"1")], last=True)
    bench.settle(2)
    bench.committer.submit([(b"behind", b"1")])
    assert not bench.committer.step()
    last.wait()
    assert not bench.committer.step()
    assert bench.journal.get(b"last") == b"1"
    assert bench.journal.get(b"behind") is None
    assert bench.news[-1].acknowledged == 1


def test_what_is_the_last_is_tried_again_while_the_journal_is_full() -> None:
    bench = Bench()
    bench.store.capacity_bytes = bench.store.used_bytes
    bench.committer.submit_made(lambda c: [(b"last", b"1" * 5000)], last=True)
    assert bench.committer.step()
    bench.committer.submit([(b"behind", b"1")])
    assert bench.committer.step()
    bench.store.capacity_bytes = 1 << 40
    assert not bench.committer.step()
    assert bench.journal.get(b"last")
    assert bench.journal.get(b"behind") is None
