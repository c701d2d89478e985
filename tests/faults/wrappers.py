"""Wrappers around the ports of the simulated logger, for mutations to build on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from dlog.core.frame import MessageKind, check_frame, control_body, encode_control
from dlog.core.journal_records import decode_record, encode_record
from dlog.faults.simulation.port_wrappers import PortWrappers
from dlog.limits import MESSAGE_BYTES_MAX
from dlog.model.messages import Acknowledgement, decode_body, encode_body
from dlog.ports import Change, DataFile, Directory, Journal
from tests.faults.mutation import changed


class Around:
    """Does what the port inside does, but for what a subclass does otherwise."""

    def __init__(self, inside: Any) -> None:
        self.inside = inside

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inside, name)


# --- files ---------------------------------------------------------------------------------------


class AroundFile(Around):
    """A data file. directory: where it stands, to be opened again. made: by `create`."""

    def __init__(self, inside: DataFile, directory: AroundDirectory, *, made: bool) -> None:
        super().__init__(inside)
        self.directory = directory
        self.made = made


class AroundDirectory(Around):
    def __init__(self, file: type[AroundFile], inside: Directory) -> None:
        super().__init__(inside)
        self._file = file

    def create(self, path: str) -> AroundFile:
        return self._file(self.inside.create(path), self, made=True)

    def open(self, path: str, *, writable: bool) -> AroundFile:
        return self._file(self.inside.open(path, writable=writable), self, made=False)


def files(file: type[AroundFile]) -> PortWrappers:
    return PortWrappers(directory=partial(AroundDirectory, file))


# --- the journal ---------------------------------------------------------------------------------


class AroundJournal(Around):
    """change: what becomes of the changes of each commit, given the journal before it."""

    def __init__(
        self, change: Callable[[Journal, Sequence[Change]], Sequence[Change]], inside: Journal
    ) -> None:
        super().__init__(inside)
        self._change = change

    def commit(self, changes: Sequence[Change], *, use_ballast: bool = False) -> None:
        self.inside.commit(self._change(self.inside, changes), use_ballast=use_ballast)


def commits(change: Callable[[Journal, Sequence[Change]], Sequence[Change]]) -> PortWrappers:
    return PortWrappers(journal=partial(AroundJournal, change))


def committed(prefix: bytes, kind: type[Any], change: Callable[[Any], Any]) -> PortWrappers:
    """Each record below the prefix is committed as `change` makes it; None: it is not committed."""

    def one(key: bytes, value: bytes | None) -> list[Change]:
        if value is None or not key.startswith(prefix):
            return [(key, value)]
        record = change(decode_record(key, value, kind))
        return [] if record is None else [(key, encode_record(key, record))]

    return commits(lambda _, changes: [new for change in changes for new in one(*change)])


# --- the committer -------------------------------------------------------------------------------


class _AroundCommitter(Around):
    """change: what becomes of each settlement that streams and sessions hand in."""

    def __init__(self, change: Callable[[Any], Any], inside: Any) -> None:
        super().__init__(inside)
        self._change = change

    def progress(self, progress: Any) -> None:
        settlements = tuple(self._change(settlement) for settlement in progress.settlements)
        self.inside.progress(changed(progress, settlements=settlements))

    def settle(self, settlement: Any) -> None:
        self.inside.settle(self._change(settlement))


def settlements(change: Callable[[Any], Any]) -> PortWrappers:
    return PortWrappers(committer=partial(_AroundCommitter, change))


# --- messages ------------------------------------------------------------------------------------


def kind_of(message: bytes) -> int:
    return check_frame(memoryview(message), MESSAGE_BYTES_MAX)


def acknowledgement_in(message: bytes) -> Acknowledgement:
    return decode_body(control_body(memoryview(message)), Acknowledgement)


def message_of(acknowledgement: Acknowledgement) -> bytes:
    return encode_control(MessageKind.ACKNOWLEDGEMENT, encode_body(acknowledgement))


class _AroundEventLink(Around):
    """fields: what every acknowledgement says that leaves the logger."""

    def __init__(self, fields: dict[str, Any], inside: Any) -> None:
        super().__init__(inside)
        self._fields = fields

    def send(self, peer: bytes, message: bytes) -> bool:
        if kind_of(message) == MessageKind.ACKNOWLEDGEMENT:
            told = msgspec.structs.replace(acknowledgement_in(message), **self._fields)
            message = message_of(told)
        return self.inside.send(peer, message)


def acknowledgements(**fields: Any) -> PortWrappers:
    return PortWrappers(event_link=partial(_AroundEventLink, fields))
