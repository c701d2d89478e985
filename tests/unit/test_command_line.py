"""What holds for every command alike: exit codes, help, suggestions, interrupts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from dlog import errors
from dlog.cli.exit_codes import MEANINGS, OF_COMMAND, exit_codes_of
from dlog.cli.main import COMMANDS, app
from dlog.recovery.report import Verdict
from tests.rig.commands import CHECKOUT, dlog_command, environment
from tests.waiting import LONG, until


def run(*arguments: str | Path) -> Result:
    return CliRunner(env={"NO_COLOR": "1", "COLUMNS": "80"}).invoke(app, list(map(str, arguments)))


def commands() -> dict[str, Any]:
    """Every command by its words, of groups too."""
    context = typer.Context(typer.main.get_command(app))  # type: ignore[arg-type]
    found: dict[str, Any] = {}

    def add(words: str, command: Any) -> None:
        if not getattr(command, "commands", None) or command.invoke_without_command:
            found[words] = command
        for name, each in getattr(command, "commands", {}).items():
            add(f"{words} {name}", each)

    for name in COMMANDS:
        add(name, context.command.get_command(context, name))  # type: ignore[attr-defined]
    return found


# --- exit codes ----------------------------------------


def test_each_command_has_its_exit_codes() -> None:
    assert set(commands()) == set(OF_COMMAND)


@pytest.mark.parametrize("words", OF_COMMAND)
def test_the_help_tells_each_exit_code(words: str) -> None:
    said = run(*words.split(), "--help").output
    told = said[said.index("Exit codes:") :]
    assert set(re.findall(r"^ +(\d+) ", told, re.M)) == set(map(str, exit_codes_of(words)))
    assert {0, 1, 2, 130} <= set(exit_codes_of(words))


def test_each_code_of_an_error_or_a_verdict_has_its_meaning() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.DlogError)}
    assert codes | {verdict.exit_code for verdict in Verdict} <= set(MEANINGS)


def test_the_readme_tells_each_exit_code() -> None:
    text = (CHECKOUT / "README.md").read_text()
    table = text[text.index("## Exit codes") : text.index("## The house")]
    told = {int(n) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for n in row.split(",")}
    assert told == set(MEANINGS)


NOTHING = "nothing-here"
MISTAKES: dict[str, tuple[int, list[list[str]]]] = {
    "no such file or directory": (1, [
        ["info", NOTHING], ["cat", NOTHING], ["verify", NOTHING], ["recover", NOTHING, "-o", "x"],
        ["ls", NOTHING], ["ls", "-d", NOTHING], ["journal", "check", NOTHING],
        ["journal", "rebuild", NOTHING], ["status", "-d", NOTHING], ["bench", "--dir", NOTHING],
        ["faults", "run", "--dir", NOTHING], ["send", NOTHING, "--run", "1", "-d", "."],
        ["send", "file", "--run", "1", "-d", NOTHING],
        *([["coor", name, "-d", NOTHING] for name in ("status", "stop")]),
        *([["coor", name, "1", "-d", NOTHING] for name in ("start-run", "stop-run", "abort-run")]),
        ["demo", "-d", "file"],
    ]),
    "not a data directory": (1, [
        ["ls", "file"], ["journal", "check", "."], ["journal", "rebuild", "."],
        ["status", "-d", "file"], ["coor", "stop", "-d", "file"],
        ["send", "file", "--run", "1", "-d", "file"],
    ]),
    "no logger runs": (1, [
        ["status", "-d", ".", "--timeout", "0.1"],
        ["coor", "stop", "-d", ".", "--timeout", "0.1"],
        ["coor", "init", "-c", "dlog.toml", "-d", ".", "--timeout", "0.1"],
        ["coor", "start-run", "1", "-d", ".", "--timeout", "0.1"],
        ["send", "file", "--run", "1", "-d", ".", "--state", "state"],
    ]),
    "no configuration": (78, [
        ["start", "-c", NOTHING], ["create", "-c", NOTHING], ["coor", "init", "-c", NOTHING],
        ["coor", "configure", "-c", NOTHING],
    ]),
    "a bad number": (2, [
        ["ls", "-r", "x"], ["ls", "--run", "0", "."], ["cat", "-n", "x", "file"],
        ["status", "--timeout", "x"], ["coor", "start-run", "x"],
        ["coor", "stop", "--timeout", "0"],
        ["send", "file", "--run", "0"], ["verify", "-j", "-1", "file"], ["bench", "--seconds", "x"],
        ["bench", "--bytes", "many"], ["demo", "--seconds", "0"], ["faults", "run", "--seeds", "0"],
        ["monitor", "--listen", "ipc://x", "--interval", "x"],
    ]),
    "an address that cannot be": (2, [
        ["status", "--to", "nowhere"], ["coor", "stop", "--to", "nowhere"],
        ["send", "file", "--run", "1", "--to", "nowhere"], ["alarm-server", "--listen", "nowhere"],
        ["monitor", "--listen", "nowhere"],
    ]),
    "an option that there is not": (2, [[*words.split(), "--nothing"] for words in OF_COMMAND]),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    (tmp_path / "file").write_text("text\n")
    (tmp_path / "dlog.toml").write_text('[logger]\ndata = ["data"]\n')
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_same_mistake_has_the_same_exit_code(folder: Path, mistake: str) -> None:
    code, tried = MISTAKES[mistake]
    ends = {" ".join(arguments): run(*arguments) for arguments in tried}
    assert {words: end.exit_code for words, end in ends.items() if end.exit_code != code} == {}
    assert all(end.output for end in ends.values())


# --- help and words ----------------------------------------


@pytest.mark.parametrize("words", ["", "coor", "journal", "faults", *OF_COMMAND])
def test_the_paragraphs_of_a_help_flow(words: str) -> None:
    """No line ends early: the first word of the next one would not have fitted."""
    said = run(*words.split(), "--help").output.rstrip()
    assert "\\[" not in said
    paragraphs = said.partition("Options:")[0].partition("Arguments:")[0].split("\n\n")[1:]
    for paragraph in paragraphs:
        lines = paragraph.splitlines()
        for line, following in pairwise(lines):
            assert len(line) + 1 + len(following.split()[0]) > 78


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        ("stauts", "did you mean status?"),
        ("coor stpo", "did you mean stop?"),
        ("journal chek", "did you mean check?"),
        ("ls --jsno", "--json"),
        ("faults run clam", "did you mean calm?"),
        ("xyzzy", "no command 'xyzzy'\n"),
    ],
)
def test_a_mistyped_word_gets_a_suggestion(arguments: str, suggestion: str) -> None:
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert suggestion in result.output


def test_brackets_of_an_error_stay(folder: Path) -> None:
    for arguments in (["ls", "[red]x[/]"], ["info", "[red]x[/]"], ["[red]x[/]"]):
        assert "[red]x[/]" in run(*arguments).output


# --- interrupts ----------------------------------------


_WHILE_LOADING = """
import sys, signal
at = sys.argv[1]
class Finder:
    def find_spec(self, name, *_):
        if name == at:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
import dlog.cli.__main__
sys.argv[1:] = ["ls", "."]
dlog.cli.__main__.main()
"""


@pytest.mark.parametrize("module", ["dlog.cli.interrupts", "typer", "dlog.cli.ls", "msgspec"])
def test_an_interrupt_while_modules_load_is_a_short_word(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WHILE_LOADING, module], env=environment(), capture_output=True,
        text=True, timeout=LONG, preexec_fn=_interruptible, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "dlog: interrupted\n")


LONG_WORK = {
    "faults run": dlog_command("faults", "run", "--seeds", "1000", "--jobs", "2"),
    "faults run --dir": dlog_command("faults", "run", "kill", "--dir", "."),
    "bench": dlog_command("bench", "--seconds", "2", "--dir", "."),
    "make bench": [sys.executable, "-m", "tests.benchmarks", "--dir", "."],
}


@pytest.mark.long
@pytest.mark.parametrize("command", LONG_WORK.values(), ids=LONG_WORK)
def test_ctrl_c_on_a_terminal_ends_a_command_and_all_of_its_processes(
    command: list[str], tmp_path: Path
) -> None:
    """Of a terminal, to all of its foreground processes."""
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=_interruptible,
    )  # fmt: skip
    until(lambda: len(_children(process.pid)) > 0, "it has begun with its work")
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=LONG)
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert said.endswith(b"dlog: interrupted\n")
    until(lambda: _working_in(tmp_path) == [], "no process is left")
    assert list(tmp_path.iterdir()) == []


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _working_in(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = (process / "cwd").readlink()
        except OSError:
            continue
        if where.is_relative_to(folder):
            found.append(process.name)
    return found


def _interruptible() -> None:
    """A group of its own. A test run in the background hands on that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setpgid(0, 0)
