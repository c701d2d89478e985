"""A user who may read some of a data directory and write to none of it: no command calls healthy
files damaged, or tells anybody to rebuild a journal that it could not see."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from dlog.core.data_directory import MARK
from dlog.limits import MIB
from dlog.recovery.journal import rebuild
from tests.event_files import LOGGER_UUID, build_run, make_events, make_pieces
from tests.rig.commands import dlog_command, environment, obeying_permissions, run_dlog, run_python
from tests.rig.filesystems import remount, small_disk
from tests.waiting import LONG

COMMANDS = (
    ("verify", "DATA"), ("verify", "DATA/runs/7"), ("ls", "DATA"), ("ls", "DATA/runs/7"),
    ("info", "DATA/runs/7/a_0001.dlog"), ("cat", "-n", "1", "DATA/runs/7"),
    ("journal", "check", "DATA"), ("recover", "DATA", "-o", "DATA/../out", "--dry-run"),
    ("recover", "DATA", "--sidecars", "--dry-run"), ("journal", "rebuild", "DATA", "--dry-run"),
)  # fmt: skip
_RUN = """
import json, sys
from typer.testing import CliRunner
from dlog.cli.main import app
for command in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, command)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    print(json.dumps([" ".join(command[:2]), done.exit_code, done.output]))
"""
# What nobody may say of files that it could not see.
WRONG = ("DAMAGED", "DISAGREES", "dlog journal rebuild", "is not there", "Traceback")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A healthy data directory: stream a in the first directory, b in the second."""
    data, second = tmp_path / "data", tmp_path / "second"
    build_run(data, {"a": make_pieces(make_events(80), 10)}, last_open=True)
    build_run(second, {"b": make_pieces(make_events(80), 10)})
    (second / MARK).write_text(LOGGER_UUID.hex() + "\\n")
    rebuild(data, [second])
    for name in ("lock", "logger.json"):
        (data / name).write_text("{}")
    return data


def said(data: Path, tracer: list[str]) -> dict[str, tuple[int, str]]:
    commands = [[word.replace("DATA", str(data)) for word in command] for command in COMMANDS]
    lines = run_python(_RUN, json.dumps(commands), tracer=tracer)
    assert lines[-1] == "exit 0", lines
    return {f"{name}": (code, text) for name, code, text in map(json.loads, lines[:-1])}


FOLDERS = ("data", "data/journal", "data/runs", "data/runs/7", "second", "second/runs")
FILES = (
    "data/journal/data.mdb", "data/journal/lock.mdb", "data/runs/7/a_0001.dlog",
    "data/runs/7/a_0001.dlog.json", "data/runs/7/a_0003.dlog.part", "data/logger.json", "data/lock",
    f"second/{MARK}",
)  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(
    ("shut", "mode"),
    [
        *((name, mode) for name in FOLDERS for mode in (0o000, 0o444, 0o111)),
        *((name, 0o000) for name in FILES),
    ],
)
def test_what_cannot_be_read_is_not_checked_and_never_damaged(
    data: Path, shut: str, mode: int
) -> None:
    prefix = obeying_permissions()
    (data.parent / shut).chmod(mode)
    for command, (code, text) in said(data, prefix).items():
        assert code in (0, 1), f"{command}: {code} {text}"
        assert not [word for word in WRONG if word in text], f"{command}: {text}"
        if code == 0 and command.startswith("verify"):
            assert "COULD NOT" not in text


@pytest.mark.long
def test_readers_need_no_write_access_and_make_no_file(data: Path) -> None:
    prefix = obeying_permissions()
    for path in (data, *data.rglob("*"), data.parent / "second"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (data / "journal").chmod(0o755)
    (data / "journal/lock.mdb").unlink()
    (data / "journal").chmod(0o555)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    for command, (code, text) in said(data, prefix).items():
        assert code == 0, f"{command}: {code} {text}"
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


@pytest.mark.long
def test_a_sidecar_that_cannot_be_written_leaves_a_file_that_was_checked(data: Path) -> None:
    prefix = obeying_permissions()
    beside = data / "runs/7/a_0001.dlog.json"
    beside.unlink()
    (data / "runs/7").chmod(0o555)
    command = json.dumps([["recover", str(data), "--sidecars"]])
    _, code, text = json.loads(run_python(_RUN, command, tracer=prefix)[0])
    assert (code, "COULD NOT" in text) == (3, False), text
    assert f"whole, no sidecar made: {beside}: Permission denied" in text


@pytest.mark.long
def test_a_resume_of_what_may_not_be_read_is_no_wrong_usage(
    data: Path,
) -> None:
    prefix = obeying_permissions()
    data.chmod(0)
    command = json.dumps([["resume", "-d", str(data)]])
    _, code, text = json.loads(run_python(_RUN, command, tracer=prefix)[0])
    assert (code, "Permission denied" in text) == (1, True), text


@pytest.mark.long
def test_a_rebuild_on_a_read_only_mount_does_not_ask_for_another_user(tmp_path: Path) -> None:
    with small_disk(tmp_path, 4 * MIB, kind="tmpfs") as disk:
        build_run(disk / "data", {"a": make_pieces(make_events(80), 10)})
        remount(disk, "ro")
        done = run_dlog("journal", "rebuild", disk / "data")
        assert (done.returncode, done.stderr.decode()) == (
            1, f"dlog: no lock can be taken: {disk}/data/lock: Read-only file system\n",
        )  # fmt: skip


@pytest.mark.long
def test_the_exit_code_is_the_verdict_also_where_the_reader_went_away(data: Path) -> None:
    with (data / "runs/7/a_0001.dlog").open("r+b") as file:
        file.seek(5000)
        file.write(b"XXXX")
    for command in (
        ("verify", data), ("verify", "--json", data),
        ("recover", data, "-o", data.parent / "out"), ("recover", data, "--sidecars"),
    ):  # fmt: skip
        code, words = _into_a_closed_pipe(command)
        assert code == 3, f"{command}: {code} {words}"
        assert "Traceback" not in words
        assert "Exception ignored" not in words
    assert (data.parent / "out/runs/7/a_0001.dlog").is_file(), "the work is done to its end"
    shutil.rmtree(data / "journal")
    for command in (("journal", "check", data), ("verify", data)):
        assert _into_a_closed_pipe(command)[0] == 1
    (data / "runs/7/a_0002.dlog").unlink()
    assert _into_a_closed_pipe(("cat", "--json", data / "runs/7"))[0] == 1


def _into_a_closed_pipe(command: tuple[str | Path, ...]) -> tuple[int, str]:
    """Its exit code and words, with a stdout that nobody reads."""
    ours, its = socket.socketpair()
    ours.close()
    with its:
        done = subprocess.run(
            dlog_command(*command), stdout=its, stderr=subprocess.PIPE, text=True,
            env=environment(), timeout=LONG, check=False,
        )  # fmt: skip
    return done.returncode, done.stderr


def test_a_data_directory_without_its_journal_is_said_to_be_and_is_not_good(data: Path) -> None:
    shutil.rmtree(data / "journal")
    shutil.rmtree(data / "runs/7")
    done = run_dlog("verify", data)
    assert done.returncode == 1
    assert b"there is no journal" in done.stdout
    assert f"dlog journal rebuild {data}".encode() in done.stdout
