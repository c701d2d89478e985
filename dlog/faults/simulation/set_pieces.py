"""Situations that chance alone would hardly ever make, each staged in the middle of a random
history and judged at once: each public method is an action.

A set piece first ends the trouble that would excuse what it looks for. A crash that was set before
may still come in the middle of it.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from dlog.core.source_session import Phase
from dlog.errors import JournalGone
from dlog.faults.simulation.commands import Commands
from dlog.faults.simulation.course import Course
from dlog.faults.simulation.disk import SimulatedDisk
from dlog.faults.simulation.sending import Sending
from dlog.faults.simulation.sources import SimulatedLiar, SimulatedSource
from dlog.faults.simulation.steps import Fault, FaultKind, Operation
from dlog.faults.simulation.troubles import Troubles
from dlog.faults.simulation.world import ROOT, Stuck
from dlog.model.ids import SessionId, StreamName

PATIENCE_ROUNDS: Final = 1000
FULL_FOR_EVER_NS: Final = 10**15
LIE: Final = 5  # the batch that a liar says is its lowest unacknowledged
# More than a source's window: 2 MiB where INIT's memory is the smallest.
STALLED_EVENTS: Final = 30
STALLED_EVENT_BYTES: Final = 100_000
FLOOD_EVENTS: Final = 30
FOREIGN: Final = b"another file"
SLOW: Final = StreamName("slow")
PHOTONS: Final = StreamName("photons")


class SetPieces:
    """See the module."""

    def __init__(
        self, course: Course, commands: Commands, sending: Sending, troubles: Troubles
    ) -> None:
        self._course = course
        self._world = course.world
        self._commands = commands
        self._sending = sending
        self._troubles = troubles

    def _wait_for(self, source: SimulatedSource, phase: Phase, what: str) -> bool:
        """Until the source is in that phase; a problem where it does not come to that."""
        try:
            self._world.run_until(
                lambda: source.machine.phase is phase, what, rounds_max=PATIENCE_ROUNDS
            )
        except Stuck:
            self._course.problems.append(f"{source.name}: {what}")
            return False
        return True

    def _alone_of_its_name(self) -> SimulatedSource | None:
        """A source that is welcome, and no other of its name waits for it to go."""
        names = Counter(s.name for s in self._world.sources if s.machine.phase is not Phase.OVER)
        alone = [source for source in self._course.sources if names[source.name] == 1]
        if not alone:
            return None
        source = self._course.random.choice(alone)
        return source if self._wait_for(source, Phase.OPEN, "is not welcomed") else None

    # --- crashes -----------------------------------------------------------------------------

    def short_parts(self) -> None:
        """Pieces that are longer than a part stand in several; the logger dies while they are
        written."""
        course = self._course
        if not self._commands.room_for_a_run():
            return
        self._troubles.all_over()
        self._commands.configure_short_parts()
        run = self._commands.another_run()
        if run not in course.runs:
            return
        source = self._sending.another_source(batch_events=10)
        if not self._wait_for(source, Phase.OPEN, "is not welcomed"):
            return
        self._commands.configure()
        for _ in range(course.random.randint(1, 3)):
            # The large one is a block of its own, and told of while the others are only staged.
            course.number[run] += 1
            source.send(run, (PHOTONS,), course.number[run], bytes(STALLED_EVENT_BYTES))
            self._sending.send_numbers(source, run, (PHOTONS,), 10)
            self._world.pump(course.random.choice((1, 2, 3, 4, 5)))
        self._troubles.kill()

    def run_over_meanwhile(self) -> None:
        """A run ends while the thread of its stream gets no time; its source has not heard of it,
        and what it sends goes to the orphans, past what still waits. Then the logger dies."""
        course, world = self._course, self._world
        run = course.some_run("active")
        if run is None:
            return
        self._troubles.all_over()
        source = self._sending.another_source(batch_events=1)
        if not self._wait_for(source, Phase.OPEN, "is not welcomed"):
            return
        world.pump(20)
        world.asleep = frozenset({str(PHOTONS)})
        self._sending.send_numbers(source, run, (PHOTONS,), 2)
        world.pump(3)
        source.deaf = True
        ended = self._commands.begin_to_end(run)
        world.pump(3)
        self._sending.send_numbers(source, run, (PHOTONS,), 2)
        world.pump(course.random.choice((5, 10, 20)))
        self._troubles.kill()
        world.asleep = frozenset()
        source.hear_again()
        self._commands.wait_for_the_end(run, ended)

    def failed_commit(self) -> None:
        """A commit fails, the logger ends on it and is started again; then the power is cut. What
        the commit changed may have been in the page cache alone."""
        course, world = self._course, self._world
        course.faults["journal"] += 1
        course.faults["crash"] += 1
        course.tell("a commit fails")
        world.steps.inject(Fault(FaultKind.EIO, frozenset({Operation.COMMIT})))
        self._sending.send()
        world.pump(course.random.choice((5, 20, 50)))
        course.tell("power cut now")
        world.power_cut = True
        if world.life is not None:
            world.kill()

    # --- disks -------------------------------------------------------------------------------

    def failed_sync(self) -> None:
        """A sync fails, and soon the power: what the sync lost was never on the disk, though it
        was read back until then. Perhaps the sidecar that tells of it cannot be written either."""
        course, random = self._course, self._course.random
        course.faults["disk"] += 1
        course.faults["crash"] += 1
        self._world.disk_failed = True
        faults = [(FaultKind.EIO, Operation.SYNC_FILE)]
        if random.random() < 0.5:
            faults.append((FaultKind.EIO, Operation.NAME))
        course.tell(" and ".join(f"{kind} at {operation}" for kind, operation in faults))
        for kind, operation in faults:
            self._world.steps.inject(Fault(kind, frozenset({operation}), path_prefix="data/runs"))
        for _ in range(3):
            self._sending.send()
            self._world.pump(random.choice((2, 5, 15)))
        course.tell("power cut now")
        self._world.power_cut = True
        if self._world.life is not None:
            self._world.kill()

    def stalled_stream(self) -> None:
        """One stream cannot be written, for ever: what a source sends for another is settled all
        the same, more than its window."""
        course = self._course
        run = course.some_run("active")
        if run is None:
            return
        self._troubles.all_over()
        source = self._sending.another_source(queue_bytes=64 * 2**20)
        if not self._wait_for(source, Phase.OPEN, "is not welcomed"):
            return
        course.faults["disk"] += 1
        self._world.disk_failed = True
        course.tell(f"nothing can be written for {SLOW} of run {run}")
        broken = frozenset({Operation.WRITE, Operation.CREATE, Operation.RESERVE})
        prefix = f"data/runs/{run}/{SLOW}"
        self._world.steps.inject(Fault(FaultKind.EIO, broken, prefix, times=None))
        course.number[run] += 1
        source.send(run, (SLOW,), course.number[run], b"stalled")
        self._world.pump(20)
        for _ in range(STALLED_EVENTS):
            course.number[run] += 1
            source.send(run, (PHOTONS,), course.number[run], bytes(STALLED_EVENT_BYTES))
        try:
            self._world.run_until(
                lambda: source.machine.events_pending <= 1, "held back", rounds_max=PATIENCE_ROUNDS
            )
        except Stuck:
            pending = source.machine.events_pending
            course.problems.append(f"a stalled stream holds back {pending - 1} events of another")
        self._troubles.mend()

    def full_at_the_end(self) -> None:
        """A run that was begun on an almost full disk ends when there is room for sidecars alone:
        for its blocks no more could be reserved than they needed, and their footers."""
        course = self._course
        self._troubles.all_over()
        course.faults["space"] += 1
        course.tell("disk almost full")
        self._troubles.leave_pages(60)
        run = self._commands.another_run()
        if run in course.runs:
            for _ in range(3):
                self._sending.send_to(run)
                self._world.pump(15)
            course.tell("disk full, but for some pages")
            self._troubles.leave_pages(8)
            self._commands.end_run(run)
        self._troubles.free_disk()

    # --- somebody who is not the logger ---------------------------------------------------------

    def lost_file(self) -> None:
        """An open event file is deleted, moved or replaced."""
        open_files = self._open_files()
        if not open_files:
            return
        self._nothing_else_goes_wrong()
        random = self._course.random
        disk, path = random.choice(open_files)
        how = random.choice(("deletes", "moves", "replaces"))
        self._course.tell(f"somebody {how} {path}")
        if how == "moves":
            disk.move(path, f"data/kept/{self._world.steps.count}")
        else:
            disk.delete(path)
        if how == "replaces":
            disk.put(path, FOREIGN)
        self._events_go_on_until_saved(disk, {path})

    def lost_folder(self) -> None:
        """The folder of a run is moved, with all that is open in it."""
        open_files = [found for found in self._open_files() if "/runs/" in found[1]]
        if not open_files:
            return
        self._nothing_else_goes_wrong()
        disk, path = self._course.random.choice(open_files)
        folder = path.rpartition("/")[0]
        kept = f"data/kept/{self._world.steps.count}"
        mine = {p for d, p in self._open_files() if d is disk and p.startswith(folder + "/")}
        others = [p for p in disk.contents() if p.startswith(folder + "/") and p not in mine]
        self._course.tell(f"somebody moves {folder}, but for what nobody has open")
        disk.move(folder, kept)
        for other in others:  # a logger does not watch those
            disk.move(kept + other.removeprefix(folder), other)
        self._events_go_on_until_saved(disk, mine)

    def lost_journal(self) -> None:
        """The journal is moved; the logger ends, and is started when it is back."""
        course, world = self._course, self._world
        if world.life is None:
            return
        self._nothing_else_goes_wrong()
        course.tell("somebody moves the journal")
        failures = len(world.failures)
        world.store.gone = True
        self._sending.send()
        try:
            world.run_until(
                lambda: len(world.failures) > failures, "does not notice", rounds_max=300
            )
        except Stuck:
            course.problems.append("the journal was moved, and the logger went on")
        world.store.gone = False
        gone = world.failures[failures:]
        del world.failures[failures:]
        if not all(isinstance(failure, JournalGone) for failure in gone):
            course.problems.append(f"the journal was moved, and the logger ended on {gone}")

    def _open_files(self) -> list[tuple[SimulatedDisk, str]]:
        life = self._world.life
        if life is None:
            return []
        writers = [w.writer for w in life.writers if not w.writer.over]
        records = [record for writer in writers for record in writer.file_records()]
        found = [(self._world.disks[r.directory], f"{ROOT}/{r.path}.part") for r in records]
        return [(disk, path) for disk, path in found if path in disk.contents()]

    def _nothing_else_goes_wrong(self) -> None:
        """What was lost in a crash meanwhile nobody could save."""
        self._troubles.all_over()
        self._troubles.no_crash()
        self._course.faults["outsiders"] += 1
        self._world.disk_failed = True  # names are left over

    def _events_go_on_until_saved(self, disk: SimulatedDisk, paths: set[str]) -> None:
        """All of these have their names again, or their final ones, and the operator is told."""
        life = self._world.life
        assert life is not None
        for _ in range(3):
            self._sending.send()
            self._world.pump(self._course.random.choice((1, 5, 50)))

        def saved() -> bool:
            told = any(alarm.name.startswith("file-lost") for alarm in life.alarms.raised())
            there = {p: c for p, c in disk.contents().items() if c != FOREIGN}
            return told and all(p in there or p.removesuffix(".part") in there for p in paths)

        try:
            self._world.run_until(saved, "is not saved", rounds_max=PATIENCE_ROUNDS)
        except Stuck:
            self._course.problems.append("a file that lost its name is not saved, or not told of")

    # --- the journal -------------------------------------------------------------------------

    def full_journal_at_the_end(self) -> None:
        """The journal is full, and stays so until all runs have ended: they can. (All of them: in
        one thread, the writer of one that goes on would wait, and let no other get on.)"""
        course, world = self._course, self._world
        if not course.runs:
            return
        self._troubles.all_over()
        self._commands.resume_all()
        world.settle()
        # A logger that dies now does not start, and need not, until there is space.
        self._troubles.no_crash()
        course.faults["journal"] += 1
        course.tell("journal full, for ever")
        answers = len(world.coor.answers) + len(course.runs)
        world.fill_journal(FULL_FOR_EVER_NS, until=lambda: len(world.coor.answers) >= answers)
        self._sending.send()
        patience, world.rounds_max = world.rounds_max, PATIENCE_ROUNDS
        self._commands.end_all_runs()
        world.rounds_max = patience
        world.free_journal()

    # --- sources -----------------------------------------------------------------------------

    def flood(self) -> None:
        """In bad weather a source sends several times as much as its window."""
        course = self._course
        run = course.some_run("active")
        if run is None:
            return
        self._troubles.storm()
        source = self._sending.another_source(queue_bytes=64 * 2**20, batch_events=1)
        for _ in range(FLOOD_EVENTS):
            course.number[run] += 1
            source.send(run, (PHOTONS,), course.number[run], bytes(STALLED_EVENT_BYTES))
        self._world.pump(200)

    def second_session(self) -> None:
        """A second process takes the name of a living one, which may lose the logger meanwhile:
        the second waits, until the first has said BYE."""
        course, random = self._course, self._course.random
        self._troubles.all_over()
        first = self._alone_of_its_name()
        if first is None:
            return
        second = self._sending.another_source(name=first.name)
        if course.menu.crashes and random.random() < 0.5:
            self._troubles.kill()
        self._world.pump(100)
        if second.machine.phase is not Phase.GREETING:
            course.problems.append(f"{first.name}: a second living session of the name was let in")
        if random.random() < 0.5:
            course.tell(f"goodbye of the first {first.name}")
            first.close()
            course.sources.remove(first)
        else:
            self._sending.withdraw(second)

    def take_over(self) -> None:
        """A source hangs, and another process takes its name over; then the first wakes up."""
        course, random = self._course, self._course.random
        self._troubles.all_over()
        first = self._alone_of_its_name()
        if first is None:
            return
        course.tell(f"silent: {first.name}")
        first.silent = True
        second = self._sending.another_source(name=first.name)
        if not self._wait_for(second, Phase.OPEN, "does not get the name of one that is gone"):
            return
        if course.menu.crashes and random.random() < 0.5:
            self._troubles.kill()
        self._world.history.given_up.add(first.session)
        first.hear_again()
        if self._wait_for(first, Phase.REFUSED, "goes on, and its name has a newer session"):
            self._sending.withdraw(first)

    def lie(self) -> None:
        """A source says HELLO from above what was acknowledged: what is between would be missing
        for ever."""
        course, world = self._course, self._world
        self._troubles.all_over()
        liar = SimulatedLiar(
            self._sending.new_name("liar"), SessionId(world.random_bytes(16)), world.network
        )
        course.tell(f"{liar.name} says HELLO from batch 1, then from {LIE}")
        for lowest in (1, LIE):
            for _ in range(20):
                if liar.expected == LIE or (
                    liar.refused == "gap" if lowest == LIE else liar.welcomed
                ):
                    break
                liar.hello(lowest)
                world.pump(20)
                liar.hear()
        life = world.life
        alarms = [] if life is None else [alarm.name for alarm in life.alarms.raised()]
        if liar.expected == LIE or liar.refused != "gap":
            course.problems.append("a HELLO above the acknowledgement was not refused")
        elif life is not None and f"gap {liar.name}" not in alarms:
            course.problems.append("a HELLO above the acknowledgement made no alarm")
        liar.bye()
