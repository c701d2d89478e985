"""The link between COOR and the logger, both ends, over ZeroMQ: JSON texts, one frame each.

`CoorSockets` is the logger's end; `CoorClient` and `CoorServer` are COOR's, for the command line
and the tests. It carries commands and answers, and never carries one out.
docs/PROTOCOL.md, "COOR link", specifies it.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket as system_socket
import struct
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import zmq

from dlog.adapters.connection_facts import ConnectionFacts
from dlog.adapters.directory_lock import LOCK_NAME, is_locked
from dlog.adapters.owners import denied, why_no_permission
from dlog.adapters.process_room import require_room_for_sockets
from dlog.adapters.vanished_peers import find_vanished_peers
from dlog.core.states import ConnectionEvent, ConnectionState
from dlog.errors import Error, MessageError
from dlog.limits import CONTROL_MESSAGE_BYTES_MAX, HEARTBEAT_MS
from dlog.model.messages import (
    Answer,
    Command,
    Identification,
    Introduction,
    Request,
    decode_json,
    encode_json,
)
from dlog.model.status import STATUS_BYTES_MAX, ConnectionStatus, Whereabouts

_log = logging.getLogger(__name__)

Socket: TypeAlias = "zmq.Socket[bytes]"
Context: TypeAlias = "zmq.Context[Socket]"

# sockaddr_un holds 108 bytes; some are left for what a system puts before it.
CONTROL_PATH_BYTES_MAX: Final = 100
PEERS_MAX: Final = 32  # COORs and command lines that are remembered
MESSAGES_PER_RECEIVE_MAX: Final = 64
QUEUED_MESSAGES_MAX: Final = 16  # per peer and direction, in ZeroMQ
ANSWER_BYTES_MAX: Final = 2 * STATUS_BYTES_MAX
RECONNECT_MS: Final = 50
RECONNECT_MS_MAX: Final = 300
RESEND_SECONDS: Final = 0.5
LINGER_MS: Final = 500  # for the answer to STOP; a peer that is gone is not waited for

_MONITOR_EVENT: Final = struct.Struct("=Hi")  # see zmq_socket_monitor(3)

UP: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED
DOWN: Final = zmq.EVENT_DISCONNECTED
REFUSED: Final = zmq.EVENT_HANDSHAKE_FAILED_AUTH
WATCHED: Final = (
    UP | DOWN | REFUSED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)  # fmt: skip


class NoAnswer(Error):
    """The logger (or COOR) could not be reached, or did not answer in time.

    sent: the command went out, and may be carried out.
    """

    def __init__(self, reason: str, *, sent: bool = False) -> None:
        super().__init__(reason)
        self.sent = sent


class _Kind(msgspec.Struct):
    """The type of a message, before more of it is looked at."""

    type: str = "command"


def control_address(data: Path) -> str:
    """The local control address of the logger on this data directory: a socket inside it, or a free
    port of the loopback interface where its path is too long for one."""
    path = str(data.resolve() / "control.sock")
    if len(path.encode()) <= CONTROL_PATH_BYTES_MAX:
        return f"ipc://{path}"
    return "tcp://127.0.0.1:*"


@dataclass(slots=True)
class _Way:
    """One of the ways that commands come in. prefix: first byte of its peers' names in the port."""

    prefix: bytes
    kind: str
    socket: Socket
    monitor: Socket
    address: str
    facts: ConnectionFacts  # of the COOR that we connect to; of all command lines together


@dataclass(slots=True)
class _Peer:
    way: _Way
    routing: bytes
    facts: ConnectionFacts
    descriptor: int = -1  # of its connection, which is how the socket monitor names it


@dataclass(slots=True)
class _Schedule:
    """When the next identification is due."""

    interval_ns: int
    due_ns: int = 0

    def postpone(self, now_ns: int) -> None:
        self.due_ns = now_ns + self.interval_ns


class CoorSockets:
    """The logger's end, for one thread; `wake` and `connections` are for any.

    control: where it always listens, for command lines on this machine (`control_address`).
    listen: where it waits for COOR. connect: the COOR that it connects to, identifies itself to
    after every (re)connection and as its heartbeat. identification: who and how we are now.
    """

    def __init__(
        self,
        control: str,
        *,
        listen: str = "",
        connect: str = "",
        identification: Callable[[], Identification],
        heartbeat_ms: int = HEARTBEAT_MS,
        peers_max: int = PEERS_MAX,
    ) -> None:
        self._identification = identification
        self._peers_max = peers_max
        self._peers: OrderedDict[bytes, _Peer] = OrderedDict()  # by name in the port, oldest first
        self._ways: dict[bytes, _Way] = {}
        self._schedule = _Schedule(heartbeat_ms * 1_000_000)
        self._lock = threading.Lock()  # of the wake descriptor and the table of peers
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        require_room_for_sockets()
        self._context: Context = zmq.Context()
        self._poller = zmq.Poller()
        self._poller.register(self._wake, zmq.POLLIN)
        try:
            self._open(b"c", "control", control, zmq.ROUTER)
            if listen:
                self._open(b"l", "coor", listen, zmq.ROUTER)
            if connect:
                self._open(b"d", "coor", connect, zmq.DEALER)
        except BaseException:
            self.close(linger_ms=0)
            raise

    def _open(self, prefix: bytes, kind: str, address: str, socket_type: int) -> None:
        socket = bounded(self._context.socket(socket_type), CONTROL_MESSAGE_BYTES_MAX)
        monitor = socket.get_monitor_socket(WATCHED)
        try:
            if socket_type == zmq.ROUTER:
                socket.bind(address)
                address = socket.getsockopt_string(zmq.LAST_ENDPOINT)
            else:
                socket.connect(address)
        except zmq.ZMQError as error:
            socket.disable_monitor()
            monitor.close(0)
            socket.close(0)
            raise Error(f"{address}: {error}") from error
        facts = ConnectionFacts(kind, address)
        self._ways[prefix] = _Way(prefix, kind, socket, monitor, address, facts)
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(monitor, zmq.POLLIN)

    # --- addresses and facts

    @property
    def control_address(self) -> str:
        return self._ways[b"c"].address

    @property
    def listen_address(self) -> str:
        """Where the logger listens for COOR, with the port that was bound; "" where it does not."""
        return self._ways[b"l"].address if b"l" in self._ways else ""

    def connections(self) -> list[ConnectionStatus]:
        """Each COOR with what is known of it; all command lines together as one. For any thread."""
        with self._lock:
            known = list(self._peers.values())
        peers = [peer.facts.status() for peer in known if peer.way.prefix == b"l"]
        listening = {way.prefix for way in self._ways.values() if way.prefix != b"l" or not peers}
        return [self._ways[prefix].facts.status() for prefix in sorted(listening)] + peers

    # --- the port

    def receive(self, timeout_ms: int) -> list[tuple[bytes, bytes]]:
        """(peer, text) of the commands that came; also of what is no JSON, for an answer with the
        error. What is JSON of another type is counted and passed over."""
        deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
        while True:
            self._watch()
            self._identify_when_due()
            texts = self._drain()
            woken = self._was_woken()
            left_ms = (deadline_ns - time.monotonic_ns()) / 1e6
            if texts or woken or left_ms <= 0:
                return texts
            due_ms = (self._schedule.due_ns - time.monotonic_ns()) / 1e6
            # Rounded up: a poll of 0 ms would spin until the moment comes.
            self._poller.poll(int(max(0.0, min(left_ms, due_ms))) + 1)

    def wake(self) -> None:
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def send(self, peer: bytes, message: bytes) -> None:
        way = self._ways.get(peer[:1])
        if way is None:
            return
        known = self._peers.get(peer)
        facts = known.facts if known is not None else way.facts
        if not self._put(way, peer[1:], message, facts):
            _log.info("answer to %s not sent: it is gone or takes nothing", _where(facts))

    def tell(self, message: bytes) -> None:
        for peer in list(self._peers.values()):
            if peer.facts.state is ConnectionState.CONNECTED:
                self._put(peer.way, peer.routing, message, peer.facts)
        way = self._ways.get(b"d")
        if way is not None:
            self._put(way, b"", message, way.facts)

    def close(self, linger_ms: int = LINGER_MS) -> None:
        """Give answers that are under way this long to leave; then all sockets are closed."""
        with self._lock:
            wake, self._wake = self._wake, -1
        if wake >= 0:
            os.close(wake)
        for way in self._ways.values():
            way.socket.disable_monitor()
            way.monitor.close(0)
            way.socket.close(linger_ms)
        self._ways.clear()
        self._context.term()

    # --- inside

    def _was_woken(self) -> bool:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return False
        return True

    def _drain(self) -> list[tuple[bytes, bytes]]:
        """What is there, up to a bound; the rest waits in ZeroMQ, and then at the peers."""
        texts: list[tuple[bytes, bytes]] = []
        for way in self._ways.values():
            for _ in range(MESSAGES_PER_RECEIVE_MAX):
                try:
                    frames = way.socket.recv_multipart(zmq.NOBLOCK, copy=False)
                except zmq.Again:
                    break
                text = self._accept(way, frames)
                if text is not None:
                    texts.append(text)
        return texts

    def _accept(self, way: _Way, frames: list[zmq.Frame]) -> tuple[bytes, bytes] | None:
        """The command in a message, or None where it holds none."""
        routed = way.prefix != b"d"
        routing = frames[0].bytes if routed else b""
        facts = self._met(way, routing, frames[-1]) if routed else way.facts
        size = sum(len(frame) for frame in frames[1 if routed else 0 :])
        facts.came(size)
        facts.happened(ConnectionEvent.ACCEPTED)
        if len(frames) != (2 if routed else 1):
            facts.skip("not one frame")
            return None
        text = frames[-1].bytes
        try:
            kind = decode_json(text, _Kind).type
        except MessageError:
            kind = "command"  # the commander answers what is wrong with it
        if kind == "introduction":
            self._introduced(way, routing, facts, text)
        elif kind == "command":
            return way.prefix + routing, text
        else:
            facts.skip(kind)
        return None

    def _met(self, way: _Way, routing: bytes, frame: zmq.Frame) -> ConnectionFacts:
        """Remember the peer that wrote, the latest last; forget the one silent for longest."""
        key = way.prefix + routing
        peer = self._peers.get(key)
        new = peer is None
        if peer is None:
            facts = way.facts
            if way.prefix == b"l":
                host = str(frame.get("Peer-Address"))
                facts = ConnectionFacts("coor", way.address, host=host)
            peer = _Peer(way, routing, facts)
        peer.descriptor = int(frame.get(zmq.SRCFD))
        with self._lock:
            self._peers[key] = peer
            self._peers.move_to_end(key)
            if len(self._peers) > self._peers_max:
                self._peers.popitem(last=False)
        if new and way.prefix == b"l":
            self._put(way, routing, encode_json(self._identification()), peer.facts)
        return peer.facts

    def _introduced(self, way: _Way, routing: bytes, facts: ConnectionFacts, text: bytes) -> None:
        try:
            said = decode_json(text, Introduction)
        except MessageError:
            facts.skip("introduction")
            return
        facts.name, facts.process = said.name[:64], said.process
        facts.host = said.host[:64] or facts.host
        if way.prefix == b"l":
            # A COOR that comes back is one line in the status, not two.
            for key, other in list(self._peers.items()):
                lost = other.facts.state is ConnectionState.LOST
                if lost and other.way is way and other.facts.name == facts.name:
                    facts.connects += other.facts.connects
                    with self._lock:
                        del self._peers[key]

    def _put(self, way: _Way, routing: bytes, message: bytes, facts: ConnectionFacts) -> bool:
        frames = [message] if way.prefix == b"d" else [routing, message]
        try:
            way.socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:  # not connected, or its queue is full
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._gone(way.prefix + routing)
            return False
        facts.went(len(message))
        return True

    def _identify_when_due(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns < self._schedule.due_ns:
            return
        self._schedule.postpone(now_ns)
        way = self._ways.get(b"d")
        to_peers = [
            peer
            for peer in self._peers.values()
            if peer.way.prefix == b"l" and peer.facts.state is ConnectionState.CONNECTED
        ]
        if way is None and not to_peers:
            return
        text = encode_json(self._identification())
        if way is not None:
            sent = self._put(way, b"", text, way.facts)
            if not sent and way.facts.state is ConnectionState.CONNECTED:
                # The connection is so new that its queue is not there yet.
                self._schedule.due_ns = now_ns + 10_000_000
        for peer in to_peers:
            self._put(peer.way, peer.routing, text, peer.facts)

    def _watch(self) -> None:
        """Take in what the socket monitors say of connections."""
        for way in self._ways.values():
            for event, descriptor in monitored(way.monitor):
                if way.prefix == b"d":
                    self._connection_changed(way, event)
                elif event == DOWN:
                    self._peer_gone(way, descriptor)

    def _connection_changed(self, way: _Way, event: int) -> None:
        facts = way.facts
        if event == UP:
            facts.happened(ConnectionEvent.ACCEPTED)
            self._schedule.due_ns = 0  # identify at once
            _log.info("connected to COOR at %s", way.address)
        elif event == REFUSED:
            facts.happened(ConnectionEvent.REJECTED, "COOR refused our key")
        elif event == zmq.EVENT_CONNECT_RETRIED:
            facts.happened(ConnectionEvent.OPENED)
        elif facts.happened(ConnectionEvent.DROPPED):
            _log.warning("lost COOR at %s", way.address)

    def _peer_gone(self, way: _Way, descriptor: int) -> None:
        for key, peer in list(self._peers.items()):
            if peer.way is way and peer.descriptor == descriptor:
                self._gone(key)
                return

    def _gone(self, key: bytes) -> None:
        """A COOR that is gone stays in the status as lost; a command line is forgotten."""
        peer = self._peers.get(key)
        if peer is None:
            return
        if peer.way.prefix == b"c":
            with self._lock:
                del self._peers[key]
            return
        peer.descriptor = -1
        if peer.facts.happened(ConnectionEvent.DROPPED):
            _log.info("COOR %s is gone", _where(peer.facts))


# --- COOR's end ------------------------------------------------------------------------------


@dataclass(slots=True)
class _Conversation:
    """What both kinds of COOR keep: the session, the next number, what else was said to them."""

    session: str = field(default_factory=lambda: secrets.token_hex(16))
    number: int = 0
    requests: deque[Request] = field(default_factory=lambda: deque(maxlen=64))


class _Coor:
    """A COOR: asks with the same id again and again until the answer with that id is there.

    So a crash of the logger and its resume in between are bridged: what was carried out before is
    answered from the journal and not done twice.
    """

    def __init__(self, name: str, *, gone_seconds: float = math.inf) -> None:
        self._gone_seconds = gone_seconds
        self._talk = _Conversation()
        self._introduction = encode_json(
            Introduction(name=name, host=system_socket.gethostname(), process=os.getpid())
        )
        require_room_for_sockets()
        self._context: Context = zmq.Context()

    @property
    def session(self) -> str:
        """This COOR's random session, the first half of its commands' ids."""
        return self._talk.session

    def requests(self) -> list[Request]:
        """What the logger asked for (pause, resume) while we listened; each is given once."""
        asked = list(self._talk.requests)
        self._talk.requests.clear()
        return asked

    def ask(
        self,
        command: str,
        parameters: Mapping[str, Any] | None = None,
        timeout: float = 10.0,
        *,
        command_id: tuple[str, int] | None = None,
    ) -> Answer:
        """The answer to the command, also where it says that it was refused (`ok`).

        command_id: (session, number), to repeat a command; else the next of our own session.
        Raises `NoAnswer` after `timeout` seconds, `MessageError` where the command is too long, and
        `Error` where a parameter is no text.
        """
        if command_id is None:
            self._talk.number += 1
            command_id = (self._talk.session, self._talk.number)
        session, number = command_id
        text = encode_json(
            Command(
                session=session,
                number=number,
                command=command,
                parameters={key: _text(key, value) for key, value in (parameters or {}).items()},
            )
        )
        if len(text) > CONTROL_MESSAGE_BYTES_MAX:
            raise MessageError("oversized", f"{command}: {len(text)} bytes of parameters")
        reached = time.monotonic()
        deadline = reached + timeout
        sent = posted = False
        while (now := time.monotonic()) < deadline:
            posted = self._post(text)
            if posted:
                sent, reached = True, now
            elif now - reached > self._gone_seconds:
                if absence := self._absence():
                    raise NoAnswer(absence, sent=sent)
                reached = now  # one has been started: it is waited for
            again = min(deadline, time.monotonic() + (RESEND_SECONDS if sent else 0.05))
            while (left := again - time.monotonic()) > 0:
                said = self._hear(left)
                if not isinstance(said, Answer) or (said.session, said.number) != command_id:
                    continue
                if said.code != "busy":  # that means: not taken in, ask again
                    return said
        absence = "" if posted else self._absence()
        raise NoAnswer(absence or self._why_no_answer(command, timeout, sent), sent=sent)

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> _Coor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, text: bytes) -> bool:
        """Send if there is somebody to send to."""
        raise NotImplementedError

    def _hear(self, seconds: float) -> Answer | Identification | None:
        """Something that came within that time."""
        raise NotImplementedError

    def _absence(self) -> str:
        """Why there is no logger; "" where there is one, or that is not known."""
        return ""

    def _why_no_answer(self, command: str, timeout: float, sent: bool) -> str:
        raise NotImplementedError

    def _understood(self, text: bytes) -> Answer | Identification | None:
        """The message in a text; what we do not know is passed over."""
        try:
            kind = decode_json(text, _Kind).type
            if kind == "answer":
                return decode_json(text, Answer)
            if kind == "identification":
                return decode_json(text, Identification)
            if kind == "request":
                self._talk.requests.append(decode_json(text, Request))
        except MessageError as error:
            _log.warning("a message of the logger is passed over: %s", error)
        return None


class CoorClient(_Coor):
    """A COOR that connects to a logger: at an address, or to the one on a data directory.

    With a data directory the address is looked up again before each attempt, since a logger that
    was started anew may have another one. gone_seconds: for so long it waits for a logger to come
    where none runs on the data directory; for ever, unless it is given.
    """

    def __init__(
        self, target: str | Path, *, name: str = "coor", gone_seconds: float = math.inf
    ) -> None:
        super().__init__(name, gone_seconds=gone_seconds)
        self._data = Path(target) if "://" not in str(target) else None
        self._address = "" if self._data is not None else str(target)
        self._socket: Socket | None = None
        self._connected = ""
        self._pid = 0

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close(0)
            self._socket = None
        self._context.term()

    def __enter__(self) -> CoorClient:
        return self

    def whereabouts(self) -> Whereabouts | None:
        """What the data directory says of its logger; None where none was started on it yet."""
        if self._data is None:
            return None
        return read_whereabouts(self._data)

    def _post(self, text: bytes) -> bool:
        socket = self._reach()
        if socket is None:
            return False
        try:
            socket.send(text, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _reach(self) -> Socket | None:
        """The socket, connected to where the logger is now."""
        if self._data is not None:
            try:
                found = read_whereabouts(self._data)
            except NoAnswer:
                if not self._address:
                    raise
                found = None  # the logger is where it was, as far as can be known
            if found is not None:
                self._address, self._pid = found.control, found.pid
        if not self._address:
            return None
        if problem := why_no_permission(self._address):
            # The socket of a logger that is gone stays, and it is not its owner who helps then.
            raise NoAnswer(self._absence() or f"the logger cannot be asked: {problem}")
        if self._socket is None or self._connected != self._address:
            if self._socket is not None:
                self._socket.close(0)
            self._socket = bounded(self._context.socket(zmq.DEALER), ANSWER_BYTES_MAX)
            try:
                self._socket.connect(self._address)
            except zmq.ZMQError as error:
                raise NoAnswer(f"{self._address}: {error}") from error
            self._connected = self._address
            self._socket.poll(20, zmq.POLLOUT)
            try:
                self._socket.send(self._introduction, zmq.NOBLOCK)
            except zmq.Again:
                return self._socket
        return self._socket

    def _hear(self, seconds: float) -> Answer | Identification | None:
        if self._socket is None:
            time.sleep(min(seconds, 0.05))
            return None
        if not self._socket.poll(max(1, int(seconds * 1000)), zmq.POLLIN):
            return None
        frames = self._socket.recv_multipart(zmq.NOBLOCK)
        return self._understood(frames[-1])

    def _absence(self) -> str:
        if self._data is None:
            return ""
        gone = not _runs(self._pid)
        locked = is_locked(self._data)
        if locked or (locked is None and not (self._pid and gone)):
            return ""
        if not self._pid and (self._data / LOCK_NAME).exists():
            return f"no logger runs on {self._data}: the last one ended before it could be reached"
        if not self._pid:
            return f"no logger has been started on {self._data}"
        # A number is given to another process, in time.
        what = "is gone" if gone else "is another program"
        return f"no logger runs on {self._data}: process {self._pid} {what}"

    def _why_no_answer(self, command: str, timeout: float, sent: bool) -> str:
        if self._data is not None and not self._address:
            return f"no logger has been started on {self._data}"
        if not sent:
            return f"no logger at {self._address} (waited {timeout:g} s)"
        return f"no answer to {command} from {self._address} within {timeout:g} s"


class CoorServer(_Coor):
    """A COOR that waits for loggers to connect. `logger`: the name of the one to talk to; empty for
    whichever came last."""

    def __init__(self, listen: str, *, name: str = "coor", logger: str = "") -> None:
        super().__init__(name)
        self._logger = logger
        self._known: OrderedDict[bytes, Identification] = OrderedDict()
        self._socket = bounded(self._context.socket(zmq.ROUTER), ANSWER_BYTES_MAX)
        try:
            self._socket.bind(listen)
        except zmq.ZMQError as error:
            self._socket.close(0)
            self._context.term()
            raise Error(f"{listen}: {error}") from error
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()

    def __enter__(self) -> CoorServer:
        return self

    def wait_for_logger(self, timeout: float = 10.0) -> Identification:
        """Who connected. Raises `NoAnswer` after that many seconds."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            self._hear(left)
            wanted = self._wanted()
            if wanted is not None:
                return self._known[wanted]
        raise NoAnswer(self._why_no_answer("", timeout, sent=False))

    def loggers(self) -> list[Identification]:
        """Those that identified themselves, as they last did; the latest last."""
        return list(self._known.values())

    def _wanted(self) -> bytes | None:
        for routing, said in reversed(self._known.items()):
            if self._logger in ("", said.name):
                return routing
        return None

    def _post(self, text: bytes) -> bool:
        wanted = self._wanted()
        return wanted is not None and self._put(wanted, text)

    def _put(self, routing: bytes, text: bytes) -> bool:
        try:
            self._socket.send_multipart([routing, text], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._known.pop(routing, None)
            return False
        return True

    def _hear(self, seconds: float) -> Answer | Identification | None:
        if not self._socket.poll(max(1, int(seconds * 1000)), zmq.POLLIN):
            return None
        frames = self._socket.recv_multipart(zmq.NOBLOCK)
        said = self._understood(frames[-1])
        if isinstance(said, Identification):
            new = frames[0] not in self._known
            self._known[frames[0]] = said
            if new:
                # The same logger over an older connection is that one no longer.
                for routing, other in list(self._known.items())[:-1]:
                    if other.uuid == said.uuid:
                        del self._known[routing]
                while len(self._known) > PEERS_MAX:
                    self._known.popitem(last=False)
                self._put(frames[0], self._introduction)
        return said

    def _why_no_answer(self, command: str, timeout: float, sent: bool) -> str:
        who = self._logger or "logger"
        if not sent:
            return f"no {who} connected to {self.address} within {timeout:g} s"
        return f"no answer to {command} from {who} within {timeout:g} s"


# --- shared ----------------------------------------------------------------------------------


def _text(key: str, value: Any) -> Any:
    """A text as it came from the command line, where bytes that are none stand as surrogates.
    Raises `Error` for a text that is not in UTF-8."""
    if not isinstance(value, str):
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        given = os.fsencode(value)
    else:
        return value
    try:
        return given.decode()  # with LC_ALL=C the command line is UTF-8 all the same
    except UnicodeDecodeError as error:
        raise Error(
            f"{key} {value!r}: byte {given[error.start]:#x} is not UTF-8; is the terminal set to "
            "another encoding than its locale?"
        ) from None


def read_whereabouts(data: Path) -> Whereabouts | None:
    """DATA/logger.json; None where it is not there. Raises `NoAnswer` where it is none."""
    path = data / "logger.json"
    try:
        with path.open("rb") as file:
            text = file.read(CONTROL_MESSAGE_BYTES_MAX)
    except FileNotFoundError:
        if not data.is_dir():
            raise NoAnswer(f"{data} is not a directory") from None
        return None
    except OSError as error:
        raise NoAnswer(denied(error, path)) from error
    try:
        return msgspec.json.decode(text, type=Whereabouts)
    except (msgspec.MsgspecError, ValueError) as error:
        raise NoAnswer(f"{path}: {error}") from error


def bounded(socket: Socket, message_bytes_max: int) -> Socket:
    """Every bound that ZeroMQ has; a peer that vanished is found within a few heartbeats."""
    socket.setsockopt(zmq.MAXMSGSIZE, message_bytes_max)
    socket.setsockopt(zmq.SNDHWM, QUEUED_MESSAGES_MAX)
    socket.setsockopt(zmq.RCVHWM, QUEUED_MESSAGES_MAX)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.BACKLOG, PEERS_MAX)
    find_vanished_peers(socket)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
    if socket.type == zmq.ROUTER:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    else:
        # What is not connected queues nothing: old answers would arrive after newer questions.
        socket.setsockopt(zmq.IMMEDIATE, 1)
    return socket


def monitored(monitor: Socket) -> list[tuple[int, int]]:
    """(event, value) of what a socket monitor has to say, up to a bound."""
    events: list[tuple[int, int]] = []
    while len(events) < 4 * PEERS_MAX:
        try:
            said = monitor.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            break
        # Read here, since zmq.utils.monitor brings all of asyncio with it.
        event, value = _MONITOR_EVENT.unpack_from(said[0])
        events.append((event, value))
    return events


def _where(facts: ConnectionFacts) -> str:
    return f"{facts.name or facts.kind} at {facts.host or facts.address}"


def _runs(pid: int) -> bool:
    """Whether there is a process of that number. One that has ended, and whose parent does not ask
    for it, keeps its number and runs no more."""
    if pid <= 0:
        return False
    with suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        return state not in ("Z", "X")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
