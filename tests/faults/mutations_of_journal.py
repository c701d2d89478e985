"""Rules of the journal, each left out: commits, watermarks, counters, refusals, sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from dlog.core import journal_records as records
from dlog.core.admission import SessionState
from dlog.core.journal_records import MarkRecord, SessionRecord
from dlog.errors import JournalFailed, JournalFull
from dlog.faults.simulation.journal import SimulatedJournal
from dlog.model.ids import NO_RUN, ORPHAN_STREAM, MarkKey, SessionId
from dlog.services import committer
from dlog.services.committer import Committer
from tests.faults.mutation import (
    CALM,
    CRASHES,
    CRASHES_AND_JOURNAL,
    CRASHES_AND_NETWORK,
    DISK,
    JOURNAL,
    NETWORK,
    Mutation,
    changed,
    replaced,
)

# --- commits -------------------------------------------------------------------------------------


def _failed_commit_is_taken_as_done(_: Any) -> Any:
    def commit(self: Committer, group: Any) -> None:
        try:
            true(self, group)
        except JournalFailed:
            self._failed = None
            self._announce(group.items, group.touched)

    true = Committer._commit
    return commit


def _full_journal_drops_the_group(_: Any) -> Any:
    def commit(self: Committer, group: Any) -> None:
        try:
            self._journal.commit(group.changes, use_ballast=group.use_ballast)
        except JournalFull:
            self._stuck = None
        self._announce(group.items, group.touched)

    return commit


@contextmanager
def _told_before_the_commit() -> Iterator[None]:
    """A commit is told at once and done a step later."""
    held: list[tuple[Committer, Any]] = []
    true_step = Committer.step

    def commit(self: Committer, group: Any) -> None:
        held.append((self, group.changes))
        self._announce(group.items, group.touched)

    def step(self: Committer, *, block: bool = False) -> bool:
        for owner, changes in held:
            if owner is self:
                self._journal.commit(changes)
        held.clear()
        return true_step(self, block=block)

    with patch.object(Committer, "_commit", commit), patch.object(Committer, "step", step):
        yield


def _ballast_is_for_nobody(submit_made: Any) -> Any:
    def poor(self: Committer, make: Any, *, use_ballast: bool = False, then: Any = None) -> Any:
        return submit_made(self, make, then=then)

    return poor


# --- watermarks ----------------------------------------------------------------------------------


def _watermark_one_below(_: Any) -> Any:
    return lambda *, sequence: MarkRecord(sequence=sequence - 1)


def _watermark_one_above(_: Any) -> Any:
    return lambda *, sequence: MarkRecord(sequence=sequence + 1)


def _orphans_leave_no_watermark(settle: Any) -> Any:
    def without(self: Committer, settlement: Any, marks: Any, counted: Any, touched: Any) -> None:
        settle(self, settlement, {} if settlement.orphan else marks, counted, touched)

    return without


def _garbage_leaves_no_watermark(settle: Any) -> Any:
    def without(self: Committer, settlement: Any, marks: Any, counted: Any, touched: Any) -> None:
        settle(self, settlement, {} if settlement.garbage else marks, counted, touched)

    return without


def _watermark_by_file(settle: Any) -> Any:
    def by_file(self: Committer, settlement: Any, marks: Any, counted: Any, touched: Any) -> None:
        if settlement.orphan:
            mark = MarkKey(settlement.session, NO_RUN, ORPHAN_STREAM)
            settlement = changed(settlement, mark=mark)
        settle(self, settlement, marks, counted, touched)

    return by_file


def _watermarks_end_with_the_run(end_run: Any) -> Any:
    def forgetting(self: Committer, record: Any) -> Any:
        changes = end_run(self, record)
        tail = b"/%010d/" % record.run
        keys = [key for key, _ in self._journal.scan(b"mark/") if tail in key]
        return [*changes, *((key, None) for key in keys)]

    return forgetting


def _watermarks_stay_behind_bye(close_session: Any) -> Any:
    def careless(self: Committer, session: SessionId, *, forget: bool) -> Any:
        changes = close_session(self, session, forget=forget)
        return [c for c in changes if not forget or not c[0].startswith(records.MARKS)]

    return careless


# --- the ledger ----------------------------------------------------------------------------------


def _one_piece_settles_the_batch(settle: Any) -> Any:
    def hasty(self: Committer, settlement: Any, marks: Any, counted: Any, touched: Any) -> None:
        settle(self, changed(settlement, shares=1), marks, counted, touched)

    return hasty


def _refusals_are_not_told(_: Any) -> Any:
    return lambda ledger, settlement: None


def _old_session_stays_open(close_session: Any) -> Any:
    def close(self: Committer, session: SessionId, *, forget: bool) -> Any:
        return close_session(self, session, forget=True) if forget else []

    return close


def _selective_frees_no_window(settled_of: Any) -> Any:
    def cumulative(self: Committer, session: SessionId) -> Any:
        settled = settled_of(self, session)
        return changed(settled, settled_bytes=settled.position_bytes)

    return cumulative


def _acknowledgement_is_not_journalled(record: SessionRecord) -> SessionState:
    return SessionState(SessionId(record.session), 0, 0, 0, 0, 0, 0, 0)


MUTATIONS = [
    Mutation(
        "watermark-one-below", "the watermark is the last piece that is committed", CRASHES, 20,
        replaced(committer, "MarkRecord", _watermark_one_below),
    ),
    Mutation(
        "watermark-one-above", "the watermark is the last piece that is committed", CRASHES, 20,
        replaced(committer, "MarkRecord", _watermark_one_above),
    ),
    Mutation(
        "failed-commit-taken-as-done", "a failed commit is of unknown outcome: no ack, exit",
        CRASHES_AND_JOURNAL, 20, replaced(Committer, "_commit", _failed_commit_is_taken_as_done),
    ),
    Mutation(
        "full-journal-drops-the-group", "journal full: the same group is retried",
        CRASHES_AND_JOURNAL, 20, replaced(Committer, "_commit", _full_journal_drops_the_group),
    ),
    Mutation(
        "told-before-the-commit", "acknowledgements go out after the commit", CRASHES, 20,
        _told_before_the_commit,
    ),
    Mutation(
        "orphans-without-watermark", "the watermark is kept whatever file takes the piece",
        CRASHES, 20, replaced(Committer, "_settle", _orphans_leave_no_watermark),
    ),
    Mutation(
        "watermarks-end-with-the-run", "the watermark outlives the run", CRASHES_AND_NETWORK, 20,
        replaced(Committer, "end_run", _watermarks_end_with_the_run),
    ),
    Mutation(
        "acknowledgement-not-journalled", "the cumulative ack is journalled per session", CRASHES,
        20,
        lambda: patch.object(SessionState, "of", staticmethod(_acknowledgement_is_not_journalled)),
    ),
    Mutation(
        "ballast-not-used", "journal full: STOP RUN and ABORT RUN use the ballast", JOURNAL, 20,
        replaced(Committer, "submit_made", _ballast_is_for_nobody),
    ),
    Mutation(
        "journal-not-copied", "after a failed commit the next start copies the journal first",
        CRASHES_AND_JOURNAL, 40,
        lambda: patch.object(SimulatedJournal, "_copy_after_failure", lambda self: None),
    ),
    Mutation(
        "garbage-without-watermark", "the watermark is kept whatever file takes the piece", CRASHES,
        30, replaced(Committer, "_settle", _garbage_leaves_no_watermark),
    ),
    Mutation(
        "watermark-by-file", "the watermark's key is the stream as sent", CRASHES, 20,
        replaced(Committer, "_settle", _watermark_by_file),
    ),
    Mutation(
        "watermarks-stay-behind-bye", "watermarks go with the session's BYE", CALM, 20,
        replaced(Committer, "close_session", _watermarks_stay_behind_bye),
    ),
    Mutation(
        "one-piece-settles-the-batch", "a batch is settled when all its pieces are", CRASHES, 20,
        replaced(Committer, "_settle", _one_piece_settles_the_batch),
    ),
    Mutation(
        "refusals-not-told", "an acknowledgement names what was refused", CALM, 20,
        replaced(committer._Ledger, "refuse", _refusals_are_not_told),
    ),
    Mutation(
        "old-session-stays-open", "once a name has a new session the old one is closed in the "
        "journal", NETWORK, 20, replaced(Committer, "close_session", _old_session_stays_open),
    ),
    Mutation(
        "selective-frees-no-window", "a selective list frees window", DISK, 20,
        replaced(Committer, "settled_of", _selective_frees_no_window),
    ),
]  # fmt: skip
