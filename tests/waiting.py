"""How a test waits for other threads and processes: for a fact, with one generous bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

LONG: Final = 120.0  # seconds; a test that works never waits that long, however busy the machine is
_LOOKS_ALIKE: Final = 5

T = TypeVar("T")


def until(holds: Callable[[], Any], what: str = "it never happened", every: float = 0.01) -> Any:
    """Wait until `holds()` is true, and return it; fails with `what` if it never is."""
    deadline = time.monotonic() + LONG
    while not (result := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(every)
    return result


def until_still(look: Callable[[], T], what: str, every: float = 0.1) -> T:
    """Wait until `look()` is the same several times in a row, and return it."""
    seen = [look()]

    def still() -> bool:
        seen.append(look())
        return len(seen) > _LOOKS_ALIKE and len(set(seen[-_LOOKS_ALIKE:])) == 1

    until(still, f"{what} does not stand still", every)
    return seen[-1]
