"""Admission: what batches say of their place in the session, and what is made of those that lie."""

from __future__ import annotations

import numpy as np
import pytest

from dlog.core.admission import Admission, SessionState
from dlog.core.batch import Batch
from dlog.core.journal_records import SessionRecord
from dlog.limits import KIB
from dlog.model.events import EVENT_DTYPE
from dlog.model.ids import Sequence, SessionId, StreamName
from dlog.model.messages import Hello

SESSION = SessionId(b"session-A-------")
MEMORY_BYTES = 64 * KIB
MESSAGE_BYTES = 8 * KIB


def batch(sequence: int, position_bytes: int) -> Batch:
    return Batch(
        SESSION, Sequence(sequence), position_bytes, 0, (StreamName("photons"),),
        np.zeros(1, EVENT_DTYPE), np.zeros(0, np.uint8), MESSAGE_BYTES,
    )  # fmt: skip


def hello(lowest: int, position_bytes: int) -> Hello:
    return Hello(
        session=SESSION, name="router-1", host="", process=1, lowest=lowest,
        position_bytes=position_bytes,
    )  # fmt: skip


def state() -> SessionState:
    found = SessionState.of(
        SessionRecord(session=SESSION, name="router-1", acknowledged=9, position_bytes=10**9)
    )
    found.limit = found.settled_bytes + MEMORY_BYTES
    return found


def test_a_source_goes_on_behind_what_was_admitted() -> None:
    session = state()
    session.reopen(hello(10, 10**9))
    assert session.judge(batch(10, 10**9), MEMORY_BYTES)[0] is Admission.ADMIT


@pytest.mark.parametrize("lowest", [1, 9, 10])
def test_a_hello_cannot_set_the_position_back_to_get_a_larger_window(lowest: int) -> None:
    # Each batch was far below its limit, then: a source could fill the logger's memory.
    session = state()
    position = 0
    session.reopen(hello(lowest, position))
    admitted = 0
    for sequence in range(lowest, 100):
        admission, why = session.judge(batch(sequence, position), MEMORY_BYTES)
        if admission is Admission.WINDOW:
            assert "1000000000" in why
            break
        admitted += admission is Admission.ADMIT
        session.admit(batch(sequence, position))
        position += MESSAGE_BYTES
    assert admitted == 0
