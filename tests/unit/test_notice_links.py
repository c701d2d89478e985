"""The links to alarm server and monitor with real sockets, and the news that the desk makes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from dlog.adapters import notice_links
from dlog.adapters.clock import SystemClock
from dlog.adapters.notice_links import NoticeLinks, NoticeServer
from dlog.core.notices import GRACE_NS, REPORTS_MISSED_MAX, Desk, News, NewsKind
from dlog.errors import Error
from dlog.model.messages import AlarmReport, AlarmState, MonitorReport
from dlog.ports import Severity
from dlog.services.alarms import AlarmBoard
from tests.waiting import LONG, until

LOOPBACK = "tcp://127.0.0.1:*"
NOWHERE = "tcp://127.0.0.1:1"
A_DAY_MS = 86_400_000


@contextmanager
def links(
    board: AlarmBoard,
    status: Callable[[], dict[str, Any]] = dict,
    *,
    logger: str = "daq",
    alarm_interval_ms: int = 1000,
    **use: Any,
) -> Iterator[NoticeLinks]:
    made = NoticeLinks(
        board, status, logger=logger, uuid=f"uuid-{logger}", alarm_interval_ms=alarm_interval_ms
    )
    made.start()
    try:
        made.use(**use)
        yield made
    finally:
        made.close()


@pytest.fixture
def board() -> AlarmBoard:
    return AlarmBoard(SystemClock())


@pytest.fixture
def server() -> Iterator[NoticeServer]:
    with NoticeServer(LOOPBACK) as made:
        yield made


def reports_until(
    server: NoticeServer, true: Callable[[Any], bool]
) -> list[AlarmReport | MonitorReport]:
    """What came, up to the first report that is as wanted."""
    came: list[AlarmReport | MonitorReport] = []

    def has_come() -> bool:
        for report in server.receive(100):
            came.append(report)
            if true(report):
                return True
        return False

    until(has_come, "the report never came")
    return came


def raised(report: AlarmReport) -> list[str]:
    return [alarm.name for alarm in report.raised]


# --- alarms ------------------------------------------------------------------------------------


def test_alarms_are_reported_when_they_change(board: AlarmBoard, server: NoticeServer) -> None:
    with links(board, alarm_server=server.address, alarm_interval_ms=60_000):
        first = reports_until(server, lambda report: True)[0]
        assert isinstance(first, AlarmReport)
        assert (first.raised, first.number, first.logger) == ([], 1, "daq")
        board.raise_alarm("disk", Severity.ERROR, "full")
        (report,) = reports_until(server, lambda report: raised(report) == ["disk"])
        assert report.raised == board.raised()
        board.clear_alarm("disk")
        (report,) = reports_until(server, lambda report: not report.raised)
        assert report.cleared == ["disk"]


def test_alarms_are_reported_again_and_again(board: AlarmBoard, server: NoticeServer) -> None:
    board.raise_alarm("disk", Severity.ERROR, "full")
    with links(board, alarm_server=server.address, alarm_interval_ms=50):
        reports = reports_until(server, lambda report: report.number == 4)
    assert all(raised(report) == ["disk"] for report in reports)
    assert [report.number for report in reports] == [1, 2, 3, 4]


def test_alarms_that_come_and_go_without_pause_are_reported_in_bounds(
    board: AlarmBoard, server: NoticeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with links(board, alarm_server=server.address, alarm_interval_ms=60_000):
        reports_until(server, lambda report: True)
        monkeypatch.setattr(notice_links, "REPORT_GAP_MS", A_DAY_MS)  # behind the next report
        for _ in range(5000):
            board.raise_alarm("flutter", Severity.WARNING, "")
            board.clear_alarm("flutter")
    reports = reports_until(server, lambda report: report.last)
    assert len(reports) <= 2
    assert any("flutter" in report.cleared for report in reports)  # type: ignore[union-attr]


def test_what_happens_while_the_server_is_dead_is_reported_when_it_lives(
    board: AlarmBoard, tmp_path: Path
) -> None:
    address = f"ipc://{tmp_path}/alarms.sock"
    with links(board, alarm_server=address):
        board.raise_alarm("disk", Severity.ERROR, "full")
        board.raise_alarm("short", Severity.ERROR, "")
        board.clear_alarm("short")
        with NoticeServer(address) as server:
            report = reports_until(server, lambda report: True)[0]
        assert isinstance(report, AlarmReport)
        assert (raised(report), report.cleared) == (["disk"], ["short"])


def test_the_last_report_says_that_it_is_the_last(board: AlarmBoard, server: NoticeServer) -> None:
    with links(board, alarm_server=server.address):
        reports_until(server, lambda report: True)
        board.raise_alarm("failure", Severity.FAILURE, "the journal does not commit")
    reports = reports_until(server, lambda report: report.last)
    assert raised(reports[-1]) == ["failure"]  # type: ignore[arg-type]


# --- the monitor -------------------------------------------------------------------------------


def test_the_state_is_reported_periodically(board: AlarmBoard, server: NoticeServer) -> None:
    numbers = iter(range(10_000))
    with links(board, lambda: {"n": next(numbers)}, monitor=server.address, monitor_interval_ms=60):
        reports = reports_until(server, lambda report: report.number == 4)
    assert [report.status["n"] for report in reports] == [0, 1, 2, 3]  # type: ignore[union-attr]
    assert all(report.interval_ms == 60 for report in reports)


def test_the_state_is_reported_on_request(board: AlarmBoard, server: NoticeServer) -> None:
    with links(board, monitor=server.address, monitor_interval_ms=60_000):
        for number in (1, 2, 3):
            (report,) = reports_until(server, lambda report: True)
            assert report.number == number
            server.request()


def test_a_monitor_that_asks_without_pause_is_answered_in_bounds(
    board: AlarmBoard, server: NoticeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with links(board, monitor=server.address, monitor_interval_ms=60_000) as made:
        reports_until(server, lambda report: True)
        monkeypatch.setattr(notice_links, "REPORT_GAP_MS", A_DAY_MS)  # behind the next report

        def hears_a_thousand() -> bool:
            for _ in range(100):
                server.request("uuid-daq")
            return made.connections()[0].messages_in >= 1000

        until(hears_a_thousand)
    assert len(reports_until(server, lambda report: report.last)) == 2


def test_a_status_that_fails_is_counted_and_tried_again(
    board: AlarmBoard, server: NoticeServer
) -> None:
    fails = iter([True, True, False] + [False] * 10_000)

    def status() -> dict[str, Any]:
        if next(fails):
            raise ZeroDivisionError("no status today")
        return {"state": "RUNNING"}

    with links(board, status, monitor=server.address, monitor_interval_ms=50) as made:
        report = reports_until(server, lambda report: True)[0]
        assert isinstance(report, MonitorReport)
        assert (report.status, report.number) == ({"state": "RUNNING"}, 1)
        assert made.status_failures == 2
        assert made.connections()[0].skipped == {"no status": 2}


def test_a_status_that_never_comes_does_not_keep_the_logger_from_ending(
    board: AlarmBoard, server: NoticeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice_links, "CLOSE_SECONDS_MAX", 0.1)
    called, let_go = threading.Event(), threading.Event()

    def status() -> dict[str, Any]:
        called.set()
        let_go.wait(LONG)
        return {}

    made = NoticeLinks(board, status, logger="daq", uuid="u")
    made.start()
    made.use(monitor=server.address)
    assert called.wait(LONG)
    made.close()
    assert made.alive  # and the status is still on its way
    let_go.set()
    until(lambda: not made.alive)
    made.close()


# --- the server is dead, slow, moved or mad ------------------------------------------------------


def test_a_dead_server_never_blocks_who_raises_alarms(board: AlarmBoard) -> None:
    with links(board, alarm_server=NOWHERE, monitor=NOWHERE, monitor_interval_ms=50) as made:
        until(lambda: len(made.connections()) == 2)
        for number in range(1000):
            board.raise_alarm(f"alarm-{number % 100}", Severity.WARNING, "")
            board.clear_alarm(f"alarm-{number % 100}")
        assert {status.messages_out for status in made.connections()} == {0}
    until(lambda: not made.alive)


def test_a_server_that_takes_nothing_makes_nothing_grow(board: AlarmBoard) -> None:
    """It accepts the connection and never reads: at most a few reports are made and wait."""
    made_reports = []

    def status() -> dict[str, Any]:
        made_reports.append(1)
        return {"x": "y" * 1_000_000}

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stalled = context.socket(zmq.ROUTER)
    stalled.setsockopt(zmq.RCVHWM, 1)
    stalled.bind(LOOPBACK)
    address = stalled.getsockopt_string(zmq.LAST_ENDPOINT)
    with links(board, status, monitor=address, monitor_interval_ms=50) as made:
        until(lambda: bool(made_reports))
        counts = []
        while len(counts) < 6 or counts[-1] != counts[-6]:
            threading.Event().wait(0.2)
            counts.append(made.connections()[0].messages_out)
            assert len(counts) < 100
        # What is not sent is not even made.
        until(lambda: len(made_reports) == made.connections()[0].messages_out)
        assert len(made_reports) < 40
    until(lambda: not made.alive)
    stalled.close(0)
    context.term()


def test_a_stalled_monitor_does_not_hold_up_alarms(board: AlarmBoard, server: NoticeServer) -> None:
    with NoticeServer(LOOPBACK) as stalled:
        use = {"alarm_server": server.address, "monitor": stalled.address}
        with links(board, lambda: {"x": "y" * 1_000_000}, monitor_interval_ms=50, **use) as made:
            until(lambda: sum(each.messages_out for each in made.connections()) > 5)
            for number in range(10):
                board.raise_alarm(f"a{number}", Severity.ERROR, "")
                reports_until(server, lambda report, n=number: f"a{n}" in raised(report))


def test_the_server_comes_back_and_so_does_the_link(board: AlarmBoard, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/alarms.sock"
    with links(board, alarm_server=address) as made:
        for reconnects in range(3):
            with NoticeServer(address) as server:
                reports_until(server, lambda report: True)
                until(lambda: made.connections()[0].state == "connected")
            assert made.connections()[0].reconnects == reconnects
            until(lambda: made.connections()[0].state != "connected")


def test_init_may_change_the_addresses(board: AlarmBoard, server: NoticeServer) -> None:
    with NoticeServer(LOOPBACK) as other, links(board, alarm_server=server.address) as made:
        reports_until(server, lambda report: True)
        made.use(alarm_server=other.address, monitor=server.address)
        assert isinstance(reports_until(other, lambda report: True)[0], AlarmReport)
        reports_until(server, lambda report: isinstance(report, MonitorReport))
        made.use()
        until(lambda: made.connections() == [])


def test_an_address_that_is_none_is_refused_and_changes_nothing(
    board: AlarmBoard, server: NoticeServer
) -> None:
    with links(board, alarm_server=server.address) as made:
        with pytest.raises(Error, match="tcp://nonsense"):
            made.use(alarm_server="tcp://nonsense")
        board.raise_alarm("disk", Severity.ERROR, "full")
        reports_until(server, lambda report: raised(report) == ["disk"])


def test_what_a_server_says_is_counted_and_passed_over(board: AlarmBoard) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    mad = context.socket(zmq.ROUTER)
    mad.bind(LOOPBACK)
    address = mad.getsockopt_string(zmq.LAST_ENDPOINT)
    with links(board, monitor=address, monitor_interval_ms=50) as made:
        assert mad.poll(int(LONG * 1000))
        peer = mad.recv_multipart()[0]
        for text in (b"", b"\xff", b"[" * 100_000, b'{"type":"event"}'):
            mad.send_multipart([peer, text])
        mad.send_multipart([peer, b"{}", b"{}"])
        until(lambda: sum(made.connections()[0].skipped.values()) == 5)
        assert made.connections()[0].skipped == {
            "malformed": 3,
            "event": 1,
            "not one frame": 1,
        }
    mad.close(0)
    context.term()


# --- the servers' end ----------------------------------------------------------------------------


def test_several_loggers_report_to_one_server(server: NoticeServer) -> None:
    boards = {name: AlarmBoard(SystemClock()) for name in ("one", "two", "three")}
    use = {"alarm_server": server.address, "monitor": server.address}
    with (
        links(boards["one"], logger="one", **use),
        links(boards["two"], logger="two", **use),
        links(boards["three"], logger="three", **use),
    ):
        boards["two"].raise_alarm("disk", Severity.ERROR, "full")
        seen: set[tuple[str, str]] = set()
        alarmed: set[str] = set()

        def complete(report: Any) -> bool:
            seen.add((report.logger, report.type))
            if report.type == "alarms" and report.raised:
                alarmed.add(report.logger)
            return len(seen) == 6 and bool(alarmed)

        reports_until(server, complete)
        assert alarmed == {"two"}


def test_the_server_passes_over_what_is_no_report(server: NoticeServer) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    peer = context.socket(zmq.DEALER)
    peer.connect(server.address)
    bad = [b"", b"{", b'{"type":"alarms"}', b'{"type":"event"}', b"[" * 100_000, b"\x00" * 1000]
    for text in bad:
        peer.send(text)
    peer.send_multipart([b"{}", b"{}"])
    until(lambda: server.receive(100) or server.malformed + server.skipped == len(bad) + 1)
    assert (server.malformed, server.skipped) == (6, 1)
    peer.close(0)
    context.term()


def test_asking_a_logger_that_left_is_no_error(board: AlarmBoard, server: NoticeServer) -> None:
    with links(board, monitor=server.address):
        reports_until(server, lambda report: True)
    reports_until(server, lambda report: report.last)
    server.request()
    server.request("nobody")


# --- the desk: decisions alone -----------------------------------------------------------------


def alarm(name: str, text: str = "", severity: str = "error", count: int = 1) -> AlarmState:
    return AlarmState(name=name, severity=severity, text=text, since_ns=1, count=count)


def report(
    number: int, *alarms: AlarmState, cleared: tuple[str, ...] = (), **fields: Any
) -> AlarmReport:
    values: dict[str, Any] = {
        "logger": "daq", "uuid": "u", "host": "h", "process": 1, "time_ns": number,
        "interval_ms": 1000,
    }  # fmt: skip
    return AlarmReport(number=number, raised=list(alarms), cleared=list(cleared), **values | fields)


def told(news: list[News]) -> list[tuple[str, str]]:
    return [(str(each.kind), each.alarm.name if each.alarm else "") for each in news]


def test_the_desk_tells_what_is_new() -> None:
    desk = Desk()
    assert told(desk.take(report(1, alarm("a")), 0)) == [("appeared", ""), ("raised", "a")]
    assert told(desk.take(report(2, alarm("a", count=9)), 0)) == []
    assert told(desk.take(report(3, alarm("a", "worse"), alarm("b")), 0)) == [
        ("changed", "a"),
        ("raised", "b"),
    ]
    assert told(desk.take(report(4, alarm("b"), cleared=("a",)), 0)) == [("cleared", "a")]


def test_a_lost_report_does_no_harm() -> None:
    desk = Desk()
    desk.take(report(1, alarm("a")), 0)
    # Report 2, which cleared a, was lost.
    assert told(desk.take(report(3, alarm("b")), 0)) == [("cleared", "a"), ("raised", "b")]
    assert desk.lines()[0].lost == 1


def test_alarms_and_states_are_numbered_apart() -> None:
    desk = Desk()
    for number in (1, 2, 3):
        desk.take(report(number), 0)
        state = MonitorReport(
            logger="daq", uuid="u", host="h", process=1, number=10 + number, time_ns=1, status={}
        )
        desk.take(state, 0)
    assert desk.lines()[0].lost == 0


def test_an_alarm_between_two_reports_is_told() -> None:
    desk = Desk()
    desk.take(report(1), 0)
    assert told(desk.take(report(2, cleared=("short",)), 0)) == [("cleared", "short")]


def test_a_logger_that_misses_its_reports_is_silent_and_then_back() -> None:
    desk = Desk()
    desk.take(report(1), 0)
    silent_ns = REPORTS_MISSED_MAX * 1_000_000_000 + GRACE_NS
    assert desk.tick(silent_ns, 5) == []
    (news,) = desk.tick(silent_ns + 1, 5)
    assert (news.kind, news.logger, news.time_ns) == (NewsKind.SILENT, "daq", 5)
    assert desk.tick(silent_ns + 2, 6) == []  # once
    assert told(desk.take(report(2), silent_ns + 3)) == [("back", "")]
    assert desk.tick(silent_ns + 4, 7) == []


def test_a_logger_that_reports_seldom_is_not_silent_early() -> None:
    desk = Desk()
    desk.take(report(1, interval_ms=60_000), 0)
    assert desk.tick(100 * 1_000_000_000, 0) == []


def test_a_logger_that_ended_is_not_silent() -> None:
    desk = Desk()
    desk.take(report(1), 0)
    assert told(desk.take(report(2, last=True), 0)) == [("ended", "")]
    assert desk.tick(10**15, 0) == []


def test_a_logger_that_was_started_anew_is_told_and_counts_anew() -> None:
    desk = Desk()
    desk.take(report(900, alarm("a")), 0)
    news = desk.take(report(1, process=2), 0)
    assert told(news) == [("restarted", ""), ("cleared", "a")]
    assert desk.lines()[0].lost == 0


def test_the_loggers_at_the_desk_are_bounded() -> None:
    desk = Desk(loggers_max=3)
    for number in range(10):
        desk.take(report(1, uuid=f"u{number}", logger=f"l{number}"), number)
    assert [line.logger for line in desk.lines()] == ["l7", "l8", "l9"]
