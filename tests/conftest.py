"""What every test may ask for. It owns the recorded data's place, what a test needs installed, the
Hypothesis profiles, Ctrl-C, and the end of each test's loggers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from dlog.faults import system_calls
from tests.rig.commands import CHECKOUT
from tests.rig.processes import LoggerProcess, NewLogger

# No deadline: a test's time on a busy machine says nothing about the code. The same examples each
# time, so that a run that failed fails again; `make fuzz` and `make soak` look for new ones.
settings.register_profile("dlog", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("soak", deadline=None, print_blob=True)
settings.register_profile(
    "fuzz",
    deadline=None,
    print_blob=True,
    max_examples=20_000,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("dlog")

# A shell that starts the tests in the background has them ignore Ctrl-C, and with them every
# process that they start and send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Recorded detector data (`lcls2/`, `cernatschool/`): $DLOG_DATA, or ../shared/data."""
    given = os.environ.get("DLOG_DATA")
    folder = Path(given) if given else CHECKOUT.parent / "shared" / "data"
    if not (folder / "lcls2").is_dir():
        if given:
            pytest.fail(f"DLOG_DATA={given} holds no lcls2/")
        pytest.skip(f"no recorded data at {folder}: set DLOG_DATA to the folder that holds lcls2/")
    return folder


# --- what can be installed: skipped where it is missing, a failure where CI=true -----------------


def need_program(name: str) -> str:
    """The path of a program that Debian has a package of."""
    return shutil.which(name) or _missing(f"{name} is not installed")


def need_package(name: str) -> None:
    """A Python package that PyPI has."""
    if importlib.util.find_spec(name) is None:
        _missing(f"{name} is not installed: pip install {name}")


def _missing(words: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{words}, and CI=true skips no test for what can be installed", pytrace=False)
    pytest.skip(words)


@pytest.fixture(scope="session")
def strace() -> str:
    """The tracer that makes system calls fail; skipped where the system lets no process trace."""
    found = need_program("strace")
    tried = subprocess.run([found, "-o", os.devnull, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"strace may not trace here: {tried.stderr.decode().strip()}")
    return found


@pytest.fixture(scope="session")
def held_calls() -> None:
    """Skipped where the system lets no program stand between another one and its disk."""
    try:
        system_calls.check()
    except system_calls.Refused as refused:
        pytest.skip(f"no storage call can be held here: {refused}")


# --- real loggers: none outlives its test, and their logs stand in the report of one that failed -

_LOGGERS = pytest.StashKey[list[LoggerProcess]]()
_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
        for logger in item.stash.get(_LOGGERS, []):
            report.sections.append((f"log of the logger in {logger.folder}", logger.log_tail()))
    return report


@pytest.fixture
def new_logger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewLogger]:
    """Makes loggers, each in a folder of its own: `new_logger(configuration, name="logger")`."""
    loggers: list[LoggerProcess] = []
    request.node.stash[_LOGGERS] = loggers

    def make(
        configuration: str, *, name: str = "logger", data: Path | None = None
    ) -> LoggerProcess:
        logger = LoggerProcess(tmp_path / name, configuration, data=data)
        loggers.append(logger)
        return logger

    yield make
    for logger in loggers:
        logger.kill()
    if not request.node.stash.get(_FAILED, False):
        # Hundreds of megabytes that nobody will look at.
        shutil.rmtree(tmp_path, ignore_errors=True)
