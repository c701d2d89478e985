"""Explore the protocol model and print what is found: everything, or a scenario, or without a rule.

python -m tests.model                # every scenario, then without each rule
python -m tests.model plain          # one scenario
python -m tests.model tail_cut       # without one rule: its shortest counterexample
"""

import sys
from dataclasses import replace

from tests.model.exploration import explore
from tests.model.scenarios import MISSED, SCENARIOS

asked = sys.argv[1:]
if unknown := set(asked) - SCENARIOS.keys() - MISSED.keys():
    names = ", ".join([*SCENARIOS, *MISSED])
    sys.exit(f"neither a scenario nor a rule: {', '.join(sorted(unknown))}; there are {names}")
for name, scenario in SCENARIOS.items():
    if not asked or name in asked:
        print(f"{name}: {explore(scenario)}", flush=True)
for rule, missed in MISSED.items():
    if not asked or rule in asked:
        scenario = SCENARIOS[missed.scenario]
        found = explore(replace(scenario, rules=scenario.rules.without(rule)))
        print(f"\nwithout {rule}, {missed.scenario}: {found}", flush=True)
