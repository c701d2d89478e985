"""Checks what is distributed, for `make check`. It prints only what does not hold.

* The wheels made from the checkout, from a clone without symbolic links and from the sdist are
  equal, byte for byte; so are the sdists of checkout and clone.
* A wheel puts nothing but `dlog` into an environment, and `dlog demo` runs from it beside folders
  `cli/` and `recovery/` that belong to somebody else.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.distribution.builds import (
    CHECKOUT,
    LINKS,
    built,
    copy_of_the_checkout,
    run,
    unpacked,
)

_WHERE = "import dlog.cli, dlog.recovery; print(dlog.cli.__file__, dlog.recovery.__file__)"


def main() -> None:
    if not (CHECKOUT / ".git").exists():
        raise SystemExit(f"{CHECKOUT} is no git checkout: its sdist and wheels cannot be compared")
    with tempfile.TemporaryDirectory(prefix="dlog-wheels-") as name:
        folder = Path(name)
        without_links = copy_of_the_checkout(folder / "clone", links=False)
        for link, target in LINKS.items():
            assert (without_links / "dlog" / link).read_text() == target
        sdist = built(CHECKOUT, folder / "sdist", "sdist")
        wheel = built(CHECKOUT, folder / "wheel", "wheel")
        _equal(sdist, built(without_links, folder / "clone-sdist", "sdist"))
        _equal(wheel, built(without_links, folder / "clone-wheel", "wheel"))
        source = unpacked(sdist, folder / "unpacked")
        _equal(wheel, built(source, folder / "sdist-wheel", "wheel"))
        _holds_dlog_alone(wheel)
        _runs_beside_foreign_folders(wheel, folder)


def _equal(one: Path, other: Path) -> None:
    if one.read_bytes() != other.read_bytes():
        raise SystemExit(f"{one} and {other} differ; they were made of the same files")


def _holds_dlog_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    version = wheel.name.split("-")[1]
    others = {n.split("/")[0] for n in names} - {"dlog", f"dlog_daq-{version}.dist-info"}
    if others:
        raise SystemExit(f"{wheel.name} puts {', '.join(sorted(others))} into an environment")
    for module in ("dlog/cli/main.py", "dlog/recovery/verify.py", "dlog/py.typed"):
        if module not in names:
            raise SystemExit(f"{wheel.name} lacks {module}")


def _runs_beside_foreign_folders(wheel: Path, folder: Path) -> None:
    site, foreign = folder / "site", folder / "foreign"
    run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-index", "--target", site, wheel],
        cwd=folder,
    )  # fmt: skip
    for name in LINKS:
        (foreign / name).mkdir(parents=True)
        (foreign / name / "__init__.py").write_text("raise ImportError('somebody else')\n")
    environment = {**os.environ, "PYTHONPATH": f"{foreign}{os.pathsep}{site}"}
    where = run([sys.executable, "-P", "-c", _WHERE], cwd=foreign, environment=environment)
    if not all(path.startswith(str(site)) for path in where.split()):
        raise SystemExit(f"the wheel was not imported, but {where}")
    demo = [site / "bin" / "dlog", "demo", "--seconds", "2", "--data", folder / "data"]
    run(demo, cwd=foreign, environment=environment)


if __name__ == "__main__":
    main()
