"""Every command and example of README.md, run in its order and compared with what stands there.

`$ ` begins a command; what follows is its output, compared with numbers, times and widths left
out. A line `…` stands for any lines. `<!-- test: goes on -->` before a block: its command runs on
while the next ones are run. DLOG_README=write puts the real output into README.md.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.rig.commands import CHECKOUT, environment
from tests.waiting import LONG, until

README: Final = CHECKOUT / "README.md"
# The README is not of this machine.
SHOWN_FOLDER: Final = "/home/shift/tour"
SHOWN_HOST: Final = "daq1"


class Block(NamedTuple):
    """A fenced block, and where its content stands. mark: what is in the comment before it."""

    language: str
    content: str
    mark: str
    begin: int
    end: int


class Step(NamedTuple):
    """A command of a console block, and its output as it stands there."""

    command: str
    output: list[str]
    goes_on: bool


_FENCED: Final = re.compile(r"(?:<!-- test: ([^>]*) -->\n)?```(\w+)\n(.*?)```", re.S)


def blocks(text: str) -> Iterator[Block]:
    for match in _FENCED.finditer(text):
        mark, language, content = match.groups()
        yield Block(language, content, mark or "", *match.span(3))


def steps(block: Block) -> Iterator[Step]:
    command, output = "", []
    for line in [*block.content.splitlines(), "$ "]:
        if line.startswith("$ "):
            if command:
                yield Step(command, output, block.mark == "goes on")
            command, output = line[2:], []
        else:
            output.append(line)


def plain(line: str) -> str:
    """A line without what differs from run to run."""
    line = re.sub(r"\b[0-9a-f]{8,}\b", "HEX", line)
    line = re.sub(r"[━─]+", "─", line)
    line = re.sub(r" [+-]\d\d:\d\d\b", " ZONE", line)
    line = re.sub(r"\b([kMG]?B/s|B|KiB|MiB|GiB)", "SIZE", line)
    line = re.sub(r"\d[\d,.:]*", "#", line)
    line = re.sub(r"# min # s|# (s|min|ms|h)\b", "TIME", line)
    return re.sub(r"\s+", " ", line).strip()


def is_like(real: list[str], shown: list[str]) -> bool:
    """Whether the output is what stands in the README."""
    if not shown:
        return not real
    if shown[0].strip() == "…":
        return any(is_like(real[i:], shown[1:]) for i in range(len(real) + 1))
    return bool(real) and plain(real[0]) == plain(shown[0]) and is_like(real[1:], shown[1:])


class Shell:
    """A user with several terminals, all in the same folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # What commands keep for the user stays in here too.
        self._environment = {**environment(), "HOME": str(folder), "XDG_STATE_HOME": ""}
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        command = bin_folder / "dlog"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m dlog.cli "$@"\n')
        command.chmod(0o755)
        self._environment["PATH"] = f"{bin_folder}:{self._environment['PATH']}"
        self._going_on: list[tuple[subprocess.Popen[bytes], Path]] = []

    def run(self, command: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], cwd=self._folder, env=self._environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=LONG, check=False,
        )  # fmt: skip
        said = done.stdout.decode().replace(str(self._folder), SHOWN_FOLDER)
        said = re.sub(rf"\b{re.escape(socket.gethostname())}\b", SHOWN_HOST, said)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{said}\n{self.logs()}"
        return [line.rstrip() for line in said.rstrip().splitlines()]

    def start(self, command: str) -> None:
        """A command that goes on: a logger until it answers, others until they are still there."""
        path = self._folder / f"terminal-{len(self._going_on)}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self._folder, env=self._environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._going_on.append((process, path))
        if command.startswith("dlog start"):
            self._wait_for_logger(process)

    def _wait_for_logger(self, process: subprocess.Popen[bytes]) -> None:
        def answers() -> bool:
            assert process.poll() is None, self.logs()
            try:
                answer = self.run("dlog status --json -d data --timeout 1")
            except AssertionError:
                return False
            return f'"pid":{process.pid},' in answer[0].replace(" ", "")

        until(answers, "a logger")

    def python(self, program: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=self._folder, env=self._environment,
            capture_output=True, timeout=LONG, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{program}\n{done.stderr.decode()}\n{self.logs()}"

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for _, path in self._going_on)

    def close(self) -> None:
        for process, _ in self._going_on:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(LONG)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    opened = Shell(tmp_path)
    yield opened
    opened.close()


@pytest.mark.long
def test_the_tour_is_as_the_readme_shows_it(shell: Shell, tmp_path: Path) -> None:
    text = README.read_text()
    written, at, problems = "", 0, []
    for block in blocks(text):
        if block.language == "toml":
            (tmp_path / "dlog.toml").write_text(block.content)
        elif block.language == "python":
            shell.python(block.content)
        elif block.language == "console":
            lines = []
            for step in steps(block):
                real = step.output if step.goes_on else shell.run(step.command)
                if step.goes_on:
                    shell.start(step.command)
                elif not is_like(real, step.output):
                    problems.append("\n".join([f"$ {step.command}", *real]))
                # What was shortened by hand stays so while it holds.
                kept = step.output if is_like(real, step.output) else real
                lines += [f"$ {step.command}", *(kept if "…" in step.output else real)]
            written += text[at : block.begin] + "\n".join(lines) + "\n"
            at = block.end
    if os.environ.get("DLOG_README") == "write":
        README.write_text(written + text[at:])
    else:
        assert not problems, "README.md shows something else:\n" + "\n".join(problems)


def test_the_two_commands_are_there() -> None:
    makefile = (CHECKOUT / "Makefile").read_text()
    assert re.search(r"^demo:", makefile, re.M)
    assert re.search(r"^test:", makefile, re.M)


@pytest.mark.parametrize(
    ("real", "shown", "alike"),
    [
        (["run 7 of 12.5 MiB"], ["run 12 of 9.0 KiB"], True),
        (["a  b", "c"], ["a b", "…"], True),
        (["a", "b", "c"], ["…", "c"], True),
        (["a", "b"], ["a"], False),
        (["run 7 ENDED"], ["run 7 ABORTED"], False),
    ],
)
def test_what_is_alike(real: list[str], shown: list[str], alike: bool) -> None:
    assert is_like(real, shown) is alike
