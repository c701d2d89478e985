"""What is measured by itself, not in rounds: filters, restart, memory."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Final

from dlog.adapters.coor_link import CoorClient, NoAnswer, read_whereabouts
from dlog.adapters.journal import LmdbJournal
from dlog.bench.events import waveforms
from dlog.bench.rig import Load, Rig
from dlog.core.event_file import Totals
from dlog.core.filters import Compressor, Filter, apply_filter
from dlog.core.journal_records import ClosedFileRecord
from dlog.limits import MIB
from dlog.model.ids import FileKind
from dlog.services.parts import put_closed
from tests.rig.commands import dlog_command, environment

_RECORDS_PER_COMMIT: Final = 20_000
_START_SECONDS_MAX: Final = 60.0
_LOOK_SECONDS: Final = 0.005


# --- filters --------------------------------------------------------------------------------------


def filters(rounds: int) -> tuple[float, float]:
    """Delta and zstd 1 over zstd 1 alone, blocks of 1 MiB of 16-bit waveforms: speed and size."""
    blocks = waveforms(16 * MIB).reshape(-1, MIB)
    compressor = Compressor(1)
    speeds, sizes = [], []
    for _ in range(rounds):
        taken, stored = {}, {}
        for kind in (Filter.NONE, Filter.DELTA):
            begin = time.perf_counter()
            stored[kind] = sum(
                len(compressor.compress(apply_filter(block, kind, 2)) or block) for block in blocks
            )
            taken[kind] = time.perf_counter() - begin
        speeds.append(taken[Filter.NONE] / taken[Filter.DELTA])
        sizes.append(stored[Filter.DELTA] / stored[Filter.NONE])
    return median(speeds), median(sizes)


# --- restart --------------------------------------------------------------------------------------


def restart(folder: Path, closed: int, rounds: int) -> float:
    """Seconds from the start of the process until it takes events again: ten open files, so many
    closed ones in the catalogue."""
    load = Load(
        name="to restart",
        event_bytes=1024,
        streams=10,
        seconds=0.5,
        bytes_max=256 * MIB,
        rate=100e6,
    )
    taken = []
    with Rig(folder) as rig:
        rig.measure(load, end=False)
        rig.logger.send_signal(signal.SIGKILL)
        rig.logger.wait()
        _add_closed(rig.data, closed)
        for _ in range(rounds):
            taken.append(_seconds_to_events(rig.data))
    return median(taken)


def _add_closed(data: Path, number: int) -> None:
    with LmdbJournal.open(data / "journal", live_prefixes=()) as journal:
        for begin in range(0, number, _RECORDS_PER_COMMIT):
            end = min(number, begin + _RECORDS_PER_COMMIT)
            journal.commit([put_closed(_closed(i)) for i in range(begin, end)])


def _closed(i: int) -> ClosedFileRecord:
    run, part = 1_000_000 + i // 1000, 1 + i % 1000
    return ClosedFileRecord(
        run=run, stream="s0", kind=FileKind.EVENTS, part=part, directory=0,
        path=f"runs/{run}/s0_{part:05d}.dlog", file_uuid=i.to_bytes(16, "little"),
        size_bytes=MIB, crc32c=i, created_ns=i, closed_ns=i, totals=Totals(),
    )  # fmt: skip


def _seconds_to_events(data: Path) -> float:
    begin = time.monotonic()
    logger = subprocess.Popen(
        dlog_command("resume", "-d", data), env=environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while time.monotonic() < begin + _START_SECONDS_MAX:
            assert logger.poll() is None, f"the logger ended with {logger.poll()}"
            found = read_whereabouts(data)
            if found is None or found.pid != logger.pid:
                # Not yet: who connects to the socket of the dead one tries again ever more rarely.
                time.sleep(_LOOK_SECONDS)
                continue
            with CoorClient(data, name="restart") as coor, suppress(NoAnswer):
                if coor.ask("STATUS", timeout=0.5).data["logger"]["state"] == "RUNNING":
                    return time.monotonic() - begin
        raise AssertionError("the logger did not come back")
    finally:
        logger.kill()
        logger.wait()


# --- memory ---------------------------------------------------------------------------------------


def memory(folder: Path, *, seconds: float, memory_bytes: int = 256 * MIB) -> float:
    """Peak memory over the configured one, less 1, where sources bring far more than is stored:
    every stream compresses harder than it can."""
    load = Load(
        name="overload", event_bytes=1024, sources=4, seconds=seconds, bytes_max=1 << 30,
        content="waveforms", stream={"compression": "zstd", "compression_level": 9},
    )  # fmt: skip
    with Rig(folder, memory_bytes=memory_bytes) as rig:
        rig.measure(load)
        return rig.rss_peak_bytes / memory_bytes - 1
