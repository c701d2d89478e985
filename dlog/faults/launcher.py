"""Becomes another program whose storage system calls ask its parent first.

A process of its own, run by its path and without site, so that it costs a logger's start little:
it ties its life to its parent's, takes the filter, hands the listener over, and is replaced.

    launcher.py PARENT SOCKET FILTER PROGRAM...

PARENT: process id. SOCKET: descriptor of a Unix socket. FILTER: BPF instructions, in hexadecimal,
none of them for a program that is asked nothing. What goes wrong is said on the socket, in words,
without a descriptor.
"""

import ctypes
import os
import platform
import signal
import socket
import sys

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
NEW_LISTENER = 1 << 3
# Once the parent has received a call, only a fatal signal interrupts it (Linux 5.19): a call that
# is done for the process must not be begun again.
WAIT_KILLABLE = 1 << 5
SECCOMP = {"x86_64": 317, "aarch64": 277}
INSTRUCTION_BYTES = 8


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def listener_of(instructions: bytes) -> int:
    """Put the filter on this process, for good; the descriptor to hear of its calls. Raises
    `OSError`."""
    library = ctypes.CDLL(None, use_errno=True)
    number = SECCOMP.get(platform.machine())
    if number is None:
        raise OSError(0, f"no system call numbers for {platform.machine()}")
    if library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs is refused")
    held = ctypes.create_string_buffer(instructions, len(instructions))
    program = _Program(len(instructions) // INSTRUCTION_BYTES, ctypes.addressof(held))
    for flags in (NEW_LISTENER | WAIT_KILLABLE, NEW_LISTENER):
        found = library.syscall(number, SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(program))
        if found >= 0:
            return int(found)
    code = ctypes.get_errno()
    raise OSError(code, f"seccomp user notification is refused: {os.strerror(code)}")


def _hand_over(to_parent: socket.socket, instructions: bytes) -> None:
    try:
        listener = listener_of(instructions)
    except OSError as error:
        to_parent.sendall(str(error.strerror).encode())
        os._exit(1)
    socket.send_fds(to_parent, [b"\0"], [listener])
    os.close(listener)


def main() -> None:
    parent, channel, instructions, *program = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        os._exit(1)
    with socket.socket(fileno=int(channel)) as to_parent:
        if instructions:
            _hand_over(to_parent, bytes.fromhex(instructions))
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
