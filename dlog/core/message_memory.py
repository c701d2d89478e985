"""The memory of a source's messages, used again once nobody looks into it any more.

Fresh memory is paid for page by page when it is first written: that took longer than to copy and to
checksum the events. It does no I/O, and never touches memory that somebody else still refers to.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Final

# Of a full message: what is smaller gets memory of its own size, so that little is kept in vain.
_FULL_PART: Final = 3 / 4
# Once in so many messages, one is dropped of those that lie idle.
_DROP_EVERY: Final = 32


class MessageMemory:
    """For messages of up to `message_bytes`. Those lent out last as long as anyone refers to them;
    they come back in about the order in which they went."""

    def __init__(self, message_bytes: int) -> None:
        self._message_bytes = message_bytes
        self._known: deque[bytearray] = deque()
        self._taken = 0
        # What a reference count says of one that only the deque holds.
        probe = deque([bytearray()])
        self._alone = sys.getrefcount(probe[0])

    def take(self, size: int) -> bytearray | None:
        """Memory of that length with anything in it, or None where a message of that size had
        better be made afresh."""
        self._taken += 1
        if self._taken % _DROP_EVERY == 0:
            self._drop_idle()
        if not _FULL_PART * self._message_bytes <= size <= self._message_bytes:
            return None
        if self._known and self._is_idle(0):
            memory = self._known.popleft()
        else:
            memory = bytearray(self._message_bytes)
        self._known.append(memory)
        # Within its capacity, and above half of it, a bytearray changes its length in place.
        if size < len(memory):
            del memory[size:]
        else:
            memory.extend(bytes(size - len(memory)))
        return memory

    @property
    def known_bytes(self) -> int:
        """Of those lent out, and those that lie idle."""
        return len(self._known) * self._message_bytes

    def _is_idle(self, position: int) -> bool:
        # A queue, a socket that still sends it, a view: each of them is a reference more.
        return sys.getrefcount(self._known[position]) <= self._alone

    def _drop_idle(self) -> None:
        """One of them, where half of all are idle: a queue that was long is short now."""
        if self._known and self._is_idle(0) and self._is_idle(len(self._known) // 2):
            self._known.popleft()
