"""The window: what is granted never exceeds the memory, and no session starves."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dlog.core.window import Account, grant, grant_to_settle, share_bytes
from dlog.limits import MIB
from dlog.model.ids import SessionId

BUDGET = 64 * MIB
MESSAGE_MAX = BUDGET // 4


def session(number: int) -> SessionId:
    return SessionId(number.to_bytes(16, "big"))


@st.composite
def accounts(draw: st.DrawFn) -> dict[SessionId, Account]:
    """Accounts whose outstanding bytes fit into the budget, as they always do: of sessions that
    send nothing, that have used some or all of their window, that wait for a small message, for one
    larger than a share, for one that no window holds."""
    count = draw(st.integers(1, 8))
    share = share_bytes(count, BUDGET, MESSAGE_MAX)
    part = st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0])
    left = BUDGET
    outstanding = []
    for _ in range(count):
        most = draw(st.sampled_from([share // 2, share, share, share + MESSAGE_MAX]))
        outstanding.append(min(left, int(most * draw(part))))
        left -= outstanding[-1]
    if draw(st.booleans()):
        outstanding[draw(st.integers(0, count - 1))] += left  # all of the budget is granted
    found = {}
    for number, granted_bytes in enumerate(outstanding):
        settled = draw(st.integers(0, 2**40))
        used = int(granted_bytes * draw(part))
        wanted = draw(
            st.sampled_from(
                [0, 1, share // 4, share // 4 + 1, share, share + 1, MESSAGE_MAX, 10**9]
            )
        )
        found[session(number)] = Account(settled, settled + granted_bytes, wanted, settled + used)
    return found


def granted(before: dict[SessionId, Account]) -> dict[SessionId, Account]:
    limits = grant(before, BUDGET, MESSAGE_MAX)
    return {s: replace(a, limit=limits.get(s, a.limit)) for s, a in before.items()}


@given(accounts())
def test_what_is_outstanding_never_exceeds_the_budget(before: dict[SessionId, Account]) -> None:
    after = granted(before)
    assert sum(a.outstanding for a in after.values()) <= BUDGET


@given(accounts())
def test_nobody_is_granted_more_than_a_share_and_a_large_message(
    before: dict[SessionId, Account],
) -> None:
    share = share_bytes(len(before), BUDGET, MESSAGE_MAX)
    for s, after in granted(before).items():
        if after.limit > before[s].limit:
            large = min(after.wanted, MESSAGE_MAX) if after.wanted > share else 0
            assert after.outstanding <= share + large


@given(accounts(), st.sampled_from(["nobody waits", "whoever waits has its share", "as they are"]))
def test_a_limit_goes_back_only_where_one_waits_and_another_has_more_than_it_uses(
    before: dict[SessionId, Account], how: str
) -> None:
    share = share_bytes(len(before), BUDGET, MESSAGE_MAX)
    if how == "nobody waits":
        before = {s: replace(a, wanted=0) for s, a in before.items()}
    elif how == "whoever waits has its share":
        before = {
            s: replace(a, wanted=min(a.wanted, share) if a.outstanding >= share else 0)
            for s, a in before.items()
        }
    for s, limit in grant(before, BUDGET, MESSAGE_MAX).items():
        if limit < before[s].limit:
            assert how == "as they are"
            assert limit >= before[s].settled + share
            assert limit >= before[s].used
            assert before[s].wanted <= share


@pytest.mark.parametrize("idle", [3, 6, 12, 255])
def test_idle_sources_do_not_keep_another_out(idle: int) -> None:
    """They came first, one by one, and were granted what there was; they have nothing to send."""
    now: dict[SessionId, Account] = {}
    for number in range(idle):
        now[session(number)] = Account(0, 0)
        now = granted(now)
    now[session(idle)] = Account(0, 0, wanted=MIB)
    assert granted(now)[session(idle)].outstanding >= MIB


def test_a_message_that_waits_gets_its_window_behind_what_is_not_settled() -> None:
    """A batch of a stalled stream is in memory, perhaps for ever; the next one is for another."""
    before = {session(i): Account(0, 0) for i in range(4)}
    held = Account(500_000, 601_000, wanted=101_000, used=500_200)
    full = {**{s: Account(0, BUDGET // 4 - 200_000) for s in before}, session(9): held}
    assert granted(full)[session(9)].limit >= held.used + held.wanted


def test_a_stalled_stream_holds_no_more_than_a_share() -> None:
    share = share_bytes(2, BUDGET, MESSAGE_MAX)
    stalled = Account(0, share, wanted=MIB, used=share)
    assert grant({session(0): stalled}, BUDGET, MESSAGE_MAX) == {}


@pytest.mark.parametrize("stopped", [1, 2, 4, 6])
def test_sources_that_a_stalled_stream_stopped_leave_room_for_another(stopped: int) -> None:
    """They came one by one, and all that each was granted is in memory, perhaps for ever."""
    now: dict[SessionId, Account] = {}
    for number in range(stopped):
        now[session(number)] = Account(0, 0, wanted=MIB)
        for _ in range(20):
            now = granted(now)
            now = {s: replace(a, used=a.limit) for s, a in now.items()}
    now[session(stopped)] = Account(0, 0, wanted=MIB)
    assert granted(now)[session(stopped)].outstanding >= MIB


def test_a_large_message_behind_one_that_is_not_settled_gets_its_window() -> None:
    stalled = Account(0, 0, wanted=MESSAGE_MAX, used=500)
    limits = grant({session(i): stalled for i in range(4)}, BUDGET, MESSAGE_MAX)
    assert max(limits.values()) == MESSAGE_MAX + 500


@given(accounts(), st.integers(0, 11))
def test_a_limit_below_what_is_settled_counts_as_nothing_outstanding(
    before: dict[SessionId, Account], which: int
) -> None:
    """A session that was resumed: more is settled than was ever granted to it in this boot."""
    chosen = session(which % len(before))
    before[chosen] = Account(before[chosen].settled + 10 * MIB, 0, 0)
    after = granted(before)
    assert sum(a.outstanding for a in after.values()) <= BUDGET


@given(
    st.lists(st.tuples(st.integers(1, MESSAGE_MAX), st.booleans()), min_size=1, max_size=12),
    st.booleans(),
)
def test_no_session_starves(waiting: list[tuple[int, bool]], small: bool) -> None:
    """Whoever waits for a message gets its window, once what others have had is settled; beside
    stalled ones, whose messages never are, if these are no larger than a share."""
    share = share_bytes(len(waiting), BUDGET, MESSAGE_MAX)
    stalled = {session(i) for i, (_, never) in enumerate(waiting) if never}
    now = {
        session(i): Account(0, 0, 1 + wanted % share if never or small else wanted)
        for i, (wanted, never) in enumerate(waiting)
    }
    sent: set[SessionId] = set()
    for _ in range(4 * len(waiting) + 4):
        now = granted(now)
        for s, account in now.items():
            if account.wanted and account.limit - account.used >= account.wanted:
                sent.add(s)
                used = account.used + account.wanted
                # The others want nothing more: all that they were granted is settled.
                over = Account(account.limit, account.limit, 0, account.limit)
                now[s] = replace(account, used=used) if s in stalled else over
    assert sent >= set(now) - stalled


@given(st.integers(1, 256))
def test_shares_leave_room_for_one_large_message(sessions: int) -> None:
    share = share_bytes(sessions, BUDGET, MESSAGE_MAX)
    assert sessions * share + MESSAGE_MAX <= BUDGET


def test_small_steps_are_not_granted() -> None:
    share = share_bytes(1, BUDGET, MESSAGE_MAX)
    nearly = Account(1000, 1000 + share - 100)
    assert grant({session(0): nearly}, BUDGET, MESSAGE_MAX) == {}


@pytest.mark.parametrize("others", [3, 11])
def test_only_one_session_at_a_time_gets_more_than_its_share(others: int) -> None:
    before = {session(i): Account(0, 0, MESSAGE_MAX) for i in range(others + 1)}
    share = share_bytes(len(before), BUDGET, MESSAGE_MAX)
    after = granted(before)
    assert sum(a.outstanding > share for a in after.values()) == 1


@given(accounts(), st.data())
def test_while_no_run_is_active_only_what_is_to_be_settled_is_granted(
    before: dict[SessionId, Account], data: st.DataObject
) -> None:
    """One message at least, where there is room for it beside what is in memory."""
    for key, account in before.items():
        used = account.settled + data.draw(st.integers(0, account.outstanding))
        wanted = min(account.wanted, MESSAGE_MAX)
        settle = wanted and data.draw(st.integers(wanted, 4 * BUDGET))
        before[key] = replace(account, used=used, wanted=wanted, settle=settle)
    limits = grant_to_settle(before, BUDGET)
    after = {s: replace(a, limit=limits.get(s, a.limit)) for s, a in before.items()}
    assert sum(a.outstanding for a in after.values()) <= BUDGET
    room = BUDGET - sum(a.used - a.settled for a in before.values())
    asking = [a for a in before.values() if a.settle]
    for key, account in after.items():
        if not account.settle:
            assert account.limit <= before[key].limit
    if asking and min(a.wanted for a in asking) <= room:
        assert any(a.settle and a.limit >= a.used + a.wanted for a in after.values())
    if not asking:
        assert limits == {}
