"""The links to the alarm server and to the monitor, both ends, over ZeroMQ.

`NoticeLinks` is the logger's end: one thread that sends what is, never what was, so that a dead or
slow server holds up nothing and nothing piles up. `NoticeServer` is the other end.
docs/PROTOCOL.md, "Alarm server" and "Monitor", specify them.
"""

from __future__ import annotations

import logging
import os
import socket as system_socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
import zmq

from dlog.adapters.connection_facts import ConnectionFacts
from dlog.adapters.coor_link import (
    ANSWER_BYTES_MAX,
    DOWN,
    REFUSED,
    UP,
    WATCHED,
    Context,
    Socket,
    bounded,
    monitored,
)
from dlog.adapters.process_room import require_room_for_sockets
from dlog.core.notices import LOGGERS_MAX
from dlog.core.states import ConnectionEvent, ConnectionState
from dlog.errors import Error, MessageError
from dlog.limits import CONTROL_MESSAGE_BYTES_MAX
from dlog.model.messages import (
    AlarmReport,
    AlarmState,
    MonitorReport,
    StatusRequest,
    decode_json,
    encode_json,
)
from dlog.model.status import ConnectionStatus

_log = logging.getLogger(__name__)

ALARM_INTERVAL_MS: Final = 1000
# Alarms that come and go, or a monitor that asks without pause, cost this often at most.
REPORT_GAP_MS: Final = 50
REPORTS_WAITING_MAX: Final = 2
LINGER_MS: Final = 300  # for the last report
FIRST_WORD_NS: Final = (
    1_000_000_000  # a new link has so long to connect, although all is to be closed
)
REQUESTS_PER_TURN_MAX: Final = 16
REPORTS_PER_RECEIVE_MAX: Final = 64
AFTER_A_FAULT_SECONDS: Final = 1.0
CLOSE_SECONDS_MAX: Final = 3.0


class AlarmBoardView(Protocol):
    """What is raised, the worst first, and what was cleared since an earlier view."""

    @property
    def moment(self) -> int: ...

    @property
    def raised(self) -> list[AlarmState]: ...

    @property
    def cleared(self) -> list[str]: ...


class AlarmSource(Protocol):
    """The alarm board, as this link sees it."""

    def listen(self, wake: Callable[[], None]) -> None: ...

    def view(self, since: int = 0) -> AlarmBoardView: ...


class _Type(msgspec.Struct):
    type: str = ""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The links that INIT asked for."""

    alarm_server: str = ""
    monitor: str = ""
    monitor_interval_ms: int = 1000


@dataclass(slots=True)
class _Link:
    """One link while it is open; used by the thread alone, save the facts."""

    kind: str
    address: str
    interval_ms: int
    socket: Socket
    monitor: Socket
    facts: ConnectionFacts
    opened_ns: int
    due_ns: int = 0
    earliest_ns: int = 0
    number: int = 0


class NoticeLinks:
    """The logger's end of both links. `use` and `connections` are for any thread.

    alarms: the board. status: the status document as plain data; it is called in this link's
    thread, and where it fails the failure is logged and counted, and the next time is another try.
    """

    def __init__(
        self,
        alarms: AlarmSource,
        status: Callable[[], dict[str, Any]],
        *,
        logger: str,
        uuid: str,
        alarm_interval_ms: int = ALARM_INTERVAL_MS,
    ) -> None:
        self._alarms = alarms
        self._status = status
        self._logger = logger
        self._uuid = uuid
        self._host = system_socket.gethostname()
        self._process = os.getpid()
        self._alarm_interval_ms = alarm_interval_ms
        self._lock = threading.Lock()  # of the descriptor and what is wanted
        self._wanted = _Wanted()
        self._closing = False
        self._news = False
        self._wake_descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        require_room_for_sockets()
        self._context: Context = zmq.Context()
        self._links: dict[str, _Link] = {}
        self._seen_moment = 0
        self.status_failures = 0
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def start(self) -> None:
        self._alarms.listen(self._alarms_changed)
        self._thread.start()

    def use(
        self, *, alarm_server: str = "", monitor: str = "", monitor_interval_ms: int = 1000
    ) -> None:
        """From here on these addresses; empty for no such link. Raises `Error` for an address that
        cannot be one; whether anybody is there is not asked."""
        for address in (alarm_server, monitor):
            if address:
                self._try(address)
        with self._lock:
            self._wanted = _Wanted(alarm_server, monitor, monitor_interval_ms)
        self._wake()

    def connections(self) -> list[ConnectionStatus]:
        return [link.facts.status() for link in list(self._links.values())]

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Send the last reports, for a bounded time, and end the thread."""
        with self._lock:
            self._closing = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS_MAX)
            if self._thread.is_alive():
                _log.warning("the notice links do not end; the status is what they wait for")
                return
        with self._lock:
            descriptor, self._wake_descriptor = self._wake_descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        self._context.term()

    # --- any thread

    def _try(self, address: str) -> None:
        probe = bounded(self._context.socket(zmq.DEALER), CONTROL_MESSAGE_BYTES_MAX)
        try:
            probe.connect(address)
        except zmq.ZMQError as error:
            raise Error(f"{address}: {error}") from error
        finally:
            probe.close(0)

    def _alarms_changed(self) -> None:
        self._news = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            if self._wake_descriptor >= 0:
                os.eventfd_write(self._wake_descriptor, 1)

    # --- the thread

    def _run(self) -> None:
        while True:
            try:
                self._serve()
                return
            except Exception:  # noqa: BLE001 - whatever it was, the logger and its notices go on
                _log.exception("the notice links stumbled and are opened anew")
                for kind in list(self._links):
                    self._close(kind)
                if self._closing:
                    return
                time.sleep(AFTER_A_FAULT_SECONDS)

    def _serve(self) -> None:
        while True:
            with self._lock:
                wanted, closing = self._wanted, self._closing
            self._follow(wanted)
            self._listen()
            last = closing and not self._has_to_say_more()
            self._report(last=last)
            if last:
                for kind in list(self._links):
                    self._close(kind, LINGER_MS)
                return
            self._sleep()

    def _has_to_say_more(self) -> bool:
        """Whether a new link has not said anything yet, and may still connect."""
        now_ns = time.monotonic_ns()
        return any(
            link.number == 0 and now_ns - link.opened_ns < FIRST_WORD_NS
            for link in self._links.values()
        )

    def _follow(self, wanted: _Wanted) -> None:
        """Open and close links until they are those that are wanted."""
        self._point("alarm-server", wanted.alarm_server, self._alarm_interval_ms)
        self._point("monitor", wanted.monitor, wanted.monitor_interval_ms)

    def _point(self, kind: str, address: str, interval_ms: int) -> None:
        link = self._links.get(kind)
        if link is not None and link.address != address:
            self._close(kind)
            link = None
        if link is not None:
            link.interval_ms = interval_ms
        elif address:
            socket = bounded(self._context.socket(zmq.DEALER), CONTROL_MESSAGE_BYTES_MAX)
            # What a stalled server does not take is dropped, and the next report says everything.
            # (CONFLATE would do, but at close its queue of one loses the last report.)
            socket.setsockopt(zmq.SNDHWM, REPORTS_WAITING_MAX)
            monitor = socket.get_monitor_socket(WATCHED)
            facts = ConnectionFacts(kind, address)
            now_ns = time.monotonic_ns()
            self._links[kind] = _Link(kind, address, interval_ms, socket, monitor, facts, now_ns)
            socket.connect(address)

    def _close(self, kind: str, linger_ms: int = 0) -> None:
        link = self._links.pop(kind)
        link.socket.disable_monitor()
        link.monitor.close(0)
        link.socket.close(linger_ms)

    def _listen(self) -> None:
        """Take in what the socket monitors say, and requests."""
        for link in self._links.values():
            for event, _ in monitored(link.monitor):
                self._connection_changed(link, event)
            for _ in range(REQUESTS_PER_TURN_MAX):
                try:
                    frames = link.socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                self._accept(link, frames)

    def _connection_changed(self, link: _Link, event: int) -> None:
        if event == UP:
            link.facts.happened(ConnectionEvent.ACCEPTED)
            link.due_ns = 0
            _log.info("connected to the %s at %s", link.kind, link.address)
        elif event == REFUSED:
            link.facts.happened(ConnectionEvent.REJECTED, "it refused our key")
        elif event == zmq.EVENT_CONNECT_RETRIED:
            link.facts.happened(ConnectionEvent.OPENED)
        elif link.facts.happened(ConnectionEvent.DROPPED) and event == DOWN:
            _log.warning("lost the %s at %s", link.kind, link.address)

    def _accept(self, link: _Link, frames: list[bytes]) -> None:
        link.facts.came(sum(len(frame) for frame in frames))
        try:
            kind = decode_json(frames[-1], _Type).type
        except MessageError:
            kind = "malformed"
        if len(frames) == 1 and kind == "status-request" and link.kind == "monitor":
            link.due_ns = 0
        else:
            link.facts.skip(kind if len(frames) == 1 else "not one frame")

    def _report(self, *, last: bool) -> None:
        now_ns = time.monotonic_ns()
        for link in self._links.values():
            news = link.kind == "alarm-server" and self._news
            due = last or now_ns >= link.due_ns or news
            if not due or (now_ns < link.earliest_ns and not last):
                continue
            if link.facts.state is not ConnectionState.CONNECTED:
                link.due_ns = now_ns + link.interval_ms * 1_000_000
                continue
            link.earliest_ns = now_ns + REPORT_GAP_MS * 1_000_000
            if not link.socket.poll(0, zmq.POLLOUT):
                # The server takes nothing, or the connection is so new that it has no queue yet.
                link.due_ns = link.earliest_ns
                continue
            link.due_ns = now_ns + link.interval_ms * 1_000_000
            if link.kind == "alarm-server":
                self._report_alarms(link, last)
            else:
                self._report_status(link, last)

    def _report_alarms(self, link: _Link, last: bool) -> None:
        self._news = False
        view = self._alarms.view(self._seen_moment)
        report = AlarmReport(
            logger=self._logger, uuid=self._uuid, host=self._host, process=self._process,
            number=link.number + 1, time_ns=time.time_ns(), raised=view.raised,
            cleared=view.cleared, interval_ms=link.interval_ms, last=last,
        )  # fmt: skip
        if self._put(link, encode_json(report)):
            self._seen_moment = view.moment

    def _report_status(self, link: _Link, last: bool) -> None:
        try:
            status = self._status()
        except Exception as error:  # noqa: BLE001 - the caller's code; it is counted and logged
            self.status_failures += 1
            link.facts.skip("no status")
            # Once in a while: a status that fails does so at every turn.
            if self.status_failures & (self.status_failures - 1) == 0:
                _log.exception("no status for the monitor (%d times)", self.status_failures)
            link.facts.detail = f"no status: {error}"[:300]
            return
        report = MonitorReport(
            logger=self._logger, uuid=self._uuid, host=self._host, process=self._process,
            number=link.number + 1, time_ns=time.time_ns(), status=status,
            interval_ms=link.interval_ms, last=last,
        )  # fmt: skip
        text = encode_json(report)
        if len(text) > ANSWER_BYTES_MAX:
            link.facts.skip("status too large")
            return
        self._put(link, text)

    def _put(self, link: _Link, text: bytes) -> bool:
        try:
            link.socket.send(text, zmq.NOBLOCK)
        except zmq.Again:  # lost at this moment
            return False
        link.number += 1
        link.facts.went(len(text))
        return True

    def _sleep(self) -> None:
        poller = zmq.Poller()
        poller.register(self._wake_descriptor, zmq.POLLIN)
        now_ns = time.monotonic_ns()
        next_ns = now_ns + 1_000_000_000
        for link in self._links.values():
            poller.register(link.socket, zmq.POLLIN)
            poller.register(link.monitor, zmq.POLLIN)
            news = link.kind == "alarm-server" and self._news
            next_ns = min(next_ns, max(link.earliest_ns, 0 if news else link.due_ns))
        poller.poll(max(0, (next_ns - now_ns) // 1_000_000) + 1)
        try:
            os.eventfd_read(self._wake_descriptor)
        except BlockingIOError:
            return


class NoticeServer:
    """Where loggers send their reports: the alarm server's and the monitor's end of the link."""

    def __init__(self, listen: str) -> None:
        require_room_for_sockets()
        self._context: Context = zmq.Context()
        self._socket = bounded(self._context.socket(zmq.ROUTER), ANSWER_BYTES_MAX)
        self._routes: OrderedDict[str, bytes] = OrderedDict()  # by the logger's uuid
        self.malformed = 0
        self.skipped = 0
        try:
            self._socket.bind(listen)
        except zmq.ZMQError as error:
            self._socket.close(0)
            self._context.term()
            raise Error(f"{listen}: {error}") from error
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def receive(self, timeout_ms: int) -> list[AlarmReport | MonitorReport]:
        """Reports that came; empty after the timeout. What is none is counted and passed over."""
        reports: list[AlarmReport | MonitorReport] = []
        if not self._socket.poll(timeout_ms, zmq.POLLIN):
            return reports
        for _ in range(REPORTS_PER_RECEIVE_MAX):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            report = self._understood(frames)
            if report is not None:
                reports.append(report)
                self._routes[report.uuid] = frames[0]
                self._routes.move_to_end(report.uuid)
                if len(self._routes) > LOGGERS_MAX:
                    self._routes.popitem(last=False)
        return reports

    def request(self, uuid: str = "") -> None:
        """Ask that logger, or all, for a report now."""
        text = encode_json(StatusRequest())
        for known, routing in list(self._routes.items()):
            if uuid in ("", known):
                try:
                    self._socket.send_multipart([routing, text], zmq.NOBLOCK)
                except zmq.Again:
                    continue
                except zmq.ZMQError as error:
                    if error.errno != zmq.EHOSTUNREACH:
                        raise
                    del self._routes[known]

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()

    def __enter__(self) -> NoticeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _understood(self, frames: list[bytes]) -> AlarmReport | MonitorReport | None:
        if len(frames) != 2:
            self.malformed += 1
            return None
        try:
            kind = decode_json(frames[1], _Type).type
            if kind == "alarms":
                return decode_json(frames[1], AlarmReport)
            if kind == "monitor":
                return decode_json(frames[1], MonitorReport)
        except MessageError as error:
            self.malformed += 1
            _log.warning("a message is passed over: %s", error)
            return None
        self.skipped += 1
        return None
