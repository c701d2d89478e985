"""A simulated logger with runs, and a hand on its threads: for tests that say who works when.

`running` builds it. `work` lets everyone work in a fixed order, except some streams' threads; the
world's own `pump` and `settle` take an order from the seed. `StreamByHand` is the rig for one
stream's thread. The simulation's witness decides whether each event stands exactly once
(`World.problems`); `holds` asks it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeAlias, TypeVar

from dlog.core import journal_records as records
from dlog.core.journal_records import ClosedFileRecord, FileRecord
from dlog.faults.simulation.sources import SimulatedSource
from dlog.faults.simulation.steps import Fault, FaultKind, Operation
from dlog.faults.simulation.world import Life, World
from dlog.limits import SMALL_BLOCK_BYTES
from dlog.model.ids import RunNumber, StreamName

RUN, OTHER_RUN = RunNumber(7), RunNumber(8)
PHOTONS, RAW = StreamName("photons"), StreamName("raw")
PHOTONS_FILES = "data/runs/7/photons"  # how the paths of its files begin on the disk
LARGE_BYTES = SMALL_BLOCK_BYTES + 1000  # of an event that makes a block by itself

Streams: TypeAlias = dict[str, dict[str, Any]]
Record = TypeVar("Record")


def configured(
    seed: int = 1, *, streams: Streams | None = None, directories: int = 1, **init: object
) -> World:
    world = World(seed, directories=directories)
    assert world.do("INIT", **init).ok
    assert world.do("CONFIGURE", streams=streams or {PHOTONS: {}, RAW: {}}).ok
    return world


def running(
    seed: int = 1,
    *,
    runs: Collection[RunNumber] = (RUN,),
    streams: Streams | None = None,
    directories: int = 1,
    **init: object,
) -> World:
    """A logger with active runs. Streams: two, unless others are given. `init` goes to INIT."""
    world = configured(seed, streams=streams, directories=directories, **init)
    for run in runs:
        assert world.do("START RUN", run=run).ok
    return world


def connected() -> tuple[World, Life, SimulatedSource]:
    """A logger with a run, and a source that was told of its first event; from now on the test says
    what it says."""
    world = running()
    source = world.source("router-1")
    send(source, 1)
    world.settle()
    source.silent = True
    return world, life_of(world), source


def life_of(world: World) -> Life:
    assert world.life is not None, "the logger is dead"
    return world.life


def work(
    world: World,
    *,
    writers: bool = True,
    without: Collection[tuple[int, str]] = (),
    rounds: int = 6,
    tick_ms: int = 25,
) -> None:
    """Everyone works once a round, in the order of an event's way, and time passes. writers: the
    streams' threads, but those of the runs and streams in `without`."""
    life = life_of(world)
    for _ in range(rounds):
        world.clock.advance(tick_ms * 1_000_000)
        for source in world.sources:
            source.step()
        world.coor.step(life.link)
        life.commander.step()
        if life.events is not None:
            life.events.step()
        for writer in life.writers if writers else ():
            if tuple(writer.writer.key) not in without and not writer.writer.over:
                writer.step()
        life.committer.step()


def send(
    source: SimulatedSource,
    *numbers: int,
    run: int = RUN,
    streams: tuple[StreamName, ...] = (PHOTONS,),
    size_bytes: int = 100,
) -> None:
    for number in numbers:
        assert source.send(run, streams, number, bytes([number % 256]) * size_bytes)


def fail(
    world: World,
    *operations: Operation,
    path: str = "",
    kind: FaultKind = FaultKind.EIO,
    times: int | None = 1,
    number: int | None = None,
) -> None:
    """The next so many of these steps on that path fail, or all from now on."""
    world.steps.inject(Fault(kind, frozenset(operations), path, number, times))


def problems_after_crashes(world: World) -> list[str]:
    """Grows with what does not hold after a crash, before any recovery."""
    found: list[str] = []
    world.after_crash = lambda: found.extend(world.problems())
    return found


def holds(world: World) -> None:
    """Wait until every source is through; then each event is there once, and none was ever lost."""
    world.settle()
    assert world.problems(complete=True) == []
    assert world.failures == []
    assert world.lost == []


def recorded(world: World, prefix: bytes, kind: type[Record]) -> list[Record]:
    """What the journal has under keys that begin so."""
    return [
        records.decode_record(key, world.store.pairs[key], kind)
        for key in world.store.keys
        if key.startswith(prefix)
    ]


def open_files(world: World) -> list[FileRecord]:
    return recorded(world, records.FILES, FileRecord)


def closed_files(world: World) -> list[ClosedFileRecord]:
    return recorded(world, records.CLOSED_FILES, ClosedFileRecord)


class StreamByHand:
    """A logger with one run and one stream. The stream's own thread works when it is told to, and a
    sync is over when the test says so or somebody waits for it. Event 0 is stored already, for
    which the part was made and space reserved."""

    def __init__(self, *, directories: int = 1, batch_events: int = 1, **stream: object) -> None:
        self.world = running(streams={PHOTONS: stream}, directories=directories, drain_seconds=0.05)
        self.world.busy = 0.0
        for disk in self.world.disks:
            disk.syncs_end = False
        self.source = self.world.source("router-1", batch_events=batch_events)
        self.world.pump(5)
        self.life = life_of(self.world)
        (self.writer,) = (w.writer for w in self.life.writers if w.writer.key.run == RUN)
        self.send(0, 100)
        self.own_thread()
        self.sync()
        self.own_thread()
        assert self.acknowledged == 1

    @property
    def acknowledged(self) -> int:
        return self.source.machine.counts.report({})[PHOTONS].acknowledged

    @property
    def refused(self) -> dict[str, int]:
        """Events by the reason that the source was told."""
        return self.source.machine.counts.reasons()

    @property
    def syncs(self) -> int:
        """How many the disks have under way."""
        return sum(not sync.done for disk in self.world.disks for sync in disk.syncs)

    @property
    def files(self) -> list[tuple[int, int, str]]:
        """Part, directory and state of the stream's files that are not closed."""
        found = [file for file in open_files(self.world) if file.run == RUN]
        return [(file.part, file.directory, str(file.state)) for file in found]

    def send(self, number: int, size_bytes: int = LARGE_BYTES) -> None:
        """An event that comes to the stream; the event server's thread may take its turn."""
        send(self.source, number, size_bytes=size_bytes)
        self.others_work()

    def hand(self, number: int, size_bytes: int = LARGE_BYTES) -> None:
        """The same while the stream's own thread has its turn, which so finds it in its inbox."""
        with self.writer.turn:
            self.send(number, size_bytes)

    def others_work(self, rounds: int = 4) -> None:
        work(self.world, writers=False, rounds=rounds, tick_ms=10)

    def sync(self) -> None:
        """Each disk is through with its oldest sync."""
        for disk in self.world.disks:
            for sync in [sync for sync in disk.syncs if not sync.done][:1]:
                sync.finish()
        self.others_work()

    def is_woken(self) -> bool:
        """Whether the stream's own thread is told to look. Nothing that a user sees tells of it: if
        it is not, the thread looks after `IDLE_SECONDS` all the same."""
        return not self.writer._inbox.empty()

    def own_thread(self, steps: int = 4) -> None:
        for _ in range(steps):
            self.world.clock.advance(30_000_000)
            self.writer.step()
        self.others_work()

    def goes_on(self) -> None:
        """Everyone works again, and all that was sent comes through once."""
        self.world.steps.clear_faults()
        for disk in self.world.disks:
            disk.syncs_end = True
        self.world.settle()
        assert self.world.problems(complete=True) == []
