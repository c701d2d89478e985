"""The alarms of this logger, by name: raised once, counted, cleared. Any thread may raise one.

It keeps what is raised and wakes who listens; it sends nothing, never blocks and never grows.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from dlog.core import journal_records as records
from dlog.core.alarm_kinds import OVERFLOW
from dlog.core.journal_records import AcknowledgedRecord
from dlog.core.record_rules import read_record
from dlog.model.messages import AlarmState
from dlog.ports import Clock, Journal, Severity

_log = logging.getLogger(__name__)

ALARMS_MAX: Final = 256
CLEARED_KEPT_MAX: Final = 256
NAME_LETTERS_MAX: Final = 200
TEXT_LETTERS_MAX: Final = 1000
FLUTTER_LINES_MAX: Final = 20
FLUTTER_NS: Final = 10_000_000_000

_LEVELS: Final = {
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
    Severity.FAILURE: logging.CRITICAL,
}
_RANKS: Final = {str(severity): rank for rank, severity in enumerate(reversed(Severity))}


class AlarmView(NamedTuple):
    """What is raised now, the worst first, and what was cleared since an earlier view."""

    moment: int
    raised: list[AlarmState]
    cleared: list[str]


@dataclass(slots=True)
class _Flutter:
    """How much was logged of an alarm lately."""

    begin_ns: int
    lines: int = 0


class AlarmBoard:
    """All alarms that are raised. At most `alarms_max`; what comes beyond is counted under
    `too-many-alarms`, which stands until every alarm is cleared."""

    def __init__(self, clock: Clock, *, alarms_max: int = ALARMS_MAX) -> None:
        self._clock = clock
        self._alarms_max = alarms_max
        self._lock = threading.Lock()
        self._raised: dict[str, AlarmState] = {}
        self._acknowledged: dict[str, str] = {}  # texts, by name, that are not raised again
        self._cleared: deque[tuple[int, str]] = deque(maxlen=CLEARED_KEPT_MAX)
        self._moment = 0
        self._flutters: dict[str, _Flutter] = {}
        self._listeners: list[Callable[[], None]] = []

    def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` after each change, in the thread that made it; it must not block or raise."""
        with self._lock:
            self._listeners.append(wake)

    def raise_alarm(self, name: str, severity: Severity, text: str) -> None:
        name, text = name[:NAME_LETTERS_MAX], text[:TEXT_LETTERS_MAX]
        with self._lock:
            if self._acknowledged.get(name) == text:
                return
            if name not in self._raised and len(self._raised) >= self._alarms_max:
                name, text = OVERFLOW, f"also {name}: {text}"[:TEXT_LETTERS_MAX]
            before = self._raised.get(name)
            count = before.count + 1 if before is not None else 1
            since_ns = before.since_ns if before is not None else self._clock.wall_ns()
            self._raised[name] = AlarmState(
                name=name, severity=severity, text=text, since_ns=since_ns, count=count
            )
            changed = before is None or before.severity != severity
            listeners = self._changed() if changed else []
        # An alarm that comes a million times is logged twenty times.
        if changed or count & (count - 1) == 0:
            times = f" ({count} times)" if count > 1 else ""
            self._say(_LEVELS[severity], name, f"alarm {name}: {text}{times}")
        for wake in listeners:
            wake()

    def show(self, name: str, severity: Severity, text: str) -> None:
        """Something is so, and the text says what; "" where it is not. Told again and again, it is
        raised once, and once more where the text is another one."""
        with self._lock:
            before = self._raised.get(name)
        if not text:
            self.clear_alarm(name)
        elif before is None or before.text != text[:TEXT_LETTERS_MAX]:
            self.raise_alarm(name, severity, text)

    def clear_alarm(self, name: str) -> None:
        name = name[:NAME_LETTERS_MAX]
        with self._lock:
            self._acknowledged.pop(name, None)
            if name == OVERFLOW or self._raised.pop(name, None) is None:
                return
            gone, listeners = self._gone([name])
        for each in gone:
            self._say(logging.INFO, each, f"alarm {each} cleared")
        for wake in listeners:
            wake()

    def acknowledge(self, alarms: Sequence[AlarmState], *, for_good: Collection[str] = ()) -> None:
        """They go, but for those that were raised once more meanwhile. for_good: the names of those
        that are not raised again with the same text."""
        with self._lock:
            self._acknowledged |= {a.name: a.text for a in alarms if a.name in for_good}
            names = [alarm.name for alarm in alarms if self._raised.get(alarm.name) == alarm]
            for name in names:
                del self._raised[name]
            _, listeners = self._gone(names)
        for wake in listeners:
            wake()

    def _gone(self, names: list[str]) -> tuple[list[str], list[Callable[[], None]]]:
        """These were taken away: all that are gone with them, and who is to be told."""
        if set(self._raised) == {OVERFLOW}:
            names = [*names, self._raised.pop(OVERFLOW).name]
        listeners = self._changed()
        self._cleared.extend((self._moment, name) for name in names)
        return names, listeners

    def raised(self) -> list[AlarmState]:
        """What is raised now: the worst first, then the oldest."""
        return self.view().raised

    def view(self, since: int = 0) -> AlarmView:
        """What is raised, and the names cleared after the view whose `moment` was `since`."""
        with self._lock:
            raised = sorted(
                self._raised.values(), key=lambda a: (_RANKS[a.severity], a.since_ns, a.name)
            )
            cleared = [
                name
                for moment, name in self._cleared
                if moment > since and name not in self._raised
            ]
            return AlarmView(self._moment, raised, list(dict.fromkeys(cleared)))

    def _say(self, level: int, name: str, line: str) -> None:
        """Log it, unless the alarm comes and goes so fast that it would fill the log."""
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            flutter = self._flutters.get(name)
            if flutter is None or now_ns - flutter.begin_ns > FLUTTER_NS:
                if len(self._flutters) >= 2 * self._alarms_max:
                    self._flutters.clear()
                flutter = self._flutters[name] = _Flutter(now_ns)
            flutter.lines += 1
            lines = flutter.lines
        if lines <= FLUTTER_LINES_MAX:
            _log.log(level, "%s", line)
        elif lines == FLUTTER_LINES_MAX + 1:
            seconds = FLUTTER_NS // 1_000_000_000
            _log.warning("alarm %s flutters: for up to %d s not all is logged", name, seconds)

    def _changed(self) -> list[Callable[[], None]]:
        self._moment += 1
        return list(self._listeners)


def load_acknowledged(journal: Journal, board: AlarmBoard) -> None:
    """What COOR acknowledged before this start. Before anything is found again."""
    for key, value in journal.scan(records.ACKNOWLEDGED):
        record = read_record(key, value, AcknowledgedRecord)
        alarm = AlarmState(name=record.name, severity="", text=record.text, since_ns=0, count=0)
        board.acknowledge([alarm], for_good=[record.name])
