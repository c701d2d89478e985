"""Names and numbers: what is one, and which file it leads to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlog.limits import RUN_NUMBER_MAX
from dlog.model.ids import (
    CommandId,
    FileKey,
    FileKind,
    PartNumber,
    RunNumber,
    StreamName,
    file_folder,
    file_name,
    file_path,
    valid_run_number,
    valid_source_name,
    valid_stream_name,
)


def key(
    run: int = 7, stream: str = "photons", kind: FileKind = FileKind.EVENTS, part: int = 1
) -> FileKey:
    return FileKey(RunNumber(run), StreamName(stream), kind, PartNumber(part))


@pytest.mark.parametrize("name", ["a", "photons", "Ccd_2-left", "x" * 32])
def test_a_stream_name_is_a_letter_then_letters_digits_underscores_dashes(name: str) -> None:
    assert valid_stream_name(name)


@pytest.mark.parametrize(
    "name", ["", "1a", "_a", "a.b", "a/b", "..", "a b", "a\n", "ä", "x" * 33, "a\0"]
)
def test_what_could_be_a_path_or_two_words_is_no_stream_name(name: str) -> None:
    assert not valid_stream_name(name)


@pytest.mark.parametrize("name", ["ccd", "ccd@host:1", "0", "a.b-c_d", "x" * 64])
def test_a_source_name_may_say_where_it_runs(name: str) -> None:
    assert valid_source_name(name)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "-a", ".a", "é", "x" * 65, "a\n"])
def test_what_would_break_a_journal_key_is_no_source_name(name: str) -> None:
    assert not valid_source_name(name)


@given(st.text(max_size=40) | st.text("aZ09_-.@:/\u00e9\n", max_size=70))
def test_a_valid_name_fits_where_it_is_written(name: str) -> None:
    for valid, bytes_max in ((valid_stream_name, 32), (valid_source_name, 64)):
        if valid(name):
            assert len(name.encode()) <= bytes_max
            assert not set(name) & set("/\n")


def test_runs_are_numbered_from_1_to_what_32_bits_hold() -> None:
    valid = [number for number in (-1, 0, 1, RUN_NUMBER_MAX, RUN_NUMBER_MAX + 1)
             if valid_run_number(number)]  # fmt: skip
    assert valid == [1, RUN_NUMBER_MAX]


def test_files_are_called_as_documented() -> None:
    assert file_path(key()) == "runs/7/photons_0001.dlog"
    assert file_path(key(part=12345)) == "runs/7/photons_12345.dlog"
    assert file_name(key(kind=FileKind.GARBAGE)) == "photons.garbage_0001.dlog"
    assert file_path(key(0, "orphan", FileKind.ORPHAN, 2)) == "orphans/orphan_0002.dlog"
    assert file_folder(key(4_000_000_000)) == "runs/4000000000"
    assert str(key(kind=FileKind.GARBAGE)) == "run 7 photons.garbage_0001.dlog"
    assert str(key().stream_key) == "run 7 stream photons"
    assert str(CommandId(bytes.fromhex("00112233445566"), 3)) == "00112233:3"


# Close to each other, so that two of them may well have all but one thing in common.
KEYS = st.builds(
    key, st.sampled_from([1, 11, RUN_NUMBER_MAX]), st.sampled_from(["a", "a_1", "a_0001", "A"]),
    st.sampled_from([FileKind.EVENTS, FileKind.GARBAGE]), st.sampled_from([1, 11, 10_001]),
)  # fmt: skip


@given(one=KEYS, other=KEYS)
def test_two_files_never_share_a_path(one: FileKey, other: FileKey) -> None:
    assert (file_path(one) == file_path(other)) == (one == other)


@pytest.mark.parametrize(("one", "other"), [(key(stream="a_1"), key(stream="a"))])
def test_a_stream_whose_name_ends_like_a_part_has_its_own_files(
    one: FileKey, other: FileKey
) -> None:
    assert file_path(one) != file_path(other._replace(part=PartNumber(1)))
