"""Where events go: parts and their ranges, late events, garbage, orphans, and what is refused."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from crc32c import crc32c

import dlog
from dlog.core.block import OrphanReason
from dlog.core.event_file import Sidecar, decode_sidecar, sidecar_path
from dlog.errors import EventsDiverted, RunEnded, StreamUnknown
from dlog.limits import MIB
from dlog.model.ids import FileKind
from dlog.reader.event_file import EventFile
from tests.rig.commands import run_dlog
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.rig.raw_source import RawSource
from tests.waiting import LONG, until

pytestmark = pytest.mark.long

CONFIGURATION = (
    QUICK_INIT
    + """
[init.stream_defaults]
reserve_bytes = "1 MiB"
late_seconds = 0.4

[streams.by-events]
part_events = 10

[streams.by-bytes]
part_bytes = "1 MiB"
ranges = false

[streams.by-seconds]
part_seconds = 0.3

[streams.patient]
part_events = 10
late_seconds = 60

[streams.plain]
ranges = false
part_events = 10
"""
)


@pytest.fixture
def logger(new_logger: NewLogger) -> LoggerProcess:
    """With run 7 active."""
    logger = new_logger(CONFIGURATION).start()
    logger.start_run(7)
    return logger


def sidecar_of(path: Path) -> Sidecar:
    return decode_sidecar(Path(sidecar_path(str(path))).read_bytes(), path=str(path))


def numbers(path: Path) -> list[int]:
    return [event.number for event in dlog.read(path)]


def send(source: dlog.Source, stream: str, *events: int, run: int = 7, size: int = 100) -> None:
    """Events, each in a batch of its own so that they are stored in this order; acknowledged."""
    for number in events:
        source.send(stream, bytes([number % 256]) * size, run=run, number=number)
    source.flush(LONG)


# --- parts -------------------------------------------------------------------------------------


def test_a_full_part_is_followed_by_the_next_and_every_one_is_sealed(
    logger: LoggerProcess,
) -> None:
    with dlog.Source(logger.data, name="source", run=7) as source:
        send(source, "by-events", *range(35))
        send(source, "by-bytes", *range(12), size=300_000)
        send(source, "plain", *range(25))
        logger.stop_run(7)
    files = logger.files(7)
    assert [path.name for path in files] == [
        "by-bytes_0001.dlog", "by-bytes_0002.dlog", "by-bytes_0003.dlog",
        "by-events_0001.dlog", "by-events_0002.dlog", "by-events_0003.dlog", "by-events_0004.dlog",
        "by-seconds_0001.dlog", "patient_0001.dlog",
        "plain_0001.dlog", "plain_0002.dlog", "plain_0003.dlog",
    ]  # fmt: skip
    by_events = [path for path in files if path.name.startswith("by-events")]
    assert [numbers(path) for path in by_events] == [
        list(range(10)), list(range(10, 20)), list(range(20, 30)), list(range(30, 35)),
    ]  # fmt: skip
    for path in files:
        assert path.stat().st_mode & 0o777 == 0o444
        assert Path(f"{path}.json").stat().st_mode & 0o777 == 0o444
        sidecar, closing = sidecar_of(path), EventFile(path).closing
        assert closing is not None
        assert sidecar.totals == closing.totals
        assert sidecar.size_bytes == path.stat().st_size
        assert int(sidecar.crc32c, 16) == crc32c(path.read_bytes())
        assert sidecar.totals.events == len(numbers(path))
        assert (sidecar.run, sidecar.file, sidecar.kind) == (7, path.name, "events")
        if path.name.startswith("by-bytes"):
            # The last event of a part may go over its end.
            assert path.stat().st_size < MIB + 300_000 + MIB // 8
    assert list((logger.data / "runs" / "7").glob("*.part")) == []
    logger.assert_verified()


def test_a_part_is_full_after_its_seconds_though_nothing_comes(logger: LoggerProcess) -> None:
    with dlog.Source(logger.data, name="source", run=7) as source:
        send(source, "by-seconds", 1, 2)
        first = logger.data / "runs" / "7" / "by-seconds_0001.dlog"
        until(first.exists, "the part closes by itself")
        assert numbers(first) == [1, 2]
        send(source, "by-seconds", 3)
        logger.stop_run(7)
    assert numbers(logger.data / "runs" / "7" / "by-seconds_0002.dlog") == [3]


# --- ranges and late events --------------------------------------------------------------------


def test_a_late_event_goes_to_the_part_of_its_range(logger: LoggerProcess) -> None:
    with dlog.Source(logger.data, name="source", run=7) as source:
        send(source, "patient", *(n for n in range(25) if n not in (3, 14)))
        states = {
            f.path: (f.state, f.low, f.high) for f in logger.stream_status(7, "patient").files
        }
        assert states == {
            "runs/7/patient_0001.dlog": ("END", -1, 10),
            "runs/7/patient_0002.dlog": ("END", 10, 21),
            "runs/7/patient_0003.dlog": ("OPEN", 21, -1),
        }
        send(source, "patient", 14, 3)
        logger.stop_run(7)
    found = {path.name: numbers(path) for path in logger.files(7, "patient*.dlog")}
    assert found["patient_0001.dlog"] == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 3]
    assert found["patient_0002.dlog"] == [11, 12, 13, 15, 16, 17, 18, 19, 20, 21, 14]
    assert found["patient_0003.dlog"] == [22, 23, 24]
    assert logger.counts(7)["source", "patient"].garbage == 0


def test_an_event_that_comes_after_its_range_is_closed_goes_to_the_garbage_file(
    logger: LoggerProcess,
) -> None:
    source = dlog.Source(logger.data, name="source", run=7)
    send(source, "by-events", *(n for n in range(12) if n != 3))
    first = logger.data / "runs" / "7" / "by-events_0001.dlog"
    until(first.exists, "the range is closed")
    send(source, "by-events", 3, 12)
    assert logger.stream_status(7, "by-events").counts.garbage == 1
    assert "closed" in logger.alarms()["garbage run 7 stream by-events"]
    assert source.report().garbage == 1
    logger.stop_run(7)
    with pytest.raises(EventsDiverted, match="1 event for run 7 stream by-events came late"):
        source.close(30)
    garbage = logger.data / "runs" / "7" / "by-events.garbage_0001.dlog"
    assert numbers(garbage) == [3]
    assert EventFile(garbage).header.key.kind is FileKind.GARBAGE
    assert sidecar_of(garbage).kind == "garbage"
    assert garbage.stat().st_mode & 0o777 == 0o444
    counts = logger.counts(7)["source", "by-events"]
    assert (counts.stored, counts.garbage, counts.received) == (12, 1, 13)
    logger.assert_verified()


@pytest.mark.long
def test_neither_a_wild_number_nor_a_source_that_is_started_again_makes_garbage(
    logger: LoggerProcess,
) -> None:
    with dlog.Source(logger.data, name="source", run=7) as source:
        send(source, "by-events", *range(15), 2**40, *range(15, 40))
    third = logger.data / "runs" / "7" / "by-events_0003.dlog"
    until(third.exists, "ranges are closed")
    with dlog.Source(logger.data, name="source", run=7) as source:
        for _ in range(40):
            source.send("by-events", b"x")
        source.flush(30)
    logger.stop_run(7)
    counts = logger.counts(7)["source", "by-events"]
    assert (counts.stored, counts.garbage) == (81, 0)
    logger.assert_verified()


def test_without_ranges_nothing_is_late(logger: LoggerProcess) -> None:
    with dlog.Source(logger.data, name="source", run=7) as source:
        send(source, "plain", *range(100, 110))
        until((logger.data / "runs" / "7" / "plain_0001.dlog").exists, "a full part closes at once")
        send(source, "plain", *range(10))
        logger.stop_run(7)
    assert numbers(logger.data / "runs" / "7" / "plain_0002.dlog") == list(range(10))
    assert logger.counts(7)["source", "plain"].garbage == 0


def test_a_resume_keeps_ranges_and_garbage_apart(logger: LoggerProcess) -> None:
    source = dlog.Source(logger.data, name="source", run=7)
    send(source, "patient", *(n for n in range(15) if n != 3))
    send(source, "by-events", *(n for n in range(12) if n != 3))
    until((logger.data / "runs" / "7" / "by-events_0001.dlog").exists, "a range is closed")
    logger.kill()
    logger.start(auto=False)
    send(source, "patient", 3, 15)
    send(source, "by-events", 3, 12)
    logger.stop_run(7)
    with pytest.raises(EventsDiverted, match="1 event for run 7 stream by-events came late"):
        source.close(30)
    assert numbers(logger.data / "runs" / "7" / "patient_0001.dlog")[-1] == 3
    assert numbers(logger.data / "runs" / "7" / "by-events.garbage_0001.dlog") == [3]
    logger.assert_verified()


def test_late_events_of_several_ranges_in_one_batch_are_sorted_out(logger: LoggerProcess) -> None:
    with dlog.Source(logger.data, name="source", run=7) as source:
        send(source, "patient", *range(0, 40, 2))
        mixed = [1, 39, 3, 21, 50, 25, 5, 41]
        source.send_many("patient", b"x" * 8 * len(mixed), sizes=[8] * len(mixed), numbers=mixed)
        source.flush(LONG)
        logger.stop_run(7)
    found = [numbers(path) for path in logger.files(7, "patient*.dlog")]
    assert found == [[*range(0, 20, 2), 1, 3, 5], [*range(20, 40, 2), 21, 25], [39, 50, 41]]


# --- sizes and numbers at the edge -------------------------------------------------------------


def test_events_of_any_size_and_number_come_back(logger: LoggerProcess) -> None:
    large = [(5, b"y" * (3 * MIB)), (2**63, b"z" * (20 * MIB))]
    sent = [(0, b""), (2**64 - 1, b"x"), *large, (1, b"")]
    with dlog.Source(logger.data, name="source", run=7) as source:
        for number, payload in sent:
            source.send(["plain", "by-bytes"], payload, number=number)
        source.flush(LONG)
        logger.kill()
        logger.start(auto=False)
        logger.stop_run(7)
    events = list(dlog.read(logger.data / "runs" / "7").in_sent_order())
    assert [(event.number, bytes(event.payload)) for event in events] == sent
    assert {event.streams for event in events} == {("by-bytes", "plain")}
    logger.assert_verified()


# --- orphans, and what is refused --------------------------------------------------------------


def test_events_for_no_known_run_or_stream_go_to_the_orphan_file(logger: LoggerProcess) -> None:
    logger.start_run(8)
    with RawSource(logger.event_address, "raw").open() as raw:
        raw.send_next(raw.batch(8, "plain", [b"8"]))
        raw.acknowledged()
        stop_run_with(logger, raw, 8)
        for run, stream in ((7, "unheard-of"), (99, "plain"), (8, "plain"), (7, "plain")):
            raw.send_next(raw.batch(run, stream, [f"{run}/{stream}".encode()] * 2))
        raw.acknowledged()
        assert raw.ack is not None
        assert raw.ack.refusals == []
        assert logger.status().orphans.orphan == 6
        stop_run_with(logger, raw, 7)
    orphans = logger.data / "orphans" / "orphan_0001.dlog"
    until(
        lambda: orphans.exists() and orphans.stat().st_mode & 0o777 == 0o444,
        "the orphan file is sealed after the last run",
    )
    events = [(e.run, e.stream, bytes(e.payload)) for e in dlog.read(orphans)]
    assert events == [
        *[(7, "unheard-of", b"7/unheard-of")] * 2,
        *[(99, "plain", b"99/plain")] * 2,
        *[(8, "plain", b"8/plain")] * 2,
    ]
    pieces = [piece for block in EventFile(orphans).blocks() for piece in block.pieces]
    reasons = [int(piece["flags"]) >> 8 & 0xFF for piece in pieces]
    assert [OrphanReason(reason).words for reason in reasons] == [
        "stream-unknown", "run-unknown", "run-ended",
    ]  # fmt: skip
    logger.stop()
    logger.assert_verified()


def test_a_stream_that_is_misspelt_is_an_error_at_the_source_and_an_alarm(
    logger: LoggerProcess,
) -> None:
    source = dlog.Source(logger.data, name="source", run=7)
    source.send("plian", b"before the logger has answered")
    with pytest.raises(EventsDiverted, match="1 event for run 7 stream plian went to"):
        source.flush(30)
    with pytest.raises(
        StreamUnknown, match=r"no stream plian \(did you mean plain\?\); its streams: by-bytes, "
    ):
        source.send("plian", b"now it is known")
    source.send("plain", b"x")
    report = source.close(30)
    assert (report.stored, report.orphan, report.garbage) == (1, 1, 0)
    until(lambda: "orphan run 7 stream plian" in logger.alarms(), "the alarm")
    done = run_dlog(
        "send", logger.folder / "dlog.toml", "--run", "7", "--stream", "plian", "-d", logger.data,
        "--state", logger.folder / "send.json",
    )  # fmt: skip
    assert done.returncode == 1
    assert b"run 7 has no stream plian (did you mean plain?); its streams: by-" in done.stderr


def stop_run_with(logger: LoggerProcess, raw: RawSource, run: int) -> None:
    """STOP RUN, with the answer of the only source."""
    with logger.coor() as coor:
        stopped = threading.Thread(target=coor.ask, args=("STOP RUN", {"run": run}))
        stopped.start()
        raw.hear_until(lambda: raw.ack and run in raw.ack.ending, f"the end of run {run}")
        raw.end_of_run(run, raw.sequence)
        raw.hear_until(lambda: raw.ack and run in raw.ack.ended, f"run {run} is over")
        stopped.join(LONG)


def test_without_a_run_there_is_no_credit_and_what_comes_anyway_is_refused(
    logger: LoggerProcess,
) -> None:
    with RawSource(logger.event_address, "raw").open() as raw:
        raw.send_next(raw.batch(7, "plain", [b"7"]))
        raw.acknowledged()
        stop_run_with(logger, raw, 7)
        assert raw.ack is not None
        limit = raw.ack.limit_bytes
        assert limit > raw.position
        assert raw.ack.waiting == "no run is active"
        raw.send_next(raw.batch(7, "plain", [b"8", b"9"]))
        raw.acknowledged()
        assert [(r.reason, r.run, r.stream, r.events) for r in raw.ack.refusals] == [
            ("no-run-active", 7, "plain", 2)
        ]
        assert raw.ack.limit_bytes == limit
    assert logger.status().orphans.refused == {"no-run-active": 2}
    assert "refused raw" in logger.alarms()
    assert list((logger.data / "orphans").glob("*")) == []


def test_a_source_before_the_first_run_waits_and_says_why(new_logger: NewLogger) -> None:
    logger = new_logger(CONFIGURATION).start()
    with dlog.Source(logger.data, name="early", run=7) as source:
        source.send("plain", b"too early?", number=1)
        until(lambda: source.report().waiting == "no run is active", "the source is told")
        assert source.report().pending == 1
        assert not source.wait_for_run(timeout=0.1)
        logger.start_run(7)
        source.flush(LONG)
        logger.stop_run(7)
        with pytest.raises(RunEnded):
            source.send("plain", b"too late", number=2)
    assert [bytes(e.payload) for e in dlog.read(logger.files(7, "plain*.dlog"))] == [b"too early?"]


def test_an_event_for_several_streams_stands_in_each_once(logger: LoggerProcess) -> None:
    with dlog.Source(logger.data, name="source", run=7) as source:
        for number in range(20):
            source.send(["plain", "patient"] if number % 2 else "plain", b"p", number=number)
        source.flush(LONG)
        logger.stop_run(7)
    assert sorted(n for p in logger.files(7, "plain*.dlog") for n in numbers(p)) == list(range(20))
    odd = sorted(n for p in logger.files(7, "patient*.dlog") for n in numbers(p))
    assert odd == list(range(1, 20, 2))
