"""fixtures/example/dlog.toml shows every key with its default."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import pytest

from dlog.model.config import (
    InitConfig,
    LoggerConfig,
    StreamConfig,
    parse_bytes,
    parse_configuration,
)
from tests.rig.commands import CHECKOUT

EXAMPLE = CHECKOUT / "fixtures" / "example" / "dlog.toml"
TABLES = [("logger", LoggerConfig), ("init", InitConfig), ("streams", StreamConfig)]


def _document() -> dict[str, Any]:
    return tomllib.loads(EXAMPLE.read_text())


def test_the_example_means_the_defaults() -> None:
    config = parse_configuration(_document())
    assert config == parse_configuration({"streams": {"photons": {}}})


@pytest.mark.parametrize(("table", "kind"), TABLES)
def test_the_example_shows_every_key_with_its_default(
    table: str, kind: type[msgspec.Struct]
) -> None:
    shown = _document()[table]
    if table == "streams":
        shown = shown["photons"]
    assert set(shown) == set(kind.__struct_fields__)
    for name, value in msgspec.to_builtins(kind()).items():
        sized = name.endswith("_bytes") and name != "element_bytes"
        written = parse_bytes(shown[name]) if sized else shown[name]
        assert written == (list(value) if isinstance(value, tuple) else value), name
