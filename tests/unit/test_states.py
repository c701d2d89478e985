"""The four state machines: every pair of state and event, in the table and not in it."""

from __future__ import annotations

import enum
import itertools
from typing import Any

import pytest

from dlog.core.states import (
    CONNECTION,
    FILE,
    LOGGER,
    RUN,
    RUN_LIVE,
    ConnectionEvent,
    ConnectionState,
    FileEvent,
    FileState,
    LoggerEvent,
    LoggerState,
    Machine,
    RunEvent,
    RunState,
)
from dlog.errors import TransitionRefused

MACHINES: list[tuple[Machine[Any, Any], type[enum.StrEnum], type[enum.StrEnum]]] = [
    (LOGGER, LoggerState, LoggerEvent),
    (RUN, RunState, RunEvent),
    (FILE, FileState, FileEvent),
    (CONNECTION, ConnectionState, ConnectionEvent),
]
PAIRS = [
    pytest.param(machine, state, event, id=f"{machine.name}-{state.name}-{event.name}")
    for machine, states, events in MACHINES
    for state, event in itertools.product(states, events)
]

# What the design says, one line a state: event name -> state name.
EXPECTED = {
    "logger": {
        "PREINITIALIZED": {"INIT": "INITIALIZED", "STOP": "STOPPED", "FAIL": "FAILED"},
        "INITIALIZED": {
            "INIT": "INITIALIZED", "CONFIGURE": "CONFIGURED", "STOP": "STOPPED", "FAIL": "FAILED",
            "FALL_TO_INITIALIZED": "INITIALIZED",
        },
        "CONFIGURED": {
            "INIT": "CONFIGURED", "CONFIGURE": "CONFIGURED", "START_RUN": "RUNNING",
            "STOP": "STOPPED", "FAIL": "FAILED", "FALL_TO_INITIALIZED": "INITIALIZED",
            "FALL_TO_CONFIGURED": "CONFIGURED",
        },
        "RUNNING": {
            "CONFIGURE": "RUNNING", "START_RUN": "RUNNING", "LAST_RUN_OVER": "CONFIGURED",
            "STOP": "STOPPED", "FAIL": "FAILED", "FALL_TO_INITIALIZED": "INITIALIZED",
            "FALL_TO_CONFIGURED": "CONFIGURED",
        },
        "STOPPED": {},
        "FAILED": {},
    },
    "run": {
        "STARTING": {
            "STARTED": "ACTIVE", "START_FAILED": "FAILED", "ABORT": "ABORTED", "FAIL": "FAILED",
        },
        "ACTIVE": {"PAUSE": "PAUSED", "STOP": "ENDING", "ABORT": "ABORTED", "FAIL": "FAILED"},
        "PAUSED": {"RESUME": "ACTIVE", "STOP": "ENDING", "ABORT": "ABORTED", "FAIL": "FAILED"},
        "ENDING": {"DRAINED": "ENDED", "ABORT": "ABORTED", "FAIL": "FAILED"},
        "ENDED": {},
        "ABORTED": {},
        "FAILED": {},
    },
    "file": {
        "CREATING": {"CREATED": "OPEN", "CREATE_FAILED": "ERROR"},
        "OPEN": {"FULL": "END", "CLOSE": "CLOSING", "FAULT": "ERROR"},
        "END": {"CLOSE": "CLOSING", "FAULT": "ERROR"},
        "CLOSING": {"SEALED": "CLOSED", "FAULT": "ERROR"},
        "CLOSED": {},
        "ERROR": {"SEALED": "CLOSED"},
    },
    "connection": {
        "CONNECTING": {"ACCEPTED": "CONNECTED", "REJECTED": "REFUSED", "DROPPED": "LOST"},
        "CONNECTED": {"ACCEPTED": "CONNECTED", "REJECTED": "REFUSED", "DROPPED": "LOST"},
        "LOST": {"OPENED": "CONNECTING", "ACCEPTED": "CONNECTED", "REJECTED": "REFUSED"},
        "REFUSED": {"OPENED": "CONNECTING", "ACCEPTED": "CONNECTED"},
    },
}  # fmt: skip


@pytest.mark.parametrize(("machine", "state", "event"), PAIRS)
def test_a_pair_of_the_table_leads_on_and_a_missing_one_is_refused_and_named(
    machine: Machine[Any, Any], state: enum.StrEnum, event: enum.StrEnum
) -> None:
    before = dict(machine.table)
    target = EXPECTED[machine.name][state.name].get(event.name)
    if target is not None:
        assert machine.next(state, event).name == target
    else:
        with pytest.raises(TransitionRefused) as refused:
            machine.next(state, event)
        error = refused.value
        assert (error.machine, error.state, error.event) == (machine.name, state, event)
        assert error.accepts == machine.accepts(state)
        assert str(state) in str(error)
    assert dict(machine.table) == before


@pytest.mark.parametrize(("machine", "states", "events"), MACHINES, ids=lambda m: str(m)[:20])
def test_the_table_holds_what_the_design_says_and_no_more(
    machine: Machine[Any, Any], states: type[enum.StrEnum], events: type[enum.StrEnum]
) -> None:
    assert {state.name for state in states} == set(EXPECTED[machine.name])
    expected = {
        (states[state], events[event]): states[target]
        for state, row in EXPECTED[machine.name].items()
        for event, target in row.items()
    }
    assert dict(machine.table) == expected


@pytest.mark.parametrize(("machine", "states", "events"), MACHINES, ids=lambda m: str(m)[:20])
def test_every_state_is_reached_and_every_event_used(
    machine: Machine[Any, Any], states: type[enum.StrEnum], events: type[enum.StrEnum]
) -> None:
    first = next(iter(states))
    assert {first, *machine.table.values()} == set(states)
    assert {event for _, event in machine.table} == set(events)


def test_a_machine_is_data_that_nobody_changes() -> None:
    for machine, _, _ in MACHINES:
        with pytest.raises(TypeError):
            machine.table["x", "y"] = "z"  # type: ignore[index]


def test_preinitialized_accepts_init_and_stop_alone_of_coors_commands() -> None:
    assert LOGGER.accepts(LoggerState.PREINITIALIZED) == ["INIT", "STOP", "failure"]


def test_a_live_run_is_one_that_can_still_change() -> None:
    assert {s for s in RunState if RUN.accepts(s)} == RUN_LIVE
