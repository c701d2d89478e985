"""Says what must hold of a real logger's data directory, and does not (contract 1 to 7).

It reads what survives, and changes nothing. What was sent it has from the ledger, what was
acknowledged from the sources' own accounts.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import dlog
from dlog.adapters.journal import LmdbJournal
from dlog.core import journal_records as records
from dlog.errors import DlogError
from dlog.faults.ledger import Ledger, Piece
from dlog.model.ids import FileKind
from dlog.recovery.facts import DataDirectory
from dlog.recovery.report import Verdict, finding_line
from dlog.recovery.verify import Plan, plan, verify
from dlog.source import Report

_FOLDERS: Final = ("runs", "orphans", "quarantine")


def after_death(data: Path, ledger: Ledger, reports: Sequence[Report]) -> list[str]:
    """With the logger dead, before any recovery: everything acknowledged is there, everything that
    is there was sent, and nothing stands twice."""
    try:
        found = _readable(data)
    except DlogError as error:
        return [f"after a crash a file cannot be read: {error}"]
    problems = _strange(found, ledger)
    sent = ledger.sent()
    there = Counter((sent[piece], piece.stream) for piece, _ in found if piece in sent)
    for report in reports:
        for stream, account in report.streams.items():
            if there[report.name, stream] < account.acknowledged:
                problems.append(
                    f"ACKNOWLEDGED AND LOST: {account.acknowledged} of {report.name} for {stream} "
                    f"were acknowledged, {there[report.name, stream]} are there"
                )
    return problems


def at_the_end(data: Path, ledger: Ledger, reports: Sequence[Report]) -> list[str]:
    """After STOP: every event that was sent stands exactly once, and all accounts agree."""
    try:
        found = _readable(data)
    except DlogError as error:
        return [f"at the end a file cannot be read: {error}"]
    problems = _strange(found, ledger)
    there = {piece for piece, _ in found}
    problems += [f"ACKNOWLEDGED AND LOST: {piece}" for piece in ledger.sent() if piece not in there]
    for report in reports:
        if report.pending or report.refused or report.sent != report.acknowledged:
            problems.append(
                f"{report.name}: {report.sent} sent, {report.acknowledged} acknowledged, "
                f"{report.pending} pending, refused {report.refused}"
            )
    made = plan([data])
    known = made.tasks[0].data if made.tasks else None
    return problems + _verified(made) + _accounts(known, found, ledger)


def left_over(data: Path) -> list[str]:
    """What a logger that was stopped should have finished."""
    return [
        key.decode()
        for key in recovered_state(data)
        if key.startswith((records.FILES, records.RUNS, records.OPERATIONS))
    ]


def recovered_state(data: Path) -> dict[bytes, object]:
    """All files and all of the journal, but for how often the logger was started: what a second
    recovery must leave as the first one did."""
    state: dict[bytes, object] = {}
    for path in _files(data):
        content = path.read_bytes()
        name = str(path.relative_to(data)).encode()
        state[b"disk " + name] = (path.stat().st_mode, len(content), zlib.crc32(content))
    with closing(LmdbJournal.open_read_only(data / "journal", live_prefixes=())) as journal:
        state |= {key: value for key, value in journal.scan(b"") if key != records.BOOT}
    return state


def differences(first: dict[bytes, object], second: dict[bytes, object]) -> list[str]:
    """Of two recoveries."""
    return [
        f"recovery twice is not recovery once: {key.decode(errors='replace')}"
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    ]


# --- what is there -------------------------------------------------------------------------------


def _files(data: Path) -> Iterator[Path]:
    for folder in _FOLDERS:
        yield from sorted(path for path in (data / folder).rglob("*") if path.is_file())


def _readable(data: Path) -> list[tuple[Piece, FileKind]]:
    """All events of all files, read without the journal."""
    found = []
    for folder in [*sorted((data / "runs").glob("*")), data / "orphans"]:
        if not any(folder.glob("*.dlog*")):
            continue
        for event in dlog.read(folder):
            piece = Piece(
                int(event.run), str(event.stream), int(event.number), bytes(event.payload)
            )
            found.append((piece, event.kind))
    return found


def _strange(found: list[tuple[Piece, FileKind]], ledger: Ledger) -> list[str]:
    sent = ledger.sent()
    times = Counter(piece for piece, _ in found)
    problems = [f"never sent, and there: {piece}" for piece in times if piece not in sent]
    problems += [f"there {n} times: {piece}" for piece, n in times.items() if n > 1]
    return problems


def _verified(made: Plan) -> list[str]:
    problems = []
    for report in verify(made, workers=1):
        if report.verdict is not Verdict.GOOD:
            words = "; ".join(finding_line(finding) for finding in report.findings)
            problems.append(f"verify: {report.path}: {words}")
    return problems


def _accounts(
    data: DataDirectory | None, found: list[tuple[Piece, FileKind]], ledger: Ledger
) -> list[str]:
    """What is counted as stored and as garbage is what the files hold."""
    snapshot = data.snapshot if data is not None else None
    if snapshot is None:
        return ["the journal cannot be read at the end"]
    sent = ledger.sent()
    there = Counter(
        (sent[piece], piece.run, piece.stream, kind) for piece, kind in found if piece in sent
    )
    problems = []
    for run, ended in snapshot.ended.items():
        for source, stream, count in ended.counts:
            for kind, told in ((FileKind.EVENTS, count.stored), (FileKind.GARBAGE, count.garbage)):
                stand = there.pop((source, int(run), stream, kind), 0)
                if stand != told:
                    problems.append(
                        f"run {run} {source} {stream}: {told} counted as {kind.name.lower()}, "
                        f"{stand} are there"
                    )
    problems += [f"not counted: {key}" for key in there if key[3] is not FileKind.ORPHAN]
    return problems
