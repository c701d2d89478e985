"""Which records a journal can hold, and what is said of those that it cannot."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dlog.core import journal_records as records
from dlog.core.event_file import Totals
from dlog.core.journal_records import (
    BootRecord,
    CountRecord,
    FileRecord,
    MarkRecord,
    QuarantineRecord,
    Refusal,
    RunRecord,
    SessionRecord,
    StreamRecord,
    encode_record,
)
from dlog.core.record_rules import Known, contradiction, read_record
from dlog.core.states import FileState, RunState
from dlog.errors import JournalUnreadable
from dlog.limits import PAGE_BYTES
from dlog.model.config import StreamConfig
from dlog.model.ids import FileKind
from tests.event_files import SESSION_A, make_key

KEY = make_key(stream="a", part=3)
FILE = FileRecord(
    run=7, stream="a", kind=FileKind.EVENTS, part=3, state=FileState.END, directory=0,
    path="runs/7/a_0003.dlog", file_uuid=bytes(16), salt=bytes(16), boot=2, created_ns=1,
    durable=3 * PAGE_BYTES, reserved=9 * PAGE_BYTES, last_header_offset=2 * PAGE_BYTES,
    totals=Totals(blocks=2, events=20, first_event=3, last_event=2**64 - 1, last_block=2),
    low=2, high=2**64 - 1, predecessor_part=2, predecessor_sealed=PAGE_BYTES,
)  # fmt: skip
STREAM = StreamRecord(
    run=7, stream="a", next_block=3, highest_event=40, low=20, next_part={1: 4}, unmade=[(1, 5)]
)
SESSION = SessionRecord(
    session=SESSION_A, name="s", acknowledged=4,
    refused=[Refusal(first=2, last=3, run=7, stream="a", reason="disk-full", events=9)],
)  # fmt: skip
TAIL = QuarantineRecord(
    path="quarantine/x.tail", directory=0, run=7, stream="a", kind=1, part=3, begin=PAGE_BYTES,
    end=2 * PAGE_BYTES, saved_ns=1,
)  # fmt: skip

WHOLE: dict[str, tuple[bytes, Any]] = {
    "file": (records.file_key(KEY), FILE),
    "stream": (records.stream_key(KEY.stream_key), STREAM),
    "run": (records.run_key(KEY.run), RunRecord(run=7, state=RunState.ACTIVE, streams={},
                                                started_ns=1)),
    "session": (records.session_key(SESSION_A), SESSION),
    "tail": (records.quarantine_key(TAIL.path), TAIL),
    "boot": (records.BOOT, BootRecord(boot=1)),
    "mark": (b"mark/x", MarkRecord(sequence=2**64 - 1)),
    "count": (b"count/x", CountRecord(stored=3, refused={"disk-full": 2})),
}  # fmt: skip

IMPOSSIBLE: list[tuple[str, dict[str, Any], str]] = [
    ("file", {"high": -1}, "its range has no end"),
    ("file", {"high": 1}, "begins behind 2 and ends at 1"),
    ("file", {"low": -2}, "the begin of its range is -2"),
    ("file", {"durable": -PAGE_BYTES}, "durable offset is -4096"),
    ("file", {"durable": 5000}, "durable offset 5000 is not the end of a block"),
    ("file", {"reserved": 2 * PAGE_BYTES}, "beyond what is reserved"),
    ("file", {"last_header_offset": 9 * PAGE_BYTES}, "last block's offset"),
    ("file", {"part": 0}, "part 0"),
    ("file", {"part": 4}, "part 4"),
    ("file", {"kind": 4}, "kind 4"),
    ("file", {"kind": 3}, "kind 3"),
    ("file", {"path": "runs/7/../a_0003.dlog"}, "its path is"),
    ("file", {"salt": b"short"}, "16 bytes"),
    ("file", {"predecessor_part": 3}, "predecessor is 3"),
    ("file", {"boot": -1}, "boot is -1"),
    ("file", {"totals": Totals(blocks=-1)}, "blocks of its totals is -1"),
    ("file", {"totals": Totals(first_event=9, last_event=2)}, "its events are 9 to 2"),
    ("stream", {"next_block": 0}, "next block is 0"),
    ("stream", {"highest_event": -2}, "highest event is -2"),
    ("stream", {"low": -5}, "end of its last range is -5"),
    ("stream", {"next_part": {9: 1}}, "kind 9"),
    ("stream", {"next_part": {1: 0}}, "next part is 0"),
    ("stream", {"unmade": [(9, 3)]}, "begins behind 9 and ends at 3"),
    ("stream", {"unmade": [(0, -1)]}, "has no end"),
    ("stream", {"run": 8}, "it is of run 8"),
    ("run", {"run": 8}, "it is of run 8"),
    ("session", {"acknowledged": -1}, "acknowledged batch is -1"),
    ("session", {"session": b"x"}, "session 78"),
    ("session", {"refused": [Refusal(first=3, last=2, run=7, stream="a", reason="r", events=1)]},
     "batches 3 to 2"),
    ("session", {"refused": [Refusal(first=2, last=2, run=7, stream="a", reason="r", events=-1)]},
     "events refused is -1"),
    ("tail", {"end": 0}, "[4096..0)"),
    ("tail", {"path": "quarantine/y.tail"}, "it is of quarantine/y.tail"),
    ("tail", {"directory": -1}, "data directory is -1"),
    ("stream", {"directory": -1}, "data directory is -1"),
    ("boot", {"boot": 0}, "boot is 0"),
    ("mark", {"sequence": -1}, "batch is -1"),
    ("count", {"stored": -3}, "stored is -3"),
    ("count", {"refused": {"disk-full": -2}}, "refused as disk-full is -2"),
]  # fmt: skip


@pytest.mark.parametrize("what", WHOLE)
def test_a_record_that_can_be_is_read(what: str) -> None:
    key, record = WHOLE[what]
    assert read_record(key, encode_record(key, record), type(record)) == record


@pytest.mark.parametrize(("what", "changed", "words"), IMPOSSIBLE)
def test_a_record_that_cannot_be_is_refused_with_its_key_and_its_fault(
    what: str, changed: dict[str, Any], words: str
) -> None:
    key, record = WHOLE[what]
    wrong = msgspec.structs.replace(record, **changed)
    with pytest.raises(JournalUnreadable) as refused:
        read_record(key, encode_record(key, wrong), type(record))
    assert words in str(refused.value)
    assert repr(key) in str(refused.value)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (FILE, ""),
        (STREAM, ""),
        (TAIL, ""),
        (msgspec.structs.replace(FILE, run=6), ""),
        (msgspec.structs.replace(FILE, run=8), "run 8 is not known"),
        (msgspec.structs.replace(FILE, stream="b"), "does not name its stream"),
        (msgspec.structs.replace(FILE, boot=4), "made by boot 4, and the last one is 3"),
        (msgspec.structs.replace(FILE, directory=2), "no data directory 2"),
        (msgspec.structs.replace(TAIL, directory=2), "no data directory 2"),
        (msgspec.structs.replace(STREAM, directory=2), ""),
        (msgspec.structs.replace(STREAM, run=6), "run 6 is not live"),
        (msgspec.structs.replace(STREAM, stream="b"), "does not name its stream"),
    ],
)
def test_records_that_contradict_each_other(record: Any, words: str) -> None:
    known = Known(3, 2, {7: {"a": StreamConfig()}}, lambda run: run == 6)
    found = contradiction(record, known)
    assert words in found if words else not found
