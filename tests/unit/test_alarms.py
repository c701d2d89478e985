"""The alarm board: what is raised, counted, cleared, bounded, woken for and logged."""

from __future__ import annotations

import logging
import threading

import pytest

from dlog.ports import Alarms, Severity
from dlog.services.alarms import (
    FLUTTER_LINES_MAX,
    FLUTTER_NS,
    OVERFLOW,
    TEXT_LETTERS_MAX,
    AlarmBoard,
)


class StoppedClock:
    """Time that stands still until it is told."""

    def __init__(self) -> None:
        self.now_ns = 1_000

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def board(clock: StoppedClock) -> AlarmBoard:
    return AlarmBoard(clock)


def test_the_board_is_what_the_services_raise_alarms_with(board: AlarmBoard) -> None:
    alarms: Alarms = board
    alarms.raise_alarm("disk", Severity.ERROR, "full")
    assert [alarm.name for alarm in board.raised()] == ["disk"]


def test_an_alarm_that_comes_again_is_counted_and_keeps_its_beginning(
    board: AlarmBoard, clock: StoppedClock
) -> None:
    board.raise_alarm("disk", Severity.WARNING, "low")
    clock.now_ns = 2_000
    board.raise_alarm("disk", Severity.ERROR, "full")
    (alarm,) = board.raised()
    assert (alarm.count, alarm.since_ns, alarm.text, alarm.severity) == (2, 1_000, "full", "error")


def test_a_cleared_alarm_begins_anew(board: AlarmBoard, clock: StoppedClock) -> None:
    board.raise_alarm("disk", Severity.ERROR, "full")
    board.clear_alarm("disk")
    assert board.raised() == []
    clock.now_ns = 3_000
    board.raise_alarm("disk", Severity.ERROR, "full")
    (alarm,) = board.raised()
    assert (alarm.count, alarm.since_ns) == (1, 3_000)


def test_clearing_what_is_not_raised_changes_nothing(board: AlarmBoard) -> None:
    before = board.view()
    board.clear_alarm("disk")
    assert board.view() == before


def test_the_worst_stand_first_then_the_oldest(board: AlarmBoard, clock: StoppedClock) -> None:
    for name, severity in (
        ("a", Severity.WARNING),
        ("b", Severity.FAILURE),
        ("c", Severity.ERROR),
        ("d", Severity.ERROR),
    ):
        clock.now_ns += 1
        board.raise_alarm(name, severity, "")
    assert [alarm.name for alarm in board.raised()] == ["b", "c", "d", "a"]


def test_a_view_tells_what_was_cleared_since_the_one_before(board: AlarmBoard) -> None:
    board.raise_alarm("disk", Severity.ERROR, "full")
    first = board.view()
    assert first.cleared == []
    board.clear_alarm("disk")
    second = board.view(first.moment)
    assert (second.raised, second.cleared) == ([], ["disk"])
    assert board.view(second.moment).cleared == []


def test_raised_and_cleared_between_two_views_is_still_told(board: AlarmBoard) -> None:
    first = board.view()
    board.raise_alarm("disk", Severity.ERROR, "full")
    board.clear_alarm("disk")
    assert board.view(first.moment).cleared == ["disk"]


def test_cleared_and_raised_again_is_raised(board: AlarmBoard) -> None:
    first = board.view()
    board.raise_alarm("disk", Severity.ERROR, "full")
    board.clear_alarm("disk")
    board.raise_alarm("disk", Severity.ERROR, "full")
    view = board.view(first.moment)
    assert ([alarm.name for alarm in view.raised], view.cleared) == (["disk"], [])


def test_the_board_is_bounded_and_says_that_there_were_more(clock: StoppedClock) -> None:
    board = AlarmBoard(clock, alarms_max=3)
    for number in range(10):
        board.raise_alarm(f"stream-{number}", Severity.WARNING, "slow")
    raised = {alarm.name: alarm for alarm in board.raised()}
    assert set(raised) == {"stream-0", "stream-1", "stream-2", OVERFLOW}
    assert raised[OVERFLOW].count == 7
    assert raised[OVERFLOW].text == "also stream-9: slow"


def test_the_overflow_stands_until_every_alarm_is_cleared(clock: StoppedClock) -> None:
    board = AlarmBoard(clock, alarms_max=2)
    for number in range(3):
        board.raise_alarm(f"stream-{number}", Severity.WARNING, "slow")
    moment = board.view().moment
    board.clear_alarm("stream-0")
    assert OVERFLOW in {alarm.name for alarm in board.raised()}
    board.clear_alarm("stream-1")
    view = board.view(moment)
    assert (view.raised, view.cleared) == ([], ["stream-0", "stream-1", OVERFLOW])


def test_the_overflow_cannot_be_cleared_by_its_name(clock: StoppedClock) -> None:
    board = AlarmBoard(clock, alarms_max=1)
    board.raise_alarm("a", Severity.WARNING, "")
    board.raise_alarm("b", Severity.WARNING, "")
    board.clear_alarm(OVERFLOW)
    assert OVERFLOW in {alarm.name for alarm in board.raised()}


def test_texts_are_bounded(board: AlarmBoard) -> None:
    board.raise_alarm("n" * 10_000, Severity.ERROR, "t" * 10**6)
    (alarm,) = board.raised()
    assert len(alarm.text) == TEXT_LETTERS_MAX
    board.clear_alarm("n" * 10_000)
    assert board.raised() == []


def test_who_listens_is_woken_by_a_change_and_not_by_a_count(board: AlarmBoard) -> None:
    wakes: list[int] = []
    board.listen(lambda: wakes.append(len(board.raised())))  # it may look at the board
    board.raise_alarm("disk", Severity.WARNING, "low")
    board.raise_alarm("disk", Severity.WARNING, "lower")
    assert wakes == [1]
    board.raise_alarm("disk", Severity.ERROR, "full")
    assert wakes == [1, 1]
    board.clear_alarm("disk")
    board.clear_alarm("disk")
    assert wakes == [1, 1, 0]


def test_an_alarm_that_comes_a_million_times_does_not_fill_the_log(
    board: AlarmBoard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(1000):
        board.raise_alarm("disk", Severity.ERROR, "full")
    board.clear_alarm("disk")
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "alarm disk: full"
    assert messages[1] == "alarm disk: full (2 times)"
    assert messages[-1] == "alarm disk cleared"
    assert len(messages) == 11  # 1, 2, 4 ... 512, and the clearing


def test_an_alarm_that_flutters_does_not_fill_the_log(
    board: AlarmBoard, clock: StoppedClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(1000):
        board.raise_alarm("disk", Severity.ERROR, "full")
        board.clear_alarm("disk")
    assert len(caplog.records) == FLUTTER_LINES_MAX + 1
    assert "flutters" in caplog.records[-1].getMessage()
    board.raise_alarm("other", Severity.ERROR, "")
    clock.now_ns += FLUTTER_NS + 1
    board.raise_alarm("disk", Severity.ERROR, "full again")
    messages = [record.getMessage() for record in caplog.records[-2:]]
    assert messages == ["alarm other: ", "alarm disk: full again"]


def test_the_log_level_is_that_of_the_severity(
    board: AlarmBoard, caplog: pytest.LogCaptureFixture
) -> None:
    for severity in Severity:
        board.raise_alarm(severity, severity, "")
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.WARNING, logging.ERROR, logging.CRITICAL]


def test_many_threads_lose_no_count(board: AlarmBoard) -> None:
    def work() -> None:
        for _ in range(500):
            board.raise_alarm("disk", Severity.ERROR, "full")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (alarm,) = board.raised()
    assert alarm.count == 2000
