"""`dlog demo`: the whole story at once, with real processes, and the proof at its end.

It tells and shows; what happens stands in story.py, what is compared in proof.py.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dlog.cli.interrupts import ended_by_signals
from dlog.errors import Error


def command(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", "-d", metavar="DIR",
            help="Write to this data directory and keep it; it must be new or empty.",
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=2.0, max=3600.0, help="How long the detectors send.")
    ] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False,
) -> None:  # fmt: skip
    """The whole story at once: a logger, a COOR, two sources with three streams in two runs, a
    kill -9 of the logger in mid-run, its resume, and the proof.
    """
    from dlog.cli.demo_display import Show
    from dlog.demo.story import tell

    with ended_by_signals(), _place(data) as place, Show(seconds, as_json=as_json) as show:
        outcome = tell(place, seconds, show)
        show.outcome(outcome, kept=place if data is not None else None)
    if not outcome.holds:
        raise typer.Exit(1)


@contextmanager
def _place(data: Path | None) -> Iterator[Path]:
    """The data directory: the one that is given and kept, or one that is removed at the end."""
    if data is not None:
        if data.exists() and (not data.is_dir() or any(data.iterdir())):
            raise Error(f"{data} is not an empty directory: nothing in it is touched")
        data.mkdir(parents=True, exist_ok=True)
        yield data
        return
    made = Path(tempfile.mkdtemp(prefix="dlog-demo-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
