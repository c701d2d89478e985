"""Writes docs/STATES.md from the tables in dlog/core/states.py and the error classes of dlog.

    python docs/make_states.py            writes it
    python docs/make_states.py --check    exits 1 where it is not what would be written

What a state means, and what becomes of an event, is written by hand, below.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dlog
from dlog.core.states import (
    CONNECTION,
    FILE,
    LOGGER,
    RUN,
    RUN_LIVE,
    ConnectionState,
    FileState,
    LoggerState,
    Machine,
    RunState,
)
from dlog.errors import DlogError, Failure

TARGET: Final = Path(__file__).resolve().parent / "STATES.md"
# What is true in each state. A state without its words breaks the generator.
# By the type too: the FAILED of a logger and that of a run are equal as texts.
MEANINGS: Final[Mapping[tuple[type, str], str]] = {
    (
        LoggerState,
        LoggerState.PREINITIALIZED,
    ): "The process runs and takes commands. No port for events is bound.",
    (
        LoggerState,
        LoggerState.INITIALIZED,
    ): "INIT's parameters hold: the event server's port is bound, the alarm "
    "server and the monitor are told, the stream defaults and the debug level are set.",
    (
        LoggerState,
        LoggerState.CONFIGURED,
    ): "The streams are known with their parameters. Both may change again.",
    (LoggerState, LoggerState.RUNNING): "At least one run is live.",
    (
        LoggerState,
        LoggerState.STOPPED,
    ): "The process ends with exit code 0. The next start begins as PREINITIALIZED.",
    (LoggerState, LoggerState.FAILED): "The process ends with the exit code of the failure.",
    (RunState, RunState.STARTING): "Committed; its files are being created.",
    (RunState, RunState.ACTIVE): "Its events are stored.",
    (
        RunState,
        RunState.PAUSED,
    ): "The sources are told to hold its events. What comes anyway is stored.",
    (
        RunState,
        RunState.ENDING,
    ): "The sources drain: each answers with its last batch for the run, or the "
    "drain time is over.",
    (RunState, RunState.ENDED): "Every file is sealed and named; the run is in the catalogue.",
    (
        RunState,
        RunState.ABORTED,
    ): "As ENDED, without the drain. What the sources still had was refused.",
    (
        RunState,
        RunState.FAILED,
    ): "Its files could not be created, or the logger fell back from a failure.",
    (
        FileState,
        FileState.CREATING,
    ): "Announced in the journal. A name may be on the disk; nothing in it is acknowledged.",
    (
        FileState,
        FileState.OPEN,
    ): "Header page and every directory level are durable, and so is every block "
    "below the durable offset D. No footer.",
    (
        FileState,
        FileState.END,
    ): "On the disk as OPEN. Full: takes late events of its range, nothing else.",
    (
        FileState,
        FileState.CLOSING,
    ): "Takes nothing. Index, closing block, sidecar, final name and mode are "
    "under way, in this order.",
    (FileState, FileState.CLOSED): "Footer, sidecar, final name and read-only mode are durable.",
    (
        FileState,
        FileState.ERROR,
    ): "Sealed at its durable offset D, without footer. What was acknowledged is "
    "below D; what was not goes to the next part.",
    (
        ConnectionState,
        ConnectionState.CONNECTING,
    ): "Nothing has come from the peer yet. It is tried again and again.",
    (ConnectionState, ConnectionState.CONNECTED): "Messages come and go.",
    (
        ConnectionState,
        ConnectionState.LOST,
    ): "It was connected. It is tried again and again, for ever.",
    (ConnectionState, ConnectionState.REFUSED): "One of the two does not want the other.",
}

INTRODUCTION: Final = """\
A pair of state and event that is not in its table is refused with an error that names the state
and what it accepts, and changes nothing. Every change of a logger, run or file state is committed
to the journal before anything follows from it; the states of connections are not kept.
"""

COMMANDS: Final = """\
Three of COOR's commands are no transitions. STATUS, which changes nothing and is not recorded, and
ACKNOWLEDGE ALARM are taken in every state, SET DEBUG in every one after INIT. PAUSE RUN, RESUME
RUN, STOP RUN and ABORT RUN are events of the run that they name (and STOP is one of each that is
live). STOP RUN, ABORT RUN or STOP given again while the first is being carried out waits for the
same end. A command with the id of an earlier one gets the recorded answer and does nothing; with
that id and another body it is refused.
"""

SIGNALS: Final = """\
SIGTERM, SIGHUP and SIGINT are not STOP: the logger stops receiving, settles what it can within
`settle_seconds` and exits 0 with the runs still active. The next start resumes them. `on_failure`
(`exit`, `initialized`, `configured`) says where a failure leads while the journal still commits; a
failure of the journal always exits.
"""

EVENTS: Final = """\
What happens to an event that comes for a run and a stream. "Refused" and "orphan" carry the reason
that they are counted by. Stored, garbage and orphan events are acknowledged once durable; refused
ones are named, with the reason, in the acknowledgement that settles them.

| logger and run | the stream is one of the run's | it is not |
|---|---|---|
| no run is active, PREINITIALIZED to CONFIGURED | not accepted: no credit is granted; what comes \
anyway is refused: `no-run-active` | the same |
| run STARTING | no credit is granted for it; what comes anyway is stored | orphan: \
`stream-unknown` |
| run ACTIVE | stored; in the stream's garbage file where its range is CLOSED \
and its source does not count anew | orphan: \
`stream-unknown` |
| run PAUSED | the sources hold it, other runs go on; what comes anyway is stored | orphan: \
`stream-unknown` |
| run ENDING | stored, until every session has said its last batch and all are committed, or the \
drain time is over | orphan: `stream-unknown` |
| run ENDED, another is active | orphan: `run-ended` | orphan: `run-ended` |
| run FAILED, another is active | orphan: `run-failed` | orphan: `run-failed` |
| run ABORTED | refused: `run-aborted` | refused: `run-aborted` |
| run unknown, another is active | orphan: `run-unknown` | orphan: `run-unknown` |

An event that a session has sent before is a duplicate: it is counted, and stands where it stood.
Garbage files lie beside the stream's own (`runs/7/photons.garbage_0001.dlog`), orphan files in
`orphans/`. Both are ordinary event files: they are read, verified and recovered like all others.
"""

ERRORS: Final = """\
An **Error** means that something is wrong and the logger runs on; a **Failure** means that it
cannot go on: the journal does not commit, its data directory is gone, an invariant is broken, a
thread died.
A command that ends on one of them exits with its code.
"""

EXIT_CODES: Final = """\
| code | every command |
|---|---|
| 0 | done |
| 1 | could not run |
| 2 | usage |
| 130 | interrupted |

| code | `dlog verify`, `dlog recover`: the verdict on the source |
|---|---|
| 0 | good |
| 3 | damaged or lost: acknowledged events, or derived parts of a closed file, as the report says |
| 4 | only an unacknowledged tail is torn |
| 5 | journal and files disagree |
| 6 | format not supported |

Several files give the worst, in the order 1, 3, 5, 6, 4, 0.

| code | `dlog start`, `dlog resume` |
|---|---|
| 66 | `resume`: nothing to resume |
| 70 | failure |
| 75 | locked by another logger |
| 78 | bad configuration: all its errors at once, each with its key; no data directory there |
"""


def document() -> str:
    """All of STATES.md."""
    parts = [
        "# States, events and errors",
        "Made by `docs/make_states.py` from `dlog/core/states.py` and the error classes: change "
        "those.",
        INTRODUCTION,
        *machine_parts("Logger", LOGGER, LoggerState.PREINITIALIZED),
        COMMANDS,
        SIGNALS,
        *machine_parts("Run", RUN, RunState.STARTING),
        "Live, so that a restart goes on with it: " + ", ".join(sorted(RUN_LIVE)) + ".",
        *machine_parts("File", FILE, FileState.CREATING),
        *machine_parts("Connection", CONNECTION, ConnectionState.CONNECTING),
        "## What becomes of an event",
        EVENTS,
        "## Errors and failures",
        ERRORS,
        error_table(),
        "## Exit codes",
        EXIT_CODES,
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def machine_parts(title: str, machine: Machine[Any, Any], first: enum.StrEnum) -> list[str]:
    """A machine's heading, diagram and table."""
    states = list(type(first))
    return [
        f"## {title}",
        diagram(machine, first, states),
        table(
            ("state", "what is true in it", "event", "leads to"),
            rows(machine, states),
        ),
    ]


def diagram(machine: Machine[Any, Any], first: enum.StrEnum, states: list[enum.StrEnum]) -> str:
    """Mermaid; the events that lead from one state to the same other share an arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (begin, event), end in machine.table.items():
        arrows.setdefault((begin, end), []).append(event)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {_node(first)}"]
    for (begin, end), events in arrows.items():
        lines.append(f"    {_node(begin)} --> {_node(end)}: {' / '.join(events)}")
    lines += [
        f"    {_node(state)} --> [*]"
        for state in states
        if not any(begin == state for begin, _ in machine.table)
    ]
    return "\n".join([*lines, "```"])


def _node(state: str) -> str:
    return str(state).replace(" ", "_")


def rows(machine: Machine[Any, Any], states: list[enum.StrEnum]) -> Iterable[tuple[str, ...]]:
    for state in states:
        accepted = [(event, end) for (begin, event), end in machine.table.items() if begin == state]
        for number, (event, end) in enumerate(accepted or [("-", "it is over")]):
            stays = "stays" if end == state else str(end)
            first = (f"**{state}**", MEANINGS[type(state), state]) if number == 0 else ("", "")
            yield (*first, str(event), stays)


def error_table() -> str:
    return table(
        ("class", "branch", "exit code", "what it says"),
        (
            (
                f"`{each.__name__}`",
                "Failure" if issubclass(each, Failure) else "Error",
                str(each.exit_code),
                _summary(each),
            )
            for each in error_classes()
        ),
    )


def error_classes() -> list[type[DlogError]]:
    """Every class of both branches, wherever it stands in dlog: first those of dlog/errors.py, in
    its order; Errors before Failures."""
    names = sorted(module.name for module in pkgutil.walk_packages(dlog.__path__, "dlog."))
    found: list[type[DlogError]] = []
    for name in ["dlog.errors", *names]:
        module = importlib.import_module(name)
        for value in vars(module).values():
            ours = inspect.isclass(value) and issubclass(value, DlogError)
            if ours and value.__module__ == name and value not in (DlogError, *found):
                found.append(value)
    return sorted(found, key=lambda each: issubclass(each, Failure))


def _summary(each: type[DlogError]) -> str:
    """The first sentences of its docstring, up to an empty line."""
    text = inspect.cleandoc(each.__doc__ or "").split("\n\n")[0]
    return " ".join(text.split()).replace("|", "\\|")


def table(titles: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    head = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return "\n".join(head + ["| " + " | ".join(line) + " |" for line in lines])


def main(arguments: list[str]) -> int:
    wanted = document()
    if arguments == ["--check"]:
        there = TARGET.read_text() if TARGET.exists() else ""
        if there != wanted:
            sys.stderr.write(f"{TARGET.name} is not what its tables say: run {sys.argv[0]}\n")
        return int(there != wanted)
    if arguments:
        sys.stderr.write(__doc__ or "")
        return 2
    TARGET.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
