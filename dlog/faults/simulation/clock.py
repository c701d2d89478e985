"""A clock that only moves when it is told to; nothing in it waits or asks the machine."""

from __future__ import annotations

from typing import Final

# A moment like any other: not 0, which hides a forgotten value.
_WALL_START_NS: Final = 1_700_000_000_000_000_000
_MONOTONIC_START_NS: Final = 1_000_000_000


class SimulatedClock:
    """`ports.Clock` for a run under simulation."""

    def __init__(self) -> None:
        self._monotonic_ns = _MONOTONIC_START_NS
        self._wall_ns = _WALL_START_NS

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def advance(self, duration_ns: int) -> None:
        """Let time pass on both clocks."""
        if duration_ns < 0:
            raise ValueError(f"time does not run backwards: {duration_ns} ns")
        self._monotonic_ns += duration_ns
        self._wall_ns += duration_ns

    def set_wall(self, wall_ns: int) -> None:
        """What an administrator or a time server does to the wall clock: any jump, either way."""
        self._wall_ns = wall_ns
