"""COOR's commands over both directions of the link, repeated, concurrent and refused."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
import zmq

import dlog
from dlog.adapters.coor_link import CoorClient, CoorServer
from dlog.errors import EventsDiverted, EventsRefused, RunEnded
from dlog.model.messages import Answer, decode_json
from dlog.reader.event_file import EventFile
from tests.rig.commands import run_dlog
from tests.rig.exactly_once import assert_acknowledged_once, assert_exactly_once, finish
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.rig.raw_source import RawSource
from tests.rig.sources import Sender, payload_of
from tests.waiting import LONG, until, until_still

pytestmark = pytest.mark.long

STREAMS = """
[streams.a]
reserve_bytes = "1 MiB"
[streams.b]
reserve_bytes = "1 MiB"
"""
# Long enough for sources that are there; no run waits for it unless one is not.
CONFIGURATION = QUICK_INIT.replace("drain_seconds = 5", "drain_seconds = 60") + STREAMS
BOTH = ("a", "b")


@pytest.fixture
def logger(new_logger: NewLogger) -> LoggerProcess:
    """Configured, without a run."""
    return new_logger(CONFIGURATION).start()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def init_parameters() -> dict[str, object]:
    return {"drain_seconds": 5, "low_water_bytes": 0, "resume_bytes": 0}


# --- the link, either way round ----------------------------------------------------------------


def test_a_logger_that_listens_takes_its_whole_life_from_coor(new_logger: NewLogger) -> None:
    logger = new_logger("")
    logger.configure_with(
        f'[logger]\ndata = ["{logger.data}"]\ncoor_listen = "tcp://127.0.0.1:*"\n'
    )
    logger.start(auto=False, state="PREINITIALIZED")
    with logger.coor() as local:
        address = local.whereabouts().coor_listen  # type: ignore[union-attr]
    assert address.startswith("tcp://127.0.0.1:")
    with CoorClient(address, name="run-control") as coor:
        run_a_life(coor, logger)
    assert logger.ended() == 0
    logger.assert_verified()


def run_a_life(coor: CoorClient | CoorServer, logger: LoggerProcess) -> None:
    """INIT to STOP, with events."""

    def do(command: str, parameters: dict[str, object] | None = None) -> Answer:
        answer = coor.ask(command, parameters, LONG)
        assert answer.ok, answer.error
        return answer

    do("INIT", init_parameters())
    assert do("CONFIGURE", {"streams": {"a": {}, "b": {}}}).data["streams"] == ["a", "b"]
    assert do("START RUN", {"run": 7, "comment": "first light"}).state == "RUNNING"
    sender = Sender(logger.data, "source", (7,), BOTH)
    for _ in range(50):
        sender.send(7)
    sender.source.flush(LONG)
    assert do("PAUSE RUN", {"run": 7}).ok
    assert do("RESUME RUN", {"run": 7}).ok
    assert do("STOP RUN", {"run": 7}).data == {"run": 7, "state": "ENDED"}
    sender.finish()
    assert do("STATUS").data["logger"]["state"] == "CONFIGURED"
    assert do("STOP").state == "STOPPED"
    assert_exactly_once(logger.data, sender)
    assert logger.ended_run(7).comment == "first light"


def test_a_logger_that_connects_finds_a_coor_that_comes_late_and_comes_back(
    new_logger: NewLogger,
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    logger = new_logger("")
    logger.configure_with(
        f'[logger]\nname="dl7"\ndata=["{logger.data}"]\ncoor_connect="{address}"\n'
    )
    logger.start(auto=False, state="PREINITIALIZED")
    with CoorServer(address, name="run-control") as coor:
        who = coor.wait_for_logger(LONG)
        assert (who.name, who.process, who.state) == ("dl7", logger.pid, "PREINITIALIZED")
        assert coor.ask("INIT", init_parameters(), LONG).ok
    until(lambda: coor_state(logger) != "connected", "the logger sees that COOR is gone")
    with CoorServer(address, name="run-control") as coor:
        who = coor.wait_for_logger(LONG)
        assert who.state == "INITIALIZED"
        assert coor_state(logger) == "connected"
        assert coor.ask("CONFIGURE", {"streams": {"a": {}}}, LONG).ok
        assert coor.ask("STOP", timeout=LONG).ok
    assert logger.ended() == 0


def coor_state(logger: LoggerProcess) -> str:
    return next(c.state for c in logger.status().connections if c.kind == "coor")


# --- repeated commands -------------------------------------------------------------------------


def test_a_repeated_command_gets_the_recorded_answer_even_after_a_kill(
    logger: LoggerProcess,
) -> None:
    with logger.coor() as coor:
        first = coor.ask("START RUN", {"run": 7})
        refused = coor.ask("START RUN", {"run": 7})
        assert first.ok
        assert not refused.ok
        logger.kill()
        logger.start(auto=False, state="RUNNING")
        for answer, parameters in ((first, {"run": 7}), (refused, {"run": 7})):
            again = coor.ask("START RUN", parameters, command_id=(answer.session, answer.number))
            assert again.repeated
            assert (again.ok, again.error, again.data) == (answer.ok, answer.error, answer.data)
        other = coor.ask("START RUN", {"run": 8}, command_id=(first.session, first.number))
        assert not other.ok
        assert other.code == "id-reused"
        assert [run.run for run in logger.status().runs] == [7]


def test_two_coors_that_ask_the_same_at_once_get_the_same_answer(logger: LoggerProcess) -> None:
    answers: list[Answer] = []

    def ask() -> None:
        with logger.coor() as coor:
            answers.append(coor.ask("START RUN", {"run": 7}, command_id=("ab" * 16, 1)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert [answer.ok for answer in answers] == [True] * 4
    assert len({str(answer.data) for answer in answers}) == 1


# --- commands that are refused -----------------------------------------------------------------


def test_a_refusal_names_the_state_and_what_it_accepts(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start(auto=False, state="PREINITIALIZED")
    early = logger.ask("START RUN", {"run": 7})
    assert (early.ok, early.code, early.accepts) == (False, "transition", ["INIT", "STOP"])
    assert "PREINITIALIZED" in early.error
    assert logger.ask("CONFIGURE", {"streams": {"a": {}}}).accepts == ["INIT", "STOP"]
    logger.do("INIT", init_parameters())
    assert logger.ask("START RUN", {"run": 7}).accepts == ["INIT", "CONFIGURE", "STOP"]
    logger.do("CONFIGURE", {"streams": {"a": {}}})
    logger.do("START RUN", {"run": 7})
    moved = logger.ask("INIT", init_parameters())
    assert (moved.ok, moved.code) == (False, "transition")
    assert logger.ask("RESUME RUN", {"run": 7}).accepts == ["PAUSE RUN", "STOP RUN", "ABORT RUN"]
    assert logger.status().logger.state == "RUNNING"


@pytest.mark.parametrize(
    ("command", "parameters", "code", "words"),
    [
        ("FLY", {}, "unknown-command", "START RUN"),
        ("", {}, "unknown-command", "START RUN"),
        ("start run", {"run": 7}, "unknown-command", "START RUN"),
        ("START RUN", {}, "parameters", "run"),
        ("START RUN", {"run": 0}, "parameters", "4294967295"),
        ("START RUN", {"run": 2**32}, "parameters", "4294967295"),
        ("START RUN", {"run": True}, "parameters", "number"),
        ("START RUN", {"run": "7"}, "parameters", "number"),
        ("STOP RUN", {"run": 7}, "run", "not active"),
        ("SET DEBUG", {"level": "loud"}, "parameters", "debug, info, warning, error"),
        ("CONFIGURE", {"streams": {}}, "configuration", "at least one"),
        ("CONFIGURE", {"streams": {"a": {"directories": [3]}}}, "configuration", "directories"),
        ("CONFIGURE", {"streams": 7}, "configuration", "table"),
        ("INIT", {"event_address": "tcp://127.0.0.1:99999"}, "configuration", "event_address"),
        ("INIT", {"event_address": "tcp://192.0.2.1:5555"}, "parameters", "event_address"),
    ],
)
def test_a_wrong_command_is_refused_in_words_and_changes_nothing(
    one_logger: LoggerProcess, command: str, parameters: dict[str, object], code: str, words: str
) -> None:
    before = one_logger.status().logger
    answer = one_logger.ask(command, parameters)
    assert not answer.ok
    assert answer.code == code
    assert words in answer.error
    after = one_logger.status().logger
    assert (after.state, after.addresses) == (before.state, before.addresses)


@pytest.fixture(scope="module")
def one_logger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoggerProcess]:
    """One for all the commands that change nothing."""
    logger = LoggerProcess(tmp_path_factory.mktemp("refusals"), CONFIGURATION).start()
    yield logger
    logger.kill()


def test_every_error_of_a_configuration_is_told_at_once(one_logger: LoggerProcess) -> None:
    answer = one_logger.ask(
        "CONFIGURE",
        {
            "streams": {"a": {"part_bytes": 5, "colour": "red"}, "b.c": {}, "d": {"ranges": 3}},
            "x": 1,
        },
    )
    assert answer.code == "configuration"
    for key in (
        "streams.a.part_bytes",
        "streams.a.colour",
        "streams.b.c",
        "streams.d.ranges",
        "x:",
    ):
        assert key in answer.error


def test_a_known_run_number_is_refused(logger: LoggerProcess) -> None:
    (logger.data / "runs" / "9").mkdir(parents=True)
    (logger.data / "runs" / "9" / "notes.txt").write_text("of an earlier logger")
    logger.start_run(7, 8)
    logger.stop_run(8)
    for run, where in ((7, "journal"), (8, "journal"), (9, "disk")):
        answer = logger.ask("START RUN", {"run": run})
        assert (answer.ok, answer.code) == (False, "run")
        assert where in answer.error
    logger.stop()
    logger.start()
    assert logger.ask("START RUN", {"run": 7}).code == "run"


def test_what_is_no_command_is_answered_and_harms_nothing(logger: LoggerProcess) -> None:
    with logger.coor() as coor, zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.connect(coor.whereabouts().control)  # type: ignore[union-attr]
        for text in (b"", b"{", b"[1, 2]", b'{"type": "command"}', b"\xff" * 100, b"null"):
            raw.send(text)
            assert raw.poll(int(LONG * 1000)), text
            assert decode_json(raw.recv(), Answer).code == "message"
        assert coor.ask("STATUS").ok
    assert logger.exit_code() is None


# --- runs side by side -------------------------------------------------------------------------


def test_reconfiguring_touches_later_runs_alone(logger: LoggerProcess) -> None:
    logger.start_run(7)
    logger.do("CONFIGURE", {"streams": {"b": {"compression": "zstd"}, "c": {"ranges": False}}})
    logger.start_run(8)
    with dlog.Source(logger.data, name="source") as source:
        for run, streams in ((7, "ab"), (8, "bc")):
            for stream in streams:
                source.send(stream, payload_of("source", run, stream, 1), run=run, number=1)
        source.flush(LONG)
        logger.stop_run(7, 8)
    frozen = {path: EventFile(path).header.text for run in (7, 8) for path in logger.files(run)}
    by_name = {f"{path.parent.name}/{path.name}": text for path, text in frozen.items()}
    assert sorted(by_name) == ["7/a_0001.dlog", "7/b_0001.dlog", "8/b_0001.dlog", "8/c_0001.dlog"]
    assert by_name["7/b_0001.dlog"].config.compression == "none"
    assert by_name["8/b_0001.dlog"].config.compression == "zstd"
    assert not by_name["8/c_0001.dlog"].config.ranges
    assert by_name["7/a_0001.dlog"].streams == ("a", "b")
    assert set(logger.ended_run(7).streams) == {"a", "b"}


def test_a_paused_run_waits_at_its_sources_and_the_others_go_on(logger: LoggerProcess) -> None:
    logger.start_run(7, 8)
    sender = Sender(logger.data, "source", (7, 8), BOTH)
    sender.start()
    until(lambda: stored(logger, 7) and stored(logger, 8), "events of both runs are stored")
    logger.do("PAUSE RUN", {"run": 7})
    assert logger.run_status(7).state == "PAUSED"
    until(lambda: sender.source.report().held == (7,), "the source is told")

    def stored_of_7_while_8_goes_on() -> int:
        before = stored(logger, 8)
        until(lambda: stored(logger, 8) > before + 100, "run 8 goes on")
        return stored(logger, 7)

    # What was under way when the source heard of it is stored all the same.
    paused = until_still(stored_of_7_while_8_goes_on, "run 7", every=0.0)
    assert sender.source.report().pending > 0
    logger.do("RESUME RUN", {"run": 7})
    until(lambda: stored(logger, 7) > paused, "run 7 goes on")
    finish(logger, sender)


def stored(logger: LoggerProcess, run: int) -> int:
    return sum(stream.counts.stored for stream in logger.run_status(run).streams)


# --- ending a run ------------------------------------------------------------------------------


def test_stop_run_drains_what_the_sources_had_taken(logger: LoggerProcess) -> None:
    logger.start_run(7)
    senders = [
        Sender(logger.data, f"source-{i}", (7,), BOTH, offset=i, step=2, pause_seconds=0.001)
        for i in range(2)
    ]
    for sender in senders:
        sender.start()
    until(lambda: stored(logger, 7) > 200, "events are stored")
    answer = logger.do("STOP RUN", {"run": 7})
    assert answer.data == {"run": 7, "state": "ENDED"}
    for sender in senders:
        sender.ended_with_its_run()
        sender.source.close(LONG)
        report = sender.source.report()
        assert (report.pending, report.refused) == (0, {})
    assert_exactly_once(logger.data, *senders)


def test_a_source_that_does_not_answer_holds_the_end_up_for_the_drain_time_alone(
    new_logger: NewLogger,
) -> None:
    logger = new_logger(CONFIGURATION.replace("drain_seconds = 60", "drain_seconds = 1")).start()
    logger.start_run(7)
    good = Sender(logger.data, "good", (7,), BOTH)
    for _ in range(20):
        good.send(7)
    good.source.flush(LONG)
    with RawSource(logger.event_address, "mute").open() as mute:
        mute.send_next(mute.batch(7, "a", [b"mute/7/a/1|"]))
        mute.acknowledged()
        answer = logger.do("STOP RUN", {"run": 7})
        assert answer.data["state"] == "ENDED"
        assert "mute" in answer.data["reason"]
        assert "good" not in answer.data["reason"]
    good.finish()
    assert sum(sum(c.totals.events for c in (EventFile(p),)) for p in logger.files(7)) == 21
    assert "mute" in logger.ended_run(7).reason


def test_abort_run_refuses_what_is_not_stored_and_says_so(logger: LoggerProcess) -> None:
    logger.start_run(7, 8)
    sender = Sender(logger.data, "source", (7,), BOTH, pause_seconds=0.001)
    sender.start()
    until(lambda: stored(logger, 7) > 200, "events are stored")
    answer = logger.do("ABORT RUN", {"run": 7, "reason": "beam is off"})
    assert answer.data == {"run": 7, "state": "ABORTED", "reason": "beam is off"}
    sender.ended_with_its_run()
    with suppress(EventsRefused):
        sender.source.flush(LONG)
    report = sender.source.report()
    assert report.pending == 0
    assert set(report.refused) <= {"run-aborted", "run-ended"}
    assert_acknowledged_once(logger.data, sender)
    assert logger.ended_run(7).state == "ABORTED"
    assert logger.ended_run(7).reason == "beam is off"
    # Its name is not taken up again by what comes later.
    with pytest.raises(RunEnded):
        sender.send(7)
    sender.source.send("a", b"source/8/a/1|", run=8, number=1)
    assert sender.source.close(LONG).acknowledged == report.acknowledged + 1
    logger.assert_verified()


def test_stop_ends_the_runs_that_are_active_first(
    logger: LoggerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlog.source._GOODBYE_SECONDS", 0.1)  # there is nobody to say it to
    logger.start_run(7, 8)
    sender = Sender(logger.data, "source", (7, 8), BOTH)
    assert sender.source.wait_for_run(
        7, 30
    )  # a source that never connected is waited for by nobody
    for _ in range(50):
        sender.send(7)
        sender.send(8)
    answer = logger.stop()
    assert answer.state == "STOPPED"
    assert [logger.ended_run(run).state for run in (7, 8)] == ["ENDED", "ENDED"]
    assert sender.source.report().pending == 0
    sender.source.close(1)
    assert_exactly_once(logger.data, sender)
    logger.assert_verified()


def test_a_run_of_many_streams_with_long_names_can_be_started(logger: LoggerProcess) -> None:
    names = [f"a_stream_with_a_rather_long_n{i:03d}" for i in range(200)]
    logger.do("CONFIGURE", {"streams": {name: {} for name in names}})
    logger.do("START RUN", {"run": 7})
    assert len(logger.run_status(7).streams) + logger.run_status(7).omitted == 200
    logger.do("STOP RUN", {"run": 7})
    logger.do("START RUN", {"run": 8})
    logger.stop()


def test_commands_from_a_shell_do_the_same(logger: LoggerProcess) -> None:
    said = run_dlog("coor", "start-run", "7", "-d", logger.data)
    assert said.returncode == 0, said.stderr
    refused = run_dlog("coor", "start-run", "7", "-d", logger.data)
    assert refused.returncode == 1
    assert "run 7 is in the journal already" in refused.stderr.decode()
    assert run_dlog("coor", "stop", "-d", logger.data).returncode == 0
    assert logger.ended() == 0


def test_alarms_are_listed_and_acknowledged_from_a_shell(logger: LoggerProcess) -> None:
    logger.do("START RUN", {"run": 7})
    with suppress(EventsDiverted), dlog.Source(logger.data, name="lost", run=8) as source:
        source.send("a", b"x")
        until(lambda: "orphan run 8 stream a" in logger.alarms(), "the alarm")
        listed = json.loads(run_dlog("alarms", "--json", "-d", logger.data).stdout)
        assert [alarm["name"] for alarm in listed] == ["orphan run 8 stream a"]
        words = ("alarms", "ack", "orphan", "run", "8", "stream", "a")
        done = run_dlog(*words, "-d", logger.data)
        assert done.stderr.decode() == "acknowledged: orphan run 8 stream a\n"
        assert logger.alarms() == {}
        again = run_dlog(*words, "-d", logger.data)
        assert again.returncode == 1
        assert b"no alarm 'orphan run 8 stream a' stands; none does" in again.stderr
        source.send("a", b"x")
        until(lambda: "orphan run 8 stream a" in logger.alarms(), "it comes back")
    logger.stop()


def test_no_command_waits_for_a_logger_that_was_killed(logger: LoggerProcess) -> None:
    logger.do("START RUN", {"run": 7})
    logger.kill()
    for words in (("status",), ("alarms",), ("coor", "stop-run", "7"), ("coor", "stop")):
        done = run_dlog(*words, "-d", logger.data)
        assert done.returncode == 1
        assert b"no logger runs on" in done.stderr
        assert b"is gone" in done.stderr
