"""The stream's thread: what it writes, in which order it settles, and what its faults cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from dlog.errors import StorageError
from dlog.faults.simulation.disk import SimulatedSync
from dlog.faults.simulation.steps import FaultKind, Operation, When
from dlog.ports import DataFile
from dlog.services.housekeeper import Housekeeper
from dlog.services.live_state import config_of_ended
from dlog.services.parts import Part
from tests.simulated_logger import (
    OTHER_RUN,
    PHOTONS_FILES,
    RAW,
    RUN,
    closed_files,
    configured,
    fail,
    holds,
    life_of,
    running,
    send,
    work,
)

SPACE_COMES_BACK_NS = 100_000_000_000


@pytest.mark.parametrize("when", list(When))
def test_what_an_abort_refuses_is_settled_behind_what_was_taken_up_before(when: When) -> None:
    for step in range(1, 30):
        streams = {"photons": {"flush_interval_ms": 10_000}}
        world = running(step, runs=(RUN, OTHER_RUN), streams=streams)
        source = world.source("router-1")
        send(source, 1)
        work(world, writers=False)
        writer = next(w for w in life_of(world).writers if w.writer.key.run == RUN)
        writer.step()  # taken up, and waits for more
        send(source, 2)
        work(world, writers=False)
        world.give("ABORT RUN", run=RUN)
        work(world, writers=False)
        world.steps.crash_at(world.steps.count + step, when)
        holds(world)


def test_a_run_that_ends_without_space_settles_all_that_was_handed_in() -> None:
    # What the writer had not fetched yet was never settled: its source waited for ever.
    world = running(runs=(OTHER_RUN, RUN), streams={"photons": {}}, drain_seconds=0.05)
    source = world.source("router-1", batch_events=1)
    world.pump(5)
    send(source, *range(60), size_bytes=20_000)
    work(world, writers=False)
    number = world.give("STOP RUN", run=RUN)
    work(world, writers=False, rounds=20)
    no_space = Operation.WRITE, Operation.RESERVE, Operation.CREATE
    fail(world, *no_space, kind=FaultKind.NO_SPACE, times=None)
    world.run_until(lambda: number in world.coor.answers, "STOP RUN is not answered")
    world.steps.clear_faults()
    holds(world)
    assert "no-space-at-end-of-run" in source.machine.counts.reasons()


class _SyncsOnlyHeaders:
    """A disk that takes a header page and fails at every later sync, as a thin volume may."""

    def __init__(self, file: DataFile) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def sync_behind(self, over: Callable[[], None]) -> SimulatedSync:
        def sync() -> None:
            raise StorageError("Input/output error", path=self._file.path)

        return SimulatedSync(sync, over, lambda: True)


def test_a_disk_that_fails_at_every_sync_stalls_the_stream_and_no_more() -> None:
    world = configured()
    (directory,) = life_of(world).directories
    create = directory.create

    def create_bad(path: str) -> DataFile:
        file = create(path)
        return _SyncsOnlyHeaders(file) if "photons" in path else file  # type: ignore[return-value]

    directory.create = create_bad  # type: ignore[method-assign, assignment]
    world.do("START RUN", run=RUN)
    bad, good = world.source("router-1"), world.source("router-2")
    send(bad, 1)
    send(good, 1, streams=(RAW,))
    world.run_until(lambda: good.idle, "the other stream stands still")
    world.pump(100)
    assert not bad.idle
    parts = [name for name in directory.names("runs/7") if name.startswith("photons")]
    assert len(parts) < 20
    assert world.do("STOP RUN", run=RUN).ok
    assert world.problems(complete=True) == []


@pytest.mark.parametrize(
    ("command", "begun"),
    [("ABORT RUN", 0), ("STOP", 0), *((c, n) for c in ("STOP RUN", "STOP") for n in (1, 2, 3))],
)
def test_a_run_can_be_ended_while_a_full_journal_holds_up_its_writer(
    command: str, begun: int
) -> None:
    # A part took several commits to make or to close, of which those begun before the command were
    # not given the ballast: the run hung until there was space.
    world = configured(streams={"photons": {"part_events": 10, "ranges": False}, "raw": {}})
    if not begun:
        world.fill_journal(SPACE_COMES_BACK_NS)
        world.give("START RUN", run=RUN)
        world.pump()
    else:
        world.do("START RUN", run=RUN)
        source = world.source("router-1")
        world.pump(3)
        send(source, *range(45), size_bytes=1)
        world.pump(begun)
        world.fill_journal(SPACE_COMES_BACK_NS)
    begin_ns = world.clock.monotonic_ns()
    number = world.give(command, **({} if command == "STOP" else {"run": RUN}))
    world.run_until(lambda: number in world.coor.answers, f"{command} is not answered")
    assert world.coor.answers[number].ok
    assert world.clock.monotonic_ns() - begin_ns < SPACE_COMES_BACK_NS // 2


def test_a_stalled_stream_is_an_alarm_until_its_run_is_over() -> None:
    world = running(streams={"photons": {}}, drain_seconds=0.05)
    source = world.source("router-1", batch_events=1)
    world.pump(5)
    no_space = Operation.WRITE, Operation.RESERVE, Operation.CREATE
    fail(world, *no_space, kind=FaultKind.NO_SPACE, times=None)
    send(source, *range(60), size_bytes=40_000)
    alarms = life_of(world).alarms
    stalled = "stalled run 7 stream photons"
    world.run_until(
        lambda: stalled in [alarm.name for alarm in alarms.raised()], "the stream stalls"
    )
    (stream,) = [w.writer for w in life_of(world).writers if w.writer.key.run == RUN]
    assert stream.stalled == "no-space"
    assert world.do("STOP RUN", run=RUN).ok
    texts = {alarm.name: alarm.text for alarm in alarms.raised()}
    assert set(texts) == {"refused router-1", "close run 7 photons_0001.dlog"}
    assert texts["refused router-1"] == (
        "events of router-1 for run 7 stream photons refused: no-space-at-end-of-run"
    )


def test_a_part_that_is_settled_before_its_close_is_told_to_have_failed_leaves_no_alarm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = running(streams={"photons": {}}, drain_seconds=0.05)
    send(world.source("router-1"), 1)
    world.settle()
    life = life_of(world)
    watches = life.commander.watches
    config = partial(config_of_ended, life.journal)
    housekeeper = Housekeeper(life.journal, life.storage, config, watches)
    let_go = Part.let_go

    def settled_at_once(part: Part) -> None:
        let_go(part)
        housekeeper.step()

    monkeypatch.setattr(Part, "let_go", settled_at_once)
    fail(world, Operation.NAME, path=PHOTONS_FILES)
    assert world.do("STOP RUN", run=RUN).ok
    (closed,) = closed_files(world)
    assert closed.sealed
    assert life.alarms.raised() == []


def test_a_part_that_could_not_be_closed_is_no_alarm_any_more_once_it_is() -> None:
    world = running(streams={"photons": {}}, drain_seconds=0.05)
    source = world.source("router-1")
    send(source, 1)
    world.settle()
    fail(world, Operation.NAME, path=PHOTONS_FILES, times=None)
    assert world.do("STOP RUN", run=RUN).ok
    alarms = life_of(world).alarms
    close, file = "close run 7 photons_0001.dlog", "file runs/7/photons_0001.dlog"
    assert close in [alarm.name for alarm in alarms.raised()]
    world.run_until(
        lambda: file in [alarm.name for alarm in alarms.raised()], "the housekeeper does not try"
    )
    world.steps.clear_faults()
    world.run_until(lambda: not alarms.raised(), "the alarms stand")
    holds(world)
