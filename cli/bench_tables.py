"""How `dlog bench` looks: progress while it measures, its table, its charts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlog.adapters.charts import Axis, Chart, Line
from dlog.bench.plan import Qualification, Row
from dlog.cli.output import show, table, words
from dlog.quantities import count, rate, size

if TYPE_CHECKING:
    from dlog.cli.output import Progress


class Watcher:
    """The bench's audience. Where there is no terminal for a bar, each measurement is a line."""

    def __init__(self, shown: Progress, *, lines: bool) -> None:
        self._shown = shown
        self._lines = lines

    def begins(self, what: str) -> None:
        self._shown.say(what)

    def measured(self, row: Row) -> None:
        if self._lines:
            words(f"{row.measured.load.name}: {rate(row.measured.rate)}")

    def ended(self) -> None:
        self._shown.advance(1)


def print_table(found: Qualification) -> None:
    machine = found.machine
    show(
        f"{machine.processors} processors, {size(machine.memory_bytes)} memory, "
        f"{machine.filesystem or 'unknown filesystem'}, {machine.kernel}, Python {machine.python}"
    )
    show(
        f"The disk without a logger: {rate(found.disk.rate)} into 4 files, "
        f"{rate(found.disk_alone.rate)} into one"
        f"{'' if machine.direct else ' (buffered: O_DIRECT is refused)'}; a sync takes "
        f"{found.sync.p50:.2f} ms (p99 {found.sync.p99:.2f}), a commit of the journal "
        f"{found.journal.p50:.2f} ms (p99 {found.journal.p99:.2f})"
    )
    if found.pauses.longest_ms:
        show(
            f"The processors without a logger: they stood still for up to "
            f"{found.pauses.longest_ms:.1f} ms at once, {found.pauses.part:.1%} of the time"
        )
    show("")
    full = table(
        "at full speed", "events/s", "stored", "of the disk", "on disk", "logger s/GB", "busy",
        numbers=("events/s", "stored", "of the disk", "on disk", "logger s/GB", "busy"),
    )  # fmt: skip
    for row in found.of_kind("size", "streams", "mixed", "compression"):
        m = row.measured
        full.add_row(
            m.load.name, count(m.events / m.seconds), rate(m.stored_rate), f"{row.of_disk:.2f}",
            f"{m.file_bytes / m.stored_bytes:.2f}", f"{m.cpu_seconds_per_gb:.2f}",
            f"{m.cpu_busy:.0%}",
        )  # fmt: skip
    show(full)
    show(_threads(found))
    show("")
    paced = table(
        "at a rate", "rate", "p50 ms", "p99 ms", "max ms", "logger s/GB", "",
        numbers=("rate", "p50 ms", "p99 ms", "max ms", "logger s/GB"),
    )  # fmt: skip
    for row in found.of_kind("rate", "hold"):
        m = row.measured
        latency = [f"{m.latency_ms.get(name, 0.0):.1f}" for name in ("p50", "p99", "max")]
        paced.add_row(
            m.load.name, rate(m.load.rate), *latency, f"{m.cpu_seconds_per_gb:.2f}",
            "" if m.keeps_up else f"only {rate(m.rate)}",
        )  # fmt: skip
    show(paced)
    show("")
    show(found.verdict.sentence)


def _threads(found: Qualification) -> str:
    """What each kind of thread of the logger takes, of the slowest size of event."""
    slowest = min((row.measured for row in found.of_kind("size")), key=lambda m: m.rate)
    stored_gb = slowest.stored_bytes / 1e9
    parts = sorted(slowest.logger_threads.items(), key=lambda part: -part[1])
    listed = ", ".join(f"{name} {seconds / stored_gb:.2f}" for name, seconds in parts)
    return f"Of the logger's s/GB, with {slowest.load.name}: {listed}"


def charts(found: Qualification) -> list[Chart]:
    """Throughput against the size of events, latency against the rate."""
    sizes = [(row.measured.load.event_bytes, row) for row in found.of_kind("size")]
    rows = [row.measured for row in found.of_kind("rate") if row.measured.latency_ms]
    return [
        Chart(
            "Durable throughput against the size of the events",
            Axis(
                "bytes of an event",
                log=True,
                ticks=[
                    (float(n), row.measured.load.name.removesuffix(" events")) for n, row in sizes
                ],
            ),
            Axis("MB/s"),
            [
                Line("logger, 4 streams", [(n, r.measured.stored_rate / 1e6) for n, r in sizes]),
                Line(
                    "the disk at that time, 4 files without a logger",
                    [(n, row.disk_rate / 1e6) for n, row in sizes],
                    dashed=True,
                ),
            ],
        ),
        Chart(
            "From an event to its durable acknowledgement",
            Axis("MB/s, events of 1 KiB in 4 streams"),
            Axis("ms", log=True),
            [
                Line(name, [(m.load.rate / 1e6, m.latency_ms[name]) for m in rows])
                for name in ("p50", "p99", "max")
            ],
        ),
    ]
