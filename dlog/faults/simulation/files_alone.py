"""What the event files say without the journal (contract 7): no block is read twice, though a fault
made the logger write it again into another part, or a restart while a directory was away.

It reads as every reader does: up to the end that core/sealed_end.py tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlog.core.block import BlockHeader
from dlog.core.event_file import (
    FileHeader,
    Sidecar,
    decode_file_header,
    decode_sidecar,
    sidecar_path,
)
from dlog.core.scan import Depth, SpanKind, scan
from dlog.core.sealed_end import (
    Numbered,
    block_headers,
    is_beside,
    numbered_by,
    own_of,
    seal_of,
    void_from,
)
from dlog.errors import FormatError
from dlog.limits import PAGE_BYTES


class BytesOf:
    """The bytes of a file as a `ByteSource`."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def size(self) -> int:
        return len(self._content)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        data = self._content[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def next_data(self, offset: int) -> int:
        return offset


@dataclass(frozen=True, slots=True)
class _File:
    """blocks: the headers of its blocks, those that do not count too."""

    path: str
    content: bytes
    header: FileHeader
    sidecar: Sidecar | None
    blocks: tuple[BlockHeader, ...]

    @property
    def is_open(self) -> bool:
        return self.path.endswith(".part")

    @property
    def numbered(self) -> list[Numbered]:
        return [numbered_by(self.header), *(Numbered(b.boot, b.number) for b in self.blocks)]


def doubled_blocks(directories: Sequence[Mapping[str, bytes]]) -> list[str]:
    """The problems. directories: the contents of each, by path."""
    found: dict[tuple[int, str, int], str] = {}
    problems = []
    files = [file for contents in directories for file in _files(contents)]
    for file in files:
        for number in _numbers(file, files):
            block = (int(file.header.key.run), str(file.header.key.stream), number)
            if block in found:
                problems.append(
                    f"{file.path}: read without the journal, block {number} is doubled; "
                    f"it is in {found[block]} too"
                )
            found[block] = file.path
    return problems


def _numbers(file: _File, files: Sequence[_File]) -> list[int]:
    """The numbers of the blocks that a reader of all files takes from this one."""
    header = file.header
    seal = seal_of(header, file.sidecar, (f.header for f in files), is_open=file.is_open)
    void = None
    if seal is None and file.is_open:
        others = (n for f in files if is_beside(header, f.header) for n in f.numbered)
        void = void_from(own_of(header, file.blocks), others)
    content = file.content if seal is None else file.content[: seal.at]
    spans = scan(
        BytesOf(content), salt=header.salt, path=file.path, begin=PAGE_BYTES, chain=header.crc,
        depth=Depth.STORED,
    )  # fmt: skip
    numbers = [int(s.header.number) for s in spans if s.kind is SpanKind.BLOCK and s.header]
    return [number for number in numbers if void is None or number < void]


def _files(contents: Mapping[str, bytes]) -> list[_File]:
    """Those of one directory, each under one name: a rename that was cut short may leave both."""
    found: dict[str, _File] = {}
    for path, content in sorted(contents.items()):
        final = path.removesuffix(".part")
        if not path.startswith(("runs/", "orphans/")) or not final.endswith(".dlog"):
            continue
        if final in found:
            continue
        try:
            header = decode_file_header(content[:PAGE_BYTES], path=path)
        except FormatError:
            continue  # a creation that came to nothing
        blocks = tuple(block_headers(BytesOf(content), header, path=path))
        found[final] = _File(path, content, header, _sidecar(contents, final), blocks)
    return list(found.values())


def _sidecar(contents: Mapping[str, bytes], path: str) -> Sidecar | None:
    content = contents.get(sidecar_path(path))
    if content is None:
        return None
    try:
        return decode_sidecar(content, path=path)
    except FormatError:
        return None
