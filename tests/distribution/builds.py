"""Makes checkouts, sdists and wheels to look at. What must hold of them stands in the tests and in
`check.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
LINKS: Final = {"cli": "../cli", "recovery": "../recovery"}


def run(
    command: Sequence[str | Path], *, cwd: Path, environment: Mapping[str, str] | None = None
) -> str:
    """What a program printed. Raises `SystemExit` with its words where it failed."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        shown = " ".join(str(part) for part in command)
        raise SystemExit(f"{shown} failed in {cwd}:\n{done.stdout}{done.stderr}")
    return done.stdout


def copy_of_the_checkout(folder: Path, *, links: bool) -> Path:
    """The files of the checkout as they are now, with those that git does not know yet. links: as
    symbolic links, or as a clone with core.symlinks=false has them: small text files."""
    index = folder.with_suffix(".index")
    environment = {**os.environ, "GIT_INDEX_FILE": str(index)}
    git = ["git", "-c", f"core.symlinks={'true' if links else 'false'}"]
    run(["git", "add", "--all"], cwd=CHECKOUT, environment=environment)
    run(
        [*git, "checkout-index", "--all", f"--prefix={folder}/"],
        cwd=CHECKOUT, environment=environment,
    )  # fmt: skip
    index.unlink()
    return folder


def built(source: Path, out: Path, kind: str) -> Path:
    """The sdist or wheel of a folder."""
    run([sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", out], cwd=source)
    (made,) = out.iterdir()
    return made


def unpacked(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (made,) = folder.iterdir()
    return made
