"""Writes that go on while their caller does something else: how they fail, when they are over."""

from __future__ import annotations

import errno
import mmap
import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dlog.adapters.buffers import BufferPool
from dlog.adapters.data_files import DataDirectory, EventDataFile
from dlog.adapters.write_behind import BYTES_AT_ONCE_ENOUGH, THREADS_MAX, WorkThreads, WorkUnderWay
from dlog.errors import InvariantBroken, NoThread, StorageError
from dlog.limits import MIB
from dlog.model.ids import Offset
from tests.waiting import LONG

Pwritev = Callable[..., int]


@pytest.fixture
def file(tmp_path: Path) -> EventDataFile:
    root = tmp_path / "data"
    root.mkdir()
    file = DataDirectory(root).create("a.part")
    file.write(Offset(0), memoryview(mmap.mmap(-1, MIB)))
    return file


class Gate:
    """Stands before os.pwritev: nothing is written until it is opened, and then perhaps nothing."""

    def __init__(self, fails: bool) -> None:
        self._write: Pwritev = os.pwritev
        self._fails = fails
        self.opened = threading.Event()

    def __call__(self, fd: int, data: list[memoryview], offset: int) -> int:
        self.opened.wait(LONG)
        if self._fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._write(fd, data, offset)


def gate(monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> Gate:
    made = Gate(fails)
    monkeypatch.setattr(os, "pwritev", made)
    return made


@pytest.mark.parametrize("end", ["settle", "sync"])
def test_a_write_that_fails_under_way_is_told(
    file: EventDataFile, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    gate(monkeypatch, fails=True).opened.set()
    file.write_behind(Offset(MIB), memoryview(mmap.mmap(-1, MIB)))
    with pytest.raises(StorageError) as failed:
        getattr(file, end)()
    assert failed.value.offset_bytes == MIB


def test_a_file_is_closed_when_its_writes_are_over_though_they_fail(
    file: EventDataFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = gate(monkeypatch, fails=True)
    file.write_behind(Offset(MIB), memoryview(mmap.mmap(-1, MIB)))
    file.sync_behind(lambda: None)
    closing = threading.Thread(target=file.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    held.opened.set()
    closing.join(LONG)
    assert not closing.is_alive()


def test_what_is_given_up_is_not_written_at_all(file: EventDataFile) -> None:
    size = file.size()
    file.write_behind(Offset(MIB), memoryview(mmap.mmap(-1, MIB)))
    file.forget()
    assert file.size() == size


def test_a_write_that_fails_under_a_sync_fails_the_sync_and_the_file(
    file: EventDataFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = gate(monkeypatch, fails=True)
    file.write_behind(Offset(MIB), memoryview(mmap.mmap(-1, MIB)))
    over = threading.Event()
    sync = file.sync_behind(over.set)
    assert not sync.is_over()
    held.opened.set()
    with pytest.raises(StorageError) as failed:
        sync.wait()
    assert failed.value.offset_bytes == MIB
    assert over.wait(LONG)
    with pytest.raises(StorageError):
        file.sync_behind(lambda: None).wait()
    with pytest.raises(StorageError, match="earlier write failed"):
        file.write(Offset(2 * MIB), memoryview(mmap.mmap(-1, MIB)))


def test_a_sync_does_not_wait_for_what_was_written_behind_it(
    file: EventDataFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = file.sync_behind(lambda: None)
    held = gate(monkeypatch)
    file.write_behind(Offset(MIB), memoryview(mmap.mmap(-1, MIB)))
    sync.wait()
    later = file.sync_behind(lambda: None)
    assert not later.is_over()
    held.opened.set()
    later.wait()


def test_a_sync_that_fails_is_told_to_each_that_follows(
    file: EventDataFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fail)
    over = threading.Event()
    first = file.sync_behind(over.set)
    assert over.wait(LONG)
    monkeypatch.undo()
    second = file.sync_behind(lambda: None)
    for sync in (second, first):
        with pytest.raises(StorageError):
            sync.wait()


def test_memory_is_used_again_once_its_write_is_settled(file: EventDataFile) -> None:
    pool = BufferPool()
    for i in range(1, 9):
        buffer = pool.take(MIB)
        file.write_behind(Offset(i * MIB), buffer.view[:MIB])
        file.settle()
        buffer.release()
    assert (pool.dropped_in_use, pool.idle_bytes) == (0, MIB)


def test_memory_is_used_again_once_its_sync_is_over(file: EventDataFile) -> None:
    pool = BufferPool()
    for i in range(1, 30, 3):
        buffers = [pool.take(MIB) for _ in range(3)]
        for j, buffer in enumerate(buffers):
            file.write_behind(Offset((i + j) * MIB), buffer.view[:MIB])
        file.sync_behind(lambda: None).wait()
        for buffer in buffers:
            buffer.release()
    assert (pool.dropped_in_use, pool.idle_bytes) == (0, 3 * MIB)


def test_memory_is_used_again_after_a_write_that_failed(
    file: EventDataFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = BufferPool()
    gate(monkeypatch, fails=True).opened.set()
    buffer = pool.take(MIB)
    file.write_behind(Offset(MIB), buffer.view[:MIB])
    sync = file.sync_behind(lambda: None)
    with pytest.raises(StorageError):
        sync.wait()
    buffer.release()
    assert pool.dropped_in_use == 0


def test_memory_that_is_not_aligned_is_written_too(file: EventDataFile) -> None:
    memory = memoryview(mmap.mmap(-1, 2 * MIB))
    memory[:] = bytes(range(256)) * (2 * MIB // 256)
    for i in range(1, 4):
        file.write_behind(Offset(i * MIB), memory[i : i + MIB])
    file.sync_behind(lambda: None).wait()
    for i in range(1, 4):
        assert file.read(Offset(i * MIB), MIB) == bytes(memory[i : i + MIB])


def test_pieces_that_lie_behind_each_other_are_written_at_once(
    file: EventDataFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    write: Pwritev = os.pwritev

    def count(fd: int, data: list[memoryview], offset: int) -> int:
        seen.append((offset, len(data)))
        # As on a disk about to be full: inside the second piece.
        return write(fd, [data[0], data[1][:4096]] if len(data) > 2 else data, offset)

    monkeypatch.setattr(os, "pwritev", count)
    memory = memoryview(mmap.mmap(-1, 4 * MIB))
    for i in range(4):
        memory[i * MIB : (i + 1) * MIB] = bytes([i + 1]) * MIB
        at = i + 1 if i < 3 else 7
        file.write_behind(Offset(at * MIB), memory[i * MIB : (i + 1) * MIB])
    file.sync_behind(lambda: None).wait()
    assert seen == [(MIB, 3), (2 * MIB + 4096, 2), (7 * MIB, 1)]
    for i in range(3):
        assert set(file.read(Offset((i + 1) * MIB), MIB)) == {i + 1}
    assert set(file.read(Offset(7 * MIB), MIB)) == {4}


def test_who_waited_for_a_write_has_its_memory_alone() -> None:
    """Also before the thread that wrote has come any further."""

    class Memory:
        pass

    memory = Memory()
    looked_at = weakref.ref(memory)
    write = WorkUnderWay(partial(lambda memory: None, memory))
    del memory
    write.run()
    assert write.outcome() is None
    assert looked_at() is None


def test_what_is_no_failure_of_storage_is_raised() -> None:
    def write() -> None:
        raise InvariantBroken("a program's mistake")

    under_way = WorkThreads().begin(write)
    with pytest.raises(InvariantBroken):
        under_way.wait()


def test_many_writes_share_a_few_threads() -> None:
    opened = threading.Event()
    workers = WorkThreads()
    seen: set[int] = set()

    def write() -> None:
        opened.wait(LONG)
        seen.add(threading.get_ident())

    under_way = [workers.begin(write) for _ in range(5 * THREADS_MAX)]
    opened.set()
    assert [each.outcome() for each in under_way] == [None] * len(under_way)
    assert len(seen) <= THREADS_MAX


def test_a_disk_is_given_enough_at_once_and_no_more() -> None:
    workers = WorkThreads()
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def write() -> None:
        begun.release()
        go_on.acquire(timeout=LONG)

    enough = BYTES_AT_ONCE_ENOUGH // (8 * MIB)
    under_way = [workers.begin(write, None, 8 * MIB) for _ in range(2 * enough)]
    assert all(begun.acquire(timeout=LONG) for _ in range(enough))
    for _ in range(enough):
        assert not begun.acquire(timeout=0.05)
        go_on.release()
        assert begun.acquire(timeout=LONG)
    for _ in range(enough):
        go_on.release()
    assert [each.outcome() for each in under_way] == [None] * len(under_way)


def test_one_that_is_larger_than_enough_is_written_too() -> None:
    workers = WorkThreads()
    order: list[int] = []
    sizes = [MIB, 3 * BYTES_AT_ONCE_ENOUGH, 0, BYTES_AT_ONCE_ENOUGH, MIB]
    for each in [workers.begin(partial(order.append, size), None, size) for size in sizes]:
        assert each.outcome() is None
    assert sorted(order) == sorted(sizes)


def test_small_ones_go_side_by_side() -> None:
    """Many slow streams: the filesystem takes their syncs together."""
    workers, together = WorkThreads(), threading.Barrier(THREADS_MAX)

    def write() -> None:
        together.wait(LONG)

    for each in [workers.begin(write, None, MIB) for _ in range(THREADS_MAX)]:
        assert each.outcome() is None


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_what_is_queued_stays_so_where_no_thread_can_be_started(
    file: EventDataFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_behind(Offset(MIB), memoryview(mmap.mmap(-1, MIB)))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            file.sync_behind(lambda: None)
    size = file.size()
    file.sync_behind(lambda: None).wait()
    assert file.size() == max(size, 2 * MIB)


def test_a_shortage_of_threads_shows_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = WorkThreads()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(NoThread, match="can't start new thread"):
            workers.prepare()
    workers.prepare()
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    workers.begin(lambda: None).wait()


def test_the_threads_that_there_are_do_the_work_where_no_other_can_be_started(
    file: EventDataFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = gate(monkeypatch)
    file.write_behind(Offset(MIB), memoryview(mmap.mmap(-1, MIB)))
    first = file.sync_behind(lambda: None)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    second = file.sync_behind(lambda: None)
    held.opened.set()
    first.wait()
    second.wait()
