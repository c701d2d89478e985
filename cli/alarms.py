"""`dlog alarms`: the alarms of a logger as they stand, and the acknowledgement of one.

It shows and asks; which alarm may be acknowledged is the logger's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from dlog.cli.coor import OTHER_SECONDS, IdOption, JsonOption, TimeoutOption, asked
from dlog.cli.groups import group
from dlog.cli.output import json_out, plain, problem, table, words
from dlog.cli.output import show as show_view
from dlog.cli.target import DataOption, ListenOption, ToOption

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dlog.model.status import Status

app = group("The alarms of a logger as they stand: what each says, and when it goes away.")


class _Target(NamedTuple):
    data: Path | None
    to: str
    listen: str


@app.callback(invoke_without_command=True, no_args_is_help=False)
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
    json_out(_as_data(status)) if as_json else show_view(_view(status))


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


def _view(status: Status) -> RenderableType:
    from rich.text import Text

    from dlog.cli.status import styled
    from dlog.quantities import count, since

    if not status.alarms:
        return Text("no alarms", "green")
    shown = table("alarm", "", "for", "times", "what", "until", numbers=("times",))
    for alarm in status.alarms:
        shown.add_row(
            styled(alarm.severity), plain(alarm.name), since(alarm.since_ns, status.time_ns),
            count(alarm.count), plain(alarm.text), _until(alarm.name),
        )  # fmt: skip
    return shown
