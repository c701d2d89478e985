"""The command line: help, usage errors, exit codes, what goes to stdout and what to stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import dlog.cli.main as command_line
import dlog.cli.monitor as monitor_command
import dlog.cli.status as status_command
from dlog import quantities
from dlog.adapters.clock import SystemClock
from dlog.adapters.coor_link import CoorSockets, control_address
from dlog.adapters.notice_links import NoticeLinks
from dlog.cli import output
from dlog.cli.main import COMMANDS, Entry, app
from dlog.core.notices import Desk
from dlog.errors import ConfigurationError, Failure
from dlog.model.messages import (
    AlarmState,
    Answer,
    Command,
    Identification,
    MonitorReport,
    decode_json,
    encode_json,
)
from dlog.model.status import (
    ConnectionStatus,
    Counts,
    DiskStatus,
    FileStatus,
    LoggerStatus,
    RunStatus,
    Status,
    StreamStatus,
    Whereabouts,
    status_data,
)
from dlog.ports import Severity
from dlog.services.alarms import AlarmBoard
from tests.rig.commands import dlog_command, environment
from tests.waiting import LONG

PRESENT = [name for name, entry in COMMANDS.items() if command_line._is_there(entry.module)]
COOR = [
    "init", "configure", "start-run", "pause-run", "resume-run", "stop-run", "abort-run", "status",
    "set-debug", "stop",
]  # fmt: skip


def run(*arguments: str) -> Result:
    return CliRunner(env={"NO_COLOR": "1", "COLUMNS": "160"}).invoke(app, list(arguments))


@contextmanager
def dlog(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The real command, as a process."""
    with subprocess.Popen(
        dlog_command(*arguments), env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


# --- a logger that answers ----------------------------------------


class StandIn:
    """A logger of a few lines on a data directory: it remembers what it was told."""

    def __init__(self, data: Path) -> None:
        self.told: list[Command] = []
        self.ok = True
        self.data: dict[str, Any] | None = None  # of its answers, if not what it was asked with
        self.link = CoorSockets(
            control_address(data),
            listen="tcp://127.0.0.1:*",
            identification=lambda: Identification(
                name="daq", uuid="u", host="h", process=1, boot=1, state="CONFIGURED"
            ),
        )
        where = Whereabouts(name="daq", pid=os.getpid(), control=self.link.control_address)
        (data / "logger.json").write_bytes(encode_json(where))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._over.is_set():
            for peer, text in self.link.receive(1000):
                asked = decode_json(text, Command)
                self.told.append(asked)
                data = status_data(document()) if asked.command == "STATUS" else asked.parameters
                data = data if self.data is None else self.data
                answer = Answer(
                    session=asked.session, number=asked.number, command=asked.command, ok=self.ok,
                    state="RUNNING", error="" if self.ok else "logger is RUNNING: not accepted",
                    code="" if self.ok else "transition", data=data,
                )  # fmt: skip
                self.link.send(peer, encode_json(answer))

    def end(self) -> None:
        self._over.set()
        self.link.wake()
        self._thread.join(LONG)
        self.link.close()


@pytest.fixture
def logger(tmp_path: Path) -> Iterator[StandIn]:
    made = StandIn(tmp_path)
    yield made
    made.end()


def document(*, seconds: float = 100.0, stored: int = 1000, **fields: Any) -> Status:
    photons = StreamStatus(
        name="photons",
        counts=Counts(received=stored + 8, stored=stored, pending=5, refused={"aborted": 3}),
        payload_bytes=stored * 1000,
        files=[
            FileStatus(path="runs/7/photons_0001.dlog", state="END", durable_bytes=2**30),
            FileStatus(path="runs/7/photons_0002.dlog", state="OPEN", durable_bytes=4096),
        ],
    )
    values: dict[str, Any] = {
        "time_ns": 10**18,
        "monotonic_ns": int(seconds * 1e9),
        "logger": LoggerStatus(name="daq", state="RUNNING", since_ns=10**18 - 10**10, boot=3),
        "runs": [RunStatus(run=7, state="ACTIVE", since_ns=10**18, streams=[photons])],
        "disks": [DiskStatus(path="/data", free_bytes=2**30, total_bytes=2**40, low=True)],
        "connections": [ConnectionStatus(kind="coor", state="lost", name="run-control")],
        "alarms": [AlarmState(name="disk-low", severity="error", text="low", since_ns=1, count=2)],
    }
    return Status(**values | fields)


CONFIG = """
[logger]
name = "daq"
data = ["data"]
[init]
memory_bytes = "64 MiB"
[init.stream_defaults]
part_bytes = "1 GiB"
[streams.photons]
compression = "zstd"
[streams.control]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "dlog.toml"
    path.write_text(CONFIG)
    return path


# --- help and usage ----------------------------------------


def test_the_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in PRESENT:
        assert name in result.output
        assert COMMANDS[name].help.split()[0] in result.output


@pytest.mark.parametrize("name", PRESENT)
def test_each_command_has_its_help(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize("name", COOR)
def test_each_command_of_coor_has_its_help(name: str) -> None:
    result = run("coor", name, "--help")
    assert result.exit_code == 0
    for option in ("--to", "--data", "--listen", "--timeout", "--json", "--id"):
        assert option in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["start", "--no-such-option"],
        ["resume"],
        ["status", "--interval", "-1"],
        ["status", "--to", "nonsense"],
        ["status", "--to", "tcp://127.0.0.1:1", "-d", "."],
        ["coor", "no-such-command"],
        ["coor", "start-run"],
        ["coor", "start-run", "x"],
        ["coor", "start-run", "0", "-d", "."],
        ["coor", "start-run", str(2**32), "-d", "."],
        ["coor", "stop", "--id", "nonsense", "-d", "."],
        ["coor", "stop", "-d", ".", "--listen", "tcp://127.0.0.1:*"],
        ["alarm-server"],
        ["monitor"],
    ],
)
def test_a_usage_error_exits_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_no_logger_named_and_none_here_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("status").exit_code == 2


@pytest.mark.parametrize("command", [("status",), ("coor", "stop"), ("alarms",)])
def test_a_data_directory_that_no_logger_has_used_yet_is_the_default_all_the_same(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for named in ((), ("-d", "data")):
        done = run(*command, *named, "--timeout", "0.1")
        assert (done.exit_code, done.stderr) == (1, "dlog: no logger has been started on data\n")


def test_the_help_waits_for_no_heavy_module() -> None:
    code = (
        "import sys, dlog.cli.main\n"
        "try: dlog.cli.main.app(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'zmq', 'lmdb', 'asyncio') if m in sys.modules])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


# --- how a command ends ----------------------------------------


class Fake:
    """A module of the command line whose command does what a test wants."""

    def __init__(self, command: Any) -> None:
        self.command = command


def ending(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Result:
    def command() -> None:
        """Fails."""
        raise error

    monkeypatch.setitem(COMMANDS, "start", Entry("dlog.cli.fake", "", ""))
    monkeypatch.setattr(command_line, "_is_there", lambda module: True)
    monkeypatch.setattr(command_line.importlib, "import_module", lambda name: Fake(command))
    return run("start")


def test_an_error_is_told_on_stderr_with_the_exit_code_of_its_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = ending(monkeypatch, Failure("the journal is gone\x1b[2J"))
    assert result.exit_code == 70
    assert result.stdout == ""
    assert result.stderr == "dlog: the journal is gone\\x1b[2J\n"


def test_all_errors_of_a_configuration_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    result = ending(monkeypatch, ConfigurationError(["a.b: no", "c: no"]))
    assert result.exit_code == 78
    assert result.stderr == "dlog: configuration refused:\n  a.b: no\n  c: no\n"


def test_an_interrupt_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ending(monkeypatch, KeyboardInterrupt()).exit_code == 130


def test_an_exit_code_of_a_command_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ending(monkeypatch, typer.Exit(66)).exit_code == 66


def test_ctrl_c_on_a_real_command_exits_130_without_a_trace(tmp_path: Path) -> None:
    with dlog("alarm-server", "--listen", f"ipc://{tmp_path}/alarms.sock") as process:
        assert process.stderr is not None
        assert "alarm server on" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LONG)
        assert (process.returncode, out, err) == (130, "", "dlog: interrupted\n")


def test_a_reader_that_leaves_is_no_error(logger: StandIn, tmp_path: Path) -> None:
    with dlog("status", "-d", str(tmp_path), "--watch", "--json", "--interval", "0.1") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("{")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(LONG) == 0
        process.stderr.close()


# --- start: the configuration ----------------------------------------


def test_a_missing_configuration_exits_78(tmp_path: Path) -> None:
    result = run("start", "-c", str(tmp_path / "none.toml"))
    assert result.exit_code == 78
    assert "none.toml: No such file" in result.stderr


def test_a_syntax_error_names_line_and_column(config: Path) -> None:
    config.write_text('[logger]\nname = "daq\n')
    result = run("start", "-c", str(config))
    assert result.exit_code == 78
    assert "dlog.toml" in result.stderr
    assert "line 2, column 12" in result.stderr


def test_what_is_no_text_is_said_so(config: Path) -> None:
    config.write_bytes(b"[logger]\n\xff\xfe")
    result = run("start", "-c", str(config))
    assert (result.exit_code, "no UTF-8 text at byte 9" in result.stderr) == (78, True)


def test_every_error_of_the_configuration_is_named_with_its_key(config: Path) -> None:
    config.write_text(
        '[logger]\nname = "no name"\ncolour = "red"\n'
        '[init]\nmemory_bytes = "lots"\n'
        '[streams.photons]\ncompression = "zip"\n[streams."7"]\n[other]\n'
    )
    result = run("start", "-c", str(config))
    assert result.exit_code == 78
    for key in (
        "logger.name", "logger.colour", "init.memory_bytes", "streams.photons.compression",
        "streams.7", "other", f"in {config}",
    ):  # fmt: skip
        assert key in result.stderr


def test_data_directories_count_from_the_folder_of_the_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlog.adapters.configuration_file import read_configuration

    monkeypatch.chdir("/")
    assert read_configuration(config).logger.data == (str(config.parent / "data"),)


def test_resume_without_a_journal_exits_66(tmp_path: Path) -> None:
    assert run("resume", "-d", str(tmp_path)).exit_code == 66


# --- coor ----------------------------------------


def test_init_and_configure_carry_the_tables_of_the_file(
    logger: StandIn, tmp_path: Path, config: Path
) -> None:
    for command in ("init", "configure"):
        result = run("coor", command, "-c", str(config), "-d", str(tmp_path))
        assert result.exit_code == 0, result.output
    init, configure = logger.told
    assert (init.command, init.parameters) == (
        "INIT",
        {"memory_bytes": "64 MiB", "stream_defaults": {"part_bytes": "1 GiB"}},
    )
    assert (configure.command, configure.parameters) == (
        "CONFIGURE",
        {"streams": {"photons": {"compression": "zstd"}, "control": {}}},
    )


def test_a_bad_file_is_refused_before_the_logger_is_asked(
    logger: StandIn, tmp_path: Path, config: Path
) -> None:
    config.write_text("[init]\nmemory_bytes = -1\n")
    assert run("coor", "init", "-c", str(config), "-d", str(tmp_path)).exit_code == 78
    assert logger.told == []


@pytest.mark.parametrize(
    ("arguments", "command", "parameters"),
    [
        (["start-run", "7"], "START RUN", {"run": 7, "comment": ""}),
        (["start-run", "7", "--comment", "x y"], "START RUN", {"run": 7, "comment": "x y"}),
        (["pause-run", "7"], "PAUSE RUN", {"run": 7}),
        (["resume-run", "7"], "RESUME RUN", {"run": 7}),
        (["stop-run", "7"], "STOP RUN", {"run": 7}),
        (["abort-run", "7", "--reason", "beam"], "ABORT RUN", {"run": 7, "reason": "beam"}),
        (["set-debug", "debug"], "SET DEBUG", {"level": "debug"}),
        (["status"], "STATUS", {}),
        (["stop"], "STOP", {}),
    ],
)
def test_each_command_says_what_the_protocol_says(
    logger: StandIn,
    tmp_path: Path,
    arguments: list[str],
    command: str,
    parameters: dict[str, Any],
) -> None:
    result = run("coor", *arguments, "-d", str(tmp_path))
    assert result.exit_code == 0, result.output
    (told,) = logger.told
    assert (told.command, told.parameters, told.number) == (command, parameters, 1)


def test_a_refused_command_exits_1_and_says_why(logger: StandIn, tmp_path: Path) -> None:
    logger.ok = False
    result = run("coor", "start-run", "7", "-d", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr == "dlog: START RUN refused: logger is RUNNING: not accepted\n"


@pytest.mark.parametrize("ok", [True, False])
def test_the_answer_as_json_goes_to_stdout(logger: StandIn, tmp_path: Path, ok: bool) -> None:
    logger.ok = ok
    result = run("coor", "start-run", "7", "-d", str(tmp_path), "--json")
    assert result.exit_code == (0 if ok else 1)
    answer = json.loads(result.stdout)
    assert (answer["ok"], answer["command"], answer["type"]) == (ok, "START RUN", "answer")


def test_an_id_is_sent_as_given(logger: StandIn, tmp_path: Path) -> None:
    run("coor", "stop", "-d", str(tmp_path), "--id", "ABcd12:7")
    assert [(told.session, told.number) for told in logger.told] == [("abcd12", 7)]


def test_a_logger_is_reached_at_an_address(logger: StandIn) -> None:
    assert run("coor", "stop", "--to", logger.link.listen_address).exit_code == 0


def test_nobody_there_exits_1_in_time(tmp_path: Path) -> None:
    result = run("coor", "stop", "-d", str(tmp_path), "--timeout", "0.2")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("dlog: no logger has been started on")


def test_as_a_coor_that_the_logger_connects_to(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/coor.sock"
    made: list[Command] = []
    link = CoorSockets(
        f"ipc://{tmp_path}/control.sock",
        connect=address,
        identification=lambda: Identification(
            name="daq", uuid="u", host="h", process=1, boot=1, state="CONFIGURED"
        ),
    )
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            for peer, text in link.receive(1000):
                asked = decode_json(text, Command)
                made.append(asked)
                link.send(
                    peer,
                    encode_json(
                        Answer(
                            session=asked.session, number=asked.number, command=asked.command,
                            ok=True, state="STOPPED",
                        )
                    ),
                )  # fmt: skip

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for _ in range(2):
            result = run("coor", "stop", "--listen", address, "--timeout", str(LONG))
            assert result.exit_code == 0, result.output
    finally:
        over.set()
        link.wake()
        thread.join(LONG)
        link.close()
    assert [told.command for told in made] == ["STOP", "STOP"]


# --- status ----------------------------------------


def test_the_status_as_json_is_the_document(logger: StandIn, tmp_path: Path) -> None:
    result = run("status", "-d", str(tmp_path), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == status_data(document())


def test_the_status_at_a_glance(logger: StandIn, tmp_path: Path) -> None:
    result = run("status", "-d", str(tmp_path))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("daq  RUNNING for 10 s")
    assert "disk-low" in lines[3]  # alarms stand first
    for part in (
        "run 7  ACTIVE", "photons", "1,008", "1,000", "976.6 KiB", "photons_0002 OPEN 4.0 KiB",
        "refused: aborted 3", "run-control", "lost", "LOW: no credit",
    ):  # fmt: skip
        assert part in result.stdout


def shown(status: Status, before: Status | None = None) -> str:
    console = output.console()
    with console.capture() as capture:
        console.print(status_command.view(status, before))
    return capture.get()


def test_rates_come_from_two_documents() -> None:
    before, now = document(seconds=100, stored=1000), document(seconds=102, stored=5000)
    text = shown(now, before)
    assert "2,000" in text  # events/s
    assert "2.0 MB/s" in text


def test_there_are_no_rates_across_a_restart() -> None:
    before = document(logger=LoggerStatus(name="daq", boot=2))
    assert "events/s" not in shown(document(), before)


def test_a_document_with_nothing_in_it_can_be_shown() -> None:
    assert "no run is active" in shown(Status())


def test_names_are_text_and_no_markup() -> None:
    alarm = AlarmState(name="[red]x[/]", severity="error", text="\x1b[2J", since_ns=1, count=1)
    text = shown(document(alarms=[alarm]))
    assert "[red]x[/]" in text
    assert "\x1b[2J" not in text


# --- the control room's beginnings ----------------------------------------


class Reporting:
    """A logger that reports alarms and its state."""

    def __init__(self, address: str) -> None:
        self.board = AlarmBoard(SystemClock())
        self.links = NoticeLinks(
            self.board, lambda: status_data(document()), logger="daq", uuid="u"
        )
        self.links.start()
        self.links.use(alarm_server=address, monitor=address, monitor_interval_ms=100)


def lines_of(process: subprocess.Popen[str], number: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(number)]


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/notices.sock"


@pytest.fixture
def reporting(address: str) -> Iterator[Reporting]:
    made = Reporting(address)
    yield made
    made.links.close()


def test_the_alarm_server_tells_what_is_new(reporting: Reporting, address: str) -> None:
    with dlog("alarm-server", "--listen", address) as process:
        assert "appeared" in lines_of(process, 1)[0]
        reporting.board.raise_alarm("disk[0]", Severity.ERROR, "full\x1b[2J")
        (line,) = lines_of(process, 1)
        assert line.rstrip().endswith(r"daq          error  disk[0]: full\x1b[2J")
        reporting.board.clear_alarm("disk[0]")
        assert "cleared  disk[0]" in lines_of(process, 1)[0]
        reporting.links.close()
        assert "ended" in lines_of(process, 1)[0]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LONG)
        assert process.returncode == 130


def test_the_alarm_server_tells_scripts(reporting: Reporting, address: str) -> None:
    with dlog("alarm-server", "--listen", address, "--json") as process:
        reporting.board.raise_alarm("disk", Severity.ERROR, "full")
        said = [json.loads(line) for line in lines_of(process, 2)]
        assert [each["kind"] for each in said] == ["appeared", "raised"]
        assert said[1]["alarm"]["name"] == "disk"


def test_the_monitor_tells_what_changes(reporting: Reporting, address: str) -> None:
    with dlog("monitor", "--listen", address) as process:
        assert lines_of(process, 1)[0].rstrip().endswith("RUNNING run 7 ACTIVE")
        reporting.links.close()
        assert lines_of(process, 1)[0].rstrip().endswith("ended")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LONG)
        assert process.returncode == 130


def test_the_monitor_tells_scripts_each_report(reporting: Reporting, address: str) -> None:
    with dlog("monitor", "--listen", address, "--json", "--interval", "0.1") as process:
        said = [json.loads(line) for line in lines_of(process, 6)]
        assert said[0]["kind"] == "appeared"
        reports = [each for each in said if each.get("type") == "monitor"]
        assert reports[0]["status"] == status_data(document())
        assert [each["number"] for each in reports] == list(range(1, len(reports) + 1))


def test_the_monitor_shows_several_loggers_and_all_of_an_only_one() -> None:
    def overview(*names: str) -> str:
        desk = Desk()
        for name in names:
            for number in (1, 2):
                status = status_data(document(seconds=number, stored=number * 500))
                report = MonitorReport(
                    logger=name, uuid=name, number=number, time_ns=1, status=status
                )
                desk.take(report, time.monotonic_ns())
        console = output.console()
        with console.capture() as capture:
            console.print(monitor_command._overview(desk))
        return capture.get()

    assert "no logger has reported" in overview()
    one, two = overview("one"), overview("one", "two")
    assert "photons" in one
    assert "photons" not in two
    assert two.count("7 ACTIVE") == 2
    assert "500.0 kB/s" in two


def test_a_report_without_a_status_breaks_no_view() -> None:
    desk = Desk()
    report = MonitorReport(logger="x", uuid="x", number=1, time_ns=1, status={"runs": "many"})
    desk.take(report, 0)
    with output.console().capture():
        output.console().print(monitor_command._overview(desk))


# --- numbers for people ----------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.96, "10.0 s"),
        (59, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (86_399, "23 h 59 min"),
        (90_000, "1 d 1 h"),
        (10**9, "11574 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert quantities.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (2**60, "1048576.0 TiB")],
)
def test_sizes(number: int, text: str) -> None:
    assert quantities.size(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(999, "999 B/s"), (1.5e6, "1.5 MB/s"), (4.2e9, "4.20 GB/s")]
)
def test_rates(number: float, text: str) -> None:
    assert quantities.rate(number) == text


@pytest.fixture
def in_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of a place whose clocks are changed, on 2026-11-01 at 06:00 UTC."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1793511000, "2026-11-01 01:30:00 -04:00"),
        (1793514600, "2026-11-01 01:30:00 -05:00"),
        (0, ""),
        (10**14, "100000000000000 s after 1970"),
    ],
)
def test_a_moment_says_its_zone(in_zone: None, seconds: int, text: str) -> None:
    assert quantities.moment(seconds * 10**9) == text
