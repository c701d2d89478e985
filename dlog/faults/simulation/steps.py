"""The numbered steps of a simulated run, the faults that strike them and the death at one of them.

It knows what steps there are and not what they do to a disk.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, replace
from random import Random
from types import TracebackType
from typing import Final, NamedTuple

from dlog.faults.simulation.clock import SimulatedClock

HISTORY_STEPS_MAX: Final = 100_000


class SimulatedCrash(BaseException):
    """The program died here; it is no error that anything could handle, and whatever the program
    tries afterwards raises it again."""


class Operation(enum.StrEnum):
    """What a step does. Those of `LOOKING` change nothing and bear no number."""

    MAKE_FOLDER = "make folder"
    CREATE = "create"
    WRITE = "write"
    RESERVE = "reserve"
    CUT = "cut"
    SET_MODE = "set mode"
    NAME = "name"  # a rename, or a finished small file that gets its name
    UNNAME = "unname"
    SYNC_FILE = "sync file"
    SYNC_FOLDER = "sync folder"
    COMMIT = "commit"
    OPEN = "open"
    READ = "read"


LOOKING: Final = frozenset({Operation.OPEN, Operation.READ})


class When(enum.StrEnum):
    """Where in a step the program dies. DURING: a part of a write was done, a commit perhaps."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


class FaultKind(enum.StrEnum):
    """What goes wrong, and what is true afterwards."""

    # write: an unknown part was written. sync: an unknown part was synced, the rest will never be,
    # and yet it is read back. commit: of unknown outcome. Anything else: nothing was done.
    EIO = "eio"
    NO_SPACE = "enospc"  # write: an unknown part was written; anything else: nothing was done
    SHORT_WRITE = "short write"  # fewer bytes than given, and no more accepted
    SLOW = "slow"  # the step succeeds after `delay_ns` of the clock


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of the steps it matches; `times` None means from then on."""

    kind: FaultKind
    operations: frozenset[Operation]
    path_prefix: str = ""
    number: int | None = None  # of the only step it strikes
    times: int | None = 1
    delay_ns: int = 0


class Step(NamedTuple):
    """A step that was begun."""

    number: int
    operation: Operation
    path: str


class StorageSteps:
    """Numbers the steps, ends the program at one of them, and says which of them fail.

    One for all simulated storage of a run. `life` counts the program's lives: handles of an earlier
    one are dead.
    """

    def __init__(self, random: Random, clock: SimulatedClock | None = None) -> None:
        self.random = random
        self.clock = clock or SimulatedClock()
        self.count = 0
        self.life = 1
        self.crashed = False
        self.history: deque[Step] = deque(maxlen=HISTORY_STEPS_MAX)
        self.breaches: list[str] = []  # what the program did and never may
        self._crash: tuple[int, When] | None = None
        self._faults: list[Fault] = []

    def crash_at(self, number: int, when: When) -> None:
        """End the program at a step to come."""
        self._crash = (number, when)

    def no_crash(self) -> None:
        """What was set before is off."""
        self._crash = None

    def inject(self, fault: Fault) -> None:
        self._faults.append(fault)

    def clear_faults(self) -> None:
        self._faults.clear()

    def restart(self) -> None:
        """The program starts anew; what the disks hold is their own affair (`crash`)."""
        self.life += 1
        self.crashed = False
        self._crash = None

    def crash_now(self) -> SimulatedCrash:
        """For a program that dies between two steps: raise what this returns."""
        self.crashed = True
        where = self.history[-1] if self.history else "the beginning"
        return SimulatedCrash(f"the program died after {where}")

    def step(self, operation: Operation, path: str) -> OpenStep:
        """A numbered step, as a context: `with steps.step(WRITE, path) as step: ...`."""
        return OpenStep(self, operation, path)

    def look(self, operation: Operation, path: str) -> Fault | None:
        """A step without a number; the fault that strikes it, if any."""
        self.refuse_if_dead(self.life)
        return self._take_fault(operation, path)

    def refuse_if_dead(self, life: int) -> None:
        if self.crashed or life != self.life:
            raise SimulatedCrash("the program that holds this handle is dead")

    def begin(self, operation: Operation, path: str) -> tuple[Step, Fault | None]:
        """Called by `OpenStep` alone."""
        self.refuse_if_dead(self.life)
        self.count += 1
        step = Step(self.count, operation, path)
        self.history.append(step)
        if self.dies(step, When.BEFORE):
            raise self.crash_now()
        fault = self._take_fault(operation, path)
        if fault is not None and fault.kind is FaultKind.SLOW:
            self.clock.advance(fault.delay_ns)
            return step, None
        return step, fault

    def dies(self, step: Step, when: When) -> bool:
        return self._crash == (step.number, when)

    def _take_fault(self, operation: Operation, path: str) -> Fault | None:
        for index, fault in enumerate(self._faults):
            if operation not in fault.operations or not path.startswith(fault.path_prefix):
                continue
            if fault.number is not None and fault.number != self.count:
                continue
            if fault.times == 1:
                del self._faults[index]
            elif fault.times is not None:
                self._faults[index] = replace(fault, times=fault.times - 1)
            return fault
        return None


class OpenStep:
    """A step being done. `dies_inside`: do an unknown part of it, then leave the block."""

    __slots__ = ("_operation", "_path", "_step", "_steps", "dies_inside", "fault")

    def __init__(self, steps: StorageSteps, operation: Operation, path: str) -> None:
        self._steps = steps
        self._operation = operation
        self._path = path
        self._step: Step | None = None
        self.fault: FaultKind | None = None
        self.dies_inside = False

    def __enter__(self) -> OpenStep:
        self._step, fault = self._steps.begin(self._operation, self._path)
        self.fault = None if fault is None else fault.kind
        self.dies_inside = self._steps.dies(self._step, When.DURING)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._step is not None
        if self.dies_inside or self._steps.dies(self._step, When.AFTER):
            raise self._steps.crash_now()
