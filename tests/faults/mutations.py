"""The product with one rule left out: a rule of the design, or a mistake that a data logger is
prone to. A campaign that does not catch each of them proves nothing.

A mutation replaces one function of the product for the time of a `with`; nothing else patches it.
Which rule of the protocol is which mutation stands in docs/TESTING.md, with those that cannot be
one.
"""

from __future__ import annotations

from tests.faults import mutations_of_journal, mutations_of_protocol, mutations_of_storage
from tests.faults.mutation import Mutation

MUTATIONS: list[Mutation] = [
    *mutations_of_storage.MUTATIONS,
    *mutations_of_journal.MUTATIONS,
    *mutations_of_protocol.MUTATIONS,
]
