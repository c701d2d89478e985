"""Shortens a history that does not hold: leaves out actions of its plan, as long as what is left
does not hold for the same reason. It knows nothing of what an action does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from dlog.faults.simulation.campaign import Outcome, play
from dlog.faults.simulation.menu import Menu
from dlog.faults.simulation.port_wrappers import UNWRAPPED, PortWrappers
from dlog.faults.simulation.world import ROUNDS_MAX

# What a logger that will never come to an end is waited for in each try.
ROUNDS_OF_A_TRY: Final = 1500
_ANY_NUMBER: Final = re.compile(r"[0-9a-f]*\d[0-9a-f]*")


def shortest(
    actions: Sequence[int], fails: Callable[[Sequence[int]], bool], enough: Callable[[], bool]
) -> list[int]:
    """As few of the actions as fail still, found by leaving out ever smaller pieces (ddmin); no
    single one of them can be spared, unless it was `enough` before."""
    kept = list(actions)
    size = max(1, len(kept) // 2)
    while kept:
        spared = False
        for begin in range(len(kept) - size, -size, -size):
            if enough():
                return kept
            without = kept[: max(0, begin)] + kept[begin + size :]
            if len(without) < len(kept) and fails(without):
                kept, spared = without, True
        if size == 1 and not spared:
            break
        size = max(1, min(size, len(kept)) // 2)
    return kept


def shrink(
    outcome: Outcome,
    menu: Menu,
    enough: Callable[[], bool],
    wrappers: PortWrappers = UNWRAPPED,
) -> Outcome:
    """The shortest history found that does not hold for the reason of this one; at worst itself.

    enough: asked between two tries, so that the caller may bound the time. wrappers: those that the
    history was played with.
    """
    kinds = {kind(problem) for problem in outcome.problems}

    def fails(only: Sequence[int]) -> bool:
        tried = play(outcome.seed, menu, only=only, rounds_max=ROUNDS_OF_A_TRY, wrappers=wrappers)
        return not kinds.isdisjoint(kind(problem) for problem in tried.problems)

    if outcome.actions is None:
        return outcome
    kept = shortest(outcome.actions, fails, enough)
    # As whoever plays it again will: with all the patience of a campaign.
    found = play(outcome.seed, menu, only=kept, rounds_max=ROUNDS_MAX, wrappers=wrappers)
    return found if found.problems else outcome


def kind(problem: str) -> str:
    """What sort of problem it is: its last words, without the numbers and names in them."""
    lines = problem.strip().splitlines() or [""]
    return _ANY_NUMBER.sub("#", lines[-1].split(";")[0].rpartition(": ")[2])
