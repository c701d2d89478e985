"""Many plays, simulated or on a real disk, several at once; the folder for those on a disk. It
judges nothing and prints nothing."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children, get_context
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path

from dlog.adapters.child_processes import begun_deaf, interrupts_kept_back
from dlog.errors import Error
from dlog.faults import real_disk, system_calls
from dlog.faults.simulation.campaign import SCENARIOS, Outcome, play
from dlog.faults.simulation.shrink import shrink
from dlog.recovery.facts import is_data_directory

Task = tuple[str, int]  # scenario, seed
Played = tuple[str, Outcome]

# How many of the histories that did not hold are shortened, and for how long at most each.
SHORTENED_MAX = 3
SHORTENING_SECONDS_MAX = 20.0
REMOVALS_MAX = 100
REMOVAL_SECONDS = 0.05


def simulated(task: Task, only: Sequence[int] | None = None) -> Played:
    """One history, or some actions of it."""
    # What the loggers say of their faults is not for the terminal.
    logging.disable(logging.CRITICAL)
    name, seed = task
    return name, play(seed, SCENARIOS[name].menu, only=only)


def shortened(failed: Sequence[Played]) -> list[Played]:
    """The shortest histories that did not hold, without what it does not take, the shortest first.
    Those on a disk stay as they are."""
    found = []
    for name, outcome in sorted(failed, key=lambda f: len(f[1].story))[:SHORTENED_MAX]:
        if outcome.actions is not None:
            until = time.monotonic() + SHORTENING_SECONDS_MAX
            outcome = shrink(outcome, SCENARIOS[name].menu, partial(_is_over, until))
        found.append((name, outcome))
    return sorted(found, key=lambda f: len(f[1].story))


def _is_over(until: float) -> bool:
    return time.monotonic() > until


def on_disk(folder: Path) -> Callable[[Task], Played]:
    return partial(_on_disk, folder)


def _on_disk(folder: Path, task: Task) -> Played:
    logging.disable(logging.CRITICAL)
    name, seed = task
    return name, real_disk.play(folder, name, seed)


def play_all(
    one: Callable[[Task], Played], tasks: Sequence[Task], jobs: int, *, together: int = 1
) -> Iterator[Played]:
    """The outcomes, in the order of the tasks. together: plays that are handed to a process at
    once."""
    if jobs == 1:
        yield from map(one, tasks)
        return
    with ExitStack() as at_end:
        # An interrupt that came while they began is raised at the end of this.
        with _not_for_children():
            pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
            at_end.push(partial(_end, pool))
            outcomes = pool.map(one, tasks, chunksize=together)
        yield from outcomes


def _end(pool: ProcessPoolExecutor, kind: type[BaseException] | None, *_: object) -> None:
    if kind is not None:
        # Whoever interrupts does not wait for what is being played, and the pool cannot be waited
        # for once its processes are killed.
        for process in active_children():
            process.kill()
            process.join()
    pool.shutdown(wait=kind is None, cancel_futures=kind is not None)


@contextmanager
def _not_for_children() -> Iterator[None]:
    """Processes that begin inside never see Ctrl-C, which a terminal sends to all of them: it is
    for their parent, which ends them."""
    with interrupts_kept_back():
        warned = os.environ.get("PYTHONWARNINGS")
        # The process that cleans up behind a pool that was not waited for does so without a word.
        os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning"
        try:
            # Its start, which blocks interrupts for itself, lets them through afterwards.
            ensure_running()
            with begun_deaf():
                yield
        finally:
            del os.environ["PYTHONWARNINGS"]
            if warned is not None:
                os.environ["PYTHONWARNINGS"] = warned


@dataclass(frozen=True, slots=True)
class Spread:
    """Which plays of a real scenario are tried: every kth of all. calls: that it counts, 0 where it
    counts none."""

    name: str
    calls: int
    seeds: range
    every: int


def spread(folder: Path, names: Sequence[str], seeds: int) -> list[Spread]:
    """So many plays of each scenario, evenly over all that there are.

    Plays once without a fault, in `folder`, to count the calls; raises `Stuck` where that does not
    hold."""
    length: real_disk.Length | None = None
    found = []
    for name in names:
        scenario = real_disk.SCENARIOS[name]
        if scenario.at_moments:
            found.append(Spread(name, 0, range(seeds), 1))
            continue
        length = length or real_disk.length(folder)
        possible = length.seeds(scenario)
        every = max(1, -(-possible // seeds))
        # An odd distance goes through the variants of a call in turn.
        every += every % 2 == 0
        found.append(Spread(name, length.of(scenario), range(0, possible, every), every))
    return found


def possible(names: Sequence[str]) -> tuple[list[str], str]:
    """What of these scenarios can be played on this machine; why not all, "" where all can."""
    try:
        system_calls.check()
    except system_calls.Refused as refused:
        return [real_disk.MOMENTS], str(refused)
    return list(names), ""


@contextmanager
def fresh_folder(below: Path) -> Iterator[Path]:
    """A new folder to play in. It goes at the end, unless a play has left its own there, and when
    it is interrupted.

    Raises `Error` for a place that holds data, or is none."""
    if not below.is_dir():
        raise Error(f"{below} is not a directory")
    below = below.resolve()
    for place in (below, *below.parents):
        if is_data_directory(place):
            raise Error(f"{place} is a data directory: its disk may be tried in a folder beside it")
    folder = Path(tempfile.mkdtemp(prefix="dlog-faults-", dir=below))
    over = False
    try:
        yield folder
        over = True
    except Error:
        over = True  # it says what lies there
        raise
    finally:
        if not (over and any(folder.iterdir())):
            _remove(folder)


def _remove(folder: Path) -> None:
    """A logger whose player was killed dies with it, but may have made one more file meanwhile."""
    for _ in range(REMOVALS_MAX):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(REMOVAL_SECONDS)
    shutil.rmtree(folder)  # raises what keeps it there
