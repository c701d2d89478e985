"""What every event file promises about its bytes, real and simulated alike."""

from __future__ import annotations

import mmap
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlog.errors import InvariantBroken, StorageError
from dlog.limits import MIB, PAGE_BYTES
from dlog.model.ids import Offset
from dlog.ports import DataFile, Directory
from tests.waiting import LONG, until


def pages(count: int, fill: int = 7) -> memoryview:
    return memoryview(bytes([fill]) * (count * PAGE_BYTES))


@pytest.fixture
def file(directory: Directory) -> DataFile:
    return directory.create("runs/1/a.part")


def test_pages_are_read_back_where_they_were_written(file: DataFile) -> None:
    file.write(Offset(0), pages(1, 1))
    file.write(Offset(PAGE_BYTES), pages(3, 2))
    file.sync()
    assert file.size() == 4 * PAGE_BYTES
    assert file.read(Offset(PAGE_BYTES - 2), 4) == b"\1\1\2\2"


def test_aligned_and_unaligned_memory_are_written_alike(file: DataFile) -> None:
    memory = mmap.mmap(-1, 4 * PAGE_BYTES)
    memory[:] = bytes(range(256)) * (len(memory) // 256)
    aligned = memoryview(memory)
    file.write(Offset(0), aligned)
    file.write(Offset(4 * PAGE_BYTES), aligned[256 : 256 + 3 * PAGE_BYTES])
    file.write(Offset(7 * PAGE_BYTES), aligned[:PAGE_BYTES].toreadonly())
    file.sync()
    wanted = bytes(aligned) + bytes(aligned[256 : 256 + 3 * PAGE_BYTES])
    assert file.read(Offset(0), 7 * PAGE_BYTES) == wanted
    assert file.read(Offset(7 * PAGE_BYTES), PAGE_BYTES) == bytes(aligned[:PAGE_BYTES])


def test_a_write_larger_than_any_inner_buffer_is_whole(file: DataFile) -> None:
    content = bytes(range(256)) * ((3 * MIB + 5 * PAGE_BYTES) // 256)
    file.write(Offset(0), memoryview(content))
    file.sync()
    assert file.read(Offset(0), len(content) + 1) == content


@pytest.mark.parametrize(
    ("offset", "size"), [(1, PAGE_BYTES), (0, 1), (512, 512), (PAGE_BYTES, PAGE_BYTES + 512)]
)
def test_anything_but_whole_pages_is_refused(file: DataFile, offset: int, size: int) -> None:
    with pytest.raises(InvariantBroken):
        file.write(Offset(offset), memoryview(bytes(size)))
    assert file.size() == 0


def test_reading_past_the_end_gives_what_is_there(file: DataFile) -> None:
    file.write(Offset(0), pages(2))
    assert file.read(Offset(PAGE_BYTES), 10 * PAGE_BYTES) == bytes(pages(1))
    assert file.read(Offset(2 * PAGE_BYTES), 10) == b""
    assert file.read(Offset(10 * PAGE_BYTES), 10) == b""
    assert file.read(Offset(0), 0) == b""


def test_reserved_space_reads_as_zeros_and_is_not_data(file: DataFile) -> None:
    file.write(Offset(0), pages(1))
    file.reserve(Offset(MIB))
    file.sync()
    assert file.size() == MIB
    assert file.read(Offset(PAGE_BYTES), MIB) == bytes(MIB - PAGE_BYTES)
    data = file.data_extents(Offset(0), Offset(MIB))
    assert data[0][0] == 0
    assert data[0][1] >= PAGE_BYTES


def test_reserving_never_shrinks_nor_clears(file: DataFile) -> None:
    file.write(Offset(0), pages(4))
    file.reserve(Offset(PAGE_BYTES))
    file.reserve(Offset(8 * PAGE_BYTES))
    assert file.size() == 8 * PAGE_BYTES
    assert file.read(Offset(0), 4 * PAGE_BYTES) == bytes(pages(4))


def test_data_extents_cover_all_that_is_not_zero(file: DataFile) -> None:
    file.reserve(Offset(64 * PAGE_BYTES))
    file.write(Offset(4 * PAGE_BYTES), pages(2))
    file.write(Offset(40 * PAGE_BYTES), pages(1))
    file.sync()
    begin, end = Offset(5 * PAGE_BYTES), Offset(60 * PAGE_BYTES)
    extents = file.data_extents(begin, end)
    assert all(begin <= first < after <= end for first, after in extents)
    for page in (5, 40):
        assert any(
            first <= page * PAGE_BYTES and (page + 1) * PAGE_BYTES <= after
            for first, after in extents
        )
    assert file.data_extents(Offset(70 * PAGE_BYTES), Offset(80 * PAGE_BYTES)) == []


def test_a_cut_removes_the_tail_for_good(file: DataFile) -> None:
    file.write(Offset(0), pages(4))
    file.reserve(Offset(MIB))
    file.sync()
    file.cut(Offset(PAGE_BYTES))
    assert file.size() == PAGE_BYTES
    file.reserve(Offset(4 * PAGE_BYTES))
    assert file.read(Offset(0), MIB) == bytes(pages(1)) + bytes(3 * PAGE_BYTES)


def test_a_cut_that_is_not_on_a_page_can_be_reserved_behind(file: DataFile) -> None:
    file.write(Offset(0), pages(2))
    file.cut(Offset(100))
    file.reserve(Offset(2 * PAGE_BYTES))
    assert file.read(Offset(0), MIB) == bytes(pages(1)[:100]) + bytes(2 * PAGE_BYTES - 100)


def test_a_closed_file_is_not_used(file: DataFile) -> None:
    file.close()
    file.close()
    with pytest.raises(StorageError):
        file.write(Offset(0), pages(1))
    with pytest.raises(StorageError):
        file.sync()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    writes=st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 6), st.integers(1, 255)), max_size=8
    ),
    reads=st.lists(st.tuples(st.integers(0, 40 * PAGE_BYTES), st.integers(0, MIB)), max_size=4),
)
def test_it_behaves_as_an_array_of_bytes(
    directory: Directory, writes: list[tuple[int, int, int]], reads: list[tuple[int, int]]
) -> None:
    path = f"f{len(directory.names(''))}"
    file = directory.create(path)
    model = bytearray()
    for page, count, fill in writes:
        begin = page * PAGE_BYTES
        file.write(Offset(begin), pages(count, fill))
        model.extend(bytes(max(0, begin + count * PAGE_BYTES - len(model))))
        model[begin : begin + count * PAGE_BYTES] = pages(count, fill)
    for offset, size in [*reads, (0, len(model) + 1)]:
        assert file.read(Offset(offset), size) == model[offset : offset + size]
    file.close()


# --- writes that their caller does not wait for --------------------------------------------------


def test_what_is_written_behind_is_there_once_it_is_settled(file: DataFile) -> None:
    size = 512 * 1024
    memory = mmap.mmap(-1, 12 * size)
    view = memoryview(memory)
    for i in range(12):
        view[i * size : (i + 1) * size] = bytes([i + 1]) * size
        file.write_behind(Offset(i * size), view[i * size : (i + 1) * size])
    file.settle()
    view[:] = bytes(len(view))  # it is the caller's again
    file.sync()
    for i in range(12):
        assert set(file.read(Offset(i * size), size)) == {i + 1}


def test_settling_what_was_never_begun_is_nothing(file: DataFile) -> None:
    file.settle()
    file.sync()
    file.close()
    file.close()


# --- syncs that their caller does not wait for ---------------------------------------------------


def test_a_sync_behind_tells_when_it_is_over(file: DataFile) -> None:
    over = threading.Event()
    file.write(Offset(0), pages(3))
    sync = file.sync_behind(over.set)
    sync.wait()
    assert over.wait(LONG)
    assert sync.is_over()
    sync.wait()
    file.write(Offset(3 * PAGE_BYTES), pages(1))
    file.sync()
    file.close()


def test_who_looks_again_finds_a_sync_behind_over(file: DataFile) -> None:
    file.write(Offset(0), pages(3))
    sync = file.sync_behind(lambda: None)
    until(sync.is_over)


def test_writing_goes_on_under_a_sync(file: DataFile) -> None:
    begun = []
    for i in range(20):
        file.write_behind(Offset(i * MIB), memoryview(mmap.mmap(-1, MIB)))
        begun.append(file.sync_behind(lambda: None))
    for sync in begun:
        sync.wait()
    assert file.size() == 20 * MIB


def test_a_sync_is_not_over_before_the_one_that_was_begun_before_it(file: DataFile) -> None:
    """A stream begins a small one beside another: what it tells of must have no gap before it."""
    memory = memoryview(mmap.mmap(-1, 32 * MIB))
    for i in range(5):
        begin = i * 33 * MIB
        file.write_behind(Offset(begin), memory)
        large = file.sync_behind(lambda: None)
        file.write_behind(Offset(begin + 32 * MIB), pages(1))
        file.sync_behind(lambda: None).wait()
        assert large.is_over()


def test_what_is_given_up_is_written_no_more(file: DataFile) -> None:
    file.write(Offset(0), pages(3, fill=1))
    file.sync_behind(lambda: None)
    memory = mmap.mmap(-1, 2 * MIB)
    file.write_behind(Offset(MIB), memoryview(memory))
    file.forget()
    memory[:] = b"\7" * len(memory)  # the caller's again
    assert 7 not in file.read(Offset(0), 4 * MIB)
    for use in (lambda: file.write(Offset(0), pages(1)), file.sync):
        with pytest.raises(StorageError):
            use()


def test_a_file_is_closed_under_a_sync(file: DataFile) -> None:
    file.write(Offset(0), pages(3))
    file.sync_behind(lambda: None)
    file.close()
    with pytest.raises(StorageError):
        file.write(Offset(0), pages(1))


def test_memory_is_the_callers_again_after_a_sync_behind(file: DataFile) -> None:
    size = 512 * 1024
    memory = mmap.mmap(-1, size)
    memory[:] = b"\7" * size
    file.write_behind(Offset(0), memoryview(memory))
    file.sync_behind(lambda: None).wait()
    memory[:] = bytes(size)
    file.sync()
    assert set(file.read(Offset(0), size)) == {7}
