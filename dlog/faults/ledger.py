"""What the sources of a play sent, what was found wrong, and whether a fault lasts. It looks at no
disk."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """An event in one of its streams."""

    run: int
    stream: str
    number: int
    payload: bytes

    def __str__(self) -> str:
        source = self.payload.partition(b" ")[0].decode(errors="replace")
        return f"run {self.run} {self.stream} event {self.number} of {source}"


class Ledger:
    """Of one play; for any thread. failing: a fault lasts, so that commands may be refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: dict[Piece, str] = {}  # by source
        self._problems: list[str] = []
        self.failing = False

    def event(self, source: str, run: int, streams: Sequence[str], number: int) -> bytes:
        """Note an event that is about to be sent; its payload, which no other event has."""
        head = f"{source} run {run} {'+'.join(streams)} {number} ".encode()
        payload = head + bytes([number % 251]) * (20 + 7 * number)
        with self._lock:
            for stream in streams:
                self._sent[Piece(run, stream, number, payload)] = source
        return payload

    def sent(self) -> dict[Piece, str]:
        with self._lock:
            return dict(self._sent)

    def problem(self, text: str) -> None:
        with self._lock:
            self._problems.append(text)

    def problems(self) -> list[str]:
        with self._lock:
            return list(self._problems)
