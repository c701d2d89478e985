"""Files of one stream in two data directories, without the journal: reader, verify, recover,
rebuild and the witness take each block once, whichever directory holds the part that tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import dlog
from dlog.cli.main import app
from dlog.core.data_directory import MARK
from dlog.errors import FormatError
from dlog.faults.simulation.files_alone import doubled_blocks
from dlog.reader import EventFile
from dlog.recovery.catalogue import catalogue
from dlog.recovery.journal import rebuild
from dlog.recovery.rebuild import Mode, Outcome, destinations, recover
from dlog.recovery.report import Acknowledged, FileReport, Verdict
from dlog.recovery.snapshot import read_journal
from dlog.recovery.verify import plan, verify
from tests.event_files import (
    LOGGER_UUID,
    BuiltFile,
    FileBuilder,
    SentEvent,
    build_run,
    make_events,
    make_key,
    make_pieces,
)

EVENTS = make_events(50)
SHORT, OPEN = "runs/7/photons_0001.dlog.part", "runs/7/photons_0002.dlog.part"


def add(file: FileBuilder, events: list[SentEvent]) -> None:
    """A block of each ten events; batch n holds events 10 n - 9 to 10 n."""
    begin = events[0].number - 1
    pieces = make_pieces(events, 10, first_sequence=begin // 10 + 1, first_position=begin)
    file.pieces(pieces, 10)


def first_part(events: list[SentEvent]) -> FileBuilder:
    file = FileBuilder(make_key())
    add(file, events)
    return file


def sealed(one: Path, other: Path) -> BuiltFile:
    """Part 1 was sealed after block 2; its successor has the blocks from 3 on."""
    before = first_part(EVENTS[:20])
    end = len(before.content)
    told = BuiltFile(Path(), before.key, before.header, tuple(before.blocks), end, end, None)
    add(before, EVENTS[20:40])
    following = FileBuilder(make_key(part=2), first_block=3, predecessor=told)
    add(following, EVENTS[20:])
    following.write(other / OPEN, closed=False)
    return before.write(one / SHORT, closed=False)


def away(one: Path, other: Path) -> BuiltFile:
    """Part 1 was away when the next boot began at block 3, in a part of its own."""
    before = first_part(EVENTS[:20])
    before.durable = len(before.content)
    add(before, EVENTS[20:40])
    following = FileBuilder(make_key(part=2), first_block=3, boot=2)
    add(following, EVENTS[20:])
    following.write(other / OPEN, closed=False)
    return before.write(one / SHORT, closed=False)


def away_twice(one: Path, other: Path) -> BuiltFile:
    """Part 1 holds blocks 1, 3 and 4, part 2 block 2. Two later boots began at block 3, in part 2,
    whose header is of the first boot; the first of them had nothing of it acknowledged either."""
    before = first_part(EVENTS[:10])
    before.next_number = 3
    before.durable = len(before.content)
    add(before, EVENTS[20:40])
    following = FileBuilder(make_key(part=2), first_block=2)
    add(following, EVENTS[10:20])
    following.boot = 3
    add(following, EVENTS[20:])
    following.write(other / OPEN, closed=False)
    third = FileBuilder(make_key(part=3), first_block=3, boot=2)
    third.next_number = 4
    add(third, EVENTS[30:40])
    third.write(one / "runs/7/photons_0003.dlog.part", closed=False)
    return before.write(one / SHORT, closed=False)


HISTORIES = pytest.mark.parametrize("history", [sealed, away, away_twice])
History = Callable[[Path, Path], BuiltFile]


def roots(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MARK).write_text(LOGGER_UUID.hex() + "\n")
    return tmp_path / "one", tmp_path / "other"


def kept_blocks(built: BuiltFile) -> int:
    """How many blocks of part 1 count: those of the first twenty events."""
    return sum(block.events[0].number <= 20 for block in built.blocks)


@HISTORIES
def test_a_reader_of_both_takes_each_block_once(tmp_path: Path, history: History) -> None:
    one, other = roots(tmp_path)
    history(one, other)
    folders = [one / "runs/7", other / "runs/7"]
    assert sorted(event.number for event in dlog.read(folders)) == list(range(1, 51))
    reader = dlog.read(folders)
    assert [event.number for event in reader.in_sent_order()] == list(range(1, 51))
    assert not reader.missing


@HISTORIES
def test_a_reader_of_one_file_knows_the_folders_of_the_others(
    tmp_path: Path, history: History
) -> None:
    one, other = roots(tmp_path)
    built = history(one, other)
    numbers = [e.number for e in dlog.read([built.path, other / OPEN])]
    assert sorted(numbers) == list(range(1, 51))
    alone = EventFile(built.path)
    if history is not away_twice:  # whose third part lies beside it
        assert alone.sealed_bytes is None
        assert alone.void_from is None


def reports_of(*paths: Path) -> dict[str, FileReport]:
    return {report.path: report for report in verify(plan(paths))}


@HISTORIES
def test_verify_of_both_counts_each_block_once(tmp_path: Path, history: History) -> None:
    one, other = roots(tmp_path)
    built = history(one, other)
    reports = reports_of(one, other)
    assert sum(report.events for report in reports.values()) == 50
    report = reports[str(built.path)]
    assert report.blocks == kept_blocks(built)
    if history is sealed:
        assert report.state == "sealed"
        assert report.acknowledgement == f"its successor {other / OPEN}"
    else:
        (finding,) = report.findings
        assert (finding.verdict, finding.acknowledged) == (Verdict.TORN, Acknowledged.NO)
        assert finding.begin == built.blocks[kept_blocks(built)].offset
        assert finding.blocks == (3, 4)
        assert finding.events == 20
        assert "a later start of the logger gave the block numbers from 3 on again" in (
            finding.reason
        )


def test_verify_of_one_says_that_another_directory_may_tell_more(tmp_path: Path) -> None:
    one, other = roots(tmp_path)
    built = sealed(one, other)
    words = "a part in another data directory may say that this one ends earlier"
    for paths, known in (([built.path], False), ([one], False), ([one, other], True)):
        told = CliRunner().invoke(app, ["verify", *map(str, paths)])
        # Of a directory without a journal nobody knows whether a file is missing.
        assert told.exit_code == (0 if paths == [built.path] else 1)
        assert (words in told.stderr) is not known


@HISTORIES
def test_recover_writes_each_block_once(tmp_path: Path, history: History) -> None:
    one, other = roots(tmp_path)
    built = history(one, other)
    output = tmp_path / "output"
    output.mkdir()
    jobs = destinations([one, other], plan([one, other]), output)
    made = list(recover(jobs, Mode.SALVAGE, all_of_them=True))
    assert {recovery.outcome for recovery in made} <= {Outcome.RECOVERED, Outcome.NOTHING}
    assert sum(recovery.blocks_kept for recovery in made) == 5
    assert sorted(e.number for e in dlog.read(output / "runs/7")) == list(range(1, 51))
    (mine,) = (recovery for recovery in made if recovery.source == str(built.path))
    if history is not sealed:
        assert [lost.blocks for lost in mine.lost] == [(3, 3), (4, 4)]


@HISTORIES
def test_rebuild_ends_the_part_where_the_others_say(tmp_path: Path, history: History) -> None:
    one, other = roots(tmp_path)
    built = history(one, other)
    report = rebuild(one, [other])
    assert report.problems == []
    assert report.events == 50
    record = read_journal(one / "journal").files[built.key]
    assert record.durable == built.blocks[kept_blocks(built)].offset
    assert {report.verdict for report in reports_of(one).values()} <= {Verdict.GOOD, Verdict.TORN}


def test_blocks_that_were_acknowledged_are_not_left_out_in_silence(tmp_path: Path) -> None:
    """A journal was rebuilt without the directory, and gave its numbers again."""
    one, other = roots(tmp_path)
    first_part(EVENTS[:40]).write(one / SHORT, closed=False)  # block 4 knows that 3 was
    following = FileBuilder(make_key(part=2), first_block=3, boot=2)
    add(following, EVENTS[20:])
    following.write(other / OPEN, closed=False)
    with pytest.raises(FormatError, match="stands also in"):
        list(dlog.read([one / "runs/7", other / "runs/7"]).in_sent_order())


@HISTORIES
def test_the_witness_of_the_simulation_sees_no_block_twice(
    tmp_path: Path, history: History
) -> None:
    both = roots(tmp_path)
    history(*both)
    contents = [
        {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in both
    ]
    assert doubled_blocks(contents) == []
    contents[1]["runs/7/photons_0009.dlog"] = contents[0][SHORT]
    assert doubled_blocks(contents) != []


def test_ls_tells_of_a_sealed_part_without_a_journal(tmp_path: Path) -> None:
    one, _ = roots(tmp_path)
    built = sealed(one, one)
    (run,) = catalogue(one).runs
    first = run.files[0]
    assert first.path == str(built.path)
    assert first.size_bytes == built.blocks[2].offset
    assert first.sealed == (
        f"its successor photons_0002.dlog.part goes on from byte {built.blocks[2].offset}"
    )
    assert run.files[1].sealed == ""


def test_cat_says_what_is_void(tmp_path: Path) -> None:
    one, other = roots(tmp_path)
    built = away(one, other)
    told = CliRunner().invoke(app, ["cat", str(one / "runs/7"), str(other / "runs/7")])
    assert told.exit_code == 0, told.output
    assert len(told.stdout.splitlines()) == 50
    assert f"nothing of bytes {built.blocks[2].offset} to {built.size} was read" in told.stderr
    assert "gave the block numbers from 3 on again" in told.stderr


def test_a_run_with_files_in_a_directory_that_is_away_is_not_said_to_be_whole(
    tmp_path: Path,
) -> None:
    # A whole stream lay there: no block number told that anything lacked.
    one, other = roots(tmp_path)
    build_run(one, {"a": make_pieces(EVENTS, 10)})
    build_run(other, {"b": make_pieces(EVENTS, 10)})
    build_run(one, {"a": make_pieces(EVENTS, 10)}, run=8)
    rebuild(one, [other])
    for command in ("cat", "verify"):
        assert CliRunner().invoke(app, [command, str(one / "runs/7")]).exit_code == 0
    other.rename(tmp_path / "unmounted")
    other.mkdir()
    for command in ("cat", "verify"):
        told = CliRunner().invoke(app, [command, str(one / "runs/7")])
        assert told.exit_code == 1, told.output
        words = " ".join(told.output.split())
        assert "2 files" in words
        assert str(other) in words
        assert CliRunner().invoke(app, [command, str(one / "runs/8")]).exit_code == 0
