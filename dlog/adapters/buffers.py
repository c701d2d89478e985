"""The pool of page-aligned memory that blocks are built in; it never decides how much is in use.

How much is out at once is bounded by admission; how much lies idle here is bounded by the pool.
"""

from __future__ import annotations

import contextlib
import mmap
import sys
import threading
from typing import Final

from dlog.errors import InvariantBroken
from dlog.limits import BLOCK_BYTES_MAX, MEMORY_BYTES_DEFAULT, PAGE_BYTES

# The smallest class; below it the saving would not be worth a class of its own.
_SMALLEST_BYTES: Final = 16 * PAGE_BYTES


class PooledBuffer:
    """One anonymous mapping, lent to one owner at a time."""

    __slots__ = ("_memory", "_pool", "_references", "_view")

    def __init__(self, pool: BufferPool, size: int) -> None:
        self._pool = pool
        # Populated now, so that no page fault falls into the building of a block.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)
        self._memory = mmap.mmap(-1, size, flags=flags)
        # What refers to the mapping while nothing is lent: see `_is_unused`.
        self._references = sys.getrefcount(self._memory)
        self._view: memoryview | None = None

    @property
    def capacity(self) -> int:
        return len(self._memory)

    @property
    def view(self) -> memoryview:
        if self._view is None:
            raise InvariantBroken("a buffer was used after it was given back")
        return self._view

    def release(self) -> None:
        view, self._view = self._view, None
        if view is None:
            raise InvariantBroken("a buffer was given back twice")
        with contextlib.suppress(BufferError):  # an array still looks into it: see `_is_unused`
            view.release()
        del view
        self._pool.take_back(self, reusable=self._is_unused())

    def lend(self) -> PooledBuffer:
        self._view = memoryview(self._memory)
        return self

    def _is_unused(self) -> bool:
        """Whether no slice and no array looks into the memory any more: each holds a reference.

        A piece that is still in use somewhere must not change under its reader: then the buffer is
        dropped, and its memory goes when the last piece of it does.
        """
        return sys.getrefcount(self._memory) == self._references


def size_class(size: int) -> int:
    """The capacity of the buffer that so many bytes get: an eighth is wasted at most."""
    if size <= _SMALLEST_BYTES:
        return _SMALLEST_BYTES
    step = 1 << (size - 1).bit_length() - 4
    return -(-size // step) * step


class BufferPool:
    """Buffers in size classes, eight for each power of two; safe to use from any thread."""

    def __init__(
        self,
        *,
        idle_bytes_max: int = MEMORY_BYTES_DEFAULT // 4,
        buffer_bytes_max: int = BLOCK_BYTES_MAX,
    ) -> None:
        self._idle_bytes_max = idle_bytes_max
        self._buffer_bytes_max = buffer_bytes_max
        self._lock = threading.Lock()
        # Classes in the order in which they were last used.
        self._idle: dict[int, list[PooledBuffer]] = {}
        self._idle_bytes = 0
        self._lent_bytes = 0
        self._dropped_in_use = 0

    def take(self, size: int) -> PooledBuffer:
        if not 0 < size <= self._buffer_bytes_max:
            raise InvariantBroken(f"a buffer of {size} bytes; 1 to {self._buffer_bytes_max} can be")
        capacity = size_class(size)
        with self._lock:
            idle = self._idle[capacity] = self._idle.pop(capacity, [])
            buffer = idle.pop() if idle else None
            if buffer is not None:
                self._idle_bytes -= capacity
            self._lent_bytes += capacity
        return (buffer or PooledBuffer(self, capacity)).lend()

    def take_back(self, buffer: PooledBuffer, *, reusable: bool) -> None:
        """Called by the buffer's `release` alone."""
        with self._lock:
            self._lent_bytes -= buffer.capacity
            if not reusable:
                self._dropped_in_use += 1
                return
            self._idle.setdefault(buffer.capacity, []).append(buffer)
            self._idle_bytes += buffer.capacity
            dropped = self._drop()
        dropped.clear()  # its memory goes here, without the lock

    def _drop(self) -> list[PooledBuffer]:
        """With the lock: what is too much, of the classes that were not asked for the longest."""
        dropped = []
        while self._idle_bytes > self._idle_bytes_max:
            capacity, idle = next(iter(self._idle.items()))
            if idle:
                dropped.append(idle.pop())
                self._idle_bytes -= capacity
            else:
                del self._idle[capacity]
        return dropped

    @property
    def idle_bytes(self) -> int:
        """Memory kept for the next takers."""
        with self._lock:
            return self._idle_bytes

    @property
    def lent_bytes(self) -> int:
        """Memory that is out, counted in whole size classes."""
        with self._lock:
            return self._lent_bytes

    @property
    def dropped_in_use(self) -> int:
        """Buffers given back while something still looked into them; more than 0 is a fault."""
        with self._lock:
            return self._dropped_in_use
