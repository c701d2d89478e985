"""The scripted scenario: everything that a logger does once, in a few hundred storage steps.

Start, configure, two runs, roll-over by events, END, late events, pause, an event for no run,
garbage, a stream without ranges, STOP RUN, ABORT RUN, STOP. It judges nothing.
"""

from __future__ import annotations

from typing import Final

from dlog.faults.simulation.sources import SimulatedSource
from dlog.faults.simulation.world import World
from dlog.model.ids import StreamName

PHOTONS: Final = StreamName("photons")
RAW: Final = StreamName("raw")
NOWHERE: Final = StreamName("nowhere")
LATE_SECONDS: Final = 1.0
STREAMS: Final = {
    "photons": {"part_events": 6, "late_seconds": LATE_SECONDS},
    "raw": {"ranges": False, "part_events": 5},
}
RUN, OTHER_RUN, NO_SUCH_RUN = 7, 8, 9


def payload(number: int) -> bytes:
    """Something that is different for each event."""
    return bytes([number % 251]) * (20 + number)


def send(source: SimulatedSource, run: int, streams: tuple[StreamName, ...], *numbers: int) -> None:
    """Give a source events to send; they fit into its queue."""
    for number in numbers:
        if not source.send(run, streams, number, payload(number)):
            raise AssertionError(f"{source.name} takes no event {number} of run {run}")


def play(world: World) -> None:
    """The whole scenario, from the first start to STOP. Raises `Stuck` where it does not get on."""
    world.do("INIT")
    world.do("CONFIGURE", streams=STREAMS)
    world.do("START RUN", run=RUN)
    world.do("START RUN", run=OTHER_RUN)
    first, second = world.source("router-1"), world.source("router-2")
    for number in range(1, 13):
        send(first, RUN, (PHOTONS, RAW) if number % 3 == 0 else (PHOTONS,), number)
    send(second, OTHER_RUN, (PHOTONS,), *range(1, 7))
    world.settle()
    world.do("PAUSE RUN", run=OTHER_RUN)
    send(first, RUN, (PHOTONS,), 3, 5, 14)  # two of them late: to the parts that are in END
    send(second, OTHER_RUN, (RAW,), 20)  # held until the run goes on
    world.pump(20)
    world.do("RESUME RUN", run=OTHER_RUN)
    world.settle()
    world.pump(int(1.5 * LATE_SECONDS * 100))  # the parts in END close
    send(first, RUN, (PHOTONS,), 2, 4, 15)  # late for a closed range: garbage
    send(first, NO_SUCH_RUN, (PHOTONS,), 1)
    send(second, OTHER_RUN, (NOWHERE,), 99)
    world.settle()
    world.do("STOP RUN", run=RUN)
    world.do("ABORT RUN", run=OTHER_RUN)
    world.do("STOP")


def length(seed: int = 1) -> int:
    """How many storage steps the scenario takes where nothing fails."""
    world = World(seed)
    play(world)
    return world.steps.count
