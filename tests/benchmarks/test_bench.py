"""`dlog bench`: what it concludes, what it draws, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dlog.adapters.charts import SUFFIXES, Axis, Chart, Line, draw
from dlog.bench.events import chunks
from dlog.bench.rig import Load, Measured, quantiles
from dlog.bench.sender import Order, made_for, timetable
from dlog.bench.verdict import Limit, judge, limit_of
from tests.conftest import need_package
from tests.rig.commands import dlog_command, environment, environment_with, run_dlog
from tests.waiting import LONG


def measured(rate: float, *, busy: float = 0.5, asked: float = 0.0, p99: float = 3.0) -> Measured:
    return Measured(
        load=Load(name="x", event_bytes=1024, rate=asked), seconds=2.0, events=1000,
        payload_bytes=int(2 * rate), stored_bytes=int(2 * rate), file_bytes=int(2 * rate),
        logger_cpu_seconds=1.0, sources_cpu_seconds=1.0, cpu_busy=busy,
        latency_ms={"p99": p99} if asked else {},
    )  # fmt: skip


# --- what is concluded ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "busy", "limit"),
    [
        (900e6, 0.5, Limit.DISK),
        (900e6, 1.0, Limit.DISK),
        (500e6, 0.97, Limit.PROCESSORS),
        (500e6, 0.5, Limit.WAITING),
    ],
)
def test_what_is_used_up_limits(rate: float, busy: float, limit: Limit) -> None:
    assert limit_of(measured(rate, busy=busy), 1e9) is limit


def test_the_slowest_size_of_events_decides() -> None:
    hold = measured(350e6, asked=350e6)
    verdict = judge([measured(800e6), measured(500e6, busy=1.0)], hold, disk_rate=1e9, durable=True)
    assert (verdict.rate, verdict.highest_rate) == (350e6, 500e6)
    assert "holds 350.0 MB/s durably, with a margin of 30%" in verdict.sentence
    assert "the processors limit it" in verdict.sentence
    assert verdict.warnings == []


def test_a_machine_that_holds_no_rate_is_not_praised() -> None:
    verdict = judge([measured(100e6)], None, disk_rate=1e9, durable=True)
    assert verdict.rate == 0
    assert "held no rate" in verdict.sentence


def test_memory_is_no_disk_and_late_is_late() -> None:
    hold = measured(350e6, asked=350e6, p99=120.0)
    warnings = judge([measured(500e6)], hold, disk_rate=1e9, durable=False).warnings
    assert len(warnings) == 2
    assert "not durable" in warnings[0]
    assert "120 ms" in warnings[1]


def test_a_load_that_falls_behind_does_not_keep_up() -> None:
    assert measured(100e6, asked=100e6).keeps_up
    assert not measured(80e6, asked=100e6).keeps_up


def test_quantiles_count_events_and_not_looks() -> None:
    found = quantiles([(1.0, 98), (5.0, 1), (9.0, 1)])
    assert found == {"p50": 1.0, "p90": 1.0, "p99": 5.0, "max": 9.0}
    assert quantiles([]) == {}


# --- what is sent -----------------------------------------------------------------------------


def order(**how: object) -> Order:
    values = {
        "address": "x", "name": "x", "run": 1, "streams": ["s0", "s1"], "event_bytes": 1000,
        "seconds": 60.0, "bytes_max": 1 << 20,
    }  # fmt: skip
    return Order(**{**values, **how})  # type: ignore[arg-type]


def test_a_timetable_keeps_to_its_rate_and_its_bytes() -> None:
    begin_ns = time.monotonic_ns() - 10**12  # long ago, so that nothing is waited for
    given = order(seconds=10_000.0, rate=1e6)
    plan = list(timetable(given, made_for(given), begin_ns))
    sent = sum(len(chunk.payload) for chunk, _ in plan)
    assert 1 << 20 <= sent < (1 << 20) + 2000
    last_due = plan[-1][1] - begin_ns
    assert last_due == pytest.approx((sent - len(plan[-1][0].payload)) * 1000, rel=0.01)


def test_mixed_events_meet_in_batches_and_go_to_one_or_two_streams() -> None:
    made = chunks(["s0", "s1", "s2"], 1000, content="random", mixed=True)
    some = list(islice(made, 12))
    assert {len(chunk.streams) for chunk in some} == {1, 2}
    assert {name for chunk in some for name in chunk.streams} == {"s0", "s1", "s2"}
    assert all(int(chunk.sizes.sum()) == len(chunk.payload) for chunk in some)
    assert len(set(some[0].sizes.tolist())) > 1


# --- what is drawn ----------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("points", [[(1.0, 2.0), (1000.0, 0.0)], [(5.0, 5.0)], []])
@pytest.mark.parametrize("log", [False, True])
def test_a_chart_of_any_points_is_drawn(
    points: Sequence[tuple[float, float]], log: bool, suffix: str, tmp_path: Path
) -> None:
    need_package("matplotlib")
    lines = [Line("a < b & c", points), Line("dashed", points, dashed=True)]
    path = tmp_path / f"chart{suffix}"
    draw([Chart("t", Axis("x", log=log), Axis("y", log=log), lines)] * 2, path)
    content = path.read_bytes()
    if suffix == ".svg":
        ElementTree.fromstring(content)
    else:
        assert content.startswith({".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix])


def test_a_chart_without_its_library_says_what_to_install(tmp_path: Path) -> None:
    env = environment_with(tmp_path / "site", "import sys; sys.modules['matplotlib'] = None")
    done = subprocess.run(
        dlog_command("bench", "--dir", tmp_path, "--plot", tmp_path / "plot.svg"), env=env,
        capture_output=True, text=True, timeout=LONG, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install 'dlog-daq[plot]'" in done.stderr


def test_a_chart_under_a_name_that_says_no_format_is_refused_at_once(tmp_path: Path) -> None:
    done = run_dlog("bench", "--dir", tmp_path, "--plot", tmp_path / "plot.txt")
    assert done.returncode == 1
    assert b"plot.txt: a chart is drawn into a file named .svg, .png, .pdf" in done.stderr


# --- the command ------------------------------------------------------------------------------


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        dlog_command("bench", "--dir", folder, *arguments), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip


def descendants_in(folder: Path) -> list[str]:
    """Command lines of processes that work below the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text and "pytest" not in text:
            found.append(text)
    return found


@pytest.mark.long
def test_ctrl_c_ends_everything_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    process = start(folder, "--seconds", "1", "--bytes", "64 MiB")
    assert process.stderr is not None
    assert b"MB/s" in process.stderr.readline()  # it is in the middle, with a logger and sources
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5 * LONG)
    assert process.returncode == 130
    assert list(folder.iterdir()) == []
    assert descendants_in(folder) == []


@pytest.mark.long
def test_what_a_killed_one_left_is_removed_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, kept = folder / f"dlog-bench-{ended.pid}-abc", folder / "dlog-bench-notes"
    alive = folder / f"dlog-bench-{os.getpid()}-abc"
    for each in (left, kept, alive):
        each.mkdir()
        (each / "file").write_bytes(b"x")
    process = start(folder, "--seconds", "1", "--bytes", "64 MiB")
    assert process.stderr is not None
    process.stderr.readline()
    process.terminate()
    process.communicate(timeout=5 * LONG)
    assert process.returncode == 128 + signal.SIGTERM
    assert sorted(folder.iterdir()) == sorted([kept, alive])


@pytest.mark.long
def test_a_directory_that_is_not_there_is_refused_and_not_made(tmp_path: Path) -> None:
    """Mistyped, it would be another disk that is measured."""
    process = start(tmp_path / "dksi", "--seconds", "0.2", "--bytes", "64 MiB")
    assert b"dksi" in process.communicate(timeout=5 * LONG)[1]
    assert process.returncode == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_impossible_bounds_are_refused(tmp_path: Path) -> None:
    process = start(tmp_path, "--bytes", "1 MiB")
    assert b"at least 64 MiB" in process.communicate(timeout=5 * LONG)[1]
    assert process.returncode == 2
    process = start(tmp_path, "--bytes", "4000 TiB")
    assert b"are needed" in process.communicate(timeout=5 * LONG)[1]
    assert process.returncode == 1


@pytest.mark.long
def test_a_whole_qualification(tmp_path: Path) -> None:
    need_package("matplotlib")
    folder, plot = tmp_path / "disk", tmp_path / "plot.svg"
    folder.mkdir()
    process = start(
        folder, "--seconds", "0.2", "--bytes", "64 MiB", "--json", "--plot", str(plot)
    )  # fmt: skip
    out, err = process.communicate(timeout=5 * LONG)
    assert process.returncode == 0, err.decode()
    found = json.loads(out)
    assert found["verdict"]["sentence"].startswith("This machine")
    assert {row["kind"] for row in found["rows"]} == {
        "size", "streams", "mixed", "compression", "rate", "hold"
    }  # fmt: skip
    ElementTree.parse(plot)
    assert list(folder.iterdir()) == []
