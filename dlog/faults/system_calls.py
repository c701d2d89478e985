"""Stands between a program and its disk: every storage system call of all its threads, and of its
children, is held until it has been decided what becomes of it (seccomp user notification).

It kills, fails, shortens and delays as it is told; what is to happen when, it does not know. Only
calls on files below one folder are asked about: the rest of the machine goes its way.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from dlog.adapters.child_processes import environment
from dlog.errors import Error
from dlog.faults.call_table import LISTEN, READS, WRITES, Kind, bpf_filter, kinds

_LAUNCHER: Final = Path(__file__).with_name("launcher.py")
# struct seccomp_notif: id, thread, flags; then struct seccomp_data: number, architecture,
# instruction, six arguments.
_NOTICE: Final = struct.Struct("=QIIiIQ6Q")
_REPLY: Final = struct.Struct("=QqiI")  # id, value, error, flags
assert (_NOTICE.size, _REPLY.size) == (80, 24)
_RECEIVE: Final = 0xC0502100
_SEND: Final = 0xC0182101
_GO_ON: Final = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_AT_FDCWD: Final = 0xFFFFFF9C
_PATH_BYTES_MAX: Final = 4096
_PIECE: Final = struct.Struct("=QQ")  # struct iovec
# What a disk writes in one piece, and O_DIRECT asks for.
_SECTOR_BYTES: Final = 512
_START_SECONDS_MAX: Final = 120.0
_PIDFD_GETFD: Final = 438


class Refused(Error):
    """This machine does not let a program stand between another one and its disk."""


class Deed(enum.StrEnum):
    """What becomes of a call."""

    PASS = "pass"  # it is done as if nobody had asked
    KILL = "kill"  # SIGKILL between calls; nothing that a call can meet
    KILL_BEFORE = "kill before"  # SIGKILL; the call never happens
    KILL_AFTER = "kill after"  # the call is done, then SIGKILL; the program never hears of it
    FAIL = "fail"  # it is not done, and returns an error
    SHORT = "short"  # of a write: the first half is done, and returns its length
    DELAY = "delay"  # it is done, a while later


@dataclass(frozen=True, slots=True)
class Fate:
    """A deed. code: errno of FAIL. seconds: of DELAY."""

    deed: Deed
    code: int = 0
    seconds: float = 0.0


PASS: Final = Fate(Deed.PASS)


@dataclass(frozen=True, slots=True)
class Call:
    """A storage call that waits for its fate. path: below the watched folder, "" for itself."""

    kind: Kind
    path: str
    thread: int
    arguments: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.kind.name

    def __str__(self) -> str:
        return f"{self.name} {self.path}"


Decide = Callable[[Call], Fate]


def check() -> None:
    """Raises `Refused` where this machine does not allow it, and says why."""
    if not kinds():
        raise Refused("no table of system calls for this architecture")
    program = [sys.executable, "-I", "-S", "-c", "pass"]
    with Interposed(program, Path("/proc/none"), lambda call: PASS, log=subprocess.DEVNULL) as made:
        made.process.wait(_START_SECONDS_MAX)


class Interposed:
    """A process that runs `program`; `decide` is asked for each of its storage calls below
    `folder`, by one thread, so that all its threads' calls are in one sequence. Without `decide` it
    runs as any other process.

    It does not outlive this process, nor the `with` block. Raises `Refused`.
    """

    def __init__(
        self,
        program: Sequence[str],
        folder: Path,
        decide: Decide | None,
        *,
        log: IO[bytes] | int,
    ) -> None:
        self._folder = os.path.realpath(folder)
        self._decide = decide
        self._kinds = kinds() if decide is not None else {}
        self._delayed: list[tuple[float, int]] = []  # when, notice
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.process = self._launch(program, theirs, log)
            try:
                listener = self._receive_listener(ours, theirs) if decide is not None else None
            except BaseException:
                self.kill()
                raise
        self.error: BaseException | None = None
        self._thread: threading.Thread | None = None
        if listener is not None:
            self._listener = listener
            self._thread = threading.Thread(target=self._serve, name="system calls", daemon=True)
            self._thread.start()

    def _launch(
        self, program: Sequence[str], channel: socket.socket, log: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        instructions = bpf_filter(self._kinds).hex() if self._kinds else ""
        return subprocess.Popen(
            [
                sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()),
                str(channel.fileno()), instructions, *program,
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[channel.fileno()],
            env=environment(), process_group=0,
        )  # fmt: skip

    @staticmethod
    def _receive_listener(ours: socket.socket, theirs: socket.socket) -> int:
        theirs.close()
        ours.settimeout(_START_SECONDS_MAX)
        said, descriptors, _, _ = socket.recv_fds(ours, 4096, 1)
        if not descriptors:
            raise Refused(said.decode(errors="replace") or "the launcher ended without a word")
        return descriptors[0]

    # --- the process

    def kill(self) -> None:
        """SIGKILL, to its children too; gone when this returns."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Interposed:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._thread is not None:
            self._thread.join()

    # --- its calls

    def _serve(self) -> None:
        try:
            waiting = select.poll()
            waiting.register(self._listener, select.POLLIN)
            while True:
                self._release_delayed()
                due = min((when for when, _ in self._delayed), default=None)
                left_ms = None if due is None else max(0.0, due - time.monotonic()) * 1e3 + 1
                happened = waiting.poll(left_ms)
                if any(event & select.POLLIN for _, event in happened):
                    self._next()
                elif happened:
                    return  # the last process with the filter is gone
        except BaseException as error:  # noqa: BLE001 - the program hangs without us: it must end
            self.error = error
            self.kill()
        finally:
            os.close(self._listener)

    def _release_delayed(self) -> None:
        now = time.monotonic()
        due = [each for each in self._delayed if each[0] <= now]
        for each in due:
            self._delayed.remove(each)
            self._reply(each[1], flags=_GO_ON)

    def _next(self) -> None:
        notice = bytearray(_NOTICE.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, notice)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return  # the thread that asked was killed meanwhile
            raise
        identity, thread, _, number, _, _, *arguments = _NOTICE.unpack(notice)
        kind = self._kinds[number]
        try:
            path = self._path(kind, thread, arguments)
        except FileNotFoundError:
            path = None  # a descriptor that is not open: the kernel says so
        if path is None:
            self._reply(identity, flags=_GO_ON)
            return
        call = Call(kind, path, thread, tuple(arguments))
        assert self._decide is not None
        self._carry_out(identity, call, self._decide(call))

    def _carry_out(self, identity: int, call: Call, fate: Fate) -> None:
        match fate.deed:
            case Deed.PASS:
                self._reply(identity, flags=_GO_ON)
            case Deed.KILL_BEFORE | Deed.KILL:
                self.kill()
            case Deed.KILL_AFTER:
                if call.name not in READS:  # which would leave nothing behind
                    with _Borrowed(call) as borrowed:
                        borrowed.do()
                self.kill()
            case Deed.FAIL:
                self._reply(identity, error=-fate.code)
            case Deed.SHORT:
                self._shorten(identity, call)
            case Deed.DELAY:
                self._delayed.append((time.monotonic() + fate.seconds, identity))

    def _shorten(self, identity: int, call: Call) -> None:
        with _Borrowed(call) as borrowed:
            value = borrowed.do_half() if call.name in WRITES else None
        if value is None:  # too small to be cut
            self._reply(identity, flags=_GO_ON)
        elif value < 0:
            self._reply(identity, error=value)
        else:
            self._reply(identity, value=value)

    def _reply(self, identity: int, *, value: int = 0, error: int = 0, flags: int = 0) -> None:
        try:
            fcntl.ioctl(self._listener, _SEND, _REPLY.pack(identity, value, error, flags))
        except OSError as failed:
            if failed.errno != errno.ENOENT:  # killed meanwhile
                raise

    def _path(self, kind: Kind, thread: int, arguments: Sequence[int]) -> str | None:
        """What of the watched folder the call is about; None where it is about something else."""
        if kind.name == LISTEN:
            return ""
        folder = ""
        for letter, argument in zip(kind.arguments, arguments, strict=False):
            found = ""
            if letter == "f":
                found = os.readlink(f"/proc/{thread}/fd/{argument}")
            elif letter == "d":
                folder = _folder_link(thread, argument)
            elif letter == "p":
                said = _text(thread, argument)
                if said.startswith("/proc/self/"):
                    found = os.readlink(said.replace("/proc/self/", f"/proc/{thread}/", 1))
                else:
                    base = os.readlink(folder or f"/proc/{thread}/cwd")
                    found = os.path.normpath(os.path.join(base, said))
            if found == self._folder or found.startswith(self._folder + "/"):
                return found[len(self._folder) + 1 :]
        return None


class _Borrowed:
    """The arguments of another process's call, made good for our own: its descriptors duplicated,
    its memory copied. So a call can be done for a process that must not do it, or not all of it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._library = ctypes.CDLL(None, use_errno=True)
        self._keep: list[Any] = []  # memory that the arguments point to
        self._close: list[Callable[[], object]] = []
        self._process = _process_of(call.thread)

    def __enter__(self) -> _Borrowed:
        return self

    def __exit__(self, *_: object) -> None:
        for close in reversed(self._close):
            close()

    def do(self) -> int:
        """The whole call; what it returned, negative for an error."""
        return self._make(self._arguments(limit=None))

    def do_half(self) -> int | None:
        """The first half of a write; None where there is no half."""
        letters = self._call.kind.arguments
        if "v" in letters:
            sizes = [size for _, size in self._pieces(letters.index("v"))]
        else:
            sizes = [self._call.arguments[letters.index("b") + 1]]
        half = sum(sizes) // 2
        if self._is_direct():
            half -= half % _SECTOR_BYTES
        return self._make(self._arguments(limit=half)) if half else None

    def _make(self, arguments: Sequence[int]) -> int:
        value = self._library.syscall(
            ctypes.c_long(self._call.kind.number), *map(ctypes.c_long, arguments)
        )
        return -ctypes.get_errno() if value < 0 else int(value)

    def _arguments(self, limit: int | None) -> list[int]:
        made: list[int] = []
        letters = self._call.kind.arguments
        for place, letter in enumerate(letters):
            argument = self._call.arguments[place]
            if letter == "f":
                made.append(self._descriptor(argument))
            elif letter == "d":
                made.append(self._folder(argument))
            elif letter == "p":
                made.append(self._path(argument, after_folder="d" in letters[:place]))
            elif letter == "b":
                size = self._call.arguments[place + 1]
                size = size if limit is None else limit
                made += [self._memory([(argument, size)]), size]
            elif letter == "v":
                made += self._one_piece(place, limit)
            elif letters[place - 1] not in "bv":  # the length is made with what it is of
                made.append(argument)
        return made

    def _one_piece(self, place: int, limit: int | None) -> list[int]:
        pieces = self._pieces(place)
        size = sum(size for _, size in pieces)
        memory = self._memory(pieces)
        piece = ctypes.create_string_buffer(
            _PIECE.pack(memory, size if limit is None else limit), _PIECE.size
        )
        self._keep.append(piece)
        return [ctypes.addressof(piece), 1]

    def _pieces(self, place: int) -> list[tuple[int, int]]:
        begin, count = self._call.arguments[place : place + 2]
        found = _peek(self._call.thread, begin, count * _PIECE.size)
        return list(_PIECE.iter_unpack(found))

    def _memory(self, pieces: Sequence[tuple[int, int]]) -> int:
        content = b"".join(_peek(self._call.thread, begin, size) for begin, size in pieces)
        # Page-aligned, as O_DIRECT wants it.
        held = mmap.mmap(-1, max(1, len(content)))
        held[: len(content)] = content
        address = ctypes.addressof(ctypes.c_char.from_buffer(held))
        self._keep.append(held)
        return address

    def _descriptor(self, argument: int) -> int:
        process = os.pidfd_open(self._process)
        try:
            found = self._library.syscall(
                ctypes.c_long(_PIDFD_GETFD), process, ctypes.c_int(argument), 0
            )
            if found < 0:
                raise OSError(ctypes.get_errno(), "a descriptor could not be borrowed")
        finally:
            os.close(process)
        self._close.append(partial(os.close, found))
        return int(found)

    def _folder(self, argument: int) -> int:
        if argument & 0xFFFFFFFF != _AT_FDCWD:
            return self._descriptor(argument)
        found = os.open(f"/proc/{self._call.thread}/cwd", os.O_RDONLY | os.O_DIRECTORY)
        self._close.append(partial(os.close, found))
        return found

    def _path(self, argument: int, *, after_folder: bool) -> int:
        said = _text(self._call.thread, argument)
        if said.startswith("/proc/self/fd/"):
            said = f"/proc/self/fd/{self._descriptor(int(said.rpartition('/')[2]))}"
        elif not after_folder:
            said = os.path.join(f"/proc/{self._call.thread}/cwd", said)
        held = ctypes.create_string_buffer(os.fsencode(said))
        self._keep.append(held)
        return ctypes.addressof(held)

    def _is_direct(self) -> bool:
        found = Path(f"/proc/{self._call.thread}/fdinfo/{self._call.arguments[0]}").read_text()
        flags = next(line for line in found.splitlines() if line.startswith("flags:"))
        return bool(int(flags.split()[1], 8) & os.O_DIRECT)


def _peek(thread: int, begin: int, size: int) -> bytes:
    """Memory of another process; shorter where it ends."""
    descriptor = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
    try:
        return os.pread(descriptor, size, begin)
    finally:
        os.close(descriptor)


def _text(thread: int, begin: int) -> str:
    """A path in the memory of another process."""
    page_end = -begin % mmap.PAGESIZE or mmap.PAGESIZE
    found = _peek(thread, begin, page_end)
    if b"\0" not in found:
        found += _peek(thread, begin + page_end, _PATH_BYTES_MAX)
    return os.fsdecode(found.partition(b"\0")[0])


def _folder_link(thread: int, argument: int) -> str:
    if argument & 0xFFFFFFFF == _AT_FDCWD:
        return f"/proc/{thread}/cwd"
    return f"/proc/{thread}/fd/{argument}"


def _process_of(thread: int) -> int:
    for line in Path(f"/proc/{thread}/status").read_text().splitlines():
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    raise ProcessLookupError(thread)
