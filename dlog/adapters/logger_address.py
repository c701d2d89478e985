"""Where a logger's event server listens: as given, or as the logger wrote it into its data
directory. It only reads."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from dlog.adapters.owners import why_no_permission
from dlog.limits import KIB
from dlog.model.address import FORMS, address_problem
from dlog.model.status import Whereabouts

LOGGER_FILE: Final = "logger.json"
_HOST_AND_PORT: Final = re.compile(r"[\w.-]+:\d+\Z")
_FILE_BYTES_MAX: Final = 64 * KIB


def event_address(place: str | os.PathLike[str]) -> Callable[[], str | None]:
    """How to find the address, now and again later: a logger may come back elsewhere.

    place: `tcp://HOST:PORT`, `ipc://PATH`, or a data directory. Raises `ValueError` for anything
    else. The function that is returned gives None while no logger has written its address down, and
    raises `OSError` while the directory cannot be looked into, or the socket may not be used: the
    caller asks again.
    """
    text = os.fsdecode(place)
    if "://" in text:
        if problem := address_problem(text, bound=False):
            raise ValueError(problem)
        return lambda: _permitted(text)
    directory = Path(text)
    if not text or not may_be_directory(directory):
        why = "no such directory" if not text or not directory.exists() else "not a directory"
        hint = f"; did you mean tcp://{text}?" if _HOST_AND_PORT.match(text) else ""
        raise ValueError(
            f"{text!r} is neither an address ({FORMS}) nor a data directory: {why}{hint}"
        )
    return lambda: _permitted(_written_in(directory / LOGGER_FILE))


def may_be_directory(path: Path) -> bool:
    """Whether there is a directory, or something that cannot be looked at now: no permission, or a
    network filesystem that is away for a moment."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _permitted(address: str | None) -> str | None:
    if address is not None and (problem := why_no_permission(address)):
        raise PermissionError(problem)
    return address


def _written_in(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(_FILE_BYTES_MAX), type=Whereabouts)
    except (FileNotFoundError, msgspec.MsgspecError, ValueError):
        # Not there yet, or not what it should be: it is asked for again.
        return None
    return found.event_address or None
