"""What a source knows of the runs: which take events, which are held, which end, which are over.

It only learns from acknowledgements and answers questions; it holds no event.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from dlog.errors import RunEnded
from dlog.limits import RUNS_ACTIVE_MAX
from dlog.model.ids import RunNumber
from dlog.model.messages import Acknowledgement, RunStreams

# Runs whose end is remembered, so that `send` for them raises; an older one's events would become
# orphans at the logger.
_ENDED_RUNS_KEPT: Final = 4096


class RunNews(NamedTuple):
    """What an acknowledgement told for the first time."""

    ending: list[RunNumber]
    over: list[RunNumber]


class RunsTold:
    """See the module."""

    def __init__(self) -> None:
        self.active: frozenset[int] = frozenset()
        self.held: frozenset[int] = frozenset()
        self.ending: frozenset[int] = frozenset()
        self.streams: dict[int, frozenset[str]] = {}  # of runs that take events
        self._ended: dict[int, None] = {}
        self._missed: frozenset[int] = frozenset()  # listed once, and no more
        self._trusted_at_ns = 0

    def logger_restarted(self, trusted_at_ns: int) -> None:
        """Another boot: until then, a run that is not listed may still be resumed."""
        self._trusted_at_ns = trusted_at_ns

    def learn(self, ack: Acknowledgement, now_ns: int) -> RunNews:
        """Take over the lists of an acknowledgement."""
        before = self.active | self.held | self.ending
        begun = frozenset(ack.ending) - self.ending
        self.active = frozenset(ack.active)
        self.held = frozenset(ack.held)
        self.ending = frozenset(ack.ending)
        live = self.active | self.held | self.ending
        self.streams = {run: names for run, names in self.streams.items() if run in live}
        self._missed = (self._missed | before) - (self.active | self.held | self.ending)
        over = frozenset(ack.ended)
        if now_ns >= self._trusted_at_ns:
            over |= self._missed
            self._missed = frozenset()
        fresh = sorted(over - self._ended.keys())
        self._ended.update(dict.fromkeys(fresh))
        while len(self._ended) > _ENDED_RUNS_KEPT:
            del self._ended[next(iter(self._ended))]
        return RunNews([RunNumber(run) for run in sorted(begun)], [RunNumber(run) for run in fresh])

    @property
    def any_listed(self) -> bool:
        """Whether the logger has a run that takes events."""
        return bool(self.active or self.held or self.ending)

    def learn_streams(self, told: RunStreams) -> None:
        """Told before the run is listed; forgotten when it is listed no more."""
        if len(self.streams) < RUNS_ACTIVE_MAX:
            self.streams[told.run] = frozenset(told.streams)

    def is_over(self, run: int) -> bool:
        return run in self._ended

    def takes_events(self, run: int) -> bool:
        """Whether events for the run may be taken from the caller, as far as is known."""
        return run not in self._ended and run not in self.ending

    def may_send(self, run: int) -> bool:
        """Whether the logger stores events of the run."""
        return run in self.active or run in self.ending

    def state(self, run: int) -> str:
        """active, held, ending, over; "" where the run is not listed."""
        for name, runs in (("active", self.active), ("held", self.held), ("ending", self.ending)):
            if run in runs:
                return name
        return "over" if self.is_over(run) else ""

    def check(self, run: int) -> None:
        """Raises `RunEnded`."""
        if not self.takes_events(run):
            raise RunEnded(f"run {run} is over: it takes no more events")

    def closing(self) -> list[RunNumber]:
        """Runs that take nothing any more."""
        return [RunNumber(run) for run in (*self.ending, *self._ended)]
