"""`dlog ls`: the catalogue, a run to a block and a file to a line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlog.cli.output import json_out, plain, problem, show, table, words
from dlog.cli.target import DEFAULT_DATA, DataOption
from dlog.errors import Error, NotThere
from dlog.quantities import count, duration, moment, size

if TYPE_CHECKING:
    from dlog.recovery.catalogue import Catalogue, FileEntry, RunEntry


def command(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            help="A data directory, or a folder with event files.",
            readable=False,
        ),
    ] = None,
    data: DataOption = None,
    runs: Annotated[
        list[int] | None,
        typer.Option("--run", "-r", min=1, metavar="N", help="These runs alone."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """List runs and their files, as the journal says, also while a logger runs; without a journal,
    as the files and their sidecars say."""
    from dlog.recovery.catalogue import catalogue, run_entry
    from dlog.recovery.facts import is_data_directory, is_folder

    where = _place(path, data)
    try:
        if not is_folder(where):
            raise Error(f"{where} is not a directory")
        if not is_data_directory(where):
            folder = run_entry(where)
            _check(runs or [], [folder.run] if folder.files else [], where)
            _show_folder(where, folder, as_json)
            return
    except OSError as error:
        problem(f"{error.filename}: {error.strerror}")
        raise typer.Exit(1) from error
    found = catalogue(where)
    if runs:
        from msgspec.structs import replace

        _check(runs, [run.run for run in found.runs], where)
        chosen = [run for run in found.runs if run.run in runs]
        found = replace(found, runs=chosen, orphans=[], quarantine=[])
    if as_json:
        json_out(found)
    else:
        if found.journal_problem:
            problem(found.journal_problem)
        _show(found)
        _tell(found.left, found.unread)
    if found.unread:
        raise typer.Exit(1)


def _tell(left: list[str], unread: list[str]) -> None:
    """What is in the list of no run."""
    for text in left:
        problem(f"left out: {text}")
    for text in unread:
        problem(f"not looked into: {text}")


def _check(wanted: list[int], there: list[int], where: Path) -> None:
    for run in wanted:
        if run not in there:
            # The last ones: these are asked for.
            raise NotThere(f"run {run}", str(where), [str(each) for each in reversed(there)])


def _place(path: Path | None, data: Path | None) -> Path:
    if path is not None and data is not None:
        raise typer.BadParameter("give a PATH or --data, not both")
    place = path or data
    if place is None:
        if not DEFAULT_DATA.is_dir():
            raise typer.BadParameter("which one? a PATH or -d DATA")
        return DEFAULT_DATA
    return place


def _show_folder(folder: Path, run: RunEntry, as_json: bool) -> None:
    if as_json:
        json_out(run)
    elif run.files:
        _show_files(run.files)
        _tell(run.left, [])
    else:
        words(f"{folder}: no event files")
        _tell(run.left, [])


def _show(found: Catalogue) -> None:
    from rich.text import Text

    from dlog.cli.tables import Parts

    if not found.runs:
        words("no runs")
    for run in found.runs:
        show(Parts(map(plain, _title(run)), style="bold"))
        if run.files:
            _show_files(run.files)
        show("")
    if found.orphans:
        show(Text("orphans: events of no run or stream that was known", "bold"))
        _show_files(found.orphans)
        show("")
    if found.quarantine:
        show(Text("saved aside: never acknowledged", "bold"))
        shown = table("run", "stream", "from byte", "to byte", "saved", "file",
                      numbers=("run", "from byte", "to byte"))  # fmt: skip
        for tail in found.quarantine:
            shown.add_row(
                str(tail.run), tail.stream, count(tail.begin), count(tail.end),
                moment(tail.saved_ns), plain(tail.path),
            )  # fmt: skip
        show(shown)


def _title(run: RunEntry) -> list[str]:
    """`run 7  ENDED  2026-11-22 07:31:10 +01:00  for 12 s  1,325 events  33.1 MiB  a comment`"""
    parts = [f"run {run.run}", run.state]
    if run.started_ns:
        parts.append(moment(run.started_ns))
    if run.ended_ns > run.started_ns:
        parts.append(f"for {duration((run.ended_ns - run.started_ns) / 1e9)}")
    parts += [f"{count(run.events)} events", size(run.payload_bytes), run.reason, run.comment]
    return parts


def _show_files(files: list[FileEntry]) -> None:
    shown = table(
        "stream", "part", "kind", "state", "events", "numbers", "size", "created", "file", "",
        numbers=("part", "events", "size"),
    )  # fmt: skip
    for file in files:
        totals = file.totals
        numbers = f"{totals.first_event}–{totals.last_event}" if totals and totals.events else ""
        remarks = [
            "" if file.status in ("", "good") else file.status,
            f"sealed: {file.sealed}" if file.sealed else "",
            file.problem,
        ]
        shown.add_row(
            plain(file.stream), str(file.part), file.kind, file.state,
            "?" if totals is None else count(totals.events), numbers, size(file.size_bytes),
            moment(file.created_ns), plain(file.path), plain(", ".join(r for r in remarks if r)),
        )  # fmt: skip
    show(shown)
