"""`dlog faults`: plays a logger's life under injected faults, many times; says what did not hold.

Without `--dir` everything is simulated, in memory, from seeds: no disk and no running logger is
touched. With it, a real logger is played with on that disk. This file prints and decides nothing.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlog.cli.groups import group
from dlog.cli.interrupts import ended_by_signals
from dlog.cli.output import json_line, json_out, plain, problem, progress, show, table, words
from dlog.errors import meant
from dlog.quantities import by_reason, count, duration

if TYPE_CHECKING:
    from dlog.faults.campaign import Played, Task
    from dlog.faults.simulation.campaign import Outcome, Report

app = group("Test runs with injected faults, and their report.")


@app.command("list")
def list_scenarios(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object by name.")] = False,
) -> None:
    """The scenarios that `run` plays, with the faults of each."""
    from dlog.faults import real_disk
    from dlog.faults.simulation.campaign import SCENARIOS

    simulated = {name: scenario.words for name, scenario in SCENARIOS.items()}
    real = {name: scenario.words for name, scenario in real_disk.SCENARIOS.items()}
    if as_json:
        json_out({"simulated": simulated, "real": real})
        return
    print("simulated:")
    for name, text in simulated.items():
        print(f"  {name:<13} {text}")
    print("the real program on a real disk (--dir):")
    for name, text in real.items():
        print(f"  {name:<13} {text}")


@app.command()
def run(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SCENARIO...]", help="See `dlog faults list`; none means all."),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir", metavar="DIR",
            help="Play with a real logger on this disk, in a new folder below DIR, which goes "
            "again at the end; without it, all is simulated.",
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", min=1, metavar="N",
            help="Histories a scenario. With --dir, so many of all its storage calls, evenly.",
        ),
    ] = 100,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, metavar="N", help="This one alone, with its story."),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--only", metavar="N,...", help="Of that seed these actions alone, by their [numbers]."
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option("--jobs", "-j", min=0, metavar="N", help="At once; 0 takes every processor."),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a scenario.")] = False,
) -> None:  # fmt: skip
    """Play scenarios, each with many seeds; the same seed plays the same history.

    What does not hold is shortened: actions are left out as long as the same goes wrong. The
    shortest story is told, with the command that plays it again.
    """
    jobs = jobs or os.cpu_count() or 1
    if only is not None and (seed is None or directory is not None):
        raise typer.BadParameter("--only is for --seed, and for what is simulated")
    with ended_by_signals(), _no_log():
        if directory is None:
            kept = None if only is None else _numbers(only)
            failed = _simulated(scenarios, seeds, seed, kept, jobs, as_json)
        else:
            failed = _on_disk(directory, scenarios, seeds, seed, jobs, as_json)
    raise typer.Exit(int(failed))


@contextmanager
def _no_log() -> Iterator[None]:
    """What the loggers and sources say of their faults is not for the terminal."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _simulated(
    scenarios: list[str] | None, seeds: int, seed: int | None, only: list[int] | None, jobs: int,
    as_json: bool,
) -> bool:  # fmt: skip
    from dlog.faults import campaign
    from dlog.faults.simulation.campaign import SCENARIOS

    chosen = _known(scenarios, list(SCENARIOS), "without --dir")
    if seed is not None:
        return _tell_all([campaign.simulated((name, seed), only) for name in chosen])
    tasks = [(name, number) for number in range(seeds) for name in chosen]
    played = campaign.play_all(campaign.simulated, tasks, jobs, together=4)
    return _report(chosen, len(tasks), played, as_json, again="dlog faults run")


def _on_disk(
    directory: Path, scenarios: list[str] | None, seeds: int, seed: int | None, jobs: int,
    as_json: bool,
) -> bool:  # fmt: skip
    from dlog.faults import campaign, real_disk

    chosen = _known(scenarios, list(real_disk.SCENARIOS), "with --dir")
    with campaign.fresh_folder(directory) as folder:
        chosen, refused = campaign.possible(chosen)
        if refused:
            words(f"{refused}: storage calls cannot be held here, so only {', '.join(chosen)}")
        one = campaign.on_disk(folder)
        if seed is not None:
            return _tell_all([one((name, seed)) for name in chosen])
        tasks: list[Task] = []
        for tried in campaign.spread(folder, chosen, seeds):
            words(
                f"{tried.name}: {len(tried.seeds)} plays"
                + (f"; of {tried.calls} calls, k = {tried.every}" if tried.calls else "")
            )
            tasks += [(tried.name, number) for number in tried.seeds]
        played = campaign.play_all(one, tasks, jobs)
        return _report(
            chosen, len(tasks), played, as_json, again=f"dlog faults run --dir {directory}"
        )


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",") if number.strip()]
    except ValueError as error:
        raise typer.BadParameter(f"--only {text}: numbers with commas between them") from error


def _known(scenarios: list[str] | None, there: list[str], how: str) -> list[str]:
    chosen = scenarios or there
    unknown = [name for name in chosen if name not in there]
    if unknown:
        like, known = meant(unknown[0], there), ", ".join(there)
        raise typer.BadParameter(f"no scenario {unknown[0]} {how}{like}; there are {known}")
    return chosen


def _report(
    chosen: Sequence[str], plays: int, played: Iterator[Played], as_json: bool, *, again: str
) -> bool:
    """Play, with the table or its JSON lines at the end; whether something did not hold."""
    from dlog.faults.simulation.campaign import Report

    reports: dict[str, Report] = {name: Report() for name in chosen}
    begin = time.monotonic()
    with progress("faults", plays, unit="items") as shown:
        for name, outcome in played:
            reports[name].add(outcome)
            shown.advance(1)
    for name, report in reports.items():
        if as_json:
            json_line(_facts(name, report))
    if not as_json:
        _table(reports)
    failed = [(name, o) for name, report in reports.items() for o in report.failed]
    _tell_the_shortest(failed, again)
    words(
        f"{sum(r.played for r in reports.values())} histories in {time.monotonic() - begin:.0f} s: "
        + (f"{len(failed)} DID NOT HOLD" if failed else "all held")
    )
    return bool(failed)


def _tell_the_shortest(failed: Sequence[Played], again: str) -> None:
    """The best story of what did not hold, and how to play each that was shortened."""
    from dlog.faults import campaign

    shortened = campaign.shortened(failed)
    for name, outcome in shortened[:1]:
        _tell(name, outcome)
    for name, outcome in shortened:
        only = ""
        if outcome.actions is not None:
            only = f" --only '{','.join(map(str, outcome.actions))}'"
        problem(f"play it again: {again} {name} --seed {outcome.seed}{only}")


def _lost(report: Report) -> int:
    return sum("LOST" in text for outcome in report.failed for text in outcome.problems)


def _facts(name: str, report: Report) -> dict[str, Any]:
    return {
        "scenario": name,
        "histories": report.played,
        "survived": report.played - len(report.failed),
        "faults": dict(report.faults),
        "restarts": report.reboots,
        "worst_recovery_seconds": report.recovery_ns_max / 1e9,
        "events": report.events,
        "lost_acknowledged": _lost(report),
        "failed_seeds": [outcome.seed for outcome in report.failed],
    }


def _table(reports: dict[str, Report]) -> None:
    numbers = (
        "histories", "survived", "restarts", "worst recovery", "pieces sent", "acked and lost",
    )  # fmt: skip
    shown = table("scenario", *numbers, "faults", numbers=numbers)
    for name, report in reports.items():
        shown.add_row(
            name, count(report.played), count(report.played - len(report.failed)),
            count(report.reboots), duration(report.recovery_ns_max / 1e9), count(report.events),
            count(_lost(report)), by_reason(report.faults) or "none",
        )  # fmt: skip
    show(shown)


def _tell_all(played: Sequence[Played]) -> bool:
    for name, outcome in played:
        _tell(name, outcome)
    return any(outcome.problems for _, outcome in played)


def _tell(name: str, outcome: Outcome) -> None:
    print(f"{name}, seed {outcome.seed}: {'DID NOT HOLD' if outcome.problems else 'held'}")
    for line in [*outcome.story, *(f"PROBLEM {text}" for text in outcome.problems)]:
        print("  " + plain(line))
