"""Rules of the journal, each left out: commits, watermarks, counters, refusals, sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

from dlog.core.journal_records import (
    ENDED_RUNS,
    MARKS,
    SESSIONS,
    MarkRecord,
    SessionRecord,
    session_marks,
)
from dlog.errors import JournalFailed, JournalFull
from dlog.faults.simulation.journal import JournalStore
from dlog.faults.simulation.port_wrappers import PortWrappers
from dlog.model.ids import NO_RUN, ORPHAN_STREAM, MarkKey, SessionId
from dlog.ports import Change, Journal
from dlog.services.committer import Settled, SettledListener
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
)
from tests.faults.wrappers import Around, acknowledgements, commits, committed, settlements

# --- commits -------------------------------------------------------------------------------------


class _TakenAsDone(Around):
    """error: a commit that raises it is said to be done."""

    def __init__(self, error: type[Exception], inside: Journal) -> None:
        super().__init__(inside)
        self._error = error

    def commit(self, changes: Sequence[Change], *, use_ballast: bool = False) -> None:
        try:
            self.inside.commit(changes, use_ballast=use_ballast)
        except self._error:
            return


class _DoneLater(Around):
    """A commit that tells of a session returns at once, and is done before the next one."""

    def __init__(self, inside: Journal) -> None:
        super().__init__(inside)
        self._held: Sequence[Change] = ()

    def commit(self, changes: Sequence[Change], *, use_ballast: bool = False) -> None:
        self._commit_held()
        if any(key.startswith(SESSIONS) for key, _ in changes):
            self._held = changes
        else:
            self.inside.commit(changes, use_ballast=use_ballast)

    def get(self, key: bytes) -> bytes | None:
        self._commit_held()
        return self.inside.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._commit_held()
        return self.inside.scan(prefix)

    def _commit_held(self) -> None:
        if self._held:
            held, self._held = self._held, ()
            self.inside.commit(held)


class _WithoutBallast(Around):
    def commit(self, changes: Sequence[Change], *, use_ballast: bool = False) -> None:
        self.inside.commit(changes)


# --- watermarks ----------------------------------------------------------------------------------


def _watermarks_end_with_the_run(journal: Journal, changes: Sequence[Change]) -> list[Change]:
    ended = [b"/%s/" % key[len(ENDED_RUNS) :] for key, _ in changes if key.startswith(ENDED_RUNS)]
    marks = [key for key, _ in journal.scan(MARKS) if any(run in key for run in ended)]
    return [*changes, *((key, None) for key in marks)]


def _watermarks_stay(_: Journal, changes: Sequence[Change]) -> list[Change]:
    forgotten = {key for key, value in changes if key.startswith(SESSIONS) and value is None}
    sessions = [SessionId(bytes.fromhex(key[len(SESSIONS) :].decode())) for key in forgotten]
    marks = tuple(session_marks(session) for session in sessions)
    return [(key, value) for key, value in changes if value or not key.startswith(marks)]


# --- what is settled -----------------------------------------------------------------------------


class _News:
    """Of a settled batch above the acknowledgement, no bytes are told."""

    def __init__(self, listener: SettledListener) -> None:
        self._listener = listener

    def settled(self, news: Sequence[Settled]) -> None:
        self._listener.settled([changed(n, settled_bytes=n.position_bytes) for n in news])


class _SelectiveFreesNothing(Around):
    def listen(self, listener: SettledListener) -> None:
        self.inside.listen(_News(listener))


def _by_file(settlement: Any) -> Any:
    if not settlement.orphan:
        return settlement
    return changed(settlement, mark=MarkKey(settlement.session, NO_RUN, ORPHAN_STREAM))


def _without_watermark(misses: Callable[[Any], bool]) -> PortWrappers:
    return settlements(lambda s: changed(s, watermark=s.watermark and not misses(s)))


MUTATIONS = [
    Mutation(
        "watermark-one-below", "the watermark is the last piece that is committed", CRASHES, 20,
        committed(MARKS, MarkRecord, lambda r: changed(r, sequence=r.sequence - 1)),
    ),
    Mutation(
        "watermark-one-above", "the watermark is the last piece that is committed", CRASHES, 20,
        committed(MARKS, MarkRecord, lambda r: changed(r, sequence=r.sequence + 1)),
    ),
    Mutation(
        "failed-commit-taken-as-done", "a failed commit is of unknown outcome: no ack, exit",
        CRASHES_AND_JOURNAL, 20, PortWrappers(journal=partial(_TakenAsDone, JournalFailed)),
    ),
    Mutation(
        "full-journal-drops-the-group", "journal full: the same group is retried",
        CRASHES_AND_JOURNAL, 20, PortWrappers(journal=partial(_TakenAsDone, JournalFull)),
    ),
    Mutation(
        "told-before-the-commit", "acknowledgements go out after the commit", CRASHES, 20,
        PortWrappers(journal=_DoneLater),
    ),
    Mutation(
        "orphans-without-watermark", "the watermark is kept whatever file takes the piece",
        CRASHES, 20, _without_watermark(lambda settlement: settlement.orphan > 0),
    ),
    Mutation(
        "watermarks-end-with-the-run", "the watermark outlives the run", CRASHES_AND_NETWORK, 20,
        commits(_watermarks_end_with_the_run),
    ),
    Mutation(
        "acknowledgement-not-journalled", "the cumulative ack is journalled per session", CRASHES,
        20,
        committed(
            SESSIONS, SessionRecord, lambda r: changed(r, acknowledged=0, position_bytes=0)
        ),
    ),
    Mutation(
        "ballast-not-used", "journal full: STOP RUN and ABORT RUN use the ballast", JOURNAL, 20,
        PortWrappers(journal=_WithoutBallast),
    ),
    # The port promises the copy: it is left out of the simulated journal.
    Mutation(
        "journal-not-copied", "after a failed commit the next start copies the journal first",
        CRASHES_AND_JOURNAL, 40, lambda: patch.object(JournalStore, "copy", lambda self: None),
    ),
    Mutation(
        "garbage-without-watermark", "the watermark is kept whatever file takes the piece", CRASHES,
        30, _without_watermark(lambda settlement: settlement.garbage > 0),
    ),
    Mutation(
        "watermark-by-file", "the watermark's key is the stream as sent", CRASHES, 20,
        settlements(_by_file),
    ),
    Mutation(
        "watermarks-stay-behind-bye", "watermarks go with the session's BYE", CALM, 20,
        commits(_watermarks_stay),
    ),
    Mutation(
        "one-piece-settles-the-batch", "a batch is settled when all its pieces are", CRASHES, 20,
        settlements(lambda settlement: changed(settlement, shares=1)),
    ),
    Mutation(
        "refusals-not-told", "an acknowledgement names what was refused", CRASHES, 20,
        acknowledgements(refusals=[]),
    ),
    Mutation(
        "old-session-stays-open", "once a name has a new session the old one is closed in the "
        "journal", NETWORK, 20,
        committed(SESSIONS, SessionRecord, lambda r: changed(r, closed=False)),
    ),
    Mutation(
        "selective-frees-no-window", "a selective list frees window", DISK, 20,
        PortWrappers(committer=_SelectiveFreesNothing),
    ),
]  # fmt: skip
