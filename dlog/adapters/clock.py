"""The machine's clocks behind `ports.Clock`; owns no time and never sleeps."""

from __future__ import annotations

import time


class SystemClock:
    """Durations from the monotonic clock, which no one sets; the wall clock only for records."""

    __slots__ = ()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        return time.time_ns()
