"""Which stream an event of a replay goes to, for each rule that a user can type."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlog.inputs import EventKind, InputEvent, InputUsageError, Torn, assigned, stream_rule
from dlog.inputs.folder import Folder
from dlog.inputs.xtc2 import Xtc2
from dlog.limits import EVENT_BYTES_MAX, STREAMS_PER_RUN_MAX
from dlog.model.ids import valid_stream_name


def event(size_bytes: int = 1, label: str = "L1Accept") -> InputEvent:
    return InputEvent(EventKind.EVENT, label, None, bytes(size_bytes))


CONTROL = InputEvent(EventKind.CONTROL, "Configure", None, b"names")


def test_without_a_rule_all_events_are_one_stream() -> None:
    assert stream_rule()(event()) == "events"


def test_a_stream_can_be_named() -> None:
    assert stream_rule(stream="photons")(event()) == "photons"


def test_exact_size_classes_are_named_by_their_size() -> None:
    rule = stream_rule(size_classes="exact")
    assert [rule(event(size)) for size in (224, 4352, 224, 0)] == [
        "size-224",
        "size-4352",
        "size-224",
        "size-0",
    ]


@pytest.mark.parametrize(
    ("size_classes", "names"),
    [
        ("1000,3000", ["up-to-1000", "up-to-1000", "up-to-3000", "over-3000"]),
        ("1000", ["up-to-1000", "up-to-1000", "over-1000", "over-1000"]),
        ("small=1000,middle=3000,large", ["small", "small", "middle", "large"]),
        ("small=1000,3000", ["small", "small", "up-to-3000", "over-3000"]),
    ],
)
def test_size_classes_by_limits_include_their_limit(size_classes: str, names: list[str]) -> None:
    rule = stream_rule(size_classes=size_classes)
    assert [rule(event(size)) for size in (1, 1000, 1001, 3001)] == names


@pytest.mark.parametrize(
    "size_classes",
    [
        "",
        "large",
        ",",
        "1000,",
        "3000,1000",
        "1000,1000",
        "0,10",
        "-5",
        "a=1,a=2",
        "a=1,b,c=3",
        "a=x,b",
        "=5",
        "a b=5",
        "control=5",
        "small=5,control",
        "99999999999",
        str(EVENT_BYTES_MAX + 1),
        "exactly",
    ],
)
def test_size_classes_that_cannot_be_are_usage_errors(size_classes: str) -> None:
    with pytest.raises(InputUsageError):
        stream_rule(size_classes=size_classes)


@pytest.mark.parametrize(
    ("by_label", "label", "stream"),
    [
        ("_", "B06-W0212_2014-04-02-140255.txt", "B06-W0212"),
        ("_", "212_2014.txt", "s-212"),
        ("-W", "B06-W0212_2014.txt", "B06"),
        ("[^_]*_(....)", "B06-W0212_2014-04-02.txt", "s-2014"),
        ("(.*)", "L1Accept", "L1Accept"),
    ],
)
def test_a_label_names_its_stream(by_label: str, label: str, stream: str) -> None:
    assert stream_rule(by_label=by_label)(event(label=label)) == stream


@pytest.mark.parametrize(
    "label", ["no separator", "_nothing before", "a b_", "control_1", "x" * 40]
)
def test_a_label_that_names_no_stream_is_a_usage_error(label: str) -> None:
    rule = stream_rule(by_label="_")
    with pytest.raises(InputUsageError):
        rule(event(label=label))


@pytest.mark.parametrize("by_label", ["", "(", "(a)(b)", "(?:a)"])
def test_a_label_pattern_has_one_group(by_label: str) -> None:
    with pytest.raises(InputUsageError):
        stream_rule(by_label=by_label)


@pytest.mark.parametrize("name", ["", "1st", "a.b", "a/b", "x" * 33, "control", "ä", "a\n"])
def test_a_stream_name_that_cannot_be_is_a_usage_error(name: str) -> None:
    with pytest.raises(InputUsageError):
        stream_rule(stream=name)


def test_two_rules_at_once_are_a_usage_error() -> None:
    with pytest.raises(InputUsageError, match="say one"):
        stream_rule(stream="photons", by_label="_")


@pytest.mark.parametrize(
    "rule",
    [stream_rule(), stream_rule(size_classes="exact"), stream_rule(by_label="_")],
)
def test_control_records_go_to_their_own_stream_under_each_rule(rule: object) -> None:
    assert callable(rule)
    assert rule(CONTROL) == "control"


@given(size_bytes=st.integers(0, 10_000), limits=st.sets(st.integers(1, 9999), min_size=1))
def test_each_size_has_one_class_with_a_valid_name(size_bytes: int, limits: set[int]) -> None:
    typed = ",".join(str(limit) for limit in sorted(limits))
    stream = stream_rule(size_classes=typed)(event(size_bytes))
    assert valid_stream_name(stream)
    word, limit = stream.rsplit("-", 1)
    assert (size_bytes <= int(limit)) == (word == "up-to")


def test_order_and_torn_ends_are_kept() -> None:
    torn = Torn(10, 1, 4, "the file ends inside a record")
    items = list(assigned([CONTROL, event(3), event(2), torn], stream_rule(size_classes="exact")))
    assert items == [("control", CONTROL), ("size-3", event(3)), ("size-2", event(2)), torn]


def test_a_rule_that_makes_too_many_streams_is_refused() -> None:
    events = (event(size) for size in range(1, STREAMS_PER_RUN_MAX + 2))
    streams = assigned(events, stream_rule(size_classes="exact"))
    for _ in range(STREAMS_PER_RUN_MAX):
        next(streams)
    with pytest.raises(InputUsageError, match="streams, the limit of a run"):
        next(streams)


# --- recorded data


def test_the_time_tool_becomes_three_streams_and_control(real_data: Path) -> None:
    items = Xtc2().events(real_data / "lcls2" / "test_timetool.xtc2", {})
    placed = assigned(items, stream_rule(size_classes="exact"))
    streams = Counter(item[0] for item in placed if not isinstance(item, Torn))
    assert streams == {"size-224": 662, "size-2288": 552, "size-4352": 111, "control": 1}


def test_two_pixel_chips_become_two_streams(real_data: Path) -> None:
    items = Folder().events(real_data / "cernatschool", {"glob": "**/RAW/**/*.txt"})
    placed = assigned(items, stream_rule(by_label="_"))
    streams = Counter(item[0] for item in placed if not isinstance(item, Torn))
    assert streams == {"B06-W0212": 60, "E09-W0092": 60}
