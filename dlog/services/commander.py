"""The commander: carries out COOR's commands and brings the runs through their states.

One thread drives it. It decides by the tables of core/states.py, commits each change with its
answer, and acts after the commit. It waits for no stream and no source: what takes time goes on
while other commands are carried out.
"""

from __future__ import annotations

import logging
import queue
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

import msgspec
from crc32c import crc32c

from dlog.core import journal_records as records
from dlog.core.journal_records import (
    CommandRecord,
    EndedRunRecord,
    LoggerRecord,
    Pending,
    RunRecord,
    StreamRecord,
)
from dlog.core.states import (
    LOGGER,
    RUN,
    LoggerEvent,
    LoggerState,
    RunEvent,
    RunState,
)
from dlog.errors import (
    CommandRefused,
    ConfigurationError,
    Error,
    Failure,
    MessageError,
    TransitionRefused,
)
from dlog.limits import COMMANDS_KEPT_MAX, RUNS_ACTIVE_MAX
from dlog.model.config import InitConfig, StreamConfig, parse_init, parse_streams
from dlog.model.ids import (
    CommandId,
    RunNumber,
    StreamKey,
    StreamName,
    valid_run_number,
)
from dlog.model.messages import Answer, Command, Identification, Request, decode_json, encode_json
from dlog.model.status import CommandStatus, DiskStatus
from dlog.ports import Alarms, Change, Clock, CoorLink, Directory, Journal, Severity
from dlog.services.committer import Committer
from dlog.services.event_server import EventServer, Routes, RunRoute
from dlog.services.parts import Part
from dlog.services.stream_thread import Ending, StreamWriter

log = logging.getLogger("dlog.commander")

SPACE_INTERVAL_NS: Final = 1_000_000_000
TICK_MS: Final = 100
LAST_COMMANDS: Final = 20
ITSELF: Final = b""
FINISHED_KEPT: Final = 1000


class Machinery(Protocol):
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

    def make_writer(
        self,
        config: StreamConfig,
        stream: StreamRecord,
        parts: Sequence[Part],
        *,
        run_started_ns: int,
        streams: tuple[str, ...],
    ) -> StreamWriter: ...

    def start_writer(self, writer: StreamWriter) -> None: ...

    def set_debug(self, level: str) -> None: ...

    def address_changed(self, event_address: str) -> None:
        """Tell the command line where the sources send to."""
        ...


@dataclass(slots=True)
class _Run:
    """A live run. waiting: streams that are not ready yet, or not finished yet."""

    record: RunRecord
    writers: dict[StreamName, StreamWriter]
    waiting: set[StreamName] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    since_ns: int = 0
    drain_until_ns: int = 0
    going_to: RunState | None = None  # its writers finish; this is what it becomes
    reason: str = ""

    @property
    def number(self) -> RunNumber:
        return RunNumber(self.record.run)


@dataclass(slots=True)
class _Asked:
    """A command that is being carried out, and who waits for its answer."""

    id: CommandId
    command: str
    body_crc: int
    order: int
    peers: set[bytes]


class Commander:
    """Call `handle` and `work` from its own thread; `post` from any."""

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
        alarms: Alarms,
        status: Callable[[Commander], dict[str, Any]],
    ) -> None:
        self.name = name
        self.uuid = uuid
        self.boot = boot
        self._host = host
        self._process = process
        self._link = link
        self._machinery = machinery
        self._journal = journal
        self._committer = committer
        self._directories = directories
        self._clock = clock
        self._alarms = alarms
        self._status = status
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.record = LoggerRecord(state=LoggerState.PREINITIALIZED)
        self.since_ns = clock.wall_ns()
        self.runs: dict[RunNumber, _Run] = {}
        self._finished: dict[RunNumber, RunState] = {}  # the latest; the journal knows them all
        self.orphans: StreamWriter | None = None
        self.events: EventServer | None = None
        self.disks: list[DiskStatus] = []
        self.last_commands: deque[CommandStatus] = deque(maxlen=LAST_COMMANDS)
        self._asked: dict[CommandId, _Asked] = {}
        self._stop: _Asked | None = None
        self._low = False
        self._next_space_ns = 0
        self.over = False
        self.failure: BaseException | None = None

    # --- from any thread ---------------------------------------------------------------------

    def post(self, action: Callable[[], None]) -> None:
        self._inbox.put(action)
        self._link.wake()

    def fail(self, error: BaseException) -> None:
        """A thread died: the logger cannot go on."""

        def fail() -> None:
            raise error

        self.post(fail)

    def writer_ready(self, key: StreamKey, problem: str) -> None:
        self.post(lambda: self._writer_ready(key, problem))

    def writer_finished(self, key: StreamKey) -> None:
        self.post(lambda: self._writer_finished(key))

    def drained(self, run: RunNumber) -> None:
        self.post(lambda: self._drained(run))

    def identification(self) -> Identification:
        return Identification(
            name=self.name,
            uuid=self.uuid.hex(),
            host=self._host,
            process=self._process,
            boot=self.boot,
            state=str(self.record.state),
            runs={str(int(n)): str(r.record.state) for n, r in self.runs.items()},
        )

    # --- its own thread ----------------------------------------------------------------------

    def run(self) -> None:
        """Until STOP. Raises what makes the logger fail."""
        while not self.over:
            self.step(TICK_MS)

    def step(self, timeout_ms: int = 0) -> None:
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
        self._look_at_drains()
        if self._clock.monotonic_ns() >= self._next_space_ns:
            self._next_space_ns = self._clock.monotonic_ns() + SPACE_INTERVAL_NS
            self._look_at_space()

    # --- commands ----------------------------------------------------------------------------

    def command_itself(self, command: str, parameters: dict[str, Any], session: bytes) -> None:
        """A command that the logger gives itself (`--auto`); `step` raises `Error` if refused."""
        own = Command(
            session=session.hex(), number=len(self._asked), command=command, parameters=parameters
        )
        self.handle(ITSELF, encode_json(own))

    def handle(self, peer: bytes, text: bytes) -> None:
        """One command of a COOR. A wrong one is answered with what is wrong and changes nothing."""
        try:
            command = decode_json(text, Command)
            command_id = CommandId(_session_bytes(command), command.number)
        except MessageError as error:
            self._link.send(peer, encode_json(self._error_answer(None, str(error), "message")))
            return
        if command.command == "STATUS":
            # It changes nothing, so it is not recorded: the answer is always of now.
            self._link.send(peer, encode_json(self._answer(command, data=self._status(self))))
            return
        body_crc = crc32c(
            msgspec.json.encode([command.command, command.parameters], order="deterministic")
        )
        if self._is_repeated(peer, command, command_id, body_crc):
            return
        asked = _Asked(
            command_id, command.command, body_crc, self.record.next_command_order, {peer}
        )
        self.record = msgspec.structs.replace(
            self.record, next_command_order=self.record.next_command_order + 1
        )
        self._asked[command_id] = asked
        self._carry_out(asked, command)

    def _is_repeated(
        self, peer: bytes, command: Command, command_id: CommandId, body_crc: int
    ) -> bool:
        """A repeated id gets the recorded answer; with another body it is refused."""
        known_crc: int | None = None
        recorded: CommandRecord | None = None
        if (asked := self._asked.get(command_id)) is not None:
            known_crc = asked.body_crc
        else:
            key = records.command_key(command_id)
            value = self._journal.get(key)
            if value is not None:
                recorded = records.decode_record(key, value, CommandRecord)
                known_crc = recorded.body_crc
        if known_crc is None:
            return False
        if known_crc != body_crc:
            text = f"command {command_id} was given before with another body"
            answer = self._error_answer(command, text, "id-reused")
        elif recorded is not None:
            answer = msgspec.convert({**recorded.answer, "repeated": True}, Answer)
        else:
            assert asked is not None
            asked.peers.add(peer)
            return True
        self._link.send(peer, encode_json(answer))
        return True

    def _carry_out(self, asked: _Asked, command: Command) -> None:
        log.info("%s: %s %s", asked.id, command.command, command.parameters)
        handlers: Mapping[str, Callable[[_Asked, Command], None]] = {
            "INIT": self._init,
            "CONFIGURE": self._configure,
            "START RUN": self._start_run,
            "PAUSE RUN": self._pause_run,
            "RESUME RUN": self._resume_run,
            "STOP RUN": self._stop_run,
            "ABORT RUN": self._abort_run,
            "SET DEBUG": self._set_debug,
            "STOP": self._stop_logger,
        }
        try:
            handler = handlers.get(command.command)
            if handler is None:
                known = ", ".join([*handlers, "STATUS"])
                raise _Refusal(
                    f"{command.command!r} is not a command; there are {known}", "unknown-command"
                )
            handler(asked, command)
        except TransitionRefused as error:
            self._reject(asked, command, str(error), "transition", error.accepts)
        except ConfigurationError as error:
            self._reject(asked, command, str(error), "configuration")
        except _Refusal as error:
            self._reject(asked, command, str(error), error.code)
        except Failure:
            raise
        except Error as error:
            self._reject(asked, command, str(error), "parameters")

    def _reject(
        self, asked: _Asked, command: Command, text: str, code: str, accepts: Sequence[str] = ()
    ) -> None:
        log.warning("%s: %s refused: %s", asked.id, command.command, text)
        answer = self._error_answer(command, text, code, list(accepts))
        self._commit([], answer=(asked, answer))

    def _answer(self, command: Command | _Asked, *, data: dict[str, Any] | None = None) -> Answer:
        session, number = _identity(command)
        return Answer(
            session=session,
            number=number,
            command=command.command,
            ok=True,
            state=str(self.record.state),
            data=data or {},
        )

    def _error_answer(
        self,
        command: Command | _Asked | None,
        text: str,
        code: str,
        accepts: list[str] | None = None,
    ) -> Answer:
        session, number = _identity(command) if command is not None else ("", 0)
        return Answer(
            session=session,
            number=number,
            command=command.command if command else "",
            ok=False,
            state=str(self.record.state),
            error=text,
            code=code,
            accepts=accepts or [],
        )

    def _commit(
        self,
        changes: Sequence[Change],
        *,
        answer: tuple[_Asked, Answer] | None = None,
        use_ballast: bool = False,
        make: Callable[[Committer], Sequence[Change]] | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Commit changes with the answer to their command; act (`then`) and answer behind it.

        The logger's own record goes with every commit: it holds the number of the next command.
        """
        told: list[Change] = [_put(records.LOGGER, self.record)]
        if answer is not None:
            told += self._answer_changes(*answer)

        def acted() -> None:
            if then is not None:
                then()
            if answer is not None:
                self._tell(*answer)

        self._committer.submit_made(
            lambda c: [*changes, *(make(c) if make else ()), *told],
            use_ballast=use_ballast,
            then=lambda: self.post(acted),
        )

    def _answer_changes(self, asked: _Asked, answer: Answer) -> list[Change]:
        record = CommandRecord(
            order=asked.order,
            body_crc=asked.body_crc,
            command=asked.command,
            answer=dict(msgspec.to_builtins(answer)),
            answered_ns=self._clock.wall_ns(),
        )
        order_key = records.command_order_key(asked.order)
        key = records.command_key(asked.id)
        changes: list[Change] = [_put(key, record), (order_key, key)]
        oldest = records.command_order_key(asked.order - COMMANDS_KEPT_MAX)
        forgotten = self._journal.get(oldest) if asked.order > COMMANDS_KEPT_MAX else None
        if forgotten is not None:
            changes += [(forgotten, None), (oldest, None)]
        return changes

    def _tell(self, asked: _Asked, answer: Answer) -> None:
        self._asked.pop(asked.id, None)
        self.last_commands.append(
            CommandStatus(
                id=str(asked.id),
                command=asked.command,
                ok=answer.ok,
                error=answer.error,
                time_ns=self._clock.wall_ns(),
            )
        )
        if ITSELF in asked.peers and not answer.ok:
            raise Error(f"{asked.command} refused: {answer.error}")
        for peer in asked.peers - {ITSELF}:
            self._link.send(peer, encode_json(answer))

    def _become(self, event: LoggerEvent, **fields: Any) -> None:
        state = LOGGER.next(self.record.state, event)
        if state is not self.record.state:
            self.since_ns = self._clock.wall_ns()
            log.info("logger %s", state)
        self.record = msgspec.structs.replace(self.record, state=state, **fields)

    # --- INIT, CONFIGURE, SET DEBUG, STOP ----------------------------------------------------

    def _init(self, asked: _Asked, command: Command) -> None:
        LOGGER.next(self.record.state, LoggerEvent.INIT)
        problems: list[str] = []
        init = parse_init(command.parameters, problems)
        if problems:
            raise ConfigurationError(problems)
        address = self._machinery.open_events(init, self._address_to_bind(init))
        self._become(LoggerEvent.INIT, init=init, event_address=address)
        answer = self._answer(asked, data={"event_address": address})

        def act() -> None:
            self._activate(init)

        self._commit([], answer=(asked, answer), then=act)

    def _address_to_bind(self, init: InitConfig) -> str:
        """The port that was taken once is kept, so that the sources find us again."""
        before = self.record.init
        if before is not None and before.event_address == init.event_address:
            return self.record.event_address
        return init.event_address

    def _activate(self, init: InitConfig) -> None:
        """What INIT's parameters ask for, from now on."""
        self._machinery.set_debug(init.debug_level)
        self._machinery.notices(init)
        self.events = self._machinery.start_events()
        self._machinery.address_changed(self.record.event_address)
        self._send_routes()

    def _configure(self, asked: _Asked, command: Command) -> None:
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
        self._become(LoggerEvent.CONFIGURE, streams=streams)
        self._commit([], answer=(asked, self._answer(asked, data={"streams": sorted(streams)})))

    def _set_debug(self, asked: _Asked, command: Command) -> None:
        if self.record.init is None:
            raise TransitionRefused(
                "logger", self.record.state, "SET DEBUG", LOGGER.accepts(self.record.state)
            )
        level = command.parameters.get("level")
        if level not in ("debug", "info", "warning", "error"):
            raise _Refusal(
                f"level: must be one of debug, info, warning, error (it is {level!r})", "parameters"
            )
        init = msgspec.structs.replace(self.record.init, debug_level=level)
        self.record = msgspec.structs.replace(self.record, init=init)
        self._commit(
            [],
            answer=(asked, self._answer(asked)),
            then=lambda: self._machinery.set_debug(str(level)),
        )

    def _stop_logger(self, asked: _Asked, command: Command) -> None:
        """Runs that are active are ended first; the answer comes when all is closed."""
        LOGGER.next(self.record.state, LoggerEvent.STOP)
        if self._stop is not None:
            raise _Refusal("STOP is being carried out already", "transition")
        self._stop = asked
        for run in list(self.runs.values()):
            if run.going_to is None and run.record.state in (RunState.ACTIVE, RunState.PAUSED):
                self._begin_ending(run, None)
        self._stop_when_idle()

    def _stop_when_idle(self) -> None:
        if self._stop is None or self.runs:
            return
        if self.orphans is not None:
            self.orphans.end(Ending.FINISH)
            return
        asked, self._stop = self._stop, None
        self._become(LoggerEvent.STOP)

        def act() -> None:
            self.over = True

        self._commit([], answer=(asked, self._answer(asked)), use_ballast=True, then=act)

    # --- runs: commands ----------------------------------------------------------------------

    def _start_run(self, asked: _Asked, command: Command) -> None:
        LOGGER.next(self.record.state, LoggerEvent.START_RUN)
        if self._stop is not None:
            raise _Refusal("STOP is being carried out", "transition")
        number = _run_number(command)
        comment = command.parameters.get("comment", "")
        if not isinstance(comment, str) or len(comment) > 1000:
            raise _Refusal("comment: must be a text of at most 1000 letters", "parameters")
        self._refuse_known_run(number)
        if len(self.runs) >= RUNS_ACTIVE_MAX:
            raise _Refusal(f"{RUNS_ACTIVE_MAX} runs are active", "run")
        record = RunRecord(
            run=number,
            state=RunState.STARTING,
            streams=self.record.streams,
            started_ns=self._clock.wall_ns(),
            comment=comment,
            pending=_pending(asked),
        )
        streams = [
            StreamRecord(run=number, stream=name, directory=(config.directories or (0,))[0])
            for name, config in record.streams.items()
        ]
        self._become(LoggerEvent.START_RUN)
        run = self._make_run(record, [(stream, []) for stream in streams])
        self._commit(
            [
                _put(records.run_key(number), record),
                *(
                    _put(records.stream_key(StreamKey(number, StreamName(s.stream))), s)
                    for s in streams
                ),
            ],
            then=lambda: self._start_writers(run),
        )

    def _refuse_known_run(self, number: RunNumber) -> None:
        if number in self.runs or self._journal.get(records.ended_run_key(number)) is not None:
            raise _Refusal(f"run {number} is in the journal already", "run")
        for directory in self._directories:
            if directory.exists(f"runs/{number}"):
                raise _Refusal(f"run {number} is on the disk already, in {directory.name}", "run")

    def _pause_run(self, asked: _Asked, command: Command) -> None:
        self._change_run(asked, command, RunEvent.PAUSE)

    def _resume_run(self, asked: _Asked, command: Command) -> None:
        self._change_run(asked, command, RunEvent.RESUME)

    def _change_run(self, asked: _Asked, command: Command, event: RunEvent) -> None:
        run = self._live_run(command, event)
        run.record = msgspec.structs.replace(run.record, state=RUN.next(run.record.state, event))
        run.since_ns = self._clock.wall_ns()
        self._commit(
            [_put(records.run_key(run.number), run.record)],
            answer=(asked, self._answer(asked, data={"run": run.number})),
            then=self._send_routes,
        )

    def _live_run(self, command: Command, event: RunEvent) -> _Run:
        number = _run_number(command)
        run = self.runs.get(number)
        if run is None:
            known = ", ".join(str(n) for n in sorted(self.runs)) or "none"
            raise _Refusal(f"run {number} is not active; active runs: {known}", "run")
        if run.going_to is not None and event is not RunEvent.ABORT:
            raise TransitionRefused("run", run.going_to, event, [])
        RUN.next(run.record.state, event)
        return run

    def _stop_run(self, asked: _Asked, command: Command) -> None:
        self._begin_ending(self._live_run(command, RunEvent.STOP), asked)

    def _begin_ending(self, run: _Run, asked: _Asked | None) -> None:
        assert self.record.init is not None
        run.record = msgspec.structs.replace(
            run.record,
            state=RUN.next(run.record.state, RunEvent.STOP),
            pending=_pending(asked) if asked else None,
        )
        run.since_ns = self._clock.wall_ns()
        self._commit(
            [_put(records.run_key(run.number), run.record)],
            use_ballast=True,
            then=lambda: self._drain(run),
        )

    def _abort_run(self, asked: _Asked, command: Command) -> None:
        run = self._live_run(command, RunEvent.ABORT)
        if run.going_to is not None:
            raise TransitionRefused("run", run.going_to, RunEvent.ABORT, [])
        reason = command.parameters.get("reason", "")
        if not isinstance(reason, str) or len(reason) > 1000:
            raise _Refusal("reason: must be a text of at most 1000 letters", "parameters")
        self._answer_pending(run, "the run was aborted")
        run.record = msgspec.structs.replace(
            run.record, pending=_pending(asked), abort_reason=reason or "ABORT RUN"
        )
        self._commit(
            [_put(records.run_key(run.number), run.record)],
            use_ballast=True,
            then=lambda: self._finish(run, RunState.ABORTED, reason),
        )

    def _answer_pending(self, run: _Run, text: str) -> None:
        """The command that was being carried out on the run comes to nothing."""
        asked = self._asked_of(run)
        if asked is not None:
            self._commit([], answer=(asked, self._error_answer(asked, text, "run")))

    def _asked_of(self, run: _Run) -> _Asked | None:
        pending = run.record.pending
        if pending is None:
            return None
        return self._asked.get(CommandId(pending.session, pending.number))

    # --- runs: what goes on by itself --------------------------------------------------------

    def _make_run(
        self, record: RunRecord, streams: Sequence[tuple[StreamRecord, Sequence[Part]]]
    ) -> _Run:
        writers = {
            StreamName(stream.stream): self._machinery.make_writer(
                record.streams[stream.stream],
                stream,
                parts,
                run_started_ns=record.started_ns,
                streams=tuple(record.streams),
            )
            for stream, parts in streams
        }
        run = _Run(record, writers, set(writers), since_ns=self._clock.wall_ns())
        self.runs[run.number] = run
        return run

    def _start_writers(self, run: _Run) -> None:
        for writer in run.writers.values():
            self._machinery.start_writer(writer)

    def _writer_ready(self, key: StreamKey, problem: str) -> None:
        run = self.runs.get(key.run)
        if run is None:
            return
        run.waiting.discard(key.stream)
        if problem:
            run.problems.append(f"stream {key.stream}: {problem}")
        if run.waiting or run.record.state is not RunState.STARTING or run.going_to is not None:
            return
        if run.problems:
            self._finish(run, RunState.FAILED, "; ".join(run.problems))
            return
        asked = self._asked_of(run)
        run.record = msgspec.structs.replace(
            run.record, state=RUN.next(run.record.state, RunEvent.STARTED), pending=None
        )
        run.since_ns = self._clock.wall_ns()
        log.info("run %d active: %s", run.number, ", ".join(run.writers))
        data = {"run": run.number, "streams": sorted(run.writers)}
        self._commit(
            [_put(records.run_key(run.number), run.record)],
            answer=(asked, self._answer(asked, data=data)) if asked else None,
            then=lambda: self._now_active(run),
        )

    def _now_active(self, run: _Run) -> None:
        self._send_routes()
        if self._stop is not None and run.going_to is None:
            self._begin_ending(run, None)

    def _drain(self, run: _Run) -> None:
        assert self.record.init is not None
        assert self.events is not None
        run.drain_until_ns = self._clock.monotonic_ns() + int(self.record.init.drain_seconds * 1e9)
        self._send_routes()
        self.events.drain(run.number)

    def _drained(self, number: RunNumber) -> None:
        run = self.runs.get(number)
        if run is not None and run.record.state is RunState.ENDING and run.going_to is None:
            self._finish(run, RunState.ENDED, "")

    def _look_at_drains(self) -> None:
        now = self._clock.monotonic_ns()
        for run in list(self.runs.values()):
            over = run.drain_until_ns and now >= run.drain_until_ns
            if over and run.record.state is RunState.ENDING and run.going_to is None:
                names = self.events.waited_for(run.number) if self.events else []
                reason = "drain time over, not heard from: " + (", ".join(names) or "nobody")
                log.warning("run %d: %s", run.number, reason)
                self._finish(run, RunState.ENDED, reason)

    def _finish(self, run: _Run, state: RunState, reason: str) -> None:
        """Nothing goes to the run's writers any more; then they store what they have, and close."""
        run.going_to, run.reason = state, reason
        run.waiting = set(run.writers)
        how = Ending.ABORT if state is RunState.ABORTED else Ending.FINISH

        def applied() -> None:
            for writer in run.writers.values():
                writer.end(how)

        self._send_routes(applied)

    def _writer_finished(self, key: StreamKey) -> None:
        if self.orphans is not None and key == self.orphans.key:
            self.orphans = None
            self._stop_when_idle()
            return
        run = self.runs.get(key.run)
        if run is None or run.going_to is None:
            return
        run.waiting.discard(key.stream)
        if not run.waiting:
            self._end(run)

    def _end(self, run: _Run) -> None:
        """Every file of the run is settled: it enters the catalogue, with the answer."""
        assert run.going_to is not None
        state = run.going_to
        events = {
            RunState.ENDED: RunEvent.DRAINED,
            RunState.ABORTED: RunEvent.ABORT,
            RunState.FAILED: RunEvent.START_FAILED,
        }
        RUN.next(run.record.state, events[state])
        del self.runs[run.number]
        self._finished[run.number] = state
        if len(self._finished) > FINISHED_KEPT:
            del self._finished[next(iter(self._finished))]
        if not self.runs and self._stop is None:
            self._become(LoggerEvent.LAST_RUN_OVER)
            if self.orphans is not None:
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
        asked = self._asked_of(run)
        answer = None
        if asked is not None and state is RunState.FAILED:
            text = f"run {run.number} could not be started: {run.reason}"
            answer = (asked, self._error_answer(asked, text, "run"))
        elif asked is not None:
            data: dict[str, Any] = {"run": run.number, "state": str(state)}
            if run.reason:
                data["reason"] = run.reason
            answer = (asked, self._answer(asked, data=data))
        log.info("run %d %s", run.number, state)
        self._commit(
            [],
            make=lambda c: c.end_run(ended),
            answer=answer,
            use_ballast=True,
            then=self._stop_when_idle,
        )

    def _send_routes(self, applied: Callable[[], None] | None = None) -> None:
        if self.events is None:
            if applied is not None:
                applied()
            return
        going = {n: r.going_to for n, r in self.runs.items() if r.going_to is not None}
        routes = Routes(
            MappingProxyType(
                {
                    number: RunRoute(run.record.state, MappingProxyType(dict(run.writers)))
                    for number, run in self.runs.items()
                    if number not in going
                }
            ),
            MappingProxyType({**self._finished, **going}),
            self.orphans,
            self._why_waiting(),
        )
        self.events.routes(routes, (lambda: self.post(applied)) if applied is not None else None)

    # --- space -------------------------------------------------------------------------------

    def _why_waiting(self) -> str:
        if self._committer.full_since_ns is not None:
            return "the journal is full"
        return "a disk is below its low-water mark" if self._low else ""

    def _look_at_space(self) -> None:
        """Below the low-water mark: alarm, ask COOR to pause, no more credit. Then by itself on."""
        init = self.record.init
        low_water = init.low_water_bytes if init else 0
        resume = init.resume_bytes if init else 0
        disks = []
        for before, directory in zip(
            self.disks or [DiskStatus()] * len(self._directories), self._directories, strict=True
        ):
            space = directory.space()
            low = space.free < (resume if before.low else low_water)
            disks.append(
                DiskStatus(
                    path=directory.name,
                    free_bytes=space.free,
                    total_bytes=space.total,
                    low_water_bytes=low_water,
                    low=low,
                )
            )
        self.disks = disks
        full = self._committer.full_since_ns is not None
        if full:
            self._alarms.raise_alarm("journal-full", Severity.ERROR, "the journal finds no space")
        else:
            self._alarms.clear_alarm("journal-full")
        low = any(disk.low for disk in disks) or full
        if low == self._low:
            return
        self._low = low
        runs = [int(n) for n in self.runs]
        if low:
            text = "; ".join(f"{d.path} has {d.free_bytes} B free" for d in disks if d.low)
            self._alarms.raise_alarm("disk-low", Severity.ERROR, text or "the journal is full")
            request = "pause"
        else:
            text, request = "space is back", "resume"
            self._alarms.clear_alarm("disk-low")
            for run in self.runs.values():
                for writer in run.writers.values():
                    writer.nudge()
        log.warning("%s: asking COOR to %s", text, request)
        self._link.tell(
            encode_json(Request(name=self.name, request=request, runs=runs, reason=text))
        )
        self._send_routes()

    # --- restart -----------------------------------------------------------------------------

    def resume(
        self,
        record: LoggerRecord,
        runs: Sequence[tuple[RunRecord, Sequence[tuple[StreamRecord, Sequence[Part]]]]],
        orphans: StreamWriter | None,
    ) -> None:
        """Go on with the state of the journal; before `run`."""
        self.record = record
        self.orphans = orphans
        for run_record, streams in runs:
            run = self._make_run(run_record, streams)
            if run_record.pending is not None:
                pending = run_record.pending
                command_id = CommandId(pending.session, pending.number)
                self._asked[command_id] = _Asked(
                    command_id,
                    _pending_command(run_record),
                    pending.body_crc,
                    pending.order,
                    set(),
                )
            run.waiting = set(run.writers)
        if record.init is not None:
            self._activate(record.init)
        for run in list(self.runs.values()):
            self._start_writers(run)
            if run.record.abort_reason:
                self._finish(run, RunState.ABORTED, run.record.abort_reason)
            elif run.record.state is RunState.ENDING:
                self._drain(run)

    def settle(self) -> None:
        """SIGTERM: what was taken is stored where that can be; the runs stay active."""
        for writer in self.writers():
            writer.end(Ending.SETTLE)

    def writers(self) -> list[StreamWriter]:
        found = [w for run in self.runs.values() for w in run.writers.values()]
        return found + ([self.orphans] if self.orphans is not None else [])


class _Refusal(CommandRefused):
    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


def _session_bytes(command: Command) -> bytes:
    try:
        session = bytes.fromhex(command.session)
    except ValueError as error:
        raise MessageError(
            "body", f"session {command.session[:80]!r} is not hexadecimal"
        ) from error
    if not 1 <= len(session) <= 32 or not 0 <= command.number < 2**64:
        raise MessageError("body", "a session has 1 to 32 bytes, a number 64 bits")
    return session


def _identity(command: Command | _Asked) -> tuple[str, int]:
    if isinstance(command, Command):
        return command.session, command.number
    return command.id.session.hex(), command.id.number


def _pending(asked: _Asked | None) -> Pending | None:
    if asked is None:
        return None
    return Pending(
        session=asked.id.session, number=asked.id.number, body_crc=asked.body_crc, order=asked.order
    )


def _pending_command(record: RunRecord) -> str:
    if record.abort_reason:
        return "ABORT RUN"
    return "START RUN" if record.state is RunState.STARTING else "STOP RUN"


def _run_number(command: Command) -> RunNumber:
    number = command.parameters.get("run")
    if not isinstance(number, int) or isinstance(number, bool) or not valid_run_number(number):
        raise _Refusal(
            f"run: must be a number from 1 to 4294967295 (it is {number!r})", "parameters"
        )
    return RunNumber(number)


def _put(key: bytes, record: Any) -> Change:
    return key, records.encode_record(key, record)
