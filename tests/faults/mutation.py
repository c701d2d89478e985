"""What a mutation is: the product with one rule left out, for the time of a `with`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any
from unittest.mock import patch

import msgspec

from dlog.faults.simulation.campaign import Menu

CALM = Menu(crashes=False, network=False, disk=False, space=False, journal=False)
CRASHES = Menu(network=False, disk=False, space=False, journal=False)
CRASHES_AND_NETWORK = Menu(disk=False, space=False, journal=False)
NETWORK = Menu(crashes=False, disk=False, space=False, journal=False)
DISK = Menu(crashes=False, network=False, space=False, journal=False)
SPACE = Menu(crashes=False, network=False, disk=False, journal=False)
JOURNAL = Menu(crashes=False, network=False, disk=False, space=False)
CRASHES_AND_DISK = Menu(network=False, space=False, journal=False)
CRASHES_AND_JOURNAL = Menu(network=False, disk=False, space=False)


@dataclass(frozen=True)
class Mutation:
    """rule: what is left out. seeds: within so many histories it must be caught."""

    name: str
    rule: str
    menu: Menu
    seeds: int
    apply: Callable[[], AbstractContextManager[Any]]

    @property
    def row(self) -> str:
        """Of the table in docs/TESTING.md."""
        on = [f.name for f in fields(self.menu) if getattr(self.menu, f.name)]
        return f"| {self.rule} | `{self.name}` | {' and '.join(on) or 'calm'} | {self.seeds} |"

    @contextmanager
    def applied(self) -> Iterator[None]:
        with self.apply():
            yield


def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Callable[[], Any]:
    """The function `name` of `owner`, replaced by what `make` makes of it."""
    return lambda: patch.object(owner, name, make(getattr(owner, name)))


def changed(value: Any, **fields: Any) -> Any:
    """A copy of a frozen record of the product, whatever it is made of."""
    if isinstance(value, tuple):
        return value._replace(**fields)  # type: ignore[attr-defined]
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.replace(value, **fields)
    return replace(value, **fields)
