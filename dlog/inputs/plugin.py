"""What a format must have to be one (`Input`), and how its options are given. It never looks for
formats: that is the catalogue's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from dlog.errors import Error
from dlog.inputs.event import InputItem


class InputUsageError(Error):
    """What the user asked of a replay cannot be: a format, an option, a rule for the streams."""

    exit_code: ClassVar[int] = 2


class InputBroken(Error):
    """A plug-in that cannot be loaded, or is no `Input`; the others can still be named."""


@runtime_checkable
class Input(Protocol):
    """A format that `dlog send` reads; the package's docstring says how to write one."""

    @property
    def name(self) -> str:
        """What `--format` calls it; the same as the entry point's name."""

    @property
    def options(self) -> Mapping[str, str]:
        """The options that `events` takes, each with a line of help."""

    def describe(self) -> str:
        """The format, in one line."""

    def recognise(self, path: Path) -> bool:
        """Whether this file or folder looks like one of this format; reads its first bytes at
        most."""

    def events(self, path: Path, options: Mapping[str, str]) -> Iterator[InputItem]:
        """What stands in it, in order; see the promises in the package's docstring."""


def parsed_options(given: Iterable[str]) -> dict[str, str]:
    """The options as typed, `name=value` each; the last of a name holds."""
    options: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InputUsageError(f"an option of the format is NAME=VALUE, not {text!r}")
        options[name] = value
    return options


def refuse_unknown_options(plugin: Input, options: Mapping[str, str]) -> None:
    unknown = sorted(set(options) - set(plugin.options))
    if not unknown:
        return
    known = ", ".join(f"{name} ({text})" for name, text in sorted(plugin.options.items()))
    raise InputUsageError(
        f"format {plugin.name} has no option {', '.join(unknown)}; it takes {known or 'none'}"
    )
