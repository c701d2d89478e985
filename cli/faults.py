"""`dlog faults`: plays a logger's life under injected faults, many times; says what did not hold.

Everything is simulated, in memory, from seeds: no disk and no running logger is touched.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import console, json_line, json_out, plain, problem, progress, words

if TYPE_CHECKING:
    from dlog.simulation.campaign import Outcome, Report

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command("list")
def list_scenarios(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object by name.")] = False,
) -> None:
    """The scenarios that `run` plays, with the faults of each."""
    from dlog.simulation.campaign import SCENARIOS

    if as_json:
        json_out({name: scenario.words for name, scenario in SCENARIOS.items()})
        return
    for name, scenario in SCENARIOS.items():
        print(f"{name:<12} {scenario.words}")


@app.command()
def run(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SCENARIO...]", help="See `dlog faults list`; none means all."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Histories a scenario.")] = 100,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="This one alone, with its story.")
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, help="At once; 0 takes every processor.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a scenario.")] = False,
) -> None:
    """Play scenarios, each with many seeds; the same seed plays the same history.

    Exit code 0 only where everything held.
    """
    from dlog.simulation.campaign import SCENARIOS, Report, play

    chosen = scenarios or list(SCENARIOS)
    unknown = [name for name in chosen if name not in SCENARIOS]
    if unknown:
        known = ", ".join(SCENARIOS)
        raise typer.BadParameter(f"no scenario {', '.join(unknown)}; there are {known}")
    # What the simulated loggers say of their faults is not for the terminal.
    logging.disable(logging.CRITICAL)
    if seed is not None:
        outcomes = [(name, play(seed, SCENARIOS[name].menu)) for name in chosen]
        for name, outcome in outcomes:
            _tell(name, outcome)
        raise typer.Exit(int(any(outcome.problems for _, outcome in outcomes)))
    reports: dict[str, Report] = {name: Report() for name in chosen}
    begin = time.monotonic()
    with progress("faults", len(chosen) * seeds, unit="items") as shown:
        for name, outcome in _play_all(chosen, seeds, jobs or os.cpu_count() or 1):
            reports[name].add(outcome)
            shown.advance(1)
    for name, report in reports.items():
        if as_json:
            json_line(_facts(name, report))
    if not as_json:
        _table(reports)
    failed = [(name, o) for name, report in reports.items() for o in report.failed]
    for name, outcome in failed[:1]:
        _tell(name, outcome)
        problem(f"play it again: dlog faults run {name} --seed {outcome.seed}")
    words(
        f"{sum(r.played for r in reports.values())} histories in {time.monotonic() - begin:.0f} s: "
        + (f"{len(failed)} DID NOT HOLD" if failed else "all held")
    )
    raise typer.Exit(int(bool(failed)))


def _play_all(names: list[str], seeds: int, jobs: int) -> Iterator[tuple[str, Outcome]]:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    tasks = [(name, number) for number in range(seeds) for name in names]
    if jobs == 1:
        yield from map(_play_one, tasks)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_play_one, tasks, chunksize=4)


def _play_one(task: tuple[str, int]) -> tuple[str, Outcome]:
    from dlog.simulation.campaign import SCENARIOS, play

    logging.disable(logging.CRITICAL)
    name, number = task
    return name, play(number, SCENARIOS[name].menu)


def _lost(report: Report) -> int:
    return sum("LOST" in text for outcome in report.failed for text in outcome.problems)


def _facts(name: str, report: Report) -> dict[str, Any]:
    return {
        "scenario": name,
        "histories": report.played,
        "survived": report.played - len(report.failed),
        "faults": dict(report.faults),
        "restarts": report.reboots,
        "events": report.events,
        "lost_acknowledged": _lost(report),
        "failed_seeds": [outcome.seed for outcome in report.failed],
    }


def _table(reports: dict[str, Report]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("scenario")
    for heading in ("histories", "survived", "faults", "restarts", "pieces sent", "acked and lost"):
        table.add_column(heading, justify="right")
    for name, report in reports.items():
        table.add_row(
            name, str(report.played), str(report.played - len(report.failed)),
            str(report.faults.total()), str(report.reboots), str(report.events), str(_lost(report)),
        )  # fmt: skip
    console().print(table)


def _tell(name: str, outcome: Outcome) -> None:
    print(f"{name}, seed {outcome.seed}: {'DID NOT HOLD' if outcome.problems else 'held'}")
    for line in [*outcome.story, *(f"PROBLEM {text}" for text in outcome.problems)]:
        print("  " + plain(line))
