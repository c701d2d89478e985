"""The configuration: what `dlog.toml`, INIT and CONFIGURE carry, checked with every error at once.

It reads no file. Sizes take a plain number of bytes or a text such as "64 MiB".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from dlog.errors import ConfigurationError
from dlog.limits import (
    BLOCK_BYTES_DEFAULT,
    GIB,
    KIB,
    MEMORY_BYTES_DEFAULT,
    MIB,
    MONITOR_INTERVAL_MS_MAX,
    RESERVE_BYTES_DEFAULT,
    RESERVE_BYTES_MAX,
    RESERVE_BYTES_MIN,
    SECONDS_MAX,
    SESSION_EXPIRY_SECONDS_DEFAULT,
    STREAMS_PER_RUN_MAX,
)
from dlog.model.access import parse_mode
from dlog.model.address import address_problem
from dlog.model.ids import valid_source_name, valid_stream_name

_UNITS = {"": 1, "B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": 1024 * GIB,
          "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}  # fmt: skip
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*\Z")

Bytes = int  # written as a number or with a unit; fields whose name ends in `_bytes`


class StreamConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One stream, as CONFIGURE carries it and as each of its files keeps it.

    A key that a later version adds is passed over in a file; in a configuration it is an error.

    A part is full at part_bytes, part_events or part_seconds; 0 means no such limit.
    directories: which data directories to write to, by their position in `[logger] data`; the next
    one is taken when one fails. Empty means all, in order.
    """

    part_bytes: Bytes = 2 * GIB
    part_events: int = 0
    part_seconds: float = 0.0
    ranges: bool = True
    late_seconds: float = 30.0
    compression: Literal["none", "zstd"] = "none"
    compression_level: int = 1
    filter: Literal["none", "shuffle", "delta"] = "none"
    element_bytes: Literal[1, 2, 4, 8] = 2
    block_bytes: Bytes = BLOCK_BYTES_DEFAULT
    flush_interval_ms: int = 20
    reserve_bytes: Bytes = RESERVE_BYTES_DEFAULT
    directories: tuple[int, ...] = ()


class InitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What INIT carries. An empty address means: no such link.

    event_address: where the event server listens; port `*` takes a free one, kept from then on.
    low_water_bytes: below this much free space credit stops; it goes on above resume_bytes.
    """

    event_address: str = "tcp://127.0.0.1:*"
    alarm_server: str = ""
    monitor: str = ""
    monitor_interval_ms: int = 1000
    debug_level: Literal["debug", "info", "warning", "error"] = "info"
    drain_seconds: float = 10.0
    settle_seconds: float = 5.0
    session_expiry_seconds: float = float(SESSION_EXPIRY_SECONDS_DEFAULT)
    memory_bytes: Bytes = MEMORY_BYTES_DEFAULT
    low_water_bytes: Bytes = 512 * MIB
    resume_bytes: Bytes = 768 * MIB
    stream_defaults: dict[str, Any] = {}


class LoggerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[logger]`, read at start. data: data directories, the first holds the journal.

    mode, group: of what the logger makes; empty means what umask and system give.
    """

    name: str = "dlog"
    data: tuple[str, ...] = ("data",)
    coor_listen: str = ""
    coor_connect: str = ""
    on_failure: Literal["exit", "initialized", "configured"] = "exit"
    mode: str = ""
    group: str = ""


class Configuration(msgspec.Struct, frozen=True):
    """A whole `dlog.toml`."""

    logger: LoggerConfig
    init: InitConfig
    streams: dict[str, StreamConfig]


T = TypeVar("T", bound=msgspec.Struct)


def parse_configuration(document: Mapping[str, Any]) -> Configuration:
    """The configuration in a TOML document. Raises `ConfigurationError` with every problem."""
    problems = [
        f"{key}: unknown table; there are [logger], [init] and [streams.NAME]"
        for key in document
        if key not in ("logger", "init", "streams")
    ]
    logger = _table(document, "logger", problems)
    init = _table(document, "init", problems)
    streams = _table(document, "streams", problems)
    logger_config = _convert(LoggerConfig, logger, "logger", problems)
    problems += _logger_problems(logger_config)
    init_config = parse_init(init, problems)
    stream_configs = parse_streams(streams, init_config, problems)
    for name, stream in stream_configs.items():
        for position in stream.directories:
            if not 0 <= position < len(logger_config.data):
                problems.append(
                    f"streams.{name}.directories: there is no data directory {position}; "
                    f"[logger] data has {len(logger_config.data)}, counted from 0"
                )
    if problems:
        raise ConfigurationError(problems)
    return Configuration(logger_config, init_config, stream_configs)


def parse_init(table: Mapping[str, Any], problems: list[str]) -> InitConfig:
    """INIT's parameters; problems are appended, and the defaults stand where there are any."""
    config = _convert(InitConfig, table, "init", problems)
    if not config.event_address:
        problems.append("init.event_address: may not be empty")
    problems += _address_problems(
        "init", config, event_address=True, alarm_server=False, monitor=False
    )
    for key in ("drain_seconds", "settle_seconds", "session_expiry_seconds"):
        if getattr(config, key) < 0:
            problems.append(f"init.{key}: may not be negative")
        if getattr(config, key) > SECONDS_MAX:
            problems.append(f"init.{key}: at most {SECONDS_MAX}")
    if config.monitor_interval_ms < 50:
        problems.append("init.monitor_interval_ms: at least 50")
    if config.monitor_interval_ms > MONITOR_INTERVAL_MS_MAX:
        problems.append(f"init.monitor_interval_ms: at most {MONITOR_INTERVAL_MS_MAX}")
    if config.memory_bytes < 16 * MIB:
        problems.append("init.memory_bytes: at least 16 MiB")
    if config.resume_bytes < config.low_water_bytes:
        problems.append("init.resume_bytes: may not be below init.low_water_bytes")
    _stream(config.stream_defaults, {}, "init.stream_defaults", problems)
    return config


def parse_streams(
    table: Mapping[str, Any], init: InitConfig, problems: list[str]
) -> dict[str, StreamConfig]:
    """CONFIGURE's streams over INIT's stream defaults; problems are appended."""
    if len(table) > STREAMS_PER_RUN_MAX:
        problems.append(f"streams: {len(table)} of them; at most {STREAMS_PER_RUN_MAX}")
        return {}
    streams = {}
    for name, values in table.items():
        if not valid_stream_name(name):
            problems.append(
                f"streams.{name}: not a stream name (a letter, then letters, digits, _ or -, "
                "32 at most)"
            )
        elif not isinstance(values, Mapping):
            problems.append(f"streams.{name}: must be a table")
        else:
            streams[name] = _stream(values, init.stream_defaults, f"streams.{name}", problems)
    return streams


def _stream(
    values: Mapping[str, Any], defaults: Mapping[str, Any], where: str, problems: list[str]
) -> StreamConfig:
    config = _convert(StreamConfig, {**defaults, **values}, where, problems)
    floors = {
        "part_bytes": (0, MIB), "part_events": (0, 1), "part_seconds": (0, 0.1),
        "reserve_bytes": (RESERVE_BYTES_MIN,) * 2, "block_bytes": (64 * KIB, 64 * KIB),
        "flush_interval_ms": (0, 0), "late_seconds": (0, 0),
    }  # fmt: skip
    for key, (allowed, floor) in floors.items():
        value = getattr(config, key)
        if value != allowed and value < floor:
            problems.append(f"{where}.{key}: {value} is too small; at least {floor}")
    for key in ("part_seconds", "late_seconds"):
        if getattr(config, key) > SECONDS_MAX:
            problems.append(f"{where}.{key}: at most {SECONDS_MAX}")
    if config.reserve_bytes > RESERVE_BYTES_MAX:
        problems.append(f"{where}.reserve_bytes: at most 1 TiB")
    if len(set(config.directories)) != len(config.directories):
        problems.append(f"{where}.directories: names a directory twice")
    if config.block_bytes > 16 * MIB:
        problems.append(f"{where}.block_bytes: at most 16 MiB")
    if config.flush_interval_ms > 10_000:
        problems.append(f"{where}.flush_interval_ms: at most 10000")
    if not 1 <= config.compression_level <= 19:
        problems.append(f"{where}.compression_level: 1 to 19")
    return config


def _logger_problems(config: LoggerConfig) -> list[str]:
    problems = []
    if not valid_source_name(config.name):
        problems.append(f"logger.name: {config.name!r} is not a name (letters, digits, _ . : @ -)")
    if not config.data:
        problems.append("logger.data: at least one data directory")
    if len(set(config.data)) != len(config.data):
        problems.append("logger.data: names a directory twice")
    if config.mode:
        try:
            parse_mode(config.mode)
        except ValueError as error:
            problems.append(f"logger.mode: {config.mode!r} cannot be: {error}")
    if config.coor_listen and config.coor_connect:
        problems.append("logger.coor_listen, logger.coor_connect: give one of them")
    return problems + _address_problems("logger", config, coor_listen=True, coor_connect=False)


def _address_problems(table: str, config: msgspec.Struct, **bound: bool) -> list[str]:
    """Of the addresses that are given; bound: those where the logger listens."""
    return [
        f"{table}.{key}: {problem}"
        for key, listens in bound.items()
        if (address := getattr(config, key))
        and (problem := address_problem(address, bound=listens))
    ]


def _table(document: Mapping[str, Any], key: str, problems: list[str]) -> Mapping[str, Any]:
    value = document.get(key, {})
    if isinstance(value, Mapping):
        return value
    problems.append(f"{key}: must be a table")
    return {}


def _convert(kind: type[T], values: Mapping[str, Any], where: str, problems: list[str]) -> T:
    """A struct of the values that hold; a problem for each key that does not, defaults for it."""
    hints = get_type_hints(kind)
    good: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            near = ", ".join(sorted(hints))
            problems.append(f"{where}.{key}: unknown key; there are {near}")
            continue
        try:
            plain = (
                parse_bytes(value) if key.endswith("_bytes") and key != "element_bytes" else value
            )
            good[key] = _in_range(msgspec.convert(plain, hints[key]))
        except (msgspec.ValidationError, ValueError) as error:
            problems.append(f"{where}.{key}: {_words(error, hints[key])} (it is {value!r})")
    return kind(**good)


def _in_range(value: Any) -> Any:
    """The value. Raises `ValueError` for a number that JSON, and so a file header, cannot carry."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("is out of range")
    return value


def _words(error: Exception, hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "must be one of " + ", ".join(str(v) for v in get_args(hint))
    return str(error).removesuffix(" - at `$`")


def parse_bytes(value: object) -> int:
    """A number of bytes from 4096, "4096" or "4 KiB". Raises `ValueError`."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError("may not be negative")
        return value
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None or match[2] not in _UNITS:
        raise ValueError('not a size; write a number of bytes or for example "64 MiB"')
    try:
        return int(Decimal(match[1]) * _UNITS[match[2]])
    except (ArithmeticError, ValueError) as error:
        raise ValueError("is out of range") from error
