"""`dlog demo` as a user starts it: it proves what it says and leaves nothing behind, and its proof
finds what is missing, doubled or altered."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import dlog
from dlog.demo.collector import Said
from dlog.demo.detectors import (
    DETECTORS,
    RUNS,
    SOURCES,
    STREAMS,
    events,
    events_of_run,
    numbers_of,
    schedule,
    streams_of,
)
from dlog.demo.proof import compare
from dlog.demo.story import AcknowledgedAgain
from tests.end_to_end.test_readme import README, blocks, plain
from tests.event_files import FileBuilder, Piece, SentEvent, make_key
from tests.rig.commands import dlog_command, environment, run_dlog
from tests.waiting import LONG, until

SECONDS = 4.0


class Demo(NamedTuple):
    data: Path
    outcome: dict[str, Any]
    words: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One whole demo, whose data are kept."""
    data = tmp_path_factory.mktemp("demo") / "data"
    done = run_dlog("demo", "--data", data, "--seconds", str(SECONDS), "--json")
    assert done.returncode == 0, done.stderr.decode()
    yield Demo(data, json.loads(done.stdout), done.stderr.decode())
    shutil.rmtree(data, ignore_errors=True)


@pytest.fixture
def kept(demo: Demo, tmp_path: Path) -> Path:
    """A copy of the demo's runs, to be damaged."""
    shutil.copytree(demo.data / "runs", tmp_path / "runs")
    return tmp_path


# --- the demo -----------------------------------------------------------------------------------


def test_every_acknowledged_event_stands_exactly_once(demo: Demo) -> None:
    outcome = demo.outcome
    assert outcome["holds"] is True
    assert outcome["problems"] == []
    for stream in STREAMS:
        counts = outcome["streams"][stream.name]
        meant = sum(len(numbers_of(stream, run, SECONDS)) for run in RUNS)
        assert counts["sent"] == counts["acknowledged"] == counts["read"] == meant
        assert counts["stored"] + counts["garbage"] == meant
        assert counts["missing"] == counts["doubled"] == counts["altered"] == 0
        assert counts["unknown"] == counts["refused"] == 0


def _said(acknowledged: int, pending: int, reconnects: int) -> Said:
    return Said(
        name="router-1", phase="sending", acknowledged={"hits": acknowledged}, pending=pending,
        reconnects=reconnects,
    )  # fmt: skip


def test_a_source_whose_first_report_has_all_its_acknowledgements_has_them_again() -> None:
    again = AcknowledgedAgain(_said(10, 5, 0))
    assert not again.is_so(_said(12, 3, 0))  # from before the kill
    assert again.is_so(_said(15, 0, 1))


def test_acknowledgements_from_before_the_kill_are_no_new_ones() -> None:
    again = AcknowledgedAgain(_said(10, 5, 0))
    assert not again.is_so(_said(12, 3, 1))
    assert not again.is_so(_said(12, 3, 1))
    assert again.is_so(_said(13, 2, 1))


def test_the_story_is_told_in_its_order(demo: Demo) -> None:
    steps = [
        "takes events at", "START RUN 1 and 2", "the logger is gone, in mid-run",
        "run 1 ACTIVE, run 2 ACTIVE", "acknowledged again", "answered from the journal",
        "STOP RUN 1", "STOP RUN 2", "exit code 0", "verified", "read back", "exactly once",
    ]  # fmt: skip
    places = [demo.words.find(step) for step in steps]
    assert -1 not in places, dict(zip(steps, places, strict=True))
    assert places == sorted(places)


def test_what_it_kept_is_a_data_directory_that_verifies(demo: Demo) -> None:
    assert (demo.data / "dlog.toml").is_file()
    assert (demo.data / "demo.log").is_file()
    assert run_dlog("verify", demo.data).returncode == 0
    listed = json.loads(run_dlog("ls", "-d", demo.data, "--json").stdout)
    assert [run["state"] for run in listed["runs"]] == ["ENDED", "ENDED"]


def test_a_directory_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    done = run_dlog("demo", "--data", tmp_path)
    assert done.returncode == 1
    assert b"is not an empty directory" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_ended_leaves_no_process_and_no_file(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = _demo_that_sends(tmp_path)
    process.send_signal(number)
    assert process.wait(LONG) == 128 + number
    assert _processes_that_name(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_demo_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    process = _demo_that_sends(tmp_path)
    process.kill()
    process.wait(LONG)
    until(lambda: _processes_that_name(tmp_path) == [], "all of them are gone")


def _demo_that_sends(temporary: Path) -> subprocess.Popen[bytes]:
    """A demo, as far as its sources send; its temporary directory is inside `temporary`."""
    process = subprocess.Popen(
        dlog_command("demo"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**environment(), "TMPDIR": str(temporary)},
        # A test run in the background hands on that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    said = b""
    with process.stdout as lines:
        for line in lines:
            said += line
            if b"%" in line:  # of the events are acknowledged
                break
        else:
            pytest.fail(f"the demo ended early:\n{said.decode()}")
        assert len(_processes_that_name(temporary)) == 1 + len(SOURCES)
    return process


def _processes_that_name(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
        except OSError:
            continue
        if os.fsencode(folder) in words:
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


# --- its proof ----------------------------------------------------------------------------------


def test_the_proof_counts_an_event_that_is_missing(demo: Demo, kept: Path) -> None:
    path = next((kept / "runs" / "1").glob("hits_*.dlog"))
    lost = json.loads(path.with_name(path.name + ".json").read_text())["totals"]["events"]
    path.unlink()
    found = compare(kept, SECONDS)
    assert found["hits"].missing == lost > 0
    assert found["waveforms"].missing == 0


def test_the_proof_counts_an_event_that_stands_twice(kept: Path) -> None:
    _add_part(kept, [(40, None), (40, None), (41, None)])
    found = compare(kept, SECONDS)["hits"]
    assert (found.doubled, found.missing, found.altered, found.unknown) == (3, 0, 0, 0)


def test_the_proof_counts_an_event_that_is_altered_or_unknown(kept: Path) -> None:
    _add_part(kept, [(40, b"not what was sent"), (10**9, None)])
    found = compare(kept, SECONDS)["hits"]
    assert (found.altered, found.unknown) == (1, 1)


def _add_part(data: Path, content: list[tuple[int, bytes | None]]) -> None:
    """One more file of run 1's hits; a payload of None is the one that was sent."""
    sent = [
        SentEvent(number, events("hits", 1, np.array([number])).payload.tobytes())
        if payload is None
        else SentEvent(number, payload)
        for number, payload in content
    ]
    with dlog.read(data / "runs" / "1", streams=["hits"]) as reader:
        logger = reader.files[0].header.logger_uuid
    file = FileBuilder(make_key(1, "hits", part=99), logger_uuid=logger)
    file.pieces([Piece(sent)], events_per_block=10)
    file.write(data / "runs" / "1" / "hits_0099.dlog")


# --- its detectors ------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", DETECTORS)
def test_events_follow_from_their_numbers_alone(detector: str) -> None:
    numbers = np.array([5, 0, 77, 1000, 6], np.uint64)
    together = events(detector, 2, numbers)
    alone = [events(detector, 2, numbers[i : i + 1]) for i in range(len(numbers))]
    assert together.sizes.tolist() == [int(each.sizes[0]) for each in alone]
    assert together.payload.tobytes() == b"".join(each.payload.tobytes() for each in alone)
    assert together.payload.tobytes() != events(detector, 1, numbers).payload.tobytes()


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_sources_share_the_events_out(detector: str) -> None:
    for run in RUNS:
        sent = [schedule(detector, run, source, SECONDS) for source in range(len(SOURCES))]
        together = np.concatenate([numbers for numbers, _ in sent])
        assert sorted(together.tolist()) == list(range(events_of_run(detector, run, SECONDS)))
        for _, times in sent:
            assert (np.diff(times) >= 0).all()


def test_a_stream_has_the_events_that_are_sent_to_it() -> None:
    for stream in STREAMS:
        all_numbers = np.arange(events_of_run(stream.detector, 1, SECONDS), dtype=np.uint64)
        chosen = sum(
            mask.astype(np.int64)
            for streams, mask in streams_of(stream.detector, all_numbers).items()
            if stream.name in streams
        )
        assert all_numbers[chosen == 1].tolist() == numbers_of(stream, 1, SECONDS).tolist()


# --- what README.md shows of it -----------------------------------------------------------------


def test_the_readme_shows_a_demo_like_this_one(demo: Demo) -> None:
    shown = next(b for b in blocks(README.read_text()) if b.mark == "demo")
    real = {plain(line) for line in demo.words.splitlines()}
    lacking = [line for line in shown.content.splitlines() if plain(line) not in real]
    assert lacking == []
