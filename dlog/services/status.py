"""The status document, from what the services know. It reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from dlog.core.journal_records import CountRecord, FileRecord
from dlog.model.ids import NO_RUN, FileKind, RunNumber, StreamName
from dlog.model.messages import AlarmState
from dlog.model.status import (
    ConnectionStatus,
    Counts,
    FileStatus,
    JournalStatus,
    LatencyStatus,
    LoggerStatus,
    MemoryStatus,
    RunStatus,
    Status,
    StreamStatus,
)
from dlog.ports import Clock
from dlog.services.commander import Commander
from dlog.services.committer import Committer
from dlog.services.stream_thread import StreamWriter


@dataclass(frozen=True, slots=True)
class Facts:
    """What the composition root knows and the services do not."""

    started_ns: int
    pid: int
    host: str
    version: str
    data: list[str]
    addresses: dict[str, str]
    budget_bytes: int


def status_of(
    commander: Commander,
    committer: Committer,
    clock: Clock,
    facts: Facts,
    connections: Sequence[ConnectionStatus],
    alarms: Sequence[AlarmState],
) -> Status:
    """The document of this moment."""
    counts = committer.counts_now()
    record = commander.record
    orphans = [c for (_, run, _), c in counts.items() if run == NO_RUN]
    events = commander.events
    latency = committer.latency()
    return Status(
        time_ns=clock.wall_ns(),
        monotonic_ns=clock.monotonic_ns(),
        logger=LoggerStatus(
            name=commander.name,
            uuid=commander.uuid.hex(),
            boot=commander.boot,
            state=str(record.state),
            since_ns=commander.since_ns,
            started_ns=facts.started_ns,
            pid=facts.pid,
            host=facts.host,
            version=facts.version,
            debug_level=record.init.debug_level if record.init else "",
            data=facts.data,
            addresses={**facts.addresses, "events": record.event_address},
        ),
        runs=[
            RunStatus(
                run=number,
                state=str(run.going_to or run.record.state),
                since_ns=run.since_ns,
                started_ns=run.record.started_ns,
                comment=run.record.comment,
                # In the order of the configuration: that of the writers is another one after a
                # restart.
                streams=[
                    _stream(name, number, counts, run.writers[name])
                    for name in map(StreamName, run.record.streams)
                    if name in run.writers
                ],
            )
            for number, run in sorted(commander.runs.items())
        ],
        orphans=_sum(orphans),
        orphan_files=[_file(r) for r in commander.orphans.file_records()]
        if commander.orphans is not None
        else [],
        connections=list(connections),
        disks=list(commander.disks),
        journal=JournalStatus(
            size_bytes=commander.journal_bytes,
            commits=committer.commits,
            full=committer.full_since_ns is not None,
        ),
        memory=MemoryStatus(
            in_use_bytes=events.memory_in_use() if events is not None else 0,
            budget_bytes=facts.budget_bytes,
        ),
        alarms=list(alarms),
        commands=list(commander.last_commands),
        latency=LatencyStatus(
            samples=len(latency),
            p50_ms=_quantile(latency, 0.5),
            p99_ms=_quantile(latency, 0.99),
            max_ms=_quantile(latency, 1.0),
        ),
    )


def _stream(
    name: StreamName,
    run: RunNumber,
    counts: dict[tuple[str, RunNumber, StreamName], CountRecord],
    writer: StreamWriter,
) -> StreamStatus:
    files = writer.file_records()
    mine = {s: c for (s, r, n), c in counts.items() if r == run and n == name}
    return StreamStatus(
        name=name,
        counts=_with_pending(_sum(list(mine.values())), writer.pending),
        sources={source: _counts(c) for source, c in sorted(mine.items())},
        payload_bytes=sum(c.payload_bytes for c in mine.values()),
        file_bytes=sum(f.durable for f in files),
        files=[_file(f) for f in files],
        failed=writer.stalled or "",
    )


def _with_pending(counts: Counts, pending: int) -> Counts:
    return msgspec.structs.replace(counts, pending=pending, received=counts.received + pending)


def _file(record: FileRecord) -> FileStatus:
    return FileStatus(
        path=record.path,
        kind=FileKind(record.kind).name.lower(),
        state=str(record.state),
        durable_bytes=record.durable,
        reserved_bytes=record.reserved,
        low=record.low,
        high=record.high,
        events=record.totals.events,
        reason=record.reason,
    )


def _counts(c: CountRecord) -> Counts:
    return Counts(
        received=c.received,
        stored=c.stored,
        duplicate=c.duplicate,
        garbage=c.garbage,
        orphan=c.orphan,
        refused=dict(c.refused),
    )


def _sum(all_counts: Sequence[CountRecord]) -> Counts:
    refused: dict[str, int] = {}
    for counts in all_counts:
        for reason, number in counts.refused.items():
            refused[reason] = refused.get(reason, 0) + number
    return Counts(
        received=sum(c.received for c in all_counts),
        stored=sum(c.stored for c in all_counts),
        duplicate=sum(c.duplicate for c in all_counts),
        garbage=sum(c.garbage for c in all_counts),
        orphan=sum(c.orphan for c in all_counts),
        refused=refused,
    )


def _quantile(samples_ns: Sequence[int], share: float) -> float:
    if not samples_ns:
        return 0.0
    ordered = sorted(samples_ns)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6
