"""Which fault strikes at which storage call of a play, and how long it lasts.

A play has one fault, or two, the second counted from the restart after the first. It decides the
fate of each call and keeps the history; it touches no process.
"""

from __future__ import annotations

import enum
import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dlog.faults.call_table import LISTEN, READS
from dlog.faults.system_calls import PASS, Call, Deed, Fate

# Calls before a fault that its story tells.
_TOLD_BEFORE: Final = 12
_KILLS: Final = (Deed.KILL_BEFORE, Deed.KILL_AFTER)


class Lasting(enum.StrEnum):
    ONCE = "once"
    FROM_THEN_ON = "from then on"  # until the play mends it


@dataclass(frozen=True, slots=True)
class Fault:
    """fate: of the at-th call among `calls` (empty: all of them), and perhaps of all after it."""

    fate: Fate
    at: int
    calls: frozenset[str] = frozenset()
    lasting: Lasting = Lasting.ONCE

    @property
    def is_kill(self) -> bool:
        return self.fate.deed in _KILLS

    @property
    def is_mended(self) -> bool:
        """An error that lasts until the play mends it."""
        return self.is_error and self.lasting is Lasting.FROM_THEN_ON

    @property
    def forbids_acknowledgements(self) -> bool:
        """While it lasts, no commit comes through (LMDB takes a short write for an error), and so
        nothing is acknowledged."""
        return self.is_mended and self.calls != READS

    @property
    def is_error(self) -> bool:
        return self.fate.deed in (Deed.FAIL, Deed.SHORT)


class Plan:
    """The faults of a play, one after the other; `decide` is given to what stands between.

    on_strike: called once for each fault, by the thread that decides, before the call's fate is
    carried out.
    """

    def __init__(self, faults: Sequence[Fault], on_strike: Callable[[Fault], None]) -> None:
        self._left = deque(faults)
        self._on_strike = on_strike
        self._lock = threading.Lock()
        self._begin = time.monotonic()
        self._armed: Fault | None = self._left.popleft() if self._left else None
        self._count = 0
        self._struck = False
        self._recent: deque[str] = deque(maxlen=_TOLD_BEFORE)
        self.calls: list[str] = []  # names of all that were asked for
        self.story: list[str] = []
        self.struck: list[Fault] = []

    def tell(self, text: str) -> None:
        with self._lock:
            self.story.append(f"{time.monotonic() - self._begin:6.3f} s  {text}")

    def decide(self, call: Call) -> Fate:
        if call.name == LISTEN:
            return PASS
        self.calls.append(call.name)
        self._recent.append(f"call {len(self.calls)}: {call}")
        fault = self._armed
        if fault is None or (fault.calls and call.name not in fault.calls):
            return PASS
        self._count += 1
        if self._count < fault.at or (self._struck and fault.lasting is Lasting.ONCE):
            return PASS
        if not self._struck:
            self._strike(fault, call)
        return fault.fate

    def _strike(self, fault: Fault, call: Call) -> None:
        self._struck = True
        for line in list(self._recent)[:-1]:
            self.tell(line)
        self.tell(f"call {len(self.calls)}: {call}: {words(fault)}")
        self.struck.append(fault)
        self._on_strike(fault)

    def restarted(self) -> None:
        """A kill is over with its process: the next fault is counted from here."""
        if self._struck and self._armed is not None and self._armed.is_kill:
            self._next()

    def mend(self) -> None:
        """The fault that lasts is over."""
        if self._struck:
            self.tell("mended")
            self._next()

    def _next(self) -> None:
        self._armed = self._left.popleft() if self._left else None
        self._count, self._struck = 0, False


def words(fault: Fault) -> str:
    """What becomes of the call, for people."""
    match fault.fate.deed:
        case Deed.FAIL:
            text = errno.errorcode[fault.fate.code]
        case Deed.DELAY:
            text = f"{fault.fate.seconds * 1e3:.0f} ms late"
        case deed:
            text = str(deed)
    return f"{text}, {fault.lasting}" if not fault.is_kill else text
