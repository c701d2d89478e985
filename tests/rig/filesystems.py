"""Disks that are small enough to fill, made of a loop-mounted file; they need root."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from dlog.limits import KIB, MIB
from tests.conftest import need_program

_EXT4_IOC_SHUTDOWN: Final = 0x8004587D  # see ext4.h
_NO_LOG_FLUSH: Final = 2


@contextmanager
def small_disk(folder: Path, size_bytes: int, kind: str = "ext4") -> Iterator[Path]:
    """A filesystem, ext4 or tmpfs; the test is skipped where none can be mounted."""
    need_program("mount")
    image, place = folder / "image", folder / "d"  # short: sockets lie below it
    place.mkdir(parents=True)
    if kind == "tmpfs":
        _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(place))
    else:
        with image.open("wb") as file:
            file.truncate(size_bytes)
        # As distributions have it: after an error in its own structures it goes read-only.
        options = ("-m", "0", "-e", "remount-ro", "-E", "lazy_itable_init=0")
        _run(need_program("mkfs.ext4"), "-q", "-F", *options, str(image))
        mount(place)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be made: {command[0]}: {done.stderr.decode().strip()}")


def mount(disk: Path) -> None:
    """A small disk, again."""
    _run("mount", "-o", "loop", str(disk.parent / "image"), str(disk))


def unmount(disk: Path) -> None:
    """With nobody on it; its own structures are mended, as at a boot."""
    subprocess.run(["umount", str(disk)], check=True)
    image = str(disk.parent / "image")
    mended = subprocess.run(["e2fsck", "-p", image], capture_output=True, check=False)
    assert mended.returncode in (0, 1), mended.stdout.decode()


def remount(disk: Path, option: str) -> None:
    """`ro` or `rw`; the kernel refuses `ro` while a file is open for writing."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)


def go_read_only(disk: Path) -> None:
    """As if the filesystem had found an error in itself: nothing can be written any more, also to
    files that are open. It stays so until the disk is mounted anew."""
    found = disk.stat().st_dev
    device = Path(f"/sys/dev/block/{os.major(found)}:{os.minor(found)}").resolve().name
    try:
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")
    except OSError as error:
        pytest.skip(f"no filesystem can be made read-only here: {error}")


def break_disk(disk: Path) -> None:
    """Every read and write fails from now on, as on a disk that died; what was synced stays."""
    descriptor = os.open(disk, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    except OSError as error:
        pytest.skip(f"the disk cannot be broken here: {error}")
    finally:
        os.close(descriptor)


class Hog:
    """A file that takes the space of a disk, and gives it back."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._path = disk / "hog"

    @classmethod
    def full(cls, disk: Path) -> Hog:
        """One that has taken everything."""
        hog = cls(disk)
        hog.take()
        return hog

    def take(self, leave_bytes: int = 0) -> None:
        """All that is free but for so much."""
        found = os.statvfs(self._disk)
        wanted = found.f_bavail * found.f_frsize - leave_bytes
        with self._path.open("ab", buffering=0) as file:
            for size in (MIB, 64 * KIB, 4 * KIB, 512):
                while wanted >= size:
                    try:
                        if file.write(bytes(size)) < size:
                            break
                    except OSError:
                        break
                    wanted -= size
            os.fsync(file.fileno())

    def give_back(self) -> None:
        self._path.unlink()
