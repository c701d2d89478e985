"""Which files in a folder are those of its run, and what becomes of everything else there: the
same for each reader."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

import dlog
from dlog.cli.main import app
from dlog.core.data_directory import MARK
from dlog.reader.run_folder import own_files
from dlog.recovery.catalogue import catalogue, run_entry
from dlog.recovery.facts import look_at
from dlog.recovery.journal import rebuild
from dlog.recovery.report import FindingKind, Verdict
from dlog.recovery.verify import plan, verify
from tests.event_files import LOGGER_UUID, build_run, make_events, make_pieces

OWN = ["a_0001.dlog", "a_0002.dlog", "a_0003.dlog.part"]
EVENTS = 80


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Run 7 with parts 1 to 3 of stream a, the last one open, and no journal."""
    build_run(tmp_path, {"a": make_pieces(make_events(EVENTS), 10)}, last_open=True)
    return tmp_path / "runs/7"


def litter(run: Path) -> set[str]:
    """What people and programs leave in a folder of files; their names."""
    before = set(os.listdir(run))
    for name in ("a_0001 copy.dlog", "backup.dlog", "a_0009.dlog"):
        shutil.copy(run / "a_0001.dlog", run / name)
    build_run(run.parent.parent / "other", {"a": make_pieces(make_events(5), 5)}, run=8)
    shutil.copy(run.parent.parent / "other/runs/8/a_0001.dlog", run / "of_run_8.dlog")
    shutil.rmtree(run.parent.parent / "other")
    build_run(
        run.parent.parent / "other", {"b": make_pieces(make_events(5), 5)}, logger_uuid=b"x" * 16
    )
    shutil.copy(run.parent.parent / "other/runs/7/b_0001.dlog", run / "b_0001.dlog")
    shutil.rmtree(run.parent.parent / "other")
    (run / "a_0001.dlog~").write_text("an editor's")
    (run / "notes.dlog").write_text("no event file")
    (run / "old").mkdir()
    shutil.copy(run / "a_0002.dlog", run / "old")
    os.mkfifo(run / "pipe.dlog")
    os.symlink("nowhere", run / "dangling.dlog")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(run / "s.dlog"))
    return set(os.listdir(run)) - before


def test_copies_and_foreign_files_are_named_and_no_reader_takes_them(run: Path) -> None:
    foreign = litter(run)
    data = run.parent.parent

    own, left = own_files([run])
    assert [path.name for path in own] == OWN
    assert {out.name: out.reason for out in left} == {
        "a_0001 copy.dlog": "a copy of a_0001.dlog",
        "a_0009.dlog": "a copy of a_0001.dlog",
        "backup.dlog": "a copy of a_0001.dlog",
        "of_run_8.dlog": "of run 8",
        "b_0001.dlog": "of another logger, test-logger",
        "a_0001.dlog~": "no event file by its name",
        "notes.dlog": "no event file by its name, and its header does not hold",
        "old": "a folder",
        "pipe.dlog": "a pipe",
        "dangling.dlog": "a link that leads nowhere",
        "s.dlog": "a socket",
    }

    events = dlog.read(run)
    assert len(list(events)) == EVENTS
    assert len(list(events.in_sent_order())) == EVENTS
    assert events.missing == []
    assert {out.name for out in events.left_out} == foreign

    listed = run_entry(run)
    assert [Path(file.path).name for file in listed.files] == OWN
    assert len(listed.left) == len(foreign)
    assert [Path(f.path).name for f in catalogue(data).runs[0].files] == OWN

    for place in (run, data):
        reports = list(verify(plan([place])))
        files = [report for report in reports if report.state != "directory"]
        assert [Path(report.path).name for report in files] == OWN
        assert {report.verdict for report in reports} == {Verdict.GOOD}
        (notes,) = (report.notes for report in reports if report.state == "directory")
        assert len(notes) == len(foreign)

    told = CliRunner().invoke(app, ["recover", str(data), "-o", str(data / "../out"), "--dry-run"])
    assert told.exit_code == 0
    assert "2 left, 1 planned" in told.stderr

    rebuilt = rebuild(data)
    assert rebuilt.problems == []
    assert (rebuilt.open_files, rebuilt.closed_files, rebuilt.events) == (1, 2, EVENTS)
    assert len(rebuilt.notes) == len(foreign)
    # With its journal, too.
    assert {report.verdict for report in verify(plan([data]))} == {Verdict.GOOD}


def test_a_renamed_file_without_a_copy_is_read_and_its_name_is_a_finding(run: Path) -> None:
    (run / "a_0002.dlog").rename(run / "second.dlog")
    assert len(list(dlog.read(run))) == EVENTS
    found = {Path(r.path).name: [f.kind for f in r.findings] for r in verify(plan([run]))}
    assert FindingKind.NAME in found["second.dlog"]


def test_what_the_journal_knows_is_judged_whatever_lies_there(run: Path) -> None:
    data = run.parent.parent
    rebuild(data)
    (run / "a_0002.dlog").unlink()
    os.mkfifo(run / "a_0002.dlog")
    os.chmod(run / "a_0001.dlog", 0o644)
    reports = {Path(r.path).name: r.verdict for r in verify(plan([data]))}
    assert reports["a_0002.dlog"] is Verdict.CANNOT_RUN
    (run / "a_0002.dlog").unlink()
    shutil.copy(run / "a_0001.dlog", run / "a_0002.dlog")
    reports = {Path(r.path).name: r.verdict for r in verify(plan([data]))}
    assert reports["a_0002.dlog"] is not Verdict.GOOD


def test_a_copy_in_the_other_directory_of_the_run_is_not_read_twice(
    run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "second/runs/7"
    other.mkdir(parents=True)
    shutil.copy(run / "a_0001.dlog", other)
    events = dlog.read([run, other, run / "a_0002.dlog"])
    assert len(list(events.in_sent_order())) == EVENTS
    assert [out.reason for out in events.left_out] == [f"a copy of {run}/a_0001.dlog"]


def test_a_pipe_in_place_of_a_sidecar_holds_up_no_reader(run: Path) -> None:
    (run / "a_0001.dlog.json").unlink()
    os.mkfifo(run / "a_0001.dlog.json")
    assert len(list(dlog.read(run))) == EVENTS
    assert look_at(run.parent.parent).survey().left == []


def test_folders_of_two_loggers_are_read_together(run: Path, tmp_path: Path) -> None:
    build_run(
        tmp_path / "other", {"b": make_pieces(make_events(5), 5)}, logger_uuid=b"x" * 16, run=8
    )
    for root, uuid in ((run.parent.parent, LOGGER_UUID), (tmp_path / "other", b"x" * 16)):
        (root / MARK).write_text(f"{uuid.hex()}\n")
    events = dlog.read([run, tmp_path / "other/runs/8"])
    assert events.left_out == []
    assert len(list(events)) == EVENTS + 5


def test_what_the_journal_knows_is_judged_under_a_relative_path(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = run.parent.parent
    rebuild(data)
    build_run(data / "other", {"a": make_pieces(make_events(5), 5)}, run=8)
    os.replace(data / "other/runs/8/a_0001.dlog", run / "a_0002.dlog")
    monkeypatch.chdir(data)
    for place in (run, Path("runs/7"), Path(), data):
        reports = {Path(r.path).name: r.verdict for r in verify(plan([place]))}
        assert reports["a_0002.dlog"] is not Verdict.GOOD, place


def test_what_is_left_of_a_creation_does_not_stand_for_the_part_in_the_other_directory(
    run: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first/runs/7"
    first.mkdir(parents=True)
    (first / "a_0003.dlog.part").write_bytes(bytes(8192))
    for root in (run.parent.parent, tmp_path / "first"):
        (root / MARK).write_text(f"{LOGGER_UUID.hex()}\n")
    events = dlog.read([first, run])
    assert len(list(events)) == EVENTS
    assert [out.name for out in events.left_out] == ["a_0003.dlog.part"]
