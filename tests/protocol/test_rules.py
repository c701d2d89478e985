"""The rules of the protocol (design, section 4), each with its own test: left out, it fails."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from dlog.core import journal_records as records
from dlog.core.event_file import decode_file_header
from dlog.core.frame import MessageKind, check_frame, control_body, encode_control
from dlog.core.journal_records import (
    FileRecord,
    SessionRecord,
    StreamRecord,
)
from dlog.core.scan import SpanKind, scan
from dlog.core.states import FileState
from dlog.errors import InvariantBroken, JournalFailed
from dlog.faults.simulation.network import CALM, Weather
from dlog.faults.simulation.sources import SimulatedSource
from dlog.faults.simulation.steps import FaultKind, Operation, When
from dlog.faults.simulation.witness import BytesOf
from dlog.faults.simulation.world import Stuck, World
from dlog.limits import MIB, PAGE_BYTES, REFUSALS_TOLD_MAX
from dlog.model.ids import FileKind, RunNumber, StreamKey, StreamName
from dlog.model.messages import Acknowledgement, Hello, Refused, decode_body, encode_body
from dlog.services.committer import Committer, Progress
from tests.simulated_logger import (
    OTHER_RUN,
    PHOTONS,
    PHOTONS_FILES,
    RAW,
    RUN,
    Streams,
    closed_files,
    fail,
    holds,
    life_of,
    open_files,
    problems_after_crashes,
    running,
    send,
    work,
)


def two_runs(seed: int = 1, *, streams: Streams | None = None, **init: object) -> World:
    """Two runs of two streams."""
    return running(seed, runs=(RUN, OTHER_RUN), streams=streams, drain_seconds=0.0, **init)


# --- a watermark advances in the order of admission, whoever takes the piece ---------------------


@pytest.mark.parametrize("command", ["STOP RUN", "ABORT RUN"])
def test_a_piece_for_another_taker_waits_for_those_of_its_stream_before_it(command: str) -> None:
    """For the orphans' file, or to be refused."""
    world = two_runs()
    source = world.source("router-1")
    send(source, 1)
    world.settle()
    stuck = ((RUN, "photons"),)
    send(source, 2)
    work(world, without=stuck)  # handed to the stream's writer, not on disk
    source.deaf = True
    world.give(command, run=RUN)
    work(world, without=stuck)
    send(source, 3)
    work(world, without=stuck, rounds=20)
    source.deaf = False
    world.kill()
    holds(world)


def test_a_new_event_server_knows_what_the_one_before_had_admitted() -> None:
    """INIT between two runs: pieces of the first may still be on their way to the orphans' file."""
    world = two_runs()
    source = world.source("router-1")
    stuck = ((0, "orphan"),)
    send(source, 1, run=9)
    work(world, without=stuck)
    assert source.machine.events_pending == 1
    for run in (RUN, OTHER_RUN):
        world.give("STOP RUN", run=run)
        work(world, without=stuck, rounds=30)
    world.give("INIT")
    work(world, without=stuck)
    number = world.give("START RUN", run=10)
    work(world, without=stuck, rounds=100)
    assert world.coor.answers[number].ok
    holds(world)


# --- blocks carry a number per (run, stream) across all their files -------------------------------

ROLLING: Streams = {"photons": {"part_events": 4, "late_seconds": 0.2}, "raw": {}}


def test_offsets_advance_along_consecutive_block_numbers_only() -> None:
    world = two_runs()
    committer = Committer(life_of(world).journal, world.clock, single_thread=True)
    stream = StreamRecord(run=99, stream="photons", next_block=4)
    committer.progress(Progress(stream, (), (), 3, 3))
    with pytest.raises(InvariantBroken, match="block 3 is durable, block 1 was expected"):
        committer.step()


def test_block_numbers_run_on_over_end_and_garbage_parts() -> None:
    world = two_runs(streams=ROLLING)
    source = world.source("router-1")
    send(source, *range(1, 10))
    world.settle()
    send(source, 2)  # to a part in END
    world.settle()
    world.pump(60)
    send(source, 3)  # to the garbage file
    holds(world)
    kinds = {file.kind for file in world.findings().files}
    assert len(kinds) == 2


# --- a piece counts as stored only where its last byte is -----------------------------------------


@pytest.mark.parametrize("when", [When.DURING, When.AFTER])
def test_a_commit_never_stops_inside_a_piece_that_straddles_parts(when: When) -> None:
    for step in range(1, 60, 2):
        world = two_runs(step, streams=ROLLING)
        source = world.source("router-1", batch_events=20)
        send(source, *range(1, 16))
        problems = problems_after_crashes(world)
        world.steps.crash_at(world.steps.count + step, when)
        holds(world)
        assert problems == []


# --- a range stays open though a fault ended its part ---------------------------------------------


@pytest.mark.parametrize("how", ["restarts", "housekeeping"])
def test_a_range_whose_part_a_fault_ended_stays_open_over_restarts(how: str) -> None:
    """The part is settled, and nothing goes on for it yet: only the stream's record knows it."""
    world = two_runs(streams={"photons": {"part_events": 4, "late_seconds": 1e6}, "raw": {}})
    source = world.source("router-1")
    send(source, *range(1, 7))
    world.settle()
    fail(world, Operation.SYNC_FILE, path=f"{PHOTONS_FILES}_0001")
    fail(world, Operation.CREATE, path=PHOTONS_FILES, times=None)
    send(source, 2)
    world.pump(20)
    source.silent = True
    world.pump(600 if how == "housekeeping" else 1)
    world.steps.clear_faults()
    for _ in range(3):
        world.kill()
        world.pump(10)
    source.silent = False
    holds(world)
    assert {file.kind for file in world.findings().files} == {FileKind.EVENTS}


def test_a_range_whose_part_found_no_space_stays_open_over_restarts() -> None:
    """The part is closed to go on in another one, and that is not made yet."""
    streams: Streams = {"photons": {"part_events": 4, "late_seconds": 1e6}}
    world = running(streams=streams, directories=2, drain_seconds=0.0)
    source = world.source("router-1")
    send(source, *range(1, 7))
    world.settle()
    world.kill()  # what was reserved is given back
    world.pump(10)
    world.disks[1].gone = True
    for operation in (Operation.RESERVE, Operation.CREATE):
        fail(world, operation, path=PHOTONS_FILES, kind=FaultKind.NO_SPACE, times=None)
    send(source, 2)
    world.run_until(
        lambda: any(file.part == 1 and file.stream == PHOTONS for file in closed_files(world)),
        "part 1 is not closed",
    )
    source.silent = True
    world.kill()
    world.steps.clear_faults()
    world.disks[1].gone = False
    world.pump(10)
    source.silent = False
    holds(world)
    assert {file.kind for file in world.findings().files} == {FileKind.EVENTS}


@pytest.mark.long
def test_a_range_that_closed_stays_closed_though_a_fault_had_ended_its_first_part() -> None:
    """Wherever the logger is killed between the fault and the commit behind the new part."""
    for step in range(1, 24):
        world = two_runs(streams={"photons": {"part_events": 4, "late_seconds": 1.0}, "raw": {}})
        source = world.source("router-1")
        send(source, *range(1, 7))
        world.settle()
        fail(world, Operation.SYNC_FILE, path=f"{PHOTONS_FILES}_0001")
        send(source, 2)
        world.steps.crash_at(world.steps.count + step, When.AFTER)
        holds(world)
        world.run_until(lambda w=world: not _ranges(w), "no part is in END")  # type: ignore[misc]
        send(source, 7)
        world.settle()
        key = records.stream_key(StreamKey(RUN, PHOTONS))
        stream = records.decode_record(key, world.store.pairs[key], StreamRecord)
        assert stream.unmade == [], step


def test_after_a_crash_a_range_stays_open_until_the_sources_can_be_back() -> None:
    """Those that were connected may take that long to send again what they had sent in time."""
    world = two_runs(streams=ROLLING)
    source = world.source("router-1")
    send(source, 1, *range(3, 8))
    world.settle()
    world.kill()
    source.silent = True
    begin_ns = world.clock.monotonic_ns()
    world.run_until(lambda: world.clock.monotonic_ns() > begin_ns + 2 * 10**9, "two seconds")
    source.silent = False
    send(source, 2)
    holds(world)
    assert {file.kind for file in world.findings().files} == {FileKind.EVENTS}


def _ranges(world: World) -> list[FileRecord]:
    """The parts that take late events alone."""
    return [record for record in open_files(world) if record.state is FileState.END]


# --- only the last admitted + 1 is admitted -------------------------------------------------------


def test_a_batch_behind_a_missing_one_is_dropped_counted_and_asked_for_again() -> None:
    world = two_runs()
    source = world.source("router-1", batch_events=1)
    send(source, 1)
    world.settle()
    world.network.weather = Weather(drop=1.0)
    send(source, 2)
    source.step()
    world.network.weather = CALM
    send(source, 3)
    work(world, rounds=3)
    (session,) = life_of(world).events.connections()  # type: ignore[union-attr]
    assert session.skipped["out-of-sequence"] >= 1
    holds(world)


# --- HELLO ----------------------------------------------------------------------------------------


def say(world: World, source: SimulatedSource, kind: MessageKind, body: object) -> None:
    source.silent = True
    world.network.receive_at_source(source.peer)
    world.network.send_to_logger(source.peer, encode_control(kind, encode_body(body)))  # type: ignore[arg-type]
    work(world, rounds=2)


def answers(world: World, source: SimulatedSource, kind: MessageKind) -> list[memoryview]:
    come = [memoryview(m) for m in world.network.receive_at_source(source.peer)]
    return [control_body(m) for m in come if check_frame(m, 2**20) == kind]


def hello(source: SimulatedSource, lowest: int) -> Hello:
    return Hello(
        session=source.session, name=source.name, host="h", process=1, lowest=lowest,
        position_bytes=10_000,
    )  # fmt: skip


def test_a_hello_above_the_acknowledgement_is_refused_with_an_alarm() -> None:
    world = two_runs()
    source = world.source("router-1")
    send(source, 1)
    world.settle()
    assert source.machine.batches.acknowledged == 1
    say(world, source, MessageKind.HELLO, hello(source, 5))
    (refused,) = answers(world, source, MessageKind.REFUSED)
    assert decode_body(refused, Refused).code == "gap"
    assert any(a.name == "gap router-1" for a in life_of(world).alarms.raised())


def test_a_source_goes_on_from_its_lowest_unacknowledged_batch_after_a_restart() -> None:
    world = two_runs()
    source = world.source("router-1", batch_events=1)
    send(source, 1, 2)
    world.settle()
    send(source, 3, 4)
    work(world, without=((RUN, "photons"),))
    world.kill()
    holds(world)
    assert source.machine.batches_resent == 2


# --- duplicates -----------------------------------------------------------------------------------


def test_a_batch_that_comes_again_while_the_first_copy_is_queued_is_a_duplicate() -> None:
    world = two_runs()
    source = world.source("router-1")
    send(source, 1)
    work(world, without=((RUN, "photons"),))
    source.machine.lost(world.clock.monotonic_ns())  # it says HELLO and sends everything again
    source.machine.batches.cursor = 1
    world.network.weather = Weather(duplicate=1.0)
    work(world, without=((RUN, "photons"),), rounds=200)
    world.network.weather = CALM
    holds(world)


# --- the watermark outlives the run, until the session's BYE --------------------------------------


def test_watermarks_outlive_the_run_and_go_with_the_session() -> None:
    world = two_runs()
    source = world.source("router-1")
    send(source, 1, streams=(PHOTONS, RAW))
    world.settle()
    world.do("STOP RUN", run=RUN)
    prefix = records.session_marks(source.session)
    assert len([key for key in world.store.keys if key.startswith(prefix)]) == 2
    source.close()
    world.pump(50)
    assert not [key for key in world.store.keys if key.startswith(prefix)]


# --- a name has one session -----------------------------------------------------------------------


def test_a_second_live_session_of_a_name_waits_until_the_first_is_gone() -> None:
    world = two_runs()
    first = world.source("router-1")
    send(first, 1)
    world.settle()
    second = world.source("router-1")
    world.pump(100)
    assert "name-in-use" in second.machine.detail
    send(second, 2)
    first.silent = True  # it misses its heartbeats
    holds_all_of(world, second)
    key = records.session_key(first.session)
    assert records.decode_record(key, world.store.pairs[key], SessionRecord).closed
    first.silent = False
    send(first, 3)
    world.pump(200)
    assert not first.idle  # it is refused, whatever it says
    assert world.problems() == []


def test_a_session_that_was_taken_over_is_told_so_while_the_new_one_lives() -> None:
    world = two_runs()
    first = world.source("router-1")
    world.pump(20)
    second = world.source("router-1")
    world.pump(20)
    first.silent = True
    send(second, 2)
    holds_all_of(world, second)
    first.silent = False
    world.pump(100)
    assert str(first.machine.failure).startswith("closed: a newer session took over the name")


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("streams", "batches"), [(2, 700), pytest.param(100, 3000, marks=pytest.mark.long)]
)
def test_each_refusal_is_told_with_its_stream_before_its_batch_is_acknowledged(
    streams: int, batches: int
) -> None:
    """Far more than one message tells, of two runs and many streams, some stored in between. At no
    moment does the source take a refused event for stored."""
    names = [StreamName(f"s{i}") for i in range(streams)]
    world = two_runs(streams={name: {} for name in names})
    source = world.source("router-1", batch_events=1)
    world.pump(20)
    source.deaf = True
    world.do("ABORT RUN", run=RUN)
    sent = dict.fromkeys(names, 0)
    kept = dict.fromkeys(names, 0)
    for number in range(batches):
        name = names[number * 7 % streams]
        run = OTHER_RUN if number % 10 == 9 else RUN
        assert source.send(run, (name,), number, b"an event")
        (kept if run == OTHER_RUN else sent)[name] += 1
    while source.machine.batches.last < batches:
        source.step()  # all of them are on their way
    work(world, rounds=5)
    source.deaf = False

    def booked_right() -> None:
        for name, report in source.machine.counts.report({}).items():
            refused = report.refused.get("run-aborted", 0)
            assert refused <= sent[StreamName(name)]
            assert 0 <= report.acknowledged <= kept[StreamName(name)]
            assert report.sent == report.acknowledged + refused + report.pending

    for round_ in range(400):
        if source.idle:
            break
        if round_ == batches // 300:
            world.kill()  # what was not heard outlasts it
            world.pump()
        work(world, rounds=1)
        booked_right()
    assert source.idle
    reports = source.machine.counts.report({})
    assert {n: r.refused.get("run-aborted", 0) for n, r in reports.items()} == sent
    assert {n: r.acknowledged for n, r in reports.items()} == kept
    holds(world)


def test_refusals_that_are_put_together_are_of_one_stream_run_and_reason() -> None:
    """So many batches of two streams are refused before the source hears of any."""
    world = two_runs()
    source = world.source("router-1", batch_events=1)
    world.pump(20)
    source.deaf = True
    world.do("ABORT RUN", run=RUN)
    for number in range(2000):
        assert source.send(RUN, ((PHOTONS, RAW)[number % 2],), number, b"refused")
    while source.machine.batches.last < 2000:
        source.step()
    work(world, rounds=40)
    session = next(
        records.decode_record(key, value, SessionRecord)
        for key, value in world.store.pairs.items()
        if key.startswith(records.SESSIONS)
    )
    assert len(session.refused) <= REFUSALS_TOLD_MAX + 2
    for name, odd in ((PHOTONS, 1), (RAW, 0)):
        mine = [r for r in session.refused if r.stream == name]
        assert sum(r.events for r in mine) == 1000
        assert {r.first % 2 for r in mine} == {odd}
        assert max(r.last for r in mine) >= 1999


def _abort_unheard(world: World, source: SimulatedSource, run: RunNumber, *numbers: int) -> None:
    """A source that has not heard of the abort sends these events: they are refused."""
    world.pump(20)
    source.deaf = True
    world.do("ABORT RUN", run=run)
    send(source, *numbers, run=run)
    source.step()
    work(world, rounds=5)
    source.deaf = False
    world.settle()


@pytest.mark.parametrize("known", [False, True])
def test_refusals_behind_a_rebuilt_journal_are_counted_like_those_before_it(known: bool) -> None:
    """known: the old journal could be read."""
    world = two_runs()
    source = world.source("router-1", batch_events=1)
    send(source, 0, run=OTHER_RUN)
    world.settle()
    _abort_unheard(world, source, RUN, 1, 2, 3)
    world.kill()
    key = next(key for key in world.store.keys if key.startswith(records.SESSIONS))
    before = records.decode_record(key, world.store.pairs[key], SessionRecord)
    rebuilt = SessionRecord(session=before.session, name="", rebuilt=True)
    if known:
        rebuilt = msgspec.structs.replace(before, rebuilt=True)
    world.store.pairs[key] = records.encode_record(key, rebuilt)
    third = RunNumber(9)
    assert world.do("START RUN", run=third).ok
    _abort_unheard(world, source, third, 4, 5)
    send(source, 6, run=OTHER_RUN)
    world.settle()
    report = source.machine.counts.report({})[PHOTONS]
    assert report.refused == {"run-aborted": 5}
    assert report.acknowledged == 2
    holds(world)


# --- a session that expired -----------------------------------------------------------------------


def test_a_session_that_expired_does_not_come_back_as_a_new_one() -> None:
    """Its source never heard that anything was stored, and begins from the first batch again."""
    world = two_runs()
    world.do("STOP RUN", run=OTHER_RUN)
    world.do("STOP RUN", run=RUN)
    world.do("INIT", session_expiry_seconds=10.0)
    world.do("CONFIGURE", streams={"photons": {}})
    world.do("START RUN", run=10)
    source = world.source("router-1")
    world.pump(20)
    source.deaf = True
    send(source, 1, run=10)
    world.pump(20)
    source.silent = True
    world.pump(1300)
    world.network.cut()
    source.hear_again()
    world.pump(100)
    assert str(source.machine.failure).startswith("closed: ")
    assert world.problems() == []
    world.kill()
    world.pump(10)
    key = records.session_key(source.session)
    assert records.decode_record(key, world.store.pairs[key], SessionRecord).closed


# --- the window -----------------------------------------------------------------------------------


def test_sources_that_have_nothing_to_send_do_not_keep_another_out() -> None:
    """They are granted what there is; it is taken back, and what was under way comes again."""
    world = two_runs(memory_bytes=16 * MIB)
    idle = [world.source(f"router-{number}") for number in range(8)]
    world.pump(100)
    late = world.source("late")
    send(late, 1)
    holds(world)
    for source in idle:
        send(source, 2)
        world.pump(1)
    holds(world)
    assert not [a for a in life_of(world).alarms.raised() if a.name.startswith("window")]


def holds_all_of(world: World, source: SimulatedSource) -> None:
    world.run_until(lambda: source.idle, "the source is not through")
    assert world.problems() == []


# --- beyond the durable offset nothing is adopted -------------------------------------------------


def test_a_tail_is_saved_aside_and_cut_before_the_file_takes_a_block() -> None:
    """Wherever the program is killed between an event and its acknowledgement."""
    saved = 0
    for step in range(1, 10):
        world = two_runs()
        world.power_cut = False
        source = world.source("router-1")
        send(source, 1)
        world.settle()
        send(source, 2)
        world.steps.crash_at(world.steps.count + step, When.AFTER)
        holds(world)
        assert world.tails == []
        saved += any(name.endswith(".tail") for name in world.disks[0].contents())
    assert saved


# --- a failed fsync is never retried --------------------------------------------------------------


def test_a_failed_sync_seals_the_part_and_the_next_one_names_it() -> None:
    world = two_runs()
    source = world.source("router-1")
    send(source, 1)
    world.settle()
    fail(world, Operation.SYNC_FILE, path=PHOTONS_FILES)
    send(source, 2)
    world.settle()
    files = {
        f.record.part: f
        for f in world.findings().files
        if (f.record.run, f.record.stream) == (RUN, PHOTONS)
    }
    sealed = files[1].record
    assert isinstance(sealed, FileRecord)
    assert sealed.state is FileState.ERROR
    assert sealed.sealed
    header = decode_file_header(files[2].content[:PAGE_BYTES], path="")
    assert header.predecessor_part == 1
    assert header.predecessor_sealed == sealed.durable
    assert header.predecessor_chain == sealed.chain
    numbers = [s.header.number for s in _spans(files[2].content) if s.header is not None]
    assert numbers == [2]  # a moved block keeps its number
    holds(world)


def _spans(content: bytes) -> list:  # type: ignore[type-arg]
    header = decode_file_header(content[:PAGE_BYTES], path="")
    return [
        span
        for span in scan(BytesOf(content), salt=header.salt, path="", chain=header.crc)
        if span.kind is SpanKind.BLOCK
    ]


# --- block headers carry the boot number ----------------------------------------------------------


def test_the_boot_number_never_decreases_in_a_file() -> None:
    world = two_runs()
    source = world.source("router-1")
    for number in range(1, 4):
        send(source, number)
        world.settle()
        world.kill()
        world.pump(5)
    (file,) = [f for f in world.findings().files if (f.record.run, f.record.stream) == (7, PHOTONS)]
    boots = [span.header.boot for span in _spans(file.content)]
    assert all(before < after for before, after in pairwise(boots))
    assert len(boots) == 3


# --- OPEN only once the name is durable -----------------------------------------------------------


@pytest.mark.parametrize("when", list(When))
def test_a_file_that_the_journal_calls_open_is_there_after_every_crash(when: When) -> None:
    for step in range(1, 40):
        world = World(step)
        world.do("INIT")
        world.do("CONFIGURE", streams={"photons": {}, "raw": {}})
        problems = problems_after_crashes(world)
        world.steps.crash_at(world.steps.count + step, when)
        assert world.do("START RUN", run=RUN).ok
        assert problems == []


# --- a reservation covers block and footer --------------------------------------------------------


def test_a_run_ends_with_its_footers_on_a_disk_that_is_full() -> None:
    world = two_runs()
    source = world.source("router-1")
    send(source, *range(1, 30))
    world.settle()
    (disk,) = world.disks
    disk.capacity_bytes -= disk.free_bytes() - 3 * PAGE_BYTES  # a sidecar for each stream
    assert world.do("STOP RUN", run=RUN).ok
    photons = next(closed for closed in closed_files(world) if closed.stream == PHOTONS)
    assert not photons.sealed
    assert world.problems() == []


# --- acknowledgement and window are absolute, and repeated ----------------------------------------


def test_a_quiet_source_is_told_everything_with_each_heartbeat() -> None:
    world = two_runs()
    source = world.source("router-1")
    send(source, 1)
    world.settle()
    source.silent = True
    world.network.receive_at_source(source.peer)
    work(world, rounds=60)  # 1.5 s
    acks = [
        decode_body(body, Acknowledgement)
        for body in answers(world, source, MessageKind.ACKNOWLEDGEMENT)
    ]
    assert len(acks) >= 3
    assert {(a.acknowledged, a.next, a.boot) for a in acks} == {(1, 2, 1)}
    assert all(a.limit_bytes > 0 for a in acks)


def test_a_new_boot_number_makes_the_source_say_hello_again() -> None:
    world = two_runs()
    source = world.source("router-1")
    world.pump(20)
    world.kill()
    send(source, 1)
    holds(world)
    assert source.machine.boot == 2


# --- a stalled stream does not hold back the others -----------------------------------------------


def test_batches_that_are_settled_above_the_acknowledgement_free_their_window() -> None:
    world = two_runs()
    source = world.source("router-1", batch_events=1, queue_bytes=64 * 2**20)
    stuck = ((RUN, "raw"),)
    send(source, 1, streams=(RAW,))
    events = 150
    for number in range(2, 2 + events):
        assert source.send(RUN, (PHOTONS,), number, bytes(100_000))
    work(world, without=stuck, rounds=200)
    # Far more than one window: 15 MB through one of 6 MB.
    assert source.machine.events_pending == 1
    holds(world)


# --- the journal fails, or is full ----------------------------------------------------------------


def test_a_failed_commit_ends_the_logger_and_nothing_is_acknowledged_by_it() -> None:
    for seed in range(6):
        world = two_runs(seed)
        source = world.source("router-1")
        send(source, 1)
        world.settle()
        send(source, 2)
        fail(world, Operation.COMMIT)
        world.settle()
        assert world.problems(complete=True) == []
        assert [type(f) for f in world.failures] == [JournalFailed]


def test_nothing_is_acknowledged_while_the_journal_is_full_and_a_run_can_be_stopped() -> None:
    world = two_runs()
    source = world.source("router-1")
    send(source, 1)
    world.settle()
    world.fill_journal(10**15)
    send(source, 2)
    world.rounds_max = 200
    with pytest.raises(Stuck):
        world.settle()
    assert world.problems() == []
    assert source.machine.events_pending == 1
    assert world.do("STOP RUN", run=RUN).ok  # from the ballast, with what waited before it
    world.free_journal()
    holds(world)
