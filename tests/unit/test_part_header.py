"""The header page of a new part, for a run with more streams than a page can name."""

from __future__ import annotations

from dlog.core.event_file import FileHeader, HeaderText, decode_file_header
from dlog.model.config import StreamConfig
from dlog.model.ids import (
    BlockNumber,
    BootNumber,
    FileKey,
    FileKind,
    PartNumber,
    RunNumber,
    StreamName,
)
from dlog.services.parts import _header_page


def header(streams: tuple[str, ...]) -> FileHeader:
    key = FileKey(RunNumber(7), StreamName("photons"), FileKind.EVENTS, PartNumber(1))
    text = HeaderText(logger="dlog", config=StreamConfig(), streams=streams)
    uuid = bytes(16)
    return FileHeader(key, uuid, uuid, uuid, BootNumber(1), 0, BlockNumber(1), text)


def test_a_run_of_few_streams_is_named_in_the_header() -> None:
    page, _ = _header_page(header(("photons", "hits")))
    assert decode_file_header(page, path="").text.streams == ("photons", "hits")


def test_more_streams_than_a_page_can_name_still_make_a_header() -> None:
    page, _ = _header_page(header(tuple(f"{i:03d}".rjust(32, "s") for i in range(256))))
    assert decode_file_header(page, path="").text.streams == ()
