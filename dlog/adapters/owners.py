"""Whose a file is, in words: for errors about a permission. It changes nothing."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from pathlib import Path


def owned(path: Path) -> str:
    """Whose it is, and who may use it, in words."""
    found = path.stat()
    return (
        f"{path} belongs to user {user_name(found.st_uid)}, group {group_name(found.st_gid)}, "
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
    try:
        whose = owned(path)
    except OSError:
        whose = str(path)
    return f"{whose}; for user {user_name(os.geteuid())}: {reason}"
