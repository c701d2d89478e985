"""Fixtures of the end-to-end tests: loggers that never outlive their test, and whose logs stand in
the report of a test that failed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.processes import LoggerProcess

_LOGGERS = pytest.StashKey[list[LoggerProcess]]()
_FAILED = pytest.StashKey[bool]()

NewLogger = Callable[..., LoggerProcess]


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
