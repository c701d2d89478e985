"""Fixtures of the recovery tests: real loggers, where a rebuilt journal must be gone on with."""

from __future__ import annotations

from tests.end_to_end.conftest import new_logger, pytest_runtest_makereport

__all__ = ["new_logger", "pytest_runtest_makereport"]
