"""A history while it is played: the world, what COOR and the sources believe, the story so far.

The actions (commands, sending, troubles) share it. All chance of an action is in `random`, which is
the action's own: so one that is left out changes nothing of what the others choose.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from dlog.faults.simulation.menu import Menu
from dlog.faults.simulation.port_wrappers import PortWrappers
from dlog.faults.simulation.sources import SimulatedSource
from dlog.faults.simulation.world import World


class Course:
    """See the module. runs: the live ones, as COOR believes (active or paused). number: the highest
    event number by run. at: the action that is played, "" at the beginning and the end."""

    def __init__(self, seed: int, menu: Menu, wrappers: PortWrappers) -> None:
        self.seed = seed
        self.menu = menu
        self.random = Random(f"{seed}/begin")
        directories = 2 if menu.away else self.random.choice((1, 1, 2))
        self.world = World(seed, directories=directories, wrappers=wrappers)
        self.at = ""
        self.story: list[str] = []
        self.problems: list[str] = []
        self.faults: Counter[str] = Counter()
        self.runs: dict[int, str] = {}
        self.next_run = 1
        self.number: Counter[int] = Counter()
        self.sources: list[SimulatedSource] = []
        self.world.after_crash = self._look

    def _look(self) -> None:
        """What survives a crash holds, before any recovery."""
        self.problems += [f"after a crash: {p}" for p in self.world.problems()]

    def begin_action(self, name: str, number: int | None) -> None:
        """From here on chance is that of this action."""
        self.at = "" if number is None else f"[{number}] "
        self.random = Random(f"{self.seed}/{name}")
        self.world.reseed(f"{self.seed}/{name}")

    def tell(self, text: str) -> None:
        self.story.append(f"{self.at}step {self.world.steps.count}: {text}")

    def command(self, name: str, **parameters: Any) -> bool:
        """Give a command to the logger and wait for its answer; whether it was carried out."""
        shown = ", ".join(f"{k}={v}" for k, v in parameters.items() if k != "streams")
        self.tell(f"{name} {shown}")
        answer = self.world.do(name, **parameters)
        if not answer.ok:
            self.story[-1] += f" -> {answer.code}: {answer.error}"
        return answer.ok

    def some_run(self, *states: str) -> int | None:
        """A live run in one of these states, or None."""
        runs = [run for run, state in self.runs.items() if state in states]
        return self.random.choice(runs) if runs else None
