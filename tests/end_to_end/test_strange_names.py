"""Terminals that are not UTF-8, and names that are no text or move the cursor: each command says
something readable, and none ends in an error for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.rig.commands import dlog_command, environment
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.waiting import LONG

pytestmark = pytest.mark.long

CONFIGURATION = f"{QUICK_INIT}\n[streams.s]\n"
COMMENT = "Überlauf – μ 🚀 [bold]"
ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TERMINALS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "LANG": "C"},
    "C without UTF-8": ASCII,
}
READING = ("ls", "verify", "journal check", "journal rebuild --dry-run")


def run(command: str, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [*dlog_command(*command.split()), *map(str, arguments)], stdin=subprocess.DEVNULL,
        capture_output=True, timeout=LONG, env={**environment(), **env}, check=False,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    return done


def with_a_run(logger: LoggerProcess) -> Path:
    """A file of an ended run with two events."""
    logger.do("START RUN", {"run": 1, "comment": COMMENT})
    text = logger.folder / "in.txt"
    text.write_text("a\nb\n")
    sent = run(
        "send", text, "--run", "1", "--stream", "s", "-d", logger.data, "--state",
        logger.folder / "state",
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    logger.stop_run(1)
    return logger.files(1)[0]


@pytest.mark.parametrize("terminal", TERMINALS)
def test_each_command_speaks_on_a_terminal_that_is_not_utf8(
    new_logger: NewLogger, terminal: str
) -> None:
    env = TERMINALS[terminal]
    logger = new_logger(CONFIGURATION).start(env={**environment(), **env})
    file = with_a_run(logger)
    logger.do("START RUN", {"run": 2, "comment": COMMENT})
    for command in ("--help", "status --help", "coor --help"):
        assert run(command, **env).returncode == 0
    for command in ("status", "coor status"):
        assert run(command, "-d", logger.data, **env).returncode == 0
    for command in ("info", "cat", "verify"):
        assert run(command, file, **env).returncode == 0
    assert run("ls", logger.data, **env).returncode == 0
    documents = [
        run("ls", "--json", logger.data, **env),
        run("coor status", "--json", "-d", logger.data, **env),
    ]
    for document in documents:
        assert COMMENT in json.dumps(json.loads(document.stdout), ensure_ascii=False)
    assert (
        run("coor start-run", "3", "--comment", COMMENT, "-d", logger.data, **env).returncode == 0
    )
    assert logger.run_status(3).comment == COMMENT
    logger.stop()


@pytest.mark.parametrize("option", ["--comment", "--reason"])
def test_a_text_in_another_encoding_is_refused_with_its_byte(
    new_logger: NewLogger, option: str
) -> None:
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(1)
    command = "coor start-run" if option == "--comment" else "coor abort-run"
    done = run(command, "1", option, os.fsdecode(b"caf\xe9"), "-d", logger.data)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"dlog: {option[2:]} 'caf\\udce9': byte 0xe9 is not UTF-8".encode()
    )
    logger.stop()


def test_a_data_directory_may_have_any_name_that_is_text(new_logger: NewLogger) -> None:
    configuration = f'[logger]\ndata = ["data"]\n{CONFIGURATION}'
    logger = new_logger(configuration, name="d 'q\" %s {0} $X\n[bold]x\x1b[31m ü").start()
    file = with_a_run(logger)
    for command in READING[:2]:
        done = run(command, logger.data)
        assert done.returncode == 0
        assert b"\x1b" not in done.stdout + done.stderr
    assert run("info", file).returncode == run("cat", file).returncode == 0
    assert b"\x1b" not in run("status", "-d", logger.data).stdout
    logger.stop()
    for command in READING:
        assert run(command, logger.data).returncode == 0


def test_a_copy_whose_path_is_no_text_is_read(new_logger: NewLogger, tmp_path: Path) -> None:
    logger = new_logger(CONFIGURATION).start()
    with_a_run(logger)
    logger.stop()
    copy = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(logger.data, copy, ignore=shutil.ignore_patterns("*.sock"))
    for command in READING[:3]:
        assert run(command, copy).returncode == 0
        assert run(f"{command} --json", copy).returncode == 0
    file = copy / "runs/1/s_0001.dlog"
    assert run("info", file).returncode == 0
    assert json.loads(run("info --json", file).stdout)["path"] == str(file)
    assert run("recover", file, "-o", copy / "out.dlog").returncode == 0
    refused = run("journal rebuild", copy)
    assert refused.returncode == 1
    assert b"caf\\xe9: byte 0xe9 in the path is not UTF-8" in refused.stderr


def test_a_new_data_directory_whose_path_is_no_text_is_refused(tmp_path: Path) -> None:
    data = tmp_path / os.fsdecode(b"caf\xe9")
    done = run("create", data)
    assert done.returncode == 1
    assert b"byte 0xe9 in the path is not UTF-8; a data directory needs another name" in done.stderr
    assert not data.exists()


def test_a_file_whose_name_is_no_text_is_sent(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(1)
    file = logger.folder / os.fsdecode(b"caf\xe9.txt")
    file.write_text("a\nb\n")
    where = ["--run", "1", "--stream", "s", "-d", logger.data, "--state", logger.folder / "state"]
    assert run("send", file, *where).returncode == 0
    assert run("send", file, *where).returncode == 0  # sent before
    logger.stop()
