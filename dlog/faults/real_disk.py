"""One play of the scripted life on a real disk, with its faults: which there are, and how it went.

A seed stands for a storage call and for what becomes of it, so the same seed tries the same thing
again; the order in which threads come to their calls is the machine's.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import IO, Final

from dlog.creation import create_data_directory
from dlog.errors import DlogError
from dlog.faults import judge
from dlog.faults.call_table import CHANGES, LISTEN, READS, SYNCS, TAKES_SPACE, WRITES
from dlog.faults.keeper import Keeper, start
from dlog.faults.ledger import Ledger
from dlog.faults.plan import Fault, Lasting, Plan
from dlog.faults.script import CONFIGURATION, STEP_SECONDS_MAX, Script, Stuck
from dlog.faults.simulation.campaign import Outcome
from dlog.faults.system_calls import PASS, Call, Deed, Fate, Interposed

# A fault that lasts is mended after this time.
FAULT_SECONDS: Final = 1.5
# What was durable before a fault began may still be on its way to its source so long, on a busy
# machine too.
_UNDER_WAY_SECONDS: Final = 1.0
_SLOW_ONCE_SECONDS: Final = 0.4
_SLOW_SECONDS: Final = 0.02
# About as long as the scripted life takes.
_LIFE_SECONDS: Final = 1.8
MOMENTS: Final = "kill-any-time"
_EVERYTHING: Final[frozenset[str]] = frozenset()
# Every so manyth play with a kill recovers twice before it goes on.
_TWICE_EVERY: Final = 4


@dataclass(frozen=True, slots=True)
class RealScenario:
    """A kind of play. calls: which storage calls it counts (empty: all). variants: what may become
    of one; faults: of the at-th call, the play's faults."""

    words: str
    variants: int
    calls: frozenset[str]
    faults: Callable[[int, int], tuple[Fault, ...]]
    at_moments: bool = False  # the seed stands for moments instead, and no call is held

    def at(self, seed: int) -> int:
        """The call that a seed stands for, from 1."""
        return seed // self.variants + 1


def _kill(at: int, variant: int) -> tuple[Fault, ...]:
    return (Fault(Fate((Deed.KILL_BEFORE, Deed.KILL_AFTER)[variant]), at),)


def _kill_twice(at: int, variant: int) -> tuple[Fault, ...]:
    # Over the seeds the second kill goes through all of the recovery.
    return (*_kill(at, variant), *_kill(1 + at * 7 % 40, 1 - variant))


def _fail(code: int, calls: frozenset[str]) -> Callable[[int, int], tuple[Fault, ...]]:
    def faults(at: int, variant: int) -> tuple[Fault, ...]:
        lasting = tuple(Lasting)[variant]
        return (Fault(Fate(Deed.FAIL, code=code), at, calls, lasting),)

    return faults


def _go_read_only(at: int, variant: int) -> tuple[Fault, ...]:
    return (Fault(Fate(Deed.FAIL, code=errno.EROFS), at, CHANGES, Lasting.FROM_THEN_ON),)


def _shorten(at: int, variant: int) -> tuple[Fault, ...]:
    return (Fault(Fate(Deed.SHORT), at, WRITES, tuple(Lasting)[variant]),)


def _slow(at: int, variant: int) -> tuple[Fault, ...]:
    seconds = (_SLOW_ONCE_SECONDS, _SLOW_SECONDS)[variant]
    return (Fault(Fate(Deed.DELAY, seconds=seconds), at, SYNCS, tuple(Lasting)[variant]),)


def _none(at: int, variant: int) -> tuple[Fault, ...]:
    return ()


def _moments(seed: int) -> tuple[float, ...]:
    """Seconds from each start to its kill: one in the life, perhaps one in the recovery from it."""
    random = Random(f"{seed}/moments")
    first = random.uniform(0.0, _LIFE_SECONDS)
    return (first, random.uniform(0.0, _LIFE_SECONDS / 2)) if random.random() < 0.5 else (first,)


SCENARIOS: Final = {
    "kill": RealScenario(
        "SIGKILL before and after a storage call", 2, _EVERYTHING, _kill
    ),
    "kill-twice": RealScenario(
        "the same, and once more inside the recovery from it", 2, _EVERYTHING, _kill_twice
    ),
    "eio": RealScenario(
        "EIO at a storage call, once or from then on", 2, _EVERYTHING, _fail(errno.EIO, _EVERYTHING)
    ),
    "enospc": RealScenario(
        "ENOSPC at a call that takes space, once or from then on", 2, TAKES_SPACE,
        _fail(errno.ENOSPC, TAKES_SPACE),
    ),
    "short": RealScenario(
        "half of a write is done, once or from then on", 2, WRITES, _shorten
    ),
    "read-only": RealScenario(
        "EROFS at every change from a call on, as on a filesystem that went read-only",
        1,
        CHANGES,
        _go_read_only,
    ),
    "read": RealScenario(
        "EIO at a read, once or from then on", 2, READS, _fail(errno.EIO, READS)
    ),
    "slow": RealScenario("syncs that take long, one or all from then on", 2, SYNCS, _slow),
    MOMENTS: RealScenario(
        "SIGKILL at moments from a seed, with nothing in between", 1, _EVERYTHING, _none, True
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Length:
    """Storage calls of the life without any fault, by name."""

    calls: Counter[str]

    def of(self, scenario: RealScenario) -> int:
        if not scenario.calls:
            return self.calls.total()
        return sum(self.calls[name] for name in scenario.calls)

    def seeds(self, scenario: RealScenario) -> int:
        """How many different plays there are."""
        return self.of(scenario) * scenario.variants


def length(folder: Path) -> Length:
    """Play once without a fault. Raises `Stuck` with what did not hold."""
    play = _Play(folder, ())
    problems = play.run()
    if problems:
        raise Stuck("without any fault it did not hold: " + "; ".join(problems))
    return Length(Counter(play.plan.calls))


def play(folder: Path, name: str, seed: int) -> Outcome:
    """The life in a fresh folder below `folder`, which stays where something did not hold.

    A seed beyond the life's calls plays it without a fault."""
    scenario = SCENARIOS[name]
    if scenario.at_moments:
        played = _Play(folder, (), moments=_moments(seed))
    else:
        faults = scenario.faults(scenario.at(seed), seed % scenario.variants)
        played = _Play(folder, faults, twice=faults[0].is_kill and seed % _TWICE_EVERY == 0)
    problems = played.run()
    plan = played.plan
    return Outcome(
        seed=seed, story=plan.story, problems=problems,
        faults=Counter(str(fault.fate.deed) for fault in plan.struck) + played.kills,
        events=len(played.ledger.sent()), reboots=played.keeper.starts - 1,
        recovery_ns_max=int(played.recovery_seconds_max * 1e9), fingerprint=0,
    )  # fmt: skip


class _Play:
    """One life: the logger with its keeper, the script, the fault and the judge.

    twice: the first recovery from a kill is done twice, and compared. moments: seconds from each
    start to its kill; then no call is held.
    """

    def __init__(
        self,
        folder: Path,
        faults: tuple[Fault, ...],
        *,
        twice: bool = False,
        moments: tuple[float, ...] = (),
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dlog-faults-", dir=folder))
        self.data = self.folder / "data"
        self.plan = Plan(faults, self._struck)
        self.ledger = Ledger()
        self.keeper = Keeper(self.folder, self._start, self)
        self.kills: Counter[str] = Counter()  # of the moments
        self._moments = deque(moments)
        self._held = not moments
        self._timer: threading.Timer | None = None
        self.recovery_seconds_max = 0.0
        self._twice = twice
        self._watch: threading.Thread | None = None
        self._script = Script(self.folder, self.keeper, self.ledger, self.plan.tell)

    def run(self) -> list[str]:
        """What did not hold. The folder goes where all did."""
        create_data_directory(self.data)
        (self.folder / "dlog.toml").write_text(CONFIGURATION)
        try:
            with self._script as script:
                with self.keeper:
                    script.play()
                for thread in (self._watch, self._timer):
                    if thread is not None:
                        thread.join()
                self._settle()
                problems = judge.at_the_end(self.data, self.ledger, script.reports())
        except DlogError as error:
            problems = [str(error)]
        problems = [*self.ledger.problems(), *problems, *self._said()]
        if problems:
            problems.append(f"it is all in {self.folder}")
        else:
            shutil.rmtree(self.folder)
        return problems

    def _settle(self) -> None:
        """What a fault left half-done at the very end is settled by the next start."""
        if not judge.left_over(self.data):
            return
        self.plan.tell("started once more, to settle what is left")
        keeper = Keeper(self.folder, partial(start, self.folder, None), self)
        with Script(self.folder, keeper, self.ledger, self.plan.tell) as script, keeper:
            script.stop()
        for left in judge.left_over(self.data):
            self.ledger.problem(f"left over at the end: {left}")

    def _said(self) -> list[str]:
        """No fault of a disk is a reason for a traceback."""
        log = (self.folder / "logger.log").read_text(errors="replace")
        return ["the logger's log has a traceback"] if "Traceback" in log else []

    # --- what the keeper asks for and tells

    def _start(self, log: IO[bytes]) -> Interposed:
        if self._timer is not None:
            self._timer.join()
        process = start(self.folder, self.plan.decide if self._held else None, log)
        if self._moments:
            self._timer = threading.Timer(self._moments.popleft(), self._kill, (process,))
            self._timer.start()
        return process

    def _kill(self, process: Interposed) -> None:
        """At its moment, if it still lives."""
        if process.process.poll() is None:
            self.plan.tell("kill -9")
            self.kills[str(Deed.KILL)] += 1
            process.kill()

    def died(self, code: int) -> None:
        self.plan.tell(f"the logger is gone, {code}")
        killed = code == -9
        failed = any(fault.is_error for fault in self.plan.struck)
        if not killed and not (failed and code in (1, 70)):
            self.ledger.problem(f"the logger ended with {code}")
        reports = self._script.reports()
        for problem in judge.after_death(self.data, self.ledger, reports):
            self.ledger.problem(problem)
        self.plan.restarted()
        if self._twice and self.plan.struck and killed:
            self._twice = False
            self._recover_twice()

    def answers(self, seconds: float) -> None:
        self.plan.tell(f"a new logger answers, {seconds:.2f} s after the end of the last one")
        self.recovery_seconds_max = max(self.recovery_seconds_max, seconds)

    def _recover_twice(self) -> None:
        self.plan.tell("recovered twice, each time killed before the sources are let in")
        self._recover()
        first = judge.recovered_state(self.data)
        self._recover()
        for problem in judge.differences(first, judge.recovered_state(self.data)):
            self.ledger.problem(problem)

    def _recover(self) -> None:
        """A logger that dies as soon as its recovery is over: before it listens for events, or says
        where it is."""
        listened = 0

        def decide(call: Call) -> Fate:
            nonlocal listened
            listened += call.name == LISTEN
            over = call.name.startswith("rename") and call.path.startswith("logger.json")
            # The first that it listens at is the control socket.
            return Fate(Deed.KILL_BEFORE) if listened == 2 or over else PASS

        with (
            (self.folder / "logger.log").open("ab") as log,
            start(self.folder, decide, log) as process,
        ):
            process.process.wait(STEP_SECONDS_MAX)

    # --- a fault that lasts

    def _struck(self, fault: Fault) -> None:
        if fault.is_mended:
            self.ledger.failing = True
            self._watch = threading.Thread(target=self._mend, args=(fault,), name="mend")
            self._watch.start()

    def _mend(self, fault: Fault) -> None:
        """While storage fails nothing is acknowledged; then it is whole again."""
        time.sleep(_UNDER_WAY_SECONDS)
        before = self._acknowledged()
        time.sleep(FAULT_SECONDS - _UNDER_WAY_SECONDS)
        after = self._acknowledged()
        if before != after and fault.forbids_acknowledgements:
            self.ledger.problem(f"acknowledged while storage fails: {after - before} pieces")
        self.plan.mend()
        self.ledger.failing = False

    def _acknowledged(self) -> int:
        return sum(report.acknowledged for report in self._script.reports())
