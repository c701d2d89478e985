"""The product with one rule left out: a rule of the design, or a mistake that a data logger is
prone to. A campaign that does not catch each of them proves nothing.

A mutation replaces one function of the product for the time of a `with`; nothing else patches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from dlog.core.admission import Admission, SessionState
from dlog.core.journal_records import MarkRecord, SessionRecord
from dlog.errors import JournalFailed, JournalFull, StorageError
from dlog.model.ids import SessionId
from dlog.services import committer
from dlog.services.block_store import BlockStore
from dlog.services.committer import Committer, Ticket
from dlog.services.parts import Part
from dlog.services.restart import Restart
from dlog.simulation.campaign import Menu
from dlog.simulation.disk import SimulatedDirectory

CRASHES = Menu(network=False, disk=False, space=False, journal=False)
CRASHES_AND_NETWORK = Menu(disk=False, space=False, journal=False)
NETWORK = Menu(crashes=False, disk=False, space=False, journal=False)
CRASHES_AND_DISK = Menu(network=False, space=False, journal=False)
CRASHES_AND_JOURNAL = Menu(network=False, disk=False, space=False)


@dataclass(frozen=True)
class Mutation:
    """rule: what is left out. seeds: within so many histories it must be caught."""

    name: str
    rule: str
    menu: Menu
    seeds: int
    apply: Callable[[], Any]

    @contextmanager
    def applied(self) -> Iterator[None]:
        with self.apply():
            yield


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: patch.object(owner, name, make(getattr(owner, name)))


# --- storage -------------------------------------------------------------------------------------


def _acknowledge_before_sync(_: Any) -> Any:
    def sync(self: Part) -> None:
        file, self._file = self._file, _Unsynced()  # type: ignore[assignment]
        try:
            true_sync(self)
        finally:
            self._file = file

    true_sync = Part.sync
    return sync


class _Unsynced:
    def sync(self) -> None: ...


def _sync_failures_passed_over(sync: Any) -> Any:
    def carry_on(self: Part) -> None:
        try:
            sync(self)
        except StorageError:
            with patch.object(self, "_file", _Unsynced()):
                sync(self)

    return carry_on


def _only_the_first_part_is_synced(_: Any) -> Any:
    def sync_parts(self: BlockStore) -> None:
        for block in self._blocks[:1]:
            if block.slot.part is not None:
                block.slot.part.sync()
        for block in self._blocks[1:]:
            part = block.slot.part
            if part is not None and part.dirty:
                with patch.object(part, "_file", _Unsynced()):
                    part.sync()

    return sync_parts


def _ticket_is_not_waited_for(_: Any) -> Any:
    return lambda self: None


def _folder_is_not_synced(sync_folder: Any) -> Any:
    return lambda self, folder, path: None


def _tail_is_not_cut(_: Any) -> Any:
    return lambda self, file, record: ""


# --- journal -------------------------------------------------------------------------------------


def _watermark_one_below(_: Any) -> Any:
    return lambda *, sequence: MarkRecord(sequence=sequence - 1)


def _watermark_one_above(_: Any) -> Any:
    return lambda *, sequence: MarkRecord(sequence=sequence + 1)


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


def _orphans_leave_no_watermark(settle: Any) -> Any:
    def without(self: Committer, settlement: Any, marks: Any, counted: Any, touched: Any) -> None:
        settle(self, settlement, {} if settlement.orphan else marks, counted, touched)

    return without


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


# --- protocol ------------------------------------------------------------------------------------


def _a_gap_is_admitted(judge: Any) -> Any:
    def lenient(self: SessionState, batch: Any, memory_bytes: int) -> Any:
        verdict = judge(self, batch, memory_bytes)
        if verdict[0] is Admission.GAP:
            self.admitted, self.position = batch.sequence - 1, batch.position_bytes
            return Admission.ADMIT, ""
        return verdict

    return lenient


def _duplicates_are_judged_by_what_is_committed(judge: Any) -> Any:
    def late(self: SessionState, batch: Any, memory_bytes: int) -> Any:
        if self.acknowledged < batch.sequence <= self.high and batch.sequence == self.admitted + 1:
            self.marks.clear()
            return Admission.ADMIT, ""
        return judge(self, batch, memory_bytes)

    return late


def _acknowledgement_is_not_journalled(record: SessionRecord) -> SessionState:
    return SessionState(SessionId(record.session), 0, 0, 0, 0, 0, 0, 0)


def _watermarks_end_with_the_run(end_run: Any) -> Any:
    def forgetting(self: Committer, record: Any) -> Any:
        changes = end_run(self, record)
        tail = b"/%010d/" % record.run
        keys = [key for key, _ in self._journal.scan(b"mark/") if tail in key]
        return [*changes, *((key, None) for key in keys)]

    return forgetting


MUTATIONS = [
    Mutation(
        "acknowledge-before-fsync", "acknowledged means durable", CRASHES, 20,
        _replace(Part, "sync", _acknowledge_before_sync),
    ),
    Mutation(
        "retried-fsync", "a failed fsync is never retried or passed over", CRASHES_AND_DISK, 60,
        _replace(Part, "sync", _sync_failures_passed_over),
    ),
    Mutation(
        "consecutive-blocks", "offsets advance along consecutive block numbers, over all parts",
        CRASHES, 30, _replace(BlockStore, "_sync_parts", _only_the_first_part_is_synced),
    ),
    Mutation(
        "journal-after-file", "no file is changed before the commit that announces it", CRASHES, 40,
        _replace(Ticket, "wait", _ticket_is_not_waited_for),
    ),
    Mutation(
        "no-directory-fsync", "OPEN only after every directory level is durable", CRASHES, 20,
        _replace(SimulatedDirectory, "_sync_folder", _folder_is_not_synced),
    ),
    Mutation(
        "no-cut", "beyond the durable offset nothing is adopted at restart", CRASHES, 20,
        _replace(Restart, "_cut_tail", _tail_is_not_cut),
    ),
    Mutation(
        "watermark-one-below", "the watermark is the last piece that is committed", CRASHES, 20,
        _replace(committer, "MarkRecord", _watermark_one_below),
    ),
    Mutation(
        "watermark-one-above", "the watermark is the last piece that is committed", CRASHES, 20,
        _replace(committer, "MarkRecord", _watermark_one_above),
    ),
    Mutation(
        "failed-commit-taken-as-done", "a failed commit is of unknown outcome: no ack, exit",
        CRASHES_AND_JOURNAL, 40, _replace(Committer, "_commit", _failed_commit_is_taken_as_done),
    ),
    Mutation(
        "full-journal-drops-the-group", "journal full: the same group is retried",
        CRASHES_AND_JOURNAL, 30, _replace(Committer, "_commit", _full_journal_drops_the_group),
    ),
    Mutation(
        "told-before-the-commit", "acknowledgements go out after the commit", CRASHES, 20,
        _told_before_the_commit,
    ),
    Mutation(
        "orphans-without-watermark", "the watermark is kept whatever file takes the piece",
        CRASHES, 60, _replace(Committer, "_settle", _orphans_leave_no_watermark),
    ),
    Mutation(
        "watermarks-end-with-the-run", "the watermark outlives the run", CRASHES_AND_NETWORK, 150,
        _replace(Committer, "end_run", _watermarks_end_with_the_run),
    ),
    Mutation(
        "a-gap-is-admitted", "only the last admitted + 1 is admitted", NETWORK, 20,
        _replace(SessionState, "judge", _a_gap_is_admitted),
    ),
    Mutation(
        "duplicates-by-what-is-committed", "duplicates are judged against the highest admitted",
        NETWORK, 60,
        _replace(SessionState, "judge", _duplicates_are_judged_by_what_is_committed),
    ),
    Mutation(
        "acknowledgement-not-journalled", "the cumulative ack is journalled per session", CRASHES,
        20,
        lambda: patch.object(SessionState, "of", staticmethod(_acknowledgement_is_not_journalled)),
    ),
]  # fmt: skip
