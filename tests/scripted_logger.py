"""The logger model on a real socket, for tests of a source with its link. It owns a thread; what a
test wants to change in the model it lets that thread do."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

import zmq

from tests.logger_model import LoggerModel
from tests.waiting import LONG, until


class ScriptedLogger:
    """A logger model on a ROUTER socket, in a thread of its own. `do` runs something there."""

    def __init__(self, port: int | None = None, *, window_bytes: int = 10**8) -> None:
        self.model = LoggerModel(window_bytes=window_bytes)
        self.model.active = {7}
        self.commits = True  # by itself, what it has admitted
        self.deaf = False
        self.mute = False
        self.heard: list[int] = []  # lengths
        self.error: BaseException | None = None
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        bound = f"tcp://127.0.0.1:{port or '*'}"

        def bind() -> bool:
            try:
                self._socket.bind(bound)
            except zmq.ZMQError:
                return False
            return True

        until(bind, f"{bound} stays taken")
        self.address = self._socket.getsockopt(zmq.LAST_ENDPOINT).decode()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - `close` raises it
            self.error = error

    def _serve(self) -> None:
        peer = b""
        beat_at = 0.0
        while not self._stop.is_set():
            while not self._orders.empty():
                self._orders.get()()
            if self._socket.poll(5):
                peer, message = self._socket.recv_multipart()
                self.heard.append(len(message))
                if not self.deaf:
                    self.model.hear(message)
                if self.commits:
                    self.model.commit_all()
                    self.model.acknowledge()
            elif time.monotonic() >= beat_at:
                beat_at = time.monotonic() + 0.05
                self.model.acknowledge()
            for message in self.model.say:
                if peer and not self.mute:
                    self._socket.send_multipart([peer, message])
            self.model.say.clear()

    def do(self, order: Callable[[], None]) -> None:
        """Run it in the logger's thread, and wait for it."""
        done = threading.Event()
        self._orders.put(lambda: (order(), done.set())[0])
        assert done.wait(LONG), self.error

    @property
    def stored(self) -> dict[tuple[int, str], list[bytes]]:
        found = self.model.kept.stored
        return {key: [payload for _, _, payload in events] for key, events in found.items()}

    def close(self) -> None:
        self._stop.set()
        self._thread.join(LONG)
        self._socket.close()
        self._context.term()
        if self.error is not None:
            raise self.error
