"""The housekeeper: what can wait until nothing else needs the disk, while the logger runs.

It settles parts that a fault ended, saves files that lost their names, and drops tails from
`quarantine/` once all that they hold has been stored. It touches no part that takes events.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from dlog.core import journal_records as records
from dlog.core.journal_records import (
    FileRecord,
    MarkRecord,
    OperationKind,
    QuarantineRecord,
    RunRecord,
)
from dlog.core.states import FileState
from dlog.errors import StorageError
from dlog.model.config import StreamConfig
from dlog.model.ids import MarkKey, RunNumber, SessionId, StreamName
from dlog.ports import Journal
from dlog.services.live_state import directories_held, open_sessions
from dlog.services.parts import Storage, announced, key_of
from dlog.services.restart import Restart
from dlog.services.space_watch import DirectoryWatch

log = logging.getLogger("dlog.housekeeper")

INTERVAL_SECONDS = 5.0


class Housekeeper:
    """`stop` is called from any thread, the rest by its own."""

    def __init__(
        self,
        journal: Journal,
        storage: Storage,
        config_of_ended: Callable[[FileRecord], StreamConfig],
        watches: Sequence[DirectoryWatch],
        left_out: Sequence[str] = (),
    ) -> None:
        """watches: of the data directories, in their order. left_out: the last ones, which are kept
        for what is not settled in them."""
        self._journal = journal
        self._storage = storage
        self._config_of_ended = config_of_ended
        self._watches = watches
        self._left_out = left_out
        self._stopping = threading.Event()
        self._tidy_up = False
        self._lost: set[bytes] = set()  # files in which acknowledged bytes lack, tried in this boot

    def stop(self, *, tidy_up: bool = False) -> None:
        """Make `run` return; where there is time, with nothing left undone."""
        self._tidy_up = tidy_up
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.wait(INTERVAL_SECONDS):
            self.step()
        if self._tidy_up:
            self.step()
        self._storage.lost_files.save_all()  # the last chance

    def step(self) -> None:
        self._storage.lost_files.save_all()
        reachable = self._reachable()
        self._settle_sealed(reachable)
        self._sweep_quarantine(reachable)
        if self._left_out:
            self._look_at_left_out()

    def _look_at_left_out(self) -> None:
        """The next start does without those in which all is settled."""
        held = directories_held(self._journal)
        first = len(self._watches) - len(self._left_out)
        for position, name in enumerate(self._left_out, first):
            if position not in held:
                self._storage.alarms.clear_alarm(f"left-out {name}")

    def _reachable(self) -> frozenset[int]:
        """Positions of the data directories that answer: in another one each file waits."""
        return frozenset(number for number, watch in enumerate(self._watches) if watch.answers)

    def _settle_sealed(self, reachable: frozenset[int]) -> None:
        """Parts in ERROR, sealed at D: tail aside, cut, sidecar, name. What does not go now is
        tried again. Those that lack acknowledged bytes: as "bad"."""
        for key, value in list(self._journal.scan(records.FILES)):
            record = records.decode_record(key, value, FileRecord)
            if self._stopping.is_set() and not self._tidy_up:
                return
            if record.directory not in reachable:
                continue
            if self._storage.lost_files.holds(key_of(record)):
                continue  # it has no name yet
            if record.state is not FileState.ERROR:
                continue
            restart = Restart(self._storage, open_sessions(self._journal))
            if record.sealed:
                restart.settle([(record, self._config(record), False)])
            elif record.durable and key not in self._lost:
                self._lost.add(key)
                self._close_lost(restart, record)

    def _close_lost(self, restart: Restart, record: FileRecord) -> None:
        """Once: what does not go now is tried again at the next start."""
        try:
            restart.close_lost(record, self._config(record))
        except StorageError as error:
            log.error("%s stays as it is: %s", record.path, error)

    def _config(self, record: FileRecord) -> StreamConfig:
        key = records.run_key(RunNumber(record.run))
        value = self._journal.get(key)
        if value is None:
            return self._config_of_ended(record)
        return records.decode_record(key, value, RunRecord).streams[record.stream]

    def _sweep_quarantine(self, reachable: frozenset[int]) -> None:
        for key, value in list(self._journal.scan(records.QUARANTINE)):
            record = records.decode_record(key, value, QuarantineRecord)
            if record.directory not in reachable or record.saving or record.sessions:
                continue
            if not all(self._is_stored(*needed) for needed in record.needed):
                continue
            try:
                self._drop(key, record)
            except StorageError as error:
                log.error("%s", error)

    def _is_stored(self, session: bytes, run: int, stream: str, sequence: int) -> bool:
        key = records.mark_key(MarkKey(SessionId(session), RunNumber(run), StreamName(stream)))
        value = self._journal.get(key)
        if value is None:
            return False
        return records.decode_record(key, value, MarkRecord).sequence >= sequence

    def _drop(self, key: bytes, record: QuarantineRecord) -> None:
        """Every piece in the tail was sent again and is stored: the copy has done its work."""
        directory = self._storage.directories[record.directory]
        with announced(
            self._storage, OperationKind.REMOVE, record.path, "all of it has been stored"
        ):
            if directory.exists(record.path):
                directory.remove(record.path)
        self._storage.commits.submit([(key, None)]).wait()
        log.info("%s dropped: all of it has been stored", record.path)
