"""The decision table of a restart: what to do with each file that is not CLOSED. It does no I/O.

Design: the record's state times what is on disk. Every pair has its row; services/restart.py does
what it says, and announces it first.
"""

from __future__ import annotations

import enum
from typing import Final

from dlog.core.states import FileState


class OnDisk(enum.Enum):
    """What stands under a file's names: `.part`, final name, sidecar."""

    NOTHING = "nothing"
    PART = ".part"
    PART_SIDECAR = ".part and sidecar"
    FINAL = "final name"
    FINAL_SIDECAR = "final name and sidecar"
    BOTH = ".part and final name"
    SIDECAR = "sidecar alone"


class Action(enum.Enum):
    FORGET = "drop the record: nothing in it was acknowledged"
    MOVE_ASIDE = "move the file aside, drop the record: nothing in it was acknowledged"
    REOPEN = "check up to D, save the tail aside, cut, take events again"
    RESEAL = "check up to D, save the tail aside, cut, then footer, sidecar, name"
    SETTLE_SEALED = "check up to D, save the tail aside, cut, then sidecar and name, no footer"
    FINISH = "sidecar (where it lacks) and catalogue: the name is final already"
    FINISH_RENAME = "where both names are of this file, drop `.part`, then finish; else as `.part`"
    LOST = "acknowledged bytes are gone: ERROR, alarm, the loss reported"


_F, _D, _A = FileState, OnDisk, Action

TABLE: Final[dict[tuple[FileState, OnDisk], Action]] = {
    (_F.CREATING, _D.NOTHING): _A.FORGET,
    (_F.CREATING, _D.PART): _A.MOVE_ASIDE,
    (_F.CREATING, _D.PART_SIDECAR): _A.MOVE_ASIDE,
    # A final name under a number that was never opened: someone else's file, left alone.
    (_F.CREATING, _D.FINAL): _A.FORGET,
    (_F.CREATING, _D.FINAL_SIDECAR): _A.FORGET,
    (_F.CREATING, _D.BOTH): _A.MOVE_ASIDE,
    (_F.CREATING, _D.SIDECAR): _A.FORGET,
    **{
        (state, disk): action
        for state in (_F.OPEN, _F.END)
        for disk, action in {
            _D.NOTHING: _A.LOST,
            _D.PART: _A.REOPEN,
            _D.PART_SIDECAR: _A.REOPEN,  # the sidecar is moved aside when the part is sealed
            _D.FINAL: _A.LOST,  # renamed by someone else: not touched, but not written to either
            _D.FINAL_SIDECAR: _A.LOST,
            _D.BOTH: _A.REOPEN,
            _D.SIDECAR: _A.LOST,
        }.items()
    },
    (_F.CLOSING, _D.NOTHING): _A.LOST,
    (_F.CLOSING, _D.PART): _A.RESEAL,
    (_F.CLOSING, _D.PART_SIDECAR): _A.RESEAL,
    (_F.CLOSING, _D.FINAL): _A.FINISH,
    (_F.CLOSING, _D.FINAL_SIDECAR): _A.FINISH,
    # A crash in a rename that is a link and an unlink leaves both names.
    (_F.CLOSING, _D.BOTH): _A.FINISH_RENAME,
    (_F.CLOSING, _D.SIDECAR): _A.LOST,
    (_F.ERROR, _D.NOTHING): _A.LOST,
    (_F.ERROR, _D.PART): _A.SETTLE_SEALED,
    (_F.ERROR, _D.PART_SIDECAR): _A.SETTLE_SEALED,
    (_F.ERROR, _D.FINAL): _A.FINISH,
    (_F.ERROR, _D.FINAL_SIDECAR): _A.FINISH,
    (_F.ERROR, _D.BOTH): _A.FINISH_RENAME,
    (_F.ERROR, _D.SIDECAR): _A.LOST,
}


def decide(state: FileState, disk: OnDisk, durable: int) -> Action:
    """What to do. An ERROR with nothing durable is a creation that failed."""
    if state is FileState.ERROR and durable == 0:
        state = FileState.CREATING
    return TABLE[state, disk]


def on_disk(part: bool, final: bool, sidecar: bool) -> OnDisk:
    if part and final:
        return OnDisk.BOTH
    if part:
        return OnDisk.PART_SIDECAR if sidecar else OnDisk.PART
    if final:
        return OnDisk.FINAL_SIDECAR if sidecar else OnDisk.FINAL
    return OnDisk.SIDECAR if sidecar else OnDisk.NOTHING
