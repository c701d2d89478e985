"""The one judgement of what stands in the files: each event that was sent, how often, and whose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from tests.rig.processes import LoggerProcess
from tests.rig.sources import Found, Numbers, SourceThread
from tests.waiting import LONG

_NONE = np.empty(0, np.uint64)


def assert_exactly_once(
    data: Path | Iterable[Path], *senders: SourceThread
) -> Counter[tuple[str, int, str]]:
    """Each event that was sent stands once in each of its streams, and no other event does. The
    (event, stream) pieces by (source, run, stream)."""
    meant = _meant(senders)
    problems = list(_problems(_found(data, senders), meant, complete=True))
    assert not problems, "\n".join(problems)
    pieces: Counter[tuple[str, int, str]] = Counter()
    for ((source, run, _), stream), numbers in meant.items():
        pieces[source, run, stream] += len(numbers)
    return pieces


def assert_acknowledged_once(data: Path | Iterable[Path], *senders: SourceThread) -> None:
    """Where the end of a run may have refused some: each event that was sent stands once or not at
    all, as many pieces stand as are acknowledged, and all others are counted as refused."""
    found = _found(data, senders)
    problems = list(_problems(found, _meant(senders), complete=False))
    assert not problems, "\n".join(problems)
    for sender in senders:
        report = sender.source.report()
        stood = sum(len(n) for (key, _), n in found.items() if key[0] == sender.source_name)
        assert stood == report.acknowledged, report
        assert report.sent == stood + sum(report.refused.values()), report
        assert report.pending == 0, report


def finish(
    logger: LoggerProcess, *senders: SourceThread, counted: bool = True
) -> Counter[tuple[str, int, str]]:
    """Everything is acknowledged, the runs that are active are stopped, and the logger too; then
    each event stands exactly once, all accounts agree, and the data verify.

    counted: whether the journal has counted all of them; one that was rebuilt has not."""
    for sender in senders:
        sender.halt()
        sender.source.flush(LONG)
    runs = sorted({run for sender in senders for _, run, _ in sender.expected()})
    logger.stop_run(*(run.run for run in logger.status().runs))
    reports = [sender.finish() for sender in senders]
    logger.stop()
    pieces = assert_exactly_once(logger.directories, *senders)
    assert [report.pending for report in reports] == [0] * len(reports)
    assert sum(report.acknowledged for report in reports) == pieces.total()
    for run in runs if counted else ():
        _assert_accounts(logger, run, {(s, t): n for (s, r, t), n in pieces.items() if r == run})
    logger.assert_verified()
    return pieces


def _assert_accounts(logger: LoggerProcess, run: int, sent: dict[tuple[str, str], int]) -> None:
    """received = stored + duplicate + garbage, by source and stream, and nothing else."""
    counts = logger.counts(run)
    settled = {key: count.stored + count.garbage for key, count in counts.items() if count.received}
    assert settled == sent
    for key, count in counts.items():
        assert (count.orphan, count.refused) == (0, {}), key
    late = sum(count.garbage for count in counts.values())
    double = sum(count.duplicate for count in counts.values())
    print(f"run {run}: {sum(sent.values())} pieces, {late} of them late, {double} came twice")


def _found(data: Path | Iterable[Path], senders: Iterable[SourceThread]) -> Found:
    """What stands in the files of the runs that the senders sent to."""
    directories = [data] if isinstance(data, Path) else list(data)
    runs = sorted({run for sender in senders for _, run, _ in sender.expected()})
    (kind,) = {type(sender) for sender in senders}
    return kind.readable(directories, runs)


def _meant(senders: Iterable[SourceThread]) -> Found:
    """What should stand there."""
    return {
        (key, stream): numbers
        for sender in senders
        for key, numbers in sender.expected().items()
        for stream in key[2].split("+")
        if len(numbers)
    }


def _problems(found: Found, meant: Found, *, complete: bool) -> Iterator[str]:
    for where in sorted({*found, *meant}):
        have, times = np.unique(found.get(where, _NONE), return_counts=True)
        should = meant.get(where, _NONE)
        if complete:
            yield from _told(where, "missing", np.setdiff1d(should, have))
        yield from _told(where, "never sent", np.setdiff1d(have, should))
        yield from _told(where, "more than once", have[times > 1])


def _told(where: object, what: str, numbers: Numbers) -> Iterator[str]:
    if len(numbers):
        more = ", ..." if len(numbers) > 5 else ""
        yield f"{where}: {len(numbers)} {what}: {', '.join(map(str, numbers[:5]))}{more}"
