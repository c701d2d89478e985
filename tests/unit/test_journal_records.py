"""Journal records: bytes and keys. What was committed comes back, and nothing else does."""

from __future__ import annotations

import enum
import types
import typing
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from dlog.core import journal_records
from dlog.core.journal_records import (
    ACKNOWLEDGED,
    BOOT,
    CLOSED_FILES,
    COMMAND_ORDER,
    COMMANDS,
    COUNTS,
    DONE_OPERATIONS,
    ENDED_RUNS,
    FILES,
    LIVE_PREFIXES,
    LOGGER,
    MARKS,
    META,
    OPERATIONS,
    QUARANTINE,
    RUNS,
    SESSIONS,
    STREAMS,
    BootRecord,
    CountRecord,
    acknowledged_key,
    closed_file_key,
    command_key,
    command_order_key,
    count_key,
    decode_record,
    done_operation_key,
    encode_record,
    ended_run_key,
    file_key,
    mark_key,
    operation_key,
    quarantine_key,
    run_counts,
    run_key,
    session_key,
    session_marks,
    stream_key,
)
from dlog.errors import JournalUnreadable
from dlog.model.ids import (
    CommandId,
    FileKey,
    FileKind,
    MarkKey,
    PartNumber,
    RunNumber,
    SessionId,
    StreamKey,
    StreamName,
)

RECORDS = sorted(
    (
        kind
        for name, kind in vars(journal_records).items()
        if isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and kind.__module__ == journal_records.__name__
        and not name.startswith("_")
    ),
    key=lambda kind: kind.__name__,
)
FREE_TEXT = st.text(max_size=20)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Anything that a field of that type may hold."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(argument) for argument in arguments])
    if origin is list:
        return st.lists(values(arguments[0]), max_size=3)
    if origin is dict:
        keys, content = (values(argument) for argument in arguments)
        return st.dictionaries(keys, content, max_size=3)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(values(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*(values(argument) for argument in arguments))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return records(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(-(2**63), 2**64 - 1), str: FREE_TEXT, bytes: st.binary(max_size=20),
        bool: st.booleans(), float: st.floats(allow_nan=False), type(None): st.none(),
        Any: st.one_of(st.integers(0, 9), FREE_TEXT, st.lists(st.booleans(), max_size=2)),
    }  # fmt: skip
    return simple[hint]


def records(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    return st.builds(kind, **{name: values(hint) for name, hint in get_type_hints(kind).items()})


@pytest.mark.parametrize("kind", RECORDS)
@given(data=st.data())
@settings(max_examples=25)
def test_a_record_comes_back(kind: type[Any], data: st.DataObject) -> None:
    record = data.draw(records(kind))
    key = data.draw(st.binary(min_size=1, max_size=40))
    assert decode_record(key, encode_record(key, record), kind) == record


@given(data=st.data())
def test_any_flipped_bit_and_any_truncation_is_found(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(RECORDS))
    value = bytearray(encode_record(b"key", data.draw(records(kind))))
    cut = data.draw(st.integers(0, len(value) - 1))
    with pytest.raises(JournalUnreadable):
        decode_record(b"key", bytes(value[:cut]), kind)
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    value[bit // 8] ^= 1 << bit % 8
    with pytest.raises(JournalUnreadable, match="checksum"):
        decode_record(b"key", bytes(value), kind)


def test_a_record_under_another_key_is_found() -> None:
    value = encode_record(b"boot", BootRecord(boot=3))
    with pytest.raises(JournalUnreadable, match="checksum"):
        decode_record(b"boos", value, BootRecord)


@given(noise=st.binary(max_size=60), sealed=st.booleans())
def test_noise_is_unreadable_and_no_crash(noise: bytes, sealed: bool) -> None:
    value = crc32c(noise, crc32c(b"k")).to_bytes(4, "little") + noise if sealed else noise
    with pytest.raises(JournalUnreadable):
        # No record of ours is so short that noise would make one without its required field.
        decode_record(b"k", value, BootRecord)


def test_nesting_without_end_is_unreadable_and_no_crash() -> None:
    body = b"\x81\xa6answer" + b"\x91" * 100_000
    value = crc32c(body, crc32c(b"k")).to_bytes(4, "little") + body
    with pytest.raises(JournalUnreadable):
        decode_record(b"k", value, journal_records.CommandRecord)


def test_a_field_that_a_later_version_adds_is_passed_over() -> None:
    body = msgspec.msgpack.encode({"boot": 4, "clean": True, "weather": "fine"})
    value = crc32c(body, crc32c(BOOT)).to_bytes(4, "little") + body
    assert decode_record(BOOT, value, BootRecord) == BootRecord(boot=4, clean=True)


# --- keys ---------------------------------------------------------------------------------------

KEY = FileKey(RunNumber(7), StreamName("photons"), FileKind.GARBAGE, PartNumber(3))
SESSION = SessionId(bytes(range(16)))
ALL_KEYS = {
    META: META,
    BOOT: BOOT,
    LOGGER: LOGGER,
    RUNS: run_key(RunNumber(7)),
    STREAMS: stream_key(KEY.stream_key),
    FILES: file_key(KEY),
    SESSIONS: session_key(SESSION),
    MARKS: mark_key(MarkKey(SESSION, RunNumber(7), StreamName("photons"))),
    COUNTS: count_key("ccd@host:1", RunNumber(7), "photons"),
    OPERATIONS: operation_key(12),
    QUARANTINE: quarantine_key("quarantine/7_photons_events_0001_4096_2.tail"),
    ACKNOWLEDGED: acknowledged_key("file runs/7/photons_0001.dlog"),
    DONE_OPERATIONS: done_operation_key(12),
    COMMANDS: command_key(CommandId(b"c" * 8, 2)),
    COMMAND_ORDER: command_order_key(5),
    ENDED_RUNS: ended_run_key(RunNumber(7)),
    CLOSED_FILES: closed_file_key(KEY),
}


def test_each_key_lies_under_its_prefix_and_under_no_other() -> None:
    for prefix, key in ALL_KEYS.items():
        assert [other for other in ALL_KEYS if key.startswith(other)] == [prefix]


def test_keys_look_as_documented() -> None:
    assert ALL_KEYS[FILES] == b"file/0000000007/photons/2/00000003"
    assert ALL_KEYS[CLOSED_FILES] == b"closed/0000000007/photons/2/00000003"
    assert ALL_KEYS[MARKS] == b"mark/000102030405060708090a0b0c0d0e0f/0000000007/photons"
    assert ALL_KEYS[COUNTS] == b"count/0000000007/ccd@host:1/photons"


def test_what_grows_with_the_archive_is_never_scanned_at_restart() -> None:
    archive = {DONE_OPERATIONS, COMMANDS, COMMAND_ORDER, ENDED_RUNS, CLOSED_FILES}
    assert set(LIVE_PREFIXES) | archive == set(ALL_KEYS)
    assert not set(LIVE_PREFIXES) & archive


RUN = st.integers(0, 2**32 - 1).map(RunNumber)
STREAM = st.sampled_from(["a", "a-b", "a_b", "b", "aa"]).map(StreamName)


@given(
    keys=st.lists(
        st.builds(FileKey, RUN, STREAM, st.sampled_from(FileKind), st.integers(1, 10**8 - 1)),
        min_size=2, max_size=2, unique=True,
    )
)  # fmt: skip
def test_file_keys_are_distinct_and_sort_by_run(keys: list[FileKey]) -> None:
    one, other = (file_key(key) for key in keys)
    assert one != other
    if keys[0].run != keys[1].run:
        assert (one < other) == (keys[0].run < keys[1].run)
    elif keys[0][:3] == keys[1][:3]:
        assert (one < other) == (keys[0].part < keys[1].part)


@given(run=RUN, other=RUN, stream=STREAM)
def test_prefixes_take_what_is_theirs_alone(run: RunNumber, other: RunNumber, stream: str) -> None:
    mark = mark_key(MarkKey(SESSION, run, StreamName(stream)))
    assert mark.startswith(session_marks(SESSION))
    assert not mark.startswith(session_marks(SessionId(b"x" * 16)))
    assert count_key("ccd", run, stream).startswith(run_counts(other)) == (run == other)
    assert stream_key(StreamKey(run, StreamName(stream))).endswith(stream.encode())


def test_received_is_the_sum_of_what_was_settled() -> None:
    count = CountRecord(stored=5, duplicate=4, garbage=3, orphan=2, refused={"late": 1, "x": 1})
    assert count.received == 16
