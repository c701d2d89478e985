"""A logger under a measured load: real processes, real sockets, files in a folder of its own.

It starts them, lets them run for a bounded time and number of bytes, and removes what they wrote.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from dlog.adapters.child_processes import ChildEnded, Children, Lines, last_lines, wait_for_end
from dlog.adapters.coor_link import CoorClient, NoAnswer
from dlog.bench.sender import Order, Sent
from dlog.creation import create_data_directory
from dlog.errors import Error
from dlog.limits import MEMORY_BYTES_DEFAULT
from dlog.model.messages import Answer

_PATIENCE_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 0.5
_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What the sources send, and how the streams keep it.

    rate: payload bytes a second of all sources together, 0 for as fast as it goes. mixed: variable
    lengths, batches of several streams, some events in two of them.
    """

    name: str
    event_bytes: int
    streams: int = 4
    sources: int = 2
    rate: float = 0.0
    seconds: float = 2.0
    bytes_max: int = 2 << 30
    content: str = "random"
    mixed: bool = False
    stream: dict[str, Any] = {}


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a load. Rates are bytes a second of payload, from the first event to the last
    acknowledgement; bytes of an event for two streams count twice in `stored_rate`, once in `rate`.

    file_bytes: what the files take. logger_cpu_seconds, sources_cpu_seconds: user and system.
    logger_threads: those of the logger by kind of thread.
    cpu_busy: of all processors, 1 is all of them busy. latency_ms: p50, p90, p99, max; empty at
    full speed. behind_ms: how late the sources were with their timetable at the end.
    """

    load: Load
    seconds: float
    events: int
    payload_bytes: int
    stored_bytes: int
    file_bytes: int
    logger_cpu_seconds: float
    sources_cpu_seconds: float
    cpu_busy: float
    latency_ms: dict[str, float] = {}
    behind_ms: float = 0.0
    batches_resent: int = 0
    logger_threads: dict[str, float] = {}

    @property
    def rate(self) -> float:
        return self.payload_bytes / self.seconds

    @property
    def stored_rate(self) -> float:
        return self.stored_bytes / self.seconds

    @property
    def cpu_seconds_per_gb(self) -> float:
        return self.logger_cpu_seconds / (self.stored_bytes / 1e9)

    @property
    def keeps_up(self) -> bool:
        """Whether a load by a rate was taken at that rate."""
        late_ms = max(50.0, 50.0 * self.seconds)  # 5 % of the time
        return self.behind_ms < late_ms and self.rate > 0.93 * self.load.rate


class Rig:
    """A logger on `folder`; a context manager, which ends every process and removes every file.

    module: what is run instead of `dlog.cli`, for loggers that differ from the ordinary one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        memory_bytes: int = MEMORY_BYTES_DEFAULT,
        module: str = "dlog.cli",
    ) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._module = module
        self._memory_bytes = memory_bytes
        self._children = Children()
        self._run = self._commands = 0
        self.rss_peak_bytes = 0

    def __enter__(self) -> Rig:
        self._folder.mkdir(parents=True)
        try:
            self._start()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _start(self) -> None:
        (self._folder / "dlog.toml").write_text(
            f'[logger]\nname = "bench"\ndata = ["{self._data}"]\n'
        )
        create_data_directory(self._data)
        self._log = (self._folder / "log").open("ab")
        self._coor = CoorClient(self._data, name="bench")
        self.logger = self._children.start(
            self._module, "start", "-c", str(self._folder / "dlog.toml"), log=self._log
        )
        init = {"memory_bytes": self._memory_bytes, "debug_level": "warning"}
        self._ask("INIT", {**init, "low_water_bytes": 0, "resume_bytes": 0})

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._children.__exit__(None, None, None)
        if hasattr(self, "_log"):
            self._log.close()
        if hasattr(self, "_coor"):
            self._coor.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def data(self) -> Path:
        return self._data

    def run_folder(self, run: int) -> Path:
        return self._data / "runs" / str(run)

    # --- a measurement ---------------------------------------------------------------------------

    def measure(
        self,
        load: Load,
        *,
        keep: bool = False,
        end: bool = True,
    ) -> Measured:
        """Run the load in a run of its own. keep: the run's files stay. end: the run is stopped;
        otherwise it stays active, and its files open. Raises `Error` where a process ends or an
        event is not acknowledged."""
        self._run += 1
        run = self._run
        names = [f"s{i}" for i in range(load.streams)]
        self._ask("CONFIGURE", {"streams": dict.fromkeys(names, load.stream)})
        self._ask("START RUN", {"run": run})
        senders = self._start_senders(load, run, names)
        lines = Lines()
        for sender in senders:
            lines.of(sender)
        self._hear(lines, senders, "ready")
        before, busy_before = self._cpu_seconds(), _processors()
        threads_before = self._thread_seconds()
        for sender in senders:
            assert sender.stdin is not None
            sender.stdin.write(b"g")
            sender.stdin.flush()
        sent = self._hear(lines, senders, "done")
        cpu, busy = self._cpu_seconds() - before, _processors()
        threads = Counter(self._thread_seconds())
        threads.subtract(threads_before)
        for sender in senders:
            wait_for_end(sender, "a sender", _PATIENCE_SECONDS)
        self.rss_peak_bytes = self._rss_peak_bytes()
        if end:
            self._ask("STOP RUN", {"run": run})
        files = list(self.run_folder(run).glob("*.dlog"))
        file_bytes = sum(file.stat().st_size for file in files)
        if end and not keep:
            self.remove(run)
        begin_ns, end_ns = min(s.begin_ns for s in sent), max(s.done_ns for s in sent)
        return Measured(
            load=load,
            seconds=(end_ns - begin_ns) / 1e9,
            events=sum(s.events for s in sent),
            payload_bytes=sum(s.payload_bytes for s in sent),
            stored_bytes=sum(s.piece_bytes for s in sent),
            file_bytes=file_bytes,
            logger_cpu_seconds=cpu,
            sources_cpu_seconds=sum(s.cpu_seconds for s in sent),
            cpu_busy=_busy_between(busy_before, busy),
            latency_ms=quantiles([each for s in sent for each in s.latencies]),
            behind_ms=max(s.behind_ms for s in sent),
            batches_resent=sum(s.batches_resent for s in sent),
            logger_threads={name: seconds for name, seconds in threads.items() if seconds > 0},
        )

    def remove(self, run: int) -> None:
        """What a run wrote; and wait until the disk has forgotten it: with a filesystem that
        discards, that is work which the next measurement would pay for."""
        shutil.rmtree(self.run_folder(run), ignore_errors=True)
        os.sync()

    def _start_senders(
        self, load: Load, run: int, names: Sequence[str]
    ) -> list[subprocess.Popen[bytes]]:
        count = min(load.sources, load.streams)
        senders = []
        for i in range(count):
            order = Order(
                address=str(self._data),
                name=f"bench-{i}",
                run=run,
                # Mixed batches need streams that meet in them: all of them, then.
                streams=list(names) if load.mixed else list(names[i::count]),
                event_bytes=load.event_bytes,
                seconds=load.seconds,
                bytes_max=load.bytes_max // count,
                rate=load.rate / count,
                content=load.content,
                mixed=load.mixed,
            )
            text = msgspec.json.encode(order).decode()
            senders.append(
                self._children.start("dlog.bench.sender", text, log=self._log, talk=True)
            )
        return senders

    def _hear(
        self,
        lines: Lines,
        senders: Sequence[subprocess.Popen[bytes]],
        phase: str,
    ) -> list[Sent]:
        """What each of them says when it has come that far."""
        heard: list[Sent] = []
        end = time.monotonic() + 2 * _PATIENCE_SECONDS
        while len(heard) < len(senders):
            line = lines.next(0.1)
            if line is not None:
                said = msgspec.json.decode(line, type=Sent)
                if said.phase != phase:
                    raise ChildEnded(f"a sender of the benchmark: {said.problem or said.phase}")
                heard.append(said)
                continue
            gone = [s for s in senders if lines.over(s)]
            if self.logger.poll() is not None or len(gone) > len(heard):
                tail = last_lines(self._folder / "log")
                raise ChildEnded(f"a process of the benchmark ended:\n{tail}")
            if time.monotonic() > end:
                raise Error(f"the senders of the benchmark are not {phase}")
        return heard

    # --- the logger ------------------------------------------------------------------------------

    def _ask(self, command: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        self._commands += 1
        command_id = (self._coor.session, self._commands)
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                answer = self._coor.ask(command, parameters, _ANSWER_SECONDS, command_id=command_id)
            except NoAnswer:
                if self.logger.poll() is not None:
                    tail = last_lines(self._folder / "log")
                    raise ChildEnded(f"the benchmark's logger ended:\n{tail}") from None
                if time.monotonic() > end:
                    raise
                continue
            if not answer.ok:
                raise Error(f"{command} was refused: {answer.error}")
            return answer

    def _cpu_seconds(self) -> float:
        return _seconds_of(Path(f"/proc/{self.logger.pid}/stat"))[1]

    def _thread_seconds(self) -> dict[str, float]:
        """By kind of thread; the writers of all streams are one kind."""
        found: dict[str, float] = defaultdict(float)
        for path in Path(f"/proc/{self.logger.pid}/task").glob("*/stat"):
            try:
                name, seconds = _seconds_of(path)
            except OSError:
                continue  # it has ended
            found[_kind_of(name)] += seconds
        return found

    def _rss_peak_bytes(self) -> int:
        for line in Path(f"/proc/{self.logger.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0


def _seconds_of(stat: Path) -> tuple[str, float]:
    """Name and processor time, user and system, of a process or thread."""
    head, _, rest = stat.read_text().rpartition(")")
    fields = rest.split()
    return head.partition("(")[2], (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def _kind_of(thread: str) -> str:
    if thread.startswith("stream "):
        return "streams"
    if thread.startswith("ZMQ"):
        return "network"
    return thread if thread in ("event server", "committer", "dlog write") else "others"


def _processors() -> tuple[int, int]:
    """Ticks of all processors: busy, and all."""
    fields = [int(f) for f in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def _busy_between(before: tuple[int, int], after: tuple[int, int]) -> float:
    return (after[0] - before[0]) / max(1, after[1] - before[1])


def quantiles(latencies: Sequence[tuple[float, int]]) -> dict[str, float]:
    """Of the events, not of the moments at which it was looked."""
    if not latencies:
        return {}
    ordered = sorted(latencies)
    events = sum(number for _, number in ordered)
    found: dict[str, float] = {}
    for name, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
        left = part * events
        for value, number in ordered:
            left -= number
            if left <= 1e-9 * events:
                found[name] = value
                break
    return found
