"""What COOR does in a random history: each public method is an action."""

from __future__ import annotations

from typing import Any, Final

from dlog.faults.simulation.course import Course
from dlog.faults.simulation.witness import FOR_EVER_SECONDS
from dlog.limits import MIB

STREAMS: Final = ("photons", "raw", "slow")
RUNS_MAX: Final = 3
LAST_RUN: Final = 1000


class Commands:
    """COOR, with what it believes in `course.runs`."""

    def __init__(self, course: Course) -> None:
        self._course = course

    def init(self) -> None:
        choose = self._course.random.choice
        self._course.command(
            "INIT",
            settle_seconds=1.0,
            drain_seconds=choose((0.0, 2.0)),
            memory_bytes=choose((16 * MIB, 64 * MIB)),
        )

    def configure(self) -> None:
        choose = self._course.random.choice
        streams: dict[str, dict[str, Any]] = {
            name: {
                "part_events": choose((0, 3, 10)),
                "part_seconds": choose((0.0, 0.0, 0.5)),
                "ranges": choose((True, True, False)),
                "late_seconds": choose((0.0, 0.5, 5.0, FOR_EVER_SECONDS)),
                "flush_interval_ms": choose((0, 20, 100)),
                "compression": choose(("none", "zstd")),
            }
            for name in STREAMS
        }
        if self._course.menu.away:
            for stream in streams.values():
                stream["directories"] = choose(((0, 1), (1, 0)))
        self._course.command("CONFIGURE", streams=streams)

    def configure_short_parts(self) -> None:
        """Parts of a stream that are full with three events, and take late ones until the run
        ends; what waits to be written waits for long."""
        streams: dict[str, dict[str, float]] = {name: {} for name in STREAMS}
        streams[STREAMS[0]] = {
            "part_events": 3, "late_seconds": FOR_EVER_SECONDS, "flush_interval_ms": 100,
        }  # fmt: skip
        self._course.command("CONFIGURE", streams=streams)

    def room_for_a_run(self) -> bool:
        return len(self._course.runs) < RUNS_MAX

    def start_run(self) -> None:
        if self.room_for_a_run():
            self.another_run()

    def another_run(self) -> int:
        course = self._course
        run, course.next_run = course.next_run, course.next_run + 1
        if course.command("START RUN", run=run):
            course.runs[run] = "active"
        return run

    def start_last_run(self) -> None:
        """One that is active while everything comes to its end."""
        self._course.runs[LAST_RUN] = "active"
        self._course.command("START RUN", run=LAST_RUN)

    def pause(self) -> None:
        run = self._course.some_run("active")
        if run is not None and self._course.command("PAUSE RUN", run=run):
            self._course.runs[run] = "paused"

    def resume(self) -> None:
        run = self._course.some_run("paused")
        if run is not None and self._course.command("RESUME RUN", run=run):
            self._course.runs[run] = "active"

    def resume_all(self) -> None:
        for run, state in list(self._course.runs.items()):
            if state == "paused":
                self._course.command("RESUME RUN", run=run)

    def stop_run(self) -> None:
        run = self._course.some_run("active", "paused")
        if run is not None and self._course.random.random() < 0.5:
            self._over("STOP RUN", run)

    def abort_run(self) -> None:
        run = self._course.some_run("active", "paused")
        if run is not None and self._course.random.random() < 0.3:
            self._over("ABORT RUN", run)

    def _over(self, command: str, run: int) -> None:
        """Whatever happens, the end of a run succeeds."""
        if not self._course.command(command, run=run):
            self._course.problems.append(f"{command} {run} was refused")
        del self._course.runs[run]

    def end_run(self, run: int) -> None:
        """By either of the two ways."""
        self._over(self._course.random.choice(("STOP RUN", "ABORT RUN")), run)

    def end_all_runs(self) -> None:
        """At once, without waiting for one after the other."""
        given = {
            run: self.begin_to_end(run, self._course.random.choice(("STOP RUN", "ABORT RUN")))
            for run in self._course.runs
        }
        for run, number in given.items():
            self.wait_for_the_end(run, number)

    def begin_to_end(self, run: int, command: str = "STOP RUN") -> int:
        """The number of the command."""
        self._course.tell(f"{command} run={run}")
        return self._course.world.give(command, run=run)

    def wait_for_the_end(self, run: int, number: int) -> None:
        answers = self._course.world.coor.answers
        self._course.world.run_until(lambda: number in answers, f"run {run} does not end")
        if not answers[number].ok:
            self._course.problems.append(f"the end of run {run} was refused")
        del self._course.runs[run]

    def stop_all(self) -> None:
        """Every run, then the logger."""
        for run in list(self._course.runs):
            self._course.command("STOP RUN", run=run)
        self._course.world.pump(600)  # what a fault sealed is settled by the way
        self._course.command("STOP")

    def wait(self) -> None:
        self._course.world.pump(self._course.random.choice((50, 150)))
