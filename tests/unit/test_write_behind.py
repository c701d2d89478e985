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
from dlog.adapters.write_behind import THREADS_MAX, WriteThreads, WriteUnderWay
from dlog.errors import InvariantBroken, StorageError
from dlog.limits import MIB
from dlog.model.ids import Offset

Pwrite = Callable[..., int]


@pytest.fixture
def file(tmp_path: Path) -> EventDataFile:
    root = tmp_path / "data"
    root.mkdir()
    file = DataDirectory(root).create("a.part")
    file.write_behind(Offset(0), memoryview(mmap.mmap(-1, MIB)))  # the first one is waited for
    return file


class Gate:
    """Stands before os.pwrite: nothing is written until it is opened, and then perhaps nothing."""

    def __init__(self, fails: bool) -> None:
        self._write: Pwrite = os.pwrite
        self._fails = fails
        self.opened = threading.Event()

    def __call__(self, fd: int, data: memoryview, offset: int) -> int:
        self.opened.wait(10)
        if self._fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._write(fd, data, offset)


def gate(monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> Gate:
    made = Gate(fails)
    monkeypatch.setattr(os, "pwrite", made)
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
    closing = threading.Thread(target=file.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    held.opened.set()
    closing.join(10)
    assert not closing.is_alive()


def test_memory_is_used_again_once_its_write_is_settled(file: EventDataFile) -> None:
    pool = BufferPool()
    for i in range(1, 9):
        buffer = pool.take(MIB)
        file.write_behind(Offset(i * MIB), buffer.view[:MIB])
        file.settle()
        buffer.release()
    assert (pool.dropped_in_use, pool.idle_bytes) == (0, MIB)


def test_who_waited_for_a_write_has_its_memory_alone() -> None:
    """Also before the thread that wrote has come any further."""

    class Memory:
        pass

    memory = Memory()
    looked_at = weakref.ref(memory)
    write = WriteUnderWay(partial(lambda memory: None, memory))
    del memory
    write.run()
    assert write.wait() is None
    assert looked_at() is None


def test_what_is_no_failure_of_storage_is_raised() -> None:
    def write() -> None:
        raise InvariantBroken("a program's mistake")

    under_way = WriteThreads().begin(write)
    with pytest.raises(InvariantBroken):
        under_way.wait()


def test_many_writes_share_a_few_threads() -> None:
    opened = threading.Event()
    writers = WriteThreads()
    seen: set[int] = set()

    def write() -> None:
        opened.wait(10)
        seen.add(threading.get_ident())

    under_way = [writers.begin(write) for _ in range(5 * THREADS_MAX)]
    opened.set()
    assert [each.wait() for each in under_way] == [None] * len(under_way)
    assert len(seen) <= THREADS_MAX
