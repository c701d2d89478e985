"""`dlog coor`: COOR's commands from a shell. It sends one, prints the answer, decides nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from dlog.cli.groups import group
from dlog.cli.output import json_out, plain, problem, waiting, words
from dlog.cli.target import DataOption, ListenOption, ToOption, reached

if TYPE_CHECKING:
    from dlog.model.messages import Answer

app = group(
    "COOR's commands from a shell. Each is answered when it is done, and the answer is recorded: "
    "the same --id again gets it again, and does nothing."
)

TimeoutOption: TypeAlias = Annotated[
    float,
    typer.Option(
        "--timeout",
        min=0.1,
        metavar="SECONDS",
        help="Wait this long for the answer, but only 5 s where no logger runs.",
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="The answer as JSON.")]
IdOption: TypeAlias = Annotated[
    str,
    typer.Option("--id", metavar="SESSION:NUMBER", help="Give the command this id, to repeat it."),
]
ConfigOption: TypeAlias = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration.")
]
RunArgument: TypeAlias = Annotated[
    int, typer.Argument(min=1, max=2**32 - 1, metavar="RUN", help="The run number.")
]

# Ending a run waits for the sources to drain, for which INIT sets the time.
ENDING_SECONDS = 120.0
OTHER_SECONDS = 30.0


@app.command("init")
def init(
    config: ConfigOption = Path("dlog.toml"),
    data: DataOption = None,
    to: ToOption = "",
    listen: ListenOption = "",
    timeout: TimeoutOption = OTHER_SECONDS,
    as_json: JsonOption = False,
    command_id: IdOption = "",
) -> None:
    """INIT, with the [init] table of the configuration."""
    from dlog.adapters.configuration_file import configured_data, init_parameters

    parameters = init_parameters(config)
    data = data or configured_data(config, to, listen)
    _carry_out("INIT", parameters, data, to, listen, timeout, as_json, command_id)


@app.command("configure")
def configure(
    config: ConfigOption = Path("dlog.toml"),
    data: DataOption = None,
    to: ToOption = "",
    listen: ListenOption = "",
    timeout: TimeoutOption = OTHER_SECONDS,
    as_json: JsonOption = False,
    command_id: IdOption = "",
) -> None:
    """CONFIGURE, with the streams of the configuration. Runs that are active keep theirs."""
    from dlog.adapters.configuration_file import configure_parameters, configured_data

    parameters = configure_parameters(config)
    data = data or configured_data(config, to, listen)
    _carry_out("CONFIGURE", parameters, data, to, listen, timeout, as_json, command_id)


@app.command("start-run")
def start_run(
    run: RunArgument,
    comment: Annotated[str, typer.Option("--comment", help="Kept with the run.")] = "",
    data: DataOption = None,
    to: ToOption = "",
    listen: ListenOption = "",
    timeout: TimeoutOption = OTHER_SECONDS,
    as_json: JsonOption = False,
    command_id: IdOption = "",
) -> None:
    """Begin a run. Its number must be new, in the journal and on the disk."""
    parameters = {"run": run, "comment": comment}
    _carry_out("START RUN", parameters, data, to, listen, timeout, as_json, command_id)


@app.command("pause-run")
def pause_run(
    run: RunArgument,
    data: DataOption = None,
    to: ToOption = "",
    listen: ListenOption = "",
    timeout: TimeoutOption = OTHER_SECONDS,
    as_json: JsonOption = False,
    command_id: IdOption = "",
) -> None:
    """The sources hold this run's events; other runs go on."""
    _carry_out("PAUSE RUN", {"run": run}, data, to, listen, timeout, as_json, command_id)


@app.command("resume-run")
def resume_run(
    run: RunArgument,
    data: DataOption = None,
    to: ToOption = "",
    listen: ListenOption = "",
    timeout: TimeoutOption = OTHER_SECONDS,
    as_json: JsonOption = False,
    command_id: IdOption = "",
) -> None:
    """Go on with a paused run."""
    _carry_out("RESUME RUN", {"run": run}, data, to, listen, timeout, as_json, command_id)


@app.command("stop-run")
def stop_run(
    run: RunArgument,
    data: DataOption = None,
    to: ToOption = "",
    listen: ListenOption = "",
    timeout: TimeoutOption = ENDING_SECONDS,
    as_json: JsonOption = False,
    command_id: IdOption = "",
) -> None:
    """End a run: the sources drain, then its files are sealed and named."""
    _carry_out("STOP RUN", {"run": run}, data, to, listen, timeout, as_json, command_id)


@app.command("abort-run")
def abort_run(
    run: RunArgument,
    reason: Annotated[str, typer.Option("--reason", help="Kept with the run.")] = "",
    data: DataOption = None,
    to: ToOption = "",
    listen: ListenOption = "",
    timeout: TimeoutOption = ENDING_SECONDS,
    as_json: JsonOption = False,
    command_id: IdOption = "",
) -> None:
    """End a run at once: what the sources still hold of it is refused."""
    parameters = {"run": run, "reason": reason}
    _carry_out("ABORT RUN", parameters, data, to, listen, timeout, as_json, command_id)


@app.command("status")
def status(
    data: DataOption = None,
    to: ToOption = "",
    listen: ListenOption = "",
    timeout: TimeoutOption = OTHER_SECONDS,
    as_json: JsonOption = False,
    command_id: IdOption = "",
) -> None:
    """STATUS: what the logger is doing. `dlog status` shows the same, and can watch."""
    _carry_out("STATUS", {}, data, to, listen, timeout, as_json, command_id)


@app.command("set-debug")
def set_debug(
    level: Annotated[str, typer.Argument(help="debug, info, warning or error.")],
    data: DataOption = None,
    to: ToOption = "",
    listen: ListenOption = "",
    timeout: TimeoutOption = OTHER_SECONDS,
    as_json: JsonOption = False,
    command_id: IdOption = "",
) -> None:
    """Set how much the logger logs."""
    _carry_out("SET DEBUG", {"level": level}, data, to, listen, timeout, as_json, command_id)


@app.command("stop")
def stop(
    data: DataOption = None,
    to: ToOption = "",
    listen: ListenOption = "",
    timeout: TimeoutOption = ENDING_SECONDS,
    as_json: JsonOption = False,
    command_id: IdOption = "",
) -> None:
    """End the runs that are active, then the logger."""
    _carry_out("STOP", {}, data, to, listen, timeout, as_json, command_id)


def _carry_out(
    command: str,
    parameters: dict[str, Any],
    data: Path | None,
    to: str,
    listen: str,
    timeout: float,
    as_json: bool,
    command_id: str,
) -> None:
    """Ask, print the answer, exit 1 where the logger refused it."""
    answer = asked(command, parameters, data, to, listen, timeout, command_id)
    if as_json:
        json_out(answer)
    elif not answer.ok:
        problem(f"{command} refused: {plain(answer.error)}")
    elif command == "STATUS":
        from dlog.cli.status import show

        show(answer.data)
    else:
        _tell(command, answer)
    if not answer.ok:
        raise typer.Exit(1)


def asked(
    command: str,
    parameters: dict[str, Any],
    data: Path | None,
    to: str,
    listen: str,
    timeout: float,
    command_id: str,
) -> Answer:
    """The answer, also where the logger refuses the command."""
    from dlog.adapters.coor_link import NoAnswer

    given = _parse_id(command_id)
    with reached(data, to, listen, name="dlog-coor") as coor:
        try:
            with waiting(f"{command} ..."):
                answer = coor.ask(command, parameters, timeout, command_id=given)
        except NoAnswer as error:
            session, number = given or (coor.session, 1)
            if error.sent:
                error.add_note(f"It may be carried out. To ask again: --id {session}:{number}")
            raise
        for request in coor.requests():
            runs = ", ".join(map(str, request.runs))
            words(f"{request.name} asks to {request.request} run {runs}: {request.reason}")
    return answer


def _tell(command: str, answer: Answer) -> None:
    """What was done, for people."""
    said = ", ".join(
        f"{key} {_said(value)}" for key, value in answer.data.items() if key != "not_closed"
    )
    again = " (the recorded answer)" if answer.repeated else ""
    words(f"{command} done, logger {answer.state}{again}{': ' if said else ''}{said}")
    for file in answer.data.get("not_closed", []):
        words(f"not closed, and tried again later: {file}")


def _said(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _parse_id(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    match = re.fullmatch(r"([0-9a-fA-F]{2,64}):(\d{1,18})", text)
    if match is None:
        raise typer.BadParameter("--id: SESSION:NUMBER, the session in hexadecimal digits")
    return match[1].lower(), int(match[2])
