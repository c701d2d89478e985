"""The checks see the folders that are linked into dlog: a fault that is planted there is found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.distribution.builds import LINKS, copy_of_the_checkout, run

pytestmark = pytest.mark.long

BIN = Path(sys.executable).parent
LINT = (BIN / "ruff", "check", ".")
TYPES = (BIN / "mypy", "--strict")
LAYERS = (BIN / "lint-imports", "--no-cache")
COVERAGE = (BIN / "coverage", "report")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_checkout(tmp_path_factory.mktemp("house") / "checkout", links=True)


def said(checkout: Path, command: Sequence[str | Path]) -> tuple[int, str]:
    done = subprocess.run(
        [str(part) for part in command], cwd=checkout, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "200"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("folder", LINKS)
@pytest.mark.parametrize(
    ("command", "fault", "named"),
    [
        (LINT, "import os\n", "{folder}/planted.py:1:8"),
        (LINT, "import cli\n\nprint(cli)\n", "only dlog is installed"),
        (LINT, "from recovery import walk\n\nprint(walk)\n", "only dlog is installed"),
        (TYPES, 'number: int = "text"\n', "dlog/{folder}/planted.py:1"),
        (LAYERS, "import zmq\n", "dlog.{folder}.planted -> zmq"),
    ],
    ids=["unused import", "import cli", "import recovery", "type", "layer"],
)
def test_a_planted_fault_is_found(
    checkout: Path, folder: str, command: Sequence[str | Path], fault: str, named: str
) -> None:
    planted = checkout / folder / "planted.py"
    planted.write_text(
        '"""A fault."""\n\n' * (command is not LINT and command is not TYPES) + fault
    )
    try:
        code, words = said(checkout, command)
    finally:
        planted.unlink()
    assert code != 0
    assert named.format(folder=folder) in words


def test_coverage_counts_the_linked_folders(checkout: Path) -> None:
    run([BIN / "coverage", "run", "-m", "dlog.cli", "--version"], cwd=checkout)
    words = run([BIN / "coverage", "report"], cwd=checkout)
    assert "cli/main.py" in words
    assert "recovery/verify.py" in words  # which this command does not import


def test_the_makefile_makes_missing_links(tmp_path: Path) -> None:
    checkout = copy_of_the_checkout(tmp_path / "checkout", links=False)
    run(["make", "links"], cwd=checkout)
    for name, target in LINKS.items():
        assert os.readlink(checkout / "dlog" / name) == target
    run(["make", "links"], cwd=checkout)


def test_the_makefile_says_that_a_filesystem_has_no_links(tmp_path: Path) -> None:
    checkout = copy_of_the_checkout(tmp_path / "checkout", links=False)
    (tmp_path / "bin").mkdir()
    refusing = tmp_path / "bin" / "ln"
    refusing.write_text("#!/bin/sh\necho 'ln: Operation not permitted' >&2\nexit 1\n")
    refusing.chmod(0o755)
    done = subprocess.run(
        ["make", "links"], cwd=checkout, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{refusing.parent}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "none can be made" in done.stderr
    assert "pip install ." in done.stderr
