"""The demo's story, step by step, with real processes: it starts, kills and stops them, waits for
what they say, and gathers the outcome. It prints nothing.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from dlog.adapters.child_processes import ChildEnded, Children, Lines, last_lines, wait_for_end
from dlog.adapters.coor_link import CoorClient, NoAnswer
from dlog.core.journal_records import CountRecord
from dlog.creation import create_data_directory
from dlog.demo.collector import Order, Said
from dlog.demo.detectors import CONFIGURATION, RUNS, SOURCES, STREAMS, total
from dlog.demo.proof import Found, compare
from dlog.errors import Error
from dlog.model.messages import Answer
from dlog.model.status import read_status
from dlog.recovery.facts import look_at
from dlog.recovery.report import Summary, Verdict, summarise, verdict_words
from dlog.recovery.verify import plan, verify

KILL_AT: Final = 0.4  # of the events of each stream acknowledged
# Without any progress: a busy machine is slow, and that is no fault of what is shown.
STEP_SECONDS: Final = 300.0
DRAIN_SECONDS: Final = 240.0
ANSWER_SECONDS: Final = 0.5  # before the logger's process is looked at, and asked again
BEGIN_NS: Final = 500_000_000  # for the collectors to start

LOGGER: Final = "logger"
COOR: Final = "COOR"
SOURCE: Final = "sources"
KILL: Final = "kill -9"
PROOF: Final = "proof"


class Audience(Protocol):
    """Who watches the story."""

    def step(self, who: str, text: str) -> None: ...

    def sending(self, acknowledged: Mapping[str, int], pending: int) -> None:
        """Pieces acknowledged so far, by stream; pieces on their way."""
        ...

    def reading(self, what: str, total: float) -> Callable[[float], None]:
        """Long work begins; what it returns is called with each step forward."""
        ...


class StreamOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """A stream, both runs and sources together, in events. sent, acknowledged: as the sources
    counted; stored, duplicates, garbage, refused: as the journal did; read, missing, doubled,
    altered, unknown: as the files say, read back and compared."""

    sent: int
    acknowledged: int
    stored: int
    duplicates: int
    garbage: int
    refused: int
    read: int
    missing: int
    doubled: int
    altered: int
    unknown: int
    files: int
    payload_bytes: int

    @property
    def holds(self) -> bool:
        if self.missing or self.doubled or self.altered or self.unknown or self.refused:
            return False
        return self.sent == self.acknowledged == self.read == self.stored + self.garbage


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds are from the kill -9 on: until a new logger answered COOR with both runs active, and
    until both sources had new acknowledgements."""

    holds: bool
    problems: list[str]
    streams: dict[str, StreamOutcome]
    pending_at_kill: int
    answering_seconds: float
    acknowledging_seconds: float
    batches_resent: int
    verified: Summary
    total_seconds: float


class AcknowledgedAgain:
    """Whether a source has acknowledgements of the logger that was started again, by its reports.

    Its first report after the reconnection may have some that came before the kill. So there must
    be more in a later one, or more than before the kill and none that is missing."""

    def __init__(self, before: Said) -> None:
        """before: its last report before the kill."""
        self._reconnects = before.reconnects
        self._acknowledged = sum(before.acknowledged.values())
        self._base: int | None = None

    def is_so(self, said: Said) -> bool:
        if said.reconnects <= self._reconnects:
            return False
        acknowledged = sum(said.acknowledged.values())
        if self._base is None:
            self._base = acknowledged
        all_of_them = acknowledged > self._acknowledged and not said.pending
        return acknowledged > self._base or all_of_them


def tell(data: Path, seconds: float, audience: Audience) -> Outcome:
    """The whole story, in an empty data directory."""
    with Children() as children, CoorClient(data, name="demo") as coor:
        create_data_directory(data)
        return _Story(data.resolve(), seconds, audience, children, coor).run()


class _Story:
    def __init__(
        self, data: Path, seconds: float, audience: Audience, children: Children, coor: CoorClient
    ) -> None:
        self._data = data
        self._seconds = seconds
        self._audience = audience
        self._children = children
        self._coor = coor
        self._log = (data / "demo.log").open("ab")
        self._lines = Lines()
        self._collectors: dict[str, subprocess.Popen[bytes]] = {}
        self._said: dict[str, Said] = {}
        self._problems: list[str] = []
        self._commands = 0

    def run(self) -> Outcome:
        begin = time.monotonic()
        with self._log:
            self._configuration()
            self._logger = self._start_logger()
            self._begin_runs()
            self._start_collectors()
            pending = self._send_until_kill()
            answering, acknowledging = self._kill_and_resume()
            self._send_to_the_end()
            self._end_sources()
            self._stop()
        verified = self._verify()
        found = self._compare()
        streams = self._streams(found)
        if not all(stream.holds for stream in streams.values()):
            self._problems.append("not every acknowledged event stands exactly once")
        return Outcome(
            holds=not self._problems, problems=self._problems, streams=streams,
            pending_at_kill=pending, answering_seconds=answering,
            acknowledging_seconds=acknowledging,
            batches_resent=sum(said.batches_resent for said in self._said.values()),
            verified=verified, total_seconds=time.monotonic() - begin,
        )  # fmt: skip

    # --- beginning -------------------------------------------------------------------------------

    def _configuration(self) -> None:
        text = (
            '[logger]\nname = "demo"\ndata = ["."]\n\n'
            '[init]\nlow_water_bytes = "64 MiB"\nresume_bytes = "96 MiB"\n'
            f"drain_seconds = {DRAIN_SECONDS}\n\n{CONFIGURATION}"
        )
        (self._data / "dlog.toml").write_text(text)

    def _start_logger(self) -> subprocess.Popen[bytes]:
        """As systemd would, or somebody at a terminal: `dlog start -c dlog.toml`."""
        config = str(self._data / "dlog.toml")
        return self._children.start("dlog.cli", "start", "-c", config, log=self._log)

    def _begin_runs(self) -> None:
        from dlog.adapters.configuration_file import configure_parameters, init_parameters

        config = self._data / "dlog.toml"
        init = self._ask("INIT", init_parameters(config))
        self._tell(
            LOGGER, f"process {self._logger.pid}, takes events at {init.data['event_address']}"
        )
        names = ", ".join(stream.name for stream in STREAMS)
        self._ask("CONFIGURE", configure_parameters(config))
        self._tell(COOR, f"INIT, CONFIGURE: streams {names}")
        for run in RUNS:
            self._last_start = self._ask("START RUN", {"run": run, "comment": "dlog demo"})
        self._tell(COOR, f"START RUN {' and '.join(map(str, RUNS))}")

    def _start_collectors(self) -> None:
        begin_ns = time.monotonic_ns() + BEGIN_NS
        for position, name in enumerate(SOURCES):
            order = Order(
                data=str(self._data), name=name, source=position, seconds=self._seconds,
                begin_ns=begin_ns,
            )  # fmt: skip
            text = msgspec.json.encode(order).decode()
            process = self._children.start("dlog.demo.collector", text, log=self._log, talk=True)
            self._collectors[name] = process
            self._lines.of(process)
        self._tell(SOURCE, f"{' and '.join(SOURCES)} send each stream to both runs")

    # --- the middle ------------------------------------------------------------------------------

    def _send_until_kill(self) -> int:
        totals = {stream.name: total(stream, self._seconds) for stream in STREAMS}
        self._listen_until(
            lambda: all(n >= KILL_AT * totals[name] for name, n in self._acknowledged().items()),
            f"{KILL_AT:.0%} of the events of each stream are acknowledged",
        )
        return sum(said.pending for said in self._said.values())

    def _kill_and_resume(self) -> tuple[float, float]:
        before = dict(self._said)
        killed = time.monotonic()
        self._logger.send_signal(signal.SIGKILL)
        wait_for_end(self._logger, "the logger", STEP_SECONDS)
        events = sum(self._acknowledged().values())
        pending = sum(said.pending for said in before.values())
        self._tell(
            KILL, f"the logger is gone, in mid-run: {events:,} events acknowledged, "
            f"{pending:,} on their way"
        )  # fmt: skip
        self._logger = self._start_logger()
        for process in self._collectors.values():
            assert process.stdin is not None
            # A collector that has ended is told of where its lines are listened to.
            with suppress(BrokenPipeError):
                process.stdin.write(b"go on\n")
                process.stdin.flush()
        runs = {run.run: run.state for run in read_status(self._ask("STATUS").data).runs}
        answering = time.monotonic() - killed
        states = ", ".join(f"run {run} {state}" for run, state in sorted(runs.items()))
        self._tell(LOGGER, f"started again, and goes on by itself: {states or 'no runs'}")
        if runs != dict.fromkeys(RUNS, "ACTIVE"):
            raise Error(f"after the restart: {states or 'no runs'}, where all were ACTIVE")
        again = {name: AcknowledgedAgain(said) for name, said in before.items()}

        def go_on() -> bool:
            each = [again[name].is_so(said) for name, said in self._said.items()]
            return all(each)

        self._listen_until(go_on, "both sources have new acknowledgements")
        acknowledging = time.monotonic() - killed
        self._tell(SOURCE, f"acknowledged again, {acknowledging:.1f} s after the kill")
        self._repeat_a_command()
        return answering, acknowledging

    def _repeat_a_command(self) -> None:
        """A COOR that lost the answer asks again: the answer is in the journal, nothing is done."""
        last = self._last_start
        again = self._ask(last.command, {"run": max(RUNS), "comment": "dlog demo"},
                          (last.session, last.number))  # fmt: skip
        if not again.repeated or again.data != last.data:
            raise Error(f"{last.command} with the same id was not answered from the journal")
        self._tell(COOR, f"START RUN {max(RUNS)} once more, same id: answered from the journal")

    def _send_to_the_end(self) -> None:
        """A run is stopped once its events are handed over: it drains while the others go on."""
        for run in RUNS:
            self._listen_until(
                partial(self._is_handed_over, run),
                f"the sources have handed over all events of run {run}",
            )
            stopped = self._ask("STOP RUN", {"run": run})
            state, reason = stopped.data.get("state"), stopped.data.get("reason", "")
            if state != "ENDED" or reason:
                raise Error(f"run {run} is {state}: {reason}")
            others = ", ".join(str(other) for other in RUNS if other > run)
            going_on = f"; run {others} goes on" if others else ""
            self._tell(COOR, f"STOP RUN {run}: drained, all its files are closed{going_on}")

    def _is_handed_over(self, run: int) -> bool:
        return all(run in said.runs_over for said in self._said.values())

    def _end_sources(self) -> None:
        self._listen_until(
            lambda: all(said.phase == "done" for said in self._said.values()),
            "the sources have every event acknowledged",
        )
        for name, process in self._collectors.items():
            code = wait_for_end(process, name, STEP_SECONDS)
            if code:
                raise ChildEnded(f"{name} ended with exit code {code}")
        acknowledged = sum(self._acknowledged().values())
        self._tell(SOURCE, f"ended: {acknowledged:,} events are acknowledged, none is pending")

    def _stop(self) -> None:
        self._ask("STOP")
        code = wait_for_end(self._logger, "the logger", STEP_SECONDS)
        if code:
            raise ChildEnded(f"the logger ended with exit code {code}")
        self._tell(LOGGER, "STOP: ended, exit code 0")

    # --- the proof -------------------------------------------------------------------------------

    def _verify(self) -> Summary:
        made = plan([self._data])
        forward = self._audience.reading("verifying", made.total_bytes)
        reports = list(verify(made, progress=forward))
        summary = summarise(reports)
        if summary.verdict is not Verdict.GOOD:
            self._problems += [
                f"{report.path}: {verdict_words(report.verdict)}"
                for report in reports
                if report.verdict is not Verdict.GOOD
            ]
        files = [report for report in reports if report.state in ("closed", "sealed")]
        stored = sum(report.size_bytes for report in files)
        self._tell(
            PROOF, f"verified: {len(files)} files of {stored / 2**20:.1f} MiB, "
            f"{summary.blocks:,} blocks, every checksum; {verdict_words(summary.verdict)}"
        )  # fmt: skip
        return summary

    def _compare(self) -> dict[str, Found]:
        events = sum(total(stream, self._seconds) for stream in STREAMS)
        forward = self._audience.reading("comparing", events)
        found = compare(self._data, self._seconds, forward)
        read = sum(stream.events for stream in found.values())
        late = sum(stream.late for stream in found.values())
        garbage = sum(stream.garbage for stream in found.values())
        self._tell(PROOF, f"read back: {read:,} events, each compared with the one that was sent")
        self._tell(
            PROOF, f"late events: {late:,} in the part of their range, {garbage:,} in garbage files"
        )  # fmt: skip
        return found

    def _streams(self, found: Mapping[str, Found]) -> dict[str, StreamOutcome]:
        counts = self._journal_counts()
        outcomes = {}
        for stream in STREAMS:
            of_stream = [count for name, count in counts if name == stream.name]
            read = found[stream.name]
            outcomes[stream.name] = StreamOutcome(
                sent=sum(said.sent.get(stream.name, 0) for said in self._said.values()),
                acknowledged=self._acknowledged()[stream.name],
                stored=sum(count.stored for count in of_stream),
                duplicates=sum(count.duplicate for count in of_stream),
                garbage=sum(count.garbage for count in of_stream),
                refused=sum(sum(count.refused.values()) for count in of_stream),
                read=read.events, missing=read.missing, doubled=read.doubled,
                altered=read.altered, unknown=read.unknown, files=read.files,
                payload_bytes=read.payload_bytes,
            )  # fmt: skip
            meant, sent = total(stream, self._seconds), outcomes[stream.name].sent
            if sent != meant:
                self._problems.append(f"{stream.name}: {meant:,} events were meant, {sent:,} sent")
        return outcomes

    def _journal_counts(self) -> list[tuple[str, CountRecord]]:
        data = look_at(self._data)
        if data.snapshot is None:
            self._problems.append(f"the journal cannot be read: {data.journal_problem}")
            return []
        ended = [data.snapshot.ended[run] for run in data.snapshot.ended]
        return [(stream, count) for run in ended for _, stream, count in run.counts]

    # --- waiting ---------------------------------------------------------------------------------

    def _tell(self, who: str, text: str) -> None:
        self._audience.step(who, text)

    def _acknowledged(self) -> dict[str, int]:
        return {
            stream.name: sum(said.acknowledged.get(stream.name, 0) for said in self._said.values())
            for stream in STREAMS
        }

    def _ask(
        self,
        command: str,
        parameters: Mapping[str, Any] | None = None,
        command_id: tuple[str, int] | None = None,
    ) -> Answer:
        """COOR's answer, however long the logger takes to be there; but not from a dead one."""
        if command_id is None:
            self._commands += 1
            command_id = (self._coor.session, self._commands)
        end = time.monotonic() + STEP_SECONDS
        while True:
            try:
                answer = self._coor.ask(command, parameters, ANSWER_SECONDS, command_id=command_id)
            except NoAnswer:
                self._check_processes()
                if time.monotonic() > end:
                    raise
                continue
            if not answer.ok:
                raise Error(f"{command} was refused: {answer.error}")
            return answer

    def _listen_until(self, holds: Callable[[], bool], what: str) -> None:
        """Take in what the collectors say until that is so."""
        before: list[Said] = []
        end = 0.0
        while not (len(self._said) == len(SOURCES) and holds()):
            now = list(self._said.values())
            if now != before or not end:
                before, end = now, time.monotonic() + STEP_SECONDS
            line = self._lines.next(0.2)
            if line is not None:
                said = msgspec.json.decode(line, type=Said)
                self._said[said.name] = said
                if said.phase == "failed":
                    raise ChildEnded(f"{said.name}: {said.problem}")
                pending = sum(said.pending for said in self._said.values())
                self._audience.sending(self._acknowledged(), pending)
            else:
                self._check_processes()
            if time.monotonic() > end:
                raise Error(f"nothing has moved for {STEP_SECONDS:g} s, and it is not so: {what}")

    def _check_processes(self) -> None:
        """Raises `ChildEnded` for one that is gone without having been told to."""
        gone = [(LOGGER, self._logger)] if self._logger.poll() is not None else []
        for name, process in self._collectors.items():
            done = name in self._said and self._said[name].phase == "done"
            if not done and self._lines.over(process):
                gone.append((name, process))
        for name, process in gone:
            log = self._data / "demo.log"
            raise ChildEnded(f"{name} ended with exit code {process.poll()}:\n{last_lines(log)}")
