"""The rules of the protocol (design, section 4), each with its own test: left out, it fails."""

from __future__ import annotations

from dlog.model.ids import RunNumber, StreamName
from dlog.simulation.sources import SimulatedSource
from dlog.simulation.world import Life, World

RUN, OTHER_RUN = RunNumber(7), RunNumber(8)
PHOTONS, RAW = StreamName("photons"), StreamName("raw")


def running(seed: int = 1, *, streams: dict[str, dict[str, object]] | None = None) -> World:
    """Two runs of two streams."""
    world = World(seed)
    world.do("INIT", drain_seconds=0.0)
    world.do("CONFIGURE", streams=streams or {"photons": {}, "raw": {}})
    world.do("START RUN", run=RUN)
    world.do("START RUN", run=OTHER_RUN)
    return world


def life_of(world: World) -> Life:
    assert world.life is not None
    return world.life


def turn(world: World, *, without: tuple[tuple[int, str], ...] = (), rounds: int = 6) -> None:
    """Everyone works but some writers, and time passes."""
    life = life_of(world)
    for _ in range(rounds):
        world.clock.advance(25_000_000)
        for source in world.sources:
            source.step()
        world.coor.step(life.link)
        life.commander.step()
        if life.events is not None:
            life.events.step()
        for writer in life.writers:
            key = writer.writer.key
            if (int(key.run), str(key.stream)) not in without and not writer.writer.over:
                writer.step()
        life.committer.step()


def send(source: SimulatedSource, run: int, streams: tuple[StreamName, ...], *numbers: int) -> None:
    for number in numbers:
        assert source.send(run, streams, number, bytes([number]) * 100)


def holds(world: World) -> None:
    """All that was sent is there once, after every source has sent what was not acknowledged."""
    world.settle()
    assert world.problems(complete=True) == []
    assert world.failures == []
    assert world.lost == []


# --- a watermark advances in the order of admission, whoever takes the piece ---------------------


def test_a_piece_for_the_orphans_waits_for_those_of_its_stream_before_it() -> None:
    world = running()
    source = world.source("router-1")
    send(source, RUN, (PHOTONS,), 1)
    world.settle()
    stuck = ((RUN, "photons"),)
    send(source, RUN, (PHOTONS,), 2)
    turn(world, without=stuck)  # handed to the stream's writer, not on disk
    world.give("STOP RUN", run=RUN)
    source.deaf = True
    turn(world, without=stuck)
    send(source, RUN, (PHOTONS,), 3)
    turn(world, without=stuck, rounds=20)
    source.deaf = False
    world.kill()
    holds(world)


def test_a_piece_that_is_refused_waits_for_those_of_its_stream_before_it() -> None:
    world = running()
    source = world.source("router-1")
    send(source, RUN, (PHOTONS,), 1)
    world.settle()
    stuck = ((RUN, "photons"),)
    send(source, RUN, (PHOTONS,), 2)
    turn(world, without=stuck)
    source.deaf = True
    world.give("ABORT RUN", run=RUN)
    turn(world, without=stuck)
    send(source, RUN, (PHOTONS,), 3)
    turn(world, without=stuck, rounds=20)
    source.deaf = False
    world.kill()
    holds(world)


def test_a_new_event_server_knows_what_the_one_before_had_admitted() -> None:
    """INIT between two runs: pieces of the first may still be on their way to the orphans' file."""
    world = running()
    source = world.source("router-1")
    stuck = ((0, "orphan"),)
    send(source, 9, (PHOTONS,), 1)
    turn(world, without=stuck)
    assert source.machine.events_pending == 1
    for run in (RUN, OTHER_RUN):
        world.give("STOP RUN", run=run)
        turn(world, without=stuck, rounds=30)
    world.give("INIT")
    turn(world, without=stuck)
    number = world.give("START RUN", run=10)
    turn(world, without=stuck, rounds=100)
    assert world.coor.answers[number].ok
    holds(world)
