"""How many file descriptors this process may still open."""

from __future__ import annotations

import os
import resource

from dlog.errors import Error


def allow_many() -> None:
    """Raise the limit as far as the system lets us: each open part is a descriptor, and so is each
    connection."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptors_left() -> int:
    """A moment's view; 0 where not even that can be looked at."""
    limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return max(0, limit - len(os.listdir("/proc/self/fd")))
    except OSError:
        return 0


def require_descriptors(count: int, what: str) -> None:
    """Raises `Error` where fewer are left."""
    left = descriptors_left()
    if left < count:
        raise Error(
            f"too many open files: {what} needs {count} descriptors, {left} are left "
            "(ulimit -n, LimitNOFILE=)"
        )
