"""`dlog send` against a scripted logger: what it keeps on disk, how it goes on, what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import dlog.replay.replay
from dlog.cli.main import app
from dlog.errors import SourceRefused
from dlog.model.messages import DivertedEvents
from dlog.replay.saved_state import SendRefused, SendState, StateFile, default_state_path, identity
from tests.rig.commands import dlog_command, environment
from tests.scripted_logger import ScriptedLogger
from tests.waiting import LONG, until

LINES = [b"line %d\n" % i for i in range(300)]
SMALL = 1 << 20


@pytest.fixture
def logger() -> Iterator[ScriptedLogger]:
    made = ScriptedLogger()
    yield made
    made.close()


@pytest.fixture
def send(
    logger: ScriptedLogger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Runs `dlog send recording.txt --run 7` with what is given; in this process."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(dlog.replay.replay, "_SAVE_SECONDS", 0.05)
    monkeypatch.setattr(dlog.replay.replay, "_UNLISTED_SECONDS", 0.2)
    monkeypatch.setattr(dlog.replay.replay, "_ANSWER_SECONDS", 0.3)
    recording = tmp_path / "recording.txt"
    recording.write_bytes(b"".join(LINES))

    def run(*options: str, to: str = "", files: list[Path] | None = None) -> Result:
        paths = [str(path) for path in files or [recording]]
        return CliRunner().invoke(
            app, ["send", *paths, "--run", "7", "--to", to or logger.address, *options]
        )

    return run


def outcome(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def state_of(tmp_path: Path) -> tuple[Path, SendState]:
    (path,) = (tmp_path / "state" / "dlog" / "send").glob("*.json")
    with StateFile(path) as file:
        state = file.read()
    assert state is not None
    return path, state


def test_a_misspelt_stream_is_told_before_anything_is_sent(
    send: Callable[..., Result], logger: ScriptedLogger, tmp_path: Path
) -> None:
    logger.model.streams = {7: ["photons", "raw"]}
    result = send("--stream", "photon")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "dlog: run 7 has no stream photon (did you mean photons?); its streams: photons, raw\n"
    )
    assert stored(logger) == []
    assert list(tmp_path.rglob("*.json")) == []  # the next command begins anew


def test_a_misspelt_stream_in_the_middle_ends_the_replay_there(
    send: Callable[..., Result], logger: ScriptedLogger, tmp_path: Path
) -> None:
    logger.model.streams = {7: ["small"]}
    recording = tmp_path / "sizes.txt"
    recording.write_bytes(b"x\n" * 100 + b"long line\n" * 100)
    result = send("--size-classes", "small=5,large", files=[recording])
    assert result.exit_code == 1
    assert "run 7 has no stream large" in result.stderr
    assert state_of(tmp_path)[1].phase == "sending"


def test_what_is_diverted_is_told_and_is_exit_code_1(
    send: Callable[..., Result], logger: ScriptedLogger
) -> None:
    logger.model.streams = {7: ["events", "raw"]}
    logger.model.diverted = [
        DivertedEvents(run=7, stream="events", why="late", events=3),
        DivertedEvents(run=7, stream="event", why="stream-unknown", events=1),
    ]
    result = send("--json")
    assert result.exit_code == 1
    assert "run 7: 296 of 300 events stored" in result.stderr
    assert "3 events for stream events came late" in result.stderr
    assert "1 event for stream event went to the orphan file: run 7 has no such stream; its " in (
        result.stderr
    )
    found = outcome(result)
    assert (found["acknowledged"], found["stored"]) == (300, 296)
    assert (found["garbage"], found["orphan"]) == (3, 1)
    assert found["run_streams"] == ["events", "raw"]
    assert {d["why"]: d["events"] for d in found["diverted"]} == {"late": 3, "stream-unknown": 1}
    again = send("--json")  # of what was sent before, the same is told
    assert (again.exit_code, outcome(again)["sent_before"]) == (1, True)


def stored(logger: ScriptedLogger) -> list[bytes]:
    return logger.stored.get((7, "events"), [])


def restart(logger: ScriptedLogger) -> None:
    """Forget the session, as after its goodbye."""

    logger.do(logger.model.forget_session)


def test_all_events_are_stored_in_order_and_the_session_is_closed(
    send: Callable[..., Result], logger: ScriptedLogger
) -> None:
    result = send("--json")
    assert result.exit_code == 0, result.stderr
    assert stored(logger) == LINES
    assert [number for number, _, _ in logger.model.kept.stored[7, "events"]] == list(range(300))
    found = outcome(result)
    assert (found["events"], found["acknowledged"], found["not_sent"]) == (300, 300, 0)
    assert found["streams"] == {
        "events": {"sent": 300, "acknowledged": 300, "refused": {}, "garbage": 0, "orphan": 0}
    }
    assert "300 of 300 events stored" in result.stderr
    assert logger.model.kept.closed


def test_several_files_follow_each_other_with_the_numbers_counting_on(
    send: Callable[..., Result], logger: ScriptedLogger, tmp_path: Path
) -> None:
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_bytes(name.encode() + b"\n" + b"x\n")
    result = send("--first-number", "10", files=[tmp_path / "one.txt", tmp_path / "two.txt"])
    assert result.exit_code == 0, result.stderr
    assert stored(logger) == [b"one.txt\n", b"x\n", b"two.txt\n", b"x\n"]
    assert [n for n, _, _ in logger.model.kept.stored[7, "events"]] == [10, 11, 12, 13]


def test_streams_are_chosen_by_the_rule(
    send: Callable[..., Result], logger: ScriptedLogger
) -> None:
    assert send("--size-classes", "short=7,long").exit_code == 0
    assert logger.stored[7, "short"] == [line for line in LINES if len(line) <= 7]
    assert logger.stored[7, "long"] == [line for line in LINES if len(line) > 7]


def test_what_was_sent_completely_is_sent_again_only_when_told(
    send: Callable[..., Result], logger: ScriptedLogger
) -> None:
    assert send().exit_code == 0
    again = send("--json")
    assert again.exit_code == 0
    assert outcome(again)["sent_before"]
    assert "--again" in again.stderr
    assert len(stored(logger)) == 300
    restart(logger)
    assert send("--again").exit_code == 0
    assert stored(logger) == LINES * 2


def test_a_replay_that_gave_up_goes_on_with_the_same_session(
    send: Callable[..., Result], logger: ScriptedLogger, tmp_path: Path
) -> None:
    logger.commits = False
    result = send("--timeout", "0.3", "--rate", "100000")
    assert result.exit_code == 1
    assert "the same command goes on" in result.stderr
    session = state_of(tmp_path)[1].session
    logger.commits = True
    result = send("--json", "--rate", "100000")
    assert result.exit_code == 0, result.stderr
    assert outcome(result)["session"] == session
    assert stored(logger) == LINES


def test_an_event_larger_than_the_logger_takes_is_refused_alone(
    send: Callable[..., Result], logger: ScriptedLogger, tmp_path: Path
) -> None:
    logger.model.message_bytes_max = 4 << 20
    lines = [b"before\n", b"x" * (5 << 20) + b"\n", *LINES]
    (tmp_path / "large.txt").write_bytes(b"".join(lines))
    result = send("--json", files=[tmp_path / "large.txt"])
    assert result.exit_code == 1
    assert "refused: event-too-large 1" in result.stderr
    assert stored(logger) == [lines[0], *LINES]
    found = outcome(result)
    assert (found["events"], found["acknowledged"], found["not_sent"]) == (302, 301, 0)
    assert found["refused"] == {"event-too-large": 1}


def test_waiting_for_a_run_that_is_over_ends(
    send: Callable[..., Result], logger: ScriptedLogger
) -> None:
    """It was over before the replay came: it is not among the runs that are listed."""
    logger.model.active = {8}
    logger.model.ended_before = {7}
    result = send("--wait", "--json")
    assert result.exit_code == 1
    assert outcome(result)["not_sent"] == 300
    assert "run 7 was ended: 300 events were not sent" in result.stderr


@pytest.mark.long
def test_a_process_that_is_killed_is_gone_on_with(logger: ScriptedLogger, tmp_path: Path) -> None:
    recording = tmp_path / "big.txt"
    lines = [b"%d " % i + b"x" * 5000 + b"\n" for i in range(4000)]
    recording.write_bytes(b"".join(lines))
    command = dlog_command(
        "send", recording, "--run", "7", "--to", logger.address, "--json", "--rate", "2000"
    )
    env = {**environment(), "XDG_STATE_HOME": str(tmp_path / "state")}
    killed = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
        before = len(stored(logger))
        while process.poll() is None:
            if killed < 3 and len(stored(logger)) > before + 700:
                process.kill()
                killed += 1
        out, err = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -9, err
    assert killed == 3
    assert stored(logger) == lines
    found = json.loads(out)
    assert found["resumed"]
    assert (found["events"], found["acknowledged"]) == (4000, 4000)


def test_an_interrupted_replay_says_how_to_go_on(tmp_path: Path) -> None:
    recording, state = tmp_path / "lines.txt", tmp_path / "state"
    recording.write_text("one\ntwo\n")
    process = subprocess.Popen(
        dlog_command("send", recording, "--run", 1, "--to", "tcp://127.0.0.1:9", "--state", state),
        env=environment(), stderr=subprocess.PIPE,
    )  # fmt: skip
    until(lambda: state.exists() and bool(state.read_bytes()), "the replay has begun")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=LONG)
    assert process.returncode == 130
    assert said.decode() == "dlog: run 1: interrupted; the same command sends the rest\n"


def test_only_the_goodbye_is_left_when_all_was_acknowledged(
    send: Callable[..., Result],
    logger: ScriptedLogger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: object) -> None:
        raise SourceRefused("killed here")

    with monkeypatch.context() as patch:
        patch.setattr("dlog.source.Source.close", killed)
        assert send().exit_code == 1
    assert state_of(tmp_path)[1].phase == "acknowledged"
    assert not logger.model.kept.closed
    assert send().exit_code == 0
    assert logger.model.kept.closed
    assert state_of(tmp_path)[1].phase == "done"
    assert stored(logger) == LINES


# --- what is refused --------------------------------------------------------------------------


def begin(send: Callable[..., Result], logger: ScriptedLogger) -> None:
    """A replay that is under way."""
    logger.commits = False
    assert send("--timeout", "0.2").exit_code == 1
    logger.commits = True


def test_a_file_that_has_changed_is_refused(
    send: Callable[..., Result], logger: ScriptedLogger, tmp_path: Path
) -> None:
    begin(send, logger)
    (tmp_path / "recording.txt").write_bytes(b"other\n")
    result = send()
    assert result.exit_code == 1
    assert "has changed since" in result.stderr
    assert "--restart" in result.stderr
    restart(logger)
    logger.model.kept.stored.clear()
    assert send("--restart").exit_code == 0
    assert stored(logger) == [b"other\n"]


def test_other_options_are_refused(send: Callable[..., Result], logger: ScriptedLogger) -> None:
    begin(send, logger)
    result = send("--stream", "photons", "--first-number", "5")
    assert result.exit_code == 1
    assert "--first-number was 0, and is 5" in result.stderr
    assert "--stream was not given, and is photons" in result.stderr
    assert "--rate (or the version of dlog) has changed" in send("--rate", "5").stderr


def test_content_that_is_not_what_was_sent_is_refused(
    send: Callable[..., Result], logger: ScriptedLogger, tmp_path: Path
) -> None:
    recording = tmp_path / "recording.txt"
    begin(send, logger)
    _, state = state_of(tmp_path)
    assert state.events == 300
    status = recording.stat()
    recording.write_bytes(recording.read_bytes().replace(b"line 7\n", b"lime 7\n"))
    os.utime(recording, ns=(status.st_atime_ns, status.st_mtime_ns))
    result = send()
    assert result.exit_code == 1
    assert "content" in result.stderr


def test_a_second_process_of_the_same_replay_is_refused(
    send: Callable[..., Result], tmp_path: Path
) -> None:
    with StateFile(tmp_path / "mine.json"):
        result = send("--state", str(tmp_path / "mine.json"))
    assert result.exit_code == 1
    assert "another process" in result.stderr


def test_a_state_that_is_none_is_refused(send: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{")
    result = send("--state", str(tmp_path / "mine.json"))
    assert result.exit_code == 1
    assert "--restart" in result.stderr
    assert send("--state", str(tmp_path / "mine.json"), "--restart").exit_code == 0


def test_another_logger_is_refused(
    send: Callable[..., Result], logger: ScriptedLogger, tmp_path: Path
) -> None:
    begin(send, logger)
    path, state = state_of(tmp_path)
    state.logger_uuid = "ab" * 16
    with StateFile(path) as file:
        file.save(state)
    result = send()
    assert result.exit_code == 1
    assert "another one" in result.stderr


def test_a_run_that_is_not_active_is_waited_for_only_when_told(
    send: Callable[..., Result], logger: ScriptedLogger
) -> None:
    logger.model.active = {8}
    result = send()
    assert result.exit_code == 1
    assert "run 7 is not active (active: 8)" in result.stderr
    result = send("--wait", "--timeout", "0.5")
    assert result.exit_code == 1
    assert "run 7 is not active" in result.stderr
    assert stored(logger) == []
    logger.do(lambda: logger.model.active.add(7))
    assert send("--wait").exit_code == 0


def test_no_logger_is_waited_for_only_when_told(send: Callable[..., Result]) -> None:
    result = send(to="tcp://127.0.0.1:1")
    assert result.exit_code == 1
    assert "no logger answers" in result.stderr


def test_usage_errors_exit_with_2(send: Callable[..., Result], tmp_path: Path) -> None:
    for options in (
        ["--name", "a b"], ["--stream", "control"], ["--format", "nonsense"], ["-o", "x"],
        ["-d", str(tmp_path)], ["--size-classes", "3,1"],
    ):  # fmt: skip
        assert send(*options).exit_code == 2, options
    assert send(files=[tmp_path / "nothing"]).exit_code == 1


# --- what is told -----------------------------------------------------------------------------


def test_events_of_a_run_that_ended_are_counted(
    send: Callable[..., Result], logger: ScriptedLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_at_100(*_: object) -> None:
        if len(stored(logger)) >= 100:
            logger.model.end_run(7)

    heard = logger.model.hear
    monkeypatch.setattr(logger.model, "hear", lambda m: (heard(m), end_at_100())[0])
    result = send("--rate", "500", "--json")
    assert result.exit_code == 1
    found = outcome(result)
    assert found["events"] == 300
    assert found["acknowledged"] == len(stored(logger))
    assert found["not_sent"] == 300 - len(stored(logger)) > 0
    assert "run 7 was ended" in result.stderr


def test_refused_events_are_counted(send: Callable[..., Result], logger: ScriptedLogger) -> None:
    logger.model.refuse_runs = {7}
    result = send("--json")
    assert result.exit_code == 1
    found = outcome(result)
    assert found["refused"] == {"run-aborted": 300}
    assert (found["acknowledged"], found["not_sent"]) == (0, 0)
    assert send().exit_code == 1  # as it was: nothing is left to send


def test_a_torn_end_is_reported_and_not_sent(
    send: Callable[..., Result], logger: ScriptedLogger, tmp_path: Path
) -> None:
    (tmp_path / "torn.bin").write_bytes(bytes(25))
    result = send(
        "--format", "records", "-o", "size=10", "--json", files=[tmp_path / "torn.bin"]
    )  # fmt: skip
    assert result.exit_code == 0
    assert stored(logger) == [bytes(10)] * 2
    (torn,) = outcome(result)["torn"]
    assert (torn["offset_bytes"], torn["size_bytes"], torn["declared_bytes"]) == (20, 5, 10)
    assert "torn: 5 B at byte 20" in result.stderr


def test_a_folder_is_known_by_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"123")
    before = identity(tmp_path)
    assert (before.size, before.files) == (3, 1)
    (tmp_path / "b").write_bytes(b"4")
    assert identity(tmp_path) != before


def test_without_a_home_directory_it_asks_where_to_keep_its_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(SendRefused, match=r"no home directory .* --state FILE says where"):
        default_state_path("key")
