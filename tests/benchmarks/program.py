"""What `make bench` runs: dlog against the disk, against peers, and against its own targets.

    python -m tests.benchmarks [--dir DIR] [--rounds N] [--seconds S] [--json F] [--markdown F]

Exits 1 where a gate is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from dlog.cli.output import console, table
from dlog.limits import MIB
from tests.benchmarks import alone
from tests.benchmarks.rounds import Bounds, Rounds
from tests.benchmarks.targets import TARGETS, Standing


def main() -> int:
    given = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="dlog-benchmarks-", dir=given.dir)).resolve()
    begin = time.monotonic()
    bounds = Bounds(seconds=given.seconds, bytes_max=given.mib * MIB)
    rounds = Rounds(folder, bounds, _say)
    values: dict[str, float] = {}
    try:
        rounds.run(given.rounds, peers=not given.no_peers)
        values |= rounds.ratios.medians()
        values |= _alone(folder, given)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _say(f"{time.monotonic() - begin:.0f} s; load at the end {os.getloadavg()[0]:.1f}")
    absolute = rounds.absolute.medians()
    _print_absolute(absolute)
    missed = _print_targets(values, {k: (min(v), max(v)) for k, v in rounds.ratios.values.items()})
    if given.json is not None:
        found = {"ratios": values, "rounds": rounds.ratios.values, "absolute": absolute}
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2))
    if given.markdown is not None:
        given.markdown.write_text(_markdown(values, rounds.ratios.values, absolute))
    return 1 if missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=None, help="a folder on the disk to measure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--mib", type=int, default=3072, help="written by each, at most")
    parser.add_argument("--closed", type=int, default=1_000_000, help="files in the catalogue")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--markdown", type=Path, default=None, help="the tables, for a document")
    given = parser.parse_args()
    for option, folder in (
        ("--dir", given.dir),
        ("--json", given.json and given.json.parent),
        ("--markdown", given.markdown and given.markdown.parent),
    ):
        # Now, and not after all the measurements.
        if folder is not None and not folder.is_dir():
            parser.error(f"{option}: {folder} is no folder")
    return given


def _alone(folder: Path, given: argparse.Namespace) -> dict[str, float]:
    values: dict[str, float] = {}
    values["filter-speed"], values["filter-size"] = alone.filters(given.rounds)
    _say("filters are measured")
    values["memory"] = alone.memory(folder / "memory", seconds=given.seconds)
    small = alone.restart(folder / "small", 1000, given.rounds)
    large = alone.restart(folder / "large", given.closed, given.rounds)
    values["restart-small"], values["restart-large"] = small, large
    values["restart-growth"] = large / small
    return values


def _print_absolute(absolute: dict[str, float]) -> None:
    shown = table("seen", "median", numbers=("median",))
    for name, value in sorted(absolute.items()):
        shown.add_row(name, _in_units(name, value))
    console().print(shown)
    console().print()


def _markdown(
    values: dict[str, float], rounds: dict[str, list[float]], absolute: dict[str, float]
) -> str:
    lines = ["| target | measured | from, to | gate | aim | |", "|---|---|---|---|---|---|"]
    for target in TARGETS:
        value, seen = values.get(target.key), rounds.get(target.key, [])
        spread = f"{min(seen):.2f}, {max(seen):.2f}" if seen else ""
        shown = "" if value is None else f"{value:.2f} {target.unit}".strip()
        lines.append(
            f"| {target.what} | {shown} | {spread} | {target.gate:.2f} | {target.aim:.2f} "
            f"| {target.standing(value)} |"
        )
    lines += ["", "| seen | median |", "|---|---|"]
    lines += [f"| {name} | {_in_units(name, value)} |" for name, value in sorted(absolute.items())]
    return "\n".join(lines) + "\n"


def _in_units(name: str, value: float) -> str:
    if "cpu" in name:
        return f"{value:.2f} s/GB"
    in_ms = "latency" in name or "pause" in name
    return f"{value:.1f} ms" if in_ms else f"{value / 1e6:.0f} MB/s"


def _print_targets(values: dict[str, float], spread: dict[str, tuple[float, float]]) -> int:
    """The table of targets; how many gates were missed."""
    shown = table(
        "target", "measured", "from", "to", "gate", "aim", "",
        numbers=("measured", "from", "to", "gate", "aim"),
    )  # fmt: skip
    missed = 0
    for target in TARGETS:
        value = values.get(target.key)
        standing = target.standing(value)
        missed += standing is Standing.MISSED
        low, high = spread.get(target.key, (None, None))
        cells = [
            "" if v is None else f"{v:.2f}" for v in (value, low, high, target.gate, target.aim)
        ]
        name = f"{target.what}{f', {target.unit}' if target.unit else ''}"
        shown.add_row(name, *cells, str(standing))
    console().print(shown)
    return missed


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
