"""A random history of a logger and its sources from one seed, with every fault that the simulation
knows, and what must hold of it. The same seed plays the same history.

`play` is one history; the story of what was done to the logger is kept, so that a failure can be
read and played again.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from dlog.errors import JournalFailed
from dlog.limits import MIB
from dlog.model.ids import StreamName
from dlog.simulation.network import CALM, Weather
from dlog.simulation.scenario import payload
from dlog.simulation.sources import SimulatedSource
from dlog.simulation.steps import Fault, FaultKind, Operation, When
from dlog.simulation.world import FREE, ROUNDS_MAX, Stuck, World

STREAMS: Final = ("photons", "raw", "slow")
ACTIONS: Final = 60
LAST_RUN: Final = 1000
STRANGE_RUN: Final = 2000
BAD_DAY: Final = Weather(drop=0.1, duplicate=0.1, delay=0.2)
# What a failing disk or journal does, and to which steps.
DISK_FAULTS: Final = (
    (FaultKind.EIO, Operation.WRITE),
    (FaultKind.EIO, Operation.SYNC_FILE),
    (FaultKind.EIO, Operation.SYNC_FOLDER),
    (FaultKind.EIO, Operation.CREATE),
    (FaultKind.EIO, Operation.NAME),
    (FaultKind.EIO, Operation.CUT),
    (FaultKind.EIO, Operation.SET_MODE),
    (FaultKind.EIO, Operation.READ),
    (FaultKind.NO_SPACE, Operation.RESERVE),
    (FaultKind.NO_SPACE, Operation.WRITE),
    (FaultKind.NO_SPACE, Operation.CREATE),
    (FaultKind.SHORT_WRITE, Operation.WRITE),
    (FaultKind.SLOW, Operation.SYNC_FILE),
)


@dataclass(frozen=True, slots=True)
class Menu:
    """Which kinds of trouble a history may hold."""

    crashes: bool = True
    network: bool = True
    disk: bool = True
    space: bool = True
    journal: bool = True


EVERYTHING: Final = Menu()


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
    "everything": Scenario("all of it at once", EVERYTHING),
}


@dataclass(slots=True)
class Outcome:
    """A history that was played. problems: empty where all held."""

    seed: int
    story: list[str]
    problems: list[str]
    faults: Counter[str]
    events: int
    reboots: int
    recovery_ns_max: int
    fingerprint: int


class _History:
    """One random history while it is played."""

    def __init__(self, seed: int, menu: Menu) -> None:
        self.random = Random(f"{seed}/campaign")
        self.world = World(seed, directories=self.random.choice((1, 1, 2)))
        self.menu = menu
        self.story: list[str] = []
        self.problems: list[str] = []
        self.faults: Counter[str] = Counter()
        self.runs: dict[int, str] = {}  # live, as COOR believes: active or paused
        self.next_run = 1
        self.number: Counter[int] = Counter()  # highest event number, by run
        self.names = 0
        self.sources: list[SimulatedSource] = []
        self.world.after_crash = self._look

    def _look(self) -> None:
        """What survives a crash holds, before any recovery."""
        self.problems += [f"after a crash: {p}" for p in self.world.problems()]

    def tell(self, text: str) -> None:
        self.story.append(f"step {self.world.steps.count}: {text}")

    # --- from beginning to end ---------------------------------------------------------------

    def play(self) -> None:
        self.command("INIT", settle_seconds=1.0, drain_seconds=self.random.choice((0.0, 2.0)))
        self.configure()
        self.start_run()
        for _ in range(self.random.randint(1, 3)):
            self.new_source()
        doings = self.doings()
        for _ in range(ACTIONS):
            self.random.choice(doings)()
            self.world.pump(self.random.choice((0, 1, 2, 5, 20)))
            if self.problems:
                return
        self.end()

    def doings(self) -> list[Callable[[], None]]:
        often: list[Callable[[], None]] = [self.send] * 6 + [self.send_late] * 2
        often += [self.start_run, self.pause, self.resume, self.stop_run, self.wait]
        often += [self.stop_run, self.abort_run, self.configure, self.send_stray, self.new_source]
        often += [self.goodbye]
        menu = self.menu
        if menu.crashes:
            often += [self.crash, self.crash, self.kill]
        if menu.network:
            often += [self.storm, self.calm, self.cut, self.hang, self.damaged_message]
        if menu.disk:
            often += [self.disk_fault, self.disk_fault, self.lasting_disk_fault, self.mend]
        if menu.space:
            often += [self.fill_disk, self.free_disk]
        if menu.journal:
            often += [self.journal_fault, self.fill_journal]
        return often

    def end(self) -> None:
        """All trouble is over: everything must come to a good end by itself."""
        self.mend()
        self.calm()
        self.free_disk()
        for source in self.sources:
            source.silent = False
        self.world.free_journal()
        for run, state in list(self.runs.items()):
            if state == "paused":
                self.command("RESUME RUN", run=run)
        self.world.pump(100)
        self.runs[LAST_RUN] = "active"
        self.command("START RUN", run=LAST_RUN)
        self.world.settle()
        if self.random.random() < 0.5:
            for source in self.sources:
                source.close()
        for run in list(self.runs):
            self.command("STOP RUN", run=run)
        self.world.pump(600)  # what a fault sealed is settled by the way
        self.command("STOP")
        self.problems += self.world.problems(complete=True)
        # What a fault left half-done at the very end is settled by the next start.
        self.world.stopped = False
        self.world.pump(10)
        self.problems += self.world.problems(complete=True, stopped=True)
        self._judge_end()

    def _judge_end(self) -> None:
        world = self.world
        self.problems += [f"lost: {text}" for text in world.lost]
        self.problems += [f"after a restart: {text}" for text in world.tails]
        if not (self.faults["disk"] or self.faults["space"]):
            self.problems += [f"not settled: {text}" for text in world.unsettled]
        for failure in world.failures:
            if not (isinstance(failure, JournalFailed) and self.faults["journal"]):
                self.problems.append(f"the logger ended on {failure!r}")
        for source in self.sources:
            if source.machine.failure is not None:
                self.problems.append(f"{source.name}: {source.machine.failure}")

    # --- COOR --------------------------------------------------------------------------------

    def command(self, name: str, **parameters: Any) -> bool:
        shown = ", ".join(f"{k}={v}" for k, v in parameters.items() if k != "streams")
        self.tell(f"{name} {shown}")
        answer = self.world.do(name, **parameters)
        if not answer.ok:
            self.story[-1] += f" -> {answer.code}: {answer.error}"
        return answer.ok

    def configure(self) -> None:
        choose = self.random.choice
        streams = {
            name: {
                "part_events": choose((0, 3, 10)),
                "part_seconds": choose((0.0, 0.0, 0.5)),
                "ranges": choose((True, True, False)),
                "late_seconds": choose((0.0, 0.5, 5.0)),
                "flush_interval_ms": choose((0, 20, 100)),
                "compression": choose(("none", "zstd")),
            }
            for name in STREAMS
        }
        self.command("CONFIGURE", streams=streams)

    def start_run(self) -> None:
        if len(self.runs) < 3:
            run, self.next_run = self.next_run, self.next_run + 1
            if self.command("START RUN", run=run):
                self.runs[run] = "active"

    def some_run(self, *states: str) -> int | None:
        runs = [run for run, state in self.runs.items() if state in states]
        return self.random.choice(runs) if runs else None

    def pause(self) -> None:
        run = self.some_run("active")
        if run is not None and self.command("PAUSE RUN", run=run):
            self.runs[run] = "paused"

    def resume(self) -> None:
        run = self.some_run("paused")
        if run is not None and self.command("RESUME RUN", run=run):
            self.runs[run] = "active"

    def stop_run(self) -> None:
        run = self.some_run("active", "paused")
        if run is not None and self.random.random() < 0.5:
            if not self.command("STOP RUN", run=run):
                self.problems.append(f"STOP RUN {run} was refused")
            del self.runs[run]

    def abort_run(self) -> None:
        run = self.some_run("active", "paused")
        if run is not None and self.random.random() < 0.3:
            if not self.command("ABORT RUN", run=run):
                self.problems.append(f"ABORT RUN {run} was refused")
            del self.runs[run]

    def wait(self) -> None:
        self.world.pump(self.random.choice((50, 150)))

    # --- sources -----------------------------------------------------------------------------

    def new_source(self) -> None:
        if len(self.sources) < 5:
            self.names += 1
            source = self.world.source(
                f"router-{self.names}", batch_events=self.random.choice((1, 3, 8))
            )
            self.sources.append(source)
            self.tell(f"source {source.name}")

    def goodbye(self) -> None:
        """A source ends once everything of it is acknowledged; another may come."""
        if len(self.sources) > 1 and self.random.random() < 0.5:
            source = self.sources.pop(self.random.randrange(len(self.sources)))
            self.tell(f"goodbye of {source.name}")
            source.silent = False
            source.close()

    def _streams(self) -> tuple[StreamName, ...]:
        number = self.random.choice((1, 1, 1, 2, 3))
        return tuple(map(StreamName, self.random.sample(STREAMS, number)))

    def send(self) -> None:
        run = self.some_run("active", "paused")
        if run is not None:
            source = self.random.choice(self.sources)
            for _ in range(self.random.randint(1, 12)):
                self.number[run] += self.random.choice((1, 1, 1, 2))
                self._send(source, run, self._streams(), self.number[run])

    def send_late(self) -> None:
        run = self.some_run("active", "paused")
        if run is not None and self.number[run]:
            source = self.random.choice(self.sources)
            for _ in range(self.random.randint(1, 3)):
                number = self.random.randint(1, self.number[run])
                self._send(source, run, self._streams(), number)

    def send_stray(self) -> None:
        """For a run that is over or never was, or a stream that nobody configured."""
        source = self.random.choice(self.sources)
        run = self.random.choice((STRANGE_RUN, max(1, self.next_run - 1), self.next_run))
        streams = self.random.choice((self._streams(), (StreamName("nowhere"),)))
        self._send(source, run, streams, self.random.randint(1, 50))

    def _send(
        self, source: SimulatedSource, run: int, streams: tuple[StreamName, ...], number: int
    ) -> None:
        source.send(run, streams, number, payload(number) * self.random.choice((1, 1, 1, 200)))

    # --- trouble -----------------------------------------------------------------------------

    def crash(self) -> None:
        self.faults["crash"] += 1
        world = self.world
        world.power_cut = self.random.random() < 0.7
        step, when = world.steps.count + self.random.randint(1, 40), self.random.choice(list(When))
        self.tell(f"{'power cut' if world.power_cut else 'kill'} {when} step {step}")
        world.steps.crash_at(step, when)
        if self.random.random() < 0.3:
            later = self.random.randint(1, 20)
            self.tell(f"and one {later} steps into the recovery")
            world.on_restart = lambda: world.steps.crash_at(world.steps.count + later, When.DURING)

    def kill(self) -> None:
        self.faults["crash"] += 1
        self.world.power_cut = self.random.random() < 0.5
        self.tell("power cut now" if self.world.power_cut else "kill now")
        if self.world.life is not None:
            self.world.kill()

    def storm(self) -> None:
        self.faults["network"] += 1
        self.tell("bad weather")
        self.world.network.weather = BAD_DAY

    def calm(self) -> None:
        self.world.network.weather = CALM

    def cut(self) -> None:
        self.faults["network"] += 1
        self.tell("network cut")
        self.world.network.cut()

    def hang(self) -> None:
        self.faults["network"] += 1
        for source in self.sources:
            source.silent = self.random.random() < 0.3

    def damaged_message(self) -> None:
        source = self.random.choice(self.sources)
        message = bytearray(self.random.randbytes(self.random.randint(0, 300)))
        if self.random.random() < 0.5:
            message[:4] = b"DLOG"
        self.world.network.send_to_logger(source.peer, bytes(message))

    def disk_fault(self) -> None:
        self._inject(self.random.choice((1, 1, 2)))

    def lasting_disk_fault(self) -> None:
        if self.random.random() < 0.3:
            self._inject(None)

    def _inject(self, times: int | None) -> None:
        self.faults["disk"] += 1
        self.world.disk_failed = True
        kind, operation = self.random.choice(DISK_FAULTS)
        self.tell(f"{kind} at {operation}, {times or 'all'} times")
        self.world.steps.inject(
            Fault(
                kind,
                frozenset({operation}),
                times=times,
                path_prefix=self.random.choice(("", "", "data/runs")),
                delay_ns=1_000_000_000,
            )
        )

    def mend(self) -> None:
        self.world.steps.clear_faults()

    def fill_disk(self) -> None:
        self.faults["space"] += 1
        self.tell("disk full")
        disk = self.random.choice(self.world.disks)
        disk.capacity_bytes = FREE
        disk.capacity_bytes -= disk.free_bytes() - self.random.choice((0, 4096, 65536, 3 * MIB))

    def free_disk(self) -> None:
        for disk in self.world.disks:
            disk.capacity_bytes = FREE

    def journal_fault(self) -> None:
        if self.random.random() < 0.5:
            self.faults["journal"] += 1
            self.tell("a commit fails")
            self.world.steps.inject(Fault(FaultKind.EIO, frozenset({Operation.COMMIT})))

    def fill_journal(self) -> None:
        self.faults["journal"] += 1
        self.tell("journal full")
        self.world.fill_journal(self.random.choice((0, 300_000_000, 2_000_000_000)))


def play(seed: int, menu: Menu = EVERYTHING, *, rounds_max: int = ROUNDS_MAX) -> Outcome:
    """One random history, judged after each crash and at its end. rounds_max: how long anything is
    waited for."""
    history = _History(seed, menu)
    history.world.rounds_max = rounds_max
    try:
        history.play()
    except Stuck as error:
        history.problems.append(str(error))
    except Exception:  # noqa: BLE001 - whatever the logger raises is the finding
        history.problems.append(traceback.format_exc())
    world = history.world
    return Outcome(
        seed,
        history.story,
        history.problems,
        history.faults,
        sum(len(events) for events in world.history.sent.values()),
        world.reboots,
        world.recovery_ns_max,
        world.fingerprint(),
    )


@dataclass(slots=True)
class Report:
    """Many histories. failed: the outcomes that did not hold, the shortest story first."""

    played: int = 0
    events: int = 0
    reboots: int = 0
    recovery_ns_max: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.played += 1
        self.events += outcome.events
        self.reboots += outcome.reboots
        self.recovery_ns_max = max(self.recovery_ns_max, outcome.recovery_ns_max)
        self.faults += outcome.faults
        if outcome.problems:
            self.failed.append(outcome)
            self.failed.sort(key=lambda o: len(o.story))


def play_all(seeds: Sequence[int], menu: Menu = EVERYTHING) -> Report:
    """Histories of these seeds, one behind the other."""
    report = Report()
    for seed in seeds:
        report.add(play(seed, menu))
    return report
