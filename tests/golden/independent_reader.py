"""A reader of event files that was written from docs/FORMAT.md alone: struct, json and zstandard,
no numpy and nothing of dlog. It is slow and small, and there to keep the specification honest.

    python tests/golden/independent_reader.py FILE...      prints what it finds, a line an event
    python tests/golden/independent_reader.py --sent FILE...   one run, in the order of sending
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

PAGE = 4096
BLOCK_MAX = 84_934_656


class Damage(Exception):
    def __init__(self, path: object, offset: int, reason: str) -> None:
        super().__init__(f"{path} at byte {offset}: {reason}")


# --- CRC-32C, from its polynomial ---------------------------------------------------------------


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _table()


def crc32c(*parts: bytes) -> int:
    crc = 0xFFFFFFFF
    for part in parts:
        for byte in part:
            crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


# --- what is in a file --------------------------------------------------------------------------


class Header(NamedTuple):
    file_uuid: bytes
    logger_uuid: bytes
    salt: bytes
    run: int
    part: int
    kind: int
    boot: int
    first_block: int
    predecessor_part: int
    predecessor_chain: int
    predecessor_sealed: int
    stream: str
    text: dict[str, Any]
    crc: int


class Fragment(NamedTuple):
    session: bytes
    sequence: int
    order_base: int
    run: int
    events: int
    piece_events: int
    first: bool
    last: bool
    orphan_reason: int
    stream: str


class Event(NamedTuple):
    number: int
    time_ns: int
    run: int
    streams: int
    order: int
    payload: bytes


class Block(NamedTuple):
    offset: int
    number: int
    boot: int
    group_end: bool
    fragments: list[Fragment]
    events: list[Event]


def name_of(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("ascii")


def read_header(path: Path) -> Header:
    with path.open("rb") as file:
        page = file.read(PAGE)
    if not page:
        raise Damage(path, 0, "empty")
    if page[:7] != b"DLOGFIL"[: len(page)]:
        raise Damage(path, 0, "another format")
    if len(page) < PAGE:
        raise Damage(path, 0, "cut off in its header")
    (crc,) = struct.unpack_from("<I", page, 4092)
    if crc32c(page[:4092]) != crc:
        raise Damage(path, 0, "crc of the file header")
    version, _, incompatible = struct.unpack_from("<III", page, 8)
    if page[7] != 1 or version != 1 or incompatible:
        raise Damage(path, 0, "a later format")
    run, part, kind, boot, _, first_block = struct.unpack_from("<IIIIQQ", page, 72)
    before, chain, sealed, text_bytes = struct.unpack_from("<IIQI", page, 104)
    text = json.loads(page[160 : 160 + text_bytes])
    return Header(
        page[24:40], page[40:56], page[56:72], run, part, kind, boot, first_block, before, chain,
        sealed, name_of(page[128:160]), text, crc,
    )  # fmt: skip


# --- blocks -------------------------------------------------------------------------------------


class Checked(NamedTuple):
    """A whole block: its header's fields, fragment table and raw bytes."""

    kind: int
    flags: int
    boot: int
    number: int
    previous_crc: int
    fragments: bytes
    events: int
    first_event: int
    last_event: int
    raw: bytes
    length: int
    crc: int


def check_block(path: Path, content: bytes, offset: int, salt: bytes) -> Checked:
    """In the order of the specification."""

    def need(holds: bool, reason: str) -> None:
        if not holds:
            raise Damage(path, offset, reason)

    head = content[offset : offset + 128]
    need(len(head) == 128 and head[:8] == b"DLOGBLK\x01", "no block begins here")
    (crc,) = struct.unpack_from("<I", head, 124)
    need(crc32c(head[:124]) == crc, "header crc")
    kind, flags, boot = struct.unpack_from("<HHI", head, 8)
    own, number, previous, fragments, events = struct.unpack_from("<QQIII", head, 32)
    filter_, element, compression = head[60], head[61], head[62]
    first, last, raw_bytes, stored_bytes = struct.unpack_from("<QQII", head, 64)
    raw_crc, stored_crc, frame_crc, length = struct.unpack_from("<IIII", head, 88)
    need(kind in (1, 2, 3) and filter_ in (0, 1, 2) and compression in (0, 1), "unknown value")
    need(head[16:32] == salt, "salt")
    need(own == offset, "own offset")
    need(fragments <= 16_384 and events <= 524_288, "limits")
    need(raw_bytes <= BLOCK_MAX and length <= BLOCK_MAX, "limits")
    framed = 128 + 96 * fragments
    need(-(-(framed + stored_bytes) // PAGE) * PAGE == length, "lengths")
    need(compression == 1 or stored_bytes == raw_bytes, "lengths")
    need(kind != 1 or events * 32 <= raw_bytes, "lengths")
    block = content[offset : offset + length]
    need(len(block) == length, "torn")
    table, stored = block[128:framed], block[framed : framed + stored_bytes]
    need(crc32c(table, block[framed + stored_bytes :]) == frame_crc, "fragment table or padding")
    need(crc32c(stored) == stored_crc, "stored bytes")
    if compression == 1:
        need(zstandard.frame_content_size(stored) == raw_bytes, "size in the frame")
        try:
            stored = zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise Damage(path, offset, f"zstd: {error}") from error
    raw = unfilter(stored, filter_, element)
    need(len(raw) == raw_bytes and crc32c(raw) == raw_crc, "raw bytes")
    return Checked(
        kind, flags, boot, number, previous, table, events, first, last, raw, length, crc
    )


def unfilter(data: bytes, filter_: int, size: int) -> bytes:
    count = len(data) // size
    if filter_ == 0 or count == 0:
        return data
    planes = [data[i * count : (i + 1) * count] for i in range(size)]
    elements = [int.from_bytes(bytes(e), "little") for e in zip(*planes, strict=True)]
    if filter_ == 2:
        total = 0
        for i, stored in enumerate(elements):
            difference = -(stored + 1) // 2 if stored & 1 else stored // 2
            total = (total + difference) % (1 << 8 * size)
            elements[i] = total
    return b"".join(e.to_bytes(size, "little") for e in elements) + data[count * size :]


def content_of(path: Path, offset: int, block: Checked) -> tuple[list[Fragment], list[Event]]:
    fragments, events = [], []
    row, at = 0, block.events * 32
    for i in range(0, len(block.fragments), 96):
        session, sequence, base, run, count, piece, payload_bytes, flags = struct.unpack_from(
            "<16sQQIIIII", block.fragments, i
        )
        fragments.append(
            Fragment(
                session, sequence, base, run, count, piece, bool(flags & 1), bool(flags & 2),
                flags >> 8 & 0xFF, name_of(block.fragments[i + 64 : i + 96]),
            )
        )  # fmt: skip
        begin = at
        for _ in range(count):
            number, time_ns, event_run, size, streams, order = struct.unpack_from(
                "<QQIIII", block.raw, row * 32
            )
            if event_run != run:
                raise Damage(path, offset, "run of an event")
            payload = block.raw[at : at + size]
            events.append(Event(number, time_ns, event_run, streams, order, payload))
            row, at = row + 1, at + size
        if at - begin != payload_bytes:
            raise Damage(path, offset, "payload bytes of a fragment")
    numbers = [event.number for event in events] or [0]
    if row != block.events or at != len(block.raw):
        raise Damage(path, offset, "sums")
    if (min(numbers), max(numbers)) != (block.first_event, block.last_event):
        raise Damage(path, offset, "lowest and highest event")
    return fragments, events


# --- files --------------------------------------------------------------------------------------


def beside(path: Path, header: Header) -> Iterator[tuple[Path, Header]]:
    """The other files of the stream, here all in one folder."""
    for other_path in sorted(path.parent.glob("*.dlog*")):
        if other_path.suffix == ".json" or other_path == path:
            continue
        try:
            other = read_header(other_path)
        except Damage:
            continue
        mine = (header.logger_uuid, header.run, header.stream)
        if (other.logger_uuid, other.run, other.stream) == mine:
            yield other_path, other


def sealed_end(path: Path, header: Header) -> int | None:
    sidecar_path = Path(str(path).removesuffix(".part") + ".json")
    if sidecar_path.exists():
        sidecar = json.loads(sidecar_path.read_text())
        if sidecar["file_uuid"] != header.file_uuid.hex():
            raise Damage(sidecar_path, 0, "sidecar of another file")
        if sidecar["sealed"]:
            return int(sidecar["size_bytes"])
        if path.suffix != ".part":
            return None
    for _, other in beside(path, header):
        if (other.kind, other.predecessor_part) == (header.kind, header.part):
            return other.predecessor_sealed
    return None


def blocks_in(path: Path, header: Header) -> Iterator[Checked]:
    content, at = path.read_bytes(), PAGE
    try:
        while True:
            block = check_block(path, content, at, header.salt)
            if block.kind == 1:
                yield block
            at += block.length
    except Damage:
        return


def void_from(path: Path, header: Header) -> int | None:
    mine = max([header.boot, *(block.boot for block in blocks_in(path, header))])
    told = []
    for other_path, other in beside(path, header):
        told.append((other.boot, other.first_block))
        told += [(block.boot, block.number) for block in blocks_in(other_path, other)]
    return min((number for boot, number in told if boot > mine), default=None)


class EventFile:
    """blocks: the events blocks. tail: where an open file's torn tail begins. closing: its JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = read_header(path)
        self.tail: int | None = None
        self.closing: dict[str, Any] | None = None
        self.end = PAGE
        self.blocks = list(self._read())

    def _read(self) -> Iterator[Block]:
        content = self.path.read_bytes()
        stop = sealed_end(self.path, self.header)
        is_open = self.path.suffix == ".part"
        void = void_from(self.path, self.header) if is_open and stop is None else None
        chain, number, boot, at = self.header.crc, 0, 0, PAGE
        rows = []
        while stop is None or at < stop:
            try:
                block = check_block(self.path, content, at, self.header.salt)
            except Damage:
                if stop is not None or not is_open or self._was_committed(content, at):
                    raise
                self.tail = at if any(content[at:]) else None
                return
            if block.previous_crc != chain or block.boot < boot:
                raise Damage(self.path, at, "chain or boot")
            if block.kind == 2:
                self._footer(content, at, block, rows)
                return
            if void is not None and block.number >= void:
                self.tail = at
                return
            if block.number <= number or (stop is not None and at + block.length > stop):
                raise Damage(self.path, at, "number, or over the sealed end")
            fragments, events = content_of(self.path, at, block)
            yield Block(at, block.number, block.boot, bool(block.flags & 1), fragments, events)
            (time_ns,) = struct.unpack_from("<Q", content, at + 104)
            rows.append(
                struct.pack(
                    "<QQQQQII", at, block.number, block.first_event, block.last_event, time_ns,
                    block.events, block.length,
                )
            )  # fmt: skip
            chain, number, boot = block.crc, block.number, block.boot
            at = self.end = at + block.length

    def _was_committed(self, content: bytes, begin: int) -> bool:
        """Whether a whole block behind this place knows that it was below the durable offset."""
        for at in range(begin + PAGE, len(content), PAGE):
            try:
                check_block(self.path, content, at, self.header.salt)
            except Damage:
                continue
            if struct.unpack_from("<Q", content, at + 112)[0] > begin:
                return True
        return False

    def _footer(self, content: bytes, at: int, index: Checked, rows: list[bytes]) -> None:
        if index.raw != b"".join(rows):
            raise Damage(self.path, at, "index differs from the blocks")
        closing_at = at + index.length
        block = check_block(self.path, content, closing_at, self.header.salt)
        if block.kind != 3 or block.previous_crc != index.crc:
            raise Damage(self.path, closing_at, "no closing block")
        if closing_at + block.length != len(content):
            raise Damage(self.path, closing_at, "bytes behind the closing block")
        self.closing = json.loads(block.raw)


def in_sent_order(files: list[EventFile]) -> list[tuple[str, int, Event]]:
    """(streams, position, event), session by session."""
    numbered: dict[str, dict[int, Block]] = {}
    for file in files:
        blocks = numbered.setdefault(file.header.stream, {})
        for block in file.blocks:
            if block.number in blocks:
                raise Damage(file.path, block.offset, "block number twice")
            blocks[block.number] = block
    sessions: dict[bytes, dict[tuple[int, int, int, int], list[tuple[str, Event]]]] = {}
    for blocks in numbered.values():
        for number in sorted(blocks):
            row = 0
            for fragment in blocks[number].fragments:
                for event in blocks[number].events[row : row + fragment.events]:
                    place = sessions.setdefault(fragment.session, {}).setdefault(
                        (fragment.order_base + event.order, event.number, event.time_ns,
                         len(event.payload)), [],
                    )  # fmt: skip
                    place.append((fragment.stream, event))
                row += fragment.events
    by_time = sorted(sessions.items(), key=lambda item: item[1][min(item[1])][0][1].time_ns)
    return [
        (",".join(sorted(stream for stream, _ in found)), position[0], found[0][1])
        for _, places in by_time
        for position, found in sorted(places.items(), key=lambda item: item[0])
    ]


def main(arguments: list[str]) -> None:
    sent = arguments[:1] == ["--sent"]
    files = [EventFile(Path(name)) for name in arguments[sent:]]
    if sent:
        for streams, position, event in in_sent_order(files):
            print(position, streams, event.number, event.time_ns, len(event.payload))
        return
    for file in files:
        print(file.path, file.header.run, file.header.stream, file.header.part, file.closing)
        for block in file.blocks:
            for event in block.events:
                print(" ", block.number, event.number, event.time_ns, len(event.payload))


if __name__ == "__main__":
    main(sys.argv[1:])
