"""What a random history may hold: the kinds of trouble, and the scenarios made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Menu:
    """Which kinds of trouble a history may hold. away: a second data directory that goes away."""

    crashes: bool = True
    network: bool = True
    disk: bool = True
    space: bool = True
    journal: bool = True
    outsiders: bool = False
    away: bool = False


EVERYTHING: Final = Menu(outsiders=True)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of history, by the trouble that it may hold."""

    words: str
    menu: Menu


SCENARIOS: Final = {
    "calm": Scenario(
        "no fault at all: commands, late and stray events, pauses, ends of runs",
        Menu(crashes=False, network=False, disk=False, space=False, journal=False),
    ),
    "crashes": Scenario(
        "power cuts and kills at any storage step, also inside the recovery",
        Menu(network=False, disk=False, space=False, journal=False),
    ),
    "network": Scenario(
        "messages lost, doubled, late; connections cut; sources that hang; damaged messages",
        Menu(crashes=False, disk=False, space=False, journal=False),
    ),
    "disk": Scenario(
        "EIO, ENOSPC, short writes, slow and failed syncs at any call, once or from then on",
        Menu(crashes=False, network=False, space=False, journal=False),
    ),
    "space": Scenario(
        "full disks, freed later", Menu(crashes=False, network=False, disk=False, journal=False)
    ),
    "journal": Scenario(
        "a journal that is full, and commits of unknown outcome",
        Menu(crashes=False, network=False, disk=False, space=False),
    ),
    "outsiders": Scenario(
        "somebody deletes, moves or replaces open files, their folders or the journal",
        Menu(crashes=False, network=False, disk=False, space=False, journal=False, outsiders=True),
    ),
    "away": Scenario(
        "a second data directory that goes away and comes back, and crashes meanwhile",
        Menu(network=False, disk=False, space=False, journal=False, away=True),
    ),
    "directories": Scenario(
        "all that can happen to disks: one goes away, others fail or are full, files are moved",
        Menu(network=False, journal=False, outsiders=True, away=True),
    ),
    "everything": Scenario("all of it at once", EVERYTHING),
}

# How often an action stands among those that are drawn from: the calm ones, and those of a trouble
# (or of several that must all be on the menu).
CALM_ACTIONS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "send": 6, "send_late": 2, "send_stray": 1, "send_wild": 1, "count_anew": 1,
        "new_source": 1, "goodbye": 1, "start_run": 1, "pause": 1, "resume": 1, "stop_run": 2,
        "abort_run": 1, "configure": 1,
        "wait": 1,
    }
)  # fmt: skip
TROUBLES: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {
        "crashes": {"crash": 2, "kill": 1, "short_parts": 1, "run_over_meanwhile": 1},
        "network": {
            "storm": 1,
            "calm": 1,
            "cut": 1,
            "hang": 1,
            "damaged_message": 1,
            "flood": 1,
            "second_session": 1,
            "take_over": 1,
            "lie": 1,
        },
        "disk": {"disk_fault": 2, "lasting_disk_fault": 1, "mend": 1, "stalled_stream": 1},
        "space": {"fill_disk": 1, "free_disk": 1, "full_at_the_end": 1, "short_files": 1},
        "journal": {"journal_fault": 1, "fill_journal": 1, "full_journal_at_the_end": 1},
        "outsiders": {"lost_file": 2, "lost_folder": 1, "lost_journal": 1},
        "away": {"directory_away": 3, "directory_back": 2},
        "crashes disk": {"failed_sync": 1},
        "crashes journal": {"failed_commit": 1},
    }
)


def actions(menu: Menu) -> list[str]:
    """The names to draw from, each as often as it is to come."""
    tables = [CALM_ACTIONS]
    tables += [t for kinds, t in TROUBLES.items() if all(getattr(menu, k) for k in kinds.split())]
    return [name for table in tables for name, often in table.items() for _ in range(often)]
