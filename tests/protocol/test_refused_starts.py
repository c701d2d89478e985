"""A start that is refused: with words, before anything was touched."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dlog.core import journal_records as records
from dlog.core.journal_records import FileRecord, StreamRecord
from dlog.errors import JournalOutdated, JournalUnreadable
from dlog.faults.simulation.journal import SimulatedJournal
from dlog.faults.simulation.world import Life, World
from dlog.model.ids import StreamName

PHOTONS = StreamName("photons")


def killed() -> World:
    """A logger that was killed with a run active and events on the disk."""
    world = running()
    world.power_cut = False
    world.kill()
    return world


def running() -> World:
    world = World(1)
    world.do("INIT", drain_seconds=0.0)
    world.do("CONFIGURE", streams={"photons": {}})
    world.do("START RUN", run=7)
    source = world.source("router-1")
    for number in range(1, 20):
        assert source.send(7, (PHOTONS,), number, bytes([number]) * 100)
    world.settle()
    return world


def told_to(world: World, durable: list[int]) -> None:
    """Some more blocks, each committed by itself; the durable offset after each."""
    (source,) = world.sources
    for number in range(100, 105):
        assert source.send(7, (PHOTONS,), number, bytes(5000))
        world.settle()
        world.pump(5)
        durable.append(record_of(world).durable)


def record_of(world: World) -> FileRecord:
    (record,) = (
        records.decode_record(key, value, FileRecord)
        for key, value in world.store.pairs.items()
        if key.startswith(records.FILES) and b"photons" in key
    )
    return record


def restore(world: World, pairs: dict[bytes, bytes]) -> None:
    world.store.apply([(key, None) for key in list(world.store.pairs)])
    world.store.apply(list(pairs.items()))


def change(world: World, prefix: bytes, kind: type[Any], **changed: Any) -> None:
    for key, value in list(world.store.pairs.items()):
        if key.startswith(prefix):
            record = msgspec.structs.replace(records.decode_record(key, value, kind), **changed)
            world.store.pairs[key] = records.encode_record(key, record)


@pytest.mark.parametrize(
    ("prefix", "kind", "changed", "words"),
    [
        (records.FILES, FileRecord, {"low": 9, "high": 5}, "begins behind 9 and ends at 5"),
        (records.FILES, FileRecord, {"reserved": 0}, "beyond what is reserved"),
        (records.FILES, FileRecord, {"boot": 99}, "made by boot 99"),
        (records.FILES, FileRecord, {"directory": 4}, "no data directory 4"),
        (records.STREAMS, StreamRecord, {"low": -7}, "the end of its last range is -7"),
        (records.RUNS, records.RunRecord, {"streams": {}}, "does not name its stream"),
    ],
)
def test_a_record_that_cannot_be_ends_the_start_before_anything_is_touched(
    prefix: bytes, kind: type[Any], changed: dict[str, Any], words: str
) -> None:
    world = killed()
    change(world, prefix, kind, **changed)
    before = world.disks[0].contents()
    with pytest.raises(JournalUnreadable, match=words):
        Life(world)
    assert world.disks[0].contents() == before


def test_a_start_reads_nothing_that_was_not_probed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    world = killed()
    scanned: set[bytes] = set()
    scan = SimulatedJournal.scan

    def spy(journal: SimulatedJournal, prefix: bytes) -> Any:
        scanned.add(prefix)
        return scan(journal, prefix)

    monkeypatch.setattr(SimulatedJournal, "scan", spy)
    world.pump(5)
    assert records.DONE_OPERATIONS in scanned
    assert scanned <= set(records.START_PREFIXES)


def test_a_part_that_the_journal_has_not_heard_of_tells_of_an_older_copy() -> None:
    """Behind the durable offset of those that it knows there is nothing."""
    world = running()
    older = dict(world.store.pairs)
    world.do("STOP RUN", run=7)
    # The stream's record of then, with a part less.
    for key, value in list(older.items()):
        if key.startswith(records.FILES):
            del older[key]
        if key.startswith(records.STREAMS):
            stream = records.decode_record(key, value, StreamRecord)
            older[key] = records.encode_record(key, msgspec.structs.replace(stream, next_part={}))
    world.power_cut = False
    world.kill()
    restore(world, older)
    with pytest.raises(JournalOutdated, match=r"photons_0001\.dlog is of this logger"):
        Life(world)


@pytest.mark.parametrize("closed_since", [False, True])
def test_an_older_copy_of_the_journal_is_seen_and_nothing_is_cut(closed_since: bool) -> None:
    """Of the same boot, so that the boot number tells nothing."""
    world = running()
    older = dict(world.store.pairs)
    told_to(world, durable := [])
    assert durable == sorted(set(durable))
    if closed_since:
        assert world.do("STOP RUN", run=7).ok
    world.power_cut = False
    world.kill()
    newer = dict(world.store.pairs)
    restore(world, older)
    before = world.disks[0].contents()
    with pytest.raises(JournalOutdated, match="older copy"):
        Life(world)
    assert world.disks[0].contents() == before
    # With the right one in its place it all goes on.
    restore(world, newer)
    world.pump(50)
    assert world.problems(complete=True) == []
