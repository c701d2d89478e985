"""What every input format promises (see the docstring of `dlog.inputs`), for each of ours."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlog.errors import FormatError, StorageError
from dlog.inputs import EventKind, Input, InputEvent, InputItem, InputUsageError, Torn
from dlog.inputs.folder import Folder
from dlog.inputs.lines import Lines
from dlog.inputs.records import Records
from dlog.inputs.xtc2 import HEADER, Xtc2
from dlog.limits import EVENT_BYTES_MAX, MIB

OF_ONE_FILE = [
    pytest.param(Xtc2(), {}, id="xtc2"),
    pytest.param(Lines(), {}, id="lines"),
    pytest.param(Records(), {"size": "7"}, id="records"),
]
L1ACCEPT, CONFIGURE = 12, 2


def datagram(transition: int, content: bytes = b"", *, ns: int = 0, seconds: int = 0) -> bytes:
    return HEADER.pack(ns, seconds, transition << 24, 0, 0, 0, 12 + len(content)) + content


def given_back(items: Iterable[InputItem], path: Path) -> bytes:
    """The payloads and the torn end: the file, if the format keeps its promise."""
    pieces: list[bytes | memoryview] = []
    for item in items:
        if isinstance(item, Torn):
            torn = path.read_bytes()[item.offset_bytes :]
            assert len(torn) == item.size_bytes
            assert item.offset_bytes == sum(len(piece) for piece in pieces)
            pieces.append(torn)
        else:
            pieces.append(item.payload)
    return b"".join(pieces)


def items_or_refusal(
    plugin: Input, path: Path, options: Mapping[str, str]
) -> list[InputItem] | FormatError:
    try:
        return list(plugin.events(path, options))
    except FormatError as error:
        return error


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file, written anew for each example."""
    return tmp_path_factory.mktemp("inputs") / "scratch"


# --- each format


@pytest.mark.parametrize(("plugin", "options"), OF_ONE_FILE)
@given(data=st.binary(max_size=400))
def test_any_bytes_are_given_back_or_refused(
    scratch: Path, plugin: Input, options: Mapping[str, str], data: bytes
) -> None:
    scratch.write_bytes(data)
    outcome = items_or_refusal(plugin, scratch, options)
    if isinstance(outcome, FormatError):
        assert outcome.path == str(scratch)
        assert 0 <= outcome.offset_bytes <= len(data)
        return
    assert given_back(outcome, scratch) == data
    assert not any(isinstance(item, Torn) for item in outcome[:-1])


@pytest.mark.parametrize(("plugin", "options"), OF_ONE_FILE)
def test_an_empty_file_is_refused(
    tmp_path: Path, plugin: Input, options: Mapping[str, str]
) -> None:
    path = tmp_path / "empty"
    path.touch()
    with pytest.raises(FormatError, match="the file is empty") as caught:
        list(plugin.events(path, options))
    assert caught.value.path == str(path)


@pytest.mark.parametrize(("plugin", "options"), OF_ONE_FILE)
def test_a_missing_file_is_named(tmp_path: Path, plugin: Input, options: Mapping[str, str]) -> None:
    path = tmp_path / "nowhere"
    with pytest.raises(StorageError, match="No such file") as caught:
        list(plugin.events(path, options))
    assert caught.value.path == str(path)


@pytest.mark.parametrize(("plugin", "options"), OF_ONE_FILE)
def test_a_pipe_is_refused_and_not_waited_for(
    tmp_path: Path, plugin: Input, options: Mapping[str, str]
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(FormatError, match="not a regular file"):
        list(plugin.events(path, options))


@pytest.mark.parametrize(
    ("plugin", "options", "start"),
    [
        pytest.param(Xtc2(), {}, datagram(CONFIGURE, bytes(1000)), id="xtc2"),
        pytest.param(Lines(), {}, b"a line\n", id="lines"),
        pytest.param(Records(), {"size": "4096"}, b"", id="records"),
    ],
)
def test_a_file_is_never_held_in_memory(
    tmp_path: Path, plugin: Input, options: Mapping[str, str], start: bytes
) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(start)
        file.truncate(2**33)
    tracemalloc.start()
    try:
        event = next(plugin.events(path, options))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(event, InputEvent)
    assert peak_bytes < 2 * MIB


@pytest.mark.parametrize(("plugin", "options"), [*OF_ONE_FILE, pytest.param(Folder(), {})])
def test_each_format_says_what_it_is(plugin: Input, options: Mapping[str, str]) -> None:
    assert isinstance(plugin, Input)
    assert plugin.describe()
    assert set(options) <= set(plugin.options)


# --- lines


@given(lines=st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), min_size=1))
def test_each_line_is_an_event_with_its_newline(scratch: Path, lines: list[bytes]) -> None:
    scratch.write_bytes(b"".join(line + b"\n" for line in lines))
    events = list(Lines().events(scratch, {}))
    assert events == [InputEvent(EventKind.EVENT, "scratch", None, line + b"\n") for line in lines]


def test_a_last_line_without_a_newline_is_an_event_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "hits.txt"
    path.write_bytes(b"1\t2\r\n\n3\t4")
    events = list(Lines().events(path, {}))
    assert [e.payload for e in events if isinstance(e, InputEvent)] == [b"1\t2\r\n", b"\n", b"3\t4"]


def test_a_line_over_the_limit_of_an_event_is_refused_where_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "no-text"
    with path.open("wb") as file:
        file.write(b"first\n")
        file.truncate(EVENT_BYTES_MAX + 100)
    events = Lines().events(path, {})
    assert next(events) == InputEvent(EventKind.EVENT, "no-text", None, b"first\n")
    with pytest.raises(FormatError, match="a line of more than") as caught:
        next(events)
    assert caught.value.offset_bytes == 6


# --- records


def test_a_short_last_record_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "adc.bin"
    path.write_bytes(b"AAAABBBBCC")
    *records, torn = Records().events(path, {"size": "4"})
    assert [r.payload for r in records if isinstance(r, InputEvent)] == [b"AAAA", b"BBBB"]
    assert torn == Torn(8, 2, 4, "the file ends inside a record")


@pytest.mark.parametrize("size", ["", "0", "-4", "4k", " 4", "٤", "9" * 5000, "67108865"])
def test_a_record_size_that_cannot_be_is_a_usage_error(tmp_path: Path, size: str) -> None:
    path = tmp_path / "adc.bin"
    path.write_bytes(b"AAAA")
    with pytest.raises(InputUsageError, match="size"):
        list(Records().events(path, {"size": size}))


# --- a folder


def test_the_files_of_a_folder_are_events_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, text in [("b", b"2"), ("a", b"1"), (".hidden", b"no"), ("c", b"")]:
        (tmp_path / name).write_bytes(text)
    events = [e for e in Folder().events(tmp_path, {}) if isinstance(e, InputEvent)]
    assert [(e.label, e.payload) for e in events] == [("a", b"1"), ("b", b"2"), ("c", b"")]


@pytest.mark.parametrize(
    ("glob", "labels"),
    [
        ("*", ["3.txt"]),
        ("**/*", ["1.txt", "2.txt", "3.txt", "4.csv"]),
        ("**", ["1.txt", "2.txt", "3.txt", "4.csv"]),
        ("**/RAW/**/*.txt", ["1.txt", "2.txt"]),
        ("chip-?/RAW/*", ["2.txt"]),
        ("./*", ["3.txt"]),
    ],
)
def test_a_pattern_chooses_the_files_of_a_folder(
    tmp_path: Path, glob: str, labels: list[str]
) -> None:
    for place in ["chip-b/RAW/deep/1.txt", "chip-a/RAW/2.txt", "3.txt", "chip-a/4.csv"]:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(place)
    events = Folder().events(tmp_path, {"glob": glob})
    assert [e.label for e in events if isinstance(e, InputEvent)] == labels


def test_files_of_one_name_go_by_their_folders(tmp_path: Path) -> None:
    for place in ["b/1", "a/1", "a/2"]:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(place)
    events = Folder().events(tmp_path, {"glob": "**"})
    assert [e.payload for e in events if isinstance(e, InputEvent)] == [b"a/1", b"b/1", b"a/2"]


@pytest.mark.parametrize("glob", ["", ".", "/etc/*", "../*", "a/../../*"])
def test_a_pattern_never_leaves_the_folder(tmp_path: Path, glob: str) -> None:
    with pytest.raises(InputUsageError, match="does not name files in the folder"):
        list(Folder().events(tmp_path, {"glob": glob}))


def test_a_folder_with_files_below_needs_a_pattern(tmp_path: Path) -> None:
    for place in ["below/1.txt", "LICENSE"]:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(place)
    with pytest.raises(InputUsageError, match=r"below/1\.txt.*say which"):
        list(Folder().events(tmp_path, {}))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no file in it"):
        list(Folder().events(tmp_path, {}))


def test_a_folder_that_cannot_be_read_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    # A name too long for the system, made step by step, fails to open as a forbidden one does.
    (tmp_path / "1").write_text("1")
    deep, name = os.open(tmp_path, os.O_RDONLY), "d" * 250
    for _ in range(20):
        os.mkdir(name, dir_fd=deep)
        deeper = os.open(name, os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = deeper
    os.close(deep)
    with pytest.raises(StorageError, match="File name too long"):
        list(Folder().events(tmp_path, {"glob": "**"}))


def test_a_folder_without_a_matching_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no file matches glob=\*\.txt"):
        list(Folder().events(tmp_path, {"glob": "*.txt"}))


def test_a_link_that_leads_nowhere_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1").symlink_to("gone")
    with pytest.raises(StorageError, match="No such file"):
        list(Folder().events(tmp_path, {}))


def test_a_file_over_the_limit_of_an_event_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(EVENT_BYTES_MAX + 1)
    with pytest.raises(FormatError, match="is the limit"):
        list(Folder().events(tmp_path, {}))


# --- XTC2


def test_a_datagram_has_its_kind_its_name_and_its_time(tmp_path: Path) -> None:
    path = tmp_path / "run.xtc2"
    configure = datagram(CONFIGURE, b"names", ns=5, seconds=2)
    accept = datagram(L1ACCEPT, b"data", ns=999_999_999, seconds=2**32 - 1)
    last_of_batch = datagram(11, b"")
    path.write_bytes(configure + accept + last_of_batch)
    assert list(Xtc2().events(path, {})) == [
        InputEvent(EventKind.CONTROL, "Configure", 2_000_000_005, configure),
        InputEvent(EventKind.EVENT, "L1Accept", 4_294_967_295_999_999_999, accept),
        InputEvent(EventKind.EVENT, "L1Accept_EndOfBatch", 0, last_of_batch),
    ]


datagrams = st.lists(
    st.builds(
        datagram,
        st.integers(0, 12),
        st.binary(max_size=60),
        ns=st.integers(0, 999_999_999),
        seconds=st.integers(0, 2**32 - 1),
    ),
    min_size=1,
)


@given(whole=datagrams, cut_bytes=st.integers(0, 100))
def test_a_file_cut_anywhere_gives_its_whole_datagrams_and_one_torn_end(
    scratch: Path, whole: list[bytes], cut_bytes: int
) -> None:
    data = b"".join(whole)
    kept = data[: max(HEADER.size, len(data) - cut_bytes)]
    scratch.write_bytes(kept)
    items = list(Xtc2().events(scratch, {}))
    assert given_back(items, scratch) == kept
    payloads = [item.payload for item in items if isinstance(item, InputEvent)]
    assert payloads == whole[: len(payloads)]
    if len(kept) < len(data):
        missing = whole[len(payloads)]
        torn = items[-1]
        assert isinstance(torn, Torn) == (len(kept) > len(b"".join(payloads)))
        if isinstance(torn, Torn) and torn.size_bytes >= HEADER.size:
            assert torn.declared_bytes == len(missing)


@pytest.mark.fuzz
@given(whole=datagrams, flips=st.lists(st.tuples(st.integers(24), st.integers(0, 255))))
def test_damage_behind_the_first_header_never_breaks_the_reader(
    scratch: Path, whole: list[bytes], flips: list[tuple[int, int]]
) -> None:
    data = bytearray(datagram(CONFIGURE) + b"".join(whole))
    for offset_bytes, value in flips:
        data[24 + offset_bytes % (len(data) - 24)] = value
    scratch.write_bytes(data)
    assert given_back(Xtc2().events(scratch, {}), scratch) == data


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (HEADER.pack(0, 0, L1ACCEPT << 24, 0, 0, 0, 11), "its extent of 11 B is less"),
        (HEADER.pack(0, 0, 13 << 24, 0, 0, 0, 12), "its transition id 13 is unknown"),
        (HEADER.pack(0, 0, L1ACCEPT << 24, 0, 0, 0, 2**32 - 1), "the file ends inside a datagram"),
    ],
)
def test_a_length_that_cannot_be_tears_the_file_there(
    tmp_path: Path, header: bytes, reason: str
) -> None:
    path = tmp_path / "run.xtc2"
    first = datagram(CONFIGURE)
    path.write_bytes(first + header + b"what follows")
    event, torn = Xtc2().events(path, {})
    assert isinstance(event, InputEvent)
    assert isinstance(torn, Torn)
    declared_bytes = 12 + struct.unpack_from("<I", header, 20)[0]
    assert (torn.offset_bytes, torn.size_bytes, torn.declared_bytes) == (24, 36, declared_bytes)
    assert reason in torn.reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"short", "not XTC2: 5 B"),
        (b"This is a letter to the editor of a newspaper.", "not XTC2: its time"),
        (HEADER.pack(0, 0, CONFIGURE << 24, 0, 0, 7, 12), "not XTC2: its outermost type is 7"),
        (HEADER.pack(0, 0, 15 << 24, 0, 0, 0, 12), "not XTC2: its transition id 15"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "run.xtc2"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=reason) as caught:
        list(Xtc2().events(path, {}))
    assert caught.value.offset_bytes == 0


def test_a_datagram_over_the_limit_of_an_event_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.xtc2"
    with path.open("wb") as file:
        file.write(datagram(CONFIGURE) + HEADER.pack(0, 0, L1ACCEPT << 24, 0, 0, 0, 2**27))
        file.truncate(2**28)
    events = Xtc2().events(path, {})
    next(events)
    with pytest.raises(FormatError, match="is the limit") as caught:
        next(events)
    assert caught.value.offset_bytes == 24


# --- recorded data


@pytest.mark.parametrize("name", ["test_timetool", "test_hsd", "test_epix_calib"])
def test_recorded_xtc2_is_given_back_byte_for_byte(real_data: Path, name: str) -> None:
    path = real_data / "lcls2" / f"{name}.xtc2"
    assert given_back(Xtc2().events(path, {}), path) == path.read_bytes()


def test_the_time_tool_has_1325_events_of_three_sizes(real_data: Path) -> None:
    items = list(Xtc2().events(real_data / "lcls2" / "test_timetool.xtc2", {}))
    events = [item for item in items if isinstance(item, InputEvent)]
    assert len(events) == len(items)
    assert Counter((e.label, e.kind) for e in events) == {
        ("Configure", EventKind.CONTROL): 1,
        ("L1Accept", EventKind.EVENT): 1325,
    }
    sizes = Counter(e.size_bytes for e in events if e.kind is EventKind.EVENT)
    assert sizes == {224: 662, 2288: 552, 4352: 111}


def test_the_digitiser_file_has_a_torn_end(real_data: Path) -> None:
    *whole, torn = Xtc2().events(real_data / "lcls2" / "test_hsd.xtc2", {})
    kinds = Counter(item.kind for item in whole if isinstance(item, InputEvent))
    assert kinds == {EventKind.EVENT: 84, EventKind.CONTROL: 5}
    assert isinstance(torn, Torn)
    assert (torn.declared_bytes, torn.size_bytes) == (4500, 3292)
    assert torn.offset_bytes == 434_176 - 3292


def test_the_camera_file_has_events_over_a_mebibyte(real_data: Path) -> None:
    items = Xtc2().events(real_data / "lcls2" / "test_epix_calib.xtc2", {})
    events = [i for i in items if isinstance(i, InputEvent) and i.kind is EventKind.EVENT]
    assert [e.size_bytes for e in events] == [1_093_960, 1_093_960]


@pytest.mark.parametrize("chip", ["B06-W0212", "E09-W0092"])
def test_a_pixel_chip_has_60_frames(real_data: Path, chip: str) -> None:
    folder = real_data / "cernatschool" / "testdata" / chip
    events = [
        event
        for event in Folder().events(folder, {"glob": "**/RAW/**/*.txt"})
        if isinstance(event, InputEvent)
    ]
    assert len(events) == 60
    assert all(event.label.startswith(f"{chip}_2014-04-02-") for event in events)
    assert [e.label for e in events] == sorted(e.label for e in events)
    assert [e.payload for e in events] == [
        path.read_bytes() for path in sorted(folder.rglob("*.txt"), key=lambda p: p.name)
    ]


def test_two_pixel_chips_are_read_as_one_folder(real_data: Path) -> None:
    folder = real_data / "cernatschool"
    events = Folder().events(folder, {"glob": "**/RAW/**/*.txt"})
    chips = Counter(e.label.split("_")[0] for e in events if isinstance(e, InputEvent))
    assert chips == {"B06-W0212": 60, "E09-W0092": 60}
