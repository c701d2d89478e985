"""How the demo looks: its steps as they come, progress on a terminal, and the closing table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from dlog.cli.output import console, json_out, plain, table
from dlog.demo.detectors import RUNS, STREAMS, total
from dlog.demo.story import COOR, KILL, LOGGER, PROOF, SOURCE, Outcome, StreamOutcome
from dlog.quantities import count

_STYLES: Final = {
    LOGGER: "bold cyan", COOR: "bold magenta", SOURCE: "bold blue", KILL: "bold red",
    PROOF: "bold green",
}  # fmt: skip
_WIDE: Final = 80  # columns of a terminal that has room for a long bar
_TOLD_EVERY: Final = 0.25  # of the events, where there is no bar


class Show:
    """The demo's audience. With `as_json` all words go to stderr and the outcome to stdout."""

    def __init__(self, seconds: float, *, as_json: bool) -> None:
        self._as_json = as_json
        self._console = console(stderr=as_json)
        self._begin = time.monotonic()
        self._totals = {s.name: total(s, seconds) for s in STREAMS}
        self._told = 0.0
        self._tasks: dict[str, TaskID] = {}
        self._progress: Progress | None = None
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("          {task.description:<11}", markup=False),
                BarColumn(bar_width=30 if self._console.width >= _WIDE else 8),
                MofNCompleteColumn(),
                TextColumn("{task.fields[remark]}", style="dim", markup=False),
                console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip

    def __enter__(self) -> Show:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    # --- while it goes on ------------------------------------------------------------------------

    def step(self, who: str, text: str) -> None:
        elapsed = time.monotonic() - self._begin
        line = Text.assemble(
            (f"{elapsed:5.1f} s  ", "dim"), (f"{who:<9}", _STYLES.get(who, "")), plain(text)
        )
        self._console.print(line, soft_wrap=True)

    def sending(self, acknowledged: Mapping[str, int], pending: int) -> None:
        if self._progress is None:
            done = sum(acknowledged.values()) / sum(self._totals.values())
            if done >= self._told + _TOLD_EVERY:
                self._told = done // _TOLD_EVERY * _TOLD_EVERY
                self.step(SOURCE, f"{self._told:.0%} of the events are acknowledged")
            return
        for name, number in acknowledged.items():
            task = self._bar(name, self._totals[name])
            self._progress.update(task, completed=number, remark="acknowledged")

    def reading(self, what: str, total: float) -> Callable[[float], None]:
        if self._progress is None:
            return lambda _: None
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()
        progress, task = self._progress, self._bar(what, total)
        return lambda amount: progress.advance(task, amount)

    def _bar(self, name: str, total: float) -> TaskID:
        assert self._progress is not None
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, remark="")
        return self._tasks[name]

    # --- the end ---------------------------------------------------------------------------------

    def outcome(self, outcome: Outcome, *, kept: Path | None) -> None:
        """The closing table, and the verdict."""
        if self._progress is not None:
            self._progress.stop()
        self._table(outcome)
        self._verdict(outcome)
        if kept is not None:
            self._console.print(
                f"\nKept in {kept}. Look at it with: dlog ls -d {kept}; dlog verify {kept}; "
                f"dlog cat -n 5 {kept}/runs/{min(RUNS)}",
                soft_wrap=True,
            )
        if self._as_json:
            json_out({**_as_data(outcome), "data": None if kept is None else str(kept)})

    def _table(self, outcome: Outcome) -> None:
        numbers = (
            "sent", "acknow-\nledged", "stored", "garbage", "duplicates\ndropped", "read\nback"
        )  # fmt: skip
        shown = table("stream", *numbers, "exactly\nonce", numbers=numbers)
        for name, stream in outcome.streams.items():
            shown.add_row(name, *_row(stream), _yes(stream.holds))
        shown.add_section()
        together = outcome.streams.values()
        shown.add_row(
            "all", *_row(_sum(list(together))), _yes(all(s.holds for s in together)), style="bold"
        )
        self._console.print()
        self._console.print(shown, soft_wrap=True)
        self._console.print()

    def _verdict(self, outcome: Outcome) -> None:
        self._console.print(
            f"Recovery: a new logger answered {outcome.answering_seconds:.1f} s after the kill -9 "
            f"with both runs active; after {outcome.acknowledging_seconds:.1f} s both sources had "
            f"new acknowledgements. {count(outcome.batches_resent)} batches were sent again.",
            soft_wrap=True,
        )
        acknowledged = sum(stream.acknowledged for stream in outcome.streams.values())
        if outcome.holds:
            self._console.print(
                f"Every acknowledged event stands exactly once: {count(acknowledged)} of "
                f"{count(acknowledged)}.", style="bold green", soft_wrap=True,
            )  # fmt: skip
            return
        for problem in [*_stream_problems(outcome), *outcome.problems]:
            self._console.print(f"NOT SO: {plain(problem)}", style="bold red", soft_wrap=True)


def _row(stream: StreamOutcome) -> list[str]:
    numbers = (
        stream.sent, stream.acknowledged, stream.stored, stream.garbage, stream.duplicates,
        stream.read,
    )  # fmt: skip
    return [count(number) for number in numbers]


def _sum(streams: list[StreamOutcome]) -> StreamOutcome:
    fields = StreamOutcome.__struct_fields__
    return StreamOutcome(**{name: sum(getattr(s, name) for s in streams) for name in fields})


def _yes(holds: bool) -> Text:
    return Text("yes", "green") if holds else Text("NO", "bold red")


def _stream_problems(outcome: Outcome) -> list[str]:
    problems = []
    for name, stream in outcome.streams.items():
        for what in ("missing", "doubled", "altered", "unknown", "refused"):
            if number := getattr(stream, what):
                problems.append(f"{name}: {count(number)} events {what}")
    return problems


def _as_data(outcome: Outcome) -> dict[str, object]:
    import msgspec

    return dict(msgspec.to_builtins(outcome))
