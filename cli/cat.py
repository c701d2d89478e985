"""`dlog cat`: events of files or runs, a line each, or their payloads byte for byte."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import typer

from dlog.cli.output import plain, problem
from dlog.cli.standard_streams import reader_went_away

if TYPE_CHECKING:
    from dlog.reader import Event, Reader
    from dlog.recovery.snapshot import Snapshot

_LINES_BYTES: Final = 64 * 1024
_SHOWN_BYTES: Final = 8
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="F... | RUN-FOLDER",
            help="Event files or run folders, in any mix.",
            readable=False,
        ),
    ],
    streams: Annotated[
        list[str] | None,
        typer.Option("--stream", "-s", metavar="NAME", help="The files of these streams alone."),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The payloads, byte for byte, and nothing between them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object an event.")] = False,
    payload: Annotated[
        bool, typer.Option("--payload", help="With --json: the payload too, as base64.")
    ] = False,
    number: Annotated[
        int | None, typer.Option("-n", min=0, metavar="N", help="The first N events alone.")
    ] = None,
    order: Annotated[
        Literal["sent", "file"] | None,
        typer.Option(
            "--order",
            help="As sent, streams merged (of one file: as they lie in it), or file after file.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="With --raw: to a terminal too.")] = False,
) -> None:
    """Print events: run, number, time, stream, size and first bytes; or write their payloads.

    A run folder, or several files, come in the order in which their events were sent, an event of
    several streams once. A run folder that lacks blocks before its last one, or that could not be
    read as a whole, is an error.
    """
    from dlog.reader import read

    if raw and sys.stdout.isatty() and not force:
        raise typer.BadParameter("payloads are not for a terminal: send them to a file, or --force")
    if (raw and as_json) or (payload and not as_json):
        raise typer.BadParameter("--raw and --json exclude each other; --payload goes with --json")
    try:
        single = len(paths) == 1 and not paths[0].is_dir()
        sent = order == "sent" or (order is None and not single)
        further, shut = _further_folders(paths)
        events = read([*paths, *further], streams=streams)
    except OSError as error:
        problem(f"{error.filename}: {error.strerror}")
        raise typer.Exit(1) from error
    try:
        with events:
            if raw and number is None:
                _write(_payloads(events, sent))
            else:
                chosen = islice(events.in_sent_order() if sent else events, number)
                if raw:
                    _write(event.payload for event in chosen)
                else:
                    _write_lines(_objects(chosen, payload) if as_json else _lines(chosen))
        sys.stdout.flush()
    except BrokenPipeError:
        # It has what it wanted; what is known to be missing is told all the same.
        reader_went_away()
    _tell(events, complete=any(path.is_dir() for path in paths))
    if shut:
        raise typer.Exit(1)


def _further_folders(paths: list[Path]) -> tuple[list[Path], bool]:
    """Where the other data directories of the same logger keep these runs, and whether one of them
    could not be looked into."""
    from dlog.reader.run_folder import run_of
    from dlog.recovery.facts import is_folder, why_away

    found, shut = [], False
    for path in paths:
        run = run_of(path.resolve())
        told = _journal_of(path.resolve().parent.parent, run) if run and is_folder(path) else None
        if told is None or told.meta is None:
            continue
        for number, folder in enumerate(told.meta.data[1:], start=1):
            other = Path(folder, "runs", path.resolve().name)
            files = sum(r.directory == number and r.totals.events > 0 for r in told.records())
            try:
                if is_folder(other) and any(".dlog" in below.name for below in other.iterdir()):
                    found.append(other)
                elif files:
                    why = why_away(Path(folder), told.meta) or "they are gone"
                    problem(f"{folder}: {files} files of run {run} in it are not read: {why}")
                    shut = True
            except OSError as error:
                problem(f"{other}: {error.strerror}; what lies there is not read")
                shut = True
    return found, shut


def _journal_of(data: Path, run: int) -> Snapshot | None:
    """What the journal says of the data directories and of the files of the run."""
    from dlog.core.journal_records import CLOSED_FILES, FILES, META, run_files
    from dlog.errors import DlogError
    from dlog.model.ids import RunNumber
    from dlog.recovery.facts import is_folder, logger_runs, read_beside_a_logger

    journal = data / "journal"
    try:
        if is_folder(journal):
            # In this order: a file that is closed meanwhile is seen at least once.
            files = [run_files(RunNumber(run), prefix) for prefix in (FILES, CLOSED_FILES)]
            return read_beside_a_logger(journal, [META, *files], running=logger_runs(data))
    except DlogError as error:
        problem(f"{error}; only this directory is read")
    except OSError as error:
        problem(f"{journal}: {error.strerror}; only this directory is read")
    return None


def _payloads(events: Reader, sent: bool) -> Iterator[memoryview]:
    if sent:
        return events.payloads_in_sent_order()
    return (block.raw_payload for block in events.blocks())


def _write(parts: Iterable[memoryview]) -> None:
    out = sys.stdout.buffer
    for part in parts:
        out.write(part)


def _write_lines(lines: Iterable[bytes]) -> None:
    out, held = sys.stdout.buffer, bytearray()
    try:
        for line in lines:
            held += line
            if len(held) > _LINES_BYTES:
                out.write(held)
                held.clear()
    finally:
        # What lies before damage is told too.
        out.write(held)


def _lines(events: Iterable[Event]) -> Iterator[bytes]:
    for event in events:
        shown = event.payload[:_SHOWN_BYTES].hex(" ") + (
            " …" if len(event.payload) > _SHOWN_BYTES else ""
        )
        kind = "" if event.kind == 1 else f" ({event.kind.name.lower()})"
        yield (
            f"run {event.run}  event {event.number}  {time_text(event.time_ns)}  "
            f"{plain(','.join(event.streams))}{kind}  {len(event.payload)} B  {shown}".rstrip()
            + "\n"
        ).encode()


def _objects(events: Iterable[Event], with_payload: bool) -> Iterator[bytes]:
    encoder = msgspec.json.Encoder()
    for event in events:
        line: dict[str, Any] = {
            "run": event.run,
            "number": event.number,
            "time_ns": event.time_ns,
            "stream": event.stream,
            "streams": event.streams,
            "size": len(event.payload),
            "kind": event.kind.name.lower(),
            "session": event.session.hex(),
            "sequence": event.sequence,
            "position": event.position,
        }
        if with_payload:
            line["payload"] = base64.b64encode(event.payload).decode()
        yield encoder.encode(line) + b"\n"


def time_text(time_ns: int) -> str:
    """With all nanoseconds; "-" where the source gave none."""
    if time_ns == 0:
        return "-"
    seconds, below = divmod(time_ns, 10**9)
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return f"{seconds}.{below:09d}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{below:09d}Z"


def _tell(events: Reader, *, complete: bool) -> None:
    """What was not there to be read, or was left out. complete: all blocks of the streams should
    have been."""
    for out in events.left_out:
        problem(f"left out: {out.folder}/{out.name}: {out.reason}")
    for tail in events.tails:
        problem(
            f"{tail.path}: nothing of bytes {tail.begin} to {tail.end} was read: torn, being "
            f"written now, or void ({tail.reason})"
        )
    for gap in events.missing if complete else ():
        problem(
            f"run {gap.run} stream {gap.stream}: blocks {gap.first} to {gap.last} are in none of "
            "these files"
        )
    if complete and events.missing:
        raise typer.Exit(1)
