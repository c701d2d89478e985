"""`dlog.Source`: a Collector/Router's library. It sends events to a logger and keeps them until the
logger has acknowledged them, that is, until they are durable.

It composes the pure session (`core/source_session.py`) with the link's thread, one lock between
them; it decides nothing of the protocol itself.
"""

from __future__ import annotations

import atexit
import logging
import operator
import os
import secrets
import socket as sockets
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlog import quantities
from dlog.adapters.logger_address import event_address
from dlog.adapters.source_link import SourceLink
from dlog.core.many_events import Buffer, ManyEvents, flat, payload_and_sizes, unsigned
from dlog.core.packer import Packing, StreamSet, event_bytes
from dlog.core.source_batches import Progress
from dlog.core.source_counts import LATE, STREAM_UNKNOWN, StreamReport
from dlog.core.source_session import Phase, SourceSession
from dlog.errors import EventsDiverted, EventsRefused, NotAcknowledged, SourceError, WindowFull
from dlog.limits import (
    BATCH_BYTES_DEFAULT,
    EVENT_BYTES_MAX,
    MIB,
    SOURCE_NAME_BYTES_MAX,
    SOURCE_QUEUE_BYTES_DEFAULT,
)
from dlog.model.ids import (
    EventNumber,
    RunNumber,
    SessionId,
    StreamName,
    valid_run_number,
    valid_source_name,
    valid_stream_name,
)

_LOG: Final = logging.getLogger("dlog.source")
_TELL_SECONDS: Final = 10.0
_U64_MAX: Final = 2**64 - 1
_WORDS_MAX: Final = 10  # kinds of diverted events that an error tells of one by one
# How long `with` waits for acknowledgements when its body ended with an error.
_ERROR_EXIT_SECONDS: Final = 5.0
_GOODBYE_SECONDS: Final = 5.0
# The lock is held for moments alone. Where it is not free for so long, its holder is our caller.
_LOCK_SECONDS: Final = 5.0

Streams: TypeAlias = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Report:
    """How a source stands. `events` counts events, everything else (event, stream) pieces.

    acknowledged = stored + garbage + orphan: durable in their stream's files, in its garbage file
    (they were late), in the orphan file (run or stream was not there).
    state: connecting, connected, leaving, closed, refused. waiting: why nothing moves, "" where it
    does. active, held: runs as the logger last told.
    """

    name: str
    session: str
    logger: str
    logger_uuid: str
    state: str
    waiting: str
    events: int
    events_pending: int
    sent: int
    acknowledged: int
    refused: dict[str, int]
    pending: int
    streams: dict[str, StreamReport]
    active: tuple[int, ...]
    held: tuple[int, ...]
    queued_bytes: int
    reconnects: int
    batches_resent: int
    garbage: int = 0
    orphan: int = 0

    @property
    def stored(self) -> int:
        """In the files of their streams."""
        return max(0, self.acknowledged - self.garbage - self.orphan)


_STATES: Final = {
    Phase.GREETING: "connecting",
    Phase.OPEN: "connected",
    Phase.LEAVING: "leaving",
    Phase.OVER: "closed",
    Phase.REFUSED: "refused",
}


class Source:
    """A source of events. Its memory is bounded by `queue_bytes`; an event stays in it until it is
    acknowledged, however often the logger or the network goes away and comes back.

        with dlog.Source("tcp://127.0.0.1:5555", name="collector-1", run=7) as source:
            source.send("photons", payload)

    address: `tcp://HOST:PORT`, or the data directory of a logger on this machine. name: who sends;
    one live session per name. run: the default of `send`. Events may be sent before the logger or
    the run is there: they wait. Several threads may use one Source, but not a process that was
    forked after it was made: there every call raises `SourceError`.
    """

    def __init__(
        self,
        address: str | os.PathLike[str],
        *,
        name: str | None = None,
        run: int | None = None,
        queue_bytes: int = SOURCE_QUEUE_BYTES_DEFAULT,
        batch_bytes: int = BATCH_BYTES_DEFAULT,
        linger_ms: float = 5.0,
    ) -> None:
        packing = Packing(
            batch_bytes=batch_bytes,
            linger_ns=int(linger_ms * 1e6),
            open_bytes=min(16 * MIB, queue_bytes // 2),
        )
        self._begin(address, name, run, queue_bytes, packing, SessionId(secrets.token_bytes(16)))

    @classmethod
    def replay(
        cls,
        address: str | os.PathLike[str],
        *,
        name: str,
        run: int,
        session: bytes,
        progress: Progress,
        packing: Packing,
        queue_bytes: int = SOURCE_QUEUE_BYTES_DEFAULT,
        finished: bool = False,
    ) -> Source:
        """A source that goes on with a session of an earlier process: all its events are sent again
        from the first one, in the same order; what was acknowledged then is passed over.

        Its events wait until the run is active. finished: everything was acknowledged already, so
        that only `close` is left to do.
        """
        source = cls.__new__(cls)
        source._begin(
            address,
            name,
            run,
            queue_bytes,
            packing,
            SessionId(session),
            replayed=RunNumber(run),
            progress=progress,
            finished=finished,
        )
        return source

    def _begin(
        self,
        address: str | os.PathLike[str],
        name: str | None,
        run: int | None,
        queue_bytes: int,
        packing: Packing,
        session: SessionId,
        *,
        replayed: RunNumber | None = None,
        progress: Progress | None = None,
        finished: bool = False,
    ) -> None:
        name = _default_name() if name is None else name
        if not valid_source_name(name):
            raise ValueError(
                f"{name!r} is no source name: letters, digits, _ . : @ -, "
                f"{SOURCE_NAME_BYTES_MAX} at most"
            )
        if queue_bytes < packing.batch_bytes:
            raise ValueError(f"queue_bytes {queue_bytes} is less than a batch")
        self._run = None if run is None else _checked_run(run)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._gate = threading.Lock()
        self._link_waits = False
        self._session = SourceSession(
            session,
            name=name,
            host=sockets.gethostname(),
            process=os.getpid(),
            queue_bytes=queue_bytes,
            packing=packing,
            now_ns=time.monotonic_ns(),
            replayed=replayed,
            progress=progress,
        )
        if finished:
            self._session.batches.skip_to_progress()
        self._stream_sets: dict[Streams, StreamSet] = {}
        self._next_number: dict[RunNumber, int] = {}
        self._reported: dict[str, int] = {}
        self._diversions_told: dict[tuple[int, str, str], int] = {}
        self._link_detail = ""
        self._death: SourceError | None = None
        self._copied = False  # into a child process, where it can do nothing
        self._sending_is_over = False
        self._closed = False
        self._last_words = False
        self._link = SourceLink(
            _Driver(self), name.encode() + b"/" + session, event_address(address)
        )
        _watch_forks()
        _SOURCES.add(self)
        self._link.start()
        atexit.register(self._forgotten)

    # --- sending ----------------------------------------------------------------------------------

    def send(
        self,
        streams: Streams,
        payload: Buffer,
        *,
        run: int | None = None,
        number: int | None = None,
        time_ns: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send one event to a stream, or to several. `payload` may be used again after the call.

        number: the event's number; one more than the run's last one where it is not given. time_ns:
        since 1970; now where it is not given, 0 for unknown. Blocks while the queue is full: for
        ever, or for `timeout` seconds, and then raises `WindowFull`; the event was not taken.
        Raises `RunEnded` where the run is over, `StreamUnknown` where it is known not to have the
        stream, `SourceRefused` where the logger refuses the source for good.
        """
        data = payload if type(payload) is bytes else flat(payload)
        number_of_run = self._run_of(run)
        size_bytes = event_bytes(len(data))
        self._give_way()
        with self._lock:
            stream_set = self._stream_set(streams)
            self._wait_for_room(number_of_run, size_bytes, timeout)
            self._session.check_run_has(number_of_run, stream_set)
            self._check_size(len(data))
            if number is None:
                number = self._next_number.get(number_of_run, 0)
            number = _checked("event number", number)
            time_ns = time.time_ns() if time_ns is None else _checked("time_ns", time_ns)
            news = self._session.add(
                number_of_run,
                stream_set,
                EventNumber(number),
                time_ns,
                data,
                time.monotonic_ns(),
            )
            self._next_number[number_of_run] = number + 1
        if news:
            self._link.wake()

    def send_many(
        self,
        streams: Streams,
        payload: Buffer,
        *,
        sizes: ArrayLike | None = None,
        numbers: ArrayLike | None = None,
        times_ns: ArrayLike | int | None = None,
        run: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send many events of the same stream(s), without any Python per event.

        payload: an array whose first axis counts the events, or, with `sizes` (bytes of each
        event), a flat buffer with all payloads behind each other. numbers, times_ns: one for each
        event; `times_ns` also one for all. With `timeout` all of them are taken or (`WindowFull`)
        none, and so they must fit into the queue.
        """
        data, size_array = payload_and_sizes(payload, sizes)
        count = len(size_array)
        number_of_run = self._run_of(run)
        number_array = None if numbers is None else unsigned(numbers, count, "numbers")
        times: NDArray[np.uint64] | int
        if times_ns is None or isinstance(times_ns, int):
            times = time.time_ns() if times_ns is None else _checked("times_ns", times_ns)
        else:
            times = unsigned(times_ns, count, "times_ns")
        if count == 0:
            return
        whole_bytes = event_bytes(0) * count + len(data)
        if timeout is not None and whole_bytes > self._session.queue_bytes:
            raise ValueError("more than the queue holds: send less at once, or without timeout")
        with self._lock:
            stream_set = self._stream_set(streams)
            self._session.check_run_has(number_of_run, stream_set)
            self._check_size(int(size_array.max()))
        events = ManyEvents(number_array, times, size_array, data)
        if timeout is None:
            for part in events.parts(self._session.packer.packing.message_bytes_max):
                self._send_part(number_of_run, stream_set, part, None)
        else:
            self._send_part(number_of_run, stream_set, events, timeout)

    def _send_part(
        self, run: RunNumber, streams: StreamSet, events: ManyEvents, timeout: float | None
    ) -> None:
        self._give_way()
        with self._lock:
            self._wait_for_room(run, events.queue_bytes, timeout)
            # Only now: what was not taken has no number.
            numbered = events.numbered(self._next_number.get(run, 0))
            news = self._session.add_many(run, streams, numbered, time.monotonic_ns())
            assert numbered.numbers is not None
            self._next_number[run] = int(numbered.numbers[-1]) + 1
        if news:
            self._link.wake()

    def _check_size(self, size_bytes: int) -> None:
        limit = self._session.event_bytes_max
        if size_bytes > limit:
            known = limit != EVENT_BYTES_MAX
            whose = f" of logger {self._session.logger_name}" if known else ""
            raise ValueError(f"an event of {size_bytes} B; {limit} B is the limit{whose}")

    def _give_way(self) -> None:
        """Let the link's thread have the lock first, if it waits for it."""
        if self._link_waits:
            with self._gate:
                return

    def _wait_for_room(self, run: RunNumber, size_bytes: int, timeout: float | None) -> None:
        """With the lock: until the queue takes so many bytes; raises where sending is over."""
        self._check_alive()
        if self._sending_is_over:
            raise self._being_closed()
        self._session.check_run(run)
        if self._session.has_room(run, size_bytes):
            return
        self._link.wake()
        if not self._wait(lambda: self._may_add(run, size_bytes), timeout):
            raise WindowFull(
                f"the queue stayed full for {timeout} s: {self._waiting() or 'acknowledgements'}"
            )

    def _may_add(self, run: RunNumber, size_bytes: int) -> bool:
        if self._sending_is_over:
            raise self._being_closed()
        self._session.check_run(run)
        return self._session.has_room(run, size_bytes)

    def _being_closed(self) -> SourceError:
        return SourceError(f"source {self._session.name} is being closed")

    # --- waiting ----------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> Report:
        """Wait until every event that was sent up to now is acknowledged, and say how it went.

        Raises `EventsRefused` where some, since the last `flush`, were settled without being
        stored, `EventsDiverted` where some went to streams that their run does not have, and
        `NotAcknowledged` when the time is over.
        """
        with self._lock:
            self._check_alive()
            place = self._session.flush()
            self._link.wake()
            self._await_settled(place, timeout)
            self._raise_unstored(closing=False)
            return self._report()

    def wait_for_run(self, run: int | None = None, timeout: float | None = None) -> bool:
        """Wait until the run is active (or paused); False when the time is over.

        Raises `RunEnded` where it is over already."""
        number = self._run_of(run)

        def known() -> bool:
            self._session.check_run(number)
            return number in self._session.runs.active or number in self._session.runs.held

        with self._lock:
            self._check_alive()
            self._session.awaited.append(number)
            try:
                return self._wait(known, timeout)
            finally:
                self._session.awaited.remove(number)

    def _await_settled(self, place: int, timeout: float | None) -> None:
        if not self._wait(lambda: self._session.settled_before(place), timeout):
            raise self._not_acknowledged(timeout)

    def _not_acknowledged(self, timeout: float | None) -> NotAcknowledged:
        pending = self._report().pending
        return NotAcknowledged(
            f"{pending} pieces of events are not acknowledged after {timeout} s: "
            f"{self._waiting() or 'the logger is at it'}",
            pending,
        )

    def _raise_unstored(self, *, closing: bool) -> None:
        diverted = self._diversions(closing=closing)
        try:
            self._raise_refusals()
        except EventsRefused as error:
            if diverted is not None:
                error.add_note(str(diverted))
            raise
        if diverted is not None:
            raise diverted

    def _raise_refusals(self) -> None:
        reasons = self._session.counts.reasons()
        fresh = {
            reason: more
            for reason, pieces in reasons.items()
            if (more := pieces - self._reported.get(reason, 0)) > 0
        }
        self._reported = reasons
        if fresh:
            listed = ", ".join(f"{pieces} {reason}" for reason, pieces in sorted(fresh.items()))
            raise EventsRefused(f"not stored: {listed}", fresh)

    def _diversions(self, *, closing: bool) -> EventsDiverted | None:
        """What is durable elsewhere than where it was sent to, since this was asked last. Events
        for a run that is not there may be meant so (a run that begins or ends, and a readout that
        goes on): they are told in the log."""
        faults = {STREAM_UNKNOWN, LATE} if closing else {STREAM_UNKNOWN}
        diverted = self._session.counts.diverted
        raised: dict[tuple[int, str, str], int] = {}
        words = []
        for key, pieces in sorted(diverted.items()):
            more = pieces - self._diversions_told.get(key, 0)
            if more <= 0 or (key[2] == LATE and not closing):
                continue
            self._diversions_told[key] = pieces
            text = self._diverted_words(key, more)
            if key[2] in faults:
                raised[key] = more
                words.append(text)
            else:
                _LOG.warning("source %s: %s", self._session.name, text)
        return EventsDiverted("; ".join(words[:_WORDS_MAX]), raised) if raised else None

    def _diverted_words(self, key: tuple[int, str, str], pieces: int) -> str:
        run, stream, why = key
        what = quantities.events(pieces) + (f" for run {run} stream {stream}" if stream else "")
        if why == LATE:
            return f"{what} came late, after the range was closed, and went to the garbage file"
        runs = self._session.runs
        if why == STREAM_UNKNOWN and run in runs.streams:
            why += f", its streams: {', '.join(sorted(runs.streams[run]))}"
        elif why != STREAM_UNKNOWN:
            why += f", active runs: {', '.join(map(str, sorted(runs.active))) or 'none'}"
        return f"{what} went to the orphan file ({why})"

    def _wait(self, holds: Callable[[], bool], timeout: float | None) -> bool:
        """With the lock: until `holds`, telling the log now and then what is waited for."""
        begin = time.monotonic()
        told = begin
        while not holds():
            self._check_alive()
            now = time.monotonic()
            left = None if timeout is None else begin + timeout - now
            if left is not None and left <= 0:
                return False
            if now - told >= _TELL_SECONDS:
                told = now
                self._tell(self._waiting() or "for the logger")
            self._changed.wait(1.0 if left is None else min(1.0, left))
        return True

    def _tell(self, why: str) -> None:
        """A line in the log, without the lock: whoever writes it may take his time."""
        self._lock.release()
        try:
            _LOG.warning("source %s waits: %s", self._session.name, why)
        finally:
            self._lock.acquire()

    # --- what is known ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._session.name

    @property
    def session(self) -> bytes:
        """The session's random id."""
        return self._session.session

    @property
    def repeating(self) -> bool:
        """Of a replay: what is sent was sent before, by an earlier process."""
        with self._lock:
            return self._session.batches.repeating

    def streams_of(self, run: int) -> list[str]:
        """The streams of a run that takes events, as the logger told; empty where it did not."""
        with self._lock:
            return sorted(self._session.runs.streams.get(run, ()))

    @property
    def diverted(self) -> dict[tuple[int, str, str], int]:
        """Durable pieces that are not in their stream's files, by run, stream and reason."""
        with self._lock:
            return dict(self._session.counts.diverted)

    def run_state(self, run: int) -> str | None:
        """active, held, ending, over, or "" for a run that the logger does not list; None while no
        logger has answered."""
        with self._lock:
            return self._session.runs.state(run) if self._session.told else None

    @property
    def acknowledged(self) -> int:
        """(event, stream) pieces that are durable."""
        return self.report().acknowledged

    @property
    def events_settled(self) -> int:
        """How many events are acknowledged, or were refused; cheap enough to be asked all the
        time."""
        return self._session.batches.events_settled

    def report(self) -> Report:
        """How the source stands; at any time, also after `close`."""
        if self._copied:
            self._check_alive()
        with self._lock:
            return self._report()

    def report_and_progress(self) -> tuple[Report, Progress]:
        """Of a replay, at one moment: what must be durable before `progress_saved`, and what was
        refused up to there."""
        with self._lock:
            return self._report(), self._session.progress

    def progress_saved(self, progress: Progress) -> None:
        with self._lock:
            self._session.progress_saved(progress)

    def _report(self) -> Report:
        session = self._session
        streams = session.counts.report(session.packer.open_pieces())
        return Report(
            name=session.name,
            session=session.session.hex(),
            logger=session.logger_name,
            logger_uuid=session.logger_uuid.hex(),
            state=_STATES[session.phase],
            waiting=self._waiting(),
            events=session.packer.events,
            events_pending=session.events_pending,
            sent=sum(stream.sent for stream in streams.values()),
            acknowledged=sum(stream.acknowledged for stream in streams.values()),
            refused=session.counts.reasons(),
            pending=sum(stream.pending for stream in streams.values()),
            streams=streams,
            active=tuple(sorted(session.runs.active)),
            held=tuple(sorted(session.runs.held)),
            queued_bytes=session.batches.queued_bytes,
            reconnects=session.reconnects,
            batches_resent=session.batches_resent,
            garbage=session.counts.diverted_to(garbage=True),
            orphan=session.counts.diverted_to(garbage=False),
        )

    def _waiting(self) -> str:
        """Why nothing moves, in words; empty where it does."""
        session = self._session
        if session.phase is Phase.GREETING:
            return session.detail or self._link_detail or "no logger has answered yet"
        if session.phase is Phase.REFUSED:
            return session.detail
        if session.waiting:
            return session.waiting
        if session.replayed is not None and not session.runs.state(session.replayed):
            return f"run {session.replayed} is not active"
        if session.runs.held:
            return "paused: run " + ", ".join(str(run) for run in sorted(session.runs.held))
        return ""

    # --- the end ----------------------------------------------------------------------------------

    def close(self, timeout: float | None = None) -> Report:
        """Wait until everything is acknowledged, end the session, and say how it went.

        When `timeout` seconds are over, the session is given up and `NotAcknowledged` is raised:
        the pending events of an ordinary Source are lost, and whether they are stored is not known.
        Raises `EventsRefused` and `EventsDiverted` as `flush` does, and `EventsDiverted` for events
        that were late: all that is not refused is durable then. A second call only reports; while
        another thread is at the first one, it waits for its end.
        """
        self._check_lock()
        with self._lock:
            if self._sending_is_over and not self._wait(lambda: self._closed, timeout):
                raise self._not_acknowledged(timeout)
            if self._closed:
                return self._report()
            self._sending_is_over = True
        try:
            self._leave(timeout)
        finally:
            # Nobody can go on with it: the logger need not wait for the session to come back.
            self._end(last_words=not self._session.replay)
        with self._lock:
            self._raise_unstored(closing=True)
            return self._report()

    def _leave(self, timeout: float | None) -> None:
        with self._lock:
            self._check_alive()
            place = self._session.close()
            self._changed.notify_all()  # whoever waits for room is not to take it any more
            self._link.wake()
            self._await_settled(place, timeout)
            # The events are safe: what is missing is only that the logger knows that we left.
            if not self._wait(
                lambda: self._session.phase in (Phase.OVER, Phase.REFUSED), _GOODBYE_SECONDS
            ):
                _LOG.warning("source %s: the logger did not confirm the end", self.name)

    def abandon(self) -> None:
        """Close at once, without goodbye: of a replay, another process goes on with the session."""
        self._check_lock()
        self._end()

    def _end(self, *, last_words: bool = False) -> None:
        with self._lock:
            self._closed = True
            self._last_words = last_words and self._session.phase is Phase.OPEN
            self._changed.notify_all()
        self._link.close()
        atexit.unregister(self._forgotten)

    def _check_lock(self) -> None:
        """Raises `SourceError` in a signal handler that interrupted a call with the lock: to wait
        for it would be to wait for ever."""
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            raise SourceError(
                f"source {self._session.name} cannot be closed inside one of its own calls, as by "
                "a signal handler: let the handler raise, or set a flag"
            )
        self._lock.release()

    # --- in a child process -----------------------------------------------------------------------

    def _became_copy(self) -> None:
        """After a fork, in the child: the link's thread is not here, and the locks may be held by
        threads that are not. The parent goes on, and has all events that it took."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._gate = threading.Lock()
        self._link_waits = False
        self._link.become_copy()
        atexit.unregister(self._forgotten)
        if not self._closed:
            self._copied = True
            self._death = SourceError(
                f"source {self.name} belongs to process {self._session.process}, of which this "
                "one is a fork: make a Source of its own in each process, after the fork"
            )

    def __reduce__(self) -> str:
        raise TypeError("a Source cannot be pickled: make one in each process")

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close(timeout=_ERROR_EXIT_SECONDS)
        except SourceError as second:
            error.add_note(f"source {self.name} was closed with: {second}")

    def _forgotten(self) -> None:
        """At the end of the interpreter: the source was not closed."""
        report = self.report()
        if report.pending:
            _LOG.error(
                "source %s was never closed: %d pieces of events are not acknowledged",
                report.name,
                report.pending,
            )

    # --- checks -----------------------------------------------------------------------------------

    def _check_alive(self) -> None:
        if self._death is not None:
            raise SourceError(str(self._death)) from self._death.__cause__
        if self._session.failure is not None:
            raise type(self._session.failure)(str(self._session.failure))
        if self._closed:
            raise SourceError(f"source {self._session.name} is closed")

    def _run_of(self, run: int | None) -> RunNumber:
        if run is not None:
            return _checked_run(run)
        if self._run is None:
            raise ValueError("which run? give run= here or to the Source")
        return self._run

    def _stream_set(self, streams: Streams) -> StreamSet:
        key = streams if type(streams) is str else _checked_names(streams)
        return self._stream_sets.get(key) or self._new_stream_set(key)

    def _new_stream_set(self, streams: str | tuple[str, ...]) -> StreamSet:
        names = (streams,) if isinstance(streams, str) else streams
        for name in names:
            if not valid_stream_name(name):
                raise ValueError(f"{name!r} is no stream name")
        if not names or len(set(names)) != len(names):
            raise ValueError("an event is for one stream at least, and for each of them once")
        # One spelling for a set, so that it makes one batch.
        stream_set = tuple(StreamName(name) for name in sorted(names))
        self._session.check_streams(stream_set)
        if len(self._stream_sets) < 4096:
            self._stream_sets[streams] = stream_set
        return stream_set


# For the one hook of the process that tells them of a fork.
_SOURCES: Final[weakref.WeakSet[Source]] = weakref.WeakSet()


@cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_forked)


def _forked() -> None:
    for source in list(_SOURCES):
        source._became_copy()


class _Driver:
    """What the link's thread calls: the session, under the source's lock."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @contextmanager
    def _turn(self) -> Iterator[SourceSession]:
        """The lock, with precedence: a caller that sends and sends would take it again before the
        link's thread even learns that it was free."""
        source = self._source
        with source._gate:
            source._link_waits = True
            with source._lock:
                source._link_waits = False
                yield source._session

    def next_message(self, now_ns: int) -> bytes | bytearray | None:
        with self._turn() as session:
            phase = session.phase
            message = session.next_message(now_ns)
            if session.phase is not phase:
                self._source._changed.notify_all()
            return message

    def due_ns(self) -> int | None:
        with self._turn() as session:
            return session.due_ns()

    def receive(self, messages: list[bytes], now_ns: int) -> None:
        with self._turn() as session:
            for message in messages:
                session.receive(message, now_ns)
            self._source._changed.notify_all()

    def connected(self, address: str) -> None:
        with self._turn():
            self._source._link_detail = f"connected to {address}, no answer yet"

    def disconnected(self, now_ns: int, why: str) -> None:
        with self._turn() as session:
            self._source._link_detail = why
            session.lost(now_ns)
            self._source._changed.notify_all()

    def last_words(self) -> bytes | None:
        with self._turn() as session:
            return session.last_words() if self._source._last_words else None

    def died(self, error: BaseException) -> None:
        death = SourceError(f"the source's link died: {error!r}")
        death.__cause__ = error
        with self._source._lock:
            self._source._death = death
            self._source._changed.notify_all()


def _default_name() -> str:
    host = "".join(c if c.isalnum() or c in "_.-" else "-" for c in sockets.gethostname())
    ascii_host = host.encode("ascii", "replace").decode().replace("?", "-").strip("-_.") or "host"
    process = f"{os.getpid()}-{_tag_of_process(os.getpid())}"
    return f"{ascii_host[: SOURCE_NAME_BYTES_MAX - 1 - len(process)]}-{process}"


@cache
def _tag_of_process(_pid: int) -> str:
    """Containers of one image often have one host name, and each process in them the number 1."""
    return secrets.token_hex(3)


def _checked(what: str, value: int) -> int:
    """A number that fits into an event's row; numpy's are as good as Python's."""
    value = operator.index(value)
    if not 0 <= value <= _U64_MAX:
        raise ValueError(f"{what} {value}: from 0 to {_U64_MAX}")
    return value


def _checked_names(streams: Streams) -> tuple[str, ...]:
    try:
        return tuple(streams)
    except TypeError:
        found = type(streams).__name__
        raise TypeError(f"streams are a name or several names, not {found}") from None


def _checked_run(run: int) -> RunNumber:
    try:
        run = operator.index(run)
    except TypeError:
        raise TypeError(f"a run is a number, not {type(run).__name__}") from None
    if not valid_run_number(run):
        raise ValueError(f"run {run}: from 1 to {2**32 - 1}")
    return RunNumber(run)
