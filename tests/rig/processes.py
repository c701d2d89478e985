"""A real logger in a process of its own: starts it, kills it, asks it, and shows its log."""

from __future__ import annotations

import os
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from dlog.adapters.coor_link import CoorClient, NoAnswer, read_whereabouts
from dlog.adapters.journal import LmdbJournal
from dlog.core import journal_records as records
from dlog.core.journal_records import CountRecord, EndedRunRecord
from dlog.faults.system_calls import Decide, Interposed
from dlog.model.ids import RunNumber
from dlog.model.messages import Answer
from dlog.model.status import ConnectionStatus, RunStatus, Status, StreamStatus, read_status
from dlog.recovery.report import Verdict, report_lines
from dlog.recovery.verify import plan, verify
from tests.rig.commands import dlog_command, environment
from tests.waiting import LONG, until

_LOG_LINES_SHOWN: Final = 60

# Short bounds, so that a test does not wait for them; a low-water mark that no disk here is below.
QUICK_INIT: Final = """
[init]
drain_seconds = 5
settle_seconds = 2
low_water_bytes = 0
resume_bytes = 0
"""


class PatientCoor(CoorClient):
    """COOR, with the patience of a test."""

    def ask(
        self,
        command: str,
        parameters: Mapping[str, Any] | None = None,
        timeout: float = LONG,
        *,
        command_id: tuple[str, int] | None = None,
    ) -> Answer:
        return super().ask(command, parameters, timeout, command_id=command_id)


class LoggerProcess:
    """`dlog start` (or `dlog resume`) on `folder/data`, with `folder/dlog.toml`.

    prefix: what to put before the command, for example strace.
    """

    def __init__(self, folder: Path, configuration: str, *, data: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data = data or folder / "data"
        self.config_file = folder / "dlog.toml"
        self.log_file = folder / "logger.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.held: Interposed | None = None
        self.configure_with(configuration)

    def configure_with(self, configuration: str) -> None:
        """Write dlog.toml; it holds from the next start or INIT or CONFIGURE on."""
        if "[logger]" not in configuration:
            configuration = f'[logger]\ndata = ["{self.data}"]\n{configuration}'
        self.config_file.write_text(configuration)
        # All of its data directories.
        self.directories = [Path(each) for each in tomllib.loads(configuration)["logger"]["data"]]

    # --- the process

    def spawn(
        self,
        *,
        auto: bool = True,
        create: bool = True,
        resume: bool = False,
        arguments: Sequence[str] = (),
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        decide: Decide | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start it, and wait for nothing. decide: what becomes of each of its storage calls."""
        assert self.process is None or self.process.poll() is not None, "it runs already"
        if resume:
            command = dlog_command("resume", "-d", self.data)
        else:
            options = ["--create"] * create + ["--auto"] * auto
            command = dlog_command("start", "-c", self.config_file, *options)
        with self.log_file.open("ab") as log:
            log.write(f"--- {' '.join(command[3:])}\n".encode())
            log.flush()
            if decide is not None:
                self.held = Interposed([*command, *arguments], self.data, decide, log=log)
                self.process = self.held.process
                return self.process
            self.process = subprocess.Popen(
                [*prefix, *command, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=env or environment(),
            )  # fmt: skip
        return self.process

    def start(self, *, state: str = "", **how: Any) -> LoggerProcess:
        """Start it, and wait until it answers as itself (and, with `auto`, is configured)."""
        self.spawn(**how)
        wanted = {state} if state else {"CONFIGURED", "RUNNING"}
        if not state and (how.get("auto") is False or how.get("resume")):
            wanted = set()
        self.wait_ready(wanted)
        return self

    def wait_ready(self, states: set[str] | None = None) -> None:
        with self.coor() as coor:

            def ready() -> bool:
                code = self.exit_code()
                assert code is None, f"the logger ended with {code}"
                status = self._status(coor)
                mine = status is not None and self._is_mine(status)
                return status is not None and mine and (not states or status.logger.state in states)

            until(ready, f"a logger in {states or 'any state'}")

    def _is_mine(self, status: Status) -> bool:
        """Whether it is this process (or its child, under strace) that answers."""
        assert self.process is not None
        return status.logger.pid in (self.process.pid, *_children(self.process.pid))

    def _status(self, coor: CoorClient) -> Status | None:
        try:
            return read_status(coor.ask("STATUS", timeout=1.0).data)
        except NoAnswer:
            return None

    @property
    def pid(self) -> int:
        """Of the logger itself."""
        assert self.process is not None
        found = read_whereabouts(self.data)
        return found.pid if found is not None else self.process.pid

    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def kill(self) -> None:
        """kill -9, and gone when this returns."""
        if self.process is not None and self.process.poll() is None:
            for child in _children(self.process.pid):
                os.kill(child, signal.SIGKILL)
            self.process.kill()
        if self.process is not None:
            self.process.wait(LONG)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        until(lambda: self.exit_code() is not None, "the logger ends")
        code = self.exit_code()
        assert code is not None
        return code

    def stop(self) -> Answer:
        """COOR's STOP, and the end with code 0."""
        answer = self.do("STOP")
        assert self.ended() == 0
        return answer

    # --- talking to it

    def coor(self, name: str = "test") -> PatientCoor:
        """A COOR; waits until there is a directory to look for the logger in."""
        until(self.data.is_dir, f"{self.data} is there")
        return PatientCoor(self.data, name=name)

    def ask(self, command: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        with self.coor() as coor:
            return coor.ask(command, parameters)

    def do(self, command: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        """A command that must not be refused."""
        answer = self.ask(command, parameters)
        assert answer.ok, f"{command} refused: {answer.error}"
        return answer

    def start_run(self, *runs: int) -> None:
        for run in runs:
            self.do("START RUN", {"run": run})

    def stop_run(self, *runs: int) -> None:
        for run in runs:
            self.do("STOP RUN", {"run": run})

    def status(self) -> Status:
        return read_status(self.ask("STATUS").data)

    def run_status(self, run: int) -> RunStatus:
        return next(each for each in self.status().runs if each.run == run)

    def stream_status(self, run: int, stream: str) -> StreamStatus:
        return next(each for each in self.run_status(run).streams if each.name == stream)

    def source_status(self, name: str) -> ConnectionStatus:
        found = [c for c in self.status().connections if c.kind == "source" and c.name == name]
        assert len(found) == 1, f"{len(found)} connections of {name}"
        return found[0]

    def alarms(self) -> dict[str, str]:
        """What is raised, with its text."""
        return {alarm.name: alarm.text for alarm in self.status().alarms}

    @property
    def event_address(self) -> str:
        return self.status().logger.addresses["events"]

    # --- what the system says of it

    def resident_bytes(self) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    # --- what it left

    def files(self, run: int, pattern: str = "*.dlog") -> list[Path]:
        return sorted((self.data / "runs" / str(run)).glob(pattern))

    def ended_run(self, run: int) -> EndedRunRecord:
        """The run's record in the catalogue."""
        key = records.ended_run_key(RunNumber(run))
        return records.decode_record(key, self._journal_value(key), EndedRunRecord)

    def counts(self, run: int) -> dict[tuple[str, str], CountRecord]:
        """What became of the pieces of an ended run, by source and stream."""
        return {(source, stream): count for source, stream, count in self.ended_run(run).counts}

    def _journal_value(self, key: bytes) -> bytes:
        with closing(LmdbJournal.open_read_only(self.data / "journal", live_prefixes=())) as found:
            value = found.get(key)
        assert value is not None, f"{key!r} is not in the journal"
        return value

    def assert_verified(self) -> None:
        """Verifying finds nothing wrong with the data directory."""
        bad = [
            line
            for report in verify(plan([self.data]))
            if report.verdict is not Verdict.GOOD
            for line in report_lines(report)
        ]
        assert not bad, "\n".join(bad)

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_tail(self) -> str:
        return "\n".join(self.log().splitlines()[-_LOG_LINES_SHOWN:])


# --- faults from outside -----------------------------------------------------------------------

# What a crash can fall between: each of them is where the disk changes for good.
DURABLE_STEPS: Final = "fsync,fdatasync,ftruncate,renameat2,linkat,unlinkat"


def dies_at_step(step: int) -> list[str]:
    """Before a command: it is killed, with all its threads, inside its nth durable step."""
    return [*_strace(DURABLE_STEPS), "-e", f"inject={DURABLE_STEPS}:signal=SIGKILL:when={step}"]


@contextmanager
def strace_on(
    logger: LoggerProcess, calls: str, inject: str, *, path: Path | None = None
) -> Iterator[None]:
    """Inject a fault into system calls of the running logger (those on `path` alone), counted from
    here on: strace's `-e inject=CALLS:INJECT`. It is gone with the `with` block."""
    pid = logger.pid
    strace = subprocess.Popen(
        [
            *_strace(calls), *(["-P", str(path)] if path else []),
            "-e", f"inject={calls}:{inject}", "-p", str(pid),
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: _is_traced(pid), f"strace has all threads of process {pid}")
        yield
    finally:
        strace.terminate()
        strace.wait(LONG)


def _strace(calls: str) -> list[str]:
    return ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={calls}", "-e", "signal=none"]


def _is_traced(pid: int) -> bool:
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    return all("TracerPid:\t0\n" not in (task / "status").read_text() for task in tasks)


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


NewLogger = Callable[..., LoggerProcess]  # the fixture `new_logger`: see tests/conftest.py
