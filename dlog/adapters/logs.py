"""The log: the standard library's `logging` to stderr, for people or (`as_json`) as JSON lines.

Writing is the work of a thread of its own, behind a bounded queue: a terminal that somebody stopped
or a full pipe holds up no thread of the logger. What does not fit is dropped and counted.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import queue
import sys
import threading
from typing import Final, TextIO

from dlog.quantities import moment

LINES_WAITING_MAX: Final = 10_000
LINE_LETTERS_MAX: Final = 20_000
FLUSH_SECONDS_MAX: Final = 2.0
LEVELS: Final = ("debug", "info", "warning", "error")

_COLOURS: Final = {"WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[1;31m"}
_OFF: Final = "\033[0m"
# What a peer sends may stand in a message: it must not move the cursor or fake a line.
_CONTROLS: Final = {n: f"\\x{n:02x}" for n in (*range(32), *range(127, 160)) if n != 9}


def start_logging(
    level: str = "info", *, as_json: bool = False, stream: TextIO | None = None
) -> LogOutput:
    """Send what is logged from here on to the stream (stderr). Call `close` on the result at the
    end, so that the last lines are there."""
    stream = stream if stream is not None else sys.stderr
    coloured = stream.isatty() and "NO_COLOR" not in os.environ
    formatter = JsonLines() if as_json else HumanLines(coloured=coloured)
    output = LogOutput(stream, formatter)
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, LogOutput):
            root.removeHandler(handler)
            handler.close()
    root.addHandler(output)
    logging.captureWarnings(True)
    set_level(level)
    return output


def set_level(level: str) -> None:
    """What SET DEBUG does. Raises `ValueError` for a level that there is not."""
    if level not in LEVELS:
        raise ValueError(f"{level!r} is not a level: {', '.join(LEVELS)}")
    logging.getLogger().setLevel(level.upper())


class HumanLines(logging.Formatter):
    """`2026-01-02 03:04:05.678 +01:00 WARNING committer  the message`, in local time."""

    def __init__(self, *, coloured: bool = False) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        # Local time, since the reader sits beside the experiment.
        when = moment(int(record.created * 1e9), "milliseconds")
        level = f"{record.levelname:<8}"
        if self._coloured and record.levelname in _COLOURS:
            level = f"{_COLOURS[record.levelname]}{level}{_OFF}"
        message = _one_line(record.getMessage())
        line = f"{when} {level} {record.threadName:<12} "
        return line + message + _trace(self, record)


class JsonLines(logging.Formatter):
    """One JSON object a line; the time is UTC."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "thread": record.threadName,
            "logger": record.name,
            "message": record.getMessage()[:LINE_LETTERS_MAX],
        }
        trace = _trace(self, record).strip()
        if trace:
            line["trace"] = trace
        return json.dumps(line)


class LogOutput(logging.Handler):
    """Formats in the thread that logs, writes in its own. Never blocks who logs, never raises."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(LINES_WAITING_MAX)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except (TypeError, ValueError, KeyError) as error:
            line = f"a log message that cannot be formatted: {record.msg!r}: {error}"
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, for a bounded time."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=FLUSH_SECONDS_MAX)
        if self._thread is not threading.current_thread():
            self._thread.join(FLUSH_SECONDS_MAX)
        super().close()

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            if dropped:
                line += f"\n(before this, {dropped} log lines were dropped: nobody took them)"
            try:
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):
                self._dropped += 1  # the terminal is gone; the logger is not
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def _one_line(message: str) -> str:
    """Lines of one message stay together, indented; control characters are shown, not obeyed."""
    lines = message[:LINE_LETTERS_MAX].split("\n")
    return "\n    ".join(line.translate(_CONTROLS) for line in lines)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "".join("\n" + part for part in parts)
