"""What a real filesystem does to data directories and event files, and what they make of it."""

from __future__ import annotations

import mmap
import os
import resource
import stat
import subprocess
from pathlib import Path

import pytest

from dlog.adapters.data_files import DataDirectory, rename_by_link
from dlog.errors import DataDirectoryGone, DiskFull, NameTaken, NoDescriptor, StorageError
from dlog.limits import KIB, MIB, PAGE_BYTES
from dlog.model.ids import Offset
from tests.rig.commands import run_python
from tests.rig.filesystems import Hog

PAGE = memoryview(b"\7" * PAGE_BYTES)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    return root


def traced(program: str, root: Path, *, tracer: list[str]) -> list[str]:
    """Run a program on the directory under the tracer; its lines and its end."""
    return run_python(_OPENING + program, root, tracer=tracer)


_OPENING = """
import sys
from pathlib import Path
from dlog.adapters.data_files import DataDirectory
from dlog.errors import DlogError
directory = DataDirectory(Path(sys.argv[1]))
page = memoryview(bytearray(b"\\7" * 4096))
def attempt(call):
    try:
        call()
        print("done")
    except DlogError as error:
        print(type(error).__name__, error.offset_bytes, error.reason)
"""


# --- durability -------------------------------------------------------------------------------


def test_every_new_name_is_synced_level_by_level(strace: str, root: Path) -> None:
    log = root.with_name("calls")
    tracer = [strace, "-y", "-o", str(log), "-e", "trace=mkdirat,fsync,openat,renameat2,linkat"]
    program = """
directory.create("runs/1/a.part").close()
directory.create("runs/1/b.part").close()
directory.rename("runs/1/a.part", "quarantine/a")
directory.write_new("runs/1/b.json", b"x")
"""
    assert traced(program, root, tracer=tracer) == ["exit 0"]
    said = []
    for line in log.read_text().splitlines():
        call = line.partition("(")[0]
        if call == "fsync":
            path = line.partition("<")[2].partition(">")[0]
            said.append(f"fsync {Path(path).relative_to(root.resolve())}")
        elif call in ("mkdirat", "renameat2", "linkat") or "O_EXCL" in line:
            said.append(call)
    unnamed = said[-3]
    assert unnamed.startswith("fsync runs/1/")  # the small file, before it has a name
    assert said == [
        *("mkdirat", "fsync .", "mkdirat", "fsync runs"),
        *("openat", "fsync runs/1/a.part", "fsync runs/1"),
        *("mkdirat", "mkdirat", "openat", "fsync runs/1/b.part", "fsync runs/1"),
        *("mkdirat", "fsync .", "renameat2", "fsync quarantine", "fsync runs/1"),
        *("mkdirat", "mkdirat", unnamed, "linkat", "fsync runs/1"),
    ]


def test_a_folder_left_by_a_process_that_died_is_made_durable(strace: str, root: Path) -> None:
    (root / "runs").mkdir()
    log = root.with_name("calls")
    tracer = [strace, "-y", "-o", str(log), "-e", "trace=fsync"]
    traced('directory.create("runs/a").close()', root, tracer=tracer)
    first = log.read_text().splitlines()[0]
    assert f"<{root.resolve()}>" in first


def test_a_failed_sync_is_never_retried(strace: str, root: Path) -> None:
    tracer = [strace, "-o", os.devnull, "-e", "inject=fdatasync:error=EIO:when=1"]
    program = """
file = directory.create("a")
file.write(0, page)
attempt(file.sync)
attempt(file.sync)
attempt(lambda: file.write(4096, page))
attempt(lambda: file.reserve(8192))
attempt(lambda: file.cut(0))
print(len(file.read(0, 8192)))
"""
    said = traced(program, root, tracer=tracer)
    assert said[0] == "StorageError 0 Input/output error"
    assert all("an earlier sync failed: Input/output error" in line for line in said[1:5])
    assert said[5:] == ["4096", "exit 0"]


def test_a_failed_cut_is_never_retried(strace: str, root: Path) -> None:
    # The first two syncs are of creating it.
    tracer = [strace, "-o", os.devnull, "-e", "inject=fsync:error=EIO:when=3"]
    program = """
file = directory.create("a")
file.write(0, page)
attempt(lambda: file.cut(0))
attempt(file.sync)
"""
    said = traced(program, root, tracer=tracer)
    assert said[0] == "StorageError 0 Input/output error"
    assert "an earlier sync failed" in said[1]


@pytest.mark.parametrize(("error", "name"), [("EIO", "StorageError"), ("ENOSPC", "DiskFull")])
def test_a_failed_write_tells_where(strace: str, root: Path, error: str, name: str) -> None:
    tracer = [strace, "-o", os.devnull, "-e", f"inject=pwritev2:error={error}:when=2"]
    program = """
file = directory.create("a")
file.write(0, page)
attempt(lambda: file.write(4096, page))
"""
    said = traced(program, root, tracer=tracer)
    assert said[0].startswith(f"{name} 4096 ")


def test_a_short_write_is_continued(strace: str, root: Path) -> None:
    # The kernel is told of 512 bytes where 4096 are given, as on a disk about to be full.
    log = root.with_name("calls")
    tracer = [strace, "-o", str(log), "-e", "trace=pwritev2"]
    tracer += ["-e", "inject=pwritev2:retval=512:when=1"]
    program = """
file = directory.create("a")
file.write(0, page)
"""
    assert traced(program, root, tracer=tracer) == ["exit 0"]
    assert "iov_len=3584}], 1, 512, 0)" in log.read_text().splitlines()[1]


@pytest.mark.parametrize("call", ["link", "fsync", "write", "fchmod"])
def test_a_small_file_is_there_whole_or_not_at_all(strace: str, root: Path, call: str) -> None:
    call = "linkat" if call == "link" else call
    tracer = [strace, "-o", os.devnull, "-e", f"inject={call}:signal=SIGKILL:when=1"]
    program = 'directory.write_new("a", bytes(100_000))'
    assert traced(program, root, tracer=tracer) == ["exit -9"]
    assert os.listdir(root) == []
    DataDirectory(root).write_new("a", b"again")
    assert DataDirectory(root).read_all("a", 10) == b"again"


def test_small_files_are_written_where_unnamed_files_are_not_to_be_had(
    strace: str, root: Path
) -> None:
    (root / "a.new").write_bytes(b"left by a process that died")
    tracer = [strace, "-o", os.devnull, "-P", f"{root}", "-e", "trace=openat"]
    # The root first, then ".": the only openings of this path.
    tracer += ["-e", "inject=openat:error=EOPNOTSUPP:when=3"]
    program = """
attempt(lambda: directory.write_new("a", b"content"))
attempt(lambda: directory.write_new("a", b"other"))
"""
    said = traced(program, root, tracer=tracer)
    if said[0] != "done":
        pytest.skip(f"this strace counts openings otherwise: {said}")
    assert said[1].startswith("NameTaken")
    assert os.listdir(root) == ["a"]
    assert (root / "a").read_bytes() == b"content"


def test_files_made_read_only_are_so(root: Path) -> None:
    directory = DataDirectory(root)
    directory.create("a").close()
    directory.make_read_only("a")
    directory.write_new("b", b"")
    for name in ("a", "b"):
        assert stat.S_IMODE((root / name).stat().st_mode) == 0o444


def test_renaming_by_link_replaces_nothing_either(root: Path) -> None:
    (root / "a").write_bytes(b"a")
    (root / "b").write_bytes(b"b")
    fd = os.open(root, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            rename_by_link(fd, "a", fd, "b")
        rename_by_link(fd, "a", fd, "c")
    finally:
        os.close(fd)
    assert sorted(os.listdir(root)) == ["b", "c"]
    assert (root / "b").read_bytes() == b"b"


# --- direct writing ---------------------------------------------------------------------------


def test_the_page_cache_holds_nothing_of_what_was_written(small_filesystem: Path) -> None:
    """Neither with O_DIRECT (ext4 here) nor without (tmpfs refuses it on older kernels)."""
    directory = DataDirectory(small_filesystem)
    file = directory.create("a")
    content = memoryview(bytes(range(256)) * (4 * MIB // 256))
    file.write(Offset(0), content)
    file.sync()
    assert file.read(Offset(0), 5 * MIB) == content
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(small_filesystem)], capture_output=True, check=True
    )
    if kind.stdout.strip() == b"ext2/ext3":
        assert file.direct
        assert _cached_pages(small_filesystem / "a") == 0


def _cached_pages(path: Path) -> int:
    import ctypes

    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        count = len(memory) // PAGE_BYTES
        found = (ctypes.c_ubyte * count)()
        begin = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(begin)
        del begin
        library = ctypes.CDLL(None, use_errno=True)
        assert library.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(memory)), found) == 0
        return sum(each & 1 for each in found)


def test_a_filesystem_that_refuses_direct_writes_gets_ordinary_ones(
    strace: str, root: Path
) -> None:
    program = """
file = directory.create("a")
attempt(lambda: file.write(0, page))
attempt(file.sync)
print(file.direct, len(file.read(0, 8192)))
"""
    tracer = [strace, "-o", os.devnull, "-e", "inject=pwritev2:error=EINVAL:when=1"]
    said = traced(program, root, tracer=tracer)
    assert said == ["done", "done", "False 4096", "exit 0"]


def test_a_filesystem_that_cannot_reserve_is_written_zeros(strace: str, root: Path) -> None:
    program = """
file = directory.create("a")
file.write(0, page)
attempt(lambda: file.reserve(3 << 20))
print(file.size(), file.read(4096, 4 << 20).count(0))
file.write(4096, page)
"""
    tracer = [strace, "-o", os.devnull, "-e", "inject=fallocate:error=EOPNOTSUPP"]
    said = traced(program, root, tracer=tracer)
    assert said == ["done", f"{3 * MIB} {3 * MIB - PAGE_BYTES}", "exit 0"]


def test_a_filesystem_without_unnamed_files_is_tried_out_too(strace: str, root: Path) -> None:
    log = root.with_name("calls")
    program = """
attempt(lambda: directory.try_out("a", 5000))
print(directory.names(""))
"""
    # The openings below the root: the root itself twice, then the unnamed file.
    inject = ["-P", str(root), "-e", "inject=openat:error=EOPNOTSUPP:when=3"]
    told = traced(program, str(root), tracer=[strace, "-o", str(log), *inject])
    assert told == ["done", "[]", "exit 0"]
    assert "a.try" in log.read_text()


def test_a_file_that_may_not_grow_is_told_from_a_full_disk(root: Path) -> None:
    program = """
import resource
from dlog.errors import FileTooLarge
file = directory.create("a")
file.reserve(1 << 20)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
for attempt in (lambda: file.reserve(2 << 20), lambda: directory.try_out("b", 2 << 20)):
    try:
        attempt()
    except FileTooLarge as error:
        print(error.reason)
directory.try_out("b", 1 << 20)
file.write(0, page)
file.sync()
"""
    told = traced(program, str(root), tracer=[])
    assert told == ["File too large", "File too large", "exit 0"]


# --- space ------------------------------------------------------------------------------------


def test_a_full_disk_shows_at_reservation(small_filesystem: Path) -> None:
    directory = DataDirectory(small_filesystem)
    file = directory.create("a")
    file.reserve(Offset(4 * MIB))
    Hog.full(small_filesystem)
    assert directory.space().free < 64 * KIB
    with pytest.raises(DiskFull) as full:
        file.reserve(Offset(8 * MIB))
    assert full.value.path.endswith("/a")
    # What was reserved can still be written, to the last page.
    for offset in range(0, 4 * MIB, MIB):
        file.write(Offset(offset), memoryview(b"\7" * MIB))
    file.sync()
    assert file.read(Offset(4 * MIB - 4), 4) == b"\7" * 4


def test_a_write_that_fails_behind_is_told_by_the_sync(small_filesystem: Path) -> None:
    file = DataDirectory(small_filesystem).create("a")
    file.write(Offset(0), PAGE)
    hog = Hog.full(small_filesystem)
    file.write_behind(Offset(PAGE_BYTES), memoryview(mmap.mmap(-1, 8 * MIB)))
    with pytest.raises(DiskFull):
        file.sync()
    hog.give_back()
    # Nor does a later one say that all is durable: a page of it never was written.
    with pytest.raises(StorageError, match="an earlier write failed"):
        file.sync()


def test_a_write_on_a_full_disk_is_an_error_and_what_was_there_stays(
    small_filesystem: Path,
) -> None:
    directory = DataDirectory(small_filesystem)
    file = directory.create("a")
    file.write(Offset(0), PAGE)
    file.sync()
    hog = Hog.full(small_filesystem)
    with pytest.raises(DiskFull):
        file.write(Offset(PAGE_BYTES), memoryview(bytes(8 * MIB)))
    assert file.read(Offset(0), PAGE_BYTES) == PAGE
    with pytest.raises(DiskFull):
        directory.write_new("b", bytes(MIB))
    assert not directory.exists("b")
    hog.give_back()
    directory.write_new("b", bytes(MIB))


# --- paths ------------------------------------------------------------------------------------


def test_a_folder_that_is_a_symbolic_link_is_named(root: Path) -> None:
    (root / "big").mkdir()
    (root / "runs").symlink_to(root / "big")
    with pytest.raises(StorageError, match=f"{root}/runs: a symbolic link to {root}/big"):
        DataDirectory(root).create("runs/7/a_0001.dlog.part")


def test_symbolic_links_are_not_followed(root: Path) -> None:
    outside = root.with_name("outside")
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    directory = DataDirectory(root)
    for path in ("folder/new", "folder/secret", "file"):
        with pytest.raises(StorageError):
            directory.open(path, writable=False)
        with pytest.raises(StorageError):
            directory.read_all(path, 100)
    with pytest.raises(StorageError):
        directory.create("folder/new")
    with pytest.raises(NameTaken):
        directory.create("file")
    assert os.listdir(outside) == ["secret"]


def test_the_directory_itself_may_be_reached_by_a_link(root: Path) -> None:
    link = root.with_name("link")
    link.symlink_to(root)
    DataDirectory(link).create("a").close()
    assert os.listdir(root) == ["a"]


def test_a_directory_that_is_gone_is_a_failure(root: Path) -> None:
    directory = DataDirectory(root)
    root.rename(root.with_name("elsewhere"))
    for call in (directory.space, lambda: directory.create("a"), lambda: directory.names("")):
        with pytest.raises(DataDirectoryGone):
            call()
    with pytest.raises(DataDirectoryGone):
        DataDirectory(root)


def test_of_any_other_than_the_journals_directory_it_is_an_error_of_storage(root: Path) -> None:
    directory = DataDirectory(root, holds_journal=False)
    root.rename(root.with_name("elsewhere"))
    for call in (directory.space, lambda: directory.create("a"), lambda: directory.names("")):
        with pytest.raises(StorageError, match="No such file"):
            call()
    root.mkdir()
    with pytest.raises(StorageError, match="mounted"):
        directory.space()


@pytest.mark.parametrize("holds_journal", [True, False])
def test_too_few_descriptors_say_nothing_about_the_disk(root: Path, holds_journal: bool) -> None:
    directory = DataDirectory(root, holds_journal=holds_journal)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        for call in (
            directory.space,
            lambda: directory.create("a"),
            lambda: directory.names(""),
            lambda: DataDirectory(root, holds_journal=holds_journal),
        ):
            with pytest.raises(NoDescriptor, match="Too many open files"):
                call()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    directory.create("a").close()


def test_another_directory_in_its_place_is_not_written(root: Path) -> None:
    directory = DataDirectory(root)
    root.rename(root.with_name("elsewhere"))
    root.mkdir()  # as the mount point under a disk that was unmounted
    with pytest.raises(DataDirectoryGone, match="mounted"):
        directory.create("a")
    assert os.listdir(root) == []
