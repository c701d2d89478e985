"""A whole logger with its sources, COOR, disks and network, in one thread from one seed.

    world = World(seed=1)
    world.do("INIT"), world.do("CONFIGURE", streams={"photons": {}}), world.do("START RUN", run=7)
    source = world.source("router-1")
    source.send(7, (StreamName("photons"),), 1, b"payload")
    world.steps.crash_at(world.steps.count + 12, When.DURING)
    world.settle()            # the crash, the restart, the resend: until all is acknowledged
    assert world.problems() == []

The services are those of the real logger, unchanged; what the composition root does for them
(`dlog.logger`) is done here with steps instead of threads. The same seed gives the same history.
"""

from __future__ import annotations

import contextlib
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final

import msgspec

from dlog.core import journal_records as records
from dlog.core.journal_records import (
    BootRecord,
    EndedRunRecord,
    JournalMeta,
    StreamRecord,
)
from dlog.core.states import RunState
from dlog.errors import Error, Failure, JournalFull, NoThread, StorageError
from dlog.faults.simulation.clock import SimulatedClock
from dlog.faults.simulation.disk import SimulatedDisk, SimulatedHang
from dlog.faults.simulation.journal import JournalStore, SimulatedJournal
from dlog.faults.simulation.network import SimulatedCoorLink, SimulatedEventLink, SimulatedNetwork
from dlog.faults.simulation.port_wrappers import UNWRAPPED, PortWrappers
from dlog.faults.simulation.sources import History, SimulatedCoor, SimulatedSource
from dlog.faults.simulation.steps import SimulatedCrash, StorageSteps
from dlog.faults.simulation.witness import Findings
from dlog.limits import MIB
from dlog.model.config import InitConfig, StreamConfig
from dlog.model.ids import (
    BootNumber,
    SessionId,
)
from dlog.model.messages import Answer
from dlog.ports import Directory
from dlog.services.alarms import AlarmBoard, load_acknowledged
from dlog.services.commander import Commander
from dlog.services.committer import Committer
from dlog.services.data_directories import create, open_further
from dlog.services.event_server import EventServer, Identity
from dlog.services.housekeeper import INTERVAL_SECONDS, Housekeeper
from dlog.services.live_state import (
    config_of_ended,
    finished_run,
    sessions,
    settle_live_state,
    watermarks,
)
from dlog.services.lost_files import LostFiles
from dlog.services.operations import Operations
from dlog.services.parts import Part, Storage, tell_away
from dlog.services.stream_thread import StreamWriter

ROOT: Final = "data"
ORPHAN_CONFIG: Final = StreamConfig(ranges=False, reserve_bytes=MIB)
TICK_NS: Final = 10_000_000
BUSY: Final = 0.3  # how often a stream's thread has its turn when others would take it
TIDY_NS: Final = int(INTERVAL_SECONDS * 1e9)
ROUNDS_MAX: Final = 20_000
REBOOTS_MAX: Final = 50
FREE: Final = 1 << 40
DESCRIPTORS: Final = 1000
JOURNAL_PATIENCE_NS: Final = 100_000_000
# Small enough that a few hundred events show everything; no low-water mark unless it is asked for.
INIT: Final[Mapping[str, Any]] = {
    "memory_bytes": 64 * MIB, "low_water_bytes": 0, "resume_bytes": 0, "drain_seconds": 5.0,
    "stream_defaults": {"reserve_bytes": MIB, "block_bytes": 65536},
}  # fmt: skip


class Stuck(AssertionError):
    """Something that should happen by itself did not, however long it was waited for."""


class _Buffer:
    def __init__(self, size: int) -> None:
        self._view = memoryview(bytearray(size))

    @property
    def view(self) -> memoryview:
        return self._view

    def release(self) -> None:
        """Another one may have it from now on: so whoever still looks sees that."""
        self._view[:] = bytes(len(self._view))


class _Buffers:
    """`ports.Buffers` without a pool: nothing here is fast."""

    def take(self, size: int) -> _Buffer:
        return _Buffer(size)


@dataclass(eq=False, slots=True)
class _Writer:
    """A stream's thread: it opens its first part, then takes steps."""

    writer: StreamWriter
    started: bool = False

    def step(self) -> None:
        if not self.started:
            self.started = True
            self.writer.start()
        elif not self.writer.over:
            self.writer.step()


class Life:
    """One start of the logger until it dies: what `dlog.logger` is in the real program."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._clock = world.clock
        self.alarms = AlarmBoard(world.clock)
        wrappers = world.wrappers
        self.journal = wrappers.journal(SimulatedJournal(world.steps, world.store))
        names = [f"{disk.name}:{ROOT}" for disk in world.disks]
        self._meta = self._open_journal(names)
        first = wrappers.directory(world.disks[0].directory(ROOT))
        further, away = open_further(
            names[1:],
            lambda position, why: wrappers.directory(
                world.disks[1 + position].directory(ROOT, holds_journal=False, away=why)
            ),
            uuid=self._meta.logger_uuid.hex(),
            known=self._meta.marked,
        )
        self.directories: list[Directory] = [first, *further]
        if further:
            self._meta = msgspec.structs.replace(self._meta, marked=tuple(names[1:]))
            self.journal.commit([(records.META, records.encode_record(records.META, self._meta))])
        self.boot = self._next_boot()
        self.committer = wrappers.committer(
            Committer(
                self.journal, world.clock, single_thread=True, while_full=world.while_journal_full
            )
        )
        self.storage = Storage(
            self._meta.name,
            self._meta.logger_uuid,
            self.boot,
            self.directories,
            _Buffers(),
            self.committer,
            Operations.load(self.journal, self.boot, world.clock),
            world.clock,
            self.alarms,
            LostFiles(self.alarms),
            world.random_bytes,
        )
        for position, reason in away.items():
            tell_away(self.storage, 1 + position, reason)
        self.link = SimulatedCoorLink()
        self._event_link = wrappers.event_link(
            SimulatedEventLink(world.wrapped_network, world.message_to_source)
        )
        self.writers: list[_Writer] = []
        self.events: EventServer | None = None
        self.commander = Commander(
            name=self._meta.name,
            uuid=self._meta.logger_uuid,
            boot=self.boot,
            host="simulated",
            process=1,
            link=self.link,
            machinery=self,
            journal=self.journal,
            committer=self.committer,
            directories=self.directories,
            clock=world.clock,
            alarms=self.alarms,
            status=lambda commander: {"state": str(commander.record.state)},
        )
        self._resume()

    def _open_journal(self, names: Sequence[str]) -> JournalMeta:
        value = self.journal.get(records.META)
        if value is not None:
            meta = records.decode_record(records.META, value, JournalMeta)
        else:
            meta = JournalMeta(
                logger_uuid=self._world.random_bytes(16),
                name="simulated",
                data=tuple(names),
                created_ns=self._clock.wall_ns(),
            )
        self.journal.commit([(records.META, records.encode_record(records.META, meta))])
        return meta

    def _next_boot(self) -> BootNumber:
        value = self.journal.get(records.BOOT)
        before = records.decode_record(records.BOOT, value, BootRecord).boot if value else 0
        record = BootRecord(boot=before + 1)
        self.journal.commit([(records.BOOT, records.encode_record(records.BOOT, record))])
        return BootNumber(before + 1)

    def _resume(self) -> None:
        load_acknowledged(self.journal, self.alarms)
        live = settle_live_state(self.journal, self.storage, ORPHAN_CONFIG)
        self._world.lost += live.lost
        self.committer.load()
        orphan, parts = live.orphans
        orphans = self.make_writer(ORPHAN_CONFIG, orphan, parts, run_started_ns=0, streams=())
        self.commander.resume(
            live.record, [(run, live.of_run(run.run)) for run in live.runs], orphans
        )
        self.start_writer(orphans)
        self._housekeeper = Housekeeper(
            self.journal,
            self.storage,
            partial(config_of_ended, self.journal, orphans=ORPHAN_CONFIG),
            self.commander.watches,
        )
        self._tidy_ns = self._clock.monotonic_ns() + TIDY_NS

    # --- services.commander.Machinery --------------------------------------------------------

    def open_events(self, init: InitConfig, address: str) -> str:
        if address in self._world.taken_addresses:
            raise Error(f"event_address {address}: Address already in use")
        return f"tcp://127.0.0.1:{self.boot}" if address.endswith(":*") else address

    def start_events(self) -> EventServer:
        init = self.commander.record.init
        assert init is not None
        memory_bytes, expiry_seconds = init.memory_bytes // 2, init.session_expiry_seconds
        if self.events is not None:
            self.events.use(
                self._event_link, memory_bytes=memory_bytes, expiry_seconds=expiry_seconds
            )
            return self.events
        self.events = EventServer(
            Identity(self._meta.name, self._meta.logger_uuid, self.boot),
            self._event_link,
            self.committer,
            self._clock,
            self.alarms,
            memory_bytes=memory_bytes,
            expiry_seconds=expiry_seconds,
            finished_run=partial(finished_run, self.journal),
            drained=self.commander.drained,
        )
        self.events.load(sessions(self.journal), watermarks(self.journal))
        return self.events

    def notices(self, init: InitConfig) -> None:
        """There is neither alarm server nor monitor."""

    def keep_free(self, low_water_bytes: int) -> None:
        self.storage.marks.low_water_bytes = low_water_bytes

    def make_writer(
        self, config: StreamConfig, stream: StreamRecord, parts: Sequence[Part], *,
        run_started_ns: int, streams: tuple[str, ...],
    ) -> StreamWriter:  # fmt: skip
        return StreamWriter(
            self.storage,
            self.committer,
            config,
            stream,
            parts,
            run_started_ns=run_started_ns,
            streams=streams,
            finished=self.commander.writer_finished,
            ready=self.commander.writer_ready,
        )

    def start_writer(self, writer: StreamWriter) -> None:
        if str(writer.key.stream) in self._world.without_thread:
            raise NoThread(f"no thread can be started for the stream {writer.key.stream}")
        self.writers.append(_Writer(writer))

    def within(self, seconds: float, path: str, ask: Callable[[], bool]) -> bool:
        try:
            return ask()
        except SimulatedHang:
            raise StorageError(f"no answer for {seconds:g} s", path=path) from None

    def descriptors_left(self) -> int:
        return self._world.descriptors_left

    def set_debug(self, level: str) -> None:
        """Nothing is logged here."""

    def address_changed(self, event_address: str) -> None:
        """Everyone knows where we are."""

    # --- threads -----------------------------------------------------------------------------

    def threads(self) -> list[Callable[[], None]]:
        self.writers = [w for w in self.writers if not w.writer.over]
        awake = [w for w in self.writers if not self._sleeps(w.writer)]
        found: list[Callable[[], None]] = [w.step for w in awake]
        found += [self._commit, self._tidy]
        found += [partial(self._among_others, disk.work) for disk in self._world.disks]
        return found + self.threads_that_never_wait()

    def threads_that_never_wait(self) -> list[Callable[[], None]]:
        found: list[Callable[[], None]] = [self.commander.step]
        if self.events is not None:
            found.append(partial(self._among_others, self.events.step))
        return found

    def _among_others(self, act: Callable[[], None]) -> None:
        """A step of a thread that may take a stream's turn: some of the streams' own threads have
        theirs meanwhile."""
        busy = [
            w.writer.turn
            for w in self.writers
            if (self._sleeps(w.writer) or self._world.random.random() < self._world.busy)
            and w.writer.turn.acquire(blocking=False)
        ]
        try:
            act()
        finally:
            for turn in busy:
                turn.release()

    def _sleeps(self, writer: StreamWriter) -> bool:
        return str(writer.key.stream) in self._world.asleep

    def _commit(self) -> None:
        self.committer.step()

    def _tidy(self) -> None:
        for watch in self.commander.watches:
            with contextlib.suppress(SimulatedHang):  # it still waits for its first answer
                watch.step()
        # In a thread of its own it waits for the journal's space and holds up nobody.
        if self._clock.monotonic_ns() >= self._tidy_ns and not self._world.journal_is_full:
            self._tidy_ns = self._clock.monotonic_ns() + TIDY_NS
            self._housekeeper.step()

    def settle(self) -> None:
        """The orderly end under active runs."""
        self.commander.settle()
        while self.writers:
            for act in self.threads():
                act()
        self._housekeeper.stop()
        self._housekeeper.run()

    def end(self) -> None:
        """After STOP: the last housekeeping, the last commit."""
        self._housekeeper.stop(tidy_up=True)
        if not self._world.journal_is_full:
            self._housekeeper.step()
        clean = BootRecord(boot=self.boot, clean=True)
        self.committer.submit([(records.BOOT, records.encode_record(records.BOOT, clean))]).wait()


class World:
    """See the module. `problems` judges, `settle` waits, `do` commands; `pump` is one round.

    power_cut: whether a crash loses what is not synced; else it is a killed program.
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        directories: int = 1,
        capacity_bytes: int = FREE,
        wrappers: PortWrappers = UNWRAPPED,
    ) -> None:
        self.seed = seed
        self.wrappers = wrappers
        self.random = Random(seed)
        self.clock = SimulatedClock()
        self.steps = StorageSteps(Random(f"{seed}/steps"), self.clock)
        self.disks = [
            SimulatedDisk(self.steps, name=f"disk{i}", capacity_bytes=capacity_bytes)
            for i in range(directories)
        ]
        for disk in self.disks[1:]:
            create(disk.directory(ROOT), "")
        self.store = JournalStore()
        self.network = SimulatedNetwork(seed, self.clock)
        self.wrapped_network = wrappers.network(self.network)  # of logger and sources
        self.history = History()
        self.sources: list[SimulatedSource] = []
        self.power_cut = True
        self.coor = SimulatedCoor(self.random_bytes(8), self.clock)
        self.life: Life | None = None
        self.stopped = False  # COOR's STOP was carried out
        self.reboots = 0
        self.failures: list[Failure] = []  # what the logger ended on by itself
        self.lost: list[str] = []  # what its restarts found lost
        self.recovery_ns_max = 0
        self.disk_failed = False  # set by who injects such a fault
        self.tails: list[str] = []  # what a restart left behind the durable offset of a file
        self.rounds_max = ROUNDS_MAX
        self.asleep: frozenset[str] = frozenset()  # streams whose threads get no time
        self.busy = BUSY
        self.descriptors_left = DESCRIPTORS
        self.taken_addresses: frozenset[str] = frozenset()  # by other programs
        self.without_thread: frozenset[str] = frozenset()  # streams for which there is none left
        self.unsettled: list[str] = []  # files that a restart could not settle
        self.after_crash: Callable[[], None] | None = None
        self.on_restart: Callable[[], None] | None = None  # once, before the next start
        self._starts: list[tuple[int, dict[tuple[int, str], int]]] = []  # boot, blocks from there
        self._journal_free_when: Callable[[], bool] = lambda: False
        self._rounds_full = 0  # how often somebody waited since the journal was full
        self._journal_free_ns = 0  # when a full journal finds space again

    def random_bytes(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def reseed(self, seed: str) -> None:
        """From here on chance does not depend on what was before."""
        self.random.seed(seed)
        self.steps.random.seed(f"{seed}/steps")

    # --- who takes part ----------------------------------------------------------------------

    def source(self, name: str, **options: int) -> SimulatedSource:
        """A new session of that name."""
        source = SimulatedSource(
            name,
            SessionId(self.random_bytes(16)),
            self.wrapped_network,
            self.clock,
            self.history,
            **options,
        )
        self.sources.append(source)
        return source

    def message_to_source(self, peer: bytes, message: bytes) -> None:
        self.history.message_to_source(message)

    # --- the logger's lives ------------------------------------------------------------------

    def boot(self) -> None:
        """Start the program; a crash inside is survived by the next start."""
        begin_ns = self.clock.monotonic_ns()
        for _ in range(REBOOTS_MAX):
            hook, self.on_restart = self.on_restart, None
            if hook is not None:
                hook()
            try:
                self.life = Life(self)
            except SimulatedCrash:
                self._bury()
            except Failure as error:
                self._failed(error)
            except JournalFull:
                # It exits with code 1; whoever starts it again does so until there is space.
                self._failed(None)
                self.clock.advance(JOURNAL_PATIENCE_NS)
                self._look_at_journal()
            else:
                self.coor.logger_started()
                self._starts.append((self.life.boot, self._next_blocks()))
                spent_ns = self.clock.monotonic_ns() - begin_ns
                self.recovery_ns_max = max(self.recovery_ns_max, spent_ns)
                self.tails += self.findings().tails()
                raised = self.life.alarms.raised()
                self.unsettled += [a.text for a in raised if a.name.startswith("file ")]
                return
        raise Stuck(f"the logger does not start: {self.failures[-1:]}")

    def kill(self) -> None:
        """The program dies between two steps."""
        self.steps.crash_now()
        self._bury()

    def terminate(self) -> None:
        """SIGTERM: what was taken is stored, the runs stay active; the next start goes on."""
        assert self.life is not None
        self.life.settle()
        self._failed(None)

    def _bury(self) -> None:
        self.life = None
        self.reboots += 1
        if self.power_cut:
            for disk in self.disks:
                disk.crash(Random(f"{self.seed}/crash/{self.reboots}"))
            self.store.lose_power()
        self.network.cut()
        if self.after_crash is not None:
            self.after_crash()
        self.steps.restart()

    def _failed(self, error: Failure | None) -> None:
        """The program ended by itself; the machine goes on."""
        if error is not None:
            self.failures.append(error)
        self.steps.crash_now()
        self.life = None
        self.reboots += 1
        self.network.cut()
        self.steps.restart()

    # --- time --------------------------------------------------------------------------------

    def pump(self, rounds: int = 1, *, tick_ns: int = TICK_NS) -> None:
        """Let everyone take a step, in an order that the seed says; a dead logger starts anew."""
        for _ in range(rounds):
            self.clock.advance(tick_ns)
            self._look_at_journal()
            if self.life is None and not self.stopped:
                self.boot()
            self._round()

    def _round(self) -> None:
        actors: list[Callable[[], None]] = [source.step for source in self.sources]
        life = self.life
        if life is not None:
            actors += life.threads()
            actors.append(lambda: self.coor.step(life.link))
        self.random.shuffle(actors)
        for act in actors:
            try:
                act()
            except SimulatedCrash:
                self._bury()
                return
            except Failure as error:
                self._failed(error)
                return
        if life is not None and life.commander.over:
            self._end(life)

    def _end(self, life: Life) -> None:
        """COOR's STOP was carried out: the program ends by itself."""
        self.coor.step(life.link)
        self.stopped = True
        try:
            life.end()
        except SimulatedCrash:
            self._bury()
        except Failure as error:
            self._failed(error)
        else:
            self.life = None
            self.steps.crash_now()
            self.steps.restart()

    def fill_journal(self, duration_ns: int, *, until: Callable[[], bool] = lambda: False) -> None:
        """Nothing more fits into the journal, for so long or until that holds."""
        self.store.capacity_bytes = self.store.used_bytes
        self._journal_free_when = until
        self._journal_free_ns = self.clock.monotonic_ns() + duration_ns
        self._rounds_full = 0

    @property
    def journal_is_full(self) -> bool:
        return self.store.capacity_bytes != FREE

    def free_journal(self) -> None:
        self.store.capacity_bytes = FREE
        self._journal_free_ns = 0

    def _look_at_journal(self) -> None:
        if self._journal_free_ns and (
            self.clock.monotonic_ns() >= self._journal_free_ns or self._journal_free_when()
        ):
            self.free_journal()

    def while_journal_full(self) -> None:
        """A writer waits for a commit that finds no space; everyone who does not wait goes on.
        Raises `Stuck`."""
        self._rounds_full += 1
        if self._rounds_full > self.rounds_max:
            raise Stuck("the journal is full, and who waits for a commit waits for ever")
        self.clock.advance(JOURNAL_PATIENCE_NS)
        self._look_at_journal()
        life = self.life
        if life is None:
            return
        for act in (*(s.step for s in self.sources), *life.threads_that_never_wait()):
            act()
        self.coor.step(life.link)

    def run_until(
        self, condition: Callable[[], bool], what: str, *, rounds_max: int | None = None
    ) -> None:
        """Pump until it holds. Raises `Stuck`."""
        for n in range(rounds_max or self.rounds_max):
            if condition():
                return
            # Nobody waits for anything but time after a while: let it run faster.
            self.pump(tick_ns=TICK_NS if n < 500 else 10 * TICK_NS)
        last = list(self.steps.history)[-5:]
        raise Stuck(f"seed {self.seed}: {what}; the last steps were {last}")

    def do(self, command: str, **parameters: Any) -> Answer:
        """Give a command and wait for its answer, over as many restarts as it takes."""
        number = self.give(command, **parameters)
        self.run_until(lambda: number in self.coor.answers, f"{command} is not answered")
        answer = self.coor.answers[number]
        # Who wants it stopped says so once more.
        return self.do(command, **parameters) if answer.code == "started-again" else answer

    def give(self, command: str, **parameters: Any) -> int:
        """Give a command; its answer comes by itself."""
        self.stopped = False
        if command == "INIT":
            parameters = {**INIT, **parameters}
        return self.coor.give(command, parameters)

    def settle(self) -> None:
        """Until every source is through with what it took."""
        self.run_until(lambda: all(s.idle for s in self.sources), "sources are not through")

    # --- judgement ---------------------------------------------------------------------------

    def findings(self) -> Findings:
        return Findings(self.store, [(disk, ROOT) for disk in self.disks], self.history)

    def problems(self, *, complete: bool = False, stopped: bool = False) -> list[str]:
        """What should hold and does not. complete: everything that was sent is there, too. stopped:
        nothing is left to do either."""
        findings = self.findings()
        problems = [*findings.problems, *self.steps.breaches, *self._wrong_boots(findings)]
        if complete:
            problems += [f"{piece}: not there" for piece in findings.unsettled()]
        if stopped:
            problems += findings.left_over()
            if not self.disk_failed:
                problems += findings.names_left_over()
        return problems

    def _next_blocks(self) -> dict[tuple[int, str], int]:
        """The number of the next block, by run and stream; beyond all for a run that is over."""
        found: dict[tuple[int, str], int] = {}
        for key, value in self.store.pairs.items():
            if key.startswith(records.STREAMS):
                stream = records.decode_record(key, value, StreamRecord)
                found[stream.run, stream.stream] = stream.next_block
            elif key.startswith(records.ENDED_RUNS):
                ended = records.decode_record(key, value, EndedRunRecord)
                # The number of a run that could not be started may be another one's later.
                if ended.state is not RunState.FAILED:
                    found |= {(ended.run, name): sys.maxsize for name in ended.streams}
        return found

    def _wrong_boots(self, findings: Findings) -> list[str]:
        """Each block says which start of the logger wrote it: the last one that had it to write."""
        wrong = []
        for stream, number, boot in findings.boots:
            wrote = next((b for b, n in reversed(self._starts) if n.get(stream, 1) <= number), boot)
            if boot != wrote:
                wrong.append(
                    f"run {stream[0]} {stream[1]}: block {number} says that boot {boot} "
                    f"wrote it; it was {wrote}"
                )
        return wrong

    def fingerprint(self) -> int:
        """The same for the same history."""
        trace = repr([tuple(step) for step in self.steps.history])
        return zlib.crc32(trace.encode())
