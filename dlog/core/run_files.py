"""Which names in a folder are event files of its run: the one rule of each reader.

A file is known by its header and its name. What lies beside the files of a run, such as a copy, a
file of another run, a folder or an editor's backup, is left out, and named. It does no I/O.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from dlog.core.event_file import FileHeader
from dlog.model.ids import FileKind, file_name

# Behind the name of a file that still takes events, or whose logger died.
PART_SUFFIX: Final = ".part"
_NAME: Final = re.compile(
    r"(?P<stream>[A-Za-z][A-Za-z0-9_-]*)(?P<garbage>\.garbage)?_(?P<part>\d{4,8})\.dlog(?:\.part)?"
)
_SUFFIXES: Final = (".dlog", ".dlog.part")
_BESIDE: Final = ".dlog.json"
_NO_LOGGER: Final = bytes(16)


class Named(NamedTuple):
    """What the name of an event file says."""

    stream: str
    garbage: bool
    part: int


def named(name: str) -> Named | None:
    """None where dlog gives no such name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return Named(found["stream"], bool(found["garbage"]), int(found["part"]))


def is_event_file_name(name: str) -> bool:
    """Whether it ends as the names of event files do, copies of them too."""
    return name.endswith(_SUFFIXES)


def is_strange_name(name: str, *, of_run: bool) -> bool:
    """Whether a name that is no event file's is to be told of. of_run: dlog makes the folder, and
    nothing else belongs there."""
    if name.endswith(_BESIDE) or is_event_file_name(name):
        return False
    return of_run or ".dlog" in name


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a folder that ends as those of event files do.

    run: that the folder is of, None for a folder that does not tell; 0 for `orphans/`. header: None
    where it does not hold or was not read. obstacle: what stands there instead of a file, "" for a
    file. known: the journal knows the file under this name.
    """

    folder: str
    name: str
    run: int | None
    header: FileHeader | None = None
    obstacle: str = ""
    known: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A name that no reader takes, and why. obstacle: what stands there is no file. is_file: it is
    an event file by its header or its name, though none of these."""

    folder: str
    name: str
    reason: str
    obstacle: bool = False
    is_file: bool = False


class Sorted(NamedTuple):
    own: list[Entry]
    left: list[LeftOut]


class _Part(NamedTuple):
    """What can stand once only."""

    logger: bytes
    run: int | None
    stream: str
    kind: int
    part: int


def sort_out(entries: Sequence[Entry], whose: Mapping[str, bytes | None]) -> Sorted:
    """Tell the event files of these folders from what else has such names.

    whose: the logger of each folder; where that is not known, most files of the folder tell.

    | header   | name         | then                                                            |
    |----------|--------------|-----------------------------------------------------------------|
    | holds    | its own      | taken                                                           |
    | holds    | any other    | taken where no other file is of its part; else a copy: left out |
    | of another run or logger, by its folder | | left out                                     |
    | does not | as dlog's    | taken: it is damaged, or being created                          |
    | does not | any other    | left out of the folder of a run, else taken                     |

    What the journal knows is taken in any case.
    """
    loggers = {
        folder: whose.get(folder) or _logger_of(entries, folder) for folder in _folders(entries)
    }
    own: dict[_Part, Entry] = {}
    left: list[LeftOut] = []
    # What the journal knows first, then who has the right name, the final one before `.part`; of
    # two in different folders the one whose header holds.
    for entry in sorted(entries, key=_rank):
        reason = _foreign(entry, loggers[entry.folder])
        part = _part_of(entry, loggers[entry.folder])
        if not reason and part in own:
            reason = _double(entry, own[part])
        if reason:
            is_file = entry.header is not None or named(entry.name) is not None
            what = bool(entry.obstacle), is_file and not entry.obstacle
            left.append(LeftOut(entry.folder, entry.name, reason, *what))
        else:
            own[part] = entry
    taken = set(map(id, own.values()))
    return Sorted([entry for entry in entries if id(entry) in taken], left)


def _folders(entries: Iterable[Entry]) -> set[str]:
    return {entry.folder for entry in entries}


def _logger_of(entries: Iterable[Entry], folder: str) -> bytes | None:
    found = Counter(
        entry.header.logger_uuid
        for entry in entries
        if entry.folder == folder and entry.header is not None
    )
    return found.most_common(1)[0][0] if found else None


def _rank(entry: Entry) -> tuple[bool, bool, bool, bool]:
    is_open = entry.name.endswith(PART_SUFFIX)
    return not entry.known, not _has_its_name(entry), is_open, entry.header is None


def _has_its_name(entry: Entry) -> bool:
    if entry.header is None:
        return named(entry.name) is not None
    return entry.name.removesuffix(PART_SUFFIX) == file_name(entry.header.key)


def _foreign(entry: Entry, logger: bytes | None) -> str:
    """Why it is none of this folder, whatever else lies there; "" where it may be."""
    if entry.obstacle:
        return entry.obstacle
    if entry.known:
        return ""
    header = entry.header
    if header is None:
        # Elsewhere names are free: a copy with a name of its own may be damaged.
        if named(entry.name) is not None or entry.run is None:
            return ""
        return "no event file by its name, and its header does not hold"
    if logger not in (None, _NO_LOGGER, header.logger_uuid) and header.logger_uuid != _NO_LOGGER:
        return f"of another logger, {header.text.logger or header.logger_uuid.hex()}"
    if entry.run is not None and header.key.run != entry.run:
        return f"of run {header.key.run}"
    return ""


def _part_of(entry: Entry, logger: bytes | None) -> _Part:
    header = entry.header
    # The journal knows a file by its name: should its content be another's, that is a finding.
    if header is not None and not entry.known:
        key = header.key
        return _Part(header.logger_uuid, key.run, key.stream, key.kind, key.part)
    told = named(entry.name)
    if told is None:
        return _Part(b"", None, f"{entry.folder}/{entry.name}", 0, 0)
    kind = FileKind.GARBAGE if told.garbage else FileKind.EVENTS
    if entry.run == 0:
        kind = FileKind.ORPHAN
    return _Part(logger or _NO_LOGGER, entry.run, told.stream, kind, told.part)


def _double(entry: Entry, taken: Entry) -> str:
    where = taken.name if taken.folder == entry.folder else f"{taken.folder}/{taken.name}"
    header, other = entry.header, taken.header
    if header is None or other is None:
        return f"of the same part as {where}"
    if header.file_uuid == other.file_uuid:
        return f"a copy of {where}"
    return f"another file of the part that {where} is of"
