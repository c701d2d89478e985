"""What a mutation is: the product with one rule left out, for the time of a history."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any
from unittest.mock import patch

import msgspec

from dlog.faults.simulation import campaign
from dlog.faults.simulation.campaign import Menu, Outcome
from dlog.faults.simulation.menu import SCENARIOS
from dlog.faults.simulation.port_wrappers import UNWRAPPED, PortWrappers
from dlog.faults.simulation.world import ROUNDS_MAX

CALM = Menu(crashes=False, network=False, disk=False, space=False, journal=False)
CRASHES = replace(CALM, crashes=True)
NETWORK = replace(CALM, network=True)
DISK = replace(CALM, disk=True)
SPACE = replace(CALM, space=True)
JOURNAL = replace(CALM, journal=True)
CRASHES_AND_NETWORK = replace(CRASHES, network=True)
CRASHES_AND_DISK = replace(CRASHES, disk=True)
CRASHES_AND_JOURNAL = replace(CRASHES, journal=True)
DIRECTORIES = SCENARIOS["directories"].menu


@dataclass(frozen=True)
class Mutation:
    """A rule that is left out.

    rule: the words of the design. menu: which faults its histories hold. seeds: in one of so many
    histories it must be caught. how: what stands around the ports of the product; or, where no
    port sees the rule, a patch of the product.
    """

    name: str
    rule: str
    menu: Menu
    seeds: int
    how: PortWrappers | Callable[[], AbstractContextManager[Any]]

    @property
    def scenario(self) -> str:
        on = [f.name for f in fields(self.menu) if getattr(self.menu, f.name)]
        return " and ".join(on) or "calm"

    @property
    def wrappers(self) -> PortWrappers:
        return self.how if isinstance(self.how, PortWrappers) else UNWRAPPED

    def play(
        self, seed: int, *, only: Collection[int] | None = None, rounds_max: int = ROUNDS_MAX
    ) -> Outcome:
        """One history of the mutant."""
        with ExitStack() as stack:
            if not isinstance(self.how, PortWrappers):
                stack.enter_context(self.how())
            return campaign.play(
                seed, self.menu, only=only, rounds_max=rounds_max, wrappers=self.wrappers
            )


def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Callable[[], Any]:
    """The function `name` of `owner`, replaced by what `make` makes of it."""
    return lambda: patch.object(owner, name, make(getattr(owner, name)))


def decided(decision: Any, other: Callable[..., Any]) -> Callable[[], Any]:
    """A function of dlog.core, replaced wherever the product asks it. other: is called with the
    true one, then with its arguments."""

    @contextmanager
    def applied() -> Iterator[None]:
        name = decision.__name__
        asking = [module for key, module in sys.modules.items() if key.startswith("dlog.")]
        with ExitStack() as stack:
            for module in asking:
                if vars(module).get(name) is decision:
                    mutant = patch.object(module, name, lambda *args: other(decision, *args))
                    stack.enter_context(mutant)
            yield

    return applied


def changed(value: Any, **fields: Any) -> Any:
    """A copy of a frozen record of the product, whatever it is made of."""
    if isinstance(value, tuple):
        return value._replace(**fields)  # type: ignore[attr-defined]
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.replace(value, **fields)
    return replace(value, **fields)
