"""Programs of this checkout, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.waiting import LONG

CHECKOUT: Final = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """That of a user, with this checkout in front. A process that dies in a library says where."""
    return {
        **os.environ, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "200", "PYTHONFAULTHANDLER": "1",
    }  # fmt: skip


def environment_with(site: Path, program: str) -> dict[str, str]:
    """One in which each Python process runs the program first; `site` is a folder for it."""
    site.mkdir()
    (site / "sitecustomize.py").write_text(program)
    return {**environment(), "PYTHONPATH": f"{site}:{CHECKOUT}"}


def dlog_command(*arguments: str | int | Path) -> list[str]:
    return [sys.executable, "-m", "dlog.cli", *map(str, arguments)]


def run_dlog(
    *arguments: str | int | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """A whole command, with its output."""
    return subprocess.run(
        dlog_command(*arguments), capture_output=True, timeout=LONG, cwd=cwd,
        env=environment(), check=False,
    )  # fmt: skip


def run_python(program: str, *arguments: str | int | Path, tracer: Sequence[str] = ()) -> list[str]:
    """A whole program, perhaps under a tracer; its lines and its end. It may die."""
    done = subprocess.run(
        [*tracer, sys.executable, "-c", program, *map(str, arguments)], capture_output=True,
        text=True, timeout=LONG, env=environment(), check=False,
    )  # fmt: skip
    return [*done.stdout.splitlines(), f"exit {done.returncode}"]


def obeying_permissions() -> list[str]:
    """Before a command: it obeys the mode bits of files, also where the tests run as root. Skips
    where the system cannot make it."""
    if os.geteuid() != 0:
        return []
    prefix = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"]
    try:
        subprocess.run([*prefix, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"root is not kept from any file here: {error}")
    return prefix


def start_python(program: str, *arguments: str | int | Path, **how: Any) -> subprocess.Popen[str]:
    """A program to talk to, by lines."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, env=environment(), **how,
    )  # fmt: skip
