"""A part's durable offset: what the journal is told of it, whatever else is committed meanwhile."""

from __future__ import annotations

import random

import numpy as np
import pytest

from dlog.adapters.buffers import BufferPool
from dlog.core.block import (
    Fragment,
    FragmentEntry,
    Packing,
    block_bytes_max,
    encode_block,
    number_range,
)
from dlog.core.filters import Filter
from dlog.core.journal_records import FileRecord, StreamRecord, decode_record, file_key
from dlog.errors import InvariantBroken
from dlog.faults.simulation.clock import SimulatedClock
from dlog.faults.simulation.disk import SimulatedDisk
from dlog.faults.simulation.journal import SimulatedJournal
from dlog.faults.simulation.steps import StorageSteps
from dlog.limits import PAGE_BYTES
from dlog.model.config import StreamConfig
from dlog.model.events import EVENT_DTYPE
from dlog.model.ids import (
    BlockNumber,
    BootNumber,
    FileKind,
    RunNumber,
    Sequence,
    SessionId,
    StreamName,
)
from dlog.ports import Buffer, Severity
from dlog.services.lost_files import LostFiles
from dlog.services.operations import Operations
from dlog.services.parts import Part, Storage, allot
from dlog.services.restart import DirectCommits


class _NoAlarms:
    def raise_alarm(self, name: str, severity: Severity, text: str) -> None:
        raise AssertionError(f"{name}: {text}")

    def clear_alarm(self, name: str) -> None: ...


class _World:
    def __init__(self) -> None:
        clock = SimulatedClock()
        steps = StorageSteps(random.Random(1), clock)
        self.journal = SimulatedJournal(steps)
        disk = SimulatedDisk(steps)
        boot = BootNumber(1)
        self.storage = Storage(
            "test", bytes(16), boot, [disk.directory("data")], BufferPool(),
            DirectCommits(self.journal), Operations.load(self.journal, boot, clock), clock,
            _NoAlarms(), LostFiles(_NoAlarms()),
        )  # fmt: skip
        self.stream = StreamRecord(run=7, stream="photons")
        key, self.stream = allot(self.stream, FileKind.EVENTS)
        self.part = Part.create(
            self.storage, StreamConfig(), key, self.stream, run_started_ns=0, streams=("photons",)
        )

    def told(self) -> FileRecord:
        """What the journal says of the part."""
        key = file_key(self.part.key)
        value = self.journal.get(key)
        assert value is not None
        return decode_record(key, value, FileRecord)

    def write_block(self) -> None:
        part = self.part
        end = part.needs_reservation(PAGE_BYTES)
        if end is not None:
            part.reserve(end)
        table = np.zeros(1, EVENT_DTYPE)
        table["size"] = 5
        entry = FragmentEntry(
            SessionId(bytes(16)), Sequence(1), 0, RunNumber(7), StreamName("photons"), 1, 1, 5,
            True, True,
        )  # fmt: skip
        buffer: Buffer = self.storage.buffers.take(block_bytes_max(1, 1, 5))
        header = encode_block(
            [Fragment(entry, table, np.frombuffer(b"event", np.uint8), *number_range(table))],
            buffer.view,
            part.place(BlockNumber(1)), Packing(Filter.NONE, 2, None), group_end=True, time_ns=0,
        )  # fmt: skip
        part.write(header, buffer.view, 5)

    def sync(self) -> None:
        self.part.end_sync(self.part.begin_sync(lambda: None))


def test_what_is_synced_and_not_told_of_is_not_committed_by_a_reservation() -> None:
    world = _World()
    world.write_block()
    world.sync()
    world.part.reserve(world.part.end)
    assert world.told().durable == PAGE_BYTES
    assert world.told().reserved > PAGE_BYTES


def test_a_part_is_sealed_at_what_was_told_of_it() -> None:
    world = _World()
    world.write_block()
    world.sync()
    predecessor = world.part.seal_by_fault("another part of the group failed")
    assert predecessor.sealed == PAGE_BYTES
    assert world.told().durable == PAGE_BYTES
    assert world.told().sealed


def test_a_part_is_not_closed_over_blocks_that_were_not_told_of() -> None:
    world = _World()
    world.write_block()
    world.sync()
    with pytest.raises(InvariantBroken):
        world.part.close()


def test_blocks_that_are_not_synced_are_not_told_of() -> None:
    world = _World()
    world.write_block()
    assert world.part.report().durable == PAGE_BYTES
    world.sync()
    assert world.part.report().durable == world.part.end


def test_a_sync_tells_of_what_was_written_when_it_began() -> None:
    world = _World()
    world.write_block()
    begun_at = world.part.end
    begun = world.part.begin_sync(lambda: None)
    world.write_block()
    world.part.end_sync(begun)
    assert world.part.report().durable == begun_at < world.part.end
    assert world.part.dirty
    world.sync()
    assert world.part.report().durable == world.part.end
    assert not world.part.dirty
