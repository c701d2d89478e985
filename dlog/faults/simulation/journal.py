"""A journal in memory with the promises of the real one; it trusts LMDB to keep its own.

What a commit that returned has changed survives every crash. One that the program died in, or that
failed, has happened wholly or not at all: the seed says which. One that failed may also be in the
page cache alone: it is read, and a power cut takes it back, unless the next start has copied it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Final

from dlog.adapters.journal_files import BALLAST_BYTES_DEFAULT
from dlog.errors import InvariantBroken, JournalFailed, JournalFull, JournalGone, JournalUnreadable
from dlog.faults.simulation.steps import FaultKind, Operation, StorageSteps
from dlog.limits import JOURNAL_VALUE_BYTES_MAX
from dlog.ports import Change

KEY_BYTES_MAX: Final = 511
_PAIR_BYTES: Final = 16  # about what LMDB spends on a pair beside its bytes


class JournalStore:
    """What survives the program: the pairs, and how much space they may take. gone: somebody moved
    it away."""

    def __init__(
        self, *, capacity_bytes: int = 1 << 40, ballast_bytes: int = BALLAST_BYTES_DEFAULT
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.ballast_bytes = ballast_bytes
        self.gone = False
        self.used_bytes = 0
        self.pairs: dict[bytes, bytes] = {}
        self.keys: list[bytes] = []
        self._on_disk: dict[bytes, bytes | None] = {}  # where that is not what is read

    def apply(self, changes: Sequence[Change]) -> None:
        """A commit that is durable."""
        for key, _ in changes:
            self._on_disk.pop(key, None)
        self._apply(changes)

    def apply_in_cache(self, changes: Sequence[Change]) -> None:
        """One that is only read, until it is copied or the power is cut."""
        for key, _ in changes:
            self._on_disk.setdefault(key, self.pairs.get(key))
        self._apply(changes)

    def copy(self) -> None:
        """Everything that is read is written to a new file, and that is synced."""
        self._on_disk.clear()

    def lose_power(self) -> None:
        on_disk, self._on_disk = self._on_disk, {}
        self._apply(list(on_disk.items()))

    def _apply(self, changes: Sequence[Change]) -> None:
        for key, value in changes:
            old = self.pairs.pop(key, None)
            if old is not None:
                self.used_bytes -= _taken(key, old)
                del self.keys[bisect_left(self.keys, key)]
            if value is not None:
                self.used_bytes += _taken(key, value)
                self.pairs[key] = bytes(value)
                insort(self.keys, key)

    def used_bytes_after(self, changes: Sequence[Change]) -> int:
        used_bytes = self.used_bytes
        now: dict[bytes, bytes | None] = {}
        for key, value in changes:
            old = now[key] if key in now else self.pairs.get(key)
            used_bytes -= 0 if old is None else _taken(key, old)
            used_bytes += 0 if value is None else _taken(key, value)
            now[key] = value
        return used_bytes


class SimulatedJournal:
    """`ports.Journal` for one life of the program; a later life opens the same store."""

    def __init__(self, steps: StorageSteps, store: JournalStore | None = None) -> None:
        self.store = store or JournalStore()
        self._steps = steps
        self._life = steps.life
        self._failed = False
        self._closed = False
        if self.store.gone:
            raise JournalUnreadable("journal: there is none")
        self._copy_after_failure()

    def _copy_after_failure(self) -> None:
        """The journal before may have failed; this is a new program."""
        self.store.copy()

    def commit(self, changes: Sequence[Change], *, use_ballast: bool = False) -> None:
        self._refuse_if_unusable()
        _check(changes)
        self._refuse_if_gone()
        with self._steps.step(Operation.COMMIT, "journal") as step:
            if step.fault in (FaultKind.NO_SPACE, FaultKind.SHORT_WRITE) and not use_ballast:
                raise JournalFull("journal: No space left on device")
            self._refuse_if_full(changes, use_ballast=use_ballast)
            unknown = step.dies_inside or step.fault is FaultKind.EIO
            if not unknown or self._steps.random.random() < 0.5:
                self.store.apply(changes)
            elif step.fault is FaultKind.EIO and self._steps.random.random() < 0.5:
                self.store.apply_in_cache(changes)
            if step.fault is FaultKind.EIO:
                self._failed = True
                raise JournalFailed("journal: Input/output error")

    def get(self, key: bytes) -> bytes | None:
        self._refuse_if_unusable()
        return self.store.pairs.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._refuse_if_unusable()
        first = bisect_left(self.store.keys, prefix)
        pairs = []
        for key in self.store.keys[first:]:
            if not key.startswith(prefix):
                break
            pairs.append((key, self.store.pairs[key]))
        for pair in pairs:
            self._refuse_if_unusable()
            yield pair

    def size_bytes(self) -> int:
        self._refuse_if_unusable()
        return self.store.used_bytes

    def check_place(self) -> str:
        self._refuse_if_unusable()
        self._refuse_if_gone()
        return ""

    def _refuse_if_gone(self) -> None:
        if self.store.gone:
            self._failed = True
            raise JournalGone("journal: was moved")

    def close(self) -> None:
        self._closed = True

    def _refuse_if_full(self, changes: Sequence[Change], *, use_ballast: bool) -> None:
        room = self.store.capacity_bytes + (self.store.ballast_bytes if use_ballast else 0)
        # Above its capacity a commit may still change, as long as it takes no more than before.
        if self.store.used_bytes_after(changes) > max(room, self.store.used_bytes):
            raise JournalFull(f"journal: no space for a commit of {len(changes)} changes")

    def _refuse_if_unusable(self) -> None:
        self._steps.refuse_if_dead(self._life)
        if self._failed:
            raise JournalFailed("journal: a commit failed before")
        if self._closed:
            raise InvariantBroken("journal: closed")


def _taken(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + _PAIR_BYTES


def _check(changes: Sequence[Change]) -> None:
    for key, value in changes:
        if not 0 < len(key) <= KEY_BYTES_MAX:
            raise InvariantBroken(f"a journal key of {len(key)} bytes; 1 to {KEY_BYTES_MAX} can be")
        if value is not None and len(value) > JOURNAL_VALUE_BYTES_MAX:
            raise InvariantBroken(
                f"a journal value of {len(value)} bytes; {JOURNAL_VALUE_BYTES_MAX} can be"
            )
