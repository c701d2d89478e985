"""The system calls that change a disk, or read it: their numbers, their arguments, and the BPF
filter that stops them. It makes none.
"""

from __future__ import annotations

import os
import platform
import struct
from dataclasses import dataclass
from typing import Final

_X86_64: Final = "x86_64"
_AARCH64: Final = "aarch64"
# AUDIT_ARCH_* of linux/audit.h.
_ARCHITECTURES: Final = {_X86_64: 0xC000003E, _AARCH64: 0xC00000B7}

# An argument is: f descriptor, d descriptor of a folder, p path (relative to a folder before it),
# b bytes whose length follows, v pieces (struct iovec) whose count follows, n number.
# name: arguments, number on x86_64, number on aarch64 (0: there is none).
_CALLS: Final = {
    "pwrite64": ("fbnn", 18, 68),
    "pwritev": ("fvnnn", 296, 70),
    "pwritev2": ("fvnnnn", 328, 287),
    "write": ("fbn", 1, 64),
    "writev": ("fvn", 20, 66),
    "fdatasync": ("f", 75, 83),
    "fsync": ("f", 74, 82),
    "sync_file_range": ("fnnn", 277, 84),
    "fallocate": ("fnnn", 285, 47),
    "ftruncate": ("fn", 77, 46),
    "truncate": ("pn", 76, 45),
    "openat": ("dpnn", 257, 56),
    "open": ("pnn", 2, 0),
    "renameat2": ("dpdpn", 316, 276),
    "renameat": ("dpdp", 264, 38),
    "rename": ("pp", 82, 0),
    "linkat": ("dpdpn", 265, 37),
    "link": ("pp", 86, 0),
    "unlinkat": ("dpn", 263, 35),
    "unlink": ("p", 87, 0),
    "mkdirat": ("dpn", 258, 34),
    "mkdir": ("pn", 83, 0),
    "fchmod": ("fn", 91, 52),
    "fchmodat": ("dpn", 268, 53),
    "chmod": ("pn", 90, 0),
    # Files alone are read like this, at a restart; `read` is of sockets too, and not asked about.
    "pread64": ("fnnn", 17, 67),
    "preadv": ("fnnnn", 295, 69),
    "preadv2": ("fnnnnn", 327, 286),
    # No storage call: a logger that listens for events has recovered.
    "listen": ("fn", 50, 201),
}
LISTEN: Final = "listen"
WRITES: Final = frozenset({"pwrite64", "pwritev", "pwritev2", "write", "writev"})
READS: Final = frozenset({"pread64", "preadv", "preadv2"})
SYNCS: Final = frozenset({"fdatasync", "fsync", "sync_file_range"})
# What a full disk refuses: all that takes space or makes a name.
TAKES_SPACE: Final = WRITES | {
    "fallocate", "openat", "open", "renameat2", "renameat", "rename", "linkat", "link", "mkdirat",
    "mkdir",
}  # fmt: skip

# What a filesystem that is mounted read-only refuses; a sync has nothing to do there.
CHANGES: Final = frozenset(_CALLS) - READS - SYNCS - {LISTEN}

# Opening changes a disk only where it makes or empties a file. The third is __O_TMPFILE.
_OPEN_CHANGES: Final = os.O_CREAT | os.O_TRUNC | 0o20000000
_FLAGS_AT: Final = {"openat": 2, "open": 1}

# BPF: load a word of struct seccomp_data, jump, return.
_LOAD: Final = 0x20
_EQUAL: Final = 0x15
_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_INSTRUCTION: Final = struct.Struct("=HBBI")
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW: Final = 0x7FFF0000
_ASK: Final = 0x7FC00000
_EVENTFD_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Kind:
    """A system call of this machine: name, number, and what its arguments are (see above)."""

    name: str
    number: int
    arguments: str


def kinds() -> dict[int, Kind]:
    """The storage calls of this machine, by number; none for an architecture that is not known."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        return {}
    found = (
        Kind(name, x86_64 if machine == _X86_64 else aarch64, arguments)
        for name, (arguments, x86_64, aarch64) in _CALLS.items()
    )
    return {kind.number: kind for kind in found if kind.number}


def bpf_filter(asked: dict[int, Kind]) -> bytes:
    """Instructions that ask about these calls and allow every other."""
    code = [
        _step(_LOAD, _ARCHITECTURE_AT),
        _step(_EQUAL, _ARCHITECTURES[platform.machine()], 1, 0),
        _step(_RETURN, _ALLOW),
        _step(_LOAD, _NUMBER_AT),
    ]
    for kind in asked.values():
        judged = _judge(kind)
        code += [_step(_EQUAL, kind.number, 0, len(judged)), *judged]
    return b"".join([*code, _step(_RETURN, _ALLOW)])


def _judge(kind: Kind) -> list[bytes]:
    """What is asked of a call once its number is found."""
    if kind.name in _FLAGS_AT:
        return [
            _step(_LOAD, _ARGUMENTS_AT + 8 * _FLAGS_AT[kind.name]),
            _step(_ANY_BIT, _OPEN_CHANGES, 0, 1),
            _step(_RETURN, _ASK),
            _step(_RETURN, _ALLOW),
        ]
    if kind.name == "write":
        # Threads wake each other by writes of this size to an eventfd: the bulk of all writes.
        return [
            _step(_LOAD, _ARGUMENTS_AT + 8 * 2),
            _step(_EQUAL, _EVENTFD_BYTES, 1, 0),
            _step(_RETURN, _ASK),
            _step(_RETURN, _ALLOW),
        ]
    return [_step(_RETURN, _ASK)]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, value)
