"""The routes: who takes the events of which run and stream; the commander replaces them whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from dlog.core.fate import Fate, Knowledge, Verdict, fate
from dlog.core.pieces import Piece
from dlog.core.states import RunState
from dlog.model.ids import NO_RUN, ORPHAN_STREAM, MarkKey, RunNumber, StreamName


class PieceTaker(Protocol):
    """A stream's writer, as the event server sees it."""

    @property
    def held_bytes(self) -> int:
        """What of the sources' messages is in memory there."""
        ...

    def offer(self, piece: Piece) -> None: ...


@dataclass(frozen=True, slots=True)
class RunRoute:
    """A live run: its state, and who takes the events of each of its streams."""

    state: RunState
    writers: Mapping[StreamName, PieceTaker]


@dataclass(frozen=True, slots=True)
class Routes:
    """All live runs, replaced as a whole. closed: runs whose writers take nothing any more, with
    the state that they are going to. waiting: why no credit may be granted though a run is active.
    """

    runs: Mapping[RunNumber, RunRoute] = field(default_factory=lambda: MappingProxyType({}))
    closed: Mapping[RunNumber, RunState] = field(default_factory=lambda: MappingProxyType({}))
    orphans: PieceTaker | None = None
    waiting: str = ""
    any_active: bool = field(init=False)

    def __post_init__(self) -> None:
        active = any(r.state is not RunState.STARTING for r in self.runs.values())
        object.__setattr__(self, "any_active", active)  # asked with each piece

    @property
    def held_bytes(self) -> int:
        """What of the sources' messages is in memory, whatever became of their sessions."""
        takers = [taker for route in self.runs.values() for taker in route.writers.values()]
        if self.orphans is not None:
            takers.append(self.orphans)
        return sum(taker.held_bytes for taker in takers)

    def taker_of(
        self, mark: MarkKey, finished: Callable[[RunNumber], RunState | None]
    ) -> tuple[Verdict, PieceTaker | None]:
        """What becomes of events for that run and stream, and who takes them; None: refused.

        finished: how a run that is not live ended, None for one that never was.
        """
        route = self.runs.get(mark.run)
        knowledge = Knowledge.RUN_UNKNOWN
        if route is not None:
            state: RunState | None = route.state
            known = mark.stream in route.writers
            knowledge = Knowledge.STREAM_KNOWN if known else Knowledge.STREAM_UNKNOWN
        else:
            state = self.closed.get(mark.run) or finished(mark.run)
        verdict = fate(self.any_active, state, knowledge)
        match verdict.fate:
            case Fate.STORED:
                assert route is not None
                return verdict, route.writers[mark.stream]
            case Fate.ORPHAN:
                return verdict, self.orphans
            case Fate.REFUSED:
                return verdict, None

    def counted_as(self, mark: MarkKey) -> tuple[RunNumber, StreamName]:
        """What a piece is counted under: its stream where that is known, else the orphans."""
        route = self.runs.get(mark.run)
        if route is not None and mark.stream in route.writers:
            return mark.run, mark.stream
        return NO_RUN, ORPHAN_STREAM
