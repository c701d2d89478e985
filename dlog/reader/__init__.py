"""Reading event files: events and blocks as numpy views, every checksum checked on the way.

It never writes. docs/READING.md shows its use; docs/FORMAT.md, "Reading", says what it does.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakSet

from dlog.core.run_files import PART_SUFFIX, LeftOut, Named, named
from dlog.core.sent_order import merge
from dlog.errors import FormatError, FormatVersionError, NotThere
from dlog.limits import PAGE_BYTES
from dlog.model.ids import FileKind, RunNumber, StreamName
from dlog.reader.beside import Beside
from dlog.reader.block import Block, Event
from dlog.reader.event_file import EventFile, PathLike, Tail
from dlog.reader.file_bytes import FileBytes
from dlog.reader.run_folder import own_files
from dlog.reader.sent import (
    Feed,
    FeedKey,
    Numbering,
    Sent,
    events_of,
    in_order_of_time,
    payloads_of,
)

__all__ = [
    "Block",
    "Event",
    "EventFile",
    "LeftOut",
    "Missing",
    "Reader",
    "Tail",
    "in_sent_order",
    "read",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Missing:
    """Block numbers first to last (inclusive) of a stream that none of the files read holds."""

    run: RunNumber
    stream: StreamName
    first: int
    last: int


class Reader:
    """Event files, read one after the other: by run, stream, kind and part.

    Iterable as often as wanted, each time from the beginning; a context manager, which ends the
    iterations that are under way. tails: what was found behind the last block of open files, as far
    as they were read. missing: blocks that no file holds, known once `in_sent_order` began.
    left_out: what lies in the folders and is none of their files: copies, files of other runs.
    """

    def __init__(
        self, paths: PathLike | Iterable[PathLike], *, streams: Iterable[str] | None = None
    ) -> None:
        """Raises `FileNotFoundError` for a path that is not there, `FormatError` for a file that is
        not an event file or a folder without any, and `NotThere` for a stream of which there is no
        file."""
        if isinstance(paths, str | os.PathLike):
            paths = [paths]
        given = list(dict.fromkeys(Path(path) for path in paths))
        folders = [path for path in given if path.is_dir()]
        # A part may go on in another data directory, of which only a file was named.
        beside = Beside(path if path in folders else path.parent for path in given)
        self._unborn: list[Tail] = []
        self.left_out: list[LeftOut] = []
        sources: list[EventFile | FormatError] = [
            EventFile(path, beside=beside) for path in given if path not in folders
        ]
        sources += self._in_folders(folders, sources, beside)
        wanted = None if streams is None else set(streams)
        there = {_stream_of(source) for source in sources}
        for name in sorted((wanted or set()) - there):
            where = ", ".join(map(str, given))
            raise NotThere(f"stream {name}", where, sorted(filter(None, there)))
        self._sources = sorted((s for s in sources if _is_wanted(s, wanted)), key=_reading_order)
        self.missing: list[Missing] = []
        self._iterators: WeakSet[Generator[Any, None, None]] = WeakSet()

    def _in_folders(
        self, folders: list[Path], given: Sequence[EventFile | FormatError], beside: Beside
    ) -> Iterator[EventFile | FormatError]:
        """The files of the folders, without those that are given by name; of one whose header does
        not hold, the error, for its turn."""
        paths, self.left_out = own_files(folders)
        copies = {out.folder for out in self.left_out if out.is_file}
        for folder in folders:
            if str(folder) not in copies and not any(path.parent == folder for path in paths):
                raise FormatError("no event files in this folder", path=str(folder))
        named = {file.header.file_uuid for file in given if isinstance(file, EventFile)}
        for path in paths:
            try:
                file = EventFile(path, beside=beside)
                if file.header.file_uuid not in named:
                    yield file
            except FormatError as error:
                # A file that was being created when its logger died holds nothing.
                tail = _unborn(path, error)
                if tail is None:
                    yield error
                else:
                    self._unborn.append(tail)

    @property
    def files(self) -> tuple[EventFile, ...]:
        return tuple(s for s in self._sources if isinstance(s, EventFile))

    @property
    def streams(self) -> tuple[StreamName, ...]:
        return tuple(dict.fromkeys(file.header.key.stream for file in self.files))

    @property
    def runs(self) -> tuple[RunNumber, ...]:
        return tuple(dict.fromkeys(file.header.key.run for file in self.files))

    @property
    def tails(self) -> tuple[Tail, ...]:
        return (*self._unborn, *(file.tail for file in self.files if file.tail is not None))

    def __iter__(self) -> Iterator[Event]:
        """The events, block after block."""
        return self._kept(event for block in self._blocks() for event in block)

    def blocks(self) -> Iterator[Block]:
        """The blocks, file after file: for bulk access without any code per event."""
        return self._kept(self._blocks())

    def in_sent_order(self) -> Iterator[Event]:
        """The events of all streams in the order in which they were sent: run by run, session by
        session (by the time of its first event). An event that stands in several streams comes
        once, with all of them in `streams`.

        Headers and fragment tables are read first, so damage in them is raised at the beginning.
        Memory: a block and a batch for each stream, and some tens of bytes for each block.
        """
        return self._kept(event for sent in self._sent() for event in events_of(sent))

    def payloads_in_sent_order(self) -> Iterator[memoryview]:
        """The same events, their payloads alone; those that lie together come in one piece."""
        return self._kept(part for sent in self._sent() for part in payloads_of(sent))

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the iterations that are under way, and so close their files."""
        for iterator in list(self._iterators):
            iterator.close()

    def _kept(self, iterator: Generator[T, None, None]) -> Iterator[T]:
        self._iterators.add(iterator)
        return iterator

    def _blocks(self) -> Generator[Block, None, None]:
        for source in self._sources:
            if isinstance(source, FormatError):
                raise source
            with closing(source.blocks()) as blocks:
                yield from blocks

    def _sent(self) -> Generator[Sent, None, None]:
        self.missing = []
        feeds: dict[FeedKey, Feed] = {}
        numberings: dict[tuple[RunNumber, StreamName], Numbering] = {}
        for source in self._sources:
            if isinstance(source, FormatError):
                raise source
            key = source.header.key
            numberings.setdefault((key.run, key.stream), Numbering()).add(source, feeds)
        for (run, stream), numbering in numberings.items():
            self.missing += [Missing(run, stream, *gap) for gap in numbering.finish()]
        for keys in in_order_of_time(feeds):
            for rows in merge([feeds[key].pieces(key) for key in keys]):
                streams = {keys[i].stream for i in (rows.stream, *rows.also)}
                yield Sent(keys[rows.stream], rows, tuple(sorted(streams)))


def read(paths: PathLike | Iterable[PathLike], *, streams: Iterable[str] | None = None) -> Reader:
    """Read an event file (`.dlog` or `.dlog.part`), a run folder, or several of them.

        for event in dlog.read("data/runs/7"):
            print(event.number, event.stream, len(event.payload))

    streams: only the files of these streams.
    """
    return Reader(paths, streams=streams)


def in_sent_order(
    run_folder: PathLike | Iterable[PathLike], *, streams: Iterable[str] | None = None
) -> Iterator[Event]:
    """The events of a run in the order in which they were sent: see `Reader.in_sent_order`."""
    return Reader(run_folder, streams=streams).in_sent_order()


def _is_wanted(source: EventFile | FormatError, streams: set[str] | None) -> bool:
    return streams is None or _stream_of(source) in (None, *streams)


def _stream_of(source: EventFile | FormatError) -> str | None:
    """Of a file whose header does not hold, as its name says, if it says one."""
    if isinstance(source, EventFile):
        return source.header.key.stream
    name = _name_of(source)
    return name.stream if name is not None else None


def _name_of(source: FormatError) -> Named | None:
    return named(Path(source.path).name)


def _reading_order(source: EventFile | FormatError) -> tuple[int, str, int, int]:
    """By run, stream, kind and part; of a file whose header does not hold, as its name says."""
    if isinstance(source, EventFile):
        return source.header.key
    path = Path(source.path)
    run = int(path.parent.name) if path.parent.name.isdecimal() else 0
    name = _name_of(source)
    if name is None:
        return run, path.name, 0, 0
    return run, name.stream, FileKind.GARBAGE if name.garbage else FileKind.EVENTS, name.part


def _unborn(path: Path, error: FormatError) -> Tail | None:
    """A tail for an open file whose header page was never written, or not wholly."""
    if path.suffix != PART_SUFFIX or isinstance(error, FormatVersionError):
        return None
    with suppress(OSError), closing(FileBytes(path)) as file:
        if file.size() < PAGE_BYTES or not any(file.read(0, PAGE_BYTES)):
            return Tail(path, 0, file.size(), error.reason)
    return None
