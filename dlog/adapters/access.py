"""Who besides its own user may use what the logger makes: `[logger] mode` and `group`.

The mode is kept by the umask of the process, and the group by the setgid bit of the data
directories: each file, folder and socket comes into being with both, whoever makes it, LMDB too.
Without the keys the umask of the process rules.
"""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dlog.adapters.directory_lock import LOCK_NAME
from dlog.adapters.owners import group_name, owned, user_name
from dlog.errors import ConfigurationError
from dlog.model.access import folder_mode, parse_mode, umask_of

_GROUP_READS: Final = stat.S_ISGID | 0o050  # a folder that was given to its group

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Access:
    """mode: of files that are open, None for what the umask says. group: None for what the system
    gives."""

    mode: int | None = None
    group: int | None = None

    @classmethod
    def configured(cls, mode: str, group: str) -> Access:
        """Raises `ConfigurationError` where there is no such group, or we are no member of it."""
        gid = _group_id(group) if group else None
        if gid is not None and not _is_member(gid):
            raise ConfigurationError(
                [
                    f"logger.group: user {user_name(os.geteuid())} is not a member of group "
                    f"{group} (a membership counts from the next login on)"
                ]
            )
        return cls(parse_mode(mode) if mode else None, gid)

    @classmethod
    def found(cls, data: Path) -> Access:
        """As the last start on a data directory had it, by its lock file."""
        try:
            lock = (data / LOCK_NAME).lstat()
        except OSError:
            return cls()
        group = lock.st_gid if data.stat().st_mode & stat.S_ISGID else None
        # Whoever may write a file reads it too.
        return cls(lock.st_mode & 0o666 | 0o600, group)

    def hold(self) -> None:
        """For all that this process makes from here on."""
        if self.mode is not None:
            os.umask(umask_of(self.mode))

    def give_directory(self, root: Path) -> str:
        """Of a data directory that exists: itself, what every start uses, and the folders in it.
        Why the group does not get what is made in it; "" where it does."""
        root = root.resolve()
        try:
            self._give(root)
        except OSError as error:
            if self.group is not None and not self._is_given(root):
                name = group_name(self.group)
                return (
                    f"{owned(root)}, and cannot be given to group {name} here ({error.strerror}); "
                    f"its owner can: chgrp {name} {root}; chmod g+s {root}"
                )
            log.warning("%s, and keeps it: %s", owned(root), error.strerror)
        self.give(path for path in root.iterdir() if path.is_dir() or path.name == LOCK_NAME)
        if (root / "journal").is_dir():
            self.give((root / "journal").iterdir())
        return ""

    def give(self, paths: Iterable[Path]) -> None:
        """What we own of them; whether the rest may be used shows when it is."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError, PermissionError):
                self._give(path)

    def _is_given(self, root: Path) -> bool:
        found = root.stat()
        return found.st_gid == self.group and bool(found.st_mode & stat.S_ISGID)

    def give_socket(self, address: str) -> None:
        """A socket outside of a data directory belongs to the group too."""
        path = address.removeprefix("ipc://")
        if self.group is None or path == address:
            return
        try:
            os.chown(path, -1, self.group)
        except OSError as error:
            log.warning("%s: not given to the group: %s", path, error.strerror)

    def _give(self, path: Path) -> None:
        found = path.lstat()
        folder = stat.S_ISDIR(found.st_mode)
        if not folder and not stat.S_ISREG(found.st_mode):
            return
        before = stat.S_IMODE(found.st_mode)
        wanted = before
        if self.mode is None and folder and before & _GROUP_READS == _GROUP_READS:
            # What the umask allows is allowed: `dlog create` may have had another one.
            wanted |= 0o020 & ~_umask()
        elif self.mode is not None:
            # The setgid bit of a folder stays.
            wanted = before & 0o7000 | (folder_mode(self.mode) if folder else self.mode)
        if self.group is not None and folder:
            wanted |= stat.S_ISGID
        if self.group not in (None, found.st_gid):
            os.chown(path, -1, self.group or 0, follow_symlinks=False)
        if wanted != before:
            path.chmod(wanted)


def _umask() -> int:
    now = os.umask(0o077)
    os.umask(now)
    return now


def _group_id(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group.isdecimal() and int(group) < 2**32 - 1:  # in a container it has no name
            return int(group)
        raise ConfigurationError([f"logger.group: this machine has no group {group!r}"]) from None


def _is_member(gid: int) -> bool:
    return os.geteuid() == 0 or gid in (os.getegid(), *os.getgroups())
