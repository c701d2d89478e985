"""What `dlog recover` does: a new file or none; the source stays, nothing is overwritten."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dlog.adapters import data_files
from dlog.cli.main import app
from dlog.core.event_file import decode_file_header, decode_sidecar
from dlog.core.scan import SpanKind, scan
from dlog.errors import DiskFull
from dlog.limits import PAGE_BYTES
from dlog.recovery.facts import FileSource, look_at, place_of
from dlog.recovery.journal import rebuild
from dlog.recovery.judge import verify_file
from dlog.recovery.rebuild import Job, Mode, Outcome, Recovery, recover_file
from dlog.recovery.report import Verdict
from dlog.recovery.verify import Task
from tests.event_files import (
    BuiltFile,
    FileBuilder,
    build_file,
    build_run,
    make_events,
    make_key,
    make_pieces,
    overwrite,
)
from tests.recovery.damage import readable_events, sent_events


@pytest.fixture
def damaged(tmp_path: Path) -> BuiltFile:
    """Ten blocks; the fourth is damaged."""
    built = build_file(tmp_path / "photons_0001.dlog", events=100)
    overwrite(built.path, built.blocks[3].offset + 900, b"\xff\xff")
    return built


def recovered(built: BuiltFile, output: Path, mode: Mode = Mode.SALVAGE) -> Recovery:
    return recover_file(Job(Task(place_of(built.path), None), output.parent, output.name), mode)


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["recover", *map(str, arguments)])
    return result.exit_code, result.stdout + result.stderr


# --- what is kept -----------------------------------------------------------------------------


def test_salvage_keeps_every_intact_block_and_records_the_gap(
    damaged: BuiltFile, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "photons_0001.dlog"
    told = recovered(damaged, output)
    assert (told.outcome, told.verdict) == (Outcome.RECOVERED, Verdict.DAMAGED)
    assert told.gaps == [(4, 4)]
    kept = {b.number for b in damaged.blocks} - {4}
    assert readable_events(output) == sent_events(damaged, kept)
    report = verify_file(place_of(output))
    assert (report.verdict, report.state) == (Verdict.GOOD, "recovered")
    assert "1 block numbers are missing" in report.notes[0]


def test_a_prefix_stops_at_the_first_damage(damaged: BuiltFile, tmp_path: Path) -> None:
    output = tmp_path / "out" / "photons_0001.dlog"
    told = recovered(damaged, output, Mode.PREFIX)
    assert told.gaps == [(4, 10)]
    assert told.events_lost == 70
    assert readable_events(output) == sent_events(damaged, {1, 2, 3})


def test_blocks_keep_their_bytes_but_for_their_headers(damaged: BuiltFile, tmp_path: Path) -> None:
    output = tmp_path / "out" / "photons_0001.dlog"
    recovered(damaged, output)
    source = damaged.path.read_bytes()
    content = output.read_bytes()
    for number, block in enumerate(b for b in damaged.blocks if b.number != 4):
        at = PAGE_BYTES + number * PAGE_BYTES
        before = source[block.offset + 128 : block.offset + block.length]
        assert content[at + 128 : at + block.length] == before


def test_the_sidecar_says_how_the_file_came_to_be(damaged: BuiltFile, tmp_path: Path) -> None:
    output = tmp_path / "out" / "photons_0001.dlog"
    digest = hashlib.sha256(damaged.path.read_bytes()).hexdigest()
    recovered(damaged, output)
    sidecar = decode_sidecar(Path(f"{output}.json").read_bytes(), path="")
    assert sidecar.file_content_status == "recovered"
    told = sidecar.recovery
    assert told is not None
    assert told["source"] == "photons_0001.dlog"
    assert told["source_sha256"] == digest
    assert (told["blocks_kept"], told["events_kept"]) == (9, 90)
    assert (told["blocks_lost_at_most"], told["events_lost_known"]) == (1, 10)
    assert told["gaps"] == [[4, 4]]


def test_the_output_is_read_only_and_alone_in_its_folder(
    damaged: BuiltFile, tmp_path: Path
) -> None:
    output = tmp_path / "deep" / "er" / "photons_0001.dlog"
    recovered(damaged, output)
    assert stat.S_IMODE(output.stat().st_mode) == 0o444
    assert sorted(p.name for p in output.parent.iterdir()) == [
        "photons_0001.dlog", "photons_0001.dlog.json",
    ]  # fmt: skip


def test_an_open_file_becomes_a_closed_one(tmp_path: Path) -> None:
    built = build_file(tmp_path / "photons_0001.dlog.part", events=30, reserved_bytes=9000)
    output = tmp_path / "out.dlog"
    told = recovered(built, output)
    assert (told.outcome, told.verdict, told.gaps) == (Outcome.RECOVERED, Verdict.GOOD, [])
    assert readable_events(output) == sent_events(built)


def test_what_lies_behind_a_seal_is_not_recovered_twice(tmp_path: Path) -> None:
    file = FileBuilder(make_key())
    file.pieces(make_pieces(make_events(20), 10), 10)
    sealed = file.write(tmp_path / "photons_0001.dlog.part", closed=False)
    moved = make_pieces(make_events(10, first=21), 10, first_sequence=3)
    file.pieces(moved, 10)
    file.write(tmp_path / "photons_0001.dlog.part", closed=False)
    build_file(
        tmp_path / "photons_0002.dlog.part", key=make_key(part=2), pieces=moved, first_block=3,
        predecessor=sealed,
    )  # fmt: skip
    code, _ = run(tmp_path, "-o", tmp_path.parent / f"{tmp_path.name}-out")
    assert code == 0
    folder = tmp_path.parent / f"{tmp_path.name}-out"
    events = [e.number for p in sorted(folder.glob("*.dlog")) for e in readable_events(p)]
    assert events == list(range(1, 31))


def test_a_saved_tail_is_recovered_and_told_as_never_acknowledged(tmp_path: Path) -> None:
    built = build_file(tmp_path / "photons_0001.dlog.part", events=40)
    content = built.path.read_bytes()
    begin = built.blocks[2].offset
    tail = tmp_path / "quarantine" / f"7_photons_events_0001_{begin}_2.tail"
    tail.parent.mkdir()
    tail.write_bytes(content[:PAGE_BYTES] + bytes(begin - PAGE_BYTES) + content[begin:])
    told = recover_file(
        Job(Task(place_of(tail), None), tmp_path, "tail.dlog"), Mode.SALVAGE
    )  # fmt: skip
    assert told.outcome is Outcome.RECOVERED
    assert told.unacknowledged_events == 20
    assert readable_events(tmp_path / "tail.dlog") == sent_events(built, {3, 4})


def test_without_header_page_another_part_of_the_stream_tells_the_configuration(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "runs" / "7"
    built = build_file(folder / "photons_0001.dlog.part", events=30, first_block=1)
    build_file(folder / "photons_0002.dlog.part", key=make_key(part=2), events=30, first_block=4)
    overwrite(built.path, 0, bytes(PAGE_BYTES))
    output = tmp_path / "out" / "photons_0001.dlog"
    told = recovered(built, output)
    assert told.header_from == "another part"
    assert readable_events(output) == sent_events(built)
    assert verify_file(place_of(output)).verdict is Verdict.GOOD


# --- what is refused --------------------------------------------------------------------------


def test_source_and_destination_may_not_be_the_same(damaged: BuiltFile, tmp_path: Path) -> None:
    before = damaged.path.read_bytes()
    (tmp_path / "link.dlog").symlink_to(damaged.path)
    for output in (damaged.path, tmp_path / "link.dlog", tmp_path / "." / damaged.path.name):
        code, text = run(damaged.path, "-o", output)
        assert code == 1
        assert "the same" in text
    assert damaged.path.read_bytes() == before


def test_nothing_is_overwritten(damaged: BuiltFile, tmp_path: Path) -> None:
    output = tmp_path / "there.dlog"
    output.write_bytes(b"mine")
    assert run(damaged.path, "-o", output)[0] == 1
    assert output.read_bytes() == b"mine"
    sidecar = tmp_path / "other.dlog.json"
    sidecar.write_bytes(b"mine too")
    code, text = run(damaged.path, "-o", tmp_path / "other.dlog")
    assert code == 1
    assert "is there already" in text
    assert sidecar.read_bytes() == b"mine too"
    assert not (tmp_path / "other.dlog").exists()


def test_an_output_inside_the_source_is_refused(tmp_path: Path) -> None:
    build_run(tmp_path / "data", {"a": make_pieces(make_events(30), 10)}, last_open=True)
    code, text = run(tmp_path / "data", "-o", tmp_path / "data" / "out")
    assert code == 1
    assert "lies inside SRC" in text


def test_two_sources_of_one_name_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    one = build_file(tmp_path / "x" / "photons_0001.dlog.part")
    two = build_file(tmp_path / "y" / "photons_0001.dlog.part")
    code, text = run(one.path, two.path, "-o", tmp_path / "out")
    assert code == 1
    assert "would both be" in text
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_the_same_and_writes_nothing(damaged: BuiltFile, tmp_path: Path) -> None:
    output = tmp_path / "out" / "photons_0001.dlog"
    code, _ = run(damaged.path, "-o", output, "--dry-run")
    assert code == 3
    assert not output.parent.exists()
    job = Job(Task(place_of(damaged.path), None), output.parent, output.name)
    planned = recover_file(job, Mode.SALVAGE, dry_run=True)
    done = recover_file(job, Mode.SALVAGE)
    assert (planned.outcome, done.outcome) == (Outcome.PLANNED, Outcome.RECOVERED)
    assert (planned.blocks_kept, planned.gaps, planned.lost) == (
        done.blocks_kept, done.gaps, done.lost,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "outcome", "code"),
    [
        ("photons_0001.dlog.part", b"", "nothing", 4),
        ("photons_0001.dlog.part", b"\0" * 100, "nothing", 4),
        ("photons_0001.dlog", b"text, not events" * 500, "unsupported", 6),
        ("photons_0001.dlog", bytes(3 * PAGE_BYTES), "nothing", 3),
    ],
)
def test_where_there_is_nothing_to_keep_there_is_no_output(
    tmp_path: Path, name: str, content: bytes, outcome: str, code: int
) -> None:
    (tmp_path / name).write_bytes(content)
    output = tmp_path / "out.dlog"
    result = CliRunner().invoke(
        app, ["recover", "--json", str(tmp_path / name), "-o", str(output)]
    )  # fmt: skip
    assert json.loads(result.stdout)["outcome"] == outcome
    assert result.exit_code == code
    assert not output.exists()


# --- a disk that fails ------------------------------------------------------------------------


def test_a_full_disk_leaves_no_output_and_says_so(
    damaged: BuiltFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, offset: int, data: memoryview) -> None:
        if offset > 5 * PAGE_BYTES:
            raise DiskFull("No space left on device", path="output")

    monkeypatch.setattr(data_files.EventDataFile, "write", full)
    output = tmp_path / "out" / "photons_0001.dlog"
    told = recovered(damaged, output)
    assert (told.outcome, told.verdict) == (Outcome.FAILED, Verdict.CANNOT_RUN)
    assert "No space left" in told.reason
    assert list(output.parent.iterdir()) == []


def test_an_output_that_does_not_read_back_gets_no_name(
    damaged: BuiltFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = data_files.EventDataFile.write

    def flipping(self: data_files.EventDataFile, offset: int, data: memoryview) -> None:
        spoilt = bytearray(data)
        if offset == 2 * PAGE_BYTES:
            spoilt[700] ^= 1
        real(self, offset, memoryview(spoilt))  # type: ignore[arg-type]

    monkeypatch.setattr(data_files.EventDataFile, "write", flipping)
    output = tmp_path / "out" / "photons_0001.dlog"
    told = recovered(damaged, output)
    assert told.outcome is Outcome.FAILED
    assert "does not verify" in told.reason
    assert list(output.parent.iterdir()) == []


# --- a whole data directory -------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Run 7: part 1 damaged, part 2 good, part 3 open and torn; a tail in quarantine."""
    data = tmp_path / "data"
    built = build_run(data, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    overwrite(built[0].path, built[0].blocks[1].offset, bytes(512))
    content = built[-1].path.read_bytes()
    built[-1].path.write_bytes(content + content[PAGE_BYTES:][:3000])
    tail = data / "quarantine" / f"7_a_events_0003_{PAGE_BYTES}_2.tail"
    tail.parent.mkdir()
    tail.write_bytes(content)
    return data


def test_every_unfinished_or_damaged_file_of_a_data_directory_is_recovered(
    data: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, ["recover", "--json", str(data), "-o", str(tmp_path / "out")])
    assert result.exit_code == 3
    told = {Path(r["source"]).name: r["outcome"] for r in map(json.loads, _lines(result.stdout))}
    assert told == {
        "a_0001.dlog": "recovered", "a_0002.dlog": "left", "a_0003.dlog.part": "recovered",
        f"7_a_events_0003_{PAGE_BYTES}_2.tail": "recovered",
    }  # fmt: skip
    files = sorted(
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.dlog")
    )  # fmt: skip
    assert files == [
        f"quarantine/7_a_events_0003_{PAGE_BYTES}_2.tail.dlog", "runs/7/a_0001.dlog",
        "runs/7/a_0003.dlog",
    ]  # fmt: skip
    assert "3 recovered, 1 left; kept 6 blocks, 60 events" in result.stderr
    assert CliRunner().invoke(app, ["verify", str(tmp_path / "out")]).exit_code == 0


def test_recover_after_a_rebuild_keeps_what_the_journal_calls_a_tail(
    tmp_path: Path,
) -> None:
    """Its sources may be dead: what was never acknowledged is told, and kept."""
    data = tmp_path / "data"
    built = build_run(data, {"a": make_pieces(make_events(80), 10)}, last_open=True)[-1]
    rebuild(data)
    header = built.header
    more = FileBuilder(built.key, first_block=header.first_block, low=header.text.low)
    for block in built.blocks:
        more.block(block.entries, block.events)
    more.pieces(make_pieces(make_events(10, first=81), 10, first_sequence=9), 10)
    built.path.write_bytes(bytes(more.content))
    result = CliRunner().invoke(app, ["recover", "--json", str(data), "-o", str(tmp_path / "out")])
    assert result.exit_code == 5  # behind what was ever reserved
    told = next(
        r for r in map(json.loads, _lines(result.stdout)) if r.get("outcome") == "recovered"
    )
    assert told["unacknowledged_events"] == 10
    assert told["events_kept"] == 30


def _lines(text: str) -> Iterator[str]:
    return iter(text.splitlines())


def test_recovered_blocks_follow_each_other_by_the_chain(
    damaged: BuiltFile, tmp_path: Path
) -> None:
    output = tmp_path / "out.dlog"
    recovered(damaged, output)
    with FileSource(output) as source:
        report = verify_file(place_of(output))
        assert report.findings == []
        header = decode_file_header(source.header_page(), path="")
        found = list(scan(source, salt=header.salt, path="", chain=header.crc))
    assert {s.kind for s in found} == {SpanKind.BLOCK, SpanKind.INDEX, SpanKind.CLOSING}
    assert all(s.reason == "" for s in found)
    assert header.salt != damaged.header.salt
    assert os.path.getsize(output) == found[-1].end


def test_a_file_that_is_being_written_is_recovered_up_to_its_durable_offset(
    tmp_path: Path,
) -> None:
    """What is behind it comes again, or is not whole yet."""
    data = tmp_path / "data"
    built = build_run(data, {"a": make_pieces(make_events(80), 10)}, last_open=True)[-1]
    rebuild(data)
    header = built.header
    more = FileBuilder(built.key, first_block=header.first_block, low=header.text.low)
    for block in built.blocks:
        more.block(block.entries, block.events)
    more.pieces(make_pieces(make_events(10, first=81), 10, first_sequence=9), 10)
    built.path.write_bytes(bytes(more.content))
    facts = look_at(data)
    facts.running = True
    job = Job(Task(place_of(built.path), facts), tmp_path, "out.dlog")
    told = recover_file(job, Mode.SALVAGE)
    assert (told.outcome, told.verdict) == (Outcome.RECOVERED, Verdict.GOOD)
    assert readable_events(tmp_path / "out.dlog") == sent_events(built)
