"""The window: how far each session may send, as absolute byte limits. It does no I/O.

The sum of what is granted and not yet settled never exceeds the budget, so the sources' memory and
the logger's are bounded together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dlog.limits import MIB
from dlog.model.ids import SessionId


@dataclass(frozen=True, slots=True)
class Account:
    """A session's account: bytes since session start. wanted: length of the largest message that it
    waits to send, 0 for unknown."""

    settled: int
    limit: int
    wanted: int = 0

    @property
    def outstanding(self) -> int:
        return max(0, self.limit - self.settled)


def share_bytes(sessions: int, budget_bytes: int, message_bytes_max: int) -> int:
    """What each session may have outstanding, one large message of one of them left aside."""
    return max(2 * MIB, (budget_bytes - message_bytes_max) // max(sessions, 4))


def grant(
    accounts: Mapping[SessionId, Account], budget_bytes: int, message_bytes_max: int
) -> dict[SessionId, int]:
    """New limits by session, for those that change; a limit never goes back.

    A session that waits for a message larger than its share gets it when no other has such a grant.
    """
    share = share_bytes(len(accounts), budget_bytes, message_bytes_max)
    room = budget_bytes - sum(a.outstanding for a in accounts.values())
    limits: dict[SessionId, int] = {}
    large_out = any(a.outstanding > share for a in accounts.values())
    for session, account in accounts.items():
        target = share
        if account.wanted > share and (not large_out or account.outstanding > share):
            target = max(share, min(account.wanted, message_bytes_max))
            large_out = True
        more = min(target - account.outstanding, room)
        # Small steps would only make messages: half a share, or all that a waiting source needs.
        if more > 0 and (more >= share // 4 or account.outstanding < account.wanted):
            limits[session] = account.settled + account.outstanding + more
            room -= more
    return limits
