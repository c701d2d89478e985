"""The event server's socket: a ROUTER that the sources' DEALERs connect to.

It moves whole messages and knows nothing of what is in them. docs/PROTOCOL.md, "Transport".
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Final

import zmq

from dlog.adapters.process_room import require_room_for_sockets
from dlog.adapters.vanished_peers import find_vanished_peers
from dlog.errors import Error
from dlog.limits import MESSAGE_BYTES_MAX

_Context = zmq.Context[zmq.Socket[bytes]]

# High-water marks count messages: the window bounds bytes, this bounds what ignores the window.
RECEIVE_MESSAGES_MAX: Final = 64
SEND_MESSAGES_MAX: Final = 256
MESSAGES_PER_RECEIVE: Final = 32


class EventSocket:
    """`ports.EventLink` on ZeroMQ; bound when made. Raises `Error` where the address is taken."""

    def __init__(self, address: str) -> None:
        require_room_for_sockets()
        self._lock = threading.Lock()  # of the wake descriptor alone
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waits = self._woken = False
        self._context: _Context = zmq.Context()
        # Gigabytes a second go through here, and one I/O thread moves about two of them.
        socket = self._context.socket(zmq.ROUTER)
        self._socket = socket
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
        socket.setsockopt(zmq.RCVHWM, RECEIVE_MESSAGES_MAX)
        socket.setsockopt(zmq.SNDHWM, SEND_MESSAGES_MAX)
        socket.setsockopt(zmq.LINGER, 0)
        find_vanished_peers(socket)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise Error(f"event_address {address}: {error}") from error
        self._address = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(self._wake, zmq.POLLIN)

    @property
    def address(self) -> str:
        return self._address

    def receive(self, timeout_ms: int) -> list[tuple[bytes, memoryview, str]]:
        messages: list[tuple[bytes, memoryview, str]] = []
        # Who wakes us says so before he looks whether we wait, and we wait before we look.
        self._waits = True
        ready = dict(self._poller.poll(0 if self._woken else timeout_ms))
        self._waits = self._woken = False
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        # Asked, and not tried: an exception for each time that nothing is left costs more.
        there = self._socket in ready
        while there and len(messages) < MESSAGES_PER_RECEIVE:
            try:
                messages.append(self._next())
            except zmq.Again:
                break
            there = bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)
        return messages

    def _next(self) -> tuple[bytes, memoryview, str]:
        peer = self._socket.recv(zmq.NOBLOCK)
        frame = self._socket.recv(zmq.NOBLOCK, copy=False)
        # The view keeps the frame, and so the memory, alive.
        message = frame.buffer
        while frame.more:
            # Messages have one frame: what comes in several is told as one that is malformed.
            frame = self._socket.recv(zmq.NOBLOCK, copy=False)
            message = memoryview(b"")
        return peer, message, _address_of(frame)

    def wake(self) -> None:
        self._woken = True
        if not self._waits:
            return  # a system call would be for nothing
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def send(self, peer: bytes, message: bytes) -> bool:
        try:
            self._socket.send_multipart((peer, message), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            # EHOSTUNREACH: not connected now; EAGAIN: it does not read. The next heartbeat's
            # acknowledgement says all of it again.
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def close(self, linger_ms: int = 0) -> None:
        """Close; what is queued has so long to leave."""
        with self._lock:
            wake, self._wake = self._wake, -1
        if wake >= 0:
            os.close(wake)
        self._socket.close(linger_ms)
        self._context.term()


def _address_of(frame: zmq.Frame) -> str:
    try:
        return str(frame.get("Peer-Address"))
    except zmq.ZMQError:
        return "?"
