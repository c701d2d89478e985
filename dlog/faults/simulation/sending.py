"""What the sources do in a random history: each public method is an action."""

from __future__ import annotations

from typing import Final

from dlog.faults.simulation.commands import STREAMS
from dlog.faults.simulation.course import Course
from dlog.faults.simulation.scenario import payload
from dlog.faults.simulation.sources import WILD, SimulatedSource
from dlog.model.ids import StreamName

SOURCES_MAX: Final = 5
STRANGE_RUN: Final = 2000


class Sending:
    """The Collector/Routers."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._names = 0

    def first_sources(self) -> None:
        for _ in range(self._course.random.randint(1, 3)):
            self.new_source()

    def new_source(self) -> None:
        if len(self._course.sources) < SOURCES_MAX:
            self.another_source()

    def new_name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}-{self._names}"

    def another_source(self, name: str = "", **options: int) -> SimulatedSource:
        """A new session, of a new name if none is given."""
        course = self._course
        options.setdefault("batch_events", course.random.choice((1, 3, 8)))
        source = course.world.source(name or self.new_name("router"), **options)
        course.sources.append(source)
        course.tell(f"source {source.name}, session {source.session.hex()[:8]}")
        return source

    def withdraw(self, source: SimulatedSource) -> None:
        """It is heard of no more, whatever it holds."""
        self._course.world.sources.remove(source)
        self._course.sources.remove(source)

    def goodbye(self) -> None:
        """A source ends once everything of it is acknowledged; another may come."""
        course = self._course
        if len(course.sources) > 1 and course.random.random() < 0.5:
            source = course.sources.pop(course.random.randrange(len(course.sources)))
            course.tell(f"goodbye of {source.name}")
            source.hear_again()
            source.close()

    def goodbye_of_all(self) -> None:
        if self._course.random.random() < 0.5:
            for source in self._course.sources:
                source.close()

    def send(self) -> None:
        course = self._course
        run = course.some_run("active", "paused")
        if run is not None:
            self.send_to(run)

    def send_to(self, run: int) -> None:
        """Some events of increasing number, from one source."""
        course = self._course
        source = course.random.choice(course.sources)
        for _ in range(course.random.randint(1, 12)):
            course.number[run] += course.random.choice((1, 1, 1, 2))
            self._send(source, run, self._streams(), course.number[run])

    def send_numbers(
        self, source: SimulatedSource, run: int, streams: tuple[StreamName, ...], count: int
    ) -> None:
        """So many events of increasing number, small ones."""
        for _ in range(count):
            self._course.number[run] += 1
            number = self._course.number[run]
            source.send(run, streams, number, payload(number))

    def send_late(self) -> None:
        course = self._course
        run = course.some_run("active", "paused")
        if run is not None and course.number[run]:
            source = course.random.choice(course.sources)
            for _ in range(course.random.randint(1, 3)):
                number = course.random.randint(1, course.number[run])
                self._send(source, run, self._streams(), number)

    def send_stray(self) -> None:
        """For a run that is over or never was, or a stream that nobody configured."""
        course = self._course
        source = course.random.choice(course.sources)
        run = course.random.choice((STRANGE_RUN, max(1, course.next_run - 1), course.next_run))
        streams = course.random.choice((self._streams(), (StreamName("nowhere"),)))
        self._send(source, run, streams, course.random.randint(1, 50))

    def send_wild(self) -> None:
        """Some events, one of them with a number that is wrong."""
        course = self._course
        run = course.some_run("active", "paused")
        if run is None:
            return
        source, streams = course.random.choice(course.sources), self._streams()
        for wild in (False, True, False):
            course.number[run] += 1
            number = course.random.choice((WILD, 2**64 - 1)) if wild else course.number[run]
            source.send(run, streams, number, payload(course.number[run]))

    def count_anew(self) -> None:
        """The counter of the run's events is set back to 0."""
        course = self._course
        run = course.some_run("active", "paused")
        if run is not None:
            course.number[run] = -1
            source = course.random.choice(course.sources)
            self.send_numbers(source, run, tuple(map(StreamName, STREAMS)), 3)

    def _streams(self) -> tuple[StreamName, ...]:
        number = self._course.random.choice((1, 1, 1, 2, 3))
        return tuple(map(StreamName, self._course.random.sample(STREAMS, number)))

    def _send(
        self, source: SimulatedSource, run: int, streams: tuple[StreamName, ...], number: int
    ) -> None:
        length = self._course.random.choice((1, 1, 1, 200))
        source.send(run, streams, number, payload(number) * length)
