"""A start that is refused: with words, before anything was touched."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dlog.core import journal_records as records
from dlog.core.journal_records import FileRecord, StreamRecord
from dlog.errors import JournalUnreadable
from dlog.faults.simulation.journal import SimulatedJournal
from dlog.faults.simulation.world import Life, World
from dlog.model.ids import StreamName

PHOTONS = StreamName("photons")


def killed() -> World:
    """A logger that was killed with a run active and events on the disk."""
    world = World(1)
    world.do("INIT", drain_seconds=0.0)
    world.do("CONFIGURE", streams={"photons": {}})
    world.do("START RUN", run=7)
    source = world.source("router-1")
    for number in range(1, 20):
        assert source.send(7, (PHOTONS,), number, bytes([number]) * 100)
    world.settle()
    world.power_cut = False
    world.kill()
    return world


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
