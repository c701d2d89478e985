"""No event number decides anything for the events after it: wild numbers, counters that wrap or
begin anew, sources that are started again. docs/decisions/0020 has the cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dlog.core.numbering import ANEW_AFTER, CONFIRMED_BY, Latecomers, Numbering
from dlog.core.pieces import Piece
from dlog.core.rotation import Fill
from dlog.core.states import FileState
from dlog.faults.simulation.clock import SimulatedClock
from dlog.limits import ANEW_SESSIONS_MAX
from dlog.model.config import StreamConfig
from dlog.model.events import EVENT_DTYPE
from dlog.model.ids import (
    FileKey,
    FileKind,
    MarkKey,
    PartNumber,
    RunNumber,
    Sequence,
    SessionId,
    StreamName,
)
from dlog.services.staging import LateEvents, Slot, Staging

PART_EVENTS = 100
A, B = SessionId(bytes(16)), SessionId(bytes(15) + b"B")


class Stream:
    """A stream whose parts hold PART_EVENTS; of its full ones, so many take late events."""

    def __init__(self, late: int = 0) -> None:
        self.late = late
        self.staging = self._begin()
        self.placed: Counter[str] = Counter()
        self.told: list[LateEvents] = []
        self.sent: Counter[SessionId] = Counter()

    def _begin(
        self,
        low: int = -1,
        highest: int = -1,
        anew: tuple[SessionId, ...] = (),
        parts: tuple[Any, ...] = (),
    ) -> Staging:
        return Staging(
            StreamConfig(part_events=PART_EVENTS, part_bytes=0), SimulatedClock(), FileKind.EVENTS,
            low=low, highest=highest, anew=anew, parts=parts, ended=lambda *_: None,
            told=lambda late: self.told.append(late),
        )  # fmt: skip

    def restart(self) -> None:
        """The logger was killed, and goes on from what it committed."""
        before = self.staging
        self.staging = self._begin(before.low, before.numbering.highest, before.latecomers.anew)

    def take(self, numbers: Iterable[int], session: SessionId = A, *, order: int = -1) -> None:
        """A piece of that session; `order` as in its event table, otherwise as if other streams had
        events of it before."""
        chosen = list(numbers)
        table = np.zeros(len(chosen), EVENT_DTYPE)
        table["number"] = np.array(chosen, np.uint64)
        table["order"] = np.arange(len(chosen))
        base = order if order >= 0 else 10**12 + self.sent[session]
        self.sent[session] += len(chosen)
        mark = MarkKey(session, RunNumber(7), StreamName("photons"))
        # As from the event server: the numbers are known.
        piece = Piece(
            mark, session.hex()[-2:], Sequence(1), base, table, np.empty(0, np.uint8), 1, 0,
            numbers=(min(chosen), max(chosen)),
        )  # fmt: skip
        staging = self.staging
        if staging.is_plain(piece):
            staging.take_plain(piece)
        else:
            staging.take(piece)
        for fragment in staging.pieces[-1].fragments:
            kind = fragment.slot.kind.name.lower()
            self.placed["late" if fragment.slot.ended and kind == "events" else kind] += len(
                fragment.table
            )
        del staging.ends[: max(0, len(staging.ends) - self.late)]
        # As if the rest had been written: what is staged for the current part says how full it is.
        staging.closing, staging.garbage = [], Slot(FileKind.GARBAGE)
        staging.pieces, staging.events = [], staging.now.staged_events

    def take_each(self, numbers: Iterable[int], session: SessionId = A, size: int = 1) -> None:
        listed = list(numbers)
        for at in range(0, len(listed), size):
            self.take(listed[at : at + size], session)


SIZES = pytest.mark.parametrize("size", [1, 70])


# --- a wild number ------------------------------------------------------------------------------


@SIZES
@pytest.mark.parametrize("wild", [1 << 40, 2**64 - 1, 2**63, 5000])
@pytest.mark.parametrize("at", [0, 50, 99, 100])
def test_a_wild_number_closes_no_range_for_those_after_it(size: int, wild: int, at: int) -> None:
    stream = Stream()
    stream.take_each((wild if n == at else n for n in range(1000)), size=size)
    assert stream.placed["garbage"] == 0
    assert stream.staging.numbering.highest == 999


@SIZES
def test_some_wild_numbers_in_a_row_close_none_either(size: int) -> None:
    stream = Stream()
    stream.take_each(range(250), size=size)
    stream.take_each(((1 << 40) + n for n in range(CONFIRMED_BY - 1)), size=size)
    stream.take_each(range(250, 1000), size=size)
    assert stream.placed["garbage"] == 0


def test_wild_numbers_here_and_there_close_none() -> None:
    stream = Stream()
    random = np.random.default_rng(1)
    numbers = [int(random.integers(2**63)) if random.random() < 0.2 else n for n in range(3000)]
    stream.take_each(numbers, size=10)
    assert stream.placed["garbage"] == 0
    assert 2900 < stream.staging.numbering.highest < 3000


@SIZES
def test_a_counter_that_is_stuck_high_for_a_while_costs_no_more_than_the_bound(size: int) -> None:
    stream = Stream()
    stream.take_each(range(250), size=size)
    stream.take_each((5000 + n for n in range(300)), size=size)
    stream.take_each(range(250, 1200), size=size)
    assert stream.placed["garbage"] < ANEW_AFTER


# --- numbers that go on elsewhere -----------------------------------------------------------------


@SIZES
@pytest.mark.parametrize("step", [1, 3, 1000, 10**6])
def test_numbers_of_any_step_are_followed(size: int, step: int) -> None:
    stream = Stream(late=99)
    stream.take_each((n * step for n in range(1000)), size=size)
    assert stream.staging.numbering.highest >= (999 - CONFIRMED_BY) * step


@SIZES
@pytest.mark.parametrize("begin", [1000, 10**9, 2**64 - 2000])
def test_a_jump_is_followed_once_it_is_confirmed(size: int, begin: int) -> None:
    stream = Stream()
    stream.take_each(range(150), size=size)
    stream.take_each(range(begin, begin + 500), size=size)
    assert stream.staging.numbering.highest == begin + 499
    stream.take([begin + 3])
    assert stream.placed["garbage"] == 1  # the range of the jump is one that closes


def test_the_range_of_a_first_part_is_that_of_its_numbers_wherever_they_begin() -> None:
    stream = Stream(late=99)
    stream.take_each(range(5000, 5101), size=3)
    assert [(slot.ended.low, slot.ended.high) for slot in stream.staging.ends if slot.ended] == [
        (-1, 5099)
    ]


# --- counters that begin anew ---------------------------------------------------------------------


@SIZES
@pytest.mark.parametrize("late", [0, 99])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (range(1000), range(1000)),  # set back to 0
        (range(1000), range(1, 1000)),  # or to 1
        (range(2**32 - 500, 2**32), range(700)),  # 32 bits
        (range(2**16 - 500, 2**16), range(700)),
        (range(2**64 - 500, 2**64), range(700)),
        (range(0, 2**32, 2**24), range(7, 700, 3)),  # of several streams, this one's first is 7
    ],
    ids=["0", "1", "2^32", "2^16", "2^64", "2^32, not from 0"],
)
def test_a_counter_that_wraps_or_is_set_back_makes_no_garbage(
    before: range, after: range, size: int, late: int
) -> None:
    stream = Stream(late)
    stream.take_each(before, size=size)
    stream.take_each(after, size=size)
    assert stream.placed["garbage"] == 0
    assert stream.placed["events"] + stream.placed["late"] == len(before) + len(after)


@pytest.mark.parametrize("first", [0, 3, 300])
def test_a_source_that_is_started_again_with_automatic_numbers_makes_none(first: int) -> None:
    """first: of this stream; the source sent that many to others before."""
    stream = Stream()
    stream.take_each(range(1000), size=50)
    for n in range(first, 1000, 3):
        stream.take([n], B, order=n)
    assert stream.placed["garbage"] == 0


def test_one_source_begins_anew_while_another_goes_on() -> None:
    stream = Stream()
    stream.take_each(range(1000), size=50)
    for n in range(1000):
        stream.take([1000 + n], A)
        stream.take([n], B)
    assert stream.placed["garbage"] == 0
    assert stream.staging.numbering.highest == 1999  # what A sends is followed as ever
    stream.take([7], A)
    assert stream.placed["garbage"] == 1  # and its late events are late


def test_a_wild_number_of_a_source_that_counts_anew_changes_nothing() -> None:
    stream = Stream()
    stream.take_each(range(1000), size=50)
    stream.take_each((1 << 40 if n == 50 else n for n in range(700)), B)
    assert stream.placed["garbage"] == 0


def test_a_source_that_counts_anew_still_does_when_the_logger_was_restarted() -> None:
    stream = Stream()
    stream.take_each(range(1000), size=50)
    stream.take_each(range(10), B)
    stream.restart()
    stream.take_each(range(10, 700), B)
    assert stream.placed["garbage"] == 0


def test_a_source_that_begins_anew_elsewhere_costs_no_more_than_the_bound() -> None:
    stream = Stream()
    stream.take_each(range(1000), size=50)
    stream.take_each(range(200, 900), B)
    assert 0 < stream.placed["garbage"] < ANEW_AFTER
    assert [late.anew for late in stream.told[-2:]] == [False, True]


def open_part(number: int, low: int) -> Any:
    """As a restart finds it, with what staging asks of it."""
    key = FileKey(RunNumber(7), StreamName("photons"), FileKind.EVENTS, PartNumber(number))
    record = SimpleNamespace(state=FileState.OPEN, low=low)
    return SimpleNamespace(
        key=key, record=record, fill=lambda size, events: Fill(size, events, 0, 0)
    )


def test_a_restart_closes_a_part_whose_range_is_empty() -> None:
    stream = Stream(late=99)
    stream.staging = stream._begin(parts=(open_part(1, -1), open_part(2, -1)))
    assert [slot.part.key.part for slot in stream.staging.closing if slot.part] == [1]
    for slot in stream.staging.slots():
        slot.part = None
    stream.take_each(range(250), size=50)
    stream.take([7])
    assert stream.placed == {"events": 250, "late": 1}


# --- and what is late ----------------------------------------------------------------------------


def test_late_events_are_garbage_and_told_with_the_number_that_closed_their_range() -> None:
    stream = Stream(late=1)
    stream.take_each(range(1000), size=50)
    stream.take([305, 310, 1000])
    stream.take([950], B)
    assert stream.placed["garbage"] == 2
    assert stream.placed["late"] == 1  # its range is open
    assert stream.told == [LateEvents("00", 2, 305, 310, 799, anew=False)]


def test_late_events_among_others_are_late_however_many() -> None:
    stream = Stream()
    stream.take_each(range(1000), size=50)
    for n in range(300):
        stream.take([1000 + n])
        stream.take([100 + n])
    assert stream.placed["garbage"] == 300


@pytest.mark.parametrize("size", [1, 300])
def test_stragglers_from_here_and_there_are_late_however_many(size: int) -> None:
    stream = Stream()
    stream.take_each(range(50_000), size=100)
    stream.take_each(range(1000, 49_000, 160), B, size=size)
    assert stream.placed["garbage"] == 300


def test_what_is_remembered_of_sessions_is_bounded() -> None:
    late = Latecomers(())
    nothing = np.zeros(1, np.uint64)
    for number in range(3 * ANEW_SESSIONS_MAX):
        assert late.came(SessionId(number.to_bytes(16)), nothing, nothing, nothing, 1000)
    assert len(late.anew) == ANEW_SESSIONS_MAX
    assert SessionId((3 * ANEW_SESSIONS_MAX - 1).to_bytes(16)) in late.sessions
    assert Latecomers(late.anew).anew == late.anew


def test_a_number_is_followed_up_to_the_largest_there_is() -> None:
    numbering = Numbering(2**64 - 3)
    assert numbering.follows(2**64 - 1, 2**64 - 1, 1)
    assert numbering.highest == 2**64 - 1
