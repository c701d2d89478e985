"""Every error class of dlog, in two branches, each with the exit code that it stands for.

An `Error` means that something is wrong and the logger runs on; a `Failure` means that it cannot go
on. Which class is which stands in one table, in docs/STATES.md, drawn from this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final

LISTED_MAX: Final = 32  # of what there is, in an error


class DlogError(Exception):
    """Base of both branches; `exit_code` is what a command exits with when it ends on this."""

    exit_code: ClassVar[int] = 1

    def __reduce__(self) -> tuple[Callable[..., DlogError], tuple[Any, ...]]:
        # As it is, and not made anew from its text: a pool of processes waits for ever for an
        # error that cannot be unpickled.
        return _as_it_was, (type(self), self.args, vars(self))


def _as_it_was(kind: type[DlogError], args: tuple[Any, ...], fields: dict[str, Any]) -> DlogError:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(fields)
    return error


class Error(DlogError):
    """Something is wrong; the logger runs on."""


class Failure(DlogError):
    """The logger cannot go on."""

    exit_code: ClassVar[int] = 70


def meant(word: str, there: Iterable[str]) -> str:
    """` (did you mean status?)`, for a word that is like one of those that there are."""
    from difflib import get_close_matches

    found = get_close_matches(word, list(there), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def _where(path: str, offset_bytes: int) -> str:
    """`a.dlog at byte 4096`; the path alone for its first byte, a name or a folder."""
    return f"{path} at byte {offset_bytes}" if offset_bytes else path


# --- what a peer or a file said ---------------------------------------------------------------


class MessageError(Error):
    """A message that cannot be accepted as it is: truncated, oversized, wrong version, wrong crc.

    `reason` is one of a small fixed set of words (it is counted by); `detail` is for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class FormatError(Error):
    """Bytes of a file that are not what the format says. Carries path, offset and reason."""

    def __init__(self, reason: str, *, path: str = "", offset_bytes: int = 0) -> None:
        super().__init__(f"{_where(path or 'data', offset_bytes)}: {reason}")
        self.reason = reason
        self.path = path
        self.offset_bytes = offset_bytes


class FormatVersionError(FormatError):
    """A file of a format version or with an incompatible flag that this program does not know."""

    exit_code: ClassVar[int] = 6


class ConfigurationError(Error):
    """A configuration that does not hold. `problems` lists all of them, each with its key."""

    exit_code: ClassVar[int] = 78

    def __init__(self, problems: list[str]) -> None:
        super().__init__("configuration refused:\n" + "\n".join(f"  {p}" for p in problems))
        self.problems = problems


class NotThere(Error):
    """Something was chosen by a name or a number that is not there. `there` is what there is."""

    def __init__(self, what: str, where: str, there: Sequence[str]) -> None:
        kind, _, name = what.partition(" ")
        listed = ", ".join(there[:LISTED_MAX]) or "none"
        more = f", and {len(there) - LISTED_MAX} more" if len(there) > LISTED_MAX else ""
        super().__init__(f"{where}: no {what}{meant(name, there)}; {kind}s there: {listed}{more}")
        self.there = there


class TransitionRefused(Error):
    """A (state, event) pair that its table does not hold. Nothing was changed."""

    def __init__(self, machine: str, state: str, event: str, accepts: list[str]) -> None:
        listed = ", ".join(accepts) if accepts else "nothing"
        super().__init__(f"{machine} is {state}: {event} is not accepted; it accepts {listed}")
        self.machine = machine
        self.state = state
        self.event = event
        self.accepts = accepts


class CommandRefused(Error):
    """A command of COOR that cannot be done now, for a reason other than a transition."""


class ResourcesExhausted(Error):
    """The system gives this process no more memory, descriptors or threads. Nothing is damaged."""


class NotReadable(Error):
    """The system does not let this user read something. Nothing is known to be wrong with it."""


# --- storage ----------------------------------------------------------------------------------


class StorageError(Error):
    """A data file or directory operation failed. Carries path, offset and the system's reason."""

    def __init__(self, reason: str, *, path: str, offset_bytes: int = 0) -> None:
        super().__init__(f"{_where(path, offset_bytes)}: {reason}")
        self.reason = reason
        self.path = path
        self.offset_bytes = offset_bytes


class DiskFull(StorageError):
    """No space left (ENOSPC, EDQUOT) for a reservation, a name or a write."""


class FileTooLarge(DiskFull):
    """No file may be so long (EFBIG): by its filesystem, or by a limit of this process."""


class NameTaken(StorageError):
    """A file of that name exists already; nothing is overwritten."""


class NoDescriptor(StorageError):
    """The system has no descriptor or memory left (EMFILE, ENFILE, ENOMEM, EAGAIN): a shortage of
    this process or machine, which says nothing about the disk."""


class NoThread(Error):
    """The system starts no further thread: what needs one is refused, the others go on."""


class FileLost(StorageError):
    """An open file's name was deleted or leads to another file; the descriptor still holds it."""


class JournalFull(Error):
    """The commit did not happen for want of space; the journal stands as before, retry later."""


class JournalUnreadable(Failure):
    """The journal cannot be opened or a record fails its checksum."""


class JournalOutdated(Failure):
    """The journal is an older copy: the event files tell of later commits. Nothing was touched."""


class JournalFailed(Failure):
    """A commit failed with unknown outcome: no acknowledgement may follow, the logger exits."""


class JournalGone(JournalFailed):
    """The journal was moved, deleted or replaced under the logger: the next start would not find
    what is committed to it."""


class InvariantBroken(Failure):
    """Something that cannot be, is: the logger stops before it does harm."""


class DataDirectoryGone(Failure):
    """The data directory of the journal vanished or can no longer be used at all."""


class LockedByAnother(Failure):
    """Another logger runs on this data directory."""

    exit_code: ClassVar[int] = 75


class NothingToResume(Failure):
    """`dlog resume` found no journal, or a journal in which nothing was running."""

    exit_code: ClassVar[int] = 66


# --- the source's side ------------------------------------------------------------------------


class SourceError(Error):
    """Base of what a Collector/Router's library raises to its caller."""


class WindowFull(SourceError):
    """`send(..., timeout=...)`: the window stayed full for that long; the event was not taken."""


class RunEnded(SourceError):
    """COOR ended this run: the event was not taken."""


class SourceRefused(SourceError):
    """The logger refused this session (a second one under a live name, a gap, a version)."""


class NotAcknowledged(SourceError):
    """The time was over before everything was acknowledged; `pending` pieces were not."""

    def __init__(self, detail: str, pending: int) -> None:
        super().__init__(detail)
        self.pending = pending


class StreamUnknown(SourceError):
    """The run has no such stream: the event was not taken. `streams` are those that it has."""

    def __init__(self, stream: str, run: int, streams: list[str]) -> None:
        listed = ", ".join(streams) or "none"
        like = meant(stream, streams)
        super().__init__(f"run {run} has no stream {stream}{like}; its streams: {listed}")
        self.stream = stream
        self.run = run
        self.streams = streams


class EventsDiverted(SourceError):
    """Everything is durable, but not all of it where it was sent to. `pieces`: how many, by run,
    stream and reason: `late` are in the stream's garbage file, the others in the orphan file."""

    def __init__(self, detail: str, pieces: dict[tuple[int, str, str], int]) -> None:
        super().__init__(detail)
        self.pieces = pieces


class EventsRefused(SourceError):
    """Pieces were settled without being stored. `reasons`: how many, by reason; `run-ended` are
    those that never left the source because their run was over."""

    def __init__(self, detail: str, reasons: dict[str, int]) -> None:
        super().__init__(detail)
        self.reasons = reasons
