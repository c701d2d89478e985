"""The terminal is closed, its pipe is broken, its disk is full: the logger does not die of its log,
and its log reaches no file of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.rig.commands import dlog_command, environment, run_dlog
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.waiting import LONG

pytestmark = pytest.mark.long

CONFIGURATION = f"{QUICK_INIT}\n[streams.s]\n"


def redirected(how: str) -> list[str]:
    """Before a command: a shell that gives it these streams."""
    return ["/bin/sh", "-c", f'exec "$@" {how}', "sh"]


def play(logger: LoggerProcess, run: int) -> None:
    """A run with an event, and a start of a run that is refused, which the log tells of."""
    logger.start_run(run)
    assert not logger.ask("START RUN", {"run": run}).ok
    text = logger.folder / "in.txt"
    text.write_text("a\nb\n")
    options = ["--run", run, "--stream", "s", "-d", logger.data, "--state", logger.folder / "state"]
    sent = run_dlog("send", text, *options)
    assert sent.returncode == 0, sent.stderr
    logger.stop_run(run)


@pytest.mark.parametrize("how", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full 2>&1"])
def test_a_logger_whose_streams_are_closed_or_full_goes_on(new_logger: NewLogger, how: str) -> None:
    logger = new_logger(CONFIGURATION).start(prefix=redirected(how))
    play(logger, 1)
    for number in (0, 1, 2):
        opened = os.readlink(f"/proc/{logger.pid}/fd/{number}")
        assert not opened.startswith(str(logger.data)), f"descriptor {number} is {opened}"
    logger.stop()
    logger.assert_verified()


def test_a_logger_whose_log_nobody_reads_any_more_goes_on(
    new_logger: NewLogger, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    logger = new_logger(CONFIGURATION).start(prefix=redirected(f"2>{pipe}"))
    os.close(reader)
    play(logger, 1)
    logger.stop()
    logger.assert_verified()


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full"])
def test_a_refused_start_keeps_its_exit_code_where_its_words_find_no_place(
    tmp_path: Path, how: str
) -> None:
    done = subprocess.run(
        [*redirected(how), *dlog_command("start", "-c", tmp_path / "none.toml")],
        stdin=subprocess.DEVNULL, timeout=LONG, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 78


def test_a_command_whose_answer_finds_no_place_says_so() -> None:
    done = subprocess.run(
        [*redirected(">/dev/full"), *dlog_command("--version")],
        stderr=subprocess.PIPE, timeout=LONG, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.decode() == "dlog: standard output: No space left on device\n"


def test_a_terminal_that_is_closed_ends_the_logger_as_sigterm_does(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(1)
    logger.signal(signal.SIGHUP)
    assert logger.ended() == 0
    assert "SIGHUP: settling; the runs stay active" in logger.log()
    logger.start(state="RUNNING")
    play(logger, 2)


def test_under_nohup_a_logger_outlives_its_terminal(new_logger: NewLogger) -> None:
    nohup = ["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh"]
    logger = new_logger(CONFIGURATION).start(prefix=nohup)
    logger.signal(signal.SIGHUP)
    play(logger, 1)
    logger.stop()
