"""The alarms about sources and their events: which are raised, and when the cause of each is gone.

Used by the event server's thread. It decides nothing about sessions or events.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from dlog.model.ids import StreamKey
from dlog.model.messages import Hello
from dlog.ports import Alarms, Severity
from dlog.quantities import events
from dlog.services.sessions import SILENCE_NS_MAX, Session

ORPHAN_ALARMS_MAX: Final = 32  # by run and stream; what is beyond has one together
OF_A_SESSION: Final = ("source-lost", "malformed", "refused", "window", "gap")


class SourceAlarms:
    """Each method tells of one thing that happened."""

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._names_wanted: dict[str, int] = {}  # by a second source, and when it last asked
        self._orphaned: set[StreamKey] = set()  # as sent; an alarm stands for each
        self._streams_over: list[StreamKey] = []  # of runs that ended since the last one began

    # --- a source ----------------------------------------------------------------------------

    def opened(self, session: Session) -> None:
        """Its source is here."""
        self.heard(session)
        self._alarms.clear_alarm(f"gap {session.name}")
        self._wanted_no_more(session.name)

    def heard(self, session: Session) -> None:
        self._alarms.clear_alarm(f"source-lost {session.name}")

    def lost(self, session: Session) -> None:
        text = f"{session.name} ({session.address}) is silent"
        self._alarms.raise_alarm(f"source-lost {session.name}", Severity.WARNING, text)

    def over(self, session: Session) -> None:
        """The session is over, and what was said of its source with it."""
        for kind in OF_A_SESSION:
            self._alarms.clear_alarm(f"{kind} {session.name}")

    def name_in_use(self, hello: Hello, address: str, now_ns: int) -> None:
        self._names_wanted[hello.name] = now_ns
        self._alarms.raise_alarm(
            f"name-in-use {hello.name}",
            Severity.WARNING,
            f"{hello.name}: second session from {hello.host} process {hello.process} ({address}) "
            "refused",
        )

    def look_at_names(self, now_ns: int) -> None:
        """A second source that has not asked for so long is gone."""
        for name, asked_ns in list(self._names_wanted.items()):
            if now_ns - asked_ns > SILENCE_NS_MAX:
                self._wanted_no_more(name)

    def _wanted_no_more(self, name: str) -> None:
        if self._names_wanted.pop(name, None) is not None:
            self._alarms.clear_alarm(f"name-in-use {name}")

    def gap(self, hello: Hello, acknowledged: int) -> None:
        text = f"{hello.name}: HELLO from batch {hello.lowest}, {acknowledged} committed"
        self._alarms.raise_alarm(f"gap {hello.name}", Severity.ERROR, text)

    # --- what it sends -----------------------------------------------------------------------

    def malformed(self, session: Session | None, called: str, problem: str) -> None:
        """called: what the peer calls itself, and where it is."""
        # One alarm for all strangers: they choose their names, and may choose them without end.
        who = session.name if session is not None else "a stranger"
        self._alarms.raise_alarm(f"malformed {who}", Severity.WARNING, f"{called}: {problem}")

    def window(self, session: Session, why: str) -> None:
        text = f"{session.name}: {why}"
        self._alarms.raise_alarm(f"window {session.name}", Severity.WARNING, text)

    def refused(self, session: Session, stream: StreamKey, reason: str) -> None:
        text = f"events of {session.name} for {stream} refused: {reason}"
        self._alarms.raise_alarm(f"refused {session.name}", Severity.WARNING, text)

    def orphan(self, session: Session, stream: StreamKey, number: int, why: str) -> None:
        # A source may make up streams and runs without end; the alarms are for others, too.
        if stream in self._orphaned or len(self._orphaned) < ORPHAN_ALARMS_MAX:
            self._orphaned.add(stream)
            name = str(stream)
        else:
            name = "(others)"
        text = f"{events(number)} of {session.name} for {stream} went to the orphan file: {why}"
        self._alarms.raise_alarm(f"orphan {name}", Severity.WARNING, text)

    # --- runs --------------------------------------------------------------------------------

    def run_over(self, streams: Collection[StreamKey]) -> None:
        self._streams_over += streams

    def run_begins(self, runs: Collection[int]) -> None:
        """The alarms of other runs than these, which go on, have been there long enough."""
        gone = {key for key in self._orphaned if key.run not in runs}
        self._orphaned -= gone
        for key in gone:
            self._alarms.clear_alarm(f"orphan {key}")
        self._alarms.clear_alarm("orphan (others)")
        for key in self._streams_over:
            self._alarms.clear_alarm(f"garbage {key}")
        self._streams_over.clear()
