"""The identities that dlog speaks of, as strict types; not where they are stored."""

from __future__ import annotations

import enum
import re
from typing import NamedTuple, NewType

from dlog.limits import RUN_NUMBER_MAX, SOURCE_NAME_BYTES_MAX, STREAM_NAME_BYTES_MAX

RunNumber = NewType("RunNumber", int)  # 1 .. 2**32-1; 0 is "no run" (orphans)
EventNumber = NewType("EventNumber", int)  # 0 .. 2**64-1, given by the experiment
StreamName = NewType("StreamName", str)
SourceName = NewType("SourceName", str)
SessionId = NewType("SessionId", bytes)  # 16 random bytes made by the source
Sequence = NewType("Sequence", int)  # number of a batch in its session, from 1
BlockNumber = NewType("BlockNumber", int)  # per (run, stream) across all its files, from 1
PartNumber = NewType("PartNumber", int)  # per (run, stream, file kind), from 1
BootNumber = NewType("BootNumber", int)  # starts of this logger, never decreases
Offset = NewType("Offset", int)  # bytes from the beginning of a file

NO_RUN = RunNumber(0)
ORPHAN_STREAM = StreamName("orphan")

# Dots and slashes are left out: they separate the parts of a file name.
_STREAM_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z")
_SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]*\Z")


class FileKind(enum.IntEnum):
    """What a file takes; its value stands in the file header."""

    EVENTS = 1
    GARBAGE = 2  # late events whose range is CLOSED
    ORPHAN = 3  # events of no known run or stream while another run is active


class StreamKey(NamedTuple):
    """A stream of a run: what block numbers, durable offsets and threads are counted by."""

    run: RunNumber
    stream: StreamName

    def __str__(self) -> str:
        return f"run {self.run} stream {self.stream}"


class FileKey(NamedTuple):
    """One event file."""

    run: RunNumber
    stream: StreamName
    kind: FileKind
    part: PartNumber

    @property
    def stream_key(self) -> StreamKey:
        return StreamKey(self.run, self.stream)

    def __str__(self) -> str:
        return f"run {self.run} {file_name(self)}"


class MarkKey(NamedTuple):
    """What a watermark is kept by: the stream as sent, whatever file took the piece."""

    session: SessionId
    run: RunNumber
    stream: StreamName


class CommandId(NamedTuple):
    """A COOR command: COOR's random session and its number in it."""

    session: bytes
    number: int

    def __str__(self) -> str:
        return f"{self.session.hex()[:8]}:{self.number}"


def valid_stream_name(text: str) -> bool:
    return len(text) <= STREAM_NAME_BYTES_MAX and _STREAM_NAME.match(text) is not None


def valid_source_name(text: str) -> bool:
    return len(text) <= SOURCE_NAME_BYTES_MAX and _SOURCE_NAME.match(text) is not None


def valid_run_number(number: int) -> bool:
    return 1 <= number <= RUN_NUMBER_MAX


def file_name(key: FileKey) -> str:
    """The final name inside its folder: `photons_0001.dlog`, `photons.garbage_0001.dlog`."""
    kind = ".garbage" if key.kind is FileKind.GARBAGE else ""
    return f"{key.stream}{kind}_{key.part:04d}.dlog"


def file_folder(key: FileKey) -> str:
    """The folder of a file inside its data directory."""
    return "orphans" if key.kind is FileKind.ORPHAN else f"runs/{key.run}"


def file_path(key: FileKey) -> str:
    """The final path inside the data directory; while open it has `.part` behind it."""
    return f"{file_folder(key)}/{file_name(key)}"
