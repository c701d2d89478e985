"""A source's end of the event link: one DEALER socket and the thread that owns it.

It moves messages between the network and a `Driver` and tells it when the connection comes and
goes; it decides nothing about what is sent, and keeps no message.
"""

from __future__ import annotations

import logging
import socket as sockets
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

import zmq
from zmq.utils.monitor import recv_monitor_message

from dlog.adapters.process_room import require_room_for_sockets
from dlog.adapters.vanished_peers import find_vanished_peers
from dlog.limits import CONTROL_MESSAGE_BYTES_MAX, KIB

_LOG: Final = logging.getLogger("dlog.source")
# Batches of 1 MiB that libzmq may hold ahead of what is on the wire. They are ours, not copies, so
# this bounds how long a heartbeat waits behind them rather than memory.
_SEND_QUEUE_MESSAGES: Final = 32
_RECEIVED_AT_ONCE_MAX: Final = 256
_SENT_AT_ONCE_MAX: Final = 64
_RECONNECT_MS: Final = 100
_RECONNECT_MS_MAX: Final = 300  # a crash of the logger is to cost beam time of this order
# Longer than a logger that is alive leaves its socket unread.
_UNACKNOWLEDGED_MS_MAX: Final = 15_000
_POLL_MS_MAX: Final = 1000
_UNCONNECTED_POLL_MS: Final = 200
_ADDRESS_CHECK_SECONDS: Final = 1.0
_LAST_WORDS_MS: Final = 300
_END_SECONDS: Final = 5.0

_LOST: Final = zmq.EVENT_DISCONNECTED
_MADE: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED
_TOLD: Final = (
    _LOST
    | _MADE
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class Driver(Protocol):
    """What the link moves messages for. All calls come from the link's thread."""

    def next_message(self, now_ns: int) -> bytes | bytearray | None:
        """The next message to send now."""

    def due_ns(self) -> int | None:
        """When `next_message` is to be asked again."""

    def receive(self, messages: list[bytes], now_ns: int) -> None:
        """What has come."""

    def connected(self, address: str) -> None:
        """A connection was made."""

    def disconnected(self, now_ns: int, why: str) -> None:
        """The connection is gone."""

    def last_words(self) -> bytes | bytearray | None:
        """What to send before the link is closed."""

    def died(self, error: BaseException) -> None:
        """The link's thread ends on this error."""


class SourceLink:
    """See the module. `address` is asked for again while there is no connection: a logger may come
    back elsewhere. It returns None where it is not known yet."""

    def __init__(self, driver: Driver, routing_id: bytes, address: Callable[[], str | None]):
        self._driver = driver
        self._routing_id = routing_id
        self._address = address
        self._connected_to: str | None = None
        self._connected = False
        self._address_at = 0.0
        self._closing = False
        self._wake_out, self._wake_in = sockets.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._woken = False
        self._more = False
        self._thread = threading.Thread(target=self._run, name="dlog source link", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Let the thread ask for messages now; from any thread, cheap when it is awake already."""
        if not self._woken:
            self._woken = True
            try:
                self._wake_out.send(b"w")
            except BlockingIOError:
                return  # so full of wake-ups that one more says nothing
            except OSError:
                if not self._closing:
                    raise

    def close(self) -> None:
        """End the thread and close the socket."""
        self._closing = True
        self.wake()
        self._thread.join(_END_SECONDS)
        self._wake_out.close()
        if self._thread.is_alive():
            # In the system: the name of a host is looked up, or a file of a server that is gone.
            _LOG.warning("the link to %s does not end; it is left behind", self._connected_to)

    def become_copy(self) -> None:
        """After a fork, in the child, where the thread is not: wake it no more."""
        self._closing = True
        self._wake_out.close()
        self._wake_in.close()

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            require_room_for_sockets()
            with zmq.Context() as context:
                self._serve(context)
        except BaseException as error:  # noqa: BLE001 - it surfaces in the caller's next call
            self._driver.died(error)
        finally:
            self._closing = True  # nothing is to be woken any more
            self._wake_in.close()

    def _serve(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        socket = self._opened(context)
        monitor = socket.get_monitor_socket(_TOLD)
        poller = zmq.Poller()
        poller.register(monitor, zmq.POLLIN)
        poller.register(self._wake_in.fileno(), zmq.POLLIN)
        try:
            while not self._closing:
                self._follow_address(socket)
                writable = self._send_ready(socket)
                poller.register(socket, zmq.POLLIN if writable else zmq.POLLIN | zmq.POLLOUT)
                ready = dict(poller.poll(self._poll_ms(writable)))
                # To ask a socket that has nothing costs as much as to send a batch.
                if self._wake_in.fileno() in ready:
                    self._sleep_is_over()
                if monitor in ready:
                    self._hear_monitor(monitor)
                if ready.get(socket, 0) & zmq.POLLIN:
                    self._receive_ready(socket)
            self._say_last_words(socket)
        finally:
            socket.disable_monitor()
            monitor.close(0)
            socket.close(_LAST_WORDS_MS)

    def _opened(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, self._routing_id)
        # Only to a connection that stands: what is queued for none would come late and out of
        # place, before HELLO.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.SNDHWM, _SEND_QUEUE_MESSAGES)
        socket.setsockopt(zmq.MAXMSGSIZE, CONTROL_MESSAGE_BYTES_MAX + KIB)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MS_MAX)
        find_vanished_peers(socket, unacknowledged_ms=_UNACKNOWLEDGED_MS_MAX)
        return socket

    def _follow_address(self, socket: zmq.Socket[bytes]) -> None:
        if self._connected or time.monotonic() < self._address_at:
            return
        self._address_at = time.monotonic() + _ADDRESS_CHECK_SECONDS
        try:
            address = self._address()
        except OSError as error:
            # The events wait here; the reason shows in the source's report.
            self._driver.disconnected(time.monotonic_ns(), str(error))
            return
        if address is None or address == self._connected_to:
            return
        if self._connected_to is not None:
            socket.disconnect(self._connected_to)
        socket.connect(address)
        self._connected_to = address

    def _send_ready(self, socket: zmq.Socket[bytes]) -> bool:
        """Send what is to be sent; whether the socket would take more."""
        for _ in range(_SENT_AT_ONCE_MAX):
            # Asked first: a message that is taken from the driver counts as sent.
            if not _events(socket) & zmq.POLLOUT:
                return False
            outgoing = self._driver.next_message(time.monotonic_ns())
            if outgoing is None:
                return True
            try:
                socket.send(outgoing, zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False  # the connection went in between: the message is lost with it
        self._more = True  # to send; but look at what has come first
        return True

    def _poll_ms(self, writable: bool) -> int:
        if not writable:
            return _UNCONNECTED_POLL_MS
        if self._more:
            self._more = False
            return 0
        due_ns = self._driver.due_ns()
        if due_ns is None:
            return _POLL_MS_MAX
        left_ns = due_ns - time.monotonic_ns()
        return min(_POLL_MS_MAX, max(0, -(-left_ns // 1_000_000)))

    def _sleep_is_over(self) -> None:
        try:
            while self._wake_in.recv(4096):
                pass
        except BlockingIOError:
            pass
        self._woken = False

    def _hear_monitor(self, monitor: zmq.Socket[bytes]) -> None:
        while _events(monitor) & zmq.POLLIN:
            told = recv_monitor_message(monitor)
            if told["event"] == _MADE:
                self._connected = True
                self._driver.connected(self._connected_to or "")
            elif told["event"] == _LOST:
                self._connected = False
                self._driver.disconnected(time.monotonic_ns(), "the connection was closed")
            else:
                self._driver.disconnected(
                    time.monotonic_ns(), "what answers at the address is no logger, or refuses us"
                )

    def _receive_ready(self, socket: zmq.Socket[bytes]) -> None:
        messages: list[bytes] = []
        while len(messages) < _RECEIVED_AT_ONCE_MAX:
            try:
                parts = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            # One frame a message; what has more is not the logger's, and is counted as such.
            messages.append(parts[0] if len(parts) == 1 else b"")
        if messages:
            self._driver.receive(messages, time.monotonic_ns())

    def _say_last_words(self, socket: zmq.Socket[bytes]) -> None:
        outgoing = self._driver.last_words()
        if outgoing is not None and _events(socket) & zmq.POLLOUT:
            socket.send(outgoing, zmq.NOBLOCK)


def _events(socket: zmq.Socket[bytes]) -> int:
    events = socket.getsockopt(zmq.EVENTS)
    assert isinstance(events, int)
    return events
