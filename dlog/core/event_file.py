"""The parts of an event file that are not event blocks: header page, index, closing block, sidecar.

Layout: docs/FORMAT.md. It does no I/O.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from dlog.core.block import (
    HEADER_BYTES,
    BlockHeader,
    BlockType,
    encode_header,
    padded,
)
from dlog.core.filters import Compression, Filter
from dlog.errors import FormatError, FormatVersionError
from dlog.limits import PAGE_BYTES, STREAM_NAME_BYTES_MAX
from dlog.model.config import StreamConfig
from dlog.model.ids import (
    BlockNumber,
    BootNumber,
    FileKey,
    FileKind,
    Offset,
    PartNumber,
    RunNumber,
    StreamName,
    valid_stream_name,
)

# What msgspec raises for JSON that is not what it should be: wrong shape, bad UTF-8, deep nesting.
_BAD_JSON: Final = (msgspec.MsgspecError, ValueError, RecursionError)

MAGIC: Final = b"DLOGFIL\x01"
FORMAT_VERSION: Final = 1
# Bits that a reader must know to read the file at all; a compatible bit may be passed over.
INCOMPATIBLE_KNOWN: Final = 0

# magic, version, compatible flags, incompatible flags, file uuid, logger uuid, salt, run, part,
# kind, boot, created, first block number, predecessor part, predecessor chain crc,
# predecessor sealed offset, text bytes, stream
_HEADER: Final = struct.Struct(f"<8sIII4x16s16s16sIIIIQQIIQI4x{STREAM_NAME_BYTES_MAX}s")
_FIXED_BYTES: Final = _HEADER.size
assert _FIXED_BYTES == 160
_CRC: Final = struct.Struct("<I")
TEXT_BYTES_MAX: Final = PAGE_BYTES - _FIXED_BYTES - _CRC.size

INDEX_DTYPE: Final = np.dtype(
    [
        ("offset", "<u8"),
        ("number", "<u8"),
        ("first_event", "<u8"),
        ("last_event", "<u8"),
        ("time_ns", "<u8"),  # wall clock when the block was closed
        ("events", "<u4"),
        ("block_bytes", "<u4"),
    ]
)
assert INDEX_DTYPE.itemsize == 48

_NO_PART: Final = PartNumber(0)
_NOWHERE: Final = Offset(0)


class HeaderText(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON text in the header page: what a reader may want to know and a rebuild must know.

    low: the event number at which the range below this part's closed, -1 for none.
    """

    logger: str
    config: StreamConfig
    run_started_ns: int = 0
    streams: tuple[str, ...] = ()
    low: int = -1


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The first page of an event file, written once.

    predecessor_part: the part that was sealed by a fault and that this one goes on for, 0 for none;
    then predecessor_sealed is its durable offset in bytes and predecessor_chain the crc of its last
    header before that offset.
    """

    key: FileKey
    file_uuid: bytes
    logger_uuid: bytes
    salt: bytes
    boot: BootNumber
    created_ns: int
    first_block: BlockNumber
    text: HeaderText
    predecessor_part: PartNumber = _NO_PART
    predecessor_sealed: Offset = _NOWHERE
    predecessor_chain: int = 0
    compatible_flags: int = 0
    crc: int = 0


def encode_file_header(header: FileHeader) -> tuple[bytes, int]:
    """The header page, and its crc: the chain's beginning. Raises `FormatError` if text is over."""
    text = msgspec.json.encode(header.text)
    if len(text) > TEXT_BYTES_MAX:
        raise FormatError(f"file header text of {len(text)} bytes; at most {TEXT_BYTES_MAX}")
    key = header.key
    fixed = _HEADER.pack(
        MAGIC, FORMAT_VERSION, header.compatible_flags, 0, header.file_uuid, header.logger_uuid,
        header.salt, key.run, key.part, key.kind, header.boot, header.created_ns,
        header.first_block, header.predecessor_part, header.predecessor_chain,
        header.predecessor_sealed, len(text), key.stream.encode(),
    )  # fmt: skip
    page = (fixed + text).ljust(PAGE_BYTES - _CRC.size, b"\0")
    crc = crc32c(page)
    return page + _CRC.pack(crc), crc


def decode_file_header(page: bytes | memoryview, *, path: str) -> FileHeader:
    """The header page. Raises `FormatVersionError` for a newer format, else `FormatError`."""
    if len(page) == 0:
        raise FormatError("the file is empty", path=path)
    page = bytes(page[:PAGE_BYTES])
    if page[:7] != MAGIC[: min(7, len(page))]:
        raise FormatError("not a dlog event file (magic)", path=path)
    if len(page) < PAGE_BYTES:
        raise FormatError(f"the file ends in its header page ({len(page)} bytes)", path=path)
    (crc,) = _CRC.unpack_from(page, PAGE_BYTES - _CRC.size)
    if crc32c(page[: PAGE_BYTES - _CRC.size]) != crc:
        raise FormatError("file header checksum does not hold", path=path)
    (
        magic, version, compatible, incompatible, file_uuid, logger_uuid, salt, run, part, kind,
        boot, created, first_block, before_part, before_chain, before_sealed, text_bytes, name,
    ) = _HEADER.unpack_from(page)  # fmt: skip
    if magic != MAGIC or version != FORMAT_VERSION:
        raise FormatVersionError(
            f"format version {version}; this program reads {FORMAT_VERSION}", path=path
        )
    if incompatible & ~INCOMPATIBLE_KNOWN:
        raise FormatVersionError(f"incompatible format flags {incompatible:#x}", path=path)
    if text_bytes > TEXT_BYTES_MAX:
        raise FormatError(f"file header text of {text_bytes} bytes", path=path)
    try:
        text = msgspec.json.decode(page[_FIXED_BYTES : _FIXED_BYTES + text_bytes], type=HeaderText)
        file_kind = FileKind(kind)
        stream = StreamName(name.rstrip(b"\0").decode("ascii"))
    except _BAD_JSON as error:
        raise FormatError(f"file header: {error}", path=path) from error
    if not valid_stream_name(stream):
        raise FormatError(f"file header: {stream!r} is not a stream name", path=path)
    return FileHeader(
        FileKey(RunNumber(run), stream, file_kind, PartNumber(part)), file_uuid, logger_uuid, salt,
        BootNumber(boot), created, BlockNumber(first_block), text, PartNumber(before_part),
        Offset(before_sealed), before_chain, compatible, crc,
    )  # fmt: skip


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of a file over its event blocks; they stand in the closing block and in the sidecar.

    first_event, last_event: lowest and highest event number, 0 where there are no events.
    """

    blocks: int = 0
    events: int = 0
    payload_bytes: int = 0
    first_event: int = 0
    last_event: int = 0
    last_block: int = 0

    def plus(self, header: BlockHeader, payload_bytes: int) -> Totals:
        """With one more event block."""
        return self.plus_block(
            header.events, payload_bytes, header.first_event, header.last_event, header.number
        )

    def plus_block(
        self, events: int, payload_bytes: int, first_event: int, last_event: int, number: int
    ) -> Totals:
        first, last = (self.first_event, self.last_event) if self.events else (first_event, 0)
        return Totals(
            blocks=self.blocks + 1,
            events=self.events + events,
            payload_bytes=self.payload_bytes + payload_bytes,
            first_event=min(first, first_event),
            last_event=max(last, last_event),
            last_block=number,
        )


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """The raw bytes of the closing block, as JSON. Offsets and lengths in bytes."""

    totals: Totals
    index_offset: int
    index_bytes: int
    status: str = "good"  # good | recovered
    gaps: tuple[tuple[int, int], ...] = ()  # of a recovered file: block numbers missing, inclusive


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON file beside a closed event file. `crc32c` is of the whole file, 8 hex digits.

    file_content_status: as DUNE's MetaCat names it, good, recovered or bad (acknowledged bytes were
    lost). sealed: why a fault ended the file without footer, "" where it has one.
    """

    file: str
    format: str = "dlog event file"
    format_version: int = FORMAT_VERSION
    file_uuid: str
    logger: str
    logger_uuid: str
    run: int
    stream: str
    kind: str
    part: int
    size_bytes: int
    crc32c: str
    file_content_status: str = "good"
    sealed: str = ""
    created_ns: int
    closed_ns: int
    totals: Totals
    predecessor_part: int = 0
    config: StreamConfig
    recovery: dict[str, Any] | None = None


def sidecar_path(path: str) -> str:
    return path + ".json"


def encode_sidecar(sidecar: Sidecar) -> bytes:
    return msgspec.json.format(msgspec.json.encode(sidecar), indent=2) + b"\n"


def decode_sidecar(content: bytes, *, path: str) -> Sidecar:
    try:
        return msgspec.json.decode(content, type=Sidecar)
    except _BAD_JSON as error:
        raise FormatError(f"sidecar: {error}", path=path) from error


def encode_footer(
    index: NDArray[Any], totals: Totals, *, offset: Offset, boot: BootNumber, salt: bytes,
    previous_crc: int, time_ns: int, status: str = "good",
    gaps: tuple[tuple[int, int], ...] = (),
) -> bytes:  # fmt: skip
    """Index block and closing block, to be written at `offset`; the closing block is the last page.

    index: shape (blocks,), dtype INDEX_DTYPE.
    """
    index_block, chain = _encode_plain(
        BlockType.INDEX, index.tobytes(), offset, boot, salt, previous_crc, time_ns, offset
    )
    closing = Closing(
        totals=totals, index_offset=offset, index_bytes=len(index_block), status=status, gaps=gaps
    )
    closing_at = Offset(offset + len(index_block))
    closing_block, _ = _encode_plain(
        BlockType.CLOSING,
        msgspec.json.encode(closing),
        closing_at,
        boot,
        salt,
        chain,
        time_ns,
        offset,
    )
    return index_block + closing_block


def footer_bytes(blocks: int) -> int:
    """Space that the footer of a file with so many blocks takes, without `gaps` of a recovery."""
    return padded(HEADER_BYTES + blocks * INDEX_DTYPE.itemsize) + PAGE_BYTES


def _encode_plain(
    kind: BlockType,
    raw: bytes,
    offset: int,
    boot: int,
    salt: bytes,
    previous_crc: int,
    time_ns: int,
    durable: int,
) -> tuple[bytes, int]:
    block_bytes = padded(HEADER_BYTES + len(raw))
    padding = bytes(block_bytes - HEADER_BYTES - len(raw))
    crc = crc32c(raw)
    packed, header_crc = encode_header(
        BlockHeader(
            kind,
            1,
            BootNumber(boot),
            salt,
            Offset(offset),
            BlockNumber(0),
            previous_crc,
            0,
            0,
            Filter.NONE,
            1,
            Compression.NONE,
            0,
            0,
            len(raw),
            len(raw),
            crc,
            crc,
            crc32c(padding),
            block_bytes,
            time_ns,
            Offset(durable),
        )
    )
    return packed + raw + padding, header_crc


def decode_index(raw: memoryview, *, path: str, offset_bytes: int) -> NDArray[Any]:
    """Shape (blocks,), dtype INDEX_DTYPE."""
    if len(raw) % INDEX_DTYPE.itemsize:
        raise FormatError(
            "index is not a whole number of rows", path=path, offset_bytes=offset_bytes
        )
    return np.frombuffer(raw, INDEX_DTYPE)


def decode_closing(raw: memoryview, *, path: str, offset_bytes: int) -> Closing:
    try:
        return msgspec.json.decode(raw, type=Closing)
    except _BAD_JSON as error:
        raise FormatError(
            f"closing block: {error}", path=path, offset_bytes=offset_bytes
        ) from error
