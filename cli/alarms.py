"""`dlog alarms`: the alarms of a logger as they stand, and the acknowledgement of one.

It shows and asks; which alarm may be acknowledged is the logger's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from dlog.cli.coor import OTHER_SECONDS, IdOption, JsonOption, TimeoutOption, asked
from dlog.cli.output import console, json_out, plain, print_in_full, problem, table, words
from dlog.cli.target import DataOption, ListenOption, ToOption

if TYPE_CHECKING:
    from rich.table import Table

    from dlog.model.status import Status

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The alarms of a logger as they stand: what each says, and when it goes away.",
)

COLUMNS_FOR_ALL: Final = 100  # of a terminal; on a narrower one what it waits for goes below


class _Target(NamedTuple):
    data: Path | None
    to: str
    listen: str


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    data: DataOption = None,
    to: ToOption = "",
    listen: ListenOption = "",
    timeout: TimeoutOption = OTHER_SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="A list, one object an alarm.")] = False,
) -> None:
    """The alarms of a logger as they stand: what each says, and when it goes away."""
    from dlog.model.status import read_status

    context.obj = _Target(data, to, listen)
    if context.invoked_subcommand is not None:
        return
    answer = asked("STATUS", {}, data, to, listen, timeout, "")
    if not answer.ok:
        problem(f"STATUS refused: {plain(answer.error)}")
        raise typer.Exit(1)
    status = read_status(answer.data)
    json_out(_as_data(status)) if as_json else _show(status)


@app.command("ack")
def acknowledge(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The first word of the alarm, such as storage.")
    ],
    subject: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SUBJECT",
            help="What follows it, such as run 7 stream waves. Without it: all of that name.",
        ),
    ] = None,
    data: DataOption = None,
    to: ToOption = "",
    listen: ListenOption = "",
    timeout: TimeoutOption = OTHER_SECONDS,
    as_json: JsonOption = False,
    command_id: IdOption = "",
) -> None:
    """Acknowledge an alarm: it goes away until it is raised anew.

    An alarm whose cause may still be there goes away with that, and is not acknowledged.
    """
    if not (data or to or listen):
        data, to, listen = context.obj
    parameters = {"name": name, "subject": " ".join(subject or [])}
    answer = asked("ACKNOWLEDGE ALARM", parameters, data, to, listen, timeout, command_id)
    if as_json:
        json_out(answer)
    elif not answer.ok:
        problem(plain(answer.error))
    else:
        for alarm in answer.data["alarms"]:
            words(f"acknowledged: {alarm}")
    if not answer.ok:
        raise typer.Exit(1)


def _until(name: str) -> str:
    """When the alarm goes away; a later logger may have kinds that are not known here."""
    from dlog.core.alarm_kinds import KINDS, kind_of

    kind = KINDS.get(kind_of(name))
    return kind.until.replace("`", "") if kind is not None else ""


def _as_data(status: Status) -> list[dict[str, object]]:
    return [
        {
            "name": alarm.name, "severity": alarm.severity, "text": alarm.text,
            "since_ns": alarm.since_ns, "count": alarm.count, "until": _until(alarm.name),
        }
        for alarm in status.alarms
    ]  # fmt: skip


def _show(status: Status) -> None:
    from rich.text import Text

    if not status.alarms:
        console().print(Text("no alarms", "green"))
    elif sys.stdout.isatty():
        out = console()
        out.print(_table(status, below=out.width < COLUMNS_FOR_ALL))
    else:
        print_in_full(_table(status, below=False))


def _table(status: Status, *, below: bool) -> Table:
    """below: when an alarm goes away stands below what it says, and not beside it."""
    from rich.text import Text

    from dlog.cli.status import styled
    from dlog.quantities import count, since

    beside = () if below else ("until",)
    shown = table("alarm", "", "for", "times", "what", *beside, numbers=("times",))
    for alarm in status.alarms:
        what = Text(plain(alarm.text))
        until = _until(alarm.name)
        if below and until:
            what.append(f"\nuntil {until}", "dim")
        shown.add_row(
            styled(alarm.severity), plain(alarm.name), since(alarm.since_ns, status.time_ns),
            count(alarm.count), what, *([] if below else [until]),
        )  # fmt: skip
    return shown
