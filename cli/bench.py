"""`dlog bench`: what this machine holds, measured with real processes, sockets and files.

It prints and cleans up; what is measured stands in plan.py, what is concluded in verdict.py.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from dlog.cli.interrupts import ended_by_signals
from dlog.errors import Error

_PREFIX: Final = "dlog-bench-"


def command(
    directory: Annotated[
        Path,
        typer.Option(
            "--dir", metavar="DIR",
            help="Measure the disk of this directory; nothing stays in it.",
        ),
    ] = Path(),
    seconds: Annotated[
        float, typer.Option(min=0.2, max=600.0, help="How long each measurement takes at most.")
    ] = 2.0,
    bytes_: Annotated[
        str,
        typer.Option(
            "--bytes", metavar="SIZE",
            help="How much each measurement writes at most, and how much space is used at a time.",
        ),
    ] = "4 GiB",
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE",
            help="Draw throughput and latency into a file named .svg, .png or .pdf. Needs the "
            "extra `plot`.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All that was measured.")] = False,
) -> None:  # fmt: skip
    """Qualify this machine: what its disk takes, what the logger holds on it durably, with which
    latency, and what limits it.

    It starts a logger and sources of its own, and takes about a minute. Whatever else runs on the
    machine is measured too.
    """
    from dlog.adapters.charts import check_drawable, draw
    from dlog.bench.plan import BYTES_MIN, qualify, steps
    from dlog.cli.bench_tables import Watcher, charts, print_table
    from dlog.cli.output import json_out, problem, progress, words
    from dlog.model.config import parse_bytes

    try:
        bytes_max = parse_bytes(bytes_)
    except ValueError as error:
        raise typer.BadParameter(f"--bytes {bytes_}: {error}") from error
    if bytes_max < BYTES_MIN:
        raise typer.BadParameter(f"--bytes {bytes_}: at least {BYTES_MIN >> 20} MiB")
    if plot is not None:
        check_drawable(plot)  # before anybody waits
    with (
        ended_by_signals(),
        _place(directory) as place,
        progress("measuring", steps()) as shown,
    ):
        watcher = Watcher(shown, lines=not sys.stderr.isatty())
        found = qualify(place, seconds=seconds, bytes_max=bytes_max, audience=watcher)
    if plot is not None:
        draw(charts(found), plot)
        words(f"drawn: {plot}")
    if as_json:
        json_out(found)
    else:
        print_table(found)
    for warning in found.verdict.warnings:
        problem(warning)


@contextmanager
def _place(directory: Path) -> Iterator[Path]:
    """A folder in it that is removed at the end; also what one left that was killed with -9."""
    try:
        for left in directory.glob(f"{_PREFIX}*"):
            if not _is_alive(left.name.removeprefix(_PREFIX).partition("-")[0]):
                shutil.rmtree(left, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=directory)).resolve()
    except OSError as error:
        raise Error(f"{directory}: {error.strerror}") from error
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _is_alive(pid: str) -> bool:
    if not pid.isdecimal():
        return True  # not one of ours: it stays
    with suppress(ProcessLookupError, PermissionError):
        os.kill(int(pid), 0)
        return True
    return Path(f"/proc/{pid}").exists()
