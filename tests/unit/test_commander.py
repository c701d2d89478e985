"""The commander and its runs: commands that cross each other, and what a restart finds of them."""

from __future__ import annotations

import pytest

from dlog.core import journal_records as records
from dlog.core.journal_records import StreamRecord
from dlog.core.states import LoggerState, RunState
from dlog.errors import JournalFailed
from dlog.faults.simulation.steps import Operation, When
from dlog.faults.simulation.world import World
from dlog.model.ids import NO_RUN, ORPHAN_STREAM, StreamKey
from dlog.model.messages import Command, encode_json
from dlog.services import command_desk
from dlog.services.space_watch import INTERVAL_NS
from tests.simulated_logger import (
    OTHER_RUN,
    PHOTONS_FILES,
    RUN,
    configured,
    fail,
    holds,
    life_of,
    problems_after_crashes,
    running,
    send,
    work,
)


def control(world: World) -> None:
    """COOR, commander, committer and event server work, and no writer."""
    work(world, writers=False)


def test_a_run_is_over_only_when_every_writer_is_although_one_gets_ready_late() -> None:
    world = configured()
    world.give("START RUN", run=RUN)
    control(world)
    life = life_of(world)
    first, second = (w for w in life.writers if w.writer.key.run == RUN)
    world.give("ABORT RUN", run=RUN)
    control(world)
    first.step()  # it opens its part, and is ready
    second.step()
    control(world)
    first.step()  # it ends
    assert first.writer.over
    control(world)
    assert RUN in life.commander.runs
    second.step()
    control(world)
    assert RUN not in life.commander.runs


def test_a_run_that_is_drained_while_its_abort_is_being_committed_ends() -> None:
    world = running()
    source = world.source("router-1")
    send(source, 1)
    world.settle()
    source.silent = True
    world.give("STOP RUN", run=RUN)
    control(world)
    life = life_of(world)
    number = world.give("ABORT RUN", run=RUN)
    world.coor.step(life.link)
    life.commander.step()  # the abort is on its way into the journal
    life.commander.drained(RUN)
    life.commander.step()
    for _ in range(10):
        for writer in life.writers:
            writer.step()
        control(world)
    assert RUN not in life.commander.runs
    assert world.coor.answers[number].data["state"] == "ABORTED"
    assert not world.coor.answers[number - 1].ok


def test_a_second_abort_is_answered_with_the_first_and_a_stop_is_refused() -> None:
    world = running()
    life = life_of(world)
    numbers = [world.give("ABORT RUN", run=RUN) for _ in range(2)]
    numbers.append(world.give("STOP RUN", run=RUN))
    world.coor.step(life.link)
    life.commander.step()
    world.run_until(lambda: all(n in world.coor.answers for n in numbers), "no answer")
    assert [world.coor.answers[n].ok for n in numbers] == [True, True, False]


@pytest.mark.parametrize("command", ["STOP RUN", "STOP"])
def test_what_is_asked_for_twice_is_answered_twice(command: str) -> None:
    world = running(drain_seconds=1.0)
    source = world.source("router-1")
    send(source, 1)
    world.settle()
    source.silent = True  # so that the run drains for a while
    numbers = [world.give(command, **({"run": RUN} if command == "STOP RUN" else {}))]
    control(world)
    assert numbers[0] not in world.coor.answers
    numbers.append(world.give(command, **({"run": RUN} if command == "STOP RUN" else {})))
    world.run_until(lambda: all(n in world.coor.answers for n in numbers), "no answer")
    first, second = (world.coor.answers[n] for n in numbers)
    assert (first.ok, second.ok) == (True, True)
    assert first.data == second.data


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
def test_a_second_stop_run_is_answered_over_a_crash(when: When) -> None:
    begin = running().steps.count
    for step in range(begin + 1, begin + 60, 7):
        world = running(drain_seconds=0.2)
        source = world.source("router-1")
        send(source, 1)
        world.steps.crash_at(step, when)
        numbers = [world.give("STOP RUN", run=RUN)]
        world.pump(3)
        numbers.append(world.give("STOP RUN", run=RUN))
        world.run_until(
            lambda w=world, ns=numbers: all(n in w.coor.answers for n in ns),  # type: ignore[misc]
            "no answer",
        )
        answers = [world.coor.answers[n] for n in numbers]
        assert answers[0].ok
        assert answers[1].ok or answers[1].error.startswith("run 7 is ENDED already")


def test_a_refusal_says_what_became_of_the_run() -> None:
    world = running(drain_seconds=0.0)
    number = world.give("START RUN", run=OTHER_RUN)
    again = world.give("START RUN", run=OTHER_RUN)
    world.run_until(lambda: again in world.coor.answers, "no answer")
    text = world.coor.answers[again].error
    assert text == "run 8 is in the journal already: it is STARTING"
    world.run_until(lambda: number in world.coor.answers, "no answer")
    assert world.do("STOP RUN", run=RUN).ok
    assert world.do("STOP RUN", run=RUN).error == "run 7 is ENDED already; active runs: 8"
    assert world.do("PAUSE RUN", run=3).error == "run 3 is not active; active runs: 8"


@pytest.mark.parametrize("when", list(When))
def test_a_logger_without_a_run_is_never_found_running(when: When) -> None:
    """A crash at every step of a STOP that ends a run first."""
    begin = running().steps.count
    step = begin
    while True:
        step += 1
        world = running()
        world.steps.crash_at(step, when)
        problems = problems_after_crashes(world)
        assert world.do("STOP").ok
        world.pump(5)
        assert problems == []
        if world.reboots == 0:
            assert step > begin + 10
            return


def test_stop_is_answered_as_done_only_by_a_logger_that_ends() -> None:
    """A crash at every step of it, also between the commit of the answer and its own end; whatever
    supervises the logger starts it again at once."""
    codes = set()
    begin = running().steps.count
    for step in range(begin + 1, begin + 200):
        world = running()
        world.steps.crash_at(step, When.AFTER)
        number = world.give("STOP")
        world.run_until(lambda w=world, n=number: n in w.coor.answers, "no answer")  # type: ignore[misc]
        answer = world.coor.answers[number]
        world.pump(20)
        codes.add(answer.code)
        if answer.ok:
            assert world.stopped
        else:
            assert (answer.code, answer.repeated) == ("started-again", False)
            assert str(life_of(world).commander.record.state) in answer.error
            assert world.do("STOP").ok
        if world.reboots == 0:
            break
    assert codes == {"", "started-again"}


def test_a_stopped_logger_begins_anew() -> None:
    world = running()
    assert world.do("STOP").ok
    world.pump(3)
    world.stopped = False
    world.pump(3)
    assert life_of(world).commander.record.state is LoggerState.PREINITIALIZED
    assert world.do("INIT").ok


def test_a_command_that_is_not_accepted_names_the_state_and_changes_nothing() -> None:
    world = World(1)
    world.pump(1)
    before = life_of(world).commander.record.state
    for command in ("CONFIGURE", "START RUN", "SET DEBUG"):
        answer = world.do(command, run=1)
        assert not answer.ok
        assert answer.code == "transition"
        assert str(before) in answer.error
        assert answer.accepts
        assert life_of(world).commander.record.state is before


def test_the_same_id_is_carried_out_once_over_a_restart() -> None:
    world = running()
    first = world.do("PAUSE RUN", run=RUN)
    number = max(world.coor.answers)
    world.kill()
    world.pump(3)
    text = world.coor.text_of(number)
    link = life_of(world).link
    link.commands.append((world.coor.PEER, text))
    control(world)
    assert world.coor.answers[number] == first
    assert life_of(world).commander.runs[RUN].record.state is RunState.PAUSED


def test_the_same_id_with_another_body_is_refused() -> None:
    world = running()
    assert world.do("PAUSE RUN", run=RUN).ok
    number = max(world.coor.answers)
    text = world.coor.text_of(number).replace(b"PAUSE RUN", b"ABORT RUN")
    link = life_of(world).link
    link.commands.append((b"somebody", text))
    life_of(world).commander.step()
    assert b"id-reused" in link.answers[-1][1]
    assert life_of(world).commander.runs[RUN].record.state is RunState.PAUSED


@pytest.mark.parametrize(
    ("command", "parameters"),
    [
        ("CONFIGURE", {"streams": {"photons": {f"k{n}": 0 for n in range(25_000)}}}),
        ("START RUN", {"run": "\U0001f40d" * 40_000}),
        ("PLEASE " * 30_000, {}),
    ],
)
def test_a_long_command_gets_a_bounded_answer_and_the_logger_goes_on(
    command: str, parameters: dict[str, object]
) -> None:
    # All that was wrong with it was more than a journal value holds: the logger died of it, and
    # again when COOR repeated it.
    world = configured()
    life = life_of(world)
    text = encode_json(Command(session="ab", number=1000, command=command, parameters=parameters))
    life.link.commands.append((b"somebody", text))
    life.commander.step()
    control(world)
    assert world.do("START RUN", run=RUN).ok
    assert world.failures == []
    assert life_of(world) is life
    assert life.commander.record.state is LoggerState.RUNNING
    assert all(len(value) < 1_000_000 for value in world.store.pairs.values())


def test_a_stream_whose_data_directory_is_gone_starts_no_run_until_it_is_configured_again() -> None:
    # The stream's thread died of it, and again at each start, since the run was journalled by then.
    world = World(seed=1, directories=2)
    assert world.do("INIT").ok
    assert world.do("CONFIGURE", streams={"photons": {"directories": [1]}}).ok
    world.kill()
    del world.disks[1]
    answer = world.do("START RUN", run=RUN)
    assert (answer.ok, answer.code) == (False, "configuration")
    assert world.do("CONFIGURE", streams={"photons": {}}).ok
    assert world.do("START RUN", run=RUN).ok
    assert world.failures == []


def test_orphans_go_to_a_directory_that_there_is() -> None:
    world = running()
    world.kill()
    key = records.stream_key(StreamKey(NO_RUN, ORPHAN_STREAM))
    moved = StreamRecord(run=NO_RUN, stream=ORPHAN_STREAM, directory=1)
    world.store.pairs[key] = records.encode_record(key, moved)
    world.store.keys = sorted(world.store.pairs)
    source = world.source("router-1")
    send(source, 1, run=OTHER_RUN)
    holds(world)


def test_a_journal_that_is_full_for_a_moment_stops_the_credit_for_no_longer() -> None:
    # Routes that were sent in that moment said so for ever, when no look at the space fell into it.
    world = running(runs=(RUN, OTHER_RUN))
    life = life_of(world)
    source = world.source("router-1")
    send(source, 1)
    holds(world)
    world.give("PAUSE RUN", run=OTHER_RUN)
    world.coor.step(life.link)
    life.commander.step()
    life.committer.step()  # paused: the routes are next
    world.fill_journal(10**15)
    send(source, 2)
    for _ in range(10):
        world.clock.advance(5_000_000)
        for step in (source.step, *life.threads()):
            if step != life.commander.step:
                step()
    life.commander.step()
    world.free_journal()
    life.committer.step()
    for step in (life.events.step, source.step):
        step()
    assert source.machine.waiting == "the journal is full"
    assert life.alarms.raised() == []
    send(world.source("router-2"), 1)  # it has no credit yet
    holds(world)
    assert life_of(world) is life


def test_a_run_starts_beside_a_directory_that_hangs_and_no_command_waits_for_it() -> None:
    world = World(seed=1, directories=2)
    assert world.do("INIT").ok
    streams = {"near": {"directories": [0]}, "far": {"directories": [1]}}
    assert world.do("CONFIGURE", streams=streams).ok
    world.disks[1].hangs = True
    world.run_until(lambda: life_of(world).commander.watches[1].asked_ns != 0, "it is not asked")
    world.clock.advance(2 * INTERVAL_NS)
    answer = world.do("START RUN", run=RUN)
    assert (answer.ok, answer.code) == (False, "run")
    assert "no answer for 2 s" in answer.error
    assert world.do("CONFIGURE", streams={"near": {"directories": [0]}}).ok
    assert world.do("START RUN", run=RUN).ok
    world.disks[1].hangs = False
    holds(world)


@pytest.mark.parametrize("command", ["STOP RUN", "ABORT RUN", "STOP"])
def test_the_answer_names_the_files_that_could_not_be_closed(command: str) -> None:
    world = running(drain_seconds=0.0)
    fail(world, Operation.NAME, path=PHOTONS_FILES, times=None)
    answer = world.do(command, **({} if command == "STOP" else {"run": RUN}))
    assert answer.ok
    (file,) = answer.data["not_closed"]
    assert file.startswith("runs/7/photons_0001.dlog: ")
    assert "Input/output error" in file


REFUSED = (
    ("INIT", {}, "transition"),
    ("CONFIGURE", {"streams": {}}, "configuration"),
    ("START RUN", {"run": RUN}, "run"),
    ("PAUSE RUN", {"run": 99}, "run"),
    ("RESUME RUN", {"run": RUN}, "transition"),
    ("STOP RUN", {"run": 99}, "run"),
    ("ABORT RUN", {"run": 99}, "run"),
    ("SET DEBUG", {"level": "loud"}, "parameters"),
    ("MAKE TEA", {}, "unknown-command"),
)


@pytest.mark.parametrize(("command", "parameters", "code"), REFUSED, ids=[r[0] for r in REFUSED])
def test_a_command_is_refused_with_its_reason_while_the_journal_is_full(
    command: str, parameters: dict[str, object], code: str
) -> None:
    world = running()
    world.fill_journal(10**15)
    answer = world.do(command, **parameters)
    assert (answer.ok, answer.code) == (False, code)
    assert answer.error
    assert life_of(world).committer.full_since_ns is not None
    world.free_journal()
    holds(world)


def test_a_refusal_is_told_again_to_who_asks_again_on_a_full_journal() -> None:
    world = running()
    world.fill_journal(10**15)
    first = world.do("PAUSE RUN", run=99)
    life = life_of(world)
    text = world.coor.text_of(first.number)
    for _ in range(3):  # as it may come behind a reconnect
        life.link.commands.append((b"coor", text))
        world.pump(5)
    assert world.coor.answers[first.number] == first  # the simulated COOR takes no other one
    assert not life.link.answers
    life.link.commands.append((b"another", text))
    life.commander.step()
    life.commander.step()
    assert [peer for peer, _ in life.link.answers] == [b"another"]
    world.free_journal()
    world.pump(5)
    assert len(life.commander.last_commands) == 4
    assert life.commander.last_commands[-1].error == first.error
    holds(world)


@pytest.mark.parametrize("command", ["STOP RUN", "ABORT RUN", "STOP"])
def test_refusals_that_wait_for_a_full_journal_keep_no_run_from_being_ended(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_desk, "COMMANDS_IN_HAND_MAX", 20)
    world = running()
    world.fill_journal(10**15)
    for _ in range(20):
        assert not world.do("PAUSE RUN", run=99).ok
    number = world.give(command, **({} if command == "STOP" else {"run": RUN}))
    world.run_until(lambda: number in world.coor.answers, "it is not answered", rounds_max=600)
    assert world.coor.answers[number].ok


def test_a_refusal_is_told_before_a_journal_that_fails_ends_the_logger() -> None:
    world = running()
    life = life_of(world)
    number = world.give("PAUSE RUN", run=99)
    world.coor.step(life.link)
    life.commander.step()  # the refusal is on its way into the journal
    life.commander.fail(JournalFailed("journal: a commit failed"))
    with pytest.raises(JournalFailed):
        life.commander.step()
    world.coor.step(life.link)
    assert world.coor.answers[number].code == "run"
