"""`dlog send`: a Collector/Router that replays recorded events. It reads the options, starts the
replay and prints how it went; the replay itself is in `send_replay.py`."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dlog.cli.output import json_out, progress, words
from dlog.cli.target import DEFAULT_DATA, DataOption, ToOption, checked_address
from dlog.errors import Error
from dlog.quantities import by_reason, count, duration, events, rate, size

if TYPE_CHECKING:
    from dlog.inputs import InputItem
    from dlog.replay.replay import Item, Outcome
    from dlog.replay.saved_state import SendState, StateFile

_RUN_MAX: Final = 2**32 - 1


def command(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Recordings, or folders of events.")
    ],
    run: Annotated[
        int, typer.Option("--run", min=1, max=_RUN_MAX, metavar="N", help="The run they go to.")
    ],
    data: DataOption = None,
    to: ToOption = "",
    name: Annotated[
        str, typer.Option("--name", help="The source's name (default: from the first file).")
    ] = "",
    stream: Annotated[
        str, typer.Option("--stream", metavar="NAME", help="One stream for all events.")
    ] = "",
    size_classes: Annotated[
        str,
        typer.Option(
            "--size-classes", metavar="CLASSES",
            help="Streams by size: 1000,3000 or small=1000,large or exact.",
        ),
    ] = "",
    by_label: Annotated[
        str,
        typer.Option(
            "--by-label", metavar="PATTERN",
            help="Streams by label: what ends the stream's part of it, or a pattern with a group.",
        ),
    ] = "",
    format_name: Annotated[
        str, typer.Option("--format", metavar="NAME", help="The format (default: by content).")
    ] = "",
    format_options: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="An option of the format."),
    ] = None,
    events_per_second: Annotated[
        float, typer.Option("--rate", min=0.0, metavar="N", help="Events a second (0: at once).")
    ] = 0.0,
    first_number: Annotated[
        int,
        typer.Option(
            "--first-number", min=0, max=2**63, metavar="N",
            help="Number of the first event; the following ones count on.",
        ),
    ] = 0,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the logger, and for the run to be active.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", min=0.1, metavar="SECONDS",
            help="Give up when nothing was acknowledged for so long (default: never).",
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget where an earlier try stopped; begin anew.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Send once more what was sent completely before.")
    ] = False,
    state_path: Annotated[
        Path | None,
        typer.Option("--state", metavar="FILE", help="Where to keep how far it is."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False,
) -> None:  # fmt: skip
    """Replay recordings into a run, as a Collector/Router; end when all is acknowledged.

    Every event is stored exactly once, also when this command or the logger is killed: the same
    command goes on where it stopped. It keeps that in a state file, by default below
    ~/.local/state/dlog/send. Events that come late, or whose stream the run does not have, are
    kept aside, and it says so.
    """
    from dlog.inputs import installed, parsed_options, stream_rule
    from dlog.model.ids import valid_source_name
    from dlog.replay.replay import Outcome, Replay, packing_of
    from dlog.replay.saved_state import (
        ACKNOWLEDGED,
        DONE,
        SENDING,
        VERSION,
        SendState,
        StateFile,
        default_name,
        default_state_path,
        identity,
        replay_key,
    )

    if name and not valid_source_name(name):
        raise typer.BadParameter(f"--name {name}: letters, digits, _ . : @ -, 64 at most")
    target = _target(data, to)
    rule = stream_rule(
        stream=stream or None, size_classes=size_classes or None, by_label=by_label or None
    )
    parsed = parsed_options(format_options or [])
    catalogue = installed()
    files = [identity(path) for path in paths]
    formats = [format_name or catalogue.recognised(path).name for path in paths]
    key = replay_key(files, run, target, name or None)
    asked = SendState(
        version=VERSION,
        phase=SENDING,
        session=secrets.token_hex(16),
        name=name or default_name(files, key),
        run=run,
        target=target,
        files=files,
        options={
            "run": str(run),
            "--stream": stream,
            "--size-classes": size_classes,
            "--by-label": by_label,
            "--format": ", ".join(formats),
            "--option": ", ".join(f"{k}={v}" for k, v in sorted(parsed.items())),
            "--first-number": str(first_number),
            "packing": str(packing_of(events_per_second)),
        },
    )

    def items() -> Iterator[Item]:
        from dlog.inputs import assigned

        found: Iterator[InputItem] = chain.from_iterable(
            catalogue.events(path, parsed, format_name=of)
            for path, of in zip(paths, formats, strict=True)
        )
        yield from assigned(found, rule)

    label = f"run {run}"
    with _interrupt_told(label), StateFile(state_path or default_state_path(key)) as file:
        state = _begun(file, asked, restart=restart, again=again)
        before = state.phase == DONE
        with progress(label, sum(f.size for f in files), unit="bytes") as shown:
            replay = Replay(
                target, file, state,
                rate=events_per_second, first_number=first_number, wait=wait, timeout=timeout,
                advance=shown.advance,
                tell=lambda why: shown.say(f"{label}: {why}" if why else label),
            )  # fmt: skip
            if state.phase == ACKNOWLEDGED:
                replay.say_goodbye()
            outcome = Outcome(**state.summary) if state.phase == DONE else replay.run(items())
    _say(state, outcome, as_json=as_json, before=before)
    if not outcome.complete:
        raise typer.Exit(1)


@contextmanager
def _interrupt_told(label: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        said = f"{label}: interrupted; the same command sends the rest"
        raise KeyboardInterrupt(said) from None


def _target(data: Path | None, to: str) -> str:
    from dlog.adapters.logger_address import may_be_directory

    if data and to:
        raise typer.BadParameter("give one of --data and --to")
    if to:
        return checked_address(to, "--to", bound=False)
    if not data and not DEFAULT_DATA.is_dir():
        raise typer.BadParameter("which logger? -d DATA or --to ADDRESS")
    directory = data or DEFAULT_DATA
    if not may_be_directory(directory):
        raise Error(f"{directory} is not a directory")
    return str(directory.resolve())


def _begun(file: StateFile, asked: SendState, *, restart: bool, again: bool) -> SendState:
    """The state to go on with: an earlier one of the same replay, or a new one."""
    from dlog.replay.saved_state import DONE, SendRefused, differences

    before = None if restart else file.read()
    if before is None or (again and before.phase == DONE):
        file.save(asked)
        return asked
    different = differences(before, asked)
    if not different:
        return before
    if before.phase == DONE:
        file.save(asked)
        return asked
    raise SendRefused(
        "a replay was begun that is not this one: " + "; ".join(different)
        + ". --restart begins a new session (what was stored already is stored again then)"
    )  # fmt: skip


def _head(state: SendState) -> dict[str, Any]:
    return {
        "run": state.run,
        "name": state.name,
        "session": state.session,
        "files": [file.path for file in state.files],
    }


def _aside(run: int, aside: dict[str, Any], streams: list[str]) -> str:
    """Where events are that are not in the files of their stream."""
    what = f"{events(aside['events'])} for stream {aside['stream'] or '(others)'}"
    if aside["why"] == "late":
        return f"  {what} came late, after the range was closed, and went to the garbage file"
    why = aside["why"]
    if why == "stream-unknown":
        why = f"run {run} has no such stream"
        why += f"; its streams: {', '.join(streams)}" if streams else ""
    return f"  {what} went to the orphan file: {why}"


def _say(state: SendState, outcome: Outcome, *, as_json: bool, before: bool) -> None:
    """How it went, now or (`before`) in an earlier process."""
    for torn in outcome.torn:
        words(
            f"torn: {count(torn['size_bytes'])} B at byte {torn['offset_bytes']} are no whole "
            f"event ({torn['reason']}); not sent"
        )
    took = f"{size(outcome.payload_bytes)} in {duration(outcome.seconds)}"
    speed = f", {rate(outcome.payload_bytes / outcome.seconds)}" if outcome.seconds else ""
    stored = f"{count(outcome.stored)} of {count(outcome.events)} events stored"
    words(f"run {state.run}: {stored}; {took}{speed}")
    for name, counts in outcome.streams.items():
        lost = f"; refused: {by_reason(counts['refused'])}" if counts["refused"] else ""
        stored = count(counts["acknowledged"] - counts["garbage"] - counts["orphan"])
        words(f"  {name}: {stored}{lost}")
    for aside in outcome.diverted:
        words(_aside(state.run, aside, outcome.run_streams))
    if outcome.not_sent:
        words(f"run {state.run} was ended: {count(outcome.not_sent)} events were not sent")
    if before:
        words("all this was sent before, by the same command; --again sends it once more")
    if as_json:
        json_out({**_head(state), **outcome.summary(), "sent_before": before})
