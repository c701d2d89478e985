"""The numbered log of file operations: announced before, done after, bounded."""

from __future__ import annotations

from random import Random

from dlog.core import journal_records as records
from dlog.core.journal_records import OperationKind, OperationRecord
from dlog.faults.simulation.clock import SimulatedClock
from dlog.faults.simulation.journal import SimulatedJournal
from dlog.faults.simulation.steps import StorageSteps
from dlog.limits import OPERATIONS_KEPT_MAX
from dlog.model.ids import BootNumber
from dlog.services.operations import Operations

PATH = "runs/7/photons_0001.dlog"


def opened(boot: int = 1) -> tuple[SimulatedJournal, Operations]:
    journal = SimulatedJournal(StorageSteps(Random(1)))
    return journal, Operations.load(journal, BootNumber(boot), SimulatedClock())


def test_an_operation_moves_from_announced_to_done() -> None:
    journal, operations = opened()
    number, announced = operations.announce(OperationKind.CREATE, PATH)
    journal.commit([announced])
    assert journal.get(records.operation_key(number)) is not None
    journal.commit(operations.done(number, "as announced"))
    assert journal.get(records.operation_key(number)) is None
    key = records.done_operation_key(number)
    value = journal.get(key)
    assert value is not None
    record = records.decode_record(key, value, OperationRecord)
    assert (record.kind, record.path, record.detail) == (OperationKind.CREATE, PATH, "as announced")


def test_numbers_go_on_over_a_restart_and_what_was_left_open_is_known() -> None:
    journal, operations = opened()
    done, announced = operations.announce(OperationKind.CUT, PATH)
    journal.commit([announced])
    journal.commit(operations.done(done))
    left, announced = operations.announce(OperationKind.CLOSE, PATH)
    journal.commit([announced])
    again = Operations.load(journal, BootNumber(2), SimulatedClock())
    assert again.open_numbers() == [left]
    number, _ = again.announce(OperationKind.CREATE, PATH)
    assert number == left + 1
    journal.commit(again.done(left, "settled by the restart"))
    assert not list(journal.scan(records.OPERATIONS))


def test_the_done_log_is_bounded() -> None:
    journal, operations = opened()
    for _ in range(OPERATIONS_KEPT_MAX + 5):
        number, announced = operations.announce(OperationKind.RESERVE, PATH)
        journal.commit([announced, *operations.done(number)])
    assert len(list(journal.scan(records.DONE_OPERATIONS))) == OPERATIONS_KEPT_MAX
