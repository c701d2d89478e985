"""Many plays, simulated or on a real disk, several at once; the folder for those on a disk. It
judges nothing and prints nothing."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from cli.faults import real_disk
from dlog.errors import Error
from dlog.simulation.campaign import SCENARIOS, Outcome, play
from recovery.facts import is_data_directory

Task = tuple[str, int]  # scenario, seed
Played = tuple[str, Outcome]


def simulated(task: Task) -> Played:
    # What the loggers say of their faults is not for the terminal.
    logging.disable(logging.CRITICAL)
    name, seed = task
    return name, play(seed, SCENARIOS[name].menu)


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
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(one, tasks, chunksize=together)


def spread(name: str, length: real_disk.Length, seeds: int) -> tuple[range, int]:
    """The seeds of a real scenario, so many of all that there are, evenly; and their distance."""
    every = max(1, -(-length.seeds(real_disk.SCENARIOS[name]) // seeds))
    # An odd distance goes through the variants of a call in turn.
    every += every % 2 == 0
    return range(0, length.seeds(real_disk.SCENARIOS[name]), every), every


@contextmanager
def fresh_folder(below: Path) -> Iterator[Path]:
    """A new folder to play in. It goes at the end, unless a play has left its own there.

    Raises `Error` for a place that holds data, or is none."""
    if not below.is_dir():
        raise Error(f"{below} is not a directory")
    below = below.resolve()
    for place in (below, *below.parents):
        if is_data_directory(place):
            raise Error(f"{place} is a data directory: its disk may be tried in a folder beside it")
    folder = Path(tempfile.mkdtemp(prefix="dlog-faults-", dir=below))
    kept = True
    try:
        yield folder
        kept = any(folder.iterdir())
    except BaseException:
        kept = False
        raise
    finally:
        if not kept:
            shutil.rmtree(folder)
