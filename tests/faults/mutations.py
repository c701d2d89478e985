"""The product with one rule left out: a rule of the design, or a mistake that a data logger is
prone to. A campaign that does not catch each of them proves nothing.

A mutation stands around a port of the product (wrappers.py), or around a decision of dlog.core.
Where neither sees the rule, it patches the service that keeps it, and says why. Which rule of the
design is which mutation stands in protocol_rules.py, with the clauses that cannot be one.
"""

from __future__ import annotations

from tests.faults import mutations_of_journal, mutations_of_protocol, mutations_of_storage
from tests.faults.mutation import Mutation

MUTATIONS: list[Mutation] = [
    *mutations_of_storage.MUTATIONS,
    *mutations_of_journal.MUTATIONS,
    *mutations_of_protocol.MUTATIONS,
]
