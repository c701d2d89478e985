"""Child processes that run a part of dlog. None outlives its parent, and reading what
one says never blocks.

It knows how to start and end them, not what they are for.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Final

import dlog
from dlog.errors import Error

LAST_LINES: Final = 12
ENDING_SECONDS: Final = 5.0

# Even a parent that is killed with -9 leaves no child: the kernel ends a child with its parent. The
# child asks for it, then becomes what it is to be.
_TIED: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def environment() -> dict[str, str]:
    """For a child that imports dlog from where this process did."""
    # Not resolved: in a checkout `dlog/cli` is a link, and its target has no dlog above it.
    root = str(Path(dlog.__file__).parent.parent)
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": path}


@contextmanager
def interrupts_kept_back() -> Iterator[None]:
    """Inside, what ends this process waits: a process that is begun there is known to whoever ends
    it. Outside of the main thread nothing does anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda n, _: kept.append(n)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        if kept:
            signal.raise_signal(kept[0])


@contextmanager
def begun_deaf() -> Iterator[None]:
    """A process that is begun inside never hears Ctrl-C, which is for its parent alone. It stays in
    the process group of its parent: a kill of the group ends both."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield  # the child inherits the mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ChildEnded(Error):
    """A child process ended when it should not have, or did not when it should."""


class Children:
    """All of them; those that are left at the end of the `with` block are killed."""

    def __init__(self) -> None:
        self._all: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, log: IO[bytes], talk: bool = False) -> subprocess.Popen[bytes]:
        """`python -m arguments…`; stderr goes to `log`. talk: stdin and stdout are pipes."""
        # -P: no module that lies in this folder.
        with interrupts_kept_back():
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _TIED, str(os.getpid()), "-P", "-m", *arguments],
                stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talk else log,
                stderr=log,
                env=environment(),
                # Ctrl-C is for the parent alone: it ends its children in its own order.
                process_group=0,
            )
            self._all.append(process)
        return process

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._all:
            if process.poll() is None:
                process.kill()
        for process in self._all:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


class Lines:
    """What several processes print, line by line, in one queue."""

    def __init__(self) -> None:
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._readers: dict[int, threading.Thread] = {}  # by process number

    def of(self, process: subprocess.Popen[bytes]) -> None:
        """Read this one too."""
        assert process.stdout is not None
        reader = threading.Thread(
            target=self._read, args=(process.stdout,), name="lines", daemon=True
        )
        self._readers[process.pid] = reader
        reader.start()

    def over(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it has ended and all that it printed was taken: its last line may come after its
        end is seen."""
        ended = process.poll() is not None and not self._readers[process.pid].is_alive()
        return ended and self._lines.empty()

    def next(self, timeout: float) -> bytes | None:
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            return None

    def _read(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            self._lines.put(line)


def wait_for_end(process: subprocess.Popen[bytes], what: str, seconds: float) -> int:
    """Its exit code. Raises `ChildEnded` where it does not end in that time."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise ChildEnded(f"{what} did not end within {seconds:g} s") from None


def last_lines(path: Path) -> str:
    """The end of a log, for an error."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-LAST_LINES:])
