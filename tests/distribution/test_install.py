"""Installs dlog as a user does: from a clone, a wheel and a git address, with each Python here."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.distribution.builds import built, copy_of_the_checkout, run

pytestmark = pytest.mark.long


def _pythons() -> Iterator[str]:
    """The first of each version that runs. pyenv's commands on PATH run the chosen version alone,
    so its folder is searched too."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for name in ("python3.11", "python3.12", "python3.13"):
        on_path = [found] if (found := shutil.which(name)) else []
        for python in (*on_path, *map(str, sorted(kept.glob(f"*/bin/{name}")))):
            if (
                subprocess.run([python, "--version"], capture_output=True, check=False).returncode
                == 0
            ):
                yield python
                break


PYTHONS = list(_pythons())


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What `pip install` is given."""
    folder = tmp_path_factory.mktemp("sources")
    clone = copy_of_the_checkout(folder / "clone", links=True)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "all"]):
        run([*git, *command], cwd=clone)
    wheel = built(clone, folder / "wheel", "wheel")
    return {"clone": str(clone), "wheel": str(wheel), "git address": f"git+file://{clone}"}


@pytest.mark.parametrize("python", PYTHONS, ids=lambda python: Path(python).name)
@pytest.mark.parametrize("source", ["clone", "wheel", "git address"])
def test_installed_dlog_sends_stores_and_verifies(
    sources: Mapping[str, str], python: str, source: str, tmp_path: Path
) -> None:
    run([python, "-m", "venv", tmp_path / "venv"], cwd=tmp_path)
    bin_folder = tmp_path / "venv" / "bin"
    pip = [bin_folder / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run([*pip, "install", sources[source]], cwd=tmp_path)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    told = run([bin_folder / "dlog", "--version"], cwd=tmp_path, environment=environment)
    assert told.startswith("dlog 0.")
    run(
        [bin_folder / "dlog", "demo", "--seconds", "2", "--data", tmp_path / "data"],
        cwd=tmp_path, environment=environment,
    )  # fmt: skip
    judged = subprocess.run(
        [bin_folder / "dlog", "verify", tmp_path / "data"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stdout + judged.stderr
