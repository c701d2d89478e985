"""A network in between that can be cut and held up: a relay of TCP connections."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from types import TracebackType

from tests.waiting import LONG


class Relay:
    """Forwards every connection to the address it is for. `cut` closes all of them, with whatever
    is under way in them; while it is held nothing gets through, and nobody is told."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._to = (host, int(port))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._held = threading.Event()
        self._stands = threading.Event()  # the thread has seen that it is held
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(LONG)
        self.cut()
        self._server.close()

    def cut(self) -> None:
        with self._lock:
            for each in list(self._pairs):
                each.close()
            self._pairs.clear()

    def hold(self) -> None:
        """Returns when nothing gets through any more."""
        self._stands.clear()
        self._held.set()
        assert self._stands.wait(LONG)

    def let_go(self) -> None:
        self._held.clear()

    def _run(self) -> None:
        while not self._over.is_set():
            with self._lock:
                held = self._held.is_set()
                watched = [self._server, *([] if held else self._pairs)]
            if held:
                self._stands.set()
            with contextlib.suppress(OSError, ValueError):
                for ready in select.select(watched, [], [], 0.02)[0]:
                    self._serve(ready)

    def _serve(self, ready: socket.socket) -> None:
        if ready is self._server:
            here, _ = self._server.accept()
            try:
                there = socket.create_connection(self._to, timeout=LONG)
            except OSError:
                here.close()
                return
            with self._lock:
                self._pairs |= {here: there, there: here}
            return
        other = self._pairs.get(ready)
        if other is None:
            return
        try:
            data = ready.recv(1 << 16)
            if data:
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            with self._lock:
                for each in (ready, other):
                    self._pairs.pop(each, None)
                    each.close()
