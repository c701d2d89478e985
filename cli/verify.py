"""`dlog verify`: checks event files, run folders and data directories; changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlog.cli.output import json_line, plain, progress, words


def command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Event files, run folders, data directories, in any mix.",
            readable=False,
        ),
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="Check what is stored; decompress nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a file.")] = False,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", "-j", min=0, metavar="N", help="Files at once; 0 takes every processor."
        ),
    ] = 0,
) -> None:
    """Check the integrity of event files, read-only, also while a logger writes them.

    The exit code is the verdict; several files give the worst. Without a journal, name all data
    directories of the logger: a part in one may tell where a part in another ends.
    """
    from dlog.core.scan import Depth
    from dlog.recovery.report import report_lines, summarise, summary_line
    from dlog.recovery.verify import plan, verify, what_is_not_known

    made = plan(paths)
    depth = Depth.STORED if quick else Depth.FULL
    reports = []
    with progress("verifying", made.total_bytes, unit="bytes") as shown:
        for report in verify(made, depth=depth, workers=jobs, progress=shown.advance):
            reports.append(report)
            if as_json:
                json_line(report)
            else:
                print("\n".join(plain(line) for line in report_lines(report)), flush=True)
    unknown = what_is_not_known(made, reports)
    if unknown:
        words(unknown)
    for remark in made.remarks:
        words(remark)
    summary = summarise(reports)
    words(summary_line(summary))
    raise typer.Exit(summary.verdict.exit_code)
