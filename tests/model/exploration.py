"""Breadth-first exploration of the protocol model: every state that can be reached, once.

A counterexample is the shortest list of actions that leads to it.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.model.invariants import broken, quiet
from tests.model.protocol import first_state, steps
from tests.model.states import Scenario, State


@dataclass(frozen=True)
class Found:
    """What an exploration found. kind: "" where everything holds, else loss, duplicate, unsent or
    deadlock. exhausted: whether all states were seen."""

    states: int
    exhausted: bool
    kind: str = ""
    words: str = ""
    actions: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.kind:
            bounds = "all of them" if self.exhausted else "not all of them"
            return f"{self.states} states, {bounds}: everything holds"
        lines = [f"{self.kind}, in the {self.states}th state: {self.words}"]
        return "\n".join(lines + [f"{n:4} {action}" for n, action in enumerate(self.actions, 1)])


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """A third of the time: millions of tuples that are all in use."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_without_garbage_collection()
def explore(scenario: Scenario, states_max: int = 1_000_000) -> Found:
    """All states, or up to the first in which something does not hold; then, whether every state
    has a way to quiescence on which nothing goes wrong."""
    first = first_state(scenario)
    number: dict[State, int] = {first: 0}
    came_from: list[tuple[int, str]] = [(-1, "")]
    leads_here: list[list[int]] = [[]]
    good: list[int] = []
    waiting = deque([first])
    while waiting:
        state = waiting.popleft()
        here = number[state]
        problem = broken(scenario, state)
        if problem is not None:
            return Found(len(number), False, *problem, _way_to(here, came_from))
        if quiet(scenario, state):
            good.append(here)
        for action, fault, after in steps(scenario, state):
            there = number.get(after)
            if there is None:
                if len(number) >= states_max:
                    return Found(len(number), False)
                there = number[after] = len(number)
                came_from.append((here, action))
                leads_here.append([])
                waiting.append(after)
            if not fault:
                leads_here[there].append(here)
    stuck = _first_without_way(good, leads_here)
    if stuck is not None:
        words = "from here nothing leads to quiescence"
        return Found(len(number), True, "deadlock", words, _way_to(stuck, came_from))
    return Found(len(number), True)


def _way_to(state: int, came_from: list[tuple[int, str]]) -> tuple[str, ...]:
    actions = []
    while state > 0:
        state, action = came_from[state]
        actions.append(action)
    return tuple(reversed(actions))


def _first_without_way(good: list[int], leads_here: list[list[int]]) -> int | None:
    """The state nearest to the first one from which no good one can be reached."""
    reaches = bytearray(len(leads_here))
    waiting = list(good)
    for state in good:
        reaches[state] = 1
    while waiting:
        for before in leads_here[waiting.pop()]:
            if not reaches[before]:
                reaches[before] = 1
                waiting.append(before)
    stuck = reaches.find(0)
    return None if stuck < 0 else stuck
