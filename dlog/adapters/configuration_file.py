"""Reads `dlog.toml`: every error at once, each with its key, or with line and column."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from dlog.errors import ConfigurationError
from dlog.limits import MIB
from dlog.model.config import Configuration, parse_configuration


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
    return msgspec.structs.replace(config, logger=msgspec.structs.replace(config.logger, data=data))


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
