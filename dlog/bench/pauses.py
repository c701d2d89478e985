"""How long the processors themselves stand still while nothing else runs: on a virtual machine
others may use them, and no program can be faster than its longest pause.

Also a program of its own, one for each processor: `python -m dlog.bench.pauses PROCESSOR SECONDS`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Final

import msgspec

from dlog.adapters.child_processes import begun_deaf, environment, interrupts_kept_back
from dlog.errors import Error

# A program that does nothing but look at the clock is held up for less by the kernel's own work.
PAUSE_NS_MIN: Final = 1_000_000


class Pauses(msgspec.Struct, frozen=True, kw_only=True):
    """longest_ms: of one processor. part: of the time of all of them."""

    longest_ms: float
    part: float


def processor_pauses(seconds: float) -> Pauses:
    """Of all processors that may be used, at the same time. Raises `Error`."""
    processors = sorted(os.sched_getaffinity(0))
    children: list[subprocess.Popen[bytes]] = []
    try:
        for number in processors:
            with interrupts_kept_back(), begun_deaf():
                children.append(_start(number, seconds))
        said = [child.communicate()[0] for child in children]
    finally:
        for child in children:
            child.kill()  # nothing where it has ended
            child.wait()
    if any(child.returncode for child in children):
        raise Error("the program that looks for pauses of the processors failed")
    pauses = [pause for line in said for pause in msgspec.json.decode(line, type=list[int])]
    return Pauses(
        longest_ms=max(pauses, default=0) / 1e6,
        part=sum(pauses) / (seconds * 1e9 * len(processors)),
    )


def _start(processor: int, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "dlog.bench.pauses", str(processor), str(seconds)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )


def _watch(processor: int, seconds: float) -> list[int]:
    """Nanoseconds of each pause."""
    os.sched_setaffinity(0, {processor})
    pauses = []
    last = time.monotonic_ns()
    end = last + int(seconds * 1e9)
    while last < end:
        now = time.monotonic_ns()
        if now - last >= PAUSE_NS_MIN:
            pauses.append(now - last)
        last = now
    return pauses


if __name__ == "__main__":
    print(msgspec.json.encode(_watch(int(sys.argv[1]), float(sys.argv[2]))).decode())
