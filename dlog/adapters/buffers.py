"""The pool of page-aligned memory that blocks are built in; it never decides how much is in use.

How much is out at once is bounded by admission; how much lies idle here is bounded by the pool.
Memory comes in slabs, in huge pages where the system has them: to look up each small page costs the
copy into a block, and the disk's adapter, a twentieth of all.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
import threading
from typing import Final

from dlog.errors import InvariantBroken
from dlog.limits import BLOCK_BYTES_MAX, KIB, MEMORY_BYTES_DEFAULT, MIB, PAGE_BYTES

# The smallest class; below it the saving would not be worth a class of its own.
_SMALLEST_BYTES: Final = 16 * PAGE_BYTES
# Of about so many bytes, for the classes from which on it matters.
_SLAB_BYTES: Final = 8 * MIB
_SLICED_BYTES_MIN: Final = 512 * KIB
HUGE_PAGE_BYTES: Final = 2 * MIB


class PooledBuffer:
    """A part of a slab, lent to one owner at a time."""

    __slots__ = ("_owner", "_pool", "_references", "_slab", "_start", "_there", "_view")

    def __init__(self, pool: BufferPool, slab: mmap.mmap, start: int, size: int) -> None:
        self._pool = pool
        self._slab = slab
        self._start = start
        self._owner = (ctypes.c_char * size).from_buffer(slab, start)
        # What refers to it while nothing is lent: see `is_unused`.
        self._references = sys.getrefcount(self._owner)
        self._there = False
        self._view: memoryview | None = None

    @property
    def capacity(self) -> int:
        return len(self._owner)

    @property
    def view(self) -> memoryview:
        if self._view is None:
            raise InvariantBroken("a buffer was used after it was given back")
        return self._view

    def release(self) -> None:
        view, self._view = self._view, None
        if view is None:
            raise InvariantBroken("a buffer was given back twice")
        with contextlib.suppress(BufferError):  # an array still looks into it: see `is_unused`
            view.release()
        del view
        self._pool.take_back(self)

    def lend(self) -> PooledBuffer:
        self._view = memoryview(self._owner).cast("B")
        if not self._there:
            # Now, so that no page fault falls into the building of a block.
            self._view[::PAGE_BYTES] = bytes(-(-self.capacity // PAGE_BYTES))
            self._there = True
        return self

    def forget(self) -> None:
        """Give its pages back to the system; they are zeros when it is lent again."""
        self._slab.madvise(mmap.MADV_DONTNEED, self._start, self.capacity)
        self._there = False

    def is_unused(self) -> bool:
        """Whether no slice and no array looks into the memory any more: each holds a reference.

        A piece that is still in use somewhere must not change under its reader: then the buffer is
        left aside until the last piece of it is gone.
        """
        return sys.getrefcount(self._owner) == self._references


def map_memory(size: int) -> mmap.mmap:
    """So many bytes of new memory or more, page-aligned, in huge pages where it is that large."""
    if size >= _SLICED_BYTES_MIN:
        # Else the system may put it where no huge page begins.
        size += -size % HUGE_PAGE_BYTES
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


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
        self._empty: dict[int, list[PooledBuffer]] = {}  # without pages
        self._looked_at: list[PooledBuffer] = []  # given back while something looked into them
        self._idle_bytes = 0
        self._lent_bytes = 0
        self._dropped_in_use = 0

    def take(self, size: int) -> PooledBuffer:
        if not 0 < size <= self._buffer_bytes_max:
            raise InvariantBroken(f"a buffer of {size} bytes; 1 to {self._buffer_bytes_max} can be")
        capacity = size_class(size)
        with self._lock:
            idle = self._idle[capacity] = self._idle.pop(capacity, [])
            if idle:
                buffer = idle.pop()
                self._idle_bytes -= capacity
            else:
                buffer = self._empty_one(capacity)
            self._lent_bytes += capacity
        return buffer.lend()

    def _empty_one(self, capacity: int) -> PooledBuffer:
        """With the lock."""
        empty = self._empty.setdefault(capacity, [])
        if not empty:
            self._look_again()
        if not empty:
            empty += self._slab(capacity)
        return empty.pop()

    def _slab(self, capacity: int) -> list[PooledBuffer]:
        count = 1
        if capacity >= _SLICED_BYTES_MIN:
            count = max(1, _SLAB_BYTES // capacity)
        slab = map_memory(count * capacity)
        return [PooledBuffer(self, slab, i * capacity, capacity) for i in range(count)]

    def _look_again(self) -> None:
        """With the lock: what was looked into may be free by now."""
        free = [buffer for buffer in self._looked_at if buffer.is_unused()]
        self._looked_at = [buffer for buffer in self._looked_at if buffer not in free]
        self._make_empty(free)

    def take_back(self, buffer: PooledBuffer) -> None:
        """Called by the buffer's `release` alone."""
        with self._lock:
            self._lent_bytes -= buffer.capacity
            if not buffer.is_unused():
                self._dropped_in_use += 1
                self._looked_at.append(buffer)
                return
            self._idle.setdefault(buffer.capacity, []).append(buffer)
            self._idle_bytes += buffer.capacity
            self._make_empty(self._drop())

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

    def _make_empty(self, buffers: list[PooledBuffer]) -> None:
        for buffer in buffers:
            buffer.forget()
            self._empty.setdefault(buffer.capacity, []).append(buffer)

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
