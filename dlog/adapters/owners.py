"""Whose a file is, in words: for errors about a permission. It changes nothing."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from pathlib import Path


def owned(path: Path) -> str:
    """Whose it is, and who may use it, in words."""
    return f"{path} {_belongs(path)}"


def _belongs(path: Path) -> str:
    found = path.stat()
    return (
        f"belongs to user {user_name(found.st_uid)}, group {group_name(found.st_gid)}, "
        f"mode {stat.S_IMODE(found.st_mode):04o}"
    )


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def denied(error: OSError, path: Path) -> str:
    """The system's words; where a permission is missing, with whose file it is and who asks."""
    reason = error.strerror or str(error)
    if error.errno not in (errno.EACCES, errno.EPERM):
        return f"{path}: {reason}"
    for known in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            whose = _belongs(known)
            what = "it" if known == path else str(known)
            return f"{path}: {reason} for user {user_name(os.geteuid())}; {what} {whose}"
    return f"{path}: {reason}"


def why_no_permission(address: str) -> str:
    """What keeps us from connecting to a socket of this machine; "" where nothing does, or the
    address is another one. ZeroMQ says nothing of it, and tries for ever."""
    path = address.removeprefix("ipc://")
    if path == address:
        return ""
    try:
        os.stat(path)
        allowed = os.access(path, os.W_OK, effective_ids=True)
    except PermissionError:
        allowed = False
    except OSError:
        return ""
    return "" if allowed else denied(PermissionError(errno.EACCES, "permission denied"), Path(path))
