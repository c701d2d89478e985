"""`dlog ls`, `dlog info`, `dlog cat`: what goes to stdout, what to stderr, and the exit codes."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dlog.adapters.journal import LmdbJournal
from dlog.cli.main import app
from dlog.core.event_file import Totals
from dlog.core.journal_records import (
    META,
    ClosedFileRecord,
    EndedRunRecord,
    FileRecord,
    JournalMeta,
    RunRecord,
    closed_file_key,
    encode_record,
    ended_run_key,
    file_key,
    run_key,
)
from dlog.core.states import FileState, RunState
from dlog.limits import PAGE_BYTES
from dlog.model.config import StreamConfig
from dlog.model.ids import FileKind, RunNumber, file_path
from dlog.quantities import moment
from dlog.recovery.catalogue import FileEntry, RunEntry, _with_files
from tests.event_files import (
    START_NS,
    BuiltFile,
    FileBuilder,
    Piece,
    build_file,
    build_orphans,
    build_run,
    make_events,
    make_key,
    make_pieces,
    overwrite,
)
from tests.rig.commands import CHECKOUT, dlog_command
from tests.waiting import LONG


def dlog(*arguments: object, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == exit_code, result.output
    return result


def run_of_two_streams(data: Path, run: int = 7) -> list[BuiltFile]:
    events = [e._replace(order=e.number) for e in make_events(60)]
    streams = {
        "photons": [Piece([e for e in events if e.number % 3], sequence=1)],
        "control": [Piece([e for e in events if e.number % 3 != 1], sequence=1)],
    }
    return build_run(data, streams, run=run, events_per_block=7)


RAW = b"".join(e.payload for e in make_events(60))


# --- cat ----------------------------------------------------------------------------------------


def test_cat_prints_a_line_an_event_in_the_order_sent(tmp_path: Path) -> None:
    run_of_two_streams(tmp_path)
    lines = dlog("cat", tmp_path / "runs/7").stdout.splitlines()
    assert [line.split()[3] for line in lines] == [str(n) for n in range(1, 61)]
    assert lines[1] == (
        "run 7  event 2  2023-11-14T22:13:20.000002000Z  control,photons  99 B  "
        "02 00 02 00 02 00 03 00 …"
    )


def test_cat_raw_gives_every_byte_back(tmp_path: Path) -> None:
    built = run_of_two_streams(tmp_path)
    assert dlog("cat", "--raw", tmp_path / "runs/7").stdout_bytes == RAW
    files = [file.path for file in built]
    assert dlog("cat", "--raw", *files).stdout_bytes == RAW
    only = dlog("cat", "--raw", "-s", "photons", tmp_path / "runs/7").stdout_bytes
    assert only == b"".join(e.payload for e in make_events(60) if e.number % 3)
    some = dlog("cat", "--raw", "-n", 2, tmp_path / "runs/7").stdout_bytes
    assert some == RAW[: len(some)]


def test_cat_json_gives_objects_and_payloads_where_they_are_wanted(tmp_path: Path) -> None:
    run_of_two_streams(tmp_path)
    out = dlog("cat", "--json", "--payload", tmp_path / "runs/7").stdout
    objects = [json.loads(line) for line in out.splitlines()]
    assert b"".join(base64.b64decode(o["payload"]) for o in objects) == RAW
    assert objects[1] | {"payload": ""} == {
        "run": 7, "number": 2, "time_ns": START_NS + 2000, "stream": "control",
        "streams": ["control", "photons"], "size": 99, "kind": "events",
        "session": b"session-A-------".hex(), "sequence": 1, "position": 2, "payload": "",
    }  # fmt: skip
    assert "payload" not in json.loads(dlog("cat", "--json", "-n1", tmp_path / "runs/7").stdout)


def test_cat_of_one_file_keeps_its_own_order(tmp_path: Path) -> None:
    events = make_events(4)
    swapped = Piece([e._replace(order=9 - e.number) for e in events])
    build_file(tmp_path / "x.dlog", pieces=[swapped])
    for order, numbers in ((), [1, 2, 3, 4]), (("--order", "sent"), [4, 3, 2, 1]):
        lines = dlog("cat", *order, tmp_path / "x.dlog").stdout.splitlines()
        assert [int(line.split()[3]) for line in lines] == numbers


def test_cat_of_a_run_with_blocks_missing_says_so_and_exits_1(tmp_path: Path) -> None:
    built = run_of_two_streams(tmp_path)
    lost = built[0]
    lost.path.unlink()
    result = dlog("cat", tmp_path / "runs/7", exit_code=1)
    first, last = lost.blocks[0].number, lost.blocks[-1].number
    assert f"stream photons: blocks {first} to {last} are in none of these files" in result.stderr
    assert len(result.stdout.splitlines()) < 60
    dlog("cat", *(file.path for file in built if file is not lost))


def test_cat_tells_a_torn_tail_and_exits_0(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog.part", events=20, tail=b"torn" * 100)
    result = dlog("cat", built.path)
    assert len(result.stdout.splitlines()) == 20
    ignored = f"nothing of bytes {built.data_end} to {built.data_end + 400} was read: torn"
    assert ignored in result.stderr


def test_cat_of_damage_gives_what_is_before_it_and_exits_1(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", events=30)
    overwrite(built.path, built.blocks[2].offset + 300, b"\xff\xff")
    result = dlog("cat", built.path, exit_code=1)
    assert len(result.stdout.splitlines()) == 20
    assert result.stderr.startswith(f"dlog: {built.path} at byte {built.blocks[2].offset}: ")


def test_cat_shows_what_a_file_says_as_text_alone(tmp_path: Path) -> None:
    built = build_orphans(tmp_path, [Piece(make_events(1), run=3, stream="photons")])
    line = dlog("cat", built.path).stdout
    assert "run 3  event 1 " in line
    assert "photons (orphan)" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.dlog"], "No such file"),
        (["."], "no event files in this folder"),
        (["empty.dlog"], "the file is empty"),
        (["text.dlog"], "not a dlog event file"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    if arguments != ["."]:
        (tmp_path / "empty.dlog").touch()
        (tmp_path / "text.dlog").write_text("hello")
    for command in ("cat", "info") if arguments != ["."] else ("cat",):
        result = dlog(command, *arguments, exit_code=1)
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("dlog: ")
        assert words in result.stderr
        assert result.stdout == ""


def test_what_excludes_each_other_is_a_usage_error(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog")
    dlog("cat", "--raw", "--json", built.path, exit_code=2)
    dlog("cat", "--payload", built.path, exit_code=2)
    dlog("cat", exit_code=2)
    dlog("cat", "--order", "none", built.path, exit_code=2)


def process(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(dlog_command(*arguments), cwd=CHECKOUT, **options)


def test_a_reader_that_has_enough_ends_cat_without_noise(tmp_path: Path) -> None:
    build_file(tmp_path / "x.dlog", events=20_000, events_per_block=5000, events_per_piece=5000)
    for arguments in (["cat"], ["cat", "--json"], ["cat", "--raw"]):
        child = process(
            *arguments, tmp_path / "x.dlog", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.read(10)
        child.stdout.close()
        assert child.stderr is not None
        assert child.stderr.read() == b""
        child.stderr.close()
        assert child.wait(LONG) == 0


def test_payloads_are_not_written_to_a_terminal_unless_forced(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", pieces=[Piece(make_events(1, size=3))])
    for force, expected in (([], 2), (["--force"], 0)):
        terminal, end = os.openpty()
        child = process("cat", "--raw", *force, built.path, stdout=end, stderr=subprocess.DEVNULL)
        assert child.wait(LONG) == expected
        os.close(end)
        os.close(terminal)


# --- info ---------------------------------------------------------------------------------------


def test_info_of_a_folder_says_that_it_is_one(tmp_path: Path) -> None:
    said = dlog("info", tmp_path, exit_code=1).stderr
    assert said == f"dlog: {tmp_path}: is a folder: no event file\n"


def test_info_tells_header_configuration_totals_blocks_and_sessions(tmp_path: Path) -> None:
    config = StreamConfig(compression="zstd", filter="delta", part_events=1000)
    built = build_file(
        tmp_path / "photons_0001.dlog", pieces=make_pieces(make_events(50), 7),
        events_per_block=10, config=config,
    )  # fmt: skip
    text = dlog("info", "--blocks", built.path).stdout
    for words in (
        "photons_0001.dlog  closed", "run                7", "compression = zstd",
        "part_events = 1000", "50, ", "1 to 50", "5 of them compressed", b"session-A-------".hex(),
        "1 to 8", "2023-11-14T22:13:20.000000000Z",
    ):  # fmt: skip
        assert words in text
    said = json.loads(dlog("info", "--json", "--blocks", built.path).stdout)
    assert said["state"] == "closed"
    assert said["header"]["config"]["filter"] == "delta"
    assert said["totals"]["events"] == said["closing"]["totals"]["events"] == 50
    assert [b["offset"] for b in said["blocks"]] == [b.offset for b in built.blocks]
    (session,) = said["sessions"]
    assert (session["events"], session["pieces"], session["last_sequence"]) == (50, 8, 8)
    assert said["sidecar"]["crc32c"]


def test_info_of_open_sealed_and_orphan_files(tmp_path: Path) -> None:
    opened = build_file(tmp_path / "a.dlog.part", events=20, tail=b"x" * 10)
    sealed = build_file(tmp_path / "b.dlog", events=20, sealed="disk on fire")
    orphans = build_orphans(tmp_path, [Piece(make_events(3), run=99, stream="gone")])
    assert f"tail               bytes {opened.data_end} to" in dlog("info", opened.path).stdout
    assert "disk on fire" in dlog("info", sealed.path).stdout
    one, other, third = (
        json.loads(line)
        for line in dlog(
            "info", "--json", opened.path, sealed.path, orphans.path
        ).stdout.splitlines()
    )
    assert (one["state"], one["tail"]["begin"]) == ("open", opened.data_end)
    assert (other["state"], other["totals"]["events"]) == ("sealed", 20)
    assert (third["sessions"][0]["run"], third["sessions"][0]["stream"]) == (99, "gone")


def test_info_of_a_damaged_file_tells_what_is_before_it_and_what_helps(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", events=30)
    overwrite(built.path, built.blocks[1].offset + 20, b"\xff\xff")
    result = dlog("info", built.path, exit_code=1)
    assert "damaged" in result.stdout
    assert "when closed        good" in result.stdout, "and not: its content is good"
    assert "10, " in result.stdout
    assert f"at byte {built.blocks[1].offset}" in result.stderr
    assert "dlog verify" in result.stderr
    said = json.loads(dlog("info", "--json", built.path, exit_code=1).stdout)
    assert (said["state"], said["totals"]["blocks"]) == ("damaged", 1)


# --- ls -----------------------------------------------------------------------------------------


def test_ls_without_a_journal_says_what_the_files_say(tmp_path: Path) -> None:
    run_of_two_streams(tmp_path)
    run_of_two_streams(tmp_path, run=12)
    build_orphans(tmp_path, [Piece(make_events(3), run=99, stream="gone")])
    (tmp_path / "runs/12/photons_0001.dlog.json").unlink()
    result = dlog("ls", tmp_path)
    assert "no journal" in result.stderr
    assert "run 7  80 events" in result.stdout
    assert "photons_0002.dlog" in result.stdout
    assert "orphan_0001.dlog" in result.stdout
    said = json.loads(dlog("ls", "-d", tmp_path, "--json", "--run", 12).stdout)
    assert [run["run"] for run in said["runs"]] == [12]
    assert said["runs"][0]["by_stream"]["control"] == 40
    first = next(f for f in said["runs"][0]["files"] if f["path"].endswith("photons_0001.dlog"))
    assert first["totals"] is None
    assert "no photons_0001.dlog.json" in first["problem"]
    assert said["journal"] is False


def test_ls_of_a_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    built = run_of_two_streams(Path())
    overwrite(built[0].path, 100, b"\xff")
    assert built[0].sidecar is not None
    built[0].sidecar.unlink()
    said = json.loads(dlog("ls", "--json", "runs/7").stdout)
    assert len(said["files"]) == len(built)
    assert sum("cannot be read" in f["problem"] for f in said["files"]) == 1
    assert str(built[1].path) in dlog("ls", "runs/7").stdout
    assert "no event files" in dlog("ls", "runs").stderr


def test_ls_asks_which_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dlog("ls", exit_code=2)
    dlog("ls", tmp_path, "-d", tmp_path, exit_code=2)
    dlog("ls", "nowhere", exit_code=1)
    run_of_two_streams(tmp_path / "data")
    assert "run 7" in dlog("ls").stdout


def journal_of(data: Path, *further: Path) -> None:
    """Run 6 ended with one closed file, run 7 active with an END, an OPEN and a sealed one."""
    totals = Totals(blocks=1, events=10, payload_bytes=1000, first_event=1, last_event=10)
    common: dict[str, Any] = {
        "directory": 0, "file_uuid": bytes(16), "created_ns": START_NS, "totals": totals,
    }  # fmt: skip
    changes: list[tuple[bytes, Any]] = [
        (META, JournalMeta(logger_uuid=bytes(16), name="d0", created_ns=START_NS,
                           data=tuple(str(p) for p in (data, *further)))),
        (run_key(RunNumber(7)), RunRecord(run=7, state=RunState.ACTIVE, streams={},
                                          started_ns=START_NS, comment="cosmics [two]")),
        (ended_run_key(RunNumber(6)), EndedRunRecord(run=6, state=RunState.ENDED, streams={},
                                                     started_ns=START_NS,
                                                     ended_ns=START_NS + 90 * 10**9)),
    ]  # fmt: skip
    closed = make_key(6)
    changes.append(
        (closed_file_key(closed), ClosedFileRecord(
            run=6, stream=closed.stream, kind=1, part=1, path=file_path(closed), size_bytes=20480,
            crc32c=1, closed_ns=START_NS, status="bad", reason="lost", **common)))  # fmt: skip
    for part, state, sealed in ((1, FileState.END, False), (2, FileState.OPEN, False),
                                (3, FileState.ERROR, True)):  # fmt: skip
        key = make_key(7, part=part)
        record = FileRecord(
            run=7, stream=key.stream, kind=1, part=part, state=state, path=file_path(key),
            salt=bytes(16), boot=1, durable=8192, reserved=65536, sealed=sealed,
            reason="EIO" if sealed else "", high=9 if state is FileState.END else -1, **common,
        )  # fmt: skip
        changes.append((file_key(key), record))
        part_file = data / (file_path(key) + ".part")
        part_file.parent.mkdir(parents=True, exist_ok=True)
        part_file.touch()
        os.truncate(part_file, 65536)
    data.mkdir(parents=True, exist_ok=True)
    journal = LmdbJournal.create(data / "journal")
    journal.commit([(key, encode_record(key, record)) for key, record in changes])
    journal.close()


def test_ls_has_the_streams_in_the_order_of_the_configuration() -> None:
    files = [FileEntry(path=name, run=1, stream=name) for name in ("a", "b", "c", "z")]
    run = _with_files(RunEntry(run=1), files, order=["z", "b"])
    assert [file.stream for file in run.files] == ["z", "b", "a", "c"]
    assert list(run.by_stream) == ["z", "b", "a", "c"]


def test_ls_with_a_journal_says_what_the_journal_says(tmp_path: Path) -> None:
    journal_of(tmp_path)
    result = dlog("ls", "-d", tmp_path)
    assert result.stderr == ""
    began = moment(1_700_000_000 * 10**9)
    assert f"run 6  ENDED  {began}  for 1 min 30 s  10 events" in result.stdout
    assert f"run 7  ACTIVE  {began}  30 events  2.9 KiB  cosmics [two]" in result.stdout
    assert "sealed: EIO" in result.stdout
    said = json.loads(dlog("ls", tmp_path, "--json").stdout)
    assert said["journal"] is True
    ended, active = said["runs"]
    assert (ended["files"][0]["state"], ended["files"][0]["status"]) == ("CLOSED", "bad")
    assert [f["state"] for f in active["files"]] == ["END", "OPEN", "ERROR"]
    assert active["files"][0]["path"] == str(tmp_path / "runs/7/photons_0001.dlog.part")


def test_ls_does_not_count_events_that_are_not_there(tmp_path: Path) -> None:
    journal_of(tmp_path)
    os.truncate(tmp_path / "runs/7/photons_0002.dlog.part", 4096)
    (tmp_path / "runs/7/photons_0001.dlog.part").unlink()
    result = dlog("ls", "-d", tmp_path)
    assert "run 7  ACTIVE  2023-11-14 22:13:20 +00:00  10 events" in result.stdout
    assert "it has 4096 bytes, 8192 were acknowledged" in result.stdout
    said = json.loads(dlog("ls", tmp_path, "--json").stdout)
    assert [f["totals"] is None for f in said["runs"][1]["files"]] == [True, True, False]


def test_ls_without_a_journal_says_that_a_fault_sealed_a_part(tmp_path: Path) -> None:
    builder = FileBuilder(make_key(7))
    builder.pieces(make_pieces(make_events(30), 10), 10)
    path = tmp_path / "runs/7/photons_0001.dlog.part"
    built = builder.write(path, closed=False, sealed="EIO", tail=b"moved to the next part" * 999)
    (entry,) = json.loads(dlog("ls", tmp_path, "--json").stdout)["runs"][0]["files"]
    assert (entry["state"], entry["sealed"]) == ("ERROR", "EIO")
    assert (entry["totals"]["events"], entry["size_bytes"]) == (30, built.data_end)


def test_ls_with_a_broken_journal_falls_back_to_the_files_and_says_so(tmp_path: Path) -> None:
    journal_of(tmp_path)
    run_of_two_streams(tmp_path)
    (tmp_path / "journal" / "data.mdb").write_bytes(b"\xff" * 3 * PAGE_BYTES)
    result = dlog("ls", tmp_path)
    assert "journal rebuild" in result.stderr
    assert "run 7  80 events" in result.stdout


def test_cat_finds_what_lies_in_the_loggers_other_directories(tmp_path: Path) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    built = run_of_two_streams(one)
    journal_of(one, other)
    for file in built[::2]:
        place = other / file.path.relative_to(one)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.path.rename(place)
    assert dlog("cat", "--raw", one / "runs/7").stdout_bytes == RAW
    (one / "journal" / "data.mdb").write_bytes(b"junk")
    result = dlog("cat", "--raw", one / "runs/7", exit_code=1)
    assert "only this directory is read" in result.stderr


def test_garbage_is_listed_behind_its_stream(tmp_path: Path) -> None:
    streams = {"photons": make_pieces(make_events(60), 10)}
    build_run(tmp_path, streams, garbage_blocks={"photons": 1})
    said = json.loads(dlog("ls", "--json", tmp_path).stdout)
    assert [(f["kind"], f["part"]) for f in said["runs"][0]["files"]] == [
        ("events", 1), ("events", 2), ("garbage", 1),
    ]  # fmt: skip
    assert FileKind.GARBAGE == 2
