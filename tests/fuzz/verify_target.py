"""The fuzzed function: an event file made of any bytes is judged and salvaged.

No input may raise, hang, take memory without bound, be called good when it is not, or make salvage
invent an event. Checksums are signed anew after half of the changes, so that what lies behind them
is reached too.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from crc32c import crc32c

from dlog.core.block import HEADER_BYTES
from dlog.limits import PAGE_BYTES
from dlog.model.config import StreamConfig
from dlog.recovery.facts import place_of
from dlog.recovery.judge import verify_file
from dlog.recovery.rebuild import Job, Mode, Outcome, recover_file
from dlog.recovery.report import Verdict
from dlog.recovery.verify import Task
from tests.event_files import BuiltFile, build_file, make_events
from tests.recovery.damage import readable_events, sent_events

_CHANGE: Final = struct.Struct("<BIH")  # what, where, how many bytes follow


class Target:
    """A folder with a whole file, and the function that is fuzzed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        config = StreamConfig(compression="zstd", filter="shuffle")
        self._built: BuiltFile = build_file(
            folder / "whole" / "photons_0001.dlog", events=make_events(30, size=700),
            events_per_block=10, config=config,
        )  # fmt: skip
        self._whole = self._built.path.read_bytes()
        self._events = set(sent_events(self._built))

    def one(self, data: bytes) -> None:
        """Judge and salvage one input. Raises `AssertionError` for a wrong verdict."""
        content, resigned = self.content(data)
        path = self._folder / "photons_0001.dlog"
        path.write_bytes(content)
        assert self._built.sidecar is not None
        path.with_name(path.name + ".json").write_bytes(self._built.sidecar.read_bytes())
        report = verify_file(place_of(path))
        if content != self._whole:
            # The sidecar's checksum is outside of what is changed here.
            assert report.verdict is not Verdict.GOOD, report
        output = self._folder / "out" / "photons_0001.dlog"
        told = recover_file(Job(Task(place_of(path), None), output.parent, output.name),
                            Mode.SALVAGE)  # fmt: skip
        if told.outcome is Outcome.RECOVERED:
            assert verify_file(place_of(output)).verdict is Verdict.GOOD
            if not resigned:
                assert set(readable_events(output)) <= self._events
            output.unlink()
            output.with_name(output.name + ".json").unlink()
        else:
            assert told.outcome in (Outcome.NOTHING, Outcome.UNSUPPORTED), told

    def content(self, data: bytes) -> tuple[bytes, bool]:
        """A file from the input, and whether a checksum in it was signed anew."""
        if data[:1] == b"\xff":
            return data[1:], True
        content = bytearray(self._whole)
        resigned = False
        at = 1
        while at + _CHANGE.size <= len(data):
            what, where, length = _CHANGE.unpack_from(data, at)
            at += _CHANGE.size
            piece = data[at : at + length % 64]
            at += len(piece)
            where %= len(content) + PAGE_BYTES
            if what % 8 == 7:
                del content[where:]
                if not content:
                    break
                continue
            if where > len(content):
                content += bytes(where - len(content))
            content[where : where + len(piece)] = piece
            if what % 2:
                resigned = True
                _sign(content, where // PAGE_BYTES * PAGE_BYTES)
        return bytes(content), resigned


def _sign(content: bytearray, page: int) -> None:
    """Make the checksum of the header at this page hold again."""
    if page == 0 and len(content) >= PAGE_BYTES:
        struct.pack_into("<I", content, PAGE_BYTES - 4, crc32c(content[: PAGE_BYTES - 4]))
    elif page + HEADER_BYTES <= len(content):
        end = page + HEADER_BYTES - 4
        struct.pack_into("<I", content, end, crc32c(content[page:end]))
