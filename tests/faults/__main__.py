"""Print the rules of the design with their mutations, and what else tests them."""

from tests.faults.mutations import MUTATIONS
from tests.faults.protocol_rules import PROTOCOL_RULES

by_name = {mutation.name: mutation for mutation in MUTATIONS}
for number, rule in enumerate(PROTOCOL_RULES, 1):
    print(f"\n{number}. {rule.words}")
    for name in rule.mutations:
        mutation = by_name[name]
        print(f"   mutation {name}: {mutation.scenario}, {mutation.seeds} seeds: {mutation.rule}")
    if rule.model:
        print(f"   model    {', '.join(rule.model)}")
    for clause in rule.clauses:
        print(f"   test     {clause.words} ({clause.why}): {', '.join(clause.tests)}")
