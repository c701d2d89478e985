"""A network in memory: messages between sources and logger that may vanish, come twice or late.

It knows nothing of what they say. Chance is drawn per peer, so that one peer's weather does not
depend on what the others send.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

from dlog.faults.simulation.clock import SimulatedClock

# As many as the real link takes at once.
RECEIVED_AT_ONCE_MAX: Final = 64


class Weather(NamedTuple):
    """Chances, by message. A delayed one is overtaken, as around a reconnection."""

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    delay_ns_max: int = 300_000_000


CALM: Final = Weather()


class _Way:
    """One direction of one connection."""

    def __init__(self, random: Random, clock: SimulatedClock) -> None:
        self._random = random
        self._clock = clock
        self._under_way: list[tuple[int, bytes]] = []

    def send(self, message: bytes, weather: Weather) -> None:
        if self._random.random() < weather.drop:
            return
        copies = 2 if self._random.random() < weather.duplicate else 1
        for _ in range(copies):
            due_ns = self._clock.monotonic_ns()
            if self._random.random() < weather.delay:
                due_ns += self._random.randrange(weather.delay_ns_max)
            self._under_way.append((due_ns, message))

    def take(self) -> list[bytes]:
        now = self._clock.monotonic_ns()
        come = [message for due_ns, message in self._under_way if due_ns <= now]
        self._under_way = [(due_ns, m) for due_ns, m in self._under_way if due_ns > now]
        return come

    def clear(self) -> None:
        self._under_way.clear()


class SimulatedNetwork:
    """All connections of the event link. `weather` may be set at any time."""

    def __init__(self, seed: int, clock: SimulatedClock) -> None:
        self.weather = CALM
        self._seed = seed
        self._clock = clock
        self._to_logger: dict[bytes, _Way] = {}
        self._to_source: dict[bytes, _Way] = {}

    def connect(self, peer: bytes) -> None:
        for name, ways in (("up", self._to_logger), ("down", self._to_source)):
            random = Random(f"{self._seed}/{name}/{peer.hex()}")
            ways.setdefault(peer, _Way(random, self._clock))

    def cut(self) -> None:
        """Every connection breaks: what is under way is lost."""
        for way in (*self._to_logger.values(), *self._to_source.values()):
            way.clear()

    def send_to_logger(self, peer: bytes, message: bytes) -> None:
        self._to_logger[peer].send(message, self.weather)

    def receive_at_source(self, peer: bytes) -> list[bytes]:
        return self._to_source[peer].take()

    def send_to_source(self, peer: bytes, message: bytes) -> bool:
        way = self._to_source.get(peer)
        if way is None:
            return False
        way.send(message, self.weather)
        return True

    def receive_at_logger(self) -> list[tuple[bytes, bytes]]:
        return [(peer, m) for peer, way in self._to_logger.items() for m in way.take()]


class SimulatedEventLink:
    """`ports.EventLink` for one life of the logger. `sent` sees each message that leaves it."""

    def __init__(self, network: SimulatedNetwork, sent: Callable[[bytes, bytes], None]) -> None:
        self._network = network
        self._sent = sent
        self._come: deque[tuple[bytes, bytes]] = deque()

    @property
    def address(self) -> str:
        return "tcp://127.0.0.1:7000"

    def receive(self, timeout_ms: int) -> list[tuple[bytes, memoryview, str]]:
        self._come.extend(self._network.receive_at_logger())
        number = min(len(self._come), RECEIVED_AT_ONCE_MAX)
        taken = [self._come.popleft() for _ in range(number)]
        return [(peer, memoryview(message), "127.0.0.1:1") for peer, message in taken]

    def wake(self) -> None:
        """Nobody waits."""

    def send(self, peer: bytes, message: bytes) -> bool:
        self._sent(peer, message)
        return self._network.send_to_source(peer, message)


class SimulatedCoorLink:
    """`ports.CoorLink` for one life of the logger: commands in, answers and requests out."""

    def __init__(self) -> None:
        self.commands: deque[tuple[bytes, bytes]] = deque()
        self.answers: deque[tuple[bytes, bytes]] = deque()
        self.requests: deque[bytes] = deque()

    def receive(self, timeout_ms: int) -> list[tuple[bytes, bytes]]:
        come = list(self.commands)
        self.commands.clear()
        return come

    def wake(self) -> None:
        """Nobody waits."""

    def send(self, peer: bytes, message: bytes) -> None:
        self.answers.append((peer, message))

    def tell(self, message: bytes) -> None:
        self.requests.append(message)
