"""The configuration: every problem at once, each with its key; what holds comes out as given."""

from __future__ import annotations

import contextlib
import math
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlog.adapters.configuration_file import read_configuration
from dlog.errors import ConfigurationError
from dlog.limits import GIB, KIB, MIB, STREAMS_PER_RUN_MAX
from dlog.model.config import (
    InitConfig,
    StreamConfig,
    parse_bytes,
    parse_configuration,
    parse_init,
    parse_streams,
)


def problems(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse_configuration(document)
    assert caught.value.exit_code == 78
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


def problem(document: dict[str, Any]) -> str:
    (only,) = problems(document)
    return only


def test_an_empty_document_is_the_defaults() -> None:
    configuration = parse_configuration({})
    assert configuration.logger.data == ("data",)
    assert configuration.init == InitConfig()
    assert configuration.streams == {}


def test_a_configuration_comes_out_as_it_was_written() -> None:
    configuration = parse_configuration(
        tomllib.loads(
            """
            [logger]
            name = "d0"
            data = ["/data/a", "/data/b"]
            coor_listen = "tcp://127.0.0.1:5600"

            [init]
            event_address = "tcp://127.0.0.1:5601"
            low_water_bytes = "1 GiB"
            resume_bytes = "2 GiB"
            [init.stream_defaults]
            compression = "zstd"
            part_bytes = "512 MiB"

            [streams.photons]
            filter = "delta"
            part_bytes = 2_000_000
            directories = [1, 0]

            [streams.control]
            compression = "none"
            """
        )
    )
    assert configuration.logger.data == ("/data/a", "/data/b")
    assert configuration.init.low_water_bytes == GIB
    photons, control = configuration.streams["photons"], configuration.streams["control"]
    assert photons == StreamConfig(
        compression="zstd", filter="delta", part_bytes=2_000_000, directories=(1, 0)
    )
    assert control == StreamConfig(compression="none", part_bytes=512 * MIB)


def test_all_problems_are_told_at_once_with_their_keys() -> None:
    found = problems(
        {
            "loger": {},
            "logger": {"name": "bad name", "data": [], "colour": 1, "coor_listen": "here"},
            "init": {"memory_bytes": "1 KiB", "event_address": "", "debug_level": "loud"},
            "streams": {
                "photons": {"compression": "lz4", "block_bytes": 5, "level": 3},
                "9bad": {},
                "flat": 3,
            },
        }
    )
    keys = [line.split(":")[0] for line in found]
    for key in (
        "loger", "logger.name", "logger.data", "logger.colour", "logger.coor_listen",
        "init.memory_bytes", "init.event_address", "init.debug_level",
        "streams.photons.compression", "streams.photons.block_bytes", "streams.photons.level",
        "streams.9bad", "streams.flat",
    ):  # fmt: skip
        assert key in keys


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"logger": 3}, "logger: must be a table"),
        ({"streams": []}, "streams: must be a table"),
        ({"logger": {"data": ["a", "a"]}}, "names a directory twice"),
        ({"logger": {"data": "a"}}, "logger.data: Expected `array`"),
        ({"logger": {"on_failure": "panic"}}, "must be one of exit, initialized, configured"),
        ({"init": {"resume_bytes": 1}}, "may not be below init.low_water_bytes"),
        ({"init": {"drain_seconds": -1}}, "may not be negative"),
        ({"init": {"settle_seconds": float("inf")}}, "must be a finite number"),
        ({"init": {"monitor_interval_ms": 1}}, "at least 50"),
        ({"init": {"alarm_server": "localhost:80"}}, "is not an address"),
        ({"init": {"stream_defaults": {"filter": "fft"}}}, "init.stream_defaults.filter"),
        ({"streams": {"a": {"part_bytes": 5}}}, "is too small; at least 1048576"),
        ({"streams": {"a": {"part_bytes": "5 MB of"}}}, "not a size"),
        ({"streams": {"a": {"part_bytes": -5}}}, "may not be negative"),
        ({"streams": {"a": {"part_bytes": True}}}, "not a size"),
        ({"streams": {"a": {"part_bytes": "9" * 400}}}, "out of range"),
        ({"streams": {"a": {"part_events": 2**70}}}, "out of range"),
        ({"streams": {"a": {"part_events": 1.5}}}, "Expected `int`"),
        ({"streams": {"a": {"late_seconds": float("nan")}}}, "must be a finite number"),
        ({"streams": {"a": {"late_seconds": -0.5}}}, "streams.a.late_seconds"),
        ({"streams": {"a": {"block_bytes": "17 MiB"}}}, "at most 16 MiB"),
        ({"streams": {"a": {"flush_interval_ms": 20_000}}}, "at most 10000"),
        ({"streams": {"a": {"compression_level": 0}}}, "1 to 19"),
        ({"streams": {"a": {"element_bytes": 3}}}, "must be one of 1, 2, 4, 8"),
        ({"streams": {"a": {"directories": [1]}}}, "there is no data directory 1"),
        ({"streams": {"a": {"directories": [-1]}}}, "there is no data directory -1"),
        ({"streams": {"a" * 33: {}}}, "not a stream name"),
        # More nanoseconds than an integer can be made of; milliseconds that no poll takes.
        ({"init": {"session_expiry_seconds": 1e308}}, "session_expiry_seconds: at most"),
        ({"init": {"drain_seconds": 1e12}}, "drain_seconds: at most"),
        ({"init": {"monitor_interval_ms": 2**40}}, "monitor_interval_ms: at most"),
        ({"streams": {"a": {"late_seconds": 1e308}}}, "late_seconds: at most"),
        ({"streams": {"a": {"part_seconds": 1e308}}}, "part_seconds: at most"),
        ({"streams": {"a": {"reserve_bytes": 2**62}}}, "reserve_bytes: at most"),
        ({"streams": {"a": {"directories": [0, 0]}}}, "names a directory twice"),
    ],
)
def test_what_does_not_hold_is_told_in_words(document: dict[str, Any], words: str) -> None:
    assert words in problem(document)


def test_one_way_to_coor_not_two() -> None:
    both = {"coor_listen": "tcp://127.0.0.1:1", "coor_connect": "tcp://127.0.0.1:2"}
    assert "give one of them" in problem({"logger": both})


def test_too_many_streams_are_refused_as_one_problem() -> None:
    document = {"streams": {f"s{i}": {"bad": 1} for i in range(STREAMS_PER_RUN_MAX + 1)}}
    assert "257 of them; at most 256" in problem(document)


def test_what_does_not_hold_leaves_the_defaults_in_place() -> None:
    found: list[str] = []
    init = parse_init({"memory_bytes": "lots", "drain_seconds": 3}, found)
    assert len(found) == 1
    assert (init.memory_bytes, init.drain_seconds) == (InitConfig().memory_bytes, 3.0)
    streams = parse_streams({"a": {"filter": "fft", "element_bytes": 4}}, init, found)
    assert streams == {"a": StreamConfig(element_bytes=4)}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (4096, 4096), ("4096", 4096), ("4 KiB", 4 * KIB), ("4KiB", 4 * KIB),
        ("1.5 MiB", 1536 * KIB), ("2 GB", 2 * 10**9), (" 7 B ", 7), ("0", 0),
        ("9007199254740993", 9007199254740993),
        ("1 TiB", 1024 * GIB),
    ],
)  # fmt: skip
def test_a_size_is_a_number_or_a_text_with_a_unit(text: int | str, size: int) -> None:
    assert parse_bytes(text) == size


@given(st.one_of(st.text(max_size=20), st.floats(), st.booleans(), st.none(), st.binary()))
def test_what_is_no_size_is_a_value_error(value: object) -> None:
    with contextlib.suppress(ValueError):
        assert parse_bytes(value) >= 0


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9),
        st.sampled_from(["64 MiB", "zstd", "delta", "tcp://h:1", "exit"]),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)  # fmt: skip


def table(kind: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    """Mostly what a key may be, so that now and then all of it holds."""

    def value(name: str) -> st.SearchStrategy[tuple[str, Any]]:
        default = getattr(kind(), name, None)
        good = {
            bool: st.booleans(), int: st.sampled_from([0, 1, 8, 20, MIB, "64 MiB", 2**64]),
            float: st.sampled_from([0, 0.5, 60, math.inf, math.nan]),
            tuple: st.sampled_from([[], [0], [1, 0]]),
            str: st.sampled_from(["", "zstd", "delta", "debug", "tcp://127.0.0.1:5000"]),
        }.get(type(default), VALUES)  # fmt: skip
        kept = st.just(msgspec.to_builtins(default))
        return st.tuples(st.just(name), st.one_of(kept, kept, good, good, VALUES))

    keys = st.sampled_from([*kind.__struct_fields__, *kind.__struct_fields__, "unknown"])
    return st.lists(keys.flatmap(value), max_size=3).map(dict)


@given(
    init=table(InitConfig),
    streams=st.dictionaries(
        st.sampled_from(["a", "b", "a-1", "a_b", "1"]),
        st.one_of(*3 * [table(StreamConfig)], VALUES),
        max_size=2,
    ),
)  # fmt: skip
def test_any_document_is_a_configuration_or_a_list_of_problems(
    init: dict[str, Any], streams: dict[str, Any]
) -> None:
    document = {"init": init, "streams": streams}
    try:
        parsed = parse_configuration(document).streams
    except ConfigurationError:
        assert all(line.startswith(("init", "streams")) for line in problems(document))
        return
    # What holds can be written into a file header and be read again.
    for stream in parsed.values():
        text = msgspec.json.encode(stream)
        assert msgspec.json.decode(text, type=StreamConfig) == stream


@pytest.mark.parametrize("second", ["./a", "b/../a", "link"])
def test_one_directory_under_two_names_is_refused(tmp_path: Path, second: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    file = tmp_path / "dlog.toml"
    file.write_text(f'[logger]\ndata = ["a", "{second}"]\n')
    with pytest.raises(ConfigurationError, match=f"logger.data: a and {second} are one dir"):
        read_configuration(file)
