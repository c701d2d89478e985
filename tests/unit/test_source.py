"""`dlog.Source` on a real socket, against a scripted logger that loses, restarts, pauses, ends and
refuses."""

from __future__ import annotations

import atexit
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import dlog
from dlog.core.source_session import SourceSession
from dlog.errors import (
    EventsDiverted,
    EventsRefused,
    NotAcknowledged,
    RunEnded,
    SourceError,
    SourceRefused,
    StreamUnknown,
    WindowFull,
)
from dlog.limits import EVENT_BYTES_MAX, SOURCE_NAME_BYTES_MAX
from dlog.model.ids import valid_source_name
from dlog.model.messages import DivertedEvents
from dlog.source import Source, _default_name, _tag_of_process
from tests.scripted_logger import ScriptedLogger
from tests.waiting import LONG, until

KIB = 1024


@pytest.fixture
def logger() -> Iterator[ScriptedLogger]:
    made = ScriptedLogger()
    yield made
    made.close()


@contextmanager
def sourced(logger: ScriptedLogger, **options: object) -> Iterator[Source]:
    """A Source that does not outlive a test that fails."""
    source = dlog.Source(logger.address, **{"name": "s", "run": 7, **options})  # type: ignore[arg-type]
    try:
        yield source
    finally:
        source.abandon()


def fill(source: Source, stream: str, size: int) -> int:
    """Send until the queue is full; how many events it took."""
    taken = 0
    while True:
        try:
            source.send(stream, bytes(size), timeout=0.1)
        except WindowFull:
            return taken
        taken += 1


def test_events_are_stored_and_the_session_is_closed(logger: ScriptedLogger) -> None:
    with dlog.Source(logger.address, name="s", run=7) as source:
        for i in range(100):
            source.send("a", b"%d" % i)
        source.send(["a", "b"], b"both")
        report = source.flush(LONG)
    assert logger.stored[7, "a"] == [b"%d" % i for i in range(100)] + [b"both"]
    assert logger.stored[7, "b"] == [b"both"]
    assert (report.events, report.sent, report.acknowledged, report.pending) == (101, 102, 102, 0)
    assert report.streams["a"].acknowledged == 101
    assert logger.model.kept.closed
    assert source.report().state == "closed"


def test_event_numbers_count_on_by_themselves_for_each_run(logger: ScriptedLogger) -> None:
    logger.model.active = {7, 8}
    with sourced(logger) as source:
        source.send("a", b"0")
        source.send("a", b"1", run=8)
        source.send("a", b"2", number=100)
        source.send("a", b"3")
        source.send("a", b"4", run=8)
        source.flush(LONG)
    numbers = {
        key: [number for number, _, _ in events] for key, events in logger.model.kept.stored.items()
    }
    assert numbers == {(7, "a"): [0, 100, 101], (8, "a"): [0, 1]}


def test_an_event_that_was_not_taken_takes_no_number(logger: ScriptedLogger) -> None:
    logger.model.waiting = "no credit"
    rows = np.zeros((3, 300 * KIB), np.uint8)
    calls: tuple[Callable[[Source], None], ...] = (
        lambda source: source.send_many("a", rows, timeout=0.05),
        lambda source: source.send("a", rows[0], timeout=0.05),
        lambda source: source.send("a", b"", time_ns=-1),
        lambda source: source.send("a", 5),  # type: ignore[arg-type]
        lambda source: source.send("no good", b""),
        lambda source: source.send_many("a", rows[:, :9], times_ns=[1], timeout=0.05),
        lambda source: source.send_many("a", rows[:, :9], numbers=[1], timeout=0.05),
    )
    with sourced(logger, queue_bytes=1 << 20, batch_bytes=64 * KIB) as source:
        source.send_many("a", rows, timeout=LONG)
        for call in calls:
            with pytest.raises((WindowFull, ValueError, TypeError)):
                call(source)
        source.send("a", b"fits")
        source.send_many("a", rows[:, :9], timeout=LONG)
        logger.do(lambda: setattr(logger.model, "waiting", ""))
        source.flush(LONG)
    assert [number for number, _, _ in logger.model.kept.stored[7, "a"]] == list(range(7))


def test_numbers_of_arrays_count_on_where_the_last_one_was_taken(logger: ScriptedLogger) -> None:
    with sourced(logger, queue_bytes=1 << 20, batch_bytes=64 * KIB) as source:
        source.send_many("a", np.zeros((40, 100 * KIB), np.uint8))  # in parts, as room comes
        source.send("a", b"")
        source.send_many("a", np.zeros((2, 1), np.uint8), numbers=[2**64 - 9, 2**64 - 8])
        source.send_many("a", np.zeros((7, 1), np.uint8))
        with pytest.raises(ValueError, match="event number"):
            source.send_many("a", np.zeros((1, 1), np.uint8))
        source.flush(LONG)
    numbers = [number for number, _, _ in logger.model.kept.stored[7, "a"]]
    assert numbers == [*range(41), *range(2**64 - 9, 2**64)]


def test_arrays_go_without_an_event_at_a_time(logger: ScriptedLogger) -> None:
    rows = np.arange(3000 * 300, dtype="<u2").reshape(3000, 300)
    with sourced(logger, queue_bytes=1 << 20, batch_bytes=64 * KIB) as source:
        source.send_many("a", rows)
        source.send_many("b", b"onetwothree", sizes=[3, 3, 5], numbers=[5, 6, 7], times_ns=9)
        source.send_many("b", np.zeros((2, 4), np.uint8), times_ns=[1, 2])
        source.send_many("b", np.zeros((0, 4), np.uint8))
        source.flush(LONG)
        assert source.report().events == 3005
    assert logger.stored[7, "a"] == [row.tobytes() for row in rows]
    assert logger.stored[7, "b"] == [b"one", b"two", b"three", bytes(4), bytes(4)]
    assert [number for number, _, _ in logger.model.kept.stored[7, "b"]] == [5, 6, 7, 8, 9]


def test_a_large_event_makes_its_own_batch(logger: ScriptedLogger) -> None:
    image = np.random.default_rng(0).integers(0, 255, 5 << 20, np.uint8)
    with sourced(logger) as source:
        source.send("a", image)
        source.flush(LONG)
    assert logger.stored[7, "a"] == [image.tobytes()]
    assert max(logger.heard) > 5 << 20


def test_a_single_event_does_not_wait_for_others(logger: ScriptedLogger) -> None:
    with sourced(logger, linger_ms=3_600_000.0) as source:
        source.send("a", b"x")
        until(lambda: source.acknowledged == 1)


def test_a_source_may_be_there_before_the_logger(logger: ScriptedLogger) -> None:
    port = int(logger.address.rsplit(":", 1)[1])
    logger.close()
    source = dlog.Source(f"tcp://127.0.0.1:{port}", name="s", run=7)
    source.send("a", b"early")
    assert source.report().state == "connecting"
    assert source.report().waiting
    late = ScriptedLogger(port)
    source.close(LONG)
    late.close()
    assert late.stored[7, "a"] == [b"early"]
    logger.error = None


def test_a_logger_is_found_by_its_data_directory_also_when_it_moves(tmp_path: Path) -> None:
    def write(address: str) -> None:
        (tmp_path / "logger.json").write_text(json.dumps({"event_address": address}))

    (tmp_path / "logger.json").write_text('{"event_addr')
    source = dlog.Source(tmp_path, name="s", run=7)
    source.send("a", b"1")
    first = ScriptedLogger()
    write(first.address)
    source.flush(LONG)
    first.close()
    second = ScriptedLogger()
    second.model.kept = first.model.kept
    second.model.boot = 2
    second.do(second.model.crash)
    write(second.address)
    source.send("a", b"2")
    source.close(LONG)
    second.close()
    assert second.stored[7, "a"] == [b"1", b"2"]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere", "neither an address .* nor a data directory: no such directory"),
        ("", "'' is neither"),
        (__file__, "not a directory"),
        ("127.0.0.1:5555", "did you mean tcp://127.0.0.1:5555?"),
        ("http://127.0.0.1:5555", "http:// is not a transport"),
        ("tcp://127.0.0.1", "the port is missing"),
        ("tcp://127.0.0.1:0", "port 0"),
        ("tcp://[::1]:5555", "IPv6"),
    ],
)
def test_a_wrong_address_is_refused_at_once(place: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dlog.Source(place)


# --- what goes wrong --------------------------------------------------------------------------


def test_a_restart_of_the_logger_loses_and_doubles_nothing(logger: ScriptedLogger) -> None:
    with sourced(logger, batch_bytes=4 * KIB) as source:
        for i in range(2000):
            source.send("a", b"%d" % i)
            if i % 400 == 200:
                logger.commits = False
                until(lambda: logger.model.high > logger.model.kept.acknowledged)
                logger.do(logger.model.crash)
                logger.commits = True
        source.flush(LONG)
        assert source.report().reconnects >= 1
    assert logger.stored[7, "a"] == [b"%d" % i for i in range(2000)]


def test_lost_acknowledgements_are_repeated(logger: ScriptedLogger) -> None:
    with sourced(logger) as source:
        assert source.wait_for_run(timeout=LONG)
        logger.mute = True
        source.send("a", b"x")
        until(lambda: (7, "a") in logger.stored)
        with pytest.raises(NotAcknowledged) as caught:
            source.flush(0.05)
        assert caught.value.pending == 1
        logger.mute = False
        source.flush(LONG)


def test_lost_batches_are_sent_again(logger: ScriptedLogger) -> None:
    with sourced(logger, batch_bytes=4 * KIB) as source:
        assert source.wait_for_run(timeout=LONG)
        logger.deaf = True
        heard = len(logger.heard)
        source.send("a", bytes(8 * KIB))
        # The batch, and not a heartbeat.
        until(lambda: max(logger.heard[heard:], default=0) > 8 * KIB)
        logger.deaf = False
        source.send("a", b"2")
        source.flush(LONG)
        assert source.report().batches_resent >= 1
    assert logger.stored[7, "a"] == [bytes(8 * KIB), b"2"]


def test_a_selective_acknowledgement_makes_room(logger: ScriptedLogger) -> None:
    logger.commits = False
    with sourced(logger, batch_bytes=4 * KIB, queue_bytes=40 * KIB) as source:
        source.send("slow", bytes(4 * KIB))
        assert fill(source, "fast", 4 * KIB) == 8
        logger.do(lambda: logger.model.commit((7, "fast"), 100))
        source.send("fast", bytes(4 * KIB), timeout=LONG)
        assert source.report().streams["slow"].acknowledged == 0
        logger.commits = True
        source.flush(LONG)


def test_the_queue_is_bounded_while_no_credit_is_granted(logger: ScriptedLogger) -> None:
    logger.model.active = set()
    logger.model.waiting = "no run is active"
    with sourced(logger, batch_bytes=4 * KIB, queue_bytes=16 * KIB) as source:
        until(lambda: source.report().waiting == "no run is active")
        assert fill(source, "a", KIB) == 15
        with pytest.raises(WindowFull, match="no run is active"):
            source.send("a", bytes(KIB), timeout=0.0)
        with pytest.raises(WindowFull):
            source.send_many("a", np.zeros((4, KIB), np.uint8), timeout=0.1)
        assert source.report().events == 15

        def begin() -> None:
            logger.model.active = {7}
            logger.model.waiting = ""

        threading.Timer(0.1, lambda: logger.do(begin)).start()
        source.send("a", bytes(KIB))  # blocks until the run begins
        source.flush(LONG)
    assert len(logger.stored[7, "a"]) == 16


def test_a_paused_run_is_held_and_others_go_on(logger: ScriptedLogger) -> None:
    logger.model.active, logger.model.held = {8}, {7}
    with sourced(logger) as source:
        assert source.wait_for_run(7, LONG)
        source.send("a", b"held")
        source.send("a", b"goes", run=8)
        until(lambda: (8, "a") in logger.stored)
        assert (7, "a") not in logger.stored
        assert source.report().held == (7,)
        assert "paused" in source.report().waiting
        logger.do(lambda: logger.model.active.add(7))
        logger.do(lambda: logger.model.held.clear())
        source.flush(LONG)
    assert logger.stored[7, "a"] == [b"held"]


def test_the_end_of_a_run_is_answered_and_then_it_takes_nothing(logger: ScriptedLogger) -> None:
    with sourced(logger) as source:
        assert source.wait_for_run(timeout=LONG)
        source.send("a", b"last")

        def stop() -> None:
            logger.model.active.clear()
            logger.model.ending.add(7)

        logger.do(stop)
        until(lambda: 7 in logger.model.ends)
        assert logger.model.ends[7] == 1
        assert logger.stored[7, "a"] == [b"last"]
        with pytest.raises(RunEnded):
            source.send("a", b"too late")
        with pytest.raises(RunEnded):
            source.wait_for_run(7, LONG)
        logger.do(lambda: logger.model.end_run(7))
        assert source.flush(LONG).acknowledged == 1


def test_what_was_not_sent_when_its_run_ended_is_told(logger: ScriptedLogger) -> None:
    logger.model.active, logger.model.held = set(), {7}
    with sourced(logger) as source:
        assert source.wait_for_run(timeout=LONG)
        for _ in range(3):
            source.send("a", b"x")
        logger.do(lambda: logger.model.end_run(7))
        until(lambda: source.report().pending == 0)
        with pytest.raises(EventsRefused) as caught:
            source.flush(LONG)
        assert caught.value.reasons == {"run-ended": 3}
        assert source.flush(LONG).refused == {"run-ended": 3}  # told once


def test_refused_events_are_told_at_flush_and_close(logger: ScriptedLogger) -> None:
    logger.model.refuse_runs = {8}
    logger.model.active = {7, 8}
    with sourced(logger) as source:
        source.send("a", b"good")
        source.send("a", b"bad", run=8)
        with pytest.raises(EventsRefused, match="1 run-aborted"):
            source.flush(LONG)
        source.send("a", b"bad", run=8)
        with pytest.raises(EventsRefused):
            source.close(LONG)
        report = source.report()
    assert (report.acknowledged, report.refused) == (1, {"run-aborted": 2})
    assert logger.model.kept.closed


def diverted(run: int, stream: str, why: str, events: int) -> DivertedEvents:
    return DivertedEvents(run=run, stream=stream, why=why, events=events)


def test_a_stream_that_the_run_has_not_is_an_error_as_soon_as_it_is_known(
    logger: ScriptedLogger,
) -> None:
    logger.model.streams = {7: ["a", "b"]}
    with sourced(logger) as source:
        assert source.wait_for_run(timeout=LONG)
        for streams in ("c", ["a", "c"]):
            with pytest.raises(StreamUnknown, match="run 7 has no stream c; its streams: a, b"):
                source.send(streams, b"x")
            with pytest.raises(StreamUnknown):
                source.send_many(streams, np.zeros((2, 4), np.uint8))
        source.send("c", b"of another run, which is not known", run=8)
        source.send(["a", "b"], b"x")
        assert source.flush(LONG).sent == 3  # nothing else was taken
        assert source.streams_of(7) == ["a", "b"]
    assert logger.stored[7, "a"] == [b"x"]


def test_what_went_to_a_stream_that_is_not_there_is_told_at_flush_once(
    logger: ScriptedLogger,
) -> None:
    with sourced(logger) as source:
        source.send("c", b"x")
        source.send("a", b"x")
        logger.model.streams = {7: ["a", "b"]}
        logger.model.diverted = [diverted(7, "c", "stream-unknown", 1)]
        with pytest.raises(EventsDiverted, match="1 event for run 7 stream c went to the orphan"):
            source.flush(LONG)
        report = source.flush(LONG)  # told once
        assert (report.acknowledged, report.stored, report.orphan) == (2, 1, 1)
        assert (report.streams["c"].stored, report.streams["c"].orphan) == (0, 1)
        assert (report.streams["a"].stored, report.streams["a"].orphan) == (1, 0)


def test_late_events_are_told_at_close_when_all_is_durable(logger: ScriptedLogger) -> None:
    with sourced(logger) as source:
        for _ in range(5):
            source.send("a", b"x")
        logger.model.diverted = [diverted(7, "a", "late", 2)]
        assert source.flush(LONG).garbage == 2
        with pytest.raises(EventsDiverted, match="2 events for run 7 stream a came late") as caught:
            source.close(LONG)
        assert caught.value.pieces == {(7, "a", "late"): 2}
    report = source.report()
    assert (report.state, report.acknowledged, report.stored) == ("closed", 5, 3)


def test_events_for_a_run_that_is_not_there_are_told_in_the_log(
    logger: ScriptedLogger, caplog: pytest.LogCaptureFixture
) -> None:
    with sourced(logger) as source:
        source.send("a", b"x", run=9)
        logger.model.diverted = [diverted(9, "a", "run-unknown", 1)]
        assert source.close(LONG).orphan == 1
    assert "1 event for run 9 stream a went to the orphan file (run-unknown, active runs: 7)" in (
        caplog.text
    )


def test_events_that_were_refused_and_others_that_were_diverted_are_told_together(
    logger: ScriptedLogger,
) -> None:
    logger.model.refuse_runs = {8}
    logger.model.active = {7, 8}
    with sourced(logger) as source:
        source.send("a", b"bad", run=8)
        logger.model.diverted = [diverted(7, "a", "late", 2)]
        with pytest.raises(EventsRefused) as caught:
            source.close(LONG)
    assert "came late" in caught.value.__notes__[0]


def test_a_name_in_use_is_tried_again_and_reported(logger: ScriptedLogger) -> None:
    logger.model.name_in_use = True
    with sourced(logger) as source:
        source.send("a", b"x")
        until(lambda: "name-in-use" in source.report().waiting)
        logger.model.name_in_use = False
        source.flush(LONG)


def test_a_refusal_for_good_is_raised_by_every_call(logger: ScriptedLogger) -> None:
    logger.model.kept.closed = True
    with sourced(logger) as source:
        until(lambda: source.report().state == "refused")
        for call in (lambda: source.send("a", b""), source.flush, source.wait_for_run):
            with pytest.raises(SourceRefused, match="closed"):
                call()
        with pytest.raises(SourceRefused):
            source.close()


def test_a_link_that_died_surfaces_in_the_next_call(
    logger: ScriptedLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(SourceSession, "receive", broken)
    with sourced(logger) as source:
        with pytest.raises(SourceError, match="a bug"):
            source.wait_for_run(timeout=LONG)
        for call in (lambda: source.send("a", b""), source.flush, source.close):
            with pytest.raises(SourceError, match="a bug"):
                call()


def test_a_stranger_at_the_address_is_survived() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        source = dlog.Source(f"tcp://127.0.0.1:{port}", name="s", run=7)
        peer, _ = server.accept()
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
        peer.close()
        source.send("a", b"x")
        with pytest.raises(NotAcknowledged):
            source.close(0.3)


# --- the end ----------------------------------------------------------------------------------


def test_close_in_vain_says_how_much_is_pending(logger: ScriptedLogger) -> None:
    logger.commits = False
    source = dlog.Source(logger.address, name="s", run=7)
    source.send("a", b"x")
    until(lambda: logger.model.high == 1)
    with pytest.raises(NotAcknowledged, match="1 pieces"):
        source.close(0.1)
    # Nobody can go on with this session: the logger is told.
    until(lambda: logger.model.kept.closed)
    with pytest.raises(SourceError, match="closed"):
        source.send("a", b"y")
    assert source.close().pending == 1


def test_an_error_in_the_body_is_not_hidden_by_the_goodbye(
    logger: ScriptedLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlog.source._ERROR_EXIT_SECONDS", 0.1)
    logger.commits = False

    def body() -> None:
        with dlog.Source(logger.address, run=7) as source:
            source.send("a", b"x")
            raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        body()
    assert "not acknowledged" in caught.value.__notes__[0]


def test_a_source_that_was_forgotten_is_told_of(
    logger: ScriptedLogger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_exit: list[Callable[[], None]] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    logger.commits = False
    with sourced(logger) as source:
        source.send("a", b"x")
        with caplog.at_level(logging.ERROR, "dlog.source"):
            at_exit[0]()
    assert "never closed: 1 pieces" in caplog.text


def test_flush_waits_for_what_was_sent_before_it_alone(logger: ScriptedLogger) -> None:
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            source.send("b", b"x")

    with sourced(logger) as source:
        thread = threading.Thread(target=go_on)
        thread.start()
        for _ in range(6):
            source.send("a", b"x")
            source.flush(LONG)
        over.set()
        thread.join()
        assert source.report().streams["a"].acknowledged == 6


def test_threads_may_share_a_source(logger: ScriptedLogger) -> None:
    def send(stream: str) -> None:
        for i in range(500):
            source.send(stream, b"%d" % i)

    with sourced(logger) as source:
        threads = [threading.Thread(target=send, args=(name,)) for name in ("a", "b", "c")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        source.flush(LONG)
    for name in ("a", "b", "c"):
        assert logger.stored[7, name] == [b"%d" % i for i in range(500)]


# --- what cannot be ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.send("a", b"", run=0), "run 0"),
        (lambda s: s.send("a", b"", run="1"), "a run is a number, not str"),
        (lambda s: s.send("no good", b""), "stream name"),
        (lambda s: s.send(5, b""), "several names, not int"),
        (lambda s: s.send([], b""), "at least"),
        (lambda s: s.send(["a", "a"], b""), "once"),
        (lambda s: s.send("a", b"", number=-1), "event number"),
        (lambda s: s.send("a", b"", number=2**64), "event number"),
        (lambda s: s.send("a", b"", time_ns=-1), "time_ns"),
        (lambda s: s.send("a", b"", number=1.5), "integer"),
        (lambda s: s.send("a", np.zeros(EVENT_BYTES_MAX + 1, np.uint8)), "limit"),
        (lambda s: s.send_many("a", np.zeros(5)), "axis"),
        (lambda s: s.send_many("a", np.zeros((2, 2)), numbers=[1]), "numbers"),
        (lambda s: s.send_many("a", np.zeros((2, 2)), times_ns=-1), "times_ns"),
        (lambda s: s.send_many("a", np.zeros((9, 1 << 21)), timeout=1.0), "queue"),
    ],
)
def test_what_cannot_be_sent_is_refused_and_changes_nothing(
    logger: ScriptedLogger, call: Callable[[Source], None], message: str
) -> None:
    with sourced(logger) as source:
        with pytest.raises((ValueError, TypeError), match=message):
            call(source)
        assert source.report().events == 0
        source.send("a", b"x")
        source.flush(LONG)


def test_a_source_that_cannot_be_is_refused(logger: ScriptedLogger) -> None:
    with pytest.raises(ValueError, match="source name"):
        dlog.Source(logger.address, name="a b")
    with pytest.raises(ValueError, match="run 0"):
        dlog.Source(logger.address, run=0)
    with pytest.raises(ValueError, match="queue_bytes"):
        dlog.Source(logger.address, queue_bytes=10)
    with pytest.raises(ValueError, match="which run"), sourced(logger, run=None) as source:
        source.send("a", b"")


def test_the_default_name_tells_containers_with_one_host_name_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.getpid", lambda: 1)
    monkeypatch.setattr("socket.gethostname", lambda: "h" * 100)
    first = _default_name()
    assert _default_name() == first, "one process keeps its name"
    _tag_of_process.cache_clear()  # as in another process
    assert _default_name() != first
    assert valid_source_name(first)
    assert len(first) == SOURCE_NAME_BYTES_MAX


def test_the_default_name_is_a_good_one(logger: ScriptedLogger) -> None:
    with sourced(logger, name=None) as source:
        assert source.name
        assert source.flush(LONG).name == source.name
