"""The logger as one process: puts services and adapters together, starts the threads, ends them.

It decides nothing about events, runs or files. Only here do services and adapters meet.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import msgspec

from dlog.adapters.access import Access
from dlog.adapters.buffers import BufferPool
from dlog.adapters.clock import SystemClock
from dlog.adapters.coor_link import CoorSockets, control_address
from dlog.adapters.data_files import DataDirectory
from dlog.adapters.descriptors import allow_many, descriptors_left, require_descriptors
from dlog.adapters.directory_lock import DirectoryLock
from dlog.adapters.event_link import EventSocket
from dlog.adapters.freed_memory import keep_freed_memory
from dlog.adapters.journal import LmdbJournal
from dlog.adapters.logger_address import LOGGER_FILE
from dlog.adapters.logs import set_level, start_logging
from dlog.adapters.notice_links import NoticeLinks
from dlog.adapters.owners import owned, user_name
from dlog.adapters.patience import answered_within
from dlog.adapters.priority import run_before_others
from dlog.adapters.thread_names import show_thread_name
from dlog.adapters.whereabouts_file import WhereaboutsFile
from dlog.core import journal_records as records
from dlog.core.data_directory import (
    First,
    directories_in_use,
    first_directory,
    how_to_create,
)
from dlog.core.journal_records import (
    BootRecord,
    EndedRunRecord,
    FileRecord,
    JournalMeta,
    LoggerRecord,
    StreamRecord,
)
from dlog.core.record_rules import read_record
from dlog.core.run_files import PART_SUFFIX
from dlog.core.states import LoggerState, RunState
from dlog.creation import found_at, link_to_runs, refuse_dangling_link, refuse_no_text
from dlog.errors import (
    ConfigurationError,
    DataDirectoryGone,
    DlogError,
    Error,
    Failure,
    InvariantBroken,
    JournalFailed,
    JournalOutdated,
    JournalUnreadable,
    LockedByAnother,
    NoDescriptor,
    NothingToResume,
    NoThread,
    StorageError,
)
from dlog.limits import MEMORY_BYTES_DEFAULT, THREAD_SWITCH_SECONDS
from dlog.model.config import Configuration, InitConfig, StreamConfig
from dlog.model.ids import (
    BootNumber,
)
from dlog.model.messages import Command
from dlog.model.status import Whereabouts, status_data, within
from dlog.ports import Directory, Severity
from dlog.services.alarms import AlarmBoard, load_acknowledged
from dlog.services.commander import Commander
from dlog.services.committer import Committer
from dlog.services.data_directories import claim, open_further
from dlog.services.event_server import EventServer, Identity
from dlog.services.housekeeper import Housekeeper
from dlog.services.live_state import (
    ORPHAN_CONFIG,
    config_of_ended,
    directories_held,
    finished_run,
    live_runs,
    sessions,
    settle_live_state,
    watermarks,
)
from dlog.services.lost_files import LostFiles
from dlog.services.operations import Operations
from dlog.services.parts import Part, Storage, tell_away
from dlog.services.status import Facts, status_of
from dlog.services.stream_thread import StreamWriter

log = logging.getLogger("dlog.logger")

JOURNAL_FOLDER: Final = "journal"
FAILURE_WORDS_SECONDS: Final = 0.5
LAST_WORDS_MS: Final = 500  # for the last acknowledgements to leave
FALL_BACK_SECONDS: Final = 5.0
# With a configuration that does not hold: after the last session of a source was closed.
NOT_NEEDED_NS: Final = 8_000_000_000
# ZeroMQ aborts the process where it finds none left.
START_DESCRIPTORS: Final = 32
EVENT_SOCKET_DESCRIPTORS: Final = 12
WATCH_SECONDS: Final = 1.0  # for a directory to answer at the end


def run_logger(
    config: Configuration | None,
    data: Path,
    *,
    auto: bool = False,
    log_json: bool = False,
    refused: ConfigurationError | None = None,
) -> int:
    """Run the logger in the foreground until STOP, SIGTERM or a FAILURE; the exit code.

    config None: go on from the journal alone; raises `NothingToResume` where nothing was running.
    refused: the configuration does not hold, which is raised where nothing was running.
    data: the first data directory, where the journal is.
    """
    niceness = run_before_others()  # the log has a thread
    output = start_logging("info", as_json=log_json)
    log.info("niceness %d", niceness)
    try:
        access = Access.found(data)
        if config is not None:
            try:
                access = Access.configured(config.logger.mode, config.logger.group)
            except ConfigurationError as error:
                config, refused = None, error
        _refuse_nothing_to_resume(config, data, refused)
        _refuse_no_data_directory(data)
        _refuse_unwritable(data)
        access.hold()
        with _locked(data, refused):
            # Without a configuration, what is there stays as it is.
            if config is not None and (problem := access.give_directory(data)):
                config, refused = None, ConfigurationError([f"logger.group: {problem}"])
                _refuse_nothing_to_resume(config, data, refused)
            return Logger(config, data, access, refused=refused).run(auto=auto)
    finally:
        output.close()


class Logger:
    """One start of the logger: everything that lives as long as the process."""

    def __init__(
        self,
        config: Configuration | None,
        data: Path,
        access: Access,
        *,
        refused: ConfigurationError | None = None,
    ) -> None:
        sys.setswitchinterval(THREAD_SWITCH_SECONDS)
        keep_freed_memory()
        allow_many()
        require_descriptors(START_DESCRIPTORS, "a start of the logger")
        self._config = config
        # The configuration that does not hold, while runs are live that go on without it.
        self._refused = refused
        self._needed_ns = 0
        self._left_out: tuple[str, ...] = ()  # data directories that it names no more
        self._data = data
        self._access = access
        self._clock = SystemClock()
        self._started_ns = self._clock.wall_ns()
        self._alarms = AlarmBoard(self._clock)
        self._journal, self._meta = self._open_journal()
        self._whereabouts = WhereaboutsFile(data)
        self._outdated = ""
        self.boot = self._next_boot()
        self._directories, away = self._open_directories()
        self._committer = Committer(self._journal, self._clock)
        self._storage = Storage(
            self._meta.name,
            self._meta.logger_uuid,
            self.boot,
            self._directories,
            BufferPool(),
            self._committer,
            Operations.load(self._journal, self.boot, self._clock),
            self._clock,
            self._alarms,
            LostFiles(self._alarms),
        )
        for position, reason in away.items():
            tell_away(self._storage, 1 + position, reason)
        self._threads: list[threading.Thread] = []
        self._socket: EventSocket | None = None
        self._events: EventServer | None = None
        self._events_thread: threading.Thread | None = None
        self._notices: NoticeLinks | None = None
        self._housekeeper: Housekeeper | None = None
        self._signal = 0  # that asked us to end
        logger = self._config.logger if self._config is not None else None
        self._link = CoorSockets(
            control_address(data),
            listen=logger.coor_listen if logger else self._meta.coor_listen,
            connect=logger.coor_connect if logger else self._meta.coor_connect,
            identification=lambda: self._commander.identification(),
        )
        access.give_socket(self._link.listen_address)
        self._commander = Commander(
            name=self._meta.name,
            uuid=self._meta.logger_uuid,
            boot=self.boot,
            host=socket.gethostname(),
            process=os.getpid(),
            link=self._link,
            machinery=self,
            journal=self._journal,
            committer=self._committer,
            directories=self._directories,
            clock=self._clock,
            alarms=self._alarms,
            status=lambda _: self._status(),
        )

    # --- the journal -------------------------------------------------------------------------

    def _open_journal(self) -> tuple[LmdbJournal, JournalMeta]:
        path = self._data / JOURNAL_FOLDER
        if not LmdbJournal.exists(path):
            self._refuse_files_without_journal()
            journal = LmdbJournal.create(path)
        else:
            journal = LmdbJournal.open(path, live_prefixes=records.START_PREFIXES)
        value = journal.get(records.META)
        if value is None:
            meta = self._new_meta()
        else:
            meta = read_record(records.META, value, JournalMeta)
            if meta.schema != records.SCHEMA_VERSION:
                raise JournalUnreadable(
                    f"{path}: journal schema {meta.schema}, this program knows "
                    f"{records.SCHEMA_VERSION}"
                )
            meta = self._with_config(journal, meta)
        journal.commit([(records.META, records.encode_record(records.META, meta))])
        return journal, meta

    def _refuse_files_without_journal(self) -> None:
        """A new journal would know nothing of what is acknowledged in files that are still open."""
        left = next(self._data.glob(f"*/**/*{PART_SUFFIX}"), None)
        if left is not None:
            raise JournalUnreadable(
                f"{self._data}: there is no journal, but there are open event files ({left.name}); "
                f"`dlog journal rebuild {self._data}` makes a journal from the files"
            )

    def _new_meta(self) -> JournalMeta:
        assert self._config is not None
        logger = self._config.logger
        return JournalMeta(
            logger_uuid=uuid.uuid4().bytes,
            name=logger.name,
            data=tuple(str(Path(p).resolve()) for p in logger.data),
            created_ns=self._clock.wall_ns(),
            coor_listen=logger.coor_listen,
            coor_connect=logger.coor_connect,
        )

    def _with_config(self, journal: LmdbJournal, meta: JournalMeta) -> JournalMeta:
        """With the configuration's data directories and names; where a run is live and it cannot go
        on with them, with those of the journal."""
        if self._config is None:
            return msgspec.structs.replace(meta, data=(str(self._data.resolve()), *meta.data[1:]))
        logger = self._config.logger
        configured = tuple(str(Path(p).resolve()) for p in logger.data)
        live = [int(key[len(records.RUNS) :]) for key, _ in journal.scan(records.RUNS)]
        try:
            data = directories_in_use(
                configured, meta.data, held=directories_held(journal), live=live
            )
        except ConfigurationError as error:
            if not live:
                raise
            self._refused, self._config = error, None
            return self._with_config(journal, meta)
        self._left_out = data[len(configured) :]
        return msgspec.structs.replace(
            meta,
            name=logger.name,
            data=data,
            coor_listen=logger.coor_listen,
            coor_connect=logger.coor_connect,
        )

    def _open_directories(self) -> tuple[list[Directory], dict[int, str]]:
        """All of them, and why those are away that are, by their position behind the first."""
        uuid, paths = self._meta.logger_uuid.hex(), self._meta.data[1:]
        first = DataDirectory(self._data)
        first.prepare()
        claim(first, uuid)

        def open_one(position: int, away: str) -> DataDirectory:
            directory = DataDirectory(Path(paths[position]), holds_journal=False, away=away)
            if not away:
                directory.prepare()
            return directory

        further, away = open_further(paths, open_one, uuid=uuid, known=self._meta.marked)
        self._meta = msgspec.structs.replace(self._meta, marked=paths)
        meta = records.encode_record(records.META, self._meta)
        self._journal.commit([(records.META, meta)])
        self._give_access([self._data, *(Path(p) for n, p in enumerate(paths) if n not in away)])
        return [first, *further], away

    def _give_access(self, roots: Sequence[Path]) -> None:
        """What earlier starts made is used on: the configuration may have changed since then."""
        if self._config is None:
            return
        for root in roots[1:]:
            if problem := self._access.give_directory(root):
                log.warning("logger.group: %s", problem)
        for key, value in self._journal.scan(records.FILES):
            path = read_record(key, value, FileRecord).path
            for root in roots:
                file = root / f"{path}{PART_SUFFIX}"
                self._access.give([file.parent, file])

    def _next_boot(self) -> BootNumber:
        value = self._journal.get(records.BOOT)
        before = read_record(records.BOOT, value, BootRecord).boot if value else 0
        last = self._whereabouts.read()
        if last.uuid == self._meta.logger_uuid.hex() and last.boot > before:
            # Not counted: after some such starts it would look as if the journal had been there.
            self._outdated = (
                f"the journal is an older copy: its last boot is {before}, and boot {last.boot} "
                f"wrote {self._data / LOGGER_FILE}"
            )
            return BootNumber(before + 1)
        record = BootRecord(boot=before + 1)
        self._journal.commit([(records.BOOT, records.encode_record(records.BOOT, record))])
        return BootNumber(before + 1)

    # --- from start to end -------------------------------------------------------------------

    def run(self, *, auto: bool) -> int:
        """Until the end; the exit code."""
        try:
            self._resume()
        except BaseException as error:
            if isinstance(error, (JournalOutdated, JournalUnreadable, DataDirectoryGone)):
                self._tell_refused(error)
            self._link.close(0)
            self._journal.close()
            raise
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # Under nohup the logger goes on when its terminal is closed.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        try:
            self._serve(auto)
        except Failure as error:
            return self._fail(error)
        except Error:
            self._settle()
            raise
        # Whatever killed a thread, or this one, is a FAILURE: nothing of it may be passed over.
        except Exception as error:
            log.critical("unexpected", exc_info=error)
            return self._fail(InvariantBroken(f"{type(error).__name__}: {error}"))
        self._settle()
        return 0

    def _serve(self, auto: bool) -> None:
        log.info(
            "logger %s, boot %d, data in %s, control at %s",
            self._meta.name,
            self.boot,
            self._data,
            self._link.control_address,
        )
        for directory in self._directories:
            if problem := link_to_runs(Path(directory.name)):
                log.warning("%s", problem)
        if self._refused is not None:
            self._go_on_without_configuration(self._refused)
        elif auto:
            self._give_itself_commands()
        for name in self._left_out:
            self._alarms.raise_alarm(
                f"left-out {name}",
                Severity.WARNING,
                f"logger.data: {name}: not in the configuration any more, and kept until the files "
                "in it that are not closed are settled",
            )
        # What stands now stands to the end: each look through all of it would hold up every thread
        # for tens of milliseconds.
        gc.collect()
        gc.freeze()
        while not self._commander.over and not self._signal:
            try:
                self._commander.step(100)
            except ConfigurationError as error:
                self._go_on_without_configuration(error)
            self._whereabouts.try_again()
            if self._refused is not None and not self._is_needed():
                raise self._refused
        if self._signal:
            log.info("%s: settling; the runs stay active", signal.Signals(self._signal).name)

    def _go_on_without_configuration(self, error: ConfigurationError) -> None:
        """A wrong configuration must not keep down what is live: that goes on as it is frozen in
        the journal. Raises the error where nothing is live."""
        if not self._commander.runs:
            raise error
        self._refused = error
        self._needed_ns = self._clock.monotonic_ns()
        text = f"the live runs go on as they are in the journal: {error}"
        self._alarms.raise_alarm("configuration", Severity.ERROR, " ".join(text.split()))

    def _is_needed(self) -> bool:
        """Whether a source may still have events for a live run; some time for it to say so."""
        now_ns = self._clock.monotonic_ns()
        events = self._commander.events
        if self._commander.runs and events is not None and events.has_sessions:
            self._needed_ns = now_ns
        return now_ns - self._needed_ns < NOT_NEEDED_NS

    def _give_itself_commands(self) -> None:
        """`--auto`: INIT (not under running runs) and CONFIGURE, from the file."""
        assert self._config is not None
        session = os.urandom(16).hex()
        init = msgspec.to_builtins(self._config.init)
        streams = {n: msgspec.to_builtins(s) for n, s in self._config.streams.items()}
        commands = [("CONFIGURE", {"streams": streams})]
        if self._commander.record.state is not LoggerState.RUNNING:
            commands.insert(0, ("INIT", init))
        for number, (command, parameters) in enumerate(commands):
            self._commander.command_itself(
                Command(session=session, number=number, command=command, parameters=parameters)
            )

    def _on_signal(self, number: int, _frame: object) -> None:
        # Nothing else: the main thread may be inside any lock, that of the log or of a link.
        self._signal = number

    def _resume(self) -> None:
        """Settle what the last boot left, then start everything that goes on."""
        begin = time.monotonic_ns()
        if self._config is None and not live_runs(self._journal):
            raise self._refused or NothingToResume(f"{self._data}: no run was active")
        if self._outdated:
            raise JournalOutdated(self._outdated)
        load_acknowledged(self._journal, self._alarms)
        live = settle_live_state(self._journal, self._storage)
        self._committer.load()
        self._start("committer", self._committer.run)
        self._notices = self._new_notices()
        orphan, parts = live.orphans
        orphans = self.make_writer(ORPHAN_CONFIG, orphan, parts, run_started_ns=0, streams=())
        self._commander.resume(
            live.record, [(run, live.of_run(run.run)) for run in live.runs], orphans
        )
        self.start_writer(orphans)
        self._housekeeper = Housekeeper(
            self._journal,
            self._storage,
            partial(config_of_ended, self._journal),
            self._commander.watches,
            self._left_out,
        )
        self._start("housekeeper", self._housekeeper.run)
        for number, watch in enumerate(self._commander.watches):
            self._start(f"watch {number}", watch.run)
        self.address_changed(self._commander.record.event_address)
        if live.runs:
            log.info(
                "resumed %s in %.0f ms",
                ", ".join(f"run {run.run} ({run.state})" for run in live.runs),
                (time.monotonic_ns() - begin) / 1e6,
            )

    def _new_notices(self) -> NoticeLinks:
        notices = NoticeLinks(
            self._alarms, self._status, logger=self._meta.name, uuid=self._meta.logger_uuid.hex()
        )
        notices.start()
        return notices

    def _tell_refused(self, error: Failure) -> None:
        """A start that is refused tells the alarm server that the journal names, if it does."""
        log.critical("FAILURE: %s", error)
        value = self._journal.get(records.LOGGER)
        init = None
        with suppress(JournalUnreadable):  # then it is this record that ends the start
            init = read_record(records.LOGGER, value, LoggerRecord).init if value else None
        if init is None or not init.alarm_server:
            return
        self._alarms.raise_alarm("failure", Severity.FAILURE, str(error))
        notices = self._notices or self._new_notices()
        notices.use(alarm_server=init.alarm_server, monitor="", monitor_interval_ms=1000)
        notices.close()

    def _settle(self) -> None:
        """The orderly end: store what was taken, tell who waits, and close. Bounded in time."""
        init = self._commander.record.init
        seconds = init.settle_seconds if init is not None else 1.0
        deadline = time.monotonic() + seconds
        if self._events is not None:
            self._events.quiesce()
        self._commander.settle()
        for thread in [t for t in self._threads if t.name.startswith("stream ")]:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("%s: not all could be stored; it will be sent again", thread.name)
        if self._housekeeper is not None:
            self._housekeeper.stop(tidy_up=self._commander.over)
            for thread in [t for t in self._threads if t.name == "housekeeper"]:
                thread.join(max(0.0, deadline - time.monotonic()))
        for watch in self._commander.watches:
            watch.stop()
        clean = BootRecord(boot=self.boot, clean=True)
        self._committer.submit([(records.BOOT, records.encode_record(records.BOOT, clean))])
        self._committer.stop()
        committer = next(t for t in self._threads if t.name == "committer")
        committer.join(max(0.5, deadline - time.monotonic()))
        if self._events is not None and self._events_thread is not None:
            self._events.stop()
            self._events_thread.join(1.0)
        if self._notices is not None:
            self._notices.close()
        if self._commander.over:
            # What a peer has received and not read yet, ZeroMQ drops there when the connection
            # closes: without this a busy COOR now and then never saw the answer to STOP.
            self._link.receive(LAST_WORDS_MS)
        self._link.close()
        if committer.is_alive():
            log.warning("the journal did not take the last commit; the next start settles it")
            self._end_at_once(0)
        if self._socket is not None and not (
            self._events_thread and self._events_thread.is_alive()
        ):
            self._socket.close(LAST_WORDS_MS)
        for thread in [t for t in self._threads if t.name.startswith("watch ")]:
            thread.join(WATCH_SECONDS)
        if any(t.is_alive() for t in self._threads):
            self._end_at_once(0)
        self._journal.close()
        log.info("ended")

    def _fail(self, error: Failure) -> int:
        """FAILURE: say so everywhere, and exit; nothing is closed that could say "done"."""
        log.critical("FAILURE: %s", error)
        self._alarms.raise_alarm("failure", Severity.FAILURE, str(error))
        if self._notices is not None:
            self._notices.close()
        fall_back = self._config.logger.on_failure if self._config is not None else "exit"
        if fall_back != "exit" and not isinstance(error, (JournalFailed, DataDirectoryGone)):
            self._fall_back(fall_back, str(error))
        self._end_at_once(error.exit_code)
        return error.exit_code

    def _fall_back(self, where: str, reason: str) -> None:
        """`on_failure`: the runs fail, and the program begins anew as INITIALIZED or CONFIGURED."""
        state = LoggerState[where.upper()]
        record = msgspec.structs.replace(self._commander.record, state=state)
        now = self._clock.wall_ns()
        ended = [
            EndedRunRecord(
                run=run.record.run,
                state=RunState.FAILED,
                started_ns=run.record.started_ns,
                ended_ns=now,
                comment=run.record.comment,
                reason=reason,
                streams=run.record.streams,
            )
            for run in self._commander.runs.values()
        ]
        done = threading.Event()
        self._committer.submit_made(
            lambda c: [
                (records.LOGGER, records.encode_record(records.LOGGER, record)),
                *(change for run in ended for change in c.end_run(run)),
            ],
            use_ballast=True,
            then=done.set,
            # The other threads are still at it: behind this, they would bring the runs back.
            last=True,
        )
        if not done.wait(FALL_BACK_SECONDS):
            log.critical("the journal does not commit: exit")
            return
        log.critical("on_failure: begin anew, %s", state)
        _let_last_words_out()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

    @staticmethod
    def _end_at_once(code: int) -> None:
        """Threads that hang in a system call would keep an ordinary exit from happening."""
        _let_last_words_out()
        os._exit(code)

    def _start(self, name: str, target: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            show_thread_name()
            try:
                target()
            # A thread that dies ends the logger: its error is raised in the main thread.
            except BaseException as error:
                if not isinstance(error, DlogError):
                    log.critical("thread %s died", name, exc_info=error)
                self._commander.fail(error)

        thread = threading.Thread(target=run, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise NoThread(f"no thread can be started for the {name}: {error}") from error
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        return thread

    # --- what the commander asks for (services.commander.Machinery) --------------------------

    def open_events(self, init: InitConfig, address: str) -> str:
        if self._socket is not None and address == self._socket.address:
            return address
        require_descriptors(EVENT_SOCKET_DESCRIPTORS, "the event server")
        fresh = EventSocket(address)
        self._stop_events()
        if self._socket is not None:
            self._socket.close()
        self._socket = fresh
        self._access.give_socket(fresh.address)
        return fresh.address

    def _stop_events(self) -> None:
        if self._events is not None and self._events_thread is not None:
            self._events.stop()
            self._events_thread.join()
            self._events_thread = None

    def start_events(self) -> EventServer:
        self._stop_events()
        init = self._commander.record.init
        assert init is not None
        assert self._socket is not None
        # Half of the memory is for messages, half for the blocks that are made of them.
        memory_bytes, expiry_seconds = init.memory_bytes // 2, init.session_expiry_seconds
        if self._events is None:
            self._events = EventServer(
                Identity(self._meta.name, self._meta.logger_uuid, self.boot),
                self._socket,
                self._committer,
                self._clock,
                self._alarms,
                memory_bytes=memory_bytes,
                expiry_seconds=expiry_seconds,
                finished_run=partial(finished_run, self._journal),
                drained=self._commander.drained,
            )
            self._events.load(sessions(self._journal), watermarks(self._journal))
        else:
            self._events.use(self._socket, memory_bytes=memory_bytes, expiry_seconds=expiry_seconds)
        self._events_thread = self._start("event server", self._events.run)
        return self._events

    def notices(self, init: InitConfig) -> None:
        assert self._notices is not None
        self._notices.use(
            alarm_server=init.alarm_server,
            monitor=init.monitor,
            monitor_interval_ms=init.monitor_interval_ms,
        )

    def keep_free(self, low_water_bytes: int) -> None:
        self._storage.marks.low_water_bytes = low_water_bytes

    def make_writer(
        self,
        config: StreamConfig,
        stream: StreamRecord,
        parts: Sequence[Part],
        *,
        run_started_ns: int,
        streams: tuple[str, ...],
    ) -> StreamWriter:
        return StreamWriter(
            self._storage,
            self._committer,
            config,
            stream,
            parts,
            run_started_ns=run_started_ns,
            streams=streams,
            finished=self._commander.writer_finished,
            ready=self._commander.writer_ready,
        )

    def start_writer(self, writer: StreamWriter) -> None:
        self._start(f"stream {writer.key.run}/{writer.key.stream}", writer.run)

    def descriptors_left(self) -> int:
        return descriptors_left()

    def within(self, seconds: float, path: str, ask: Callable[[], bool]) -> bool:
        return answered_within(seconds, path, ask)

    def set_debug(self, level: str) -> None:
        set_level(level)

    def address_changed(self, event_address: str) -> None:
        self._whereabouts.write(
            Whereabouts(
                name=self._meta.name,
                uuid=self._meta.logger_uuid.hex(),
                pid=os.getpid(),
                boot=self.boot,
                control=self._link.control_address,
                coor_listen=self._link.listen_address,
                event_address=event_address,
            )
        )

    def _status(self) -> dict[str, Any]:
        init = self._commander.record.init
        connections = [
            *(self._events.connections() if self._events is not None else []),
            *self._link.connections(),
            *(self._notices.connections() if self._notices is not None else []),
        ]
        status = status_of(
            self._commander,
            self._committer,
            self._clock,
            Facts(
                self._started_ns,
                os.getpid(),
                socket.gethostname(),
                _version(),
                [d.name for d in self._directories],
                {"control": self._link.control_address, "coor_listen": self._link.listen_address},
                init.memory_bytes if init is not None else MEMORY_BYTES_DEFAULT,
            ),
            connections,
            self._alarms.raised(),
        )
        return status_data(within(status))


def _let_last_words_out() -> None:
    """A full disk or a closed pipe under the log must not change how the logger ends."""
    time.sleep(FAILURE_WORDS_SECONDS)  # for the log's own thread
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


def _refuse_unwritable(data: Path) -> None:
    """ZeroMQ would say of its socket that the address is in use."""
    if os.access(data, os.W_OK, effective_ids=True) or os.statvfs(data).f_flag & os.ST_RDONLY:
        return
    raise DataDirectoryGone(f"{owned(data)}; user {user_name(os.geteuid())} may not write there")


def _refuse_nothing_to_resume(
    config: Configuration | None, data: Path, refused: ConfigurationError | None
) -> None:
    if config is None and not LmdbJournal.exists(data / JOURNAL_FOLDER):
        raise refused or NothingToResume(
            f"{data}: there is no journal to resume from; is its disk mounted?"
        )


def _locked(data: Path, refused: ConfigurationError | None) -> DirectoryLock:
    try:
        return DirectoryLock.acquire(data)
    except LockedByAnother as error:
        raise refused or error from None


def _refuse_no_data_directory(data: Path) -> None:
    """What is not there, or empty, is the mount point of a disk, or was never made."""
    try:
        refuse_no_text(data)
        found = found_at(data)
        if not found.names:
            refuse_dangling_link(data)
    except NoDescriptor:
        raise
    except StorageError as error:
        raise DataDirectoryGone(f"{data}: {error.reason}") from error
    except Error as error:
        raise ConfigurationError([f"logger.data: {error}"]) from error
    match first_directory(found):
        case First.JOURNAL_LOST:
            raise JournalUnreadable(
                f"{data}: it was used by logger {found.mark}, and its journal is gone; "
                f"`dlog journal rebuild {data}` makes a journal from the files"
            )
        case First.NOT_CREATED:
            what = f"no data directory, {found.content}" if data.exists() else "not there"
            raise ConfigurationError([f"logger.data: {data}: {what}; {how_to_create(str(data))}"])
        case First.BEGIN | First.GO_ON:
            return


def _version() -> str:
    try:
        return version("dlog-daq")
    except PackageNotFoundError:
        return "0"
