"""The kinds of alarms: which event clears each, and which COOR may acknowledge.

The first word of an alarm's name is its kind; what follows says of what it tells. The table in
docs/OPERATING.md, "Alarms", says the same. It does no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from dlog.errors import CommandRefused
from dlog.model.messages import AlarmState

OVERFLOW: Final = "too-many-alarms"


class AlarmKind(NamedTuple):
    """cleared_when: each of the events that clear it. acknowledged: whether it tells of something
    that happened, which COOR may acknowledge; otherwise it tells of what still is. found_again: a
    start finds the cause again, and raises it with the same text."""

    cleared_when: tuple[str, ...]
    acknowledged: bool
    found_again: bool = False

    @property
    def until(self) -> str:
        """When it goes away, for people."""
        ways = [*self.cleared_when, *(["it is acknowledged"] if self.acknowledged else [])]
        return ", or ".join(filter(None, [", ".join(ways[:-1]), ways[-1]]))


def _is(*cleared_when: str) -> AlarmKind:
    """Something that is, until one of these events."""
    return AlarmKind(cleared_when, acknowledged=False)


def _happened(*cleared_when: str) -> AlarmKind:
    """Something that happened, until it is acknowledged or one of these events."""
    return AlarmKind(cleared_when, acknowledged=True)


_SESSION_OVER: Final = "the session of the source ends"
_NEXT_RUN: Final = "another run begins after this one is over"

KINDS: Final[Mapping[str, AlarmKind]] = MappingProxyType(
    {
        "disk-low": _is(
            "`resume_bytes` are free in each data directory and the journal is not full"
        ),
        "journal-full": _is("the journal takes a commit"),
        "stalled": _is("the stream writes again", "its run is over"),
        "directory": _is("it can be reached again (if the start missed it: at the next start)"),
        "left-out": _is("no file in it is open"),
        "configuration": _is("the logger is started with a configuration that holds"),
        "event-address": _happened(),
        "storage": _happened(),
        "file-lost": _happened(),
        "hung": _is("the directory answers"),
        "journal-lock": _is("the file is there again: the next start makes it"),
        "close": _is("the part is sealed, which is tried every 5 s"),
        "file": AlarmKind(("the file is settled",), acknowledged=True, found_again=True),
        "garbage": _happened(_NEXT_RUN),
        "orphan": _happened(_NEXT_RUN),
        "source-lost": _happened("the source is back", "another one has its name", _SESSION_OVER),
        "name-in-use": _is("the second source has the name", "it has not asked for 3 s"),
        "malformed": _happened(_SESSION_OVER),
        "window": _happened(_SESSION_OVER),
        "refused": _happened(_SESSION_OVER),
        "gap": _happened("the source is taken in again", _SESSION_OVER),
        "failure": _is("the logger is started again"),
        OVERFLOW: _happened("no other alarm stands"),
    }
)


def kind_of(name: str) -> str:
    """The kind of the alarm of that name."""
    return name.partition(" ")[0]


def chosen(raised: Sequence[AlarmState], name: str, subject: str) -> list[AlarmState]:
    """The alarms that are to be acknowledged: the one of this kind and subject, or without a
    subject all of the kind. Raises `CommandRefused` where there is none, or where its cause still
    is."""
    wanted = f"{name} {subject}" if subject else name
    found = [alarm for alarm in raised if wanted == alarm.name]
    if not found and not subject:
        found = [alarm for alarm in raised if kind_of(alarm.name) == name]
    if not found:
        stand = ", ".join(alarm.name for alarm in raised)
        raise CommandRefused(
            f"no alarm {wanted!r} stands; " + (f"these do: {stand}" if stand else "none does")
        )
    kind = KINDS[kind_of(found[0].name)]
    if not kind.acknowledged:
        raise CommandRefused(
            f"{found[0].name} cannot be acknowledged, since its cause may still be there; it goes "
            f"away when {kind.until}"
        )
    return found
