"""The golden files: decoded to what was put in, encoded to the same bytes, read by a stranger."""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

import dlog
from dlog.core import batch as batch_codec
from dlog.core import block as block_codec
from dlog.core import event_file as file_codec
from dlog.core import frame as frame_codec
from dlog.core import journal_records as records
from dlog.core.batch import decode_batch, encode_batch
from dlog.core.block import (
    FRAGMENT_DTYPE,
    HEADER_BYTES,
    BlockType,
    Fragment,
    Packing,
    Place,
    block_bytes_max,
    check_block,
    decode_content,
    decode_header,
    decode_raw,
    encode_block,
    encode_fragment,
    encode_header,
    number_range,
)
from dlog.core.event_file import (
    INDEX_DTYPE,
    decode_closing,
    decode_file_header,
    decode_index,
    decode_sidecar,
    encode_file_header,
    encode_footer,
    encode_sidecar,
)
from dlog.core.filters import Compression
from dlog.core.frame import MessageKind, check_frame, control_body, encode_control
from dlog.limits import PAGE_BYTES
from dlog.model import messages
from dlog.model.config import StreamConfig
from dlog.model.events import EVENT_DTYPE
from dlog.model.ids import Offset
from dlog.reader import EventFile
from fixtures import make_golden
from tests.event_files import build_file
from tests.golden import independent_reader

GOLDEN = make_golden.GOLDEN
EXPECTED: list[dict[str, Any]] = msgspec.json.decode((GOLDEN / "expected.json").read_bytes())
FILES = [pytest.param(file, id=file["path"].removeprefix("data/")) for file in EXPECTED]
SPECIFICATION = (GOLDEN.parent.parent / "docs" / "FORMAT.md").read_text()


def test_the_code_writes_these_files_still() -> None:
    assert make_golden.check() == []


NUMBERS = ("sequence", "order_base", "run", "events", "piece_events")


# --- decoded ------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", FILES)
def test_a_file_holds_what_was_put_into_it(expected: dict[str, Any]) -> None:
    file = EventFile(GOLDEN / expected["path"])
    header = file.header
    assert (header.key.run, header.key.stream, int(header.key.kind), header.key.part) == (
        expected["run"], expected["stream"], expected["kind"], expected["part"],
    )  # fmt: skip
    for name in ("boot", "first_block", "predecessor_part", "predecessor_sealed"):
        assert getattr(header, name) == expected[name]
    blocks = list(file.blocks())
    assert len(blocks) == len(expected["blocks"])
    for block, wanted in zip(blocks, expected["blocks"], strict=True):
        assert (block.number, block.offset) == (wanted["number"], wanted["offset"])
        assert bool(block.header.flags & 1) == wanted["group_end"]
        assert [
            {
                "number": event.number, "time_ns": event.time_ns, "order": int(row["order"]),
                "streams": int(row["streams"]), "size": len(event.payload),
                "sha256": hashlib.sha256(event.payload).hexdigest(),
            }
            for event, row in zip(block, block.table, strict=True)
        ] == wanted["events"]  # fmt: skip
        assert [
            {
                **{name: int(p[name]) for name in NUMBERS},
                "session": p["session"].tobytes().hex(), "stream": p["stream"].decode(),
                "first": bool(p["flags"] & 1), "last": bool(p["flags"] & 2),
                "orphan_reason": block_codec.OrphanReason(int(p["flags"]) >> 8).words,
            }
            for p in block.pieces
        ] == wanted["fragments"]  # fmt: skip
    assert blocks[-1].offset + blocks[-1].header.block_bytes == expected["data_end"]


def test_the_variety_is_there() -> None:
    headers = [b.header for f in EXPECTED for b in EventFile(GOLDEN / f["path"]).blocks()]
    assert {(h.compression.name, h.filter.name) for h in headers} == {
        ("NONE", "NONE"), ("ZSTD", "DELTA"), ("ZSTD", "SHUFFLE"),
    }  # fmt: skip
    sealed = [f for f in EXPECTED if EventFile(GOLDEN / f["path"]).sealed_bytes]
    successors = [f for f in EXPECTED if f["predecessor_part"]]
    assert [f["part"] for f in sealed] == [f["predecessor_part"] for f in successors] == [2]
    assert {f["kind"] for f in EXPECTED} == {1, 2, 3}
    assert any(not e["group_end"] for f in EXPECTED for e in f["blocks"])


def test_the_run_comes_back_in_the_order_sent() -> None:
    reader = dlog.read(GOLDEN / "data" / "runs" / "7")
    events = [
        (e.session, ",".join(e.streams), e.position, e.number) for e in reader.in_sent_order()
    ]
    sessions = [session for session, *_ in events]
    assert sessions == sorted(sessions, key=sessions.index)
    for session in set(sessions):
        positions = [position for s, _, position, _ in events if s == session]
        assert positions == sorted(positions)
    stored = [e for f in EXPECTED if f["run"] == 7 for b in f["blocks"] for e in b["events"]]
    assert len(events) == len(stored) - 1, "one of them stands in two streams"
    assert (b"session-A-------", "control,image", 3, 1) in events
    assert reader.missing == []
    assert [tail.begin for tail in reader.tails] == [8192]


# --- encoded ------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", FILES)
def test_a_file_is_encoded_to_the_same_bytes(expected: dict[str, Any]) -> None:
    path = GOLDEN / expected["path"]
    content = path.read_bytes()
    header = decode_file_header(content, path=str(path))
    page, chain = encode_file_header(header)
    assert page == content[:PAGE_BYTES]
    for wanted in expected["blocks"]:
        data = memoryview(content)[wanted["offset"] :]
        block = decode_header(data, salt=header.salt, offset=wanted["offset"], path=str(path))
        assert block.previous_crc == chain
        assert encode_header(block)[0] == data[:HEADER_BYTES]
        assert (
            encode_again(block, data, str(path))[: block.block_bytes] == data[: block.block_bytes]
        )
        chain = block.crc
    if path.suffix == ".dlog" and not EventFile(path).sealed_bytes:
        footer_encoded_again(path, content, expected["data_end"], chain)


def encode_again(block: block_codec.BlockHeader, data: memoryview, path: str) -> bytes:
    """The block from its events. A compressed one with the compressed bytes that are there, since
    another zstd may find others; that they hold the raw bytes is what is compared."""
    check_block(block, data, path=path)
    content = decode_content(block, data, path=path)
    fragments, row, at = [], 0, 0
    for entry in content.fragments:
        table = content.table[row : row + entry.events]
        payload = content.payload[at : at + entry.payload_bytes]
        fragments.append(Fragment(entry, table, payload, *number_range(table)))
        row, at = row + entry.events, at + entry.payload_bytes
    out = bytearray(block_bytes_max(len(fragments), row, at))
    place = Place(
        block.offset, block.number, block.boot, block.salt, block.previous_crc, block.durable
    )
    packing = Packing(block.filter, block.element_bytes, None)
    again = encode_block(
        fragments, memoryview(out), place, packing, group_end=bool(block.flags & 1),
        time_ns=block.time_ns,
    )  # fmt: skip
    assert again.raw_crc == block.raw_crc
    if block.compression is Compression.NONE:
        return bytes(out)
    assert bytes(decode_raw(again, memoryview(out), path=path)) == bytes(
        decode_raw(block, data, path=path)
    )
    frame = b"".join(encode_fragment(entry) for entry in content.fragments)
    stored_at = HEADER_BYTES + len(frame)
    stored = bytes(data[stored_at : stored_at + block.stored_bytes])
    return (encode_header(block)[0] + frame + stored).ljust(block.block_bytes, b"\0")


def footer_encoded_again(path: Path, content: bytes, at: int, chain: int) -> None:
    header = decode_file_header(content, path=str(path))
    footer = memoryview(content)[at:]
    first = decode_header(footer, salt=header.salt, offset=at, path=str(path))
    index = decode_index(decode_raw(first, footer, path=str(path)), path="", offset_bytes=at)
    last = footer[first.block_bytes :]
    closing_at = at + first.block_bytes
    closing = decode_closing(
        decode_raw(
            decode_header(last, salt=header.salt, offset=closing_at, path=""), last, path=""
        ),
        path="", offset_bytes=closing_at,
    )  # fmt: skip
    assert content[at:] == encode_footer(
        index, closing.totals, offset=Offset(at), boot=first.boot, salt=header.salt,
        previous_crc=chain, time_ns=first.time_ns,
    )  # fmt: skip


@pytest.mark.parametrize("path", sorted(GOLDEN.rglob("*.dlog.json")), ids=lambda p: p.name)
def test_a_sidecar_is_decoded_and_encoded_again(path: Path) -> None:
    content = path.read_bytes()
    sidecar = decode_sidecar(content, path=str(path))
    assert encode_sidecar(sidecar) == content
    file = path.with_suffix("").read_bytes()
    assert (sidecar.size_bytes, sidecar.crc32c) == (len(file), f"{crc32c(file):08x}")


def test_the_saved_tail_holds_its_bytes_at_their_own_offsets() -> None:
    opened = (GOLDEN / "data/runs/7/control_0001.dlog.part").read_bytes()
    (path,) = (GOLDEN / "data/quarantine").iterdir()
    begin = int(path.name.split("_")[-2])
    saved = path.read_bytes()
    assert saved[:PAGE_BYTES] == opened[:PAGE_BYTES]
    assert saved[begin:] == opened[begin : len(saved)]
    assert not any(saved[PAGE_BYTES:begin])


# --- messages -----------------------------------------------------------------------------------

CONTROL = {
    "hello": (MessageKind.HELLO, messages.Hello),
    "heartbeat": (MessageKind.HEARTBEAT, messages.Heartbeat),
    "end-of-run": (MessageKind.END_OF_RUN, messages.EndOfRun),
    "bye": (MessageKind.BYE, messages.Bye),
    "welcome": (MessageKind.WELCOME, messages.Welcome),
    "acknowledgement": (MessageKind.ACKNOWLEDGEMENT, messages.Acknowledgement),
    "resend": (MessageKind.RESEND, messages.Resend),
    "refused": (MessageKind.REFUSED, messages.Refused),
    "bye-done": (MessageKind.BYE_DONE, messages.ByeDone),
    "run-streams": (MessageKind.RUN_STREAMS, messages.RunStreams),
}
JSON = {
    "command": messages.Command,
    "answer": messages.Answer,
    "identification": messages.Identification,
    "request": messages.Request,
}


def test_every_kind_of_message_of_the_event_link_is_golden() -> None:
    assert {kind for kind, _ in CONTROL.values()} | {MessageKind.EVENTS} == set(MessageKind)
    assert {p.stem for p in (GOLDEN / "messages").iterdir()} == {
        *CONTROL, *JSON, "events", "settled",
    }  # fmt: skip


@pytest.mark.parametrize("name", CONTROL)
def test_a_control_message_is_decoded_and_encoded_again(name: str) -> None:
    content = (GOLDEN / "messages" / f"{name}.bin").read_bytes()
    kind, struct_type = CONTROL[name]
    assert check_frame(memoryview(content), 10_000) == kind
    body: msgspec.Struct = messages.decode_body(control_body(memoryview(content)), struct_type)
    assert encode_control(kind, messages.encode_body(body)) == content


@pytest.mark.parametrize("name", JSON)
def test_a_json_message_is_decoded_and_encoded_again(name: str) -> None:
    content = (GOLDEN / "messages" / f"{name}.json").read_bytes().rstrip(b"\n")
    document: msgspec.Struct = messages.decode_json(content, JSON[name])
    assert messages.encode_json(document) == content


@pytest.mark.parametrize("name", ["events", "settled"])
def test_a_batch_is_decoded_and_encoded_again(name: str) -> None:
    content = (GOLDEN / "messages" / f"{name}.bin").read_bytes()
    batch = decode_batch(memoryview(content))
    assert bytes(encode_batch(batch)) == content
    assert batch.settled == (name == "settled")
    assert batch.message_bytes == (1_048_576 if batch.settled else len(content))
    if not batch.settled:
        assert batch.streams == ("photons", "control")
        assert batch.table["streams"].tolist() == [1, 2, 3]
        assert batch.payload.tobytes().startswith(b"event 1, position 0;")


# --- journal ------------------------------------------------------------------------------------

RECORDS = msgspec.json.decode((GOLDEN / "journal.json").read_bytes())


@pytest.mark.parametrize("line", RECORDS, ids=[line["key"] for line in RECORDS])
def test_a_journal_record_is_decoded_and_encoded_again(line: dict[str, Any]) -> None:
    key, value = line["key"].encode(), bytes.fromhex(line["value"])
    record = records.decode_record(key, value, getattr(records, line["kind"]))
    assert records.encode_record(key, record) == value
    assert msgspec.json.decode(msgspec.json.encode(record)) == line["record"]


# --- the specification --------------------------------------------------------------------------


def test_a_stranger_reads_the_same_from_the_specification_alone() -> None:
    source = Path(independent_reader.__file__).read_text()
    assert not re.search(r"^\s*(import|from) (dlog|numpy)", source, re.MULTILINE)
    for expected in EXPECTED:
        file = independent_reader.EventFile(GOLDEN / expected["path"])
        assert [
            {
                "number": b.number, "offset": b.offset, "group_end": b.group_end,
                "fragments": [
                    {
                        **f._asdict(), "session": f.session.hex(),
                        "orphan_reason": block_codec.OrphanReason(f.orphan_reason).words,
                    }
                    for f in b.fragments
                ],
                "events": [
                    {
                        "number": e.number, "time_ns": e.time_ns, "order": e.order,
                        "streams": e.streams, "size": len(e.payload),
                        "sha256": hashlib.sha256(e.payload).hexdigest(),
                    }
                    for e in b.events
                ],
            }
            for b in file.blocks
        ] == expected["blocks"]  # fmt: skip
        assert file.end == expected["data_end"]
        assert file.tail == (8192 if expected["path"].endswith(".part") else None)


@given(data=st.data())
@settings(max_examples=25)
def test_a_stranger_reads_what_we_write_now(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("any")
    name = data.draw(st.sampled_from(["x.dlog", "x.dlog.part"]))
    config = StreamConfig(
        compression=data.draw(st.sampled_from(["none", "zstd"])),
        filter=data.draw(st.sampled_from(["none", "shuffle", "delta"])),
        element_bytes=data.draw(st.sampled_from([1, 2, 4, 8])),
    )
    built = build_file(
        folder / name, events=data.draw(st.integers(0, 12)), config=config,
        events_per_piece=data.draw(st.integers(1, 9)),
        events_per_block=data.draw(st.integers(1, 9)),
    )  # fmt: skip
    if name.endswith(".part"):
        cut = data.draw(st.integers(PAGE_BYTES, built.size))
        built.path.write_bytes(built.path.read_bytes()[:cut])
    ours = EventFile(built.path)
    theirs = independent_reader.EventFile(built.path)
    assert [(b.number, [(e.number, e.payload) for e in b.events]) for b in theirs.blocks] == [
        (b.number, [(e.number, bytes(e.payload)) for e in b]) for b in ours.blocks()
    ]
    assert (ours.tail.begin if ours.tail else None) == theirs.tail
    assert (theirs.closing is None) == (ours.closing is None)


def test_a_stranger_puts_the_run_in_the_same_order() -> None:
    folder = GOLDEN / "data" / "runs" / "7"
    files = [
        independent_reader.EventFile(path)
        for path in sorted(folder.iterdir())
        if path.suffix in (".dlog", ".part")
    ]
    ours = [
        (",".join(e.streams), e.position, e.number, e.time_ns, bytes(e.payload))
        for e in dlog.read(folder).in_sent_order()
    ]
    assert ours == [
        (streams, position, e.number, e.time_ns, e.payload)
        for streams, position, e in independent_reader.in_sent_order(files)
    ]


def test_the_stranger_is_a_program_too() -> None:
    path = GOLDEN / "data/runs/7/photons_0001.dlog"
    program = [sys.executable, independent_reader.__file__]
    for arguments, lines in (([str(path)], 8), (["--sent", str(path)], 7)):
        out = subprocess.run([*program, *arguments], capture_output=True, text=True, check=True)
        assert out.stdout.count("\n") == lines


def section(title: str) -> str:
    _, text = SPECIFICATION.split(f"\n{title}\n", 1)
    return re.split(r"\n#+ ", text, maxsplit=1)[0]


def rows(title: str) -> dict[int, int]:
    """Offset and size of the fields in a table of the specification."""
    found = re.findall(r"^\| (\d+) \| (\d+) \|", section(title), re.MULTILINE)
    return {int(offset): int(size) for offset, size in found}


@pytest.mark.parametrize(
    ("title", "length"),
    [("### Block header", 128), ("### Fragment table", 96), ("### Event table", 32)],
)
def test_the_tables_of_the_specification_leave_no_byte_out(title: str, length: int) -> None:
    end = 0
    for offset, size in rows(title).items():
        assert offset == end
        end = offset + size
    assert end == length


def test_the_tables_of_the_specification_are_those_of_the_code() -> None:
    assert offsets_of(file_codec._HEADER.format, file_codec._FIXED_BYTES) <= {
        **rows("## File header"), 4092: 4,
    }.items()  # fmt: skip
    assert offsets_of(block_codec._HEADER.format, 124) <= rows("### Block header").items()
    assert offsets_of(block_codec._FRAGMENT.format, 96) <= rows("### Fragment table").items()
    assert dtype_offsets(EVENT_DTYPE) == rows("### Event table").items()
    assert dtype_offsets(FRAGMENT_DTYPE) == rows("### Fragment table").items()
    assert dtype_offsets(INDEX_DTYPE) == {0: 8, 8: 8, 16: 8, 24: 8, 32: 8, 40: 4, 44: 4}.items()


def offsets_of(form: str, length: int) -> set[tuple[int, int]]:
    """Offset and size of the fields of a struct, padding left out."""
    at, found = 0, set()
    for count, code in re.findall(r"(\d*)([a-zA-Z])", form):
        size = struct.calcsize(f"<{count}{code}")
        if code == "s" or (code != "x" and not count):
            found.add((at, size))
        elif code != "x":
            one = struct.calcsize(f"<{code}")
            found |= {(at + i * one, one) for i in range(int(count))}
        at += size
    assert at == length
    return found


def dtype_offsets(dtype: np.dtype[Any]) -> Any:
    fields = dtype.fields or {}
    return {offset: kind.itemsize for kind, offset in (f[:2] for f in fields.values())}.items()


def test_the_example_of_the_specification_is_the_golden_file() -> None:
    content = (GOLDEN / "data/runs/7/photons_0001.dlog").read_bytes()
    shown = re.findall(r"^([0-9a-f]{8}): ((?:[0-9a-f]{2} {1,2})+)", section("## An example"), re.M)
    assert len(shown) > 20
    for offset, text in shown:
        expected = bytes.fromhex(text)
        assert content[int(offset, 16) :][: len(expected)] == expected


def test_the_magics_and_limits_of_the_specification_are_those_of_the_code() -> None:
    for magic in (file_codec.MAGIC, block_codec.MAGIC):
        assert magic.hex(" ").upper() in SPECIFICATION
    assert file_codec.TEXT_BYTES_MAX == 3932
    assert "at most 3932" in SPECIFICATION
    assert f"{block_codec.BLOCK_BYTES_MAX:,}".replace(",", " ") in SPECIFICATION
    assert f"{block_codec.BLOCK_EVENTS_MAX:,}".replace(",", " ") in SPECIFICATION
    assert f"{block_codec.BLOCK_PIECES_MAX:,}".replace(",", " ") in SPECIFICATION
    assert BlockType.CLOSING == 3
    assert (frame_codec.FRAME_BYTES, batch_codec.HEADER_BYTES) == (16, 112)
