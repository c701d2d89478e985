"""The replay behind `dlog send`: reads events, sends them with a session that outlives the process,
and saves how far it is. It prints nothing."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from dlog.core.packer import Packing
from dlog.core.source_counts import STREAM_UNKNOWN
from dlog.errors import (
    EventsDiverted,
    EventsRefused,
    NotAcknowledged,
    RunEnded,
    SourceError,
    SourceRefused,
    StreamUnknown,
    WindowFull,
)
from dlog.inputs import InputEvent, Torn
from dlog.limits import MIB
from dlog.model.ids import StreamName
from dlog.replay.saved_state import ACKNOWLEDGED, DONE, SendRefused, SendState, StateFile
from dlog.source import Report, Source

_SAVE_SECONDS: Final = 0.5
_ANSWER_SECONDS: Final = 10.0
_UNLISTED_SECONDS: Final = 2.0
_GOODBYE_SECONDS: Final = 5.0
# With --rate, the events of so many seconds are sent together.
_SPAN_SECONDS: Final = 0.1
# Version of the packing: other values would make other batches of the same events.
_BATCH_BYTES: Final = MIB
_OPEN_BYTES: Final = 16 * MIB

Item = tuple[StreamName, InputEvent] | Torn


def packing_of(rate: float) -> Packing:
    """Without linger: the same file gives the same batches again."""
    span = max(1, round(rate * _SPAN_SECONDS)) if rate else 0
    return Packing(
        batch_bytes=_BATCH_BYTES, open_bytes=_OPEN_BYTES, linger_ns=None, span_events=span
    )


@dataclass(slots=True)
class Outcome:
    """How a replay went. events: that were read, control records too. not_sent: pieces that never
    left, because the run was over. refused: pieces, by reason. acknowledged = stored + garbage +
    orphan; diverted: these last two, by stream and reason. run_streams: those that the run has,
    where something went to one that it has not."""

    events: int = 0
    payload_bytes: int = 0
    acknowledged: int = 0
    stored: int = 0
    garbage: int = 0
    orphan: int = 0
    not_sent: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)
    torn: list[dict[str, Any]] = field(default_factory=list)
    resumed: bool = False
    seconds: float = 0.0
    reconnects: int = 0
    diverted: list[dict[str, Any]] = field(default_factory=list)
    run_streams: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Every event is stored, and where it was sent to."""
        return not (self.not_sent or self.refused or self.diverted)

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Replay:
    """One `dlog send`, from its state file to the goodbye. `tell` gets what is waited for, in
    words, and "" when it goes on; `advance` the bytes as they are taken."""

    def __init__(
        self,
        address: str,
        file: StateFile,
        state: SendState,
        *,
        rate: float,
        first_number: int,
        wait: bool,
        timeout: float | None,
        advance: Callable[[float], None],
        tell: Callable[[str], None],
    ) -> None:
        self._address = address
        self._file = file
        self._state = state
        self._rate = rate
        self._first_number = first_number
        self._wait = wait
        self._timeout = timeout
        self._advance = advance
        self._tell = tell
        self._sha256 = hashlib.sha256()
        self._given = 0
        self._resumed_at = (state.events, state.sha256)
        self._refused_before = {stream: dict(reasons) for stream, reasons in state.refused.items()}
        self._saved_at = time.monotonic()
        self._moved_at = time.monotonic()
        self._moved = (0, 0)
        self._began_at = time.monotonic()
        self._listed_at = time.monotonic()
        self._pace_from: tuple[float, int] | None = None
        self._over = False
        self._checked: set[StreamName] = set()
        self._outcome = Outcome(resumed=state.acknowledged > 0)

    def run(self, items: Iterator[Item]) -> Outcome:
        """Send all of it. Raises `SendRefused` or the source's errors; the state is saved then, and
        the same command goes on."""
        source = self._source(finished=False)
        try:
            self._send_all(source, items)
            self._finish(source)
        except StreamUnknown:
            if self._given == 0 and not source.acknowledged:
                self._forget(source)
            else:
                self._leave(source)
            raise
        except BaseException:
            self._leave(source)
            raise
        self._outcome.seconds = time.monotonic() - self._began_at
        return self._outcome

    def say_goodbye(self) -> None:
        """Of a replay that was acknowledged to its end by a process that was killed then: close its
        session. Where that fails the session is closed already, or expires by itself."""
        source = self._source(finished=True)
        with contextlib.suppress(SourceRefused, NotAcknowledged):
            source.close(_GOODBYE_SECONDS)
        self._state.phase = DONE
        self._file.save(self._state)

    def _source(self, *, finished: bool) -> Source:
        state = self._state
        return Source.replay(
            self._address,
            name=state.name,
            run=state.run,
            session=bytes.fromhex(state.session),
            progress=state.progress,
            packing=packing_of(self._rate),
            finished=finished,
        )

    # --- sending ----------------------------------------------------------------------------------

    def _send_all(self, source: Source, items: Iterator[Item]) -> None:
        for item in items:
            if isinstance(item, Torn):
                self._torn(item)
                continue
            stream, event = item
            self._send(source, stream, event)
            self._sha256.update(event.payload)
            self._given += 1
            self._check_content()
            self._outcome.payload_bytes += event.size_bytes
            self._advance(event.size_bytes)
            if time.monotonic() - self._saved_at >= _SAVE_SECONDS:
                self._look(source)
        self._outcome.events = self._given

    def _send(self, source: Source, stream: StreamName, event: InputEvent) -> None:
        if self._over:
            return
        if stream not in self._checked and not source.repeating:
            self._check_stream(source, stream)
        if self._rate:
            self._keep_pace(source)
        while True:
            try:
                source.send(
                    stream,
                    event.payload,
                    number=self._first_number + self._given,
                    # A format that knows no time gives none: it must be the same the next time.
                    time_ns=event.time_ns or 0,
                    timeout=_SAVE_SECONDS,
                )
            except WindowFull:
                self._look(source)
            except RunEnded:
                # The rest is read all the same, to say how much it is.
                self._over = True
                return
            else:
                return

    def _check_stream(self, source: Source, stream: StreamName) -> None:
        """Raises `StreamUnknown` where the logger says that the run does not have it: before an
        event of it is sent, which would go to the orphan file."""
        run = self._state.run
        try:
            while not source.wait_for_run(run, _SAVE_SECONDS):
                self._look(source)
        except RunEnded:
            return  # and so says the source at the event
        there = source.streams_of(run)
        if there and stream not in there and not source.repeating:
            raise StreamUnknown(stream, run, there)
        self._checked.add(stream)

    def _keep_pace(self, source: Source) -> None:
        """Wait until the next event is due; what an earlier process sent is given again at once."""
        if self._pace_from is None:
            if source.repeating:
                return
            self._pace_from = (time.monotonic(), self._given)
        begin, first = self._pace_from
        while (left := begin + (self._given - first) / self._rate - time.monotonic()) > 0:
            time.sleep(min(left, _SAVE_SECONDS))
            self._look(source)

    def _torn(self, torn: Torn) -> None:
        self._outcome.torn.append(
            {
                "offset_bytes": torn.offset_bytes,
                "size_bytes": torn.size_bytes,
                "declared_bytes": torn.declared_bytes,
                "reason": torn.reason,
            }
        )

    def _check_content(self) -> None:
        events, sha256 = self._resumed_at
        if self._given == events and sha256 and self._sha256.hexdigest() != sha256:
            raise SendRefused(
                f"the content of the first {events} events is not what was sent before: "
                "--restart begins a new session"
            )

    # --- how it stands ----------------------------------------------------------------------------

    def _look(self, source: Source) -> None:
        """Save how far it is, and see whether anything moves."""
        report = self._save(source)
        self._check_run(source, report)
        moved = (report.acknowledged, self._given)
        if moved != self._moved:
            self._moved, self._moved_at = moved, time.monotonic()
        self._tell(report.waiting)
        waited = time.monotonic() - self._moved_at
        if self._timeout is not None and waited >= self._timeout:
            raise SendRefused(
                f"nothing was acknowledged for {waited:.0f} s"
                f" ({report.waiting or 'no reason known'}); the same command goes on"
            )

    def _save(self, source: Source) -> Report:
        self._saved_at = time.monotonic()
        report, progress = source.report_and_progress()
        state = self._state
        if report.logger_uuid and state.logger_uuid not in ("", report.logger_uuid):
            raise SendRefused(
                f"{report.logger or 'the logger'} at {self._address} is another one than this "
                "replay was begun with: --restart begins a new session"
            )
        if progress == state.progress and report.logger_uuid == state.logger_uuid:
            return report
        state.logger_uuid = report.logger_uuid or state.logger_uuid
        state.acknowledged = progress.acknowledged
        state.position_bytes = progress.position_bytes
        state.refusals_seen = progress.refusals_seen
        state.refused = self._refused(report)
        # While the beginning is given again, the longer record of an earlier process stands.
        if self._given > state.events:
            state.events, state.sha256 = self._given, self._sha256.hexdigest()
        self._file.save(state)
        source.progress_saved(progress)
        return report

    def _refused(self, report: Report) -> dict[str, dict[str, int]]:
        """By stream and reason, with those that an earlier process was told."""
        refused = {stream: dict(reasons) for stream, reasons in self._refused_before.items()}
        for stream, counts in report.streams.items():
            for reason, pieces in counts.refused.items():
                reasons = refused.setdefault(stream, {})
                reasons[reason] = reasons.get(reason, 0) + pieces
        return refused

    def _check_run(self, source: Source, report: Report) -> None:
        """A logger that does not answer and a run that is not active are waited for only if that
        was asked for."""
        now = time.monotonic()
        state = source.run_state(self._state.run)
        if state != "" or source.repeating:
            self._listed_at = now
        if self._wait:
            return
        if not report.logger_uuid and now - self._began_at >= _ANSWER_SECONDS:
            raise SendRefused(
                f"no logger answers at {self._address} ({report.waiting}); --wait waits for it"
            )
        # Not at once: a logger that was started again goes on with its runs one by one.
        if now - self._listed_at >= _UNLISTED_SECONDS:
            active = ", ".join(str(run) for run in report.active) or "none"
            raise SendRefused(
                f"run {self._state.run} is not active (active: {active}); --wait waits for it"
            )

    # --- the end ----------------------------------------------------------------------------------

    def _finish(self, source: Source) -> None:
        """Wait for the acknowledgements, make them durable, say goodbye."""
        while not self._flushed(source):
            self._look(source)
        report = self._save(source)
        self._account(report)
        self._account_for_diverted(source, report)
        if self._outcome.not_sent:
            source.abandon()
            return
        self._state.phase = ACKNOWLEDGED
        self._state.summary = self._outcome.summary()
        self._file.save(self._state)
        with contextlib.suppress(EventsRefused, EventsDiverted):  # they are accounted for
            source.close(_GOODBYE_SECONDS)
        self._state.phase = DONE
        self._file.save(self._state)

    def _flushed(self, source: Source) -> bool:
        try:
            source.flush(_SAVE_SECONDS)
        except NotAcknowledged:
            return False
        except (EventsRefused, EventsDiverted):
            return True  # they are settled too, and will be accounted for
        return True

    def _account(self, report: Report) -> None:
        outcome = self._outcome
        refused = self._refused(report)
        for stream, counts in sorted(report.streams.items()):
            reasons = refused.get(stream, {})
            earlier = sum(self._refused_before.get(stream, {}).values())
            outcome.streams[stream] = {
                "sent": counts.sent,
                "acknowledged": counts.acknowledged - earlier,
                "refused": reasons,
                "garbage": counts.garbage,
                "orphan": counts.orphan,
            }
            for reason, pieces in reasons.items():
                outcome.refused[reason] = outcome.refused.get(reason, 0) + pieces
        outcome.acknowledged = sum(s["acknowledged"] for s in outcome.streams.values())
        outcome.not_sent = outcome.events - outcome.acknowledged - sum(outcome.refused.values())
        outcome.reconnects = report.reconnects

    def _account_for_diverted(self, source: Source, report: Report) -> None:
        outcome = self._outcome
        outcome.garbage, outcome.orphan = report.garbage, report.orphan
        outcome.stored = outcome.acknowledged - outcome.garbage - outcome.orphan
        for (run, stream, why), events in sorted(source.diverted.items()):
            outcome.diverted.append({"run": run, "stream": stream, "why": why, "events": events})
            if why == STREAM_UNKNOWN:
                outcome.run_streams = source.streams_of(self._state.run)

    def _forget(self, source: Source) -> None:
        """Nothing was sent: the session ends, and the next command begins anew."""
        with contextlib.suppress(SourceError):
            source.close(_GOODBYE_SECONDS)
        self._file.remove()

    def _leave(self, source: Source) -> None:
        """The replay broke off: keep what is known, leave the session to the next process."""
        try:
            self._save(source)
        finally:
            source.abandon()
