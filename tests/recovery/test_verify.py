"""What `dlog verify` says: each outcome its own words and exit code, against every witness."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest
from typer.testing import CliRunner

from dlog.adapters.journal import LmdbJournal
from dlog.cli.main import app
from dlog.core.data_directory import MARK
from dlog.core.event_file import decode_sidecar, encode_sidecar
from dlog.core.journal_records import (
    FileRecord,
    closed_file_key,
    encode_record,
    file_key,
)
from dlog.core.scan import Depth
from dlog.core.states import FileState
from dlog.limits import MIB, PAGE_BYTES
from dlog.recovery.facts import DataDirectory, look_at, place_of
from dlog.recovery.journal import rebuild
from dlog.recovery.judge import verify_file
from dlog.recovery.report import (
    Acknowledged,
    FileReport,
    FindingKind,
    Verdict,
    finding_line,
    report_lines,
    worst,
)
from dlog.recovery.verify import plan, verify
from tests.event_files import (
    LOGGER_UUID,
    BuiltFile,
    build_file,
    build_run,
    make_events,
    make_key,
    make_pieces,
    overwrite,
)


def judged(path: Path, **options: object) -> FileReport:
    (report,) = verify(plan([path]), **options)  # type: ignore[arg-type]
    return report


def kinds(report: FileReport) -> list[FindingKind]:
    return [f.kind for f in report.findings]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with a journal; run 7 stream a, parts 1 and 2 closed, 3 open."""
    build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    rebuild(tmp_path)
    return tmp_path


def open_part(data: Path) -> Path:
    return data / "runs/7/a_0003.dlog.part"


def change_record(data: Path, **fields: object) -> FileRecord:
    """What the journal says of the open part, changed."""
    known = look_at(data).snapshot
    assert known is not None
    key = make_key(7, "a", part=3)
    record = msgspec.structs.replace(known.files[key], **fields)
    with LmdbJournal.open(data / "journal") as journal:
        journal.commit([(file_key(key), encode_record(file_key(key), record))])
    return record


# --- what cannot be judged --------------------------------------------------------------------


def test_a_path_that_is_not_there_could_not_be_checked(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "nothing.dlog")])
    assert result.exit_code == 1
    assert "no such file" in result.stdout


def test_a_directory_without_event_files_could_not_be_checked(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    report = judged(tmp_path)
    assert (report.verdict, kinds(report)) == (Verdict.CANNOT_RUN, [FindingKind.NO_FILES])


def test_a_pipe_under_an_event_files_name_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photons_0001.dlog")
    report = judged(tmp_path / "photons_0001.dlog")
    assert (report.verdict, kinds(report)) == (Verdict.CANNOT_RUN, [FindingKind.NOT_A_FILE])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_could_not_be_checked(tmp_path: Path) -> None:
    built = build_file(tmp_path / "photons_0001.dlog")
    built.path.chmod(0)
    assert judged(built.path).verdict is Verdict.CANNOT_RUN


def test_one_bad_file_does_not_keep_the_others_from_being_judged(tmp_path: Path) -> None:
    for part in (1, 2, 3):
        build_file(tmp_path / f"photons_{part:04d}.dlog", key=make_key(part=part))
    (tmp_path / "photons_0002.dlog").unlink()
    (tmp_path / "photons_0002.dlog").mkdir()
    paths = [tmp_path / f"photons_{part:04d}.dlog" for part in (1, 2, 3)]
    assert [r.verdict for r in verify(plan(paths), workers=2)].count(Verdict.GOOD) == 2


def test_the_worst_verdict_is_the_exit_code_in_the_order_of_the_design() -> None:
    order = [
        Verdict.CANNOT_RUN, Verdict.DAMAGED, Verdict.DISAGREE, Verdict.UNSUPPORTED, Verdict.TORN,
        Verdict.GOOD,
    ]  # fmt: skip
    assert [v.exit_code for v in order] == [1, 3, 5, 6, 4, 0]
    for n, verdict in enumerate(order):
        assert worst(order[n:]) is verdict
        assert worst(reversed(order[n:])) is verdict


# --- one file ---------------------------------------------------------------------------------


def test_a_read_error_costs_its_block_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build_file(tmp_path / "photons_0001.dlog")
    bad = built.blocks[1].offset
    real = os.preadv

    def failing(fd: int, buffers: list[memoryview], offset: int) -> int:
        length = sum(len(b) for b in buffers)
        if offset < bad + PAGE_BYTES and bad < offset + length and length > 0:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", failing)
    report = judged(built.path)
    assert report.verdict is Verdict.DAMAGED
    assert report.blocks == 4
    found = {f.kind: f for f in report.findings}
    assert (found[FindingKind.READ_ERROR].begin, found[FindingKind.READ_ERROR].end) == (
        bad, bad + PAGE_BYTES,
    )  # fmt: skip
    assert found[FindingKind.DAMAGE].blocks == (2, 2)


def large_file(folder: Path) -> BuiltFile:
    """Larger than what is read through the system's memory in any case."""
    events = make_events(96, size=100_000)
    return build_file(folder / "photons_0001.dlog", events=events, events_per_block=7)


def test_a_large_file_is_read_from_its_disk_and_not_kept_in_memory(tmp_path: Path) -> None:
    built = large_file(tmp_path)
    with built.path.open("rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if pages_in_memory(file) > 16:
            pytest.skip(f"the filesystem of {tmp_path} keeps all of a file in memory")
        assert judged(built.path).verdict is Verdict.GOOD
        assert pages_in_memory(file) <= 64  # what was read ahead behind the header page


def pages_in_memory(file: BinaryIO) -> int:
    """How many pages of the file the system keeps."""
    pages = (ctypes.c_ubyte * (os.fstat(file.fileno()).st_size // PAGE_BYTES))()
    with mmap.mmap(file.fileno(), 0) as mapped:
        begin = ctypes.c_char.from_buffer(mapped)
        address = ctypes.c_void_p(ctypes.addressof(begin))
        assert ctypes.CDLL(None).mincore(address, ctypes.c_size_t(len(mapped)), pages) == 0
        del begin
    return sum(page & 1 for page in pages)


@pytest.mark.parametrize("cut_bytes", [0, 1, PAGE_BYTES, 3 * MIB + 17])
@pytest.mark.parametrize("refused_by", ["nobody", "its opening", "its reading"])
def test_a_large_file_is_judged_alike_whoever_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_bytes: int, refused_by: str
) -> None:
    built = large_file(tmp_path)
    damaged = built.blocks[2].offset + 3 * PAGE_BYTES
    overwrite(built.path, damaged, b"?" * 100)
    os.truncate(built.path, built.path.stat().st_size - cut_bytes)
    expected = judged(built.path)
    damaged_blocks = next(f.blocks for f in expected.findings if f.kind is FindingKind.DAMAGE)
    assert damaged_blocks == (3, 3)
    direct: set[int] = set()
    opened, read = os.open, os.preadv

    def opening(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT and refused_by == "its opening":
            raise OSError(errno.EINVAL, "Invalid argument")
        fd = opened(path, flags, mode)
        if flags & os.O_DIRECT:
            direct.add(fd)
        return fd

    def reading(fd: int, buffers: list[memoryview], offset: int) -> int:
        if fd in direct and refused_by == "its reading":
            raise OSError(errno.EINVAL, "Invalid argument")
        return read(fd, buffers, offset)

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "preadv", reading)
    assert judged(built.path) == expected


def test_a_bad_sector_of_a_large_file_is_asked_for_a_few_times_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = large_file(tmp_path)
    bad = built.blocks[5].offset + 50 * PAGE_BYTES  # far inside what is read at once
    real, asked = os.preadv, []

    def failing(fd: int, buffers: list[memoryview], offset: int) -> int:
        length = sum(len(b) for b in buffers)
        if not offset <= bad < offset + length:
            return real(fd, buffers, offset)
        direct = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT
        if direct or offset == bad:
            asked.append(offset)  # each may take the disk many seconds
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, [buffers[0][: bad - offset]], offset)

    monkeypatch.setattr(os, "preadv", failing)
    report = judged(built.path)
    found = {f.kind: f for f in report.findings}
    read_error = found[FindingKind.READ_ERROR]
    assert (read_error.begin, read_error.end) == (bad, bad + PAGE_BYTES)
    assert found[FindingKind.DAMAGE].blocks == (6, 6)
    assert len(asked) <= 3 * 2  # twice where windows overlap


def test_quick_finds_what_is_stored_wrong_and_decompresses_nothing(tmp_path: Path) -> None:
    built = build_file(tmp_path / "photons_0001.dlog")
    report = judged(built.path, depth=Depth.STORED)
    assert (report.verdict, report.complete) == (Verdict.GOOD, False)
    overwrite(built.path, built.blocks[2].offset + 900, b"\xff\xff")
    assert judged(built.path, depth=Depth.STORED).verdict is Verdict.DAMAGED


def test_a_damage_is_told_with_bytes_blocks_events_and_reason(tmp_path: Path) -> None:
    built = build_file(tmp_path / "photons_0001.dlog")
    block = built.blocks[2]
    overwrite(built.path, block.offset + 900, b"\xff\xff")
    (finding,) = judged(built.path).findings
    assert finding_line(finding) == (
        f"bytes [{block.offset}..{block.offset + block.length}); checksum of the stored bytes does "
        "not hold; block 3; 10 events; event numbers 21 to 30; acknowledged"
    )


def test_without_index_the_neighbours_tell_the_event_numbers(tmp_path: Path) -> None:
    built = build_file(tmp_path / "photons_0001.dlog.part")
    overwrite(built.path, built.blocks[2].offset, bytes(100))
    (finding,) = judged(built.path).findings
    assert (finding.blocks, finding.event_numbers) == ((3, 3), (21, 30))
    assert (finding.events, finding.exact) == (None, False)
    assert finding.acknowledged is Acknowledged.UNKNOWN


def test_the_totals_of_the_sidecar_tell_how_many_events_a_lost_index_would_have(
    tmp_path: Path,
) -> None:
    built = build_file(tmp_path / "photons_0001.dlog")
    overwrite(built.path, built.blocks[2].offset, bytes(100))
    built.path.write_bytes(built.path.read_bytes()[: built.data_end])
    finding = next(f for f in judged(built.path).findings if f.kind is FindingKind.DAMAGE)
    assert (finding.events, finding.exact) == (10, True)


def test_a_sidecar_that_lies_is_found_field_by_field(tmp_path: Path) -> None:
    built = build_file(tmp_path / "photons_0001.dlog")

    assert built.sidecar is not None
    good = decode_sidecar(built.sidecar.read_bytes(), path="")
    for lie in (
        {"size_bytes": 1}, {"crc32c": "00000000"}, {"run": 8}, {"stream": "muons"}, {"part": 2},
        {"kind": "garbage"}, {"file_uuid": "00" * 16}, {"logger": "other"},
        {"totals": msgspec.structs.replace(good.totals, events=1)}, {"created_ns": 1},
        {"config": msgspec.structs.replace(good.config, part_events=1)},
    ):  # fmt: skip
        built.sidecar.chmod(0o644)
        built.sidecar.write_bytes(encode_sidecar(msgspec.structs.replace(good, **lie)))
        report = judged(built.path)
        assert kinds(report) == [FindingKind.SIDECAR], lie
        assert report.findings[0].acknowledged is Acknowledged.DERIVED


def test_a_name_of_no_rule_is_one_finding(tmp_path: Path) -> None:
    built = build_file(tmp_path / "copy of photons.dlog")
    assert judged(built.path).verdict is Verdict.DISAGREE


def test_a_name_of_strange_bytes_is_shown_and_not_fatal(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe_0001.dlog")
    build_file(path, sidecar=False)
    result = CliRunner().invoke(app, ["verify", "--json", str(tmp_path)])
    assert json.loads(result.stdout)["path"].endswith("\\udcff\\udcfe_0001.dlog")


def test_memory_does_not_grow_with_what_a_header_claims(tmp_path: Path) -> None:
    """A sparse file of a terabyte is judged at once."""
    built = build_file(tmp_path / "photons_0001.dlog.part")
    try:
        os.truncate(built.path, 1 << 40)
    except OSError:
        pytest.skip("this filesystem has no files of a terabyte")
    report = judged(built.path)
    assert (report.verdict, report.blocks) == (Verdict.GOOD, 5)


# --- against the journal ----------------------------------------------------------------------


def test_a_data_directory_agrees_with_its_journal(data: Path) -> None:
    reports = list(verify(plan([data])))
    assert [r.verdict for r in reports] == [Verdict.GOOD] * 4
    assert reports[0].state == "journal"


def test_damage_below_the_durable_offset_was_acknowledged(data: Path) -> None:
    overwrite(open_part(data), PAGE_BYTES + 200, b"\xff")
    report = judged(open_part(data))
    (finding,) = report.findings
    assert (report.verdict, finding.acknowledged) == (Verdict.DAMAGED, Acknowledged.YES)
    assert (finding.events, finding.exact) == (10, True)


def test_a_file_that_ends_below_its_durable_offset_lost_acknowledged_events(data: Path) -> None:
    os.truncate(open_part(data), PAGE_BYTES * 2)
    report = judged(open_part(data))
    assert report.verdict is Verdict.DAMAGED
    (finding,) = report.findings
    assert finding.kind is FindingKind.DURABLE
    assert (finding.blocks, finding.events, finding.event_numbers) == ((8, 8), 10, (71, 80))


def test_what_lies_behind_the_durable_offset_was_never_acknowledged(data: Path) -> None:
    with open_part(data).open("ab") as file:
        file.write(b"\xa5" * 100)
    change_record(data, reserved=1 << 20)
    report = judged(open_part(data))
    (finding,) = report.findings
    assert (report.verdict, finding.acknowledged) == (Verdict.TORN, Acknowledged.NO)


def test_on_a_running_logger_what_lies_behind_the_durable_offset_is_no_finding(data: Path) -> None:
    with open_part(data).open("ab") as file:
        file.write(b"\xa5" * 100)
    facts = look_at(data)
    facts.running = True
    report = verify_file(place_of(open_part(data)), facts)
    assert (report.verdict, report.findings) == (Verdict.GOOD, [])
    assert report.judged_bytes < report.size_bytes


def test_bytes_beyond_everything_reserved_disagree(data: Path) -> None:
    with open_part(data).open("ab") as file:
        file.write(b"\xa5" * 100)
    assert judged(open_part(data)).verdict is Verdict.DISAGREE


def test_another_last_block_than_the_journal_knows_disagrees(data: Path) -> None:
    change_record(data, chain=1)
    report = judged(open_part(data))
    assert (report.verdict, kinds(report)) == (Verdict.DISAGREE, [FindingKind.DURABLE])


def test_a_sealed_part_is_read_up_to_its_seal_alone(data: Path) -> None:
    record = change_record(data, state=FileState.ERROR, sealed=True, reason="write failed")
    with open_part(data).open("ab") as file:
        file.write(b"\xa5" * 100)
    report = judged(open_part(data))
    assert (report.verdict, report.state) == (Verdict.GOOD, "sealed")
    assert report.judged_bytes == record.durable
    assert any("void" in note for note in report.notes)


def test_a_file_that_is_missing_lost_what_the_catalogue_knows(data: Path) -> None:
    (data / "runs/7/a_0001.dlog").unlink()
    reports = list(verify(plan([data])))
    lost = next(r for r in reports if r.state == "missing")
    assert lost.verdict is Verdict.DAMAGED
    (finding,) = lost.findings
    assert (finding.events, finding.blocks, finding.event_numbers) == (30, (1, 3), (1, 30))
    assert finding.acknowledged is Acknowledged.YES


def test_a_file_that_the_journal_does_not_know_disagrees(data: Path) -> None:
    build_file(data / "runs/7/b_0001.dlog", key=make_key(7, "b"))
    report = judged(data / "runs/7/b_0001.dlog")
    assert (report.verdict, kinds(report)) == (Verdict.DISAGREE, [FindingKind.UNKNOWN_FILE])


def test_a_file_newer_than_the_journal_read_is_no_finding_on_a_running_logger(data: Path) -> None:
    build_file(data / "runs/7/b_0001.dlog.part", key=make_key(7, "b"), tail=b"\xa5" * 50)
    facts = look_at(data)
    facts.running = True
    report = verify_file(place_of(data / "runs/7/b_0001.dlog.part"), facts)
    assert (report.verdict, report.findings) == (Verdict.GOOD, [])


def test_a_part_that_was_closed_since_the_names_were_read_is_found_again(data: Path) -> None:
    facts = look_at(data)
    facts.running = True
    place = place_of(open_part(data))
    closed = build_run(data / "new", {"a": make_pieces(make_events(80), 10)})[-1]
    open_part(data).unlink()
    os.rename(closed.path, data / "runs/7/a_0003.dlog")
    assert closed.sidecar is not None
    os.rename(closed.sidecar, data / "runs/7/a_0003.dlog.json")
    report = verify_file(place, facts)
    assert report.path.endswith("a_0003.dlog")
    assert report.verdict is Verdict.GOOD


def test_catalogue_totals_are_compared(data: Path) -> None:
    known = look_at(data).snapshot
    assert known is not None
    key = make_key(7, "a", part=1)
    record = known.closed[key]
    wrong = msgspec.structs.replace(
        record, totals=msgspec.structs.replace(record.totals, events=31)
    )
    with LmdbJournal.open(data / "journal") as journal:
        journal.commit([(closed_file_key(key), encode_record(closed_file_key(key), wrong))])
    report = judged(data / "runs/7/a_0001.dlog")
    assert (report.verdict, kinds(report)) == (Verdict.DISAGREE, [FindingKind.CATALOGUE])
    assert "events 31 (in the file 30)" in report.findings[0].reason


def test_without_its_journal_a_data_directory_is_judged_by_its_files(tmp_path: Path) -> None:
    build_run(tmp_path, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    reports = list(verify(plan([tmp_path])))
    assert [r.verdict for r in reports] == [Verdict.GOOD] * 3
    assert "unknown" in reports[-1].acknowledgement


def test_verify_changes_nothing(data: Path) -> None:
    overwrite(open_part(data), PAGE_BYTES + 200, b"\xff")

    def everything() -> dict[Path, tuple[bytes, int]]:
        return {
            p: (p.read_bytes(), p.stat().st_mtime_ns)
            for p in data.rglob("*")
            if p.is_file() and p.name != "lock.mdb"
        }

    before = everything()
    list(verify(plan([data])))
    assert everything() == before


def test_several_threads_say_the_same_as_one_in_the_same_order(tmp_path: Path) -> None:
    for part in range(1, 9):
        built: BuiltFile = build_file(tmp_path / f"p_{part:04d}.dlog", key=make_key(7, "p",
                                      part=part))  # fmt: skip
        if part % 3 == 0:
            overwrite(built.path, PAGE_BYTES + 50, b"\xff")
    one, four = (list(verify(plan([tmp_path]), workers=n)) for n in (1, 4))
    assert one == four


def test_the_words_for_people_name_verdict_finding_and_notes(tmp_path: Path) -> None:
    built = build_file(tmp_path / "photons_0001.dlog.part", tail=b"\xa5" * 10)
    text = "\n".join(report_lines(judged(built.path)))
    assert "torn tail, 5 blocks, 50 events (1 to 50), open" in text
    assert "unknown whether acknowledged" in text


def test_a_data_directory_whose_second_part_is_gone_says_so(data: Path) -> None:
    facts = look_at(data)
    assert facts.snapshot is not None
    assert facts.snapshot.meta is not None
    meta = msgspec.structs.replace(
        facts.snapshot.meta, data=(*facts.snapshot.meta.data, str(data / "elsewhere"))
    )
    with LmdbJournal.open(data / "journal") as journal:
        journal.commit([(b"meta", encode_record(b"meta", meta))])
    reports = list(verify(plan([data])))
    assert Verdict.DAMAGED not in [report.verdict for report in reports]
    report = next(r for r in reports if r.path == str(data / "elsewhere"))
    assert report.verdict is Verdict.CANNOT_RUN
    assert isinstance(look_at(data), DataDirectory)


# --- which directories and journals -----------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """The data directories of a logger: stream a in the first, b in the second."""
    first, second = tmp_path / "site/first", tmp_path / "second"
    build_run(first, {"a": make_pieces(make_events(30), 10)})
    build_run(second, {"b": make_pieces(make_events(30), 10)})
    (second / MARK).write_text(LOGGER_UUID.hex() + "\n")
    rebuild(first, [second])
    return first, second


def told(*paths: Path) -> dict[str, Verdict]:
    reports = list(verify(plan(paths)))
    found = {Path(report.path).name: report.verdict for report in reports}
    assert len(found) == len(reports), "each once"
    return found


ALL_GOOD = {"journal": Verdict.GOOD, "a_0001.dlog": Verdict.GOOD, "b_0001.dlog": Verdict.GOOD}


def test_a_further_directory_is_judged_once_by_the_journal_of_the_first(
    two: tuple[Path, Path],
) -> None:
    first, second = two
    assert told(first) == told(first, second) == told(second, first) == ALL_GOOD
    assert told(first.parent) == ALL_GOOD, "a folder above it"
    assert told(second) == {"journal": Verdict.CANNOT_RUN, "b_0001.dlog": Verdict.GOOD}


def test_a_missing_file_is_told_from_its_folder_and_from_above(two: tuple[Path, Path]) -> None:
    first, _ = two
    (first / "runs/7/a_0001.dlog").unlink()
    assert told(first)["a_0001.dlog"] is Verdict.DAMAGED
    assert told(first.parent)["a_0001.dlog"] is Verdict.DAMAGED
    assert told(first / "runs/7")["a_0001.dlog"] is Verdict.DAMAGED


def test_a_lost_journal_is_not_good(two: tuple[Path, Path]) -> None:
    first, second = two
    shutil.rmtree(first / "journal")
    (first / "lock").unlink()  # that of the rebuild
    planned = plan([first])
    assert planned.reports == []
    assert "has no journal" in planned.remarks[0], "files that no logger lay beside"
    (first / "lock").touch()
    for paths in ([first], [first, second], [first / "runs/7"]):
        (report,) = (r for r in verify(plan(paths)) if r.path == str(first / "journal"))
        assert report.verdict is Verdict.CANNOT_RUN
        assert f"dlog journal rebuild {first}" in report.findings[0].reason
    (first / "runs/7/a_0001.dlog").unlink()
    assert told(first) == {"journal": Verdict.CANNOT_RUN}


def test_a_missing_sidecar_is_no_damage_and_is_made_again(two: tuple[Path, Path]) -> None:
    first, _ = two
    beside = first / "runs/7/a_0001.dlog.json"
    before = decode_sidecar(beside.read_bytes(), path="")
    beside.unlink()
    (report,) = (r for r in verify(plan([first])) if r.path.endswith("a_0001.dlog"))
    assert (report.verdict, report.verdict.exit_code) == (Verdict.NO_SIDECAR, 3)
    assert report.findings[0].acknowledged is Acknowledged.DERIVED
    run = CliRunner().invoke
    assert run(app, ["recover", str(first), "--sidecars", "--dry-run"]).exit_code == 3
    assert not beside.exists()
    done = run(app, ["recover", str(first), "--sidecars"])
    assert done.exit_code == 0
    assert "1 sidecars made, of 2 closed files" in done.stderr
    assert decode_sidecar(beside.read_bytes(), path="") == before
    assert run(app, ["recover", str(first)]).exit_code == 2
    # A renamed file gets none under that name, and the command does not advise itself.
    copy = first / "runs/7/copy.dlog"
    copy.write_bytes((first / "runs/7/a_0001.dlog").read_bytes())
    said = run(app, ["recover", str(copy), "--sidecars"])
    copy.unlink()
    assert "whole, no sidecar made: its name should be a_0001.dlog" in said.stdout
    assert "dlog recover" not in said.stdout
    # What is damaged gets none.
    beside.unlink()
    overwrite(first / "runs/7/a_0001.dlog", PAGE_BYTES + 200, b"\xff")
    assert run(app, ["recover", str(first), "--sidecars"]).exit_code == 3
    assert not beside.exists()


def test_a_part_that_was_closed_without_acknowledged_events_is_damaged(tmp_path: Path) -> None:
    built = build_file(tmp_path / "photons_0001.dlog", sealed="2 acknowledged events are lost")
    assert built.sidecar is not None
    said = decode_sidecar(built.sidecar.read_bytes(), path="")
    built.sidecar.write_bytes(
        encode_sidecar(msgspec.structs.replace(said, file_content_status="bad"))
    )
    report = judged(built.path)
    assert report.verdict is Verdict.DAMAGED
    assert "2 acknowledged events are lost" in report.findings[0].reason
