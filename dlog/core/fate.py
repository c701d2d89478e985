"""What becomes of an event: one table over logger state, run state and stream. It does no I/O."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from dlog.core.states import RunState


class Fate(enum.Enum):
    STORED = "stored"
    ORPHAN = "orphan"
    REFUSED = "refused"


class Knowledge(enum.Enum):
    """What is known of a (run, stream) that an event was sent for."""

    STREAM_KNOWN = "run and stream known"
    STREAM_UNKNOWN = "run known, stream not"
    RUN_UNKNOWN = "run unknown"


class Stall(enum.StrEnum):
    """Why a stream can write nothing now."""

    NO_SPACE = "no-space"
    STORAGE_FAILED = "storage-failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is "" for stored; it is what refusals are counted by and orphans are told by."""

    fate: Fate
    reason: str


NO_RUN_ACTIVE: Final = "no-run-active"
TOO_MANY_STREAMS: Final = "too-many-streams"
NO_SPACE: Final = "no-space-at-end-of-run"
STORAGE_FAILED: Final = "storage-failed-at-end-of-run"
RUN_ABORTED: Final = "run-aborted"

# Why events are refused that a stalled stream still holds when its run ends.
REFUSED_AT_END: Final = {Stall.NO_SPACE: NO_SPACE, Stall.STORAGE_FAILED: STORAGE_FAILED}

_STORED = Verdict(Fate.STORED, "")
_ABORTED = Verdict(Fate.REFUSED, RUN_ABORTED)
_S, _K = RunState, Knowledge

# Where another run is active (or this one). STARTING has no row of its own for its streams: no
# credit was granted for it yet, and its files are being created, so its events wait in memory.
_TABLE: Final[dict[tuple[RunState | None, Knowledge], Verdict]] = {
    **{
        (state, _K.STREAM_KNOWN): _STORED
        for state in (_S.STARTING, _S.ACTIVE, _S.PAUSED, _S.ENDING)
    },
    **{
        (state, _K.STREAM_UNKNOWN): Verdict(Fate.ORPHAN, "stream-unknown")
        for state in (_S.STARTING, _S.ACTIVE, _S.PAUSED, _S.ENDING)
    },
    **{(_S.ENDED, k): Verdict(Fate.ORPHAN, "run-ended") for k in _K},
    **{(_S.FAILED, k): Verdict(Fate.ORPHAN, "run-failed") for k in _K},
    **{(_S.ABORTED, k): _ABORTED for k in _K},
    **{(None, k): Verdict(Fate.ORPHAN, "run-unknown") for k in _K},
}


def fate(any_run_active: bool, run: RunState | None, knowledge: Knowledge) -> Verdict:
    """The verdict for events of a (run, stream). `run` is None where the number is unknown."""
    if run is RunState.ABORTED:
        return _ABORTED
    if not any_run_active:
        return Verdict(Fate.REFUSED, NO_RUN_ACTIVE)
    return _TABLE[run, knowledge]
