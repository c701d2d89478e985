"""The source's session against a logger model that crashes, on a link that loses messages: every
event that was taken stands in its streams exactly once and in order, or is told as refused, and
nothing hangs."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from dlog.core.packer import Packing
from dlog.core.source_batches import Progress
from dlog.core.source_session import Phase, SourceSession
from dlog.errors import RunEnded
from dlog.model.ids import EventNumber, RunNumber, SessionId, StreamName
from tests.logger_model import Event, Key, LoggerModel

MS = 1_000_000
SESSION = SessionId(bytes(range(16)))
TROUBLES = ["lose up", "lose down", "break", "crash", "crash unnoticed"]
OPERATIONS = ["pause", "resume", "stop", "abort", "no credit", "credit"]
STREAM_SETS = [("a",), ("b",), ("a", "b"), ("c",)]
QUEUE_BYTES = 30_000
BATCH_BYTES = 4096


class World(RuleBasedStateMachine):
    """A source, a logger, and a link between them that holds what is under way."""

    replay = False

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 10**12
        self.logger = LoggerModel()
        self.to_logger: deque[bytes] = deque()
        self.taken: dict[Key, list[Event]] = defaultdict(list)
        self.count = 0
        self.pieces = 0
        self.wants_end: set[int] = set()

    @initialize(window=st.sampled_from([9000, 20_000, 10**9]), rewinds=st.booleans())
    def begin(self, window: int, rewinds: bool) -> None:
        self.logger = LoggerModel(window_bytes=window, rewinds=rewinds)
        self.logger.active = {1, 2}
        self.session = self.new_session(Progress())
        for _ in range(3):
            self.all_messages_move(6)

    def new_session(self, progress: Progress) -> SourceSession:
        return SourceSession(
            SESSION, name="s", host="h", process=1, queue_bytes=QUEUE_BYTES,
            packing=Packing(
                batch_bytes=BATCH_BYTES, batch_events=5,
                linger_ns=None if self.replay else 5 * MS, open_bytes=8000,
            ),
            now_ns=self.now_ns, replayed=RunNumber(1) if self.replay else None, progress=progress,
        )  # fmt: skip

    # --- the caller -------------------------------------------------------------------------------

    @rule(
        run=st.sampled_from([1, 1, 2]),
        streams=st.lists(st.sampled_from(STREAM_SETS), min_size=1, max_size=4),
        size=st.sampled_from([0, 100, 900, 6000]),
        times=st.integers(1, 12),
        hurried=st.booleans(),
    )
    def send(
        self, run: int, streams: list[tuple[str, ...]], size: int, times: int, hurried: bool
    ) -> None:
        for i in range(times):
            self.send_one(run, streams[i % len(streams)], size)
        if not hurried:
            self.all_messages_move(6)

    def send_one(self, run: int, streams: tuple[str, ...], size: int) -> None:
        if not self.session.has_room(RunNumber(run), size + 32):
            return
        names = tuple(StreamName(name) for name in streams)
        payload = bytes([self.count % 251]) * size
        try:
            self.session.add(
                RunNumber(run), names, EventNumber(self.count), 0, payload, self.now_ns
            )
        except RunEnded:
            return
        for name in names:
            self.taken[run, name].append((self.count, self.count, payload))
        self.count += 1
        self.pieces += len(names)

    # --- the link ---------------------------------------------------------------------------------

    def source_sends(self, most: int) -> None:
        for _ in range(most):
            message = self.session.next_message(self.now_ns)
            if message is None:
                return
            self.to_logger.append(bytes(message))

    def logger_hears(self, most: int) -> None:
        for _ in range(min(most, len(self.to_logger))):
            self.logger.hear(self.to_logger.popleft())

    def source_hears(self, most: int) -> None:
        for message in self.logger.say[:most]:
            self.session.receive(message, self.now_ns)
        del self.logger.say[:most]

    @rule(sent=st.integers(0, 12), heard=st.integers(0, 12), answered=st.integers(0, 12))
    def some_messages_move(self, sent: int, heard: int, answered: int) -> None:
        self.source_sends(sent)
        self.logger_hears(heard)
        self.source_hears(answered)

    @rule(ms=st.sampled_from([0, 6, 30, 110]))
    def all_messages_move(self, ms: int) -> None:
        self.now_ns += ms * MS
        for _ in range(3):
            self.source_sends(100)
            self.logger_hears(1000)
            self.source_hears(1000)

    # --- the logger -------------------------------------------------------------------------------

    @rule(which=st.integers(0, 5), pieces=st.integers(1, 5), told=st.booleans())
    def commit(self, which: int, pieces: int, told: bool) -> None:
        waiting = [key for key, queue in self.logger.queues.items() if queue]
        if waiting:
            self.logger.commit(waiting[which % len(waiting)], pieces)
        if told:
            self.logger.acknowledge()

    @rule(told=st.booleans())
    def commit_all(self, told: bool) -> None:
        self.logger.commit_all()
        if told:
            self.logger.acknowledge()

    @rule(ms=st.sampled_from([5, 60, 100, 250, 700]))
    def time_passes(self, ms: int) -> None:
        self.now_ns += ms * MS
        self.logger.acknowledge()

    # --- what goes wrong, and what the operator does: seldom, since all of it costs the way so far

    @rule(
        what=st.sampled_from(TROUBLES),
        which=st.integers(0, 10),
    )
    def trouble(self, what: str, which: int) -> None:
        match what:
            case "lose up" if self.to_logger:
                del self.to_logger[which % len(self.to_logger)]
            case "lose down" if self.logger.say:
                del self.logger.say[which % len(self.logger.say)]
            case "break":
                self.to_logger.clear()
                self.logger.say.clear()
                self.session.lost(self.now_ns)
            case "crash" | "crash unnoticed":
                self.logger.crash()
                self.to_logger.clear()
                if what == "crash":
                    self.session.lost(self.now_ns)

    @rule(what=st.sampled_from(OPERATIONS))
    def operator(self, what: str) -> None:
        logger = self.logger
        match what:
            case "pause" if 1 in logger.active:
                logger.active.remove(1)
                logger.held.add(1)
            case "resume" if 1 in logger.held:
                logger.held.remove(1)
                logger.active.add(1)
            case "stop" if 2 in logger.active:
                logger.active.remove(2)
                logger.ending.add(2)
            case "abort":
                logger.refuse_runs.add(2)
            case "credit" | "no credit":
                logger.waiting = "" if what == "credit" else "disk full"
        logger.acknowledge()

    # --- what always holds ------------------------------------------------------------------------

    @invariant()
    def stored_is_a_prefix_of_what_was_sent(self) -> None:
        for key, events in self.logger.kept.stored.items():
            assert events == self.taken[key][: len(events)]

    @invariant()
    def memory_is_bounded(self) -> None:
        if hasattr(self, "session"):
            assert 0 <= self.session.batches.queued_bytes <= QUEUE_BYTES
            assert self.session.failure is None

    @invariant()
    def acknowledged_is_stored(self) -> None:
        if hasattr(self, "session"):
            assert self.session.batches.acknowledged <= self.logger.kept.acknowledged

    # --- the end ----------------------------------------------------------------------------------

    def heal(self) -> None:
        """From here on nothing is lost."""
        self.logger.waiting = ""
        self.logger.active |= self.logger.held
        self.logger.held.clear()

    def turn(self) -> None:
        self.source_sends(50)
        self.logger_hears(50)
        self.logger.commit_all()
        self.logger.acknowledge()
        self.source_hears(10**6)
        self.now_ns += 50 * MS

    def turn_until(self, what: str, holds: Callable[[], bool]) -> None:
        for _ in range(3000):
            if holds():
                return
            self.turn()
        raise AssertionError(f"never: {what}; {vars(self.session)} {vars(self.logger)}")

    def feed_all(self) -> None:
        """Of a replay: what is left to be given."""

    def teardown(self) -> None:
        if not hasattr(self, "session"):
            return
        self.heal()
        for run in sorted(self.logger.ending):
            self.turn_until(f"answer for run {run}", lambda run=run: run in self.logger.ends)
            # What was admitted by then is all that there is of the run.
            marks = [n for (of, _), n in self.logger.marks.items() if of == run]
            assert self.logger.ends[run] == max(marks, default=0)
            self.logger.end_run(run)
        self.feed_all()
        self.session.close()
        self.turn_until("the session is over", lambda: self.session.phase is Phase.OVER)
        refused = 0
        for key, events in self.taken.items():
            stored = self.logger.kept.stored.get(key, [])
            assert stored == events[: len(stored)]
            assert len(stored) == len(events) or key[0] in self.logger.refuse_runs
            refused += len(events) - len(stored)
        assert self.logger.kept.closed
        assert self.session.batches.queued_bytes == 0
        report = self.session.counts.report({})
        assert sum(stream.acknowledged for stream in report.values()) == self.pieces - refused
        assert sum(stream.pending for stream in report.values()) == 0
        assert self.session.counts.reasons() == ({"run-aborted": refused} if refused else {})


class Replay(World):
    """The same for a replay: its process is killed as well, and all events are given again."""

    replay = True

    def __init__(self) -> None:
        super().__init__()
        self.script: list[tuple[int, tuple[str, ...], int]] = []
        self.given = 0
        self.saved = Progress()

    def send_one(self, run: int, streams: tuple[str, ...], size: int) -> None:
        self.script.append((1, streams, size))
        self.give(1)

    def give(self, events: int) -> None:
        """The next events of the script, as far as the queue takes them."""
        while events and self.given < len(self.script):
            run, streams, size = self.script[self.given]
            if not self.session.has_room(RunNumber(run), size + 32):
                return
            self.count = self.given
            known = len(self.script_taken())
            super().send_one(run, streams, size)
            if self.given < known:
                for name in streams:
                    self.taken[run, name].pop()
                self.pieces -= len(streams)
            self.given += 1
            events -= 1

    def script_taken(self) -> set[int]:
        return {number for events in self.taken.values() for number, _, _ in events}

    @rule()
    def save(self) -> None:
        self.saved = self.session.progress
        self.session.progress_saved(self.saved)

    @rule()
    def source_is_killed(self) -> None:
        self.to_logger.clear()
        self.logger.say.clear()
        self.session = self.new_session(self.saved)
        self.given = 0

    @rule(events=st.integers(1, 40))
    def give_again(self, events: int) -> None:
        self.give(events)

    def feed_all(self) -> None:
        for _ in range(3000):
            self.give(10**6)
            if self.given == len(self.script):
                return
            self.turn()
        raise AssertionError("the queue stays full")


World.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
Replay.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestSession = World.TestCase
TestReplay = Replay.TestCase


def walk(world: World, seed: int, steps: int) -> None:
    """A long way through the same rules: what goes wrong late in a session is found here, and what
    Hypothesis finds is short."""
    chance = random.Random(seed)
    world.begin(chance.choice([9000, 20_000, 10**9]), chance.random() < 0.5)
    for _ in range(steps):
        kind = chance.random()
        if kind < 0.3:
            world.send(
                chance.choice([1, 1, 2]), chance.choices(STREAM_SETS, k=chance.randint(1, 4)),
                chance.choice([0, 100, 900, 6000]), chance.randint(1, 12), chance.random() < 0.3,
            )  # fmt: skip
        elif kind < 0.5:
            world.some_messages_move(*(chance.randint(0, 12) for _ in range(3)))
        elif kind < 0.7:
            world.all_messages_move(chance.choice([0, 6, 30, 110]))
        elif kind < 0.8:
            world.commit(chance.randint(0, 5), chance.randint(1, 5), chance.random() < 0.5)
        elif kind < 0.88:
            world.commit_all(chance.random() < 0.5)
        elif kind < 0.91:
            world.time_passes(chance.choice([5, 60, 100, 250, 700]))
        elif kind < 0.96:
            world.trouble(chance.choice(TROUBLES), chance.randint(0, 10))
        elif kind < 0.98:
            world.operator(chance.choice(OPERATIONS))
        elif isinstance(world, Replay):
            chance.choice([world.save, world.source_is_killed])()
        if isinstance(world, Replay):
            world.give_again(chance.randint(0, 10))
        world.stored_is_a_prefix_of_what_was_sent()
        world.memory_is_bounded()
        world.acknowledged_is_stored()
    world.teardown()


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("kind", [World, Replay])
def test_a_long_way_through_troubles_ends_with_everything_stored(
    kind: type[World], seed: int
) -> None:
    walk(kind(), seed, 300)
