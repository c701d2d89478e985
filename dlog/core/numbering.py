"""Numbering: how far the event numbers of a stream have come, and which sources count anew. No I/O.

No single number decides anything for the events after it. A wild number is not followed, and a
source whose numbers begin anew below the closed ranges is not late. docs/decisions/0020 has the
cases.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlog.limits import ANEW_SESSIONS_MAX
from dlog.model.ids import SessionId

# A number that is at most so far above all before it is followed at once: the next one may be.
REACH: Final = 100
# Numbers further above are followed when so many of the last LOOKED_AT events have such ones.
CONFIRMED_BY: Final = 32
LOOKED_AT: Final = 64
# So many late events of a session, one after the other and with close numbers, are no latecomers:
# the source counts anew.
ANEW_AFTER: Final = 100
# A counter that began anew shows 0, or 1, or a number this many bits shorter than the boundary.
ANEW_BITS: Final = 16

_NONE: Final = np.empty(0, np.uint64)


class Numbering:
    """highest: the number up to which the stream's events are followed, -1 for none. A range closes
    there, whatever stands above it."""

    __slots__ = ("_last", "highest")

    def __init__(self, highest: int) -> None:
        self.highest = highest
        self._last = _NONE  # numbers of the last events, since some came that were out of reach

    def is_near(self, number: int) -> bool:
        return number <= self.highest + REACH

    def follows(self, lowest: int, highest: int, events: int) -> bool:
        """So many events were stored in the current part, with numbers between these two. False
        where one must `look` at them."""
        near = self.highest + REACH
        if lowest > near or (highest > near and highest - lowest >= events):
            return False
        if highest > self.highest:
            self.highest = highest
        self._last = _NONE
        return True

    def look(self, numbers: NDArray[Any], highest: int) -> None:
        """At the numbers of such events; highest: of them."""
        if _ends_as_usual(numbers, highest):
            self.highest = highest
            self._last = _NONE
        else:
            self._last = np.concatenate((self._last, numbers[-LOOKED_AT:]))[-LOOKED_AT:]
            self.highest = max(self.highest, _followed(self._last, self.highest))

    def bound(self) -> int:
        """Where a range closes now. Of a stream that begins far from 0 and whose first part is full
        before that is confirmed, these first numbers are all there is to go by."""
        if self.highest < 0 and len(self._last) > 1:
            self.highest = _top(np.sort(self._last))
        return self.highest


def _ends_as_usual(numbers: NDArray[Any], highest: int) -> bool:
    """Whether they rise to the highest with a last step like those before it: what a batch of many
    events does, of which other streams or sources have some."""
    if len(numbers) <= CONFIRMED_BY:
        return False
    early, before = int(numbers[-1 - CONFIRMED_BY]), int(numbers[-2])
    middle = int(numbers[-1 - CONFIRMED_BY // 2])
    rises = early <= middle <= before <= highest == int(numbers[-1])
    return rises and highest - middle <= REACH * (middle - early)


def _followed(last: NDArray[np.uint64], highest: int) -> int:
    """How far the last events lead, of which some are out of reach."""
    above = np.sort(last[last > highest])
    beyond = above[above > highest + REACH]
    if len(beyond) >= CONFIRMED_BY:
        return _top(beyond)
    steps = np.diff(above, prepend=np.uint64(max(highest, 0)))
    wide = np.flatnonzero(steps > REACH)
    reached = int(wide[0]) if len(wide) else len(above)
    return int(above[reached - 1]) if reached else highest


def _top(numbers: NDArray[np.uint64]) -> int:
    """The end of the bulk of sorted numbers: upward from the median, as long as no step is REACH
    times as wide as those below the median usually are."""
    steps = np.diff(numbers)
    upper = (len(numbers) - 1) // 2
    usual = max(1, int(np.sort(steps[:upper])[upper // 2])) if upper else 1
    wide = np.flatnonzero(steps[upper:] > min(REACH * usual, 2**64 - 1))
    return int(numbers[upper + int(wide[0])]) if len(wide) else int(numbers[-1])


class _Row(NamedTuple):
    """The late events of a session, one after the other, each number at most REACH above the one
    before; the last number. ANEW_AFTER events and more: the session counts anew."""

    events: int
    last: int


class Latecomers:
    """The sessions of a stream whose events are late, or count anew; at most ANEW_SESSIONS_MAX."""

    __slots__ = ("sessions",)

    def __init__(self, anew: Iterable[bytes]) -> None:
        self.sessions = {SessionId(session): _Row(ANEW_AFTER, 0) for session in anew}

    def counts_anew(self, session: SessionId) -> bool:
        row = self.sessions.get(session)
        return row is not None and row.events >= ANEW_AFTER

    @property
    def anew(self) -> tuple[SessionId, ...]:
        """The sessions that count anew, for the journal."""
        return tuple(s for s, row in self.sessions.items() if row.events >= ANEW_AFTER)

    def came(
        self,
        session: SessionId,
        numbers: NDArray[Any],
        positions: NDArray[Any],
        closed: NDArray[Any],
        boundary: int,
    ) -> bool:
        """Events of the session came late, with these numbers, not above the boundary. Whether it
        counts anew: then those whose ranges are closed belong to the current part.

        positions: of the events in their session. Numbers that are these were given by the source
        library, which begins at 0 with each start of a source.
        """
        row = self.sessions.pop(session, None)
        anew = row is not None and row.events >= ANEW_AFTER
        if len(closed) and not anew:
            row = _longer(row, closed)
        if not anew and (
            int(numbers.min()) <= max(1, boundary >> ANEW_BITS)
            or bool((numbers == positions).any())
        ):
            row = _Row(ANEW_AFTER, 0)
        if row is not None:
            self.sessions[session] = row
        while len(self.sessions) > ANEW_SESSIONS_MAX:
            del self.sessions[next(iter(self.sessions))]
        return row is not None and row.events >= ANEW_AFTER

    def caught_up(self, session: SessionId) -> None:
        """Its last event was on time."""
        self.sessions.pop(session, None)


def _longer(row: _Row | None, numbers: NDArray[Any]) -> _Row:
    """The row with more late events; stragglers from here and there make none."""
    events, last = row or (0, int(numbers[0]))
    # A step backward is a very wide one, in numbers without a sign.
    wide = np.flatnonzero(np.diff(numbers, prepend=np.uint64(last)) > REACH)
    more = len(numbers)
    return _Row(more - int(wide[-1]) if len(wide) else events + more, int(numbers[-1]))
