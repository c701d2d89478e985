"""The log: one line a message, for people or as JSON, and nobody who logs ever waits."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Iterator

import pytest

from dlog.adapters import logs
from dlog.adapters.logs import LINES_WAITING_MAX, set_level, start_logging
from tests.waiting import LONG


class Stream(io.StringIO):
    """Keeps what was written after it was closed too."""

    def close(self) -> None:
        pass


class StoppedTerminal(Stream):
    """Somebody pressed Ctrl-S."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()
        self.reached = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.goes_on.wait(LONG)
        return super().write(text)


@pytest.fixture(autouse=True)
def _the_root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)
    logging.captureWarnings(False)


def lines_of(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_line_for_people_has_time_level_thread_and_message() -> None:
    stream = Stream()
    output = start_logging(stream=stream)
    logging.getLogger("dlog.x").warning("run %d is slow", 7)
    output.close()
    (line,) = lines_of(stream)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [+-]\d\d:\d\d WARNING  MainThread   run 7 is slow",
        line,
    )


def test_json_lines() -> None:
    stream = Stream()
    output = start_logging(as_json=True, stream=stream)
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("dlog.x").exception("it went\nwrong")
    output.close()
    (line,) = lines_of(stream)
    said = json.loads(line)
    assert {key: said[key] for key in ("level", "logger", "thread", "message")} == {
        "level": "error",
        "logger": "dlog.x",
        "thread": "MainThread",
        "message": "it went\nwrong",
    }
    assert said["trace"].endswith("ValueError: broken")
    assert said["time"].endswith("+00:00")


def test_what_a_peer_sent_cannot_fake_a_line_or_move_the_cursor() -> None:
    stream = Stream()
    output = start_logging(stream=stream)
    logging.getLogger().warning("said %s", "x\n2026-01-01 00:00:00.000 INFO \x1b[2J\x9b\r")
    output.close()
    first, second = lines_of(stream)
    assert first.endswith("said x")
    assert second == r"    2026-01-01 00:00:00.000 INFO \x1b[2J\x9b\x0d"


def test_set_debug_changes_the_level_at_once() -> None:
    stream = Stream()
    output = start_logging("warning", stream=stream)
    logger = logging.getLogger("dlog.x")
    logger.info("one")
    set_level("debug")
    logger.debug("two")
    set_level("error")
    logger.warning("three")
    output.close()
    assert [line.rsplit(" ", 1)[1] for line in lines_of(stream)] == ["two"]


@pytest.mark.parametrize("level", ["", "DEBUG", "all", "notset"])
def test_a_level_that_there_is_not_is_refused(level: str) -> None:
    before = logging.getLogger().level
    with pytest.raises(ValueError, match="is not a level"):
        set_level(level)
    assert logging.getLogger().level == before


def test_a_stopped_terminal_stops_no_thread_and_what_is_lost_is_counted() -> None:
    stream = StoppedTerminal()
    output = start_logging(stream=stream)
    logger = logging.getLogger("dlog.x")
    logger.info("first")
    assert stream.reached.wait(LONG)
    for number in range(LINES_WAITING_MAX + 50):
        logger.info("%d", number)
    stream.goes_on.set()
    output.close()
    text = stream.getvalue()
    assert "first" in text
    assert "50 log lines were dropped" in text
    assert len(lines_of(stream)) == LINES_WAITING_MAX + 2


def test_a_terminal_that_is_gone_stops_nothing() -> None:
    class Gone(Stream):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    output = start_logging(stream=Gone())
    logging.getLogger("dlog.x").info("nobody reads this")
    output.close()


def test_a_message_that_cannot_be_formatted_is_told_and_not_raised() -> None:
    stream = Stream()
    output = start_logging(stream=stream)
    # Given to the handler alone, since pytest's own raises for it.
    output.handle(logging.makeLogRecord({"msg": "%d runs", "args": ("seven",)}))
    output.close()
    assert "cannot be formatted" in stream.getvalue()


def test_a_second_start_takes_the_place_of_the_first() -> None:
    first, second = Stream(), Stream()
    start_logging(stream=first)
    output = start_logging(stream=second)
    logging.getLogger("dlog.x").info("once")
    output.close()
    assert (len(lines_of(first)), len(lines_of(second))) == (0, 1)


def test_a_long_message_is_cut() -> None:
    stream = Stream()
    output = start_logging(stream=stream)
    logging.getLogger("dlog.x").info("x" * 10**6)
    output.close()
    assert len(stream.getvalue()) < logs.LINE_LETTERS_MAX + 100
