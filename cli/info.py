"""`dlog info`: what one file says of itself: header, configuration, totals, blocks, sessions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from dlog.cli.cat import time_text
from dlog.cli.output import json_line, plain, problem, show, table
from dlog.errors import FormatError
from dlog.quantities import count, size

if TYPE_CHECKING:
    from dlog.reader.summary import Summary


def command(
    paths: Annotated[
        list[Path], typer.Argument(metavar="F...", help="Event files.", readable=False)
    ],
    blocks: Annotated[bool, typer.Option("--blocks", help="A line for each block too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a file.")] = False,
) -> None:
    """Show a file's header, configuration, totals, blocks, and the sessions whose events it holds.

    Headers and fragment tables are read and checked, not the events (of an open file, these too):
    `dlog verify` checks everything.
    """
    from dlog.reader.summary import summarise

    failed: FormatError | None = None
    for path in paths:
        try:
            summary = summarise(path)
        except OSError as error:
            problem(f"{error.filename}: {error.strerror}")
            raise typer.Exit(1) from error
        if as_json:
            json_line(_object(summary, blocks))
        else:
            _show(summary, blocks)
        failed = failed or summary.damage
    if failed is not None:
        failed.add_note("`dlog verify` tells what is damaged, `dlog recover` saves what is whole")
        raise failed


def _object(summary: Summary, blocks: bool) -> dict[str, Any]:
    made = {
        "path": str(summary.path),
        "state": summary.state,
        "header": _header(summary),
        "totals": summary.totals,
        "stored": {
            "block_bytes": summary.block_bytes,
            "raw_bytes": summary.raw_bytes,
            "compressed_blocks": summary.compressed_blocks,
        },
        "sessions": [
            {**msgspec.structs.asdict(session), "session": session.session.hex()}
            for session in summary.sessions
        ],
        "sidecar": summary.sidecar,
        "closing": summary.closing,
        "tail": _tail(summary),
        "damage": str(summary.damage) if summary.damage else "",
    }
    if blocks:
        names = summary.index.dtype.names or ()
        made["blocks"] = [dict(zip(names, row, strict=True)) for row in summary.index.tolist()]
    return made


def _tail(summary: Summary) -> dict[str, Any] | None:
    tail = summary.tail
    if tail is None:
        return None
    return {"begin": tail.begin, "end": tail.end, "reason": tail.reason}


def _header(summary: Summary) -> dict[str, Any]:
    header = summary.header
    return {
        "run": header.key.run,
        "stream": header.key.stream,
        "kind": header.key.kind.name.lower(),
        "part": header.key.part,
        "format_version": summary.format_version,
        "compatible_flags": header.compatible_flags,
        "file_uuid": header.file_uuid.hex(),
        "logger": header.text.logger,
        "logger_uuid": header.logger_uuid.hex(),
        "salt": header.salt.hex(),
        "boot": header.boot,
        "created_ns": header.created_ns,
        "run_started_ns": header.text.run_started_ns,
        "run_streams": header.text.streams,
        "first_block": header.first_block,
        "predecessor_part": header.predecessor_part,
        "predecessor_sealed": header.predecessor_sealed,
        "config": header.text.config,
    }


def _show(summary: Summary, blocks: bool) -> None:
    show(plain(f"{summary.path}  {summary.state}"), style="bold")
    header = _header(summary)
    config = msgspec.to_builtins(header.pop("config"))
    for key in ("created_ns", "run_started_ns"):
        header[key.removesuffix("_ns")] = time_text(header.pop(key))
    header["run_streams"] = ", ".join(header["run_streams"])
    if not header["predecessor_part"]:
        del header["predecessor_part"], header["predecessor_sealed"]
    rows = {key.replace("_", " "): str(value) for key, value in header.items()}
    rows["configuration"] = ", ".join(f"{k} = {v}" for k, v in config.items())
    totals = summary.totals
    rows["events"] = f"{count(totals.events)}, {size(totals.payload_bytes)} of payload"
    if totals.events:
        rows["event numbers"] = f"{totals.first_event} to {totals.last_event}"
    rows["blocks"] = (
        f"{count(totals.blocks)} in {size(summary.block_bytes)}, "
        f"{count(summary.compressed_blocks)} of them compressed; raw: {size(summary.raw_bytes)}"
    )
    if summary.closing is not None and summary.closing.status != "good":
        rows["status"] = summary.closing.status
        rows["blocks missing"] = ", ".join(f"{a} to {b}" for a, b in summary.closing.gaps)
    if summary.sidecar is not None:
        rows["crc32c"] = summary.sidecar.crc32c
        rows["closed"] = time_text(summary.sidecar.closed_ns)
        rows["sealed"] = summary.sidecar.sealed
        rows["when closed"] = summary.sidecar.file_content_status
    if summary.tail is not None:
        tail = summary.tail
        rows["tail"] = f"bytes {tail.begin} to {tail.end}: {tail.reason}"
    for key, value in rows.items():
        if value:
            print(plain(f"{key:<18} {value}"))
    print()
    _show_sessions(summary)
    if blocks:
        _show_blocks(summary)


def _show_sessions(summary: Summary) -> None:
    shown = table(
        "session", "run", "stream as sent", "batches", "events", "payload", "pieces", "why",
        numbers=("run", "events", "payload", "pieces"),
    )  # fmt: skip
    for session in summary.sessions:
        shown.add_row(
            session.session.hex(), str(session.run), plain(session.stream),
            f"{session.first_sequence} to {session.last_sequence}", count(session.events),
            size(session.payload_bytes), count(session.pieces), session.orphan_reason,
        )  # fmt: skip
    show(shown)


def _show_blocks(summary: Summary) -> None:
    shown = table(
        "number", "at byte", "length", "events", "event numbers", "closed",
        numbers=("number", "at byte", "length", "events"),
    )  # fmt: skip
    for offset, number, first, last, time_ns, events, block_bytes in summary.index.tolist():
        shown.add_row(
            str(number), str(offset), str(block_bytes), count(events), f"{first} to {last}",
            time_text(time_ns),
        )  # fmt: skip
    show(shown)
