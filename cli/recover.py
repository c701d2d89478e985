"""`dlog recover`: rebuilds partly written or damaged event files into new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dlog.cli.output import json_line, plain, progress, words


def command(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SRC...", help="Event files, run folders, data directories."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DST", help="A new file, or a directory for many."),
    ],
    mode: Annotated[
        Literal["prefix", "salvage"],
        typer.Option("--mode", help="The longest intact prefix, or every intact block."),
    ] = "salvage",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a source.")] = False,
) -> None:
    """Write what is whole of SRC into new, sealed, verified files. SRC is never changed.

    Of a directory, every unfinished or damaged file. The exit code is the verdict on SRC as `dlog
    verify` gives it, also when the output is good.
    """
    from dlog.recovery.rebuild import (
        Mode,
        destinations,
        recover,
        recovery_lines,
        recovery_summary_line,
        summarise_recoveries,
    )
    from dlog.recovery.report import report_lines
    from dlog.recovery.verify import plan

    made = plan(sources)
    jobs = destinations(sources, made, output)
    single = not any(source.is_dir() for source in sources)
    for report in made.reports:
        if as_json:
            json_line(report)
        else:
            print("\n".join(plain(line) for line in report_lines(report)))
    recoveries = []
    with progress("recovering", made.total_bytes, unit="bytes") as shown:
        for recovery in recover(
            jobs, Mode(mode), all_of_them=single, dry_run=dry_run, progress=shown.advance
        ):
            recoveries.append(recovery)
            if as_json:
                json_line(recovery)
            else:
                print("\n".join(plain(line) for line in recovery_lines(recovery)), flush=True)
    summary = summarise_recoveries(recoveries, made.reports)
    words(recovery_summary_line(summary))
    raise typer.Exit(summary.verdict.exit_code)
