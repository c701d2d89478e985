"""`dlog journal`: rebuilds the journal from the event files, and checks it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlog.cli.groups import group
from dlog.cli.output import json_line, plain, progress, words

app = group("Check the journal, or rebuild it from the files.")

DataArgument = Annotated[
    # Read or not, the report says so.
    Path, typer.Argument(metavar="DATA", help="The data directory.", readable=False)
]


@app.command()
def rebuild(
    data: DataArgument,
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", help="Its second data directory, its third, ... in their order."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be in it; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Make a new journal from the event files alone; the old one is kept aside.

    Afterwards `dlog start` goes on with the runs.
    """
    from dlog.adapters.access import Access
    from dlog.recovery.journal import data_directory_bytes, rebuild_lines
    from dlog.recovery.journal import rebuild as rebuild_journal

    # The logger's user, who may be another one, goes on with what is made here.
    Access.found(data).hold()
    with progress("reading event files", data_directory_bytes(data), unit="bytes") as shown:
        report = rebuild_journal(data, also or (), dry_run=dry_run, progress=shown.advance)
    if as_json:
        json_line(report)
    else:
        print("\n".join(plain(line) for line in rebuild_lines(report)))
    if report.problems:
        words(f"{len(report.problems)} problems; see what is damaged: dlog verify {data}")


@app.command()
def check(
    data: DataArgument,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check the journal, read-only, also while a logger runs."""
    from dlog.recovery.journal_check import check as check_journal
    from dlog.recovery.report import Verdict, report_lines

    report = check_journal(data)
    if as_json:
        json_line(report)
    else:
        print("\n".join(plain(line) for line in report_lines(report)))
    if report.verdict == Verdict.DISAGREE:
        words(f"rebuild it from the event files: dlog journal rebuild {data}")
    raise typer.Exit(report.verdict.exit_code)
