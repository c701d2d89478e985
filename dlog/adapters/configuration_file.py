"""Reads `dlog.toml`: every error at once, each with its key, or with line and column."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from dlog.errors import ConfigurationError
from dlog.limits import MIB
from dlog.model.config import Configuration, LoggerConfig, parse_configuration


def read_document(path: Path) -> dict[str, Any]:
    """The TOML document. Raises `ConfigurationError`, for a syntax error with line and column."""
    try:
        with path.open("rb") as file:
            text = file.read(MIB + 1)
        if len(text) > MIB:
            raise ConfigurationError([f"{path}: larger than 1 MiB"])
        return tomllib.loads(text.decode())
    except OSError as error:
        raise ConfigurationError([f"{path}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError([f"{path}: no UTF-8 text at byte {error.start}"]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([f"{path}: {error}"]) from error
    except RecursionError as error:
        raise ConfigurationError([f"{path}: nested too deeply"]) from error


def read_configuration(path: Path) -> Configuration:
    """The checked configuration. Its data directories are absolute: a relative one counts from the
    folder of the file, wherever the logger is started from."""
    document = read_document(path)
    try:
        config = parse_configuration(document)
    except ConfigurationError as error:
        error.add_note(f"in {path}")
        raise
    folder = path.resolve().parent
    data = tuple(str(folder / directory) for directory in config.logger.data)
    if twice := _named_twice(folder, config.logger.data):
        refused = ConfigurationError([f"logger.data: {words}" for words in twice])
        refused.add_note(f"in {path}")
        raise refused
    return msgspec.structs.replace(config, logger=msgspec.structs.replace(config.logger, data=data))


def _named_twice(folder: Path, names: Sequence[str]) -> list[str]:
    """Directories that are one, by another spelling, a link or a mount, in words."""
    return [
        f"{first} and {second} are one directory"
        for first, second in itertools.combinations(names, 2)
        if _is_one(folder / first, folder / second)
    ]


def _is_one(first: Path, second: Path) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:  # one is not there yet
        return os.path.realpath(first) == os.path.realpath(second)


def data_of_broken(path: Path) -> Path | None:
    """The first data directory that a file names which is no good configuration; None where it
    cannot be told. So live runs can go on, whatever else is wrong in the file."""
    try:
        logger = _logger_table(path.read_bytes()[:MIB].decode(errors="replace"))
    except OSError:
        return None
    data = logger.get("data", LoggerConfig().data) if isinstance(logger, dict) else None
    if not isinstance(data, list | tuple) or not data or not isinstance(data[0], str):
        return None
    return path.resolve().parent / data[0]


def _logger_table(text: str) -> object:
    """The table [logger] of a document, of which the rest may be wrong; None where it cannot be
    read or is not there."""
    with contextlib.suppress(tomllib.TOMLDecodeError):
        return tomllib.loads(text).get("logger", {})
    begin = re.search(r"^\s*\[logger\]", text, re.MULTILINE)
    if begin is None:
        return None
    behind = re.compile(r"^\s*\[", re.MULTILINE).search(text, begin.end())
    table = text[begin.start() : behind.start() if behind else len(text)]
    with contextlib.suppress(tomllib.TOMLDecodeError):
        return tomllib.loads(table)["logger"]
    return None


def init_parameters(path: Path) -> dict[str, Any]:
    """What INIT carries: the `[init]` table as it was written, after the whole file was checked."""
    read_configuration(path)
    return dict(read_document(path).get("init", {}))


def configure_parameters(path: Path) -> dict[str, Any]:
    """What CONFIGURE carries: the streams as they were written, after a check of the whole file."""
    read_configuration(path)
    return {"streams": dict(read_document(path).get("streams", {}))}


def configured_data(path: Path, to: str, listen: str) -> Path | None:
    """The data directory that a configuration names, where no other logger is meant."""
    if to or listen:
        return None
    data = Path(read_configuration(path).logger.data[0])
    return data if (data / "logger.json").is_file() else None
