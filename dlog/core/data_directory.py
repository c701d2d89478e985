"""What a directory is to a logger, by what stands in it: decided here, looked at elsewhere.

`dlog create` leaves the file CREATED in a new data directory. The first start that uses it adds
the file MARK with the logger's uuid. So a mount point without its disk is not taken for a new
directory, nor a disk of one logger for that of another. docs/FORMAT.md specifies both files.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from dlog.errors import ConfigurationError

CREATED: Final = "dlog-created"
MARK: Final = "dlog-directory"
JOURNAL: Final = "journal"
# What a filesystem itself puts at its root.
_NO_CONTENT: Final = frozenset({"lost+found"})
_NAMES_TOLD_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Found:
    """names: what stands in the directory. mark: the uuid in its mark, "" for none."""

    names: tuple[str, ...]
    mark: str = ""

    @property
    def created(self) -> bool:
        return CREATED in self.names

    @property
    def content(self) -> str:
        """In words."""
        names = [name for name in self.names if name not in _NO_CONTENT]
        if not names:
            return "it is empty"
        more = ", …" if len(names) > _NAMES_TOLD_MAX else ""
        return f"it holds {', '.join(names[:_NAMES_TOLD_MAX])}{more}"


def why_not_created(found: Found) -> str:
    """Why `dlog create` makes no data directory of it; "" where it does, or did before."""
    if found.mark or JOURNAL in found.names:
        return f"it is the data directory of a logger already{_of(found.mark)}"
    if found.created or all(name in _NO_CONTENT for name in found.names):
        return ""
    return f"a data directory begins empty, and {found.content}"


class First(enum.Enum):
    """The directory with the journal."""

    GO_ON = "it has a journal"
    BEGIN = "created, and never used"
    JOURNAL_LOST = "used, and its journal is gone"
    NOT_CREATED = "no data directory"


def first_directory(found: Found) -> First:
    if JOURNAL in found.names:
        return First.GO_ON
    if found.mark:
        return First.JOURNAL_LOST
    return First.BEGIN if found.created else First.NOT_CREATED


class Further(enum.Enum):
    """Any other data directory of the configuration."""

    USE = "it has this logger's mark"
    CLAIM = "created, and never used: it gets this logger's mark"
    AWAY = "it was used, and what stands there now is not it: a storage error"
    REFUSE = "an error of the configuration"


def further_directory(found: Found, uuid: str, *, known: bool) -> tuple[Further, str]:
    """What to do with it, and why. known: the journal says that it was used before.

    | mark      | created | known | then   |
    |-----------|---------|-------|--------|
    | this one  |         |       | USE    |
    | another's |         | yes   | AWAY   |
    | another's |         | no    | REFUSE |
    | none      | yes     |       | CLAIM  | also known: who lost a disk creates its place anew
    | none      | no      | yes   | AWAY   |
    | none      | no      | no    | REFUSE |
    """
    if found.mark == uuid:
        return Further.USE, ""
    otherwise = Further.AWAY if known else Further.REFUSE
    if found.mark:
        return otherwise, f"it is a data directory of another logger, {found.mark}"
    if found.created:
        return Further.CLAIM, ""
    if known:
        return Further.AWAY, f"its mark {MARK} is gone, {found.content}; is its disk mounted?"
    return Further.REFUSE, f"it is no data directory, {found.content}"


def directories_in_use(
    configured: tuple[str, ...],
    known: tuple[str, ...],
    *,
    held: Collection[int],
    live: Collection[int],
) -> tuple[str, ...]:
    """The data directories of this start: those of the configuration, and behind them those that it
    leaves out although the journal cannot. Raises `ConfigurationError`.

    known: the journal's. held: positions of those with something that is not settled. live: the
    live runs, which keep all of them. The first, with the journal, may have moved.
    """
    needed = max(held, default=0) + 1
    if live:
        needed, held = len(known), range(1, max(len(known), len(configured)))
    moved = [d for d in sorted(held) if 0 < d < len(configured)]
    moved = [d for d in moved if configured[d : d + 1] != known[d : d + 1]]
    if moved and live:
        raise ConfigurationError(
            [
                f"logger.data: run {', '.join(map(str, sorted(live)))} is active with the data "
                f"directories {', '.join(known)}; the configuration has {', '.join(configured)}"
            ]
        )
    if moved:
        raise ConfigurationError(
            [
                f"logger.data: {known[d]} still holds files that are not closed, or tails in "
                f"quarantine; it must stay at position {d}"
                for d in moved
            ]
        )
    return (*configured, *known[len(configured) : needed])


def how_to_create(path: str) -> str:
    """The end of each sentence about a directory that is none."""
    return f"is its disk mounted? `dlog create {path}` makes a new data directory"


def _of(mark: str) -> str:
    return f" ({mark})" if mark else ""
