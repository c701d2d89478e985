"""What goes wrong in a random history: each public method is an action."""

from __future__ import annotations

from typing import Final

from dlog.faults.simulation.course import Course
from dlog.faults.simulation.network import CALM, Weather
from dlog.faults.simulation.steps import Fault, FaultKind, Operation, When
from dlog.faults.simulation.world import FREE
from dlog.limits import MIB, PAGE_BYTES

BAD_DAY: Final = Weather(drop=0.1, duplicate=0.1, delay=0.2)
# What a failing disk does, and to which steps.
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


class Troubles:
    """Crashes, network, disks and journal."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._world = course.world

    def all_over(self) -> None:
        """From here on nothing more goes wrong."""
        self.mend()
        self.calm()
        self.free_disk()
        self.directory_back()
        for source in self._course.sources:
            source.hear_again()
        self._world.free_journal()

    # --- crashes -----------------------------------------------------------------------------

    def crash(self) -> None:
        self._course.faults["crash"] += 1
        world, random = self._world, self._course.random
        world.power_cut = random.random() < 0.7
        step, when = world.steps.count + random.randint(1, 40), random.choice(list(When))
        self._course.tell(f"{'power cut' if world.power_cut else 'kill'} {when} step {step}")
        world.steps.crash_at(step, when)
        if random.random() < 0.3:
            later = random.randint(1, 20)
            self._course.tell(f"and one {later} steps into the recovery")
            world.on_restart = lambda: world.steps.crash_at(world.steps.count + later, When.DURING)

    def kill(self) -> None:
        self._course.faults["crash"] += 1
        self._world.power_cut = self._course.random.random() < 0.5
        self._course.tell("power cut now" if self._world.power_cut else "kill now")
        if self._world.life is not None:
            self._world.kill()

    def no_crash(self) -> None:
        """None that was set before comes."""
        self._world.steps.no_crash()
        self._world.on_restart = None

    # --- network -----------------------------------------------------------------------------

    def storm(self) -> None:
        self._course.faults["network"] += 1
        self._course.tell("bad weather")
        self._world.network.weather = BAD_DAY

    def calm(self) -> None:
        self._world.network.weather = CALM

    def cut(self) -> None:
        """All connections break; some sources notice, and say HELLO at once."""
        self._course.faults["network"] += 1
        self._course.tell("network cut")
        self._world.network.cut()
        for source in self._course.sources:
            if self._course.random.random() < 0.7:
                source.lost()

    def hang(self) -> None:
        """Some sources stand still, or hear nothing of what they are told."""
        random = self._course.random
        self._course.faults["network"] += 1
        for source in self._course.sources:
            source.silent = random.random() < 0.3
            source.deaf = random.random() < 0.2
        silent = [s.name for s in self._course.sources if s.silent]
        deaf = [s.name for s in self._course.sources if s.deaf]
        self._course.tell(
            f"silent: {', '.join(silent) or 'none'}; deaf: {', '.join(deaf) or 'none'}"
        )

    def damaged_message(self) -> None:
        random = self._course.random
        source = random.choice(self._course.sources)
        message = bytearray(random.randbytes(random.randint(0, 300)))
        if random.random() < 0.5:
            message[:4] = b"DLOG"
        self._course.tell(f"a damaged message as if of {source.name}")
        self._world.network.send_to_logger(source.peer, bytes(message))

    # --- disks -------------------------------------------------------------------------------

    def disk_fault(self) -> None:
        self._inject(self._course.random.choice((1, 1, 2)))

    def lasting_disk_fault(self) -> None:
        if self._course.random.random() < 0.3:
            self._inject(None)

    def _inject(self, times: int | None) -> None:
        random = self._course.random
        self._course.faults["disk"] += 1
        self._world.disk_failed = True
        kind, operation = random.choice(DISK_FAULTS)
        self._course.tell(f"{kind} at {operation}, {times or 'all'} times")
        self._world.steps.inject(
            Fault(
                kind,
                frozenset({operation}),
                times=times,
                path_prefix=random.choice(("", "", "data/runs")),
                delay_ns=1_000_000_000,
            )
        )

    def mend(self) -> None:
        self._world.steps.clear_faults()

    def directory_away(self) -> None:
        """All but the journal's, as if their disks were not mounted."""
        self._course.faults["disk"] += 1
        self._world.disk_failed = True
        self._course.tell("the second data directory goes away")
        for disk in self._world.disks[1:]:
            disk.gone = True

    def directory_back(self) -> None:
        for disk in self._world.disks[1:]:
            disk.gone = False

    def fill_disk(self) -> None:
        random = self._course.random
        self._course.faults["space"] += 1
        self._course.tell("disk full")
        disk = random.choice(self._world.disks)
        disk.capacity_bytes = FREE
        disk.capacity_bytes -= disk.free_bytes() - random.choice((0, 4096, 65536, 3 * MIB))

    def leave_pages(self, pages: int) -> None:
        """Every disk is full, but for so many pages."""
        for disk in self._world.disks:
            disk.capacity_bytes = FREE
            disk.capacity_bytes -= disk.free_bytes() - pages * PAGE_BYTES

    def short_files(self) -> None:
        """No file of a disk may be longer than that."""
        random = self._course.random
        self._course.faults["space"] += 1
        disk, size = random.choice(self._world.disks), random.choice((4096, MIB, 3 * MIB))
        self._course.tell(f"no file of {disk.name} may be longer than {size} B")
        disk.file_bytes_max = size

    def free_disk(self) -> None:
        for disk in self._world.disks:
            disk.capacity_bytes = disk.file_bytes_max = FREE

    # --- the journal -------------------------------------------------------------------------

    def journal_fault(self) -> None:
        if self._course.random.random() < 0.5:
            self._course.faults["journal"] += 1
            self._course.tell("a commit fails")
            self._world.steps.inject(Fault(FaultKind.EIO, frozenset({Operation.COMMIT})))

    def fill_journal(self) -> None:
        self._course.faults["journal"] += 1
        self._course.tell("journal full")
        self._world.fill_journal(self._course.random.choice((0, 300_000_000, 2_000_000_000)))
