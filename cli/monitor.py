"""`dlog monitor`: receives the state of several loggers and shows it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from dlog.cli.output import console, json_line, plain, table, words
from dlog.cli.target import checked_address
from dlog.quantities import count, rate, size

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dlog.adapters.notice_links import NoticeServer
    from dlog.core.notices import Desk, LoggerLine
    from dlog.model.messages import MonitorReport
    from dlog.model.status import Status

_POLL_MS = 250

JsonOption: TypeAlias = Annotated[
    bool, typer.Option("--json", help="A JSON line for each report, and for each news.")
]


def command(
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="tcp://HOST:PORT, for the loggers.")
    ],
    interval: Annotated[
        float,
        typer.Option(
            "--interval", min=0.0, metavar="SECONDS",
            help="Ask for reports this often; 0: as the loggers send them.",
        ),
    ] = 0.0,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Show the state of each logger that reports, and those that fall silent."""
    from dlog.adapters.notice_links import NoticeServer
    from dlog.core.notices import Desk

    desk = Desk()
    with NoticeServer(checked_address(listen, "--listen", bound=True)) as server:
        words(f"monitor on {server.address}")
        if as_json or not sys.stdout.isatty():
            _lines(server, desk, interval, as_json)
        else:
            _live(server, desk, interval)


def _turn(server: NoticeServer, desk: Desk, interval: float, asked_ns: int, tell: bool) -> int:
    """Receive once. When the loggers were last asked, in monotonic time, goes in and comes out."""
    now_ns = time.monotonic_ns()
    if interval and now_ns >= asked_ns + interval * 1e9:
        server.request()
        asked_ns = now_ns
    for report in server.receive(_POLL_MS if not interval else min(_POLL_MS, int(interval * 500))):
        news = desk.take(report, time.monotonic_ns())
        if tell:
            for each in news:
                json_line(each)
            json_line(report)
    for each in desk.tick(time.monotonic_ns(), time.time_ns()):
        if tell:
            json_line(each)
    return asked_ns


def _lines(server: NoticeServer, desk: Desk, interval: float, as_json: bool) -> None:
    """For scripts: JSON, or a line for each logger whose state is another one now."""
    asked_ns = 0
    told: dict[str, str] = {}
    while True:
        asked_ns = _turn(server, desk, interval, asked_ns, as_json)
        for line in desk.lines() if not as_json else []:
            if line.report is None:  # alarms alone
                continue
            state = _state(line)
            if told.get(line.uuid) != state:
                told[line.uuid] = state
                print(f"{plain(line.logger)}  {plain(line.host)} pid {line.process}  {state}")
                sys.stdout.flush()


def _live(server: NoticeServer, desk: Desk, interval: float) -> None:
    from rich.live import Live

    asked_ns = 0
    with Live(_overview(desk), console=console(), auto_refresh=False) as live:
        while True:
            asked_ns = _turn(server, desk, interval, asked_ns, tell=False)
            live.update(_overview(desk), refresh=True)


def _overview(desk: Desk) -> RenderableType:
    """A line for each logger, and all of the only one."""
    from rich.console import Group
    from rich.text import Text

    from dlog.cli.status import styled, view

    lines = desk.lines()
    if not lines:
        return Text("no logger has reported yet", "dim")
    titles = ("logger", "where", "state", "runs", "stored", "events/s", "rate", "free", "alarms")
    shown = table(*titles, numbers=("stored", "events/s", "rate", "free", "alarms"))
    for line in lines:
        status, before = _status(line.report), _status(line.before)
        if status is None:
            continue
        events, per_second, bytes_per_second = _speeds(status, before)
        free = min((disk.free_bytes for disk in status.disks), default=0)
        where = Text(f"{plain(line.host)} pid {line.process}")
        alarms = Text(str(len(status.alarms)), "bold red" if status.alarms else "green")
        runs = ", ".join(f"{run.run} {run.state}" for run in status.runs)
        state = styled(status.logger.state)
        if line.silent:
            quiet = (time.monotonic_ns() - line.heard_ns) / 1e9
            state = Text(f"SILENT for {quiet:.0f} s", "bold white on red")
        elif line.ended:
            state = Text("ended", "dim")
        shown.add_row(
            plain(line.logger), where, state, plain(runs) or "-", count(events),
            count(per_second), rate(bytes_per_second), size(free), alarms,
        )  # fmt: skip
    if len(lines) > 1:
        return shown
    only = _status(lines[0].report)
    if only is None:
        return shown
    return Group(shown, Text(""), view(only, _status(lines[0].before)))


def _status(report: MonitorReport | None) -> Status | None:
    from dlog.errors import MessageError
    from dlog.model.status import read_status

    if report is None:
        return None
    try:
        return read_status(report.status)
    except MessageError:
        return None


def _speeds(status: Status, before: Status | None) -> tuple[int, float, float]:
    """Events stored in the runs that are active, and events and bytes a second."""
    streams = {(run.run, stream.name): stream for run in status.runs for stream in run.streams}
    events = sum(stream.counts.stored for stream in streams.values())
    if before is None or before.logger.boot != status.logger.boot:
        return events, 0.0, 0.0
    seconds = (status.monotonic_ns - before.monotonic_ns) / 1e9
    if seconds <= 0:
        return events, 0.0, 0.0
    more = more_bytes = 0
    for run in before.runs:
        for old in run.streams:
            new = streams.get((run.run, old.name))
            if new is not None:
                more += new.counts.stored - old.counts.stored
                more_bytes += new.payload_bytes - old.payload_bytes
    return events, more / seconds, more_bytes / seconds


def _state(line: LoggerLine) -> str:
    """In words, for a log: what changes seldom."""
    if line.silent:
        return "silent"
    if line.ended:
        return "ended"
    status = _status(line.report)
    if status is None:
        return "reports, but no status"
    runs = ", ".join(f"run {run.run} {run.state}" for run in status.runs)
    return plain(f"{status.logger.state} {runs}".strip())
