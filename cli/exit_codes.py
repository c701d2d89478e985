"""Every exit code of every command, in one table; `--help` and the README tell it.

The same mistake has the same code in each command: a word, option or number that the command line
cannot take is 2; what is not there (a file, a data directory, a run, a stream, a logger that
answers) is 1; a configuration that does not hold, or is not there, is 78.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MEANINGS: Final[Mapping[int, str]] = {
    0: "done",
    1: "could not run",
    2: "wrong use of the command line",
    3: "damaged or lost, or a sidecar is gone",
    4: "only an unacknowledged tail is torn",
    5: "journal and files disagree",
    6: "format not supported",
    66: "nothing to resume",
    70: "failure: the logger, or the journal, cannot be used",
    75: "locked by another logger",
    78: "bad configuration",
    129: "ended by SIGHUP",
    130: "interrupted (Ctrl-C)",
    143: "ended by SIGTERM",
}

_ALWAYS: Final[Mapping[int, str]] = {0: "", 1: "", 2: "", 130: ""}
_PLAYS: Final[Mapping[int, str]] = {129: "", 143: ""}  # ends its own processes first
_VERDICTS: Final[Mapping[int, str]] = {
    0: "good", 1: "something could not be checked", 3: "", 4: "", 5: "", 6: "",
}  # fmt: skip
_LOGGER: Final[Mapping[int, str]] = {
    0: "ended by STOP, SIGTERM, Ctrl-C or a closed terminal",
    1: "could not run",
    70: "failure: the logger cannot go on",
    75: "",
    78: "",
    130: "interrupted (Ctrl-C) before it ran",
}
_COOR: Final[Mapping[int, str]] = {1: "refused, or no logger answers"}

# By the words of the command. "" stands for what MEANINGS says.
OF_COMMAND: Final[Mapping[str, Mapping[int, str]]] = {
    "create": {
        0: "made, or made before and not used yet",
        1: "something stands there already, or the filesystem refused",
        78: "",
    },
    "start": _LOGGER,
    "resume": {**_LOGGER, 66: ""},
    "status": {1: "no logger answers"},
    **{
        f"coor {name}": _COOR
        for name in (
            "start-run", "pause-run", "resume-run", "stop-run", "abort-run", "status", "set-debug",
            "stop",
        )
    },
    "coor init": {**_COOR, 78: ""},
    "coor configure": {**_COOR, 78: ""},
    "alarms": {1: "no logger answers"},
    "alarms ack": {1: "no such alarm, one that ends with its cause, or no logger answers"},
    "send": {
        0: "all is stored",
        1: "not all is stored where it was sent to, or it could not run",
    },
    "ls": {},
    "info": {1: "could not be read", 6: ""},
    "cat": {1: "could not be read, or blocks before the last one are missing", 6: ""},
    "verify": _VERDICTS,
    "recover": {**_VERDICTS, 1: "an output could not be written, or a source not be read"},
    "journal rebuild": {75: "", 70: "failure: the new journal cannot be written"},
    "journal check": {
        0: "good", 1: "there is none", 5: "it cannot be read, or contradicts itself or the files",
        6: "schema not supported",
    },
    "faults list": {},
    "faults run": {0: "everything held", 1: "something did not hold, or could not run", **_PLAYS},
    "alarm-server": {},
    "monitor": {},
    "demo": {
        0: "every acknowledged event stands exactly once",
        1: "that does not hold, or the demo could not run",
        **_PLAYS,
    },
    "bench": _PLAYS,
}  # fmt: skip


def exit_codes_of(command: str) -> dict[int, str]:
    """The codes that a command can end with, and what each one says."""
    codes = {**_ALWAYS, **OF_COMMAND[command]}
    return {code: codes[code] or MEANINGS[code] for code in sorted(codes)}
