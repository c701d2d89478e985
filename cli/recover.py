"""`dlog recover`: rebuilds partly written or damaged event files into new ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dlog.cli.output import json_line, plain, progress, words

if TYPE_CHECKING:
    from dlog.recovery.verify import Plan


def command(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SRC...", help="Event files, run folders, data directories.", readable=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DST", help="A new file, or a directory for many."),
    ] = None,
    mode: Annotated[
        Literal["prefix", "salvage"],
        typer.Option("--mode", help="The longest intact prefix, or every intact block."),
    ] = "salvage",
    sidecars: Annotated[
        bool,
        typer.Option(
            "--sidecars", help="Make the sidecars that are gone again, beside whole closed files."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a source.")] = False,
) -> None:
    """Write what is whole of SRC into new, sealed, verified files. SRC is never changed.

    Of a directory, every unfinished or damaged file. The exit code is the verdict on SRC as `dlog
    verify` gives it, also when the output is good; with --sidecars instead of DST, as it gives it
    with the sidecars that were made.
    """
    if sidecars == (output is not None):
        raise typer.BadParameter("give either -o DST or --sidecars")
    if output is None:
        _make_sidecars(sources, dry_run, as_json)
        return
    from dlog.recovery.rebuild import (
        Mode,
        destinations,
        recover,
        recovery_lines,
        recovery_summary_line,
        summarise_recoveries,
    )
    from dlog.recovery.verify import plan

    made = plan(sources)
    _tell_reports(made, as_json)
    jobs = destinations(sources, made, output)
    single = not any(source.is_dir() for source in sources)
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
    for remark in made.remarks:
        words(remark)
    summary = summarise_recoveries(recoveries, made.reports)
    words(recovery_summary_line(summary))
    raise typer.Exit(summary.verdict.exit_code)


def _tell_reports(made: Plan, as_json: bool) -> None:
    """What the plan says of no file."""
    from dlog.recovery.report import report_lines

    for report in made.reports:
        if as_json:
            json_line(report)
        else:
            print("\n".join(plain(line) for line in report_lines(report)))


def _make_sidecars(sources: list[Path], dry_run: bool, as_json: bool) -> None:
    from dlog.recovery.sidecars import make_sidecars, overall, sidecar_line, sidecars_line
    from dlog.recovery.verify import plan

    made = plan(sources)
    _tell_reports(made, as_json)
    told = []
    with progress("verifying", made.total_bytes, unit="bytes") as shown:
        for said in make_sidecars(made.tasks, dry_run=dry_run, progress=shown.advance):
            told.append(said)
            if as_json:
                json_line(said)
            else:
                print(plain(sidecar_line(said)), flush=True)
    words(sidecars_line(told, made.reports, dry_run))
    raise typer.Exit(overall(told, made.reports).exit_code)
