"""A random history of a logger and its sources from one seed, with every fault that the simulation
knows, and what must hold of it. The same seed plays the same history.

`play` is one history: a plan of actions, drawn from the seed, each with chance of its own, so that
some of them may be left out (`only`) and the others do what they did. The story of what was done is
kept, so that a failure can be read, shortened (shrink.py) and played again.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from dlog.errors import JournalFailed
from dlog.faults.simulation.commands import Commands
from dlog.faults.simulation.course import Course
from dlog.faults.simulation.menu import EVERYTHING, SCENARIOS, Menu, Scenario, actions
from dlog.faults.simulation.port_wrappers import UNWRAPPED, PortWrappers
from dlog.faults.simulation.sending import Sending
from dlog.faults.simulation.set_pieces import SetPieces
from dlog.faults.simulation.troubles import Troubles
from dlog.faults.simulation.world import ROUNDS_MAX, Stuck

__all__ = [
    "ACTIONS", "EVERYTHING", "SCENARIOS", "Menu", "Outcome", "Report", "Scenario", "play",
    "play_all",
]  # fmt: skip

ACTIONS: Final = 60


@dataclass(slots=True)
class Outcome:
    """A history that was played. problems: empty where all held. actions: the numbers of those of
    its plan that were played; None of a history without a plan."""

    seed: int
    story: list[str]
    problems: list[str]
    faults: Counter[str]
    events: int
    reboots: int
    recovery_ns_max: int
    fingerprint: int
    actions: list[int] | None = None


class _History:
    """One random history while it is played."""

    def __init__(self, seed: int, menu: Menu, wrappers: PortWrappers) -> None:
        self.course = Course(seed, menu, wrappers)
        self.commands = Commands(self.course)
        self.sending = Sending(self.course)
        self.troubles = Troubles(self.course)
        self.set_pieces = SetPieces(self.course, self.commands, self.sending, self.troubles)
        self.played: list[int] = []

    def action(self, name: str) -> Callable[[], None]:
        for who in (self.commands, self.sending, self.troubles, self.set_pieces):
            found: Callable[[], None] | None = getattr(who, name, None)
            if found is not None:
                return found
        raise AssertionError(f"nobody does {name}")

    def play(self, only: Collection[int] | None) -> None:
        course = self.course
        self.commands.init()
        self.commands.configure()
        self.commands.start_run()
        self.sending.first_sources()
        plan = Random(f"{course.seed}/plan").choices(actions(course.menu), k=ACTIONS)
        for number, name in enumerate(plan):
            if only is not None and number not in only:
                continue
            self.played.append(number)
            course.begin_action(str(number), number)
            self.action(name)()
            course.world.pump(course.random.choice((0, 1, 2, 5, 20)))
            if course.problems:
                return
        course.begin_action("end", None)
        self.end()

    def end(self) -> None:
        """All trouble is over: everything must come to a good end by itself."""
        world = self.course.world
        self.troubles.all_over()
        self.commands.resume_all()
        world.pump(100)
        self.commands.start_last_run()
        world.settle()
        self._judge_a_calm_day()
        self.sending.goodbye_of_all()
        self.commands.stop_all()
        self.course.problems += world.problems(complete=True)
        # What a fault left half-done at the very end is settled by the next start.
        world.stopped = False
        world.pump(10)
        self.course.problems += world.problems(complete=True, stopped=True)
        self._judge_end()

    def _judge_a_calm_day(self) -> None:
        """Where nothing went wrong, no source ever lost the logger: not even a quiet one."""
        if not self.course.faults.total():
            self.course.problems += [
                f"{source.name} lost the logger, and nothing went wrong"
                for source in self.course.sources
                if source.machine.reconnects
            ]

    def _judge_end(self) -> None:
        world, faults, problems = self.course.world, self.course.faults, self.course.problems
        problems += [f"lost: {text}" for text in world.lost]
        problems += [f"after a restart: {text}" for text in world.tails]
        if not (faults["disk"] or faults["space"]):
            problems += [f"not settled: {text}" for text in world.unsettled]
        for failure in world.failures:
            if not (isinstance(failure, JournalFailed) and faults["journal"]):
                problems.append(f"the logger ended on {failure!r}")
        for source in self.course.sources:
            if source.machine.failure is not None:
                problems.append(f"{source.name}: {source.machine.failure}")


def play(
    seed: int,
    menu: Menu = EVERYTHING,
    *,
    only: Collection[int] | None = None,
    rounds_max: int = ROUNDS_MAX,
    wrappers: PortWrappers = UNWRAPPED,
) -> Outcome:
    """One random history, judged after each crash and at its end. only: the actions of its plan
    that are played, by number; None for all. rounds_max: how long anything is waited for.
    wrappers: what stands around the ports."""
    history = _History(seed, menu, wrappers)
    course = history.course
    course.world.rounds_max = rounds_max
    try:
        history.play(only)
    except Stuck as error:
        course.problems.append(str(error))
    except Exception:  # noqa: BLE001 - whatever the logger raises is the finding
        course.problems.append(traceback.format_exc())
    world = course.world
    return Outcome(
        seed,
        course.story,
        course.problems,
        course.faults,
        sum(len(events) for events in world.history.sent.values()),
        world.reboots,
        world.recovery_ns_max,
        world.fingerprint(),
        history.played,
    )


@dataclass(slots=True)
class Report:
    """Many histories. failed: the outcomes that did not hold, the shortest story first."""

    played: int = 0
    events: int = 0
    reboots: int = 0
    recovery_ns_max: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.played += 1
        self.events += outcome.events
        self.reboots += outcome.reboots
        self.recovery_ns_max = max(self.recovery_ns_max, outcome.recovery_ns_max)
        self.faults += outcome.faults
        if outcome.problems:
            self.failed.append(outcome)
            self.failed.sort(key=lambda o: len(o.story))


def play_all(seeds: Sequence[int], menu: Menu = EVERYTHING) -> Report:
    """Histories of these seeds, one behind the other."""
    report = Report()
    for seed in seeds:
        report.add(play(seed, menu))
    return report
