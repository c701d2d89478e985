"""What a test puts around the ports of a simulated logger, so that a rule can be left out of it.

A wrapper sees what the services ask of a port and what they are told; it knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from dlog.faults.simulation.network import SimulatedNetwork
from dlog.ports import Directory, EventLink, Journal
from dlog.services.committer import Committer

_Port = TypeVar("_Port")


def _as_it_is(port: _Port) -> _Port:
    return port


@dataclass(frozen=True, slots=True)
class PortWrappers:
    """Each is given a port and returns what the logger uses instead.

    journal, directory, event_link, committer: called for each start of the logger; `committer` is
    what streams, sessions and commands hand their changes to. network: called once; logger and
    sources send and receive through it.
    """

    journal: Callable[[Journal], Journal] = _as_it_is
    directory: Callable[[Directory], Directory] = _as_it_is
    event_link: Callable[[EventLink], EventLink] = _as_it_is
    committer: Callable[[Committer], Committer] = _as_it_is
    network: Callable[[SimulatedNetwork], SimulatedNetwork] = _as_it_is


UNWRAPPED: Final = PortWrappers()
