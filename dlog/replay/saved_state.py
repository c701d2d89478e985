"""What `dlog send` keeps on disk, so that the same command goes on where it was killed: the
session, what it replays, and how far it is. It never sends and never reads an event."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from dlog.core.source_batches import Progress
from dlog.errors import Error
from dlog.limits import MIB

VERSION: Final = 1
# The phases of a replay.
SENDING: Final = "sending"
ACKNOWLEDGED: Final = "acknowledged"  # all of it; only the goodbye is left
DONE: Final = "done"
_STATE_BYTES_MAX: Final = 16 * MIB
_STEM_LETTERS_MAX: Final = 40


class SendRefused(Error):
    """The replay cannot begin, or cannot go on, as it was asked for."""


class FileIdentity(msgspec.Struct, frozen=True):
    """A file or folder as it was when the replay began. size: of a folder, of all files in it."""

    path: str
    size: int
    mtime_ns: int
    files: int


class SendState(msgspec.Struct, kw_only=True):
    """The content of a state file.

    session: hex. options: all that decides which events are sent and how they are packed. events,
    sha256: how many events were read when this was written, and the checksum of their payloads.
    refused: by stream and reason, of the refusals up to `refusals_seen`. summary: the outcome, of a
    replay that was acknowledged to its end.
    """

    version: int
    phase: str
    session: str
    name: str
    run: int
    target: str
    files: list[FileIdentity]
    options: dict[str, str]
    logger_uuid: str = ""
    acknowledged: int = 0
    position_bytes: int = 0
    refusals_seen: int = 0
    refused: dict[str, dict[str, int]] = {}
    events: int = 0
    sha256: str = ""
    summary: dict[str, Any] = {}

    @property
    def progress(self) -> Progress:
        by = bytes.fromhex(self.logger_uuid) if self.acknowledged else b""
        return Progress(self.acknowledged, self.position_bytes, self.refusals_seen, by)


def identity(path: Path) -> FileIdentity:
    """Raises `SendRefused` where the path cannot be looked at."""
    # A name that is no UTF-8 is kept with escapes: the state is JSON.
    whole = str(path.resolve()).encode(errors="backslashreplace").decode()
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            return FileIdentity(whole, status.st_size, status.st_mtime_ns, 1)
        size, newest, files = 0, 0, 0
        for folder, _, names in os.walk(path):
            for name in names:
                inside = os.stat(os.path.join(folder, name))
                size += inside.st_size
                newest = max(newest, inside.st_mtime_ns)
                files += 1
    except OSError as error:
        raise SendRefused(f"{error.filename or path}: {error.strerror}") from error
    return FileIdentity(whole, size, newest, files)


def replay_key(files: Sequence[FileIdentity], run: int, target: str, name: str | None) -> str:
    """What tells one replay from another on this machine; the same for the same command."""
    said = [socket.gethostname(), str(run), target, name or "", *(file.path for file in files)]
    return hashlib.sha256(os.fsencode("\0".join(said))).hexdigest()[:16]


def default_name(files: Sequence[FileIdentity], key: str) -> str:
    """The name of the source: from the first file, and different for different replays."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(files[0].path).stem).strip("-_.")
    return f"{stem[:_STEM_LETTERS_MAX] or 'send'}-{key[:8]}"


def default_state_path(key: str) -> Path:
    """Below $XDG_STATE_HOME, which is ~/.local/state where it is not set. Raises `SendRefused`
    for a user without a home directory, as in a container."""
    base = os.environ.get("XDG_STATE_HOME")
    try:
        root = Path(base) if base else Path.home() / ".local" / "state"
    except RuntimeError:
        raise SendRefused(
            "this user has no home directory to keep how far the replay got; --state FILE says "
            "where else"
        ) from None
    return root / "dlog" / "send" / f"{key}.json"


class StateFile:
    """A state file, locked while it is open: two processes of one session would disturb each other.

    On disk is always the last state that was saved, whole: a new one is written beside it, fsynced,
    renamed over it, and the folder is fsynced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(
                path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise SendRefused(f"{path}: {error.strerror}; --state FILE says where else") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise SendRefused(
                f"the same replay is being sent by another process (it holds {path}.lock)"
            ) from error

    def __enter__(self) -> StateFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._lock)

    def read(self) -> SendState | None:
        """The state that was saved; None where none was. Raises `SendRefused`."""
        try:
            with self.path.open("rb") as file:
                text = file.read(_STATE_BYTES_MAX)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SendRefused(f"{self.path}: {error.strerror}") from error
        try:
            state = msgspec.json.decode(text, type=SendState)
        except (msgspec.MsgspecError, ValueError) as error:
            raise SendRefused(
                f"{self.path} is no state of a replay ({error}): --restart begins a new one"
            ) from error
        if state.version != VERSION:
            raise SendRefused(
                f"{self.path} is of version {state.version}, this is {VERSION}: finish it with the "
                "dlog that began it, or --restart"
            )
        return state

    def remove(self) -> None:
        """Of a replay of which nothing was sent."""
        self.path.unlink(missing_ok=True)

    def save(self, state: SendState) -> None:
        """Make it durable. Raises `SendRefused`: a replay that cannot be gone on with must stop."""
        fresh = self.path.with_name(self.path.name + ".new")
        try:
            with fresh.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(state), indent=1))
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self.path)
            # The folder too: the new name is not durable until then.
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise SendRefused(
                f"{self.path}: {error.strerror}; without it the replay could not go on after a "
                "crash. --state FILE says where else"
            ) from error


def differences(state: SendState, asked: SendState) -> list[str]:
    """Why the replay that was begun is not the one that is asked for; empty where it is."""
    found = []
    for name in sorted({*state.options, *asked.options}):
        before, now = state.options.get(name, ""), asked.options.get(name, "")
        if before != now and name == "packing":
            found.append("--rate (or the version of dlog) has changed, and makes other batches")
        elif before != now:
            found.append(f"{name} was {before or 'not given'}, and is {now or 'not given'}")
    for before_file, now_file in zip(state.files, asked.files, strict=False):
        if before_file.path != now_file.path:
            found.append(f"it was {before_file.path}, and is {now_file.path}")
        elif before_file != now_file:
            found.append(f"{now_file.path} has changed since")
    if len(state.files) != len(asked.files):
        found.append(f"there were {len(state.files)} files, and are {len(asked.files)}")
    return found
