"""What the event files say without the journal (contract 7): no block is read twice, though a fault
made the logger write it again into another part.

It reads as every reader does: up to where a sidecar, or the part that goes on, says "sealed".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlog.core.event_file import FileHeader, decode_file_header, decode_sidecar, sidecar_path
from dlog.core.scan import Depth, SpanKind, scan
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


def doubled_blocks(directories: Sequence[Mapping[str, bytes]]) -> list[str]:
    """The problems. directories: the contents of each, by path."""
    found: dict[tuple[int, str, int], str] = {}
    problems = []
    contents = {path: content for each in directories for path, content in each.items()}
    headers = _headers(contents)
    sealed = {
        (*header.key[:3], header.predecessor_part): int(header.predecessor_sealed)
        for header in headers.values()
        if header.predecessor_part
    }
    for path, header in headers.items():
        end = _sealed_end(contents, path)
        if end is None:
            end = sealed.get((*header.key[:3], header.key.part))
        content = contents[path][:end]
        for span in scan(
            BytesOf(content), salt=header.salt, path=path, begin=PAGE_BYTES, chain=header.crc,
            depth=Depth.STORED,
        ):  # fmt: skip
            if span.kind is not SpanKind.BLOCK or span.header is None:
                continue
            block = (int(header.key.run), str(header.key.stream), int(span.header.number))
            if block in found:
                problems.append(
                    f"{path}: read without the journal, block {block[2]} is doubled; "
                    f"it is in {found[block]} too"
                )
            found[block] = path
    return problems


def _headers(contents: Mapping[str, bytes]) -> dict[str, FileHeader]:
    """By path, each file under one name: a rename that was cut short may leave both."""
    found = {}
    for path, content in sorted(contents.items()):
        if path.startswith(("runs/", "orphans/")) and path.endswith((".dlog", ".part")):
            try:
                if path.removesuffix(".part") not in found:
                    found[path] = decode_file_header(content[:PAGE_BYTES], path=path)
            except FormatError:
                continue  # a creation that came to nothing
    return found


def _sealed_end(contents: Mapping[str, bytes], path: str) -> int | None:
    sidecar = contents.get(sidecar_path(path.removesuffix(".part")))
    if sidecar is None:
        return None
    try:
        told = decode_sidecar(sidecar, path=path)
    except FormatError:
        return None
    return told.size_bytes if told.sealed else None
