"""The numbered log of file operations: announced before, done after. It only makes changes for the
journal; who asks for them commits them.
"""

from __future__ import annotations

import threading

from dlog.core.journal_records import (
    DONE_OPERATIONS,
    OPERATIONS,
    OperationKind,
    OperationRecord,
    decode_record,
    done_operation_key,
    encode_record,
    operation_key,
)
from dlog.limits import OPERATIONS_KEPT_MAX
from dlog.model.ids import BootNumber
from dlog.ports import Change, Clock, Journal


class Operations:
    """Gives operations their numbers, from any thread."""

    def __init__(self, first: int, boot: BootNumber, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._next = first
        self._boot = boot
        self._clock = clock
        self._open: dict[int, OperationRecord] = {}

    @classmethod
    def load(cls, journal: Journal, boot: BootNumber, clock: Clock) -> Operations:
        """With what an earlier boot announced and did not do, for the restart to settle."""
        left = {
            int(key[len(OPERATIONS) :]): decode_record(key, value, OperationRecord)
            for key, value in journal.scan(OPERATIONS)
        }
        # The done log is bounded, so that this takes no longer the older the journal is.
        done = [int(key[len(DONE_OPERATIONS) :]) for key, _ in journal.scan(DONE_OPERATIONS)]
        operations = cls(max([0, *done, *left]) + 1, boot, clock)
        operations._open.update(left)
        return operations

    def open_numbers(self) -> list[int]:
        """Announced and not done."""
        with self._lock:
            return sorted(self._open)

    def announce(self, kind: OperationKind, path: str, detail: str = "") -> tuple[int, Change]:
        """The operation's number, and the change that announces it."""
        record = OperationRecord(
            kind=kind, path=path, boot=self._boot, announced_ns=self._clock.wall_ns(), detail=detail
        )
        with self._lock:
            number = self._next
            self._next += 1
            self._open[number] = record
        key = operation_key(number)
        return number, (key, encode_record(key, record))

    def done(self, number: int, outcome: str = "") -> list[Change]:
        """The changes that tell the operation done; the done log keeps its last entries."""
        with self._lock:
            record = self._open.pop(number)
        key = done_operation_key(number)
        finished = OperationRecord(
            kind=record.kind,
            path=record.path,
            boot=record.boot,
            announced_ns=record.announced_ns,
            done_ns=self._clock.wall_ns(),
            detail=outcome or record.detail,
        )
        changes: list[Change] = [
            (operation_key(number), None),
            (key, encode_record(key, finished)),
        ]
        if number > OPERATIONS_KEPT_MAX:
            changes.append((done_operation_key(number - OPERATIONS_KEPT_MAX), None))
        return changes
