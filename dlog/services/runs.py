"""The runs: brings each through its states, from START RUN until its files are in the catalogue.

It acts for the commander, on its thread: what is asked for is checked here, what takes time goes
on here while other commands are carried out. It waits for no stream and no source.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Protocol

import msgspec

from dlog.core import journal_records as records
from dlog.core.journal_records import EndedRunRecord, FileRecord, RunRecord, StreamRecord
from dlog.core.states import RUN, LoggerEvent, RunEvent, RunState
from dlog.errors import NoDescriptor, NoThread, StorageError, TransitionRefused
from dlog.limits import RUNS_ACTIVE_MAX
from dlog.model.config import StreamConfig
from dlog.model.ids import RunNumber, StreamKey, StreamName
from dlog.model.messages import Answer
from dlog.ports import Clock, Directory, Journal
from dlog.services.command_desk import Asked, Desk, Refusal, put
from dlog.services.event_server import EventServer
from dlog.services.live_state import finished_run
from dlog.services.parts import Part
from dlog.services.routes import Routes, RunRoute
from dlog.services.space_watch import DirectoryWatch
from dlog.services.stream_thread import Ending, StreamWriter

log = logging.getLogger("dlog.runs")

FINISHED_KEPT: Final = 1000
NOT_CLOSED_TOLD_MAX: Final = 100
# For folders, sidecars and new parts of the streams that write already, and for connections.
DESCRIPTORS_SPARE: Final = 16
LOOK_SECONDS: Final = 2.0  # for a directory to say what is in it


class Writers(Protocol):
    """Makes the writers of a run's streams, and their threads."""

    def make_writer(
        self,
        config: StreamConfig,
        stream: StreamRecord,
        parts: Sequence[Part],
        *,
        run_started_ns: int,
        streams: tuple[str, ...],
    ) -> StreamWriter: ...

    def start_writer(self, writer: StreamWriter) -> None:
        """Raises `NoThread`."""
        ...

    def descriptors_left(self) -> int:
        """How many files and connections may still be opened."""
        ...

    def within(self, seconds: float, path: str, ask: Callable[[], bool]) -> bool:
        """The answer of the disk of that path. Raises `StorageError` where there is none in that
        time, so that a disk that hangs holds up no command."""
        ...


@dataclass(slots=True)
class Run:
    """A live run. waiting: streams that are not ready yet, or not finished yet. without_thread:
    streams whose writers never began, for want of a thread."""

    record: RunRecord
    writers: dict[StreamName, StreamWriter]
    waiting: set[StreamName] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    without_thread: set[StreamName] = field(default_factory=set)
    since_ns: int = 0
    drain_until_ns: int = 0
    going_to: RunState | None = None  # its writers finish; this is what it becomes
    reason: str = ""

    @property
    def number(self) -> RunNumber:
        return RunNumber(self.record.run)

    @property
    def outcome(self) -> RunState | None:
        """What it will be, once that is decided: an abort is, while it is still being committed."""
        return RunState.ABORTED if self.record.abort_reason else self.going_to


class Runs:
    """All live runs, and who takes orphans. `idle` is called whenever the last run is over."""

    def __init__(
        self,
        desk: Desk,
        writers: Writers,
        journal: Journal,
        directories: Sequence[Directory],
        watches: Sequence[DirectoryWatch],
        clock: Clock,
        post: Callable[[Callable[[], None]], None],
        *,
        idle: Callable[[], None],
        waiting: Callable[[], str],
    ) -> None:
        """watches: of the data directories, in their order."""
        self._desk = desk
        self._writers = writers
        self._journal = journal
        self._directories = directories
        self._watches = watches
        self._clock = clock
        self._post = post
        self._idle = idle
        self._waiting = waiting  # why no credit may be granted
        self.live: dict[RunNumber, Run] = {}
        self._finished: dict[RunNumber, RunState] = {}  # the latest; the journal knows them all
        self.orphans: StreamWriter | None = None
        self.events: EventServer | None = None
        self.stopping = False
        self.stopped: list[RunNumber] = []  # the runs that ended since STOP

    # --- commands ----------------------------------------------------------------------------

    def start(self, number: RunNumber, comment: str, asked: Asked) -> None:
        """START RUN, in a logger whose state accepts it."""
        self._refuse_known(number)
        if len(self.live) >= RUNS_ACTIVE_MAX:
            raise Refusal(f"{RUNS_ACTIVE_MAX} runs are active", "run")
        configs = self._desk.record.streams
        # It was CONFIGUREd before a start with fewer data directories.
        for name, config in configs.items():
            gone = [d for d in config.directories if d >= len(self._directories)]
            if gone:
                raise Refusal(
                    f"stream {name}: there is no data directory {gone[0]} (any more); CONFIGURE "
                    "again",
                    "configuration",
                )
        self._refuse_without_descriptors(len(configs))
        self._refuse_without_directory(number, configs)
        record = RunRecord(
            run=number,
            state=RunState.STARTING,
            streams=configs,
            started_ns=self._clock.wall_ns(),
            comment=comment,
            pending=[asked.pending],
        )
        streams = [
            StreamRecord(run=number, stream=name, directory=(config.directories or (0,))[0])
            for name, config in configs.items()
        ]
        self._desk.become(LoggerEvent.START_RUN)
        self._finished.pop(number, None)
        run = self._make_run(record, [(stream, []) for stream in streams])
        self._desk.commit(
            [
                (records.ended_run_key(number), None),  # of a start that failed
                put(records.run_key(number), record),
                *(
                    put(records.stream_key(StreamKey(number, StreamName(s.stream))), s)
                    for s in streams
                ),
            ],
            then=lambda: self._start_writers(run),
        )

    def _refuse_known(self, number: RunNumber) -> None:
        """A run that could not be started, and of which nothing stands on the disk, never was."""
        if (live := self.live.get(number)) is not None:
            state = live.outcome or live.record.state
            raise Refusal(f"run {number} is in the journal already: it is {state}", "run")
        if not self._never_was(number):
            ended = finished_run(self._journal, number)
            raise Refusal(f"run {number} is in the journal already: it is {ended}", "run")

    def _refuse_without_descriptors(self, streams: int) -> None:
        """Each stream keeps a file open; what is active needs some now and then."""
        left = self._writers.descriptors_left()
        if left < streams + DESCRIPTORS_SPARE:
            raise Refusal(
                f"too many open files: {streams} streams need as many descriptors, and "
                f"{left} are left, of which {DESCRIPTORS_SPARE} stay free for what is active; "
                "start the logger with a higher limit (ulimit -n, LimitNOFILE=)",
                "resources",
            )

    def _refuse_without_directory(
        self, number: RunNumber, configs: Mapping[str, StreamConfig]
    ) -> None:
        """The run must not be on a disk already, and each stream must have a directory that can be
        reached; so the run's number stays free."""
        away: dict[int, str] = {}
        for position, directory in enumerate(self._directories):
            try:
                self._watches[position].refuse_waiting()
                on_disk = self._writers.within(
                    LOOK_SECONDS, directory.name, partial(_has_run, directory, number)
                )
            except NoDescriptor:
                raise
            except StorageError as error:
                log.warning("whether run %d is there cannot be told: %s", number, error)
                away[position] = str(error)
                continue
            if on_disk:
                raise Refusal(f"run {number} is on the disk already, in {directory.name}", "run")
        for name, config in configs.items():
            positions = config.directories or range(len(self._directories))
            if all(position in away for position in positions):
                reasons = "; ".join(away[position] for position in positions)
                raise Refusal(f"stream {name}: no data directory can be used: {reasons}", "run")

    def _never_was(self, number: RunNumber) -> bool:
        key = records.ended_run_key(number)
        value = self._journal.get(key)
        if value is None:
            return True
        if records.decode_record(key, value, EndedRunRecord).state is not RunState.FAILED:
            return False
        files = (*self._journal.scan(records.run_files(number, records.FILES)),
                 *self._journal.scan(records.run_files(number, records.CLOSED_FILES)))  # fmt: skip
        return not files

    def change(self, number: RunNumber, event: RunEvent, asked: Asked) -> None:
        """PAUSE RUN and RESUME RUN."""
        run = self._get(number, event)
        run.record = msgspec.structs.replace(run.record, state=RUN.next(run.record.state, event))
        run.since_ns = self._clock.wall_ns()
        self._desk.commit(
            [put(records.run_key(run.number), run.record)],
            answers=[(asked, self._desk.answer(asked, {"run": run.number}))],
            then=self.send_routes,
        )

    def _get(self, number: RunNumber, event: RunEvent) -> Run:
        run = self.live.get(number)
        if run is None:
            known = ", ".join(str(n) for n in sorted(self.live)) or "none"
            state = self._finished.get(number) or finished_run(self._journal, number)
            what = f"{state} already" if state is not None else "not active"
            raise Refusal(f"run {number} is {what}; active runs: {known}", "run")
        if run.outcome is not None:
            raise TransitionRefused("run", run.outcome, event, [])
        RUN.next(run.record.state, event)
        return run

    def stop(self, number: RunNumber, asked: Asked) -> None:
        """STOP RUN: the sources drain, then its files are closed, then it is answered."""
        run = self.live.get(number)
        ending = run is not None and run.record.state is RunState.ENDING
        if run is not None and ending and run.outcome in (None, RunState.ENDED):
            self._join(run, asked)
        else:
            self._begin_ending(self._get(number, RunEvent.STOP), asked)

    def _join(self, run: Run, asked: Asked) -> None:
        """What is asked for is being done already: answer with the first who asked."""
        pending = [*run.record.pending, asked.pending]
        run.record = msgspec.structs.replace(run.record, pending=pending)
        self._desk.commit([put(records.run_key(run.number), run.record)], use_ballast=True)

    def stop_all(self) -> None:
        """STOP with runs active ends them first; one that is starting, once it is active."""
        self.stopping = True
        for run in list(self.live.values()):
            if run.outcome is None and run.record.state in (RunState.ACTIVE, RunState.PAUSED):
                self._begin_ending(run, None)
            elif run.record.state is RunState.STARTING:
                for writer in run.writers.values():
                    writer.use_ballast()

    def _begin_ending(self, run: Run, asked: Asked | None) -> None:
        assert self._desk.record.init is not None
        run.record = msgspec.structs.replace(
            run.record,
            state=RUN.next(run.record.state, RunEvent.STOP),
            pending=[asked.pending] if asked else [],
        )
        run.since_ns = self._clock.wall_ns()
        self._desk.commit(
            [put(records.run_key(run.number), run.record)],
            use_ballast=True,
            then=lambda: self._drain(run),
        )

    def abort(self, number: RunNumber, reason: str, asked: Asked) -> None:
        """ABORT RUN: what is stored stays, what comes is refused."""
        live = self.live.get(number)
        if live is not None and live.outcome is RunState.ABORTED:
            self._join(live, asked)
            return
        run = self._get(number, RunEvent.ABORT)
        refusals = self._refusals_of(run, "the run was aborted")
        run.record = msgspec.structs.replace(
            run.record, pending=[asked.pending], abort_reason=reason or "ABORT RUN"
        )
        self._desk.commit(
            [put(records.run_key(run.number), run.record)],
            answers=refusals,
            use_ballast=True,
            then=lambda: self._finish(run, RunState.ABORTED, reason),
        )

    def _refusals_of(self, run: Run, text: str) -> list[tuple[Asked, Answer]]:
        """The commands that are being carried out on the run come to nothing. To be committed with
        what ends it: else a start that was refused would be made by the next boot."""
        return [(a, self._desk.error_answer(a, text, "run")) for a in self._asked_of(run)]

    def _asked_of(self, run: Run) -> list[Asked]:
        return self._desk.pending(run.record.pending)

    # --- what goes on by itself --------------------------------------------------------------

    def _make_run(
        self, record: RunRecord, streams: Sequence[tuple[StreamRecord, Sequence[Part]]]
    ) -> Run:
        writers = {
            StreamName(stream.stream): self._writers.make_writer(
                record.streams[stream.stream],
                stream,
                parts,
                run_started_ns=record.started_ns,
                streams=tuple(record.streams),
            )
            for stream, parts in streams
        }
        run = Run(record, writers, set(writers), since_ns=self._clock.wall_ns())
        self.live[run.number] = run
        return run

    def _start_writers(self, run: Run) -> None:
        for name, writer in run.writers.items():
            try:
                self._writers.start_writer(writer)
            except NoThread as error:
                if run.record.state is not RunState.STARTING:
                    raise
                run.without_thread.add(name)
                self.writer_ready(writer.key, str(error))

    def writer_ready(self, key: StreamKey, problem: str) -> None:
        run = self.live.get(key.run)
        # Of a run that ends already, `waiting` are the writers that are not finished.
        if run is None or run.outcome is not None:
            return
        run.waiting.discard(key.stream)
        if problem:
            run.problems.append(f"stream {key.stream}: {problem}")
        if run.waiting or run.record.state is not RunState.STARTING:
            return
        if run.problems:
            self._finish(run, RunState.FAILED, "; ".join(run.problems))
            return
        asked = self._asked_of(run)
        run.record = msgspec.structs.replace(
            run.record, state=RUN.next(run.record.state, RunEvent.STARTED), pending=[]
        )
        run.since_ns = self._clock.wall_ns()
        log.info("run %d active: %s", run.number, ", ".join(run.record.streams))
        data = {"run": run.number, "streams": list(run.record.streams)}
        self._desk.commit(
            [put(records.run_key(run.number), run.record)],
            answers=[(each, self._desk.answer(each, data)) for each in asked],
            use_ballast=self.stopping,
            then=lambda: self._now_active(run),
        )

    def _now_active(self, run: Run) -> None:
        self.send_routes()
        if self.stopping and run.outcome is None:
            self._begin_ending(run, None)

    def _drain(self, run: Run) -> None:
        assert self._desk.record.init is not None
        assert self.events is not None
        run.drain_until_ns = self._clock.monotonic_ns() + int(
            self._desk.record.init.drain_seconds * 1e9
        )
        self.send_routes()
        self.events.drain(run.number)

    def drained(self, number: RunNumber) -> None:
        run = self.live.get(number)
        if run is not None and run.record.state is RunState.ENDING and run.outcome is None:
            self._finish(run, RunState.ENDED, "")

    def look_at_drains(self) -> None:
        now = self._clock.monotonic_ns()
        for run in list(self.live.values()):
            over = run.drain_until_ns and now >= run.drain_until_ns
            if over and run.record.state is RunState.ENDING and run.outcome is None:
                names = self.events.waited_for(run.number) if self.events else []
                reason = "drain time over, not heard from: " + (", ".join(names) or "nobody")
                log.warning("run %d: %s", run.number, reason)
                self._finish(run, RunState.ENDED, reason)

    def give_up_starting(self, why: str) -> None:
        """A directory hangs: COOR is not to wait for it. The run is over when it answers."""
        for run in list(self.live.values()):
            if run.record.state is RunState.STARTING and run.outcome is None:
                self._give_up(run, f"{why}, and run {run.number} ends when it does")

    def _give_up(self, run: Run, text: str) -> None:
        log.error("run %d cannot be started: %s", run.number, text)
        refusals = self._refusals_of(run, text)
        run.record = msgspec.structs.replace(run.record, pending=[], abort_reason=text)
        self._desk.commit(
            [put(records.run_key(run.number), run.record)],
            answers=refusals,
            use_ballast=True,
            then=lambda: self._finish(run, RunState.ABORTED, text),
        )

    def _finish(self, run: Run, state: RunState, reason: str) -> None:
        """Nothing goes to the run's writers any more; then they store what they have, and close."""
        run.going_to, run.reason = state, reason
        run.waiting = set(run.writers) - run.without_thread
        how = Ending.ABORT if state is RunState.ABORTED else Ending.FINISH
        if run.record.state is RunState.STARTING and state is RunState.FAILED:
            how = Ending.DISCARD

        def applied() -> None:
            for name, writer in run.writers.items():
                if name not in run.without_thread:
                    writer.end(how)
            if not run.waiting:
                self._end(run)

        self.send_routes(applied)

    def writer_finished(self, key: StreamKey) -> None:
        if self.orphans is not None and key == self.orphans.key:
            self.orphans = None
            self._idle()
            return
        run = self.live.get(key.run)
        if run is None or run.going_to is None:
            return
        run.waiting.discard(key.stream)
        if not run.waiting:
            self._end(run)

    def _end(self, run: Run) -> None:
        """Every file of the run is settled: it enters the catalogue, with the answer."""
        assert run.going_to is not None
        state = run.going_to
        events = {
            RunState.ENDED: RunEvent.DRAINED,
            RunState.ABORTED: RunEvent.ABORT,
            RunState.FAILED: RunEvent.START_FAILED,
        }
        RUN.next(run.record.state, events[state])
        del self.live[run.number]
        self._finished[run.number] = state
        if len(self._finished) > FINISHED_KEPT:
            del self._finished[next(iter(self._finished))]
        if self.stopping:
            self.stopped.append(run.number)
        if not self.live:
            # Also where STOP follows at once: a crash in between must not find it RUNNING.
            self._desk.become(LoggerEvent.LAST_RUN_OVER)
            if self.orphans is not None and not self.stopping:
                self.orphans.seal()
        ended = EndedRunRecord(
            run=run.number,
            state=state,
            started_ns=run.record.started_ns,
            ended_ns=self._clock.wall_ns(),
            comment=run.record.comment,
            reason=run.reason or run.record.abort_reason,
            streams=run.record.streams,
        )
        answers = [(asked, self._answer_of_end(asked, run, state)) for asked in self._asked_of(run)]
        log.info("run %d %s", run.number, state)
        self._desk.commit(
            [],
            make=lambda c: c.end_run(ended),
            answers=answers,
            use_ballast=True,
            then=self._idle,
        )

    def _answer_of_end(self, asked: Asked, run: Run, state: RunState) -> Answer:
        if state is RunState.FAILED:
            text = f"run {run.number} could not be started: {run.reason}"
            return self._desk.error_answer(asked, text, "run")
        data: dict[str, Any] = {"run": run.number, "state": str(state)}
        if run.reason:
            data["reason"] = run.reason
        if left := self.not_closed([run.number]):
            data["not_closed"] = left
        return self._desk.answer(asked, data)

    def not_closed(self, runs: Sequence[RunNumber]) -> list[str]:
        """The files of runs that are over which are not closed, each with the reason, for people.
        The housekeeper goes on with them."""
        found = []
        for run in runs:
            for key, value in self._journal.scan(records.run_files(run, records.FILES)):
                record = records.decode_record(key, value, FileRecord)
                found.append(f"{record.path}: {record.reason or record.state}")
        more = len(found) - NOT_CLOSED_TOLD_MAX
        return found if more <= 0 else [*found[:NOT_CLOSED_TOLD_MAX], f"and {more} more"]

    def send_routes(self, applied: Callable[[], None] | None = None) -> None:
        if self.events is None:
            if applied is not None:
                applied()
            return
        going = {n: r.going_to for n, r in self.live.items() if r.going_to is not None}
        routes = Routes(
            MappingProxyType(
                {
                    number: RunRoute(run.record.state, MappingProxyType(dict(run.writers)))
                    for number, run in self.live.items()
                    if number not in going
                }
            ),
            MappingProxyType({**self._finished, **going}),
            self.orphans,
            self._waiting(),
        )
        self.events.routes(routes, (lambda: self._post(applied)) if applied is not None else None)

    # --- restart and end ---------------------------------------------------------------------

    def resume(
        self,
        runs: Sequence[tuple[RunRecord, Sequence[tuple[StreamRecord, Sequence[Part]]]]],
    ) -> None:
        """The live runs of the journal, as the restart settled their parts."""
        for record, streams in runs:
            self._make_run(record, streams)
            for pending in record.pending:
                self._desk.resume(pending, _pending_command(record))

    def go_on(self) -> None:
        """Behind `resume`, once the event server runs."""
        # What is active comes first; a run that is still starting may find too little left, and
        # then it has failed.
        for run in sorted(self.live.values(), key=lambda r: r.record.state is RunState.STARTING):
            self._start_writers(run)
            if run.record.abort_reason:
                self._finish(run, RunState.ABORTED, run.record.abort_reason)
            elif run.record.state is RunState.ENDING:
                self._drain(run)

    def nudge(self) -> None:
        """There is space again."""
        for writer in self.writers():
            writer.nudge()

    def give_back(self) -> None:
        """Space is short: quiet streams give back what they have reserved ahead."""
        for writer in self.writers():
            writer.give_back()

    def settle(self) -> None:
        """SIGTERM: what was taken is stored where that can be; the runs stay active."""
        for writer in self.writers():
            writer.end(Ending.SETTLE)

    def writers(self) -> list[StreamWriter]:
        """All of them, the orphans' too."""
        found = [w for run in self.live.values() for w in run.writers.values()]
        return found + ([self.orphans] if self.orphans is not None else [])


def _has_run(directory: Directory, number: RunNumber) -> bool:
    """Raises `StorageError`, also where there is no directory to look into."""
    directory.space()
    return bool(directory.names(f"runs/{number}"))


def _pending_command(record: RunRecord) -> str:
    if record.abort_reason:
        return "ABORT RUN"
    return "START RUN" if record.state is RunState.STARTING else "STOP RUN"
