"""`dlog status`: what the logger is doing, at a glance: alarms first, then runs, peers, disks.

It shows the status document and computes nothing but rates, from two of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from dlog.cli.output import console, json_line, json_out, plain, table
from dlog.cli.output import show as show_view
from dlog.cli.target import DataOption, ListenOption, ToOption, reached
from dlog.errors import Error
from dlog.model.status import (
    ConnectionStatus,
    Counts,
    DiskStatus,
    FileStatus,
    RunStatus,
    Status,
    read_status,
)
from dlog.quantities import by_reason, count, moment, rate, since, size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from dlog.adapters.coor_link import CoorClient, CoorServer

_STYLES: Final = {
    "RUNNING": "bold green", "ACTIVE": "bold green", "connected": "green", "OPEN": "green",
    "CONFIGURED": "cyan", "INITIALIZED": "cyan", "END": "cyan", "CLOSING": "cyan",
    "PAUSED": "bold yellow", "ENDING": "yellow", "STARTING": "yellow", "connecting": "yellow",
    "PREINITIALIZED": "yellow", "CREATING": "yellow", "warning": "bold yellow",
    "FAILED": "bold white on red", "ABORTED": "bold red", "ERROR": "bold red", "lost": "bold red",
    "refused": "bold red", "error": "bold red", "failure": "bold white on red",
}  # fmt: skip


class _Column(NamedTuple):
    """A count that is shown where it is not 0 everywhere."""

    title: str
    style: str
    of: Callable[[Counts], int]


_COLUMNS: Final = (
    _Column("duplicate", "", lambda counts: counts.duplicate),
    _Column("garbage", "yellow", lambda counts: counts.garbage),
    _Column("orphan", "yellow", lambda counts: counts.orphan),
    _Column("refused", "red", lambda counts: sum(counts.refused.values())),
)
_FILES_SHOWN: Final = 3
_COMMANDS_SHOWN: Final = 3


def command(
    data: DataOption = None,
    to: ToOption = "",
    listen: ListenOption = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, with rates.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, metavar="SECONDS", help="Of --watch.")
    ] = 1.0,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Wait this long for an answer."),
    ] = 5.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="The document; with --watch one a line.")
    ] = False,
) -> None:
    """States, runs, streams, files, connections, disks and alarms of a logger."""
    with reached(data, to, listen, name="dlog-status") as coor:
        if not watch:
            answer = _ask(coor, timeout)
            json_out(answer) if as_json else show(answer)
        elif as_json:
            while True:
                json_line(_ask(coor, timeout))
                time.sleep(interval)
        else:
            _watch(coor, interval, timeout)


def show(data: Mapping[str, Any]) -> None:
    """Print a status document as it stands."""
    show_view(view(read_status(data)))


def _ask(coor: CoorClient | CoorServer, timeout: float) -> dict[str, Any]:
    answer = coor.ask("STATUS", {}, timeout)
    if not answer.ok:
        raise Error(f"STATUS refused: {answer.error}")
    return answer.data


def _watch(coor: CoorClient | CoorServer, interval: float, timeout: float) -> None:
    """Show until interrupted. A logger that does not answer is said to, and asked again."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    now = read_status(_ask(coor, timeout))
    before: Status | None = None
    out = console()
    while not out.is_terminal:
        show_view(view(now, before))
        time.sleep(interval)
        before, now = now, read_status(_ask(coor, timeout))
    with Live(view(now), console=out, screen=out.is_terminal, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            try:
                before, now = now, read_status(_ask(coor, min(timeout, max(1.0, interval))))
            except Error as error:
                silent = f" NO ANSWER for {since(now.time_ns)}: {plain(str(error))} "
                live.update(Group(Text(silent, "bold white on red"), view(now)), refresh=True)
                continue
            live.update(view(now, before), refresh=True)


# --- what stands where -----------------------------------------------------------------------


def view(status: Status, before: Status | None = None) -> RenderableType:
    """The whole glance. With an earlier document of the same boot, rates too."""
    from rich.console import Group
    from rich.text import Text

    from dlog.cli.tables import Parts

    seconds = _seconds_between(before, status)
    parts: list[RenderableType] = [_head(status), _alarms(status), Text("")]
    old_runs = {run.run: run for run in before.runs} if before is not None and seconds else {}
    for run in status.runs:
        parts += [_run(run, old_runs.get(run.run), seconds, status.time_ns), Text("")]
    if not status.runs:
        parts += [Text("no run is active", "dim"), Text("")]
    if status.orphans.settled() or status.orphan_files:
        orphans = f"orphans: {count(status.orphans.settled())} events"
        parts += [Parts([orphans, _files(status.orphan_files)]), Text("")]
    if status.connections:
        parts += [_connections(status), Text("")]
    parts += [_resources(status)]
    if status.commands:
        parts += [Text(""), _commands(status)]
    if status.omitted:
        parts += [Text("left out, for size: " + ", ".join(status.omitted), "dim")]
    return Group(*parts)


def styled(word: str) -> Text:
    """A state or severity in its colour."""
    from rich.text import Text

    return Text(plain(word), _STYLES.get(word, ""))


def _seconds_between(before: Status | None, now: Status) -> float:
    """0 where they cannot be compared: the monotonic clock is another one after a restart."""
    if before is None or before.logger.boot != now.logger.boot:
        return 0.0
    return max(0.0, (now.monotonic_ns - before.monotonic_ns) / 1e9)


def _head(status: Status) -> RenderableType:
    from rich.text import Text

    from dlog.cli.tables import Parts

    logger = status.logger
    where = f"{logger.host} pid {logger.pid}, boot {logger.boot}, dlog {logger.version}"
    events = logger.addresses.get("events", "")
    return Parts(
        [
            Text(plain(logger.name), "bold"),
            Text.assemble(styled(logger.state), f" for {since(logger.since_ns, status.time_ns)}"),
            Text(moment(status.time_ns)),
            Text(plain(where), "dim"),
            Text(plain(f"events {events}") if events else "", "dim"),
        ]
    )


def _alarms(status: Status) -> RenderableType:
    from rich.text import Text

    if not status.alarms:
        return Text("no alarms", "green")
    shown = table("alarm", "", "for", "times", "what", numbers=("times",))
    for alarm in status.alarms:
        shown.add_row(
            styled(alarm.severity), plain(alarm.name), since(alarm.since_ns, status.time_ns),
            count(alarm.count), plain(alarm.text),
        )  # fmt: skip
    return shown


def _run(run: RunStatus, old: RunStatus | None, seconds: float, now_ns: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from dlog.cli.tables import Parts

    head = Parts(
        [
            Text(f"run {run.run}", "bold"),
            Text.assemble(styled(run.state), f" for {since(run.since_ns, now_ns)}"),
            Text(plain(run.comment), "dim"),
        ]
    )
    columns = [column for column in _COLUMNS if any(column.of(s.counts) for s in run.streams)]
    titles = [column.title for column in columns]
    always = ("received", "stored", "pending")
    speeds = ("events/s", "rate") if seconds else ()
    numbers = (*always, *titles, "size", *speeds)
    shown = table("stream", *numbers, "files", numbers=numbers)
    old_streams = {stream.name: stream for stream in old.streams} if old is not None else {}
    for stream in run.streams:
        counts = stream.counts
        row: list[str | Text] = [Text(plain(stream.name), "bold red" if stream.failed else "")]
        row += [count(counts.received), count(counts.stored), _odd(counts.pending, "")]
        row += [_odd(column.of(counts), column.style) for column in columns]
        row += [size(stream.payload_bytes)]
        if seconds:
            was = old_streams.get(stream.name)
            more = counts.stored - was.counts.stored if was else 0
            more_bytes = stream.payload_bytes - was.payload_bytes if was else 0
            row += [count(more / seconds), rate(more_bytes / seconds)]
        shown.add_row(
            *row, f"cannot write: {plain(stream.failed)}" if stream.failed else _files(stream.files)
        )
    rows: list[RenderableType] = [head, shown] if run.streams else [head]
    refused = by_reason(_refused(run))
    if refused:
        rows.append(Text(f"refused: {plain(refused)}", "red"))
    if run.omitted:
        rows.append(Text(f"and {run.omitted} streams more", "dim"))
    return Group(*rows)


def _refused(run: RunStatus) -> dict[str, int]:
    """Refused pieces of a run by reason, all streams together."""
    together: dict[str, int] = {}
    for stream in run.streams:
        for reason, number in stream.counts.refused.items():
            together[reason] = together.get(reason, 0) + number
    return together


def _odd(number: int, style: str) -> Text:
    """A count that is 0 when all is well: then it is hardly seen."""
    from rich.text import Text

    return Text(count(number), style) if number else Text("0", "dim")


def _files(files: list[FileStatus]) -> Text:
    from rich.text import Text

    text = Text()
    for index, file in enumerate(files[:_FILES_SHOWN]):
        text.append(", " if index else "")
        text.append(plain(file.path.rpartition("/")[2].removesuffix(".dlog")) + " ")
        text.append_text(styled(file.state)).append(f" {size(file.durable_bytes)}")
    if len(files) > _FILES_SHOWN:
        text.append(f" and {len(files) - _FILES_SHOWN} more", "dim")
    return text


def _connections(status: Status) -> RenderableType:
    # These two columns stand only where one has something to say.
    again = ("reconnects",) if any(link.reconnects for link in status.connections) else ()
    skipped = ("skipped",) if any(map(_skipped, status.connections)) else ()
    titles = ("link", "peer", "state", "for", *again, "in", "", "out", " ", "last", *skipped)
    shown = table(*titles, numbers=("reconnects", "in", "", "out", " "))
    for link in status.connections:
        shown.add_row(
            plain(link.kind), plain(_peer(link)), styled(link.state),
            since(link.since_ns, status.time_ns),
            *([_odd(link.reconnects, "")] if again else []),
            count(link.messages_in), size(link.bytes_in),
            count(link.messages_out), size(link.bytes_out),
            f"{since(link.last_message_ns, status.time_ns)} ago" if link.last_message_ns else "-",
            *([_skipped(link)] if skipped else []),
        )  # fmt: skip
    return shown


def _skipped(link: ConnectionStatus) -> str:
    return plain("; ".join(part for part in (by_reason(link.skipped), link.detail) if part))


def _peer(link: ConnectionStatus) -> str:
    """Name and place of a peer, or the address where one is expected."""
    if not link.name and not link.host:
        return link.address
    place = f"{link.host}:{link.process}" if link.process else link.host
    return f"{link.name} ({place})" if link.name else place


def _resources(status: Status) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    lines = [_disk(disk) for disk in status.disks]
    memory = status.memory
    full = memory.in_use_bytes / memory.budget_bytes if memory.budget_bytes else 0.0
    in_use = f"{size(memory.in_use_bytes)} of {size(memory.budget_bytes)}"
    lines.append(_resource("memory", _bar(full, full > 0.95), in_use))
    journal = status.journal
    lines.append(
        _resource(
            "journal", size(journal.size_bytes), Text(f"{count(journal.commits)} commits", "dim"),
            Text("FULL" if journal.full else "", "bold red"),
        )
    )  # fmt: skip
    latency = status.latency
    if latency.samples:
        lines.append(
            _resource(
                "acks", f"median {latency.p50_ms:.1f} ms", f"p99 {latency.p99_ms:.1f} ms",
                f"max {latency.max_ms:.1f} ms", f"of the last {count(latency.samples)}",
            )
        )  # fmt: skip
    return Group(*lines)


def _disk(disk: DiskStatus) -> RenderableType:
    from rich.text import Text

    used = 1 - disk.free_bytes / disk.total_bytes if disk.total_bytes else 0.0
    return _resource(
        "disk", plain(disk.path), _bar(used, disk.low),
        f"{size(disk.free_bytes)} free of {size(disk.total_bytes)}",
        Text(f"stops below {size(disk.low_water_bytes)}", "dim"),
        Text("LOW: no credit for the sources" if disk.low else "", "bold red"),
        Text(plain(disk.problem), "bold red"),
    )  # fmt: skip


def _resource(name: str, first: str | Text, *parts: str | Text) -> RenderableType:
    """A line that begins with the name of the resource."""
    from rich.text import Text

    from dlog.cli.tables import Parts

    return Parts([Text.assemble((f"{name:<9}", "bold"), first), *parts])


def _bar(part: float, alarming: bool) -> Text:
    from rich.text import Text

    width = 20
    filled = round(min(1.0, max(0.0, part)) * width)
    style = "bold red" if alarming else "green"
    return Text.assemble(("━" * filled, style), ("─" * (width - filled), "dim"), f" {part:4.0%}")


def _commands(status: Status) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    return Group(
        *(
            _resource(
                "command", f"{plain(done.command)} {plain(done.id)}",
                Text("done") if done.ok else Text(f"refused: {plain(done.error)}", "red"),
                Text(f"{since(done.time_ns, status.time_ns)} ago", "dim"),
            )
            for done in status.commands[-_COMMANDS_SHOWN:]
        )
    )  # fmt: skip
