"""Numbering: how far the event numbers of a stream have come, and which sources count anew. No I/O.

No single number decides anything for the events after it. A wild number is not followed, and a
source whose numbers begin anew below the closed ranges is not late. docs/decisions/0019 has the
cases.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dlog.limits import ANEW_SESSIONS_MAX
from dlog.model.ids import SessionId

# A number that is at most so far above all before it is followed at once: the next one may be.
REACH: Final = 100
# Numbers further above are followed when so many of the last LOOKED_AT events have such ones.
CONFIRMED_BY: Final = 32
LOOKED_AT: Final = 64
# So many late events of a session, one after the other, are no latecomers: the source counts anew.
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
    rises = early <= before <= highest == int(numbers[-1])
    return rises and (highest - before) * CONFIRMED_BY <= REACH * (before - early)


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


class Latecomers:
    """The sessions of a stream whose events are late, or count anew; at most ANEW_SESSIONS_MAX.

    in_a_row: of each, its late events, one after the other; ANEW_AFTER and more: it counts anew.
    """

    __slots__ = ("in_a_row",)

    def __init__(self, anew: Iterable[bytes]) -> None:
        self.in_a_row = {SessionId(session): ANEW_AFTER for session in anew}

    def counts_anew(self, session: SessionId) -> bool:
        return self.in_a_row.get(session, 0) >= ANEW_AFTER

    @property
    def anew(self) -> tuple[SessionId, ...]:
        """The sessions that count anew, for the journal."""
        return tuple(s for s, late in self.in_a_row.items() if late >= ANEW_AFTER)

    def came(
        self,
        session: SessionId,
        numbers: NDArray[Any],
        positions: NDArray[Any],
        boundary: int,
        closed: int,
    ) -> bool:
        """Events of the session came late, not above the boundary. Whether it counts anew: then
        those in ranges that are closed (so many) belong to the current part.

        positions: of the events in their session. Numbers that are these were given by the source
        library, which begins at 0 with each start of a source.
        """
        late = self.in_a_row.pop(session, 0) + closed
        if late < ANEW_AFTER and (
            int(numbers.min()) <= max(1, boundary >> ANEW_BITS)
            or bool((numbers == positions).any())
        ):
            late = ANEW_AFTER
        if late:
            self.in_a_row[session] = late
        while len(self.in_a_row) > ANEW_SESSIONS_MAX:
            del self.in_a_row[next(iter(self.in_a_row))]
        return late >= ANEW_AFTER

    def caught_up(self, session: SessionId) -> None:
        """Its last event was on time."""
        self.in_a_row.pop(session, None)
