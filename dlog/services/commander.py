"""The commander: carries out COOR's commands, by the logger's table.

One thread drives it. It commits each change with its answer and acts after the commit. Runs are
brought through their states by services/runs.py, commands and answers kept by
services/command_desk.py.
"""

from __future__ import annotations

import logging
import queue
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from dlog.core import journal_records as records
from dlog.core.alarm_kinds import KINDS, chosen, kind_of
from dlog.core.journal_records import (
    AcknowledgedRecord,
    LoggerRecord,
    RunRecord,
    StreamRecord,
)
from dlog.core.states import LOGGER, LoggerEvent, LoggerState, RunEvent
from dlog.errors import CommandRefused, ConfigurationError, Error, Failure, TransitionRefused
from dlog.model.config import InitConfig, parse_init, parse_streams
from dlog.model.ids import NO_RUN, RunNumber, StreamKey, valid_run_number
from dlog.model.messages import Command, Identification, Request, encode_json
from dlog.model.status import CommandStatus, DiskStatus
from dlog.ports import Clock, CoorLink, Directory, Journal, Severity
from dlog.services.alarms import AlarmBoard
from dlog.services.command_desk import ITSELF, Asked, Desk, Refusal, put
from dlog.services.committer import Committer
from dlog.services.event_server import EventServer
from dlog.services.parts import Part
from dlog.services.runs import Run, Runs, Writers
from dlog.services.space_watch import DirectoryWatch, SpaceWatch
from dlog.services.stream_thread import Ending, StreamWriter

log = logging.getLogger("dlog.commander")

TICK_MS: Final = 100
GIVE_BACK_NS: Final = 5_000_000_000  # a stream to which nothing came for so long is quiet
LEVELS: Final = ("debug", "info", "warning", "error")


class Machinery(Writers, Protocol):
    """What the composition root does for the commander: threads, sockets, logging."""

    def open_events(self, init: InitConfig, address: str) -> str:
        """Bind the event server's port (kept where it is bound already); the bound address. Raises
        `Error` where that cannot be; then what was bound before still is."""
        ...

    def start_events(self) -> EventServer:
        """The event server of the port that was bound last, running."""
        ...

    def notices(self, init: InitConfig) -> None:
        """Start the clients of alarm server and monitor at their addresses."""
        ...

    def keep_free(self, low_water_bytes: int) -> None:
        """No reservation ahead takes a disk below that."""
        ...

    def set_debug(self, level: str) -> None: ...

    def address_changed(self, event_address: str) -> None:
        """Tell the command line where the sources send to."""
        ...


class Commander:
    """Call `handle`, `step` and `work` from its own thread; `post` from any."""

    def __init__(
        self,
        *,
        name: str,
        uuid: bytes,
        boot: int,
        host: str,
        process: int,
        link: CoorLink,
        machinery: Machinery,
        journal: Journal,
        committer: Committer,
        directories: Sequence[Directory],
        clock: Clock,
        alarms: AlarmBoard,
        status: Callable[[Commander], dict[str, Any]],
    ) -> None:
        self.name = name
        self.uuid = uuid
        self.boot = boot
        self._host = host
        self._process = process
        self._link = link
        self._machinery = machinery
        self._committer = committer
        self._directories = directories
        self._alarms = alarms
        self._clock = clock
        self._status = status
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._desk = Desk(link, journal, committer, clock, self.post)
        self._space = SpaceWatch(directories, clock, journal)
        self._runs = Runs(
            self._desk,
            machinery,
            journal,
            directories,
            self._space.watches,
            clock,
            self.post,
            idle=self._stop_when_idle,
            waiting=self._why_waiting,
        )
        self._stop: list[Asked] = []  # each STOP that waits for the end
        self._short = False
        self._give_back_ns = 0  # when streams are asked next for what they have reserved
        self._waiting = ""  # what the routes say
        self._hung: set[str] = set()  # directories with an alarm
        self._failing: set[str] = set()  # directories with another alarm
        self.over = False

    # --- what the status tells ---------------------------------------------------------------

    @property
    def record(self) -> LoggerRecord:
        return self._desk.record

    @property
    def since_ns(self) -> int:
        return self._desk.since_ns

    @property
    def runs(self) -> Mapping[RunNumber, Run]:
        return self._runs.live

    @property
    def orphans(self) -> StreamWriter | None:
        return self._runs.orphans

    @property
    def events(self) -> EventServer | None:
        return self._runs.events

    @property
    def disks(self) -> list[DiskStatus]:
        return self._space.disks

    @property
    def journal_bytes(self) -> int:
        return self._space.journal_bytes

    @property
    def watches(self) -> Sequence[DirectoryWatch]:
        """Each to be run in a thread of its own."""
        return self._space.watches

    @property
    def last_commands(self) -> deque[CommandStatus]:
        return self._desk.last

    def identification(self) -> Identification:
        """For COOR; from any thread."""
        return Identification(
            name=self.name,
            uuid=self.uuid.hex(),
            host=self._host,
            process=self._process,
            boot=self.boot,
            state=str(self.record.state),
            runs={str(int(n)): str(r.record.state) for n, r in list(self.runs.items())},
        )

    # --- from any thread ---------------------------------------------------------------------

    def post(self, action: Callable[[], None]) -> None:
        self._inbox.put(action)
        self._link.wake()

    def fail(self, error: BaseException) -> None:
        """A thread died: the logger cannot go on."""

        def fail() -> None:
            self._desk.send_refusals()
            raise error

        self.post(fail)

    def writer_ready(self, key: StreamKey, problem: str) -> None:
        self.post(lambda: self._runs.writer_ready(key, problem))

    def writer_finished(self, key: StreamKey) -> None:
        self.post(lambda: self._runs.writer_finished(key))

    def drained(self, run: RunNumber) -> None:
        self.post(lambda: self._runs.drained(run))

    # --- its own thread ----------------------------------------------------------------------

    def step(self, timeout_ms: int = 0) -> None:
        """What has come and what is due. Raises what makes the logger fail."""
        for peer, text in self._link.receive(timeout_ms):
            self.handle(peer, text)
        self.work()

    def work(self) -> None:
        while True:
            try:
                action = self._inbox.get_nowait()
            except queue.Empty:
                break
            action()
        self._desk.send_refusals_of_full_journal()
        self._runs.look_at_drains()
        if self._space.look(self.record.init):
            self._look_at_space()
            self._look_at_directories()

    # --- commands ----------------------------------------------------------------------------

    def command_itself(self, command: Command) -> None:
        """A command that the logger gives itself (`--auto`); `step` raises `Error` if refused."""
        self.handle(ITSELF, encode_json(command))

    def handle(self, peer: bytes, text: bytes) -> None:
        """One command of a COOR. A wrong one is answered with what is wrong and changes nothing."""
        command = self._desk.take(peer, text)
        if command is None:
            return
        if command.command == "STATUS":
            # It changes nothing, so it is not recorded: the answer is always of now.
            self._desk.reply(peer, command, self._status(self))
            return
        asked = self._desk.open(peer, command)
        if asked is not None:
            self._carry_out(asked, command)

    def _carry_out(self, asked: Asked, command: Command) -> None:
        log.info("%s: %s %s", asked.id, command.command, command.parameters)
        handlers: Mapping[str, Callable[[Asked, Command], None]] = {
            "INIT": self._init,
            "CONFIGURE": self._configure,
            "START RUN": self._start_run,
            "PAUSE RUN": lambda a, c: self._runs.change(_run_number(c), RunEvent.PAUSE, a),
            "RESUME RUN": lambda a, c: self._runs.change(_run_number(c), RunEvent.RESUME, a),
            "STOP RUN": lambda a, c: self._runs.stop(_run_number(c), a),
            "ABORT RUN": self._abort_run,
            "SET DEBUG": self._set_debug,
            "ACKNOWLEDGE ALARM": self._acknowledge_alarm,
            "STOP": self._stop_logger,
        }
        try:
            handler = handlers.get(command.command)
            if handler is None:
                known = ", ".join([*handlers, "STATUS"])
                raise Refusal(
                    f"{command.command!r} is not a command; there are {known}", "unknown-command"
                )
            handler(asked, command)
        except TransitionRefused as error:
            # What COOR can say: its tables also hold what happens by itself.
            said = [event for event in error.accepts if event in handlers]
            told = TransitionRefused(error.machine, error.state, error.event, said)
            self._reject(asked, command, str(told), "transition", said)
        except ConfigurationError as error:
            self._reject(asked, command, str(error), "configuration")
        except Refusal as error:
            self._reject(asked, command, str(error), error.code)
        except Failure:
            raise
        except Error as error:
            self._reject(asked, command, str(error), "parameters")

    def _reject(
        self, asked: Asked, command: Command, text: str, code: str, accepts: Sequence[str] = ()
    ) -> None:
        log.warning("%s: %s refused: %s", asked.id, command.command, text)
        answer = self._desk.error_answer(command, text, code, list(accepts))
        self._desk.refuse(asked, answer)

    # --- INIT, CONFIGURE, SET DEBUG, STOP ----------------------------------------------------

    def _init(self, asked: Asked, command: Command) -> None:
        LOGGER.next(self.record.state, LoggerEvent.INIT)
        problems: list[str] = []
        init = parse_init(command.parameters, problems)
        if problems:
            raise ConfigurationError(problems)
        address = self._machinery.open_events(init, self._address_to_bind(init))
        self._desk.become(LoggerEvent.INIT, init=init, event_address=address)
        answer = self._desk.answer(asked, {"event_address": address})

        def act() -> None:
            self._activate(init)

        self._desk.commit([], answers=[(asked, answer)], then=act)

    def _address_to_bind(self, init: InitConfig) -> str:
        """The port that was taken once is kept, so that the sources find us again."""
        before = self.record.init
        if before is not None and before.event_address == init.event_address:
            return self.record.event_address
        return init.event_address

    def _activate(self, init: InitConfig) -> None:
        """What INIT's parameters ask for, from now on."""
        bound = self._bind(init)
        if bound != self.record.event_address:
            self._desk.record = msgspec.structs.replace(self.record, event_address=bound)
            self._desk.commit([])
        self._machinery.set_debug(init.debug_level)
        self._machinery.notices(init)
        self._machinery.keep_free(init.low_water_bytes)
        self._runs.events = self._machinery.start_events()
        self._machinery.address_changed(self.record.event_address)
        self._runs.send_routes()

    def _bind(self, init: InitConfig) -> str:
        """Bind the address that was bound before. A free port that the system chose may be another
        program's by now: then another one is taken. A port that INIT names is never exchanged."""
        # A rebuilt journal does not know the address that was bound: INIT's is what is left.
        kept = self.record.event_address or init.event_address
        try:
            return self._machinery.open_events(init, kept)
        except Error as error:
            if not init.event_address.endswith(":*") or kept == init.event_address:
                raise
            bound = self._machinery.open_events(init, init.event_address)
            text = (
                f"the event server listens at {bound}, since its port was taken ({error}). Sources "
                "that were given the data directory find it; others must be given this address"
            )
            self._alarms.raise_alarm("event-address", Severity.WARNING, text)
            return bound

    def _configure(self, asked: Asked, command: Command) -> None:
        LOGGER.next(self.record.state, LoggerEvent.CONFIGURE)
        assert self.record.init is not None
        problems: list[str] = []
        table = command.parameters.get("streams", {})
        unknown = sorted(set(command.parameters) - {"streams"})
        problems += [f"{key}: unknown; CONFIGURE carries streams" for key in unknown]
        if not isinstance(table, Mapping):
            problems.append("streams: must be a table of streams")
            table = {}
        streams = parse_streams(table, self.record.init, problems)
        for name, stream in streams.items():
            problems += [
                f"streams.{name}.directories: there is no data directory {position}; there are "
                f"{len(self._directories)}, counted from 0"
                for position in stream.directories
                if not 0 <= position < len(self._directories)
            ]
        if not streams and not problems:
            problems.append("streams: at least one")
        if problems:
            raise ConfigurationError(problems)
        self._desk.become(LoggerEvent.CONFIGURE, streams=streams)
        self._desk.commit(
            [], answers=[(asked, self._desk.answer(asked, {"streams": list(streams)}))]
        )

    def _set_debug(self, asked: Asked, command: Command) -> None:
        if self.record.init is None:
            raise TransitionRefused(
                "logger", self.record.state, "SET DEBUG", LOGGER.accepts(self.record.state)
            )
        level = command.parameters.get("level")
        if level not in LEVELS:
            raise Refusal(
                f"level: must be one of {', '.join(LEVELS)} (it is {level!r})", "parameters"
            )
        init = msgspec.structs.replace(self.record.init, debug_level=level)
        self._desk.record = msgspec.structs.replace(self.record, init=init)
        self._desk.commit(
            [],
            answers=[(asked, self._desk.answer(asked))],
            then=lambda: self._machinery.set_debug(str(level)),
        )

    def _acknowledge_alarm(self, asked: Asked, command: Command) -> None:
        """In every state: an alarm may be raised before INIT."""
        name, subject = _text(command, "name"), _text(command, "subject")
        try:
            alarms = chosen(self._alarms.raised(), name, subject)
        except CommandRefused as error:
            raise Refusal(str(error), "alarm") from error
        names = [alarm.name for alarm in alarms]
        for_good = [alarm for alarm in alarms if KINDS[kind_of(alarm.name)].found_again]
        now_ns = self._clock.wall_ns()
        kept = [
            put(
                records.acknowledged_key(alarm.name),
                AcknowledgedRecord(name=alarm.name, text=alarm.text, acknowledged_ns=now_ns),
            )
            for alarm in for_good
        ]

        def act() -> None:
            self._alarms.acknowledge(alarms, for_good=[alarm.name for alarm in for_good])

        answer = self._desk.answer(asked, {"alarms": names})
        self._desk.commit(kept, answers=[(asked, answer)], then=act)

    def _stop_logger(self, asked: Asked, command: Command) -> None:
        """Runs that are active are ended first; the answer comes when all is closed."""
        if self.record.state is LoggerState.STOPPED:  # its commit is on its way
            self._desk.commit([], answers=[(asked, self._desk.answer(asked))], use_ballast=True)
            return
        LOGGER.next(self.record.state, LoggerEvent.STOP)
        self._stop.append(asked)
        if len(self._stop) > 1:
            return  # it is answered with the first one
        self._runs.stop_all()
        self._stop_when_idle()

    def _stop_when_idle(self) -> None:
        if not self._stop or self.runs:
            return
        if self.orphans is not None:
            self.orphans.end(Ending.FINISH)
            return
        stops, self._stop = self._stop, []
        self._desk.become(LoggerEvent.STOP)

        def act() -> None:
            self.over = True

        left = self._runs.not_closed([*self._runs.stopped, NO_RUN])
        data = {"not_closed": left} if left else {}
        answers = [(asked, self._desk.answer(asked, data)) for asked in stops]
        self._desk.commit([], answers=answers, use_ballast=True, then=act)

    def _start_run(self, asked: Asked, command: Command) -> None:
        LOGGER.next(self.record.state, LoggerEvent.START_RUN)
        if self._stop:
            raise Refusal("STOP is being carried out", "transition")
        hung = self._space.hung()
        if hung:
            # To look there whether the number is taken would hold up every other command.
            raise Refusal(f"{', '.join(hung)}: the directory does not answer", "run")
        self._runs.start(_run_number(command), _text(command, "comment"), asked)

    def _abort_run(self, asked: Asked, command: Command) -> None:
        self._runs.abort(_run_number(command), _text(command, "reason"), asked)

    # --- space -------------------------------------------------------------------------------

    def _why_waiting(self) -> str:
        """For the routes that are sent now."""
        self._waiting = self._reason_to_wait()
        return self._waiting

    def _reason_to_wait(self) -> str:
        if self._committer.full_since_ns is not None:
            return "the journal is full"
        return "a disk is below its low-water mark" if self._space.low else ""

    def _look_at_directories(self) -> None:
        """Tell of those that do not answer, and of what is wrong with the journal's files."""
        hung = self._space.hung()
        for name, seconds in hung.items():
            text = f"{name} has not answered for {seconds} s; what is written there waits"
            if name not in self._hung:
                self._alarms.raise_alarm(f"hung {name}", Severity.ERROR, text)
        if hung:
            self._runs.give_up_starting(f"{', '.join(hung)}: the directory does not answer")
        for name in self._hung - set(hung):
            self._alarms.clear_alarm(f"hung {name}")
        self._hung = set(hung)
        self._look_at_failing_directories()
        self._alarms.show("journal-lock", Severity.WARNING, self._space.journal_problem)

    def _look_at_failing_directories(self) -> None:
        """Tell of those that went away since the start. What the start found keeps its alarm."""
        failing = self._space.failing()
        raised = {alarm.name for alarm in self._alarms.raised()} if failing else set()
        for name, problem in failing.items():
            if name not in self._failing and f"directory {name}" not in raised:
                text = f"it cannot be reached: {problem}; streams go on in other directories"
                self._alarms.raise_alarm(f"directory {name}", Severity.ERROR, text)
                self._failing.add(name)
        for name in self._failing - set(failing):
            self._alarms.clear_alarm(f"directory {name}")
            self._failing.discard(name)

    def _look_at_space(self) -> None:
        """Below the low-water mark: alarm, ask COOR to pause, no more credit. Then by itself on."""
        full = self._committer.full_since_ns is not None
        no_space = "the journal finds no space" if full else ""
        self._alarms.show("journal-full", Severity.ERROR, no_space)
        if self._space.is_short:
            self._give_back()
        low = [f"{disk.path} is below its low-water mark" for disk in self._space.low]
        text = "; ".join(low) or ("the journal is full" if full else "")
        self._alarms.show("disk-low", Severity.ERROR, text)
        short = bool(text)
        if short == self._short:
            if self._reason_to_wait() != self._waiting:
                # The routes were sent while the journal was full for a moment between two looks.
                self._runs.send_routes()
            return
        self._short = short
        if short:
            self._ask_coor("pause", text)
        else:
            self._runs.nudge()
            self._ask_coor("resume", "space is back")
        self._runs.send_routes()

    def _ask_coor(self, request: str, reason: str) -> None:
        log.warning("%s: asking COOR to %s", reason, request)
        runs = [int(number) for number in self.runs]
        self._link.tell(
            encode_json(Request(name=self.name, request=request, runs=runs, reason=reason))
        )

    def _give_back(self) -> None:
        """What quiet streams have reserved ahead is for others, before the sources must wait."""
        now_ns = self._clock.monotonic_ns()
        if now_ns >= self._give_back_ns:
            self._give_back_ns = now_ns + GIVE_BACK_NS
            self._runs.give_back()

    # --- restart and end ---------------------------------------------------------------------

    def resume(
        self,
        record: LoggerRecord,
        runs: Sequence[tuple[RunRecord, Sequence[tuple[StreamRecord, Sequence[Part]]]]],
        orphans: StreamWriter | None,
    ) -> None:
        """Go on with the state of the journal; before anything else."""
        self._desk.record = record
        self._runs.orphans = orphans
        self._runs.resume(runs)
        if record.init is not None:
            self._activate(record.init)
        self._runs.go_on()

    def settle(self) -> None:
        """SIGTERM: what was taken is stored where that can be; the runs stay active."""
        self._runs.settle()


def _run_number(command: Command) -> RunNumber:
    number = command.parameters.get("run")
    if not isinstance(number, int) or isinstance(number, bool) or not valid_run_number(number):
        raise Refusal(
            f"run: must be a number from 1 to 4294967295 (it is {number!r})", "parameters"
        )
    return RunNumber(number)


def _text(command: Command, key: str) -> str:
    text = command.parameters.get(key, "")
    if not isinstance(text, str) or len(text) > 1000:
        raise Refusal(f"{key}: must be a text of at most 1000 letters", "parameters")
    return text
