"""What a journal that is rebuilt from the files says: how far each file counts, and why so far."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dlog.adapters.directory_lock import DirectoryLock
from dlog.adapters.journal import LmdbJournal
from dlog.core.block import OrphanReason
from dlog.core.data_directory import MARK
from dlog.core.journal_records import (
    LOGGER,
    EndedRunRecord,
    FileRecord,
    encode_record,
    ended_run_key,
    file_key,
    run_key,
    stream_key,
)
from dlog.core.states import FileState, LoggerState, RunState
from dlog.errors import Error, JournalUnreadable
from dlog.limits import PAGE_BYTES
from dlog.model.ids import FileKind, MarkKey, RunNumber, StreamKey, StreamName, file_path
from dlog.recovery.facts import look_at
from dlog.recovery.journal import REBUILT_SOURCE, rebuild
from dlog.recovery.journal_check import check
from dlog.recovery.report import Verdict, worst
from dlog.recovery.snapshot import Snapshot, read_journal
from dlog.recovery.verify import plan, verify
from tests.event_files import (
    LOGGER_UUID,
    SESSION_A,
    SESSION_B,
    BuiltFile,
    FileBuilder,
    Piece,
    SentEvent,
    build_orphans,
    build_run,
    make_entry,
    make_events,
    make_key,
    make_pieces,
    overwrite,
)

A7 = StreamKey(RunNumber(7), StreamName("a"))


def rebuilt(data: Path, *others: Path) -> Snapshot:
    rebuild(data, others)
    found = look_at(data)
    snapshot = found.snapshot
    assert snapshot is not None
    assert snapshot.problems == []
    assert check(data, found).findings == []
    return snapshot


def mark(snapshot: Snapshot, session: bytes = SESSION_A, stream: str = "a") -> int:
    key = MarkKey(session, RunNumber(7), StreamName(stream))  # type: ignore[arg-type]
    record = snapshot.marks.get(key)
    return record.sequence if record is not None else 0


def open_file(data: Path, **options: object) -> FileBuilder:
    (data / "runs/7").mkdir(parents=True, exist_ok=True)
    return FileBuilder(make_key(stream="a", part=1), **options)  # type: ignore[arg-type]


def write_open(file: FileBuilder, data: Path, tail: bytes = b"") -> BuiltFile:
    return file.write(
        data / f"runs/7/a_{file.key.part:04d}.dlog.part", closed=False, tail=tail
    )  # fmt: skip


def test_a_live_and_an_ended_run_are_told_apart_by_their_names(tmp_path: Path) -> None:
    build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    build_run(tmp_path, {"a": make_pieces(make_events(30), 10)}, run=6)
    build_orphans(tmp_path, make_pieces(make_events(5), 5))
    snapshot = rebuilt(tmp_path)
    assert snapshot.runs[RunNumber(7)].state is RunState.ACTIVE
    assert set(snapshot.runs[RunNumber(7)].streams) == {"a"}
    assert snapshot.ended[RunNumber(6)].state is RunState.ENDED
    assert snapshot.logger is not None
    assert snapshot.logger.state is LoggerState.RUNNING
    assert snapshot.meta is not None
    assert snapshot.meta.logger_uuid == LOGGER_UUID
    assert snapshot.boot is not None
    assert snapshot.boot.boot == 2
    assert worst(r.verdict for r in verify(plan([tmp_path]))) is Verdict.GOOD


def test_the_open_part_goes_on_behind_its_last_block(tmp_path: Path) -> None:
    built = build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)[-1]
    with built.path.open("ab") as file:
        file.write(bytes(3 * PAGE_BYTES))
    snapshot = rebuilt(tmp_path)
    record = snapshot.files[built.key]
    assert record.state is FileState.OPEN
    assert (record.durable, record.reserved) == (built.data_end, built.data_end + 3 * PAGE_BYTES)
    assert record.chain == built.blocks[-1].header.crc
    assert record.last_header_offset == built.blocks[-1].offset
    assert record.salt == built.header.salt
    stream = snapshot.streams[A7]
    assert (stream.next_block, stream.highest_event) == (9, 80)
    assert stream.next_part == {FileKind.EVENTS: 4}
    assert mark(snapshot) == 8


def test_bytes_behind_the_last_trusted_block_stay_for_the_restart(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    file.pieces(make_pieces(make_events(20), 10), 10)
    built = write_open(file, tmp_path, tail=b"\xa5" * 5000)
    snapshot = rebuilt(tmp_path)
    assert snapshot.files[built.key].durable == built.data_end
    assert built.path.stat().st_size == built.data_end + 5000
    (report,) = [r for r in verify(plan([tmp_path])) if r.findings]
    assert report.verdict is Verdict.TORN


def test_trust_ends_in_front_of_a_piece_that_is_not_complete(tmp_path: Path) -> None:
    """The piece of batch 3 began in the last block; its end was never written."""
    file = open_file(tmp_path)
    file.pieces(make_pieces(make_events(20), 10), 10)
    (piece,) = make_pieces(make_events(10, first=21), 10, first_sequence=3)
    entry = make_entry(file.key, piece, piece.events[:5], 10, first=True, last=False)
    file.block([entry], piece.events[:5], group_end=False)
    built = write_open(file, tmp_path)
    snapshot = rebuilt(tmp_path)
    assert snapshot.files[built.key].durable == built.blocks[2].offset
    assert snapshot.streams[A7].next_block == 3
    assert mark(snapshot) == 2


def test_a_damaged_block_that_a_later_one_knows_as_committed_ends_no_trust(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    file.pieces(make_pieces(make_events(50), 10), 10)
    built = write_open(file, tmp_path)
    overwrite(built.path, built.blocks[2].offset, b"\xa5" * PAGE_BYTES)
    told = rebuild(tmp_path)
    snapshot = look_at(tmp_path).snapshot
    assert snapshot is not None
    assert snapshot.files[built.key].durable == built.data_end
    assert any("[12288..16384)" in text for text in told.problems)


def test_a_damaged_last_block_below_a_told_durable_offset_is_not_passed_over(
    tmp_path: Path,
) -> None:
    """Block 4 was committed when block 5 was made, and block 5 is of another group that was not."""
    file = open_file(tmp_path)
    file.pieces(make_pieces(make_events(40), 10), 10)
    (piece,) = make_pieces(make_events(10, first=41), 10, first_sequence=5)
    entry = make_entry(file.key, piece, piece.events[:5], 10, first=True, last=False)
    file.block([entry], piece.events[:5], group_end=False)
    built = write_open(file, tmp_path)
    overwrite(built.path, built.blocks[3].offset, b"\xa5" * PAGE_BYTES)
    rebuild(tmp_path)
    snapshot = look_at(tmp_path).snapshot
    assert snapshot is not None
    assert snapshot.files[built.key].durable == built.blocks[4].offset
    assert snapshot.streams[A7].next_block == 5


def test_trust_ends_where_a_block_number_is_missing(tmp_path: Path) -> None:
    """As a power cut in a write of several blocks leaves it."""
    file = open_file(tmp_path, durable=PAGE_BYTES)
    file.pieces(make_pieces(make_events(50), 10), 10)
    built = write_open(file, tmp_path)
    overwrite(built.path, built.blocks[2].offset, bytes(PAGE_BYTES))
    told = rebuild(tmp_path)
    snapshot = look_at(tmp_path).snapshot
    assert snapshot is not None
    assert snapshot.files[built.key].durable == built.blocks[2].offset
    assert mark(snapshot) == 2
    assert any("block numbers 3 to 3 are missing" in text for text in told.problems)
    assert any("2 blocks" in text for text in told.notes)


def test_numbers_count_across_the_parts_of_a_stream(tmp_path: Path) -> None:
    """Late events: block 4 lies in part 1, between 3 and 5 of part 2."""
    first = open_file(tmp_path)
    second = FileBuilder(make_key(stream="a", part=2), first_block=3, low=20)
    first.pieces(make_pieces(make_events(20), 10), 10)
    second.pieces(make_pieces(make_events(10, first=21), 10, first_sequence=3), 10)
    first.next_number = 4
    first.pieces(make_pieces(make_events(5, first=15), 5, first_sequence=4), 10)
    second.next_number = 5
    second.pieces(make_pieces(make_events(10, first=31), 10, first_sequence=5), 10)
    one, two = write_open(first, tmp_path), write_open(second, tmp_path)
    snapshot = rebuilt(tmp_path)
    assert snapshot.files[one.key].durable == one.data_end
    assert snapshot.files[two.key].durable == two.data_end
    assert snapshot.files[one.key].state is FileState.END
    assert (snapshot.files[one.key].low, snapshot.files[one.key].high) == (-1, 20)
    assert snapshot.files[two.key].state is FileState.OPEN
    assert (snapshot.files[two.key].low, snapshot.files[two.key].high) == (20, -1)
    assert snapshot.streams[A7].low == 20
    assert mark(snapshot) == 5


def test_a_wild_event_number_closes_no_range_of_a_rebuilt_journal(tmp_path: Path) -> None:
    first = open_file(tmp_path)
    second = FileBuilder(make_key(stream="a", part=2), first_block=3, low=20)
    events = make_events(31)
    events[18] = events[18]._replace(number=2**40)
    events[30] = events[30]._replace(number=2**64 - 1)
    first.pieces(make_pieces(events[:20], 10), 10)
    second.pieces(make_pieces(events[20:], 10, first_sequence=3), 10)
    one, two = write_open(first, tmp_path), write_open(second, tmp_path)
    snapshot = rebuilt(tmp_path)
    assert (snapshot.files[one.key].low, snapshot.files[one.key].high) == (-1, 20)
    assert (snapshot.files[two.key].low, snapshot.files[two.key].high) == (20, -1)
    stream = snapshot.streams[A7]
    assert (stream.low, stream.highest_event) == (20, 30)


def test_a_lost_part_in_the_middle_ends_the_trust_in_open_parts(tmp_path: Path) -> None:
    first, second = open_file(tmp_path), FileBuilder(make_key(stream="a", part=2), first_block=4)
    first.pieces(make_pieces(make_events(20), 10), 10)
    second.pieces(make_pieces(make_events(10, first=31), 10, first_sequence=4), 10)
    one, two = write_open(first, tmp_path), write_open(second, tmp_path)
    rebuild(tmp_path)
    snapshot = look_at(tmp_path).snapshot
    assert snapshot is not None
    assert snapshot.files[one.key].durable == one.data_end
    assert snapshot.files[two.key].durable == PAGE_BYTES


def test_blocks_of_a_closed_file_were_committed_even_if_one_is_damaged(tmp_path: Path) -> None:
    """What comes after it in an open part is not given up."""
    built = build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    overwrite(built[0].path, built[0].blocks[1].offset, bytes(512))
    rebuild(tmp_path)
    snapshot = look_at(tmp_path).snapshot
    assert snapshot is not None
    assert snapshot.files[built[-1].key].durable == built[-1].data_end
    assert snapshot.closed[built[0].key].status == "bad"


def test_blocks_before_those_of_a_later_boot_were_committed(tmp_path: Path) -> None:
    """A restart cuts what was not: so a damaged block of the first boot ends nothing."""
    file = open_file(tmp_path)
    file.pieces(make_pieces(make_events(30), 10), 10)
    file.boot = 2
    file.pieces(make_pieces(make_events(20, first=31), 10, first_sequence=4), 10)
    built = write_open(file, tmp_path)
    overwrite(built.path, built.blocks[1].offset, bytes(512))
    rebuild(tmp_path)
    snapshot = look_at(tmp_path).snapshot
    assert snapshot is not None
    assert snapshot.files[built.key].durable == built.data_end
    assert snapshot.boot is not None
    assert snapshot.boot.boot == 3


@pytest.mark.parametrize("apart", [False, True])
def test_a_sealed_part_counts_up_to_where_its_successor_says(tmp_path: Path, apart: bool) -> None:
    """Block 3 was moved to part 2; its first copy behind the seal is void. apart: to another data
    directory, since the first one failed."""
    first = open_file(tmp_path)
    first.pieces(make_pieces(make_events(20), 10), 10)
    sealed_content = bytes(first.content)
    sealed = BuiltFile(
        tmp_path / "runs/7/a_0001.dlog.part", first.key, first.header, tuple(first.blocks),
        len(sealed_content), len(sealed_content), None,
    )  # fmt: skip
    moved = make_pieces(make_events(10, first=21), 10, first_sequence=3)
    first.pieces(moved, 10)
    one = write_open(first, tmp_path)
    second = FileBuilder(make_key(stream="a", part=2), first_block=3, predecessor=sealed)
    second.pieces(moved, 10)
    two = write_open(second, tmp_path)
    others = [tmp_path / "second"] if apart else []
    for other in others:
        (other / "runs/7").mkdir(parents=True)
        one.path.rename(other / "runs/7" / one.path.name)
    snapshot = rebuilt(tmp_path, *others)
    record = snapshot.files[one.key]
    assert (record.state, record.sealed, record.durable) == (FileState.ERROR, True, sealed.data_end)
    assert record.totals.events == 20
    assert snapshot.files[two.key].state is FileState.OPEN
    assert snapshot.files[two.key].predecessor_sealed == sealed.data_end
    assert (snapshot.files[two.key].low, snapshot.files[two.key].high) == (-1, -1)
    assert mark(snapshot) == 3


def test_blocks_that_a_later_boot_wrote_anew_are_void(tmp_path: Path) -> None:
    """Their part was in a directory that was away at the restart, with another one that is named as
    the predecessor: nothing but the boot tells."""
    pieces = make_pieces(make_events(40), 10)
    first = open_file(tmp_path, boot=9)
    first.pieces(pieces[:2], 10)
    one = write_open(first, tmp_path)
    second = FileBuilder(make_key(stream="a", part=2), first_block=2, boot=10)
    second.pieces(pieces[1:], 10)
    two = write_open(second, tmp_path)
    snapshot = rebuilt(tmp_path)
    assert snapshot.files[one.key].durable == one.blocks[1].offset
    assert snapshot.files[two.key].durable == two.data_end
    assert snapshot.streams[A7].next_block == 5
    assert mark(snapshot) == 4


def test_watermarks_are_kept_by_session_and_stream_as_sent(tmp_path: Path) -> None:
    build_run(
        tmp_path,
        {
            "a": make_pieces(make_events(30), 10),
            "b": make_pieces(make_events(30), 5, session=SESSION_B, first_sequence=40),
        },
        garbage_blocks={"a": 1}, last_open=True,
    )  # fmt: skip
    snapshot = rebuilt(tmp_path)
    assert mark(snapshot) == 3
    assert mark(snapshot, SESSION_B, "b") == 45
    assert mark(snapshot, SESSION_B, "a") == 0
    assert all(session.rebuilt for session in snapshot.sessions.values())
    # Nothing tells what was acknowledged: another stream may still wait for a batch.
    assert {session.acknowledged for session in snapshot.sessions.values()} == {0}


@pytest.mark.parametrize("size", [0, 1000])
def test_a_part_that_was_cut_in_its_header_page_is_left_for_the_restart(
    tmp_path: Path, size: int
) -> None:
    """A kill while it was being made leaves it so: nothing is wrong with it."""
    built = build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)[-1]
    (tmp_path / "runs/7/a_0004.dlog.part").write_bytes(built.path.read_bytes()[:size])
    told = rebuild(tmp_path)
    snapshot = look_at(tmp_path).snapshot
    assert snapshot is not None
    assert snapshot.files[make_key(7, "a", part=4)].state is FileState.CREATING
    assert snapshot.streams[A7].next_part[FileKind.EVENTS] == 5
    assert told.problems == []
    (note,) = (text for text in told.notes if "a_0004" in text)
    assert "the next start moves it aside" in note


def test_accounts_of_a_run_add_up_under_a_name_of_their_own(tmp_path: Path) -> None:
    build_run(tmp_path, {"a": make_pieces(make_events(30), 10)}, garbage_blocks={"a": 1})
    ((source, stream, count),) = rebuilt(tmp_path).ended[RunNumber(7)].counts
    assert (source, stream) == (REBUILT_SOURCE, "a")
    assert (count.stored, count.garbage) == (20, 10)


def test_what_an_old_readable_journal_knows_is_kept(tmp_path: Path) -> None:
    build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    first = rebuilt(tmp_path)
    second = rebuilt(tmp_path)
    assert second.runs == first.runs
    assert second.marks == first.marks
    assert second.files == first.files
    assert first.boot is not None
    assert second.boot is not None
    assert second.boot.boot == first.boot.boot + 1
    assert (tmp_path / "journal.old-1").is_dir()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    told = rebuild(tmp_path, dry_run=True)
    assert told.live_runs == [7]
    assert not (tmp_path / "journal").exists()


def test_no_event_file_is_touched(tmp_path: Path) -> None:
    build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob("*.dlog*")}
    rebuild(tmp_path)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob("*.dlog*")} == before


def test_a_journal_is_not_rebuilt_under_a_running_logger(tmp_path: Path) -> None:
    build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    with DirectoryLock.acquire(tmp_path), pytest.raises(Error, match="another logger runs"):
        rebuild(tmp_path)
    assert not (tmp_path / "journal").exists()


def test_a_directory_that_holds_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Error, match="is no data directory"):
        rebuild(tmp_path)


@pytest.mark.parametrize("size", [0, 9000, 300_000])
def test_a_truncated_journal_is_a_message_and_not_a_signal(tmp_path: Path, size: int) -> None:
    build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    rebuild(tmp_path)
    with (tmp_path / "journal/data.mdb").open("r+b") as file:
        file.truncate(size)
    with pytest.raises(JournalUnreadable, match="dlog journal rebuild"):
        read_journal(tmp_path / "journal")
    assert rebuilt(tmp_path).runs[RunNumber(7)].state is RunState.ACTIVE


def test_a_flipped_byte_in_a_record_is_named(tmp_path: Path) -> None:
    build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    rebuild(tmp_path)
    database = tmp_path / "journal/data.mdb"
    content = bytearray(database.read_bytes())
    needle = LOGGER_UUID
    at = content.find(needle)
    while at >= 0:
        content[at] ^= 0xFF
        at = content.find(needle)
    database.write_bytes(content)
    report = check(tmp_path)
    assert report.verdict is Verdict.DISAGREE
    assert any("checksum does not hold" in f.reason for f in report.findings)


def test_files_of_a_second_data_directory_are_found_where_they_lie(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    built = build_run(first, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    (second / "runs/7").mkdir(parents=True)
    moved = built[-1].path.rename(second / "runs/7" / built[-1].path.name)
    rebuild(first, [second])
    found = look_at(first)
    assert found.snapshot is not None
    assert found.folders[1] == second
    assert found.snapshot.files[built[-1].key].directory == 1
    assert found.snapshot.streams[A7].directory == 1
    assert check(first, found).findings == []
    reports = list(verify(plan([first])))
    assert str(moved) in [r.path for r in reports]
    assert worst(r.verdict for r in reports) is Verdict.GOOD


def test_nothing_is_rebuilt_without_a_data_directory_that_is_known(tmp_path: Path) -> None:
    """Its files would be unknown, and the numbers of their blocks and parts given once more."""
    first, second, third = tmp_path / "one", tmp_path / "two", tmp_path / "three"
    built = build_run(first, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    for folder in (second, third):
        (folder / "runs/7").mkdir(parents=True)
        (folder / MARK).write_text(LOGGER_UUID.hex())
    built[-1].path.rename(third / "runs/7" / built[-1].path.name)
    rebuild(first, [second, third])
    found = look_at(first)
    assert found.snapshot is not None
    assert found.snapshot.meta is not None
    assert found.snapshot.meta.marked == (str(second), str(third))
    (second / MARK).rename(tmp_path / "aside")
    (second / "runs/7").rmdir()
    (second / "runs").rmdir()
    with pytest.raises(Error, match="is its disk mounted"):
        rebuild(first)
    with pytest.raises(Error, match="cannot be reached"):
        rebuild(first, [tmp_path / "four"])
    rebuild(first, [third])
    found = look_at(first)
    assert found.snapshot is not None
    assert found.snapshot.files[built[-1].key].directory == 1


def test_a_run_that_was_over_stays_over_although_a_part_of_it_waits(tmp_path: Path) -> None:
    """Its directory went away, say: the part is sealed, and gets its name when that is back."""
    built = build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)[-1]
    before = rebuilt(tmp_path)
    run = before.runs[RunNumber(7)]
    over = EndedRunRecord(run=7, state=RunState.ENDED, started_ns=1, ended_ns=2,
                          streams=run.streams)  # fmt: skip
    sealed = msgspec.structs.replace(
        before.files[built.key], state=FileState.ERROR, sealed=True, reason="Input/output error"
    )
    failed = FileRecord(
        run=7, stream="a", kind=FileKind.EVENTS, part=9, state=FileState.ERROR, directory=0,
        path="runs/7/a_0009.dlog", file_uuid=bytes(16), salt=bytes(16), boot=1, created_ns=1,
        sealed=True,
    )  # fmt: skip
    assert before.logger is not None
    idle = msgspec.structs.replace(before.logger, state=LoggerState.CONFIGURED)
    with LmdbJournal.open(tmp_path / "journal") as journal:
        journal.commit([
            (run_key(RunNumber(7)), None), (stream_key(A7), None),
            *((key, encode_record(key, record)) for key, record in (
                (ended_run_key(RunNumber(7)), over),
                (LOGGER, idle),
                (file_key(built.key), sealed),
                (file_key(make_key(stream="a", part=9)), failed),
            )),
        ])  # fmt: skip
    assert check(tmp_path).findings == []
    again = rebuilt(tmp_path)
    assert again.runs == {}
    assert again.ended[RunNumber(7)] == over
    assert again.files[built.key].state is FileState.ERROR
    assert again.files[built.key].durable == sealed.durable
    assert again.logger is not None
    assert again.logger.state is LoggerState.CONFIGURED


def test_the_event_port_is_taken_from_where_the_logger_wrote_it(tmp_path: Path) -> None:
    build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    (tmp_path / "logger.json").write_text('{"boot": 9, "event_address": "tcp://127.0.0.1:4567"}')
    snapshot = rebuilt(tmp_path)
    assert snapshot.logger is not None
    assert snapshot.logger.event_address == "tcp://127.0.0.1:4567"
    assert snapshot.boot is not None
    assert snapshot.boot.boot == 10


def test_a_saved_tail_is_known_again_with_what_it_waits_for(tmp_path: Path) -> None:
    built = build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)[-1]
    tail = tmp_path / "quarantine" / f"7_a_events_0003_{PAGE_BYTES}_12.tail"
    tail.parent.mkdir()
    tail.write_bytes(built.path.read_bytes())
    snapshot = rebuilt(tmp_path)
    (record,) = snapshot.quarantine
    assert (record.sessions, record.saving) == ([], False)
    assert record.needed == [(SESSION_A, 7, "a", 7), (SESSION_A, 7, "a", 8)]
    assert (record.begin, record.end) == (PAGE_BYTES, built.size)
    assert snapshot.boot is not None
    assert snapshot.boot.boot == 13


def test_a_part_begun_before_the_blocks_of_the_one_before_it_were_committed(tmp_path: Path) -> None:
    """Parts are made ahead of the commits: the header of part 2 still says block 1. Where its range
    begins stands there too."""
    first = open_file(tmp_path)
    second = FileBuilder(make_key(stream="a", part=2), first_block=1, low=20)
    first.pieces(make_pieces(make_events(20), 10), 10)
    second.next_number = 3
    second.pieces(make_pieces(make_events(10, first=21), 10, first_sequence=3), 10)
    one, two = write_open(first, tmp_path), write_open(second, tmp_path)
    snapshot = rebuilt(tmp_path)
    record = snapshot.files[one.key]
    assert (record.state, record.low, record.high) == (FileState.END, -1, 20)
    assert (snapshot.files[two.key].low, snapshot.files[two.key].high) == (20, -1)
    assert snapshot.streams[A7].low == 20


def test_a_part_for_late_events_may_be_made_behind_that_of_a_newer_range(tmp_path: Path) -> None:
    """Where the range's first part was closed early, since no file may be longer, say."""
    first = open_file(tmp_path)
    first.pieces(make_pieces(make_events(20), 10), 10)
    first.write(tmp_path / file_path(first.key))
    second = FileBuilder(make_key(stream="a", part=2), first_block=3, low=20)
    second.pieces(make_pieces(make_events(10, first=21), 10, first_sequence=3), 10)
    third = FileBuilder(make_key(stream="a", part=3), first_block=4, low=-1)
    third.pieces(make_pieces(make_events(5, first=15), 10, first_sequence=4), 10)
    two, three = write_open(second, tmp_path), write_open(third, tmp_path)
    snapshot = rebuilt(tmp_path)
    newest, late = snapshot.files[two.key], snapshot.files[three.key]
    assert (newest.state, newest.low, newest.high) == (FileState.OPEN, 20, -1)
    assert (late.state, late.low, late.high) == (FileState.END, -1, 20)
    assert (snapshot.streams[A7].low, snapshot.streams[A7].highest_event) == (20, 30)


def test_a_part_whose_blocks_were_not_committed_takes_nothing_late(tmp_path: Path) -> None:
    """What comes again is above the empty range, and goes to the next part."""
    first, second = open_file(tmp_path), FileBuilder(make_key(stream="a", part=2), first_block=1)
    first.pieces(make_pieces(make_events(20), 10), 10)
    one, two = write_open(first, tmp_path), write_open(second, tmp_path)
    overwrite(one.path, one.blocks[0].offset, bytes(one.size - PAGE_BYTES))
    snapshot = rebuilt(tmp_path)
    assert snapshot.files[one.key].state is FileState.CLOSING
    assert (snapshot.files[two.key].low, snapshot.files[two.key].high) == (-1, -1)
    assert snapshot.streams[A7].low == -1


def test_one_wild_number_does_not_close_the_ranges_of_later_parts(tmp_path: Path) -> None:
    first = open_file(tmp_path)
    second = FileBuilder(make_key(stream="a", part=2), first_block=3, low=9)
    wild = [*make_events(9), SentEvent(2**40, b"wild")]
    first.pieces(make_pieces(wild, 10), 10)
    second.next_number = 2
    second.pieces(make_pieces(make_events(10, first=10), 10, first_sequence=2), 10)
    one, two = write_open(first, tmp_path), write_open(second, tmp_path)
    snapshot = rebuilt(tmp_path)
    assert (snapshot.files[one.key].low, snapshot.files[one.key].high) == (-1, 9)
    assert snapshot.files[two.key].low == 9


def test_a_record_that_cannot_be_is_named_by_the_check(tmp_path: Path) -> None:
    built = build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)[-1]
    record = rebuilt(tmp_path).files[built.key]
    wrong = msgspec.structs.replace(record, state=FileState.END, low=5, high=-1)
    with LmdbJournal.open(tmp_path / "journal") as journal:
        journal.commit([(file_key(built.key), encode_record(file_key(built.key), wrong))])
    report = check(tmp_path)
    assert report.verdict is Verdict.DISAGREE
    assert any("END, and its range has no end" in f.reason for f in report.findings)


def with_sealed_first_part(data: Path) -> tuple[FileBuilder, FileBuilder]:
    """Part 1 has its range behind it, was sealed by a fault and settled; part 2 takes events."""
    first = open_file(data)
    first.pieces(make_pieces(make_events(20), 10), 10)
    first.write(data / file_path(first.key), sealed="fault")
    second = FileBuilder(make_key(stream="a", part=2), first_block=3, low=20)
    second.pieces(make_pieces(make_events(10, first=21), 10, first_sequence=3), 10)
    return first, second


def test_a_range_whose_part_a_fault_ended_still_waits_for_another_part(tmp_path: Path) -> None:
    _, second = with_sealed_first_part(tmp_path)
    write_open(second, tmp_path)
    assert rebuilt(tmp_path).streams[A7].unmade == [(-1, 20)]


def test_a_range_waits_no_more_once_its_next_part_is_there(tmp_path: Path) -> None:
    first, second = with_sealed_first_part(tmp_path)
    write_open(second, tmp_path)
    end = len(first.content)
    before = BuiltFile(Path(), first.key, first.header, tuple(first.blocks), end, end, None)
    third = FileBuilder(make_key(stream="a", part=3), first_block=4, low=-1, predecessor=before)
    third.pieces(make_pieces(make_events(5, first=15), 10, first_sequence=4), 10)
    third.write(tmp_path / file_path(third.key))
    assert rebuilt(tmp_path).streams[A7].unmade == []


def test_an_old_journal_knows_which_ranges_are_over_and_which_sessions_count_anew(
    tmp_path: Path,
) -> None:
    _, second = with_sealed_first_part(tmp_path)
    write_open(second, tmp_path)
    rebuild(tmp_path)
    journal = LmdbJournal.open(tmp_path / "journal")
    known = look_at(tmp_path).snapshot
    assert known is not None
    after = msgspec.structs.replace(known.streams[A7], unmade=[], anew=[SESSION_A])
    key = stream_key(A7)
    journal.commit([(key, encode_record(key, after))])
    journal.close()
    stream = rebuilt(tmp_path).streams[A7]
    assert (stream.unmade, stream.anew) == ([], [SESSION_A])


def test_what_was_diverted_is_told_to_its_sources_again(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    file.pieces(make_pieces(make_events(20), 10), 10)
    write_open(file, tmp_path)
    garbage = FileBuilder(make_key(stream="a", kind=FileKind.GARBAGE), first_block=3)
    garbage.pieces(make_pieces(make_events(7), 5, first_sequence=3), 10)
    garbage.write(tmp_path / file_path(garbage.key))
    more = FileBuilder(make_key(stream="a", kind=FileKind.GARBAGE, part=2), first_block=5)
    more.pieces(make_pieces(make_events(3), 5, first_sequence=5), 10)
    more.next_number = 9  # not known to be acknowledged
    more.pieces(make_pieces(make_events(4), 5, first_sequence=9), 10)
    more.write(tmp_path / (file_path(more.key) + ".part"), closed=False)
    why = OrphanReason.RUN_UNKNOWN
    orphan = Piece(make_events(2), sequence=6, run=9, stream="b", orphan_reason=why)
    build_orphans(tmp_path, [orphan])
    for _ in range(2):  # the second time with an old journal
        rebuild(tmp_path)
        snapshot = look_at(tmp_path).snapshot
        assert snapshot is not None
        diverted = snapshot.sessions[SESSION_A].diverted
        assert {(d.run, d.stream, d.why): d.events for d in diverted} == {
            (7, "a", "late"): 10,
            (9, "b", "run-unknown"): 2,
        }
