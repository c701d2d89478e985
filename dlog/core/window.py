"""The window: how far each session may send, as absolute byte limits. It does no I/O.

The sum of what is granted and not yet settled never exceeds the budget, so the sources' memory and
the logger's are bounded together. What a source was granted and does not use is taken back where
another one waits: else those that came first and have nothing to send would keep the others out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dlog.model.ids import SessionId


@dataclass(frozen=True, slots=True)
class Account:
    """A session's account: bytes since session start. wanted: length of the largest message that it
    waits to send, 0 for unknown. used: the end of what was admitted. settle: how many bytes from
    there on it sent before, for runs that are over."""

    settled: int
    limit: int
    wanted: int = 0
    used: int = 0
    settle: int = 0

    @property
    def outstanding(self) -> int:
        return max(0, self.limit - self.settled)

    def needed(self, share: int, message_bytes_max: int) -> int:
        """What must be outstanding for the message that waits, 0 for none. It stands behind what is
        in memory, which may not be settled for long where a stream is stalled: up to a share."""
        if not self.wanted:
            return 0
        held = max(0, self.used - self.settled)
        if self.wanted <= share:
            return min(held + self.wanted, share)
        return min(held, share) + min(self.wanted, message_bytes_max)


def share_bytes(sessions: int, budget_bytes: int, message_bytes_max: int) -> int:
    """What each session may have outstanding, one large message of one of them left aside: a single
    one leaves room for a second one as well."""
    return (budget_bytes - message_bytes_max) // max(sessions, 2)


def grant(
    accounts: Mapping[SessionId, Account], budget_bytes: int, message_bytes_max: int
) -> dict[SessionId, int]:
    """New limits by session, for those that change; one goes back only by what was not used.

    A session that waits for a message larger than its share gets it when no other has such a grant.
    """
    limits = _grant(accounts, budget_bytes, message_bytes_max)
    after = {s: replace(a, limit=limits.get(s, a.limit)) for s, a in accounts.items()}
    share = share_bytes(len(accounts), budget_bytes, message_bytes_max)
    if not any(a.outstanding < a.needed(share, message_bytes_max) for a in after.values()):
        return limits
    back = _take_back(after, share)
    after = {s: replace(a, limit=back.get(s, a.limit)) for s, a in after.items()}
    limits |= back | _grant(after, budget_bytes, message_bytes_max)
    return {s: limit for s, limit in limits.items() if limit != accounts[s].limit}


def grant_to_settle(
    accounts: Mapping[SessionId, Account], budget_bytes: int
) -> dict[SessionId, int]:
    """New limits while no run is active: for nothing but what was sent before, and lost on its way,
    for runs that are over. It is refused when it comes, and with that settled. What the others were
    granted and do not use makes room for it."""
    asking = {session: account for session, account in accounts.items() if account.settle}
    if not asking:
        return {}
    limits = {
        session: max(account.settled, account.used)
        for session, account in accounts.items()
        if account.limit > max(account.settled, account.used)
    }
    room = budget_bytes - sum(max(0, a.used - a.settled) for a in accounts.values())
    for left, (session, account) in zip(range(len(asking), 0, -1), asking.items(), strict=True):
        part = max(room // left, account.wanted)
        if part <= room:
            more = min(part, account.settle)
            limits[session] = max(account.settled, account.used) + more
            room -= more
    return limits


def _take_back(accounts: Mapping[SessionId, Account], share: int) -> dict[SessionId, int]:
    """Limits of those that have more than a share, and neither use it nor wait for a message that
    needs it."""
    limits = {}
    for session, account in accounts.items():
        limit = max(account.settled + share, account.used)
        if account.wanted <= share and limit < account.limit:
            limits[session] = limit
    return limits


def _grant(
    accounts: Mapping[SessionId, Account], budget_bytes: int, message_bytes_max: int
) -> dict[SessionId, int]:
    share = share_bytes(len(accounts), budget_bytes, message_bytes_max)
    room = budget_bytes - sum(a.outstanding for a in accounts.values())
    limits: dict[SessionId, int] = {}
    large_out = any(a.outstanding > share and a.wanted > share for a in accounts.values())
    for session, account in accounts.items():
        needed = account.needed(share, message_bytes_max)
        if account.wanted > share and (not large_out or account.outstanding > share):
            large_out = True
            more = max(share, needed) - account.outstanding
        else:
            # What a large message would need is left for it, and for who comes when the others have
            # stopped: what is granted may not be settled for long.
            left = 0 if large_out else message_bytes_max
            more = min(share - account.outstanding, room - left)
            if account.used <= account.settled or needed <= share // 4:
                more = max(more, min(share, needed) - account.outstanding)
        more = min(more, room)
        # Small steps would only make messages: half a share, or all that a waiting source needs.
        if more > 0 and (more >= share // 4 or account.outstanding < needed):
            limits[session] = account.settled + account.outstanding + more
            room -= more
    return limits
