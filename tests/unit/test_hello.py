"""HELLO: what a source may say of itself."""

from __future__ import annotations

import pytest

from dlog.core.admission import hello_problem
from dlog.model.messages import Hello

SESSION = b"s" * 16
PEER = b"ccd@host:1/" + SESSION


def hello(**changes: object) -> Hello:
    values: dict[str, object] = {
        "session": SESSION, "name": "ccd@host:1", "host": "host", "process": 1, "lowest": 1,
        "position_bytes": 0, **changes,
    }  # fmt: skip
    return Hello(**values)  # type: ignore[arg-type]


def test_a_hello_that_holds_has_no_problem() -> None:
    assert hello_problem(PEER, hello()) == ""
    assert hello_problem(PEER, hello(lowest=10**15, position_bytes=10**18)) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "two words"},
        {"session": b"short"},
        {"session": b"t" * 16},
        {"lowest": 0},
        {"lowest": -1},
        {"position_bytes": -1},
        {"host": "h" * 256},  # it stands in the session's record, which each commit writes
        {"process": -1},
    ],
)
def test_a_hello_that_does_not_hold_is_told_why(changes: dict[str, object]) -> None:
    assert hello_problem(PEER, hello(**changes))


@pytest.mark.parametrize("changes", [{"lowest": 2**64 - 1}, {"position_bytes": 2**64 - 1}])
def test_numbers_that_would_overflow_what_is_granted_are_refused(
    changes: dict[str, object],
) -> None:
    # A window counted on from there does not fit into a message: encoding it ended the logger.
    assert hello_problem(PEER, hello(**changes))
