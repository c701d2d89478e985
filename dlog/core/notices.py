"""What an alarm server or a monitor makes of the reports that come: the news in them, per logger.

Decisions only: reports and the time go in, news come out. It receives and prints nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

import msgspec

from dlog.model.messages import AlarmReport, AlarmState, MonitorReport

LOGGERS_MAX: Final = 256
ALARMS_PER_LOGGER_MAX: Final = 1024
REPORTS_MISSED_MAX: Final = 3
# A logger that is busy or a network that hiccups is not silent yet.
GRACE_NS: Final = 1_000_000_000


class NewsKind(enum.StrEnum):
    APPEARED = "appeared"
    RESTARTED = "restarted"  # the same logger, another process
    RAISED = "raised"
    CHANGED = "changed"  # severity or text; a higher count alone is no news
    CLEARED = "cleared"
    SILENT = "silent"  # reports are missing
    BACK = "back"
    ENDED = "ended"  # in order


class News(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to tell. time_ns: when it was reported or, for silence, found (wall clock)."""

    kind: NewsKind
    time_ns: int
    logger: str
    uuid: str
    host: str = ""
    process: int = 0
    alarm: AlarmState | None = None


@dataclass(slots=True)
class LoggerLine:
    """What is known of one logger. heard_ns is monotonic."""

    logger: str
    uuid: str
    host: str
    process: int
    interval_ms: int
    heard_ns: int
    numbers: dict[str, int] = field(default_factory=dict)  # of the last report, by type
    lost: int = 0  # reports that never came, by the gaps in their numbers
    silent: bool = False
    ended: bool = False
    alarms: dict[str, AlarmState] = field(default_factory=dict)
    before: MonitorReport | None = None
    report: MonitorReport | None = None

    def silent_at_ns(self) -> int:
        return self.heard_ns + REPORTS_MISSED_MAX * self.interval_ms * 1_000_000 + GRACE_NS


class Desk:
    """All loggers that reported. The one unheard for longest is forgotten beyond `loggers_max`."""

    def __init__(self, loggers_max: int = LOGGERS_MAX) -> None:
        self._loggers_max = loggers_max
        self._lines: dict[str, LoggerLine] = {}

    def lines(self) -> list[LoggerLine]:
        """By name."""
        return sorted(self._lines.values(), key=lambda line: (line.logger, line.uuid))

    def take(self, report: AlarmReport | MonitorReport, now_ns: int) -> list[News]:
        """The news in a report. A monitor report has those of the logger alone."""
        line, news = self._line_of(report, now_ns)
        if line.silent:
            line.silent = False
            news.append(_news(NewsKind.BACK, line, report.time_ns))
        line.heard_ns = now_ns
        line.interval_ms = max(1, report.interval_ms)
        before = line.numbers.get(report.type, report.number - 1)
        line.lost += max(0, report.number - before - 1)
        line.numbers[report.type] = report.number
        if isinstance(report, AlarmReport):
            news += _alarm_news(line, report)
        else:
            line.before, line.report = line.report, report
        if report.last and not line.ended:
            news.append(_news(NewsKind.ENDED, line, report.time_ns))
        line.ended = report.last
        return news

    def tick(self, now_ns: int, wall_ns: int) -> list[News]:
        """Those that fell silent."""
        news = []
        for line in self._lines.values():
            if not line.silent and not line.ended and now_ns > line.silent_at_ns():
                line.silent = True
                news.append(_news(NewsKind.SILENT, line, wall_ns))
        return news

    def _line_of(
        self, report: AlarmReport | MonitorReport, now_ns: int
    ) -> tuple[LoggerLine, list[News]]:
        line = self._lines.get(report.uuid)
        if line is not None and (line.process, line.host) == (report.process, report.host):
            return line, []
        kind = NewsKind.APPEARED
        if line is not None:
            # What was raised by the process before is not raised by this one until it says so.
            kind = NewsKind.RESTARTED
            line.process, line.host = report.process, report.host
            line.numbers.clear()
            line.logger, line.silent, line.ended = report.logger, False, False
        else:
            if len(self._lines) >= self._loggers_max:
                oldest = min(self._lines.values(), key=lambda each: each.heard_ns)
                del self._lines[oldest.uuid]
            line = self._lines[report.uuid] = LoggerLine(
                report.logger, report.uuid, report.host, report.process, 1000, now_ns
            )
        return line, [_news(kind, line, report.time_ns)]


def _alarm_news(line: LoggerLine, report: AlarmReport) -> list[News]:
    """Raised and cleared, by comparison: a report that was lost does no harm."""
    news = []
    raised = {alarm.name: alarm for alarm in report.raised[:ALARMS_PER_LOGGER_MAX]}
    for name, before in line.alarms.items():
        if name not in raised:
            news.append(_news(NewsKind.CLEARED, line, report.time_ns, before))
    for name, alarm in raised.items():
        known = line.alarms.get(name)
        if known is None:
            news.append(_news(NewsKind.RAISED, line, report.time_ns, alarm))
        elif (known.severity, known.text) != (alarm.severity, alarm.text):
            news.append(_news(NewsKind.CHANGED, line, report.time_ns, alarm))
    for name in report.cleared[:ALARMS_PER_LOGGER_MAX]:
        if name not in line.alarms and name not in raised:
            # Raised and cleared between two reports.
            short = AlarmState(name=name, severity="", text="", since_ns=report.time_ns, count=1)
            news.append(_news(NewsKind.CLEARED, line, report.time_ns, short))
    line.alarms = raised
    return news


def _news(kind: NewsKind, line: LoggerLine, time_ns: int, alarm: AlarmState | None = None) -> News:
    return News(
        kind=kind,
        time_ns=time_ns,
        logger=line.logger,
        uuid=line.uuid,
        host=line.host,
        process=line.process,
        alarm=alarm,
    )
