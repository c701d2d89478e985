"""How a source ends: closed twice, by another thread, in vain, after a fork, by a signal. No
call waits for ever that was given a time, and no event goes without a word."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dlog
from dlog.errors import EventsRefused, FormatError, NotAcknowledged, SourceError
from dlog.source import Source
from tests.scripted_logger import ScriptedLogger
from tests.unit.test_source import fill, sourced
from tests.waiting import LONG, until

KIB = 1024


@pytest.fixture
def logger() -> Iterator[ScriptedLogger]:
    made = ScriptedLogger()
    yield made
    made.close()


def said_by(call: Callable[[], object]) -> str:
    try:
        return f"returned {call()}"
    except BaseException as error:  # noqa: BLE001 - it is what is looked at
        return f"{type(error).__name__}: {error}"


class Background:
    """A call in a thread of its own, and what came of it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.said = ""
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call: Callable[[], object]) -> None:
        self.said = said_by(call)

    def ends(self) -> str:
        self._thread.join(LONG)
        assert not self._thread.is_alive(), "it hangs"
        return self.said


def test_waiting_for_a_run_that_was_over_before_the_source_came_ends(
    logger: ScriptedLogger,
) -> None:
    logger.model.active, logger.model.ended_before = {8}, {7}
    with sourced(logger) as source:
        waiting = Background(source.wait_for_run)
        assert waiting.ends().startswith("RunEnded: run 7 is over")


# --- a fork -----------------------------------------------------------------------------------


def forked(call: Callable[[], object]) -> str:
    """What a child process says that makes this call; "" where it hangs."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(LONG))
        os.write(writing, said_by(call).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def test_a_child_process_is_told_at_once_and_the_parent_goes_on(logger: ScriptedLogger) -> None:
    with sourced(logger) as source:
        source.send("a", b"parent")
        source.flush(LONG)
        calls: tuple[Callable[[], object], ...] = (
            lambda: source.send("a", b"child"),
            lambda: source.send_many("a", b"child", sizes=[5]),
            source.flush,
            source.wait_for_run,
            source.report,
            source.close,
            lambda: source.__exit__(None, None, None),
        )
        for call in calls:
            said = forked(call)
            assert said.startswith(f"SourceError: source s belongs to process {os.getpid()}"), said
        assert forked(source.abandon) == "returned None"
        source.send("a", b"parent again")
        assert source.close(LONG).acknowledged == 2
    assert logger.stored[7, "a"] == [b"parent", b"parent again"]


def test_a_fork_while_other_threads_have_the_locks_leaves_the_child_free(
    logger: ScriptedLogger,
) -> None:
    with sourced(logger) as source:
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                source.send("a", b"x")

        threads = [Background(send) for _ in range(2)]
        said = [forked(lambda: source.send("a", b"child")) for _ in range(20)]
        stop.set()
        for thread in threads:
            assert thread.ends() == "returned None"
        assert all(each.startswith("SourceError: source s belongs") for each in said), said
        source.flush(LONG)
    assert set(logger.stored[7, "a"]) == {b"x"}


def test_a_child_may_have_a_source_of_its_own(logger: ScriptedLogger) -> None:
    other = ScriptedLogger()

    def work() -> int:
        with dlog.Source(other.address, name="child", run=7) as own:
            own.send("a", b"child")
        return own.report().acknowledged

    with sourced(logger):
        assert forked(work) == "returned 1"
    other.close()
    assert other.stored[7, "a"] == [b"child"]


_shared: list[Source] = []


def _send_shared(payload: bytes) -> None:
    _shared[0].send("a", payload)


def test_workers_of_a_pool_raise_what_they_were_told(logger: ScriptedLogger) -> None:
    with sourced(logger) as source:
        _shared[:] = [source]
        with multiprocessing.get_context("fork").Pool(1) as pool:
            with pytest.raises(SourceError, match="make a Source of its own in each process"):
                pool.apply_async(_send_shared, (b"x",)).get(LONG)
            with pytest.raises(TypeError, match="cannot be pickled"):
                pool.apply_async(source.send, ("a", b"x")).get(LONG)
        _shared.clear()


@pytest.mark.parametrize(
    "error",
    [
        EventsRefused("not stored", {"run-ended": 3}),
        NotAcknowledged("in vain", 5),
        FormatError("no magic", path="a.dlog"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_whole_out_of_another_process(error: Exception) -> None:
    """A pool whose worker raises what cannot be unpickled waits for ever."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


# --- close ------------------------------------------------------------------------------------


def test_a_second_close_waits_for_the_first(logger: ScriptedLogger) -> None:
    logger.commits = False
    with sourced(logger) as source:
        source.send("a", b"x")
        first, second = Background(source.close), Background(source.close)
        with pytest.raises(NotAcknowledged, match="1 pieces"):
            source.close(0.1)
        logger.commits = True
        assert "acknowledged=1" in first.ends()
        assert "acknowledged=1" in second.ends()


def test_who_waits_for_room_while_the_source_is_closed_is_told(logger: ScriptedLogger) -> None:
    """Taken after that, the event would be lost with the session."""
    logger.commits = False
    with sourced(logger, queue_bytes=64 * KIB, batch_bytes=4 * KIB) as source:
        taken = fill(source, "a", KIB)
        sender = Background(lambda: source.send("a", bytes(KIB)))
        closer = Background(source.close)
        assert sender.ends() == "SourceError: source s is being closed"
        logger.commits = True
        assert "returned" in closer.ends()
    assert len(logger.stored[7, "a"]) == taken


def test_a_flush_that_waits_while_the_source_is_given_up_is_told(logger: ScriptedLogger) -> None:
    logger.commits = False
    with sourced(logger) as source:
        source.send("a", b"x")
        flush = Background(source.flush)
        source.abandon()
        assert flush.ends() == "SourceError: source s is closed"


@pytest.mark.parametrize("silenced", ["gone", "deaf", "mute", "paused", "stalled"])
def test_close_with_a_time_ends_whatever_the_logger_does(
    logger: ScriptedLogger, silenced: str
) -> None:
    source = dlog.Source(logger.address, name="s", run=7, linger_ms=0)
    source.send("a", b"x")
    source.flush(LONG)
    if silenced == "gone":
        logger.close()
    elif silenced == "paused":
        logger.do(lambda: (logger.model.active.clear(), logger.model.held.add(7))[0])
        until(lambda: source.report().held == (7,))
    elif silenced == "stalled":
        logger.commits = False
    else:
        setattr(logger, silenced, True)
    source.send("a", b"y")
    said = Background(lambda: source.close(0.3))
    assert said.ends().startswith("NotAcknowledged: 1 pieces")
    assert source.close().pending == 1


def test_a_goodbye_that_is_not_answered_does_not_hold_up_close(
    logger: ScriptedLogger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dlog.source._GOODBYE_SECONDS", 0.2)
    with sourced(logger) as source:
        source.send("a", b"x")
        source.flush(LONG)
        logger.mute = True
        assert "acknowledged=1" in Background(source.close).ends()
    assert "did not confirm the end" in caplog.text


def test_an_interrupt_ends_close(logger: ScriptedLogger) -> None:
    logger.commits = False
    source = dlog.Source(logger.address, name="s", run=7)
    source.send("a", b"x")
    until(lambda: logger.model.high == 1)
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        source.close()
    assert source.close().pending == 1
    until(lambda: logger.model.kept.closed)


class Interrupted(str):
    """A name of a stream at which a signal comes once, in the middle of `send`."""

    comes = True

    def __hash__(self) -> int:
        if self.comes:
            self.comes = False
            signal.raise_signal(signal.SIGUSR1)
        return super().__hash__()


def test_a_signal_handler_that_closes_the_source_does_not_hang(
    logger: ScriptedLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have interrupted a call with the lock, which nobody can give back then."""
    monkeypatch.setattr("dlog.source._LOCK_SECONDS", 0.1)
    said: list[str] = []
    with sourced(logger) as source:
        before = signal.signal(signal.SIGUSR1, lambda *_: said.append(said_by(source.close)))
        try:
            source.send([Interrupted("a")], b"goes on")
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert said[0].startswith("SourceError: source s cannot be closed inside one of its own")
        assert source.close(LONG).acknowledged == 1


def test_a_link_that_the_system_holds_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the data directory lies on a server that does not answer."""
    monkeypatch.setattr("dlog.adapters.source_link._END_SECONDS", 0.1)
    os.mkfifo(tmp_path / "logger.json")  # whoever opens it to read waits for a writer
    source = dlog.Source(tmp_path, name="s", run=7)
    source.send("a", b"x")
    with pytest.raises(NotAcknowledged):
        source.close(0.1)
    assert "is left behind" in caplog.text
    (tmp_path / "logger.json").write_text(json.dumps({}))  # the thread goes on
    for thread in threading.enumerate():
        if thread.name == "dlog source link":
            thread.join(LONG)
            assert not thread.is_alive()
