"""Disks that are full or fail: nothing acknowledged is lost, commands work, and it goes on by
itself."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlog.creation import create_data_directory
from dlog.errors import EventsRefused, RunEnded
from dlog.limits import MIB
from dlog.reader.event_file import EventFile
from tests.end_to_end.conftest import NewLogger
from tests.end_to_end.events import (
    Sender,
    assert_exactly_once,
    merged,
    readable,
)
from tests.end_to_end.filesystems import (
    Hog,
    break_disk,
    go_read_only,
    mount,
    remount,
    small_disk,
    unmount,
)
from tests.end_to_end.processes import CHECKOUT, LoggerProcess, strace_on, until

INIT = """
[init]
drain_seconds = 1
settle_seconds = 2
memory_bytes = "64 MiB"
"""
STREAMS = """
[init.stream_defaults]
reserve_bytes = "1 MiB"
[streams.a]
[streams.b]
"""
UNWATCHED = INIT + "low_water_bytes = 0\nresume_bytes = 0\n" + STREAMS
WATCHED = INIT + 'low_water_bytes = "24 MiB"\nresume_bytes = "32 MiB"\n' + STREAMS
BOTH = ("a", "b")

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", 96 * MIB) as place:
        yield place


def acknowledges(sender: Sender, more: int = 200) -> None:
    before = sender.source.acknowledged
    until(lambda: sender.source.acknowledged > before + more, f"{more} more acknowledgements")


def stands_still(sender: Sender) -> int:
    """The acknowledged pieces, once there are no more of them for half a second."""
    seen = [sender.source.acknowledged]

    def still() -> bool:
        seen.append(sender.source.acknowledged)
        return len(seen) > 5 and len(set(seen[-5:])) == 1

    until(still, "the source stands still", every=0.1)
    return seen[-1]


def end_with_losses(sender: Sender) -> None:
    """A run is over although the source had more: that is counted, and nothing else is missing."""
    sender.join(30)
    assert isinstance(sender.error, RunEnded), sender.error
    with pytest.raises(EventsRefused):
        sender.source.close(30)


def assert_what_is_acknowledged_is_there(data: list[Path], run: int, *senders: Sender) -> None:
    """Where events were refused at the end: each of the others once, no more and no less."""
    found = readable(data, [run])
    for numbers in found.values():
        assert len(numbers) == len(set(numbers))
    for sender in senders:
        mine = {key: n for key, n in found.items() if key[0][0] == sender.source_name}
        stood = sum(len(numbers) for numbers in mine.values())
        report = sender.source.report()
        assert stood == report.acknowledged
        assert report.sent == stood + sum(report.refused.values())
        assert report.pending == 0


def in_small_batches(sender: Sender, events: int) -> None:
    """Events, acknowledged; each fifty of them are synced for themselves."""
    for _ in range(0, events, 50):
        for _ in range(50):
            sender.send(7)
        sender.source.flush(30)


# --- space -------------------------------------------------------------------------------------


def test_below_the_low_water_mark_sources_wait_and_go_on_by_themselves(
    new_logger: NewLogger, disk: Path
) -> None:
    logger = new_logger(WATCHED, data=disk / "data").start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH, pause_seconds=0.002)
    sender.start()
    acknowledges(sender)
    hog = Hog(disk)
    with logger.coor() as coor:
        assert coor.ask("STATUS").ok  # so that the logger knows whom to ask
        hog.take(leave_bytes=20 * MIB)  # more than what a source has under way
        until(lambda: "disk-low" in logger.alarms(), "the alarm")
        until(lambda: "low-water" in sender.source.report().waiting, "the source is told why")
        stands_still(sender)
        assert logger.status().disks[0].low
        # Commands work meanwhile, and a run can begin and end.
        assert coor.ask("SET DEBUG", {"level": "info"}).ok
        assert coor.ask("PAUSE RUN", {"run": 7}).ok
        assert coor.ask("RESUME RUN", {"run": 7}).ok
        logger.start_run(8)
        logger.stop_run(8)
        hog.give_back()
        acknowledges(sender)
        heard: list[tuple[str, list[int]]] = []

        def asked_to_resume() -> bool:
            coor.ask("STATUS")
            heard.extend((r.request, r.runs) for r in coor.requests())
            return len(heard) >= 2

        until(asked_to_resume, "COOR is asked to pause and to resume")
        assert heard == [("pause", [7]), ("resume", [7])]
    until(lambda: "disk-low" not in logger.alarms(), "the alarm is cleared")
    sender.halt()
    sender.source.flush(30)
    logger.stop_run(7)
    sender.finish()
    logger.stop()
    assert_exactly_once(logger.data, sender.expected())
    logger.assert_verified()


def test_a_full_disk_stops_the_sources_and_nothing_else(new_logger: NewLogger, disk: Path) -> None:
    logger = new_logger(UNWATCHED, data=disk / "data").start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH, pause_seconds=0.002)
    sender.start()
    acknowledges(sender)
    hog = Hog(disk)
    hog.take()
    until(lambda: any(name.startswith("stalled") for name in logger.alarms()), "the alarm")
    stands_still(sender)
    assert logger.ask("SET DEBUG", {"level": "info"}).ok
    assert logger.ask("PAUSE RUN", {"run": 7}).ok
    assert logger.ask("RESUME RUN", {"run": 7}).ok
    assert logger.status().logger.state == "RUNNING"
    busy, began = logger.cpu_seconds(), time.monotonic()
    time.sleep(1.0)  # what it costs to wait is measured over some time
    spent = (logger.cpu_seconds() - busy) / (time.monotonic() - began)
    assert spent < 0.3, f"{spent:.0%} of a processor to wait for space"
    hog.give_back()
    acknowledges(sender)
    until(lambda: not any(n.startswith("stalled") for n in logger.alarms()), "the alarm is cleared")
    sender.halt()
    sender.source.flush(30)
    logger.stop_run(7)
    sender.finish()
    logger.stop()
    assert_exactly_once(logger.data, sender.expected())
    logger.assert_verified()


def test_a_run_can_be_ended_while_the_disk_is_full(new_logger: NewLogger, disk: Path) -> None:
    logger = new_logger(UNWATCHED, data=disk / "data").start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH, pause_seconds=0.002)
    sender.start()
    acknowledges(sender)
    hog = Hog(disk)
    hog.take()
    stands_still(sender)
    answer = logger.do("STOP RUN", {"run": 7}, timeout=20)
    assert answer.data["state"] == "ENDED"
    end_with_losses(sender)
    reasons = set(sender.source.report().refused)
    assert reasons <= {"no-space-at-end-of-run", "run-ended"}, reasons
    assert_what_is_acknowledged_is_there([logger.data], 7, sender)
    assert logger.status().logger.state == "CONFIGURED"
    hog.give_back()
    logger.start_run(8)
    logger.stop()
    logger.assert_verified()


def test_a_logger_that_dies_on_a_full_disk_starts_on_it_and_goes_on(
    new_logger: NewLogger, disk: Path
) -> None:
    logger = new_logger(UNWATCHED, data=disk / "data").start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH, pause_seconds=0.002)
    sender.start()
    acknowledges(sender)
    hog = Hog(disk)
    hog.take()
    stands_still(sender)
    for _ in range(2):
        logger.kill()
        logger.start(auto=False, state="RUNNING")
        assert logger.ask("PAUSE RUN", {"run": 7}).ok
        assert logger.ask("RESUME RUN", {"run": 7}).ok
    hog.give_back()
    acknowledges(sender)
    sender.halt()
    sender.source.flush(60)
    logger.stop_run(7)
    sender.finish()
    logger.stop()
    assert_exactly_once(logger.data, sender.expected())
    logger.assert_verified()


@pytest.fixture
def two_directories(new_logger: NewLogger, tmp_path: Path, disk: Path) -> LoggerProcess:
    """Stream a on the machine's disk, stream b on the small one, c on the small one first."""
    streams = (
        UNWATCHED.replace("[streams.a]", "[streams.a]\ndirectories = [0]")
        .replace("[streams.b]", "[streams.b]\ndirectories = [1]")
        .replace("[streams.b]", "[streams.c]\ndirectories = [1, 0]\n[streams.b]")
    )
    data = tmp_path / "logger" / "data"
    return new_logger(f'[logger]\ndata = ["{data}", "{disk}"]\n{streams}', data=data)


def test_a_stream_on_a_full_disk_does_not_stop_the_others(
    two_directories: LoggerProcess, disk: Path
) -> None:
    logger = two_directories.start()
    logger.start_run(7)
    stalled = Sender(logger.data, "to-the-full-one", (7,), ("b",), pause_seconds=0.002)
    good = Sender(logger.data, "to-the-other", (7,), ("a",), offset=1, pause_seconds=0.002)
    moving = Sender(logger.data, "to-either", (7,), ("c",), offset=2, pause_seconds=0.002)
    senders = [stalled, good, moving]
    for sender in senders:
        sender.start()
    for sender in senders:
        acknowledges(sender)
    Hog(disk).take()
    until(lambda: "stalled run 7 stream b" in logger.alarms(), "the stream stalls")
    stands_still(stalled)
    for _ in range(2):
        acknowledges(good)
        acknowledges(moving)
    good.halt()
    moving.halt()
    good.source.flush(30)
    moving.source.flush(30)
    assert logger.do("STOP RUN", {"run": 7}, timeout=20).data["state"] == "ENDED"
    good.finish()
    moving.finish()
    end_with_losses(stalled)
    both = [logger.data, disk]
    assert_what_is_acknowledged_is_there(both, 7, *senders)
    assert_what_was_sent_is_there(both, good, moving)
    assert logger.files(7, "c_*.dlog"), "stream c moved to the other directory"


def assert_what_was_sent_is_there(data: list[Path], *senders: Sender) -> None:
    found = readable(data, [7])
    for key, numbers in merged(*(sender.expected() for sender in senders)).items():
        assert sorted(found[key, key[2]]) == numbers


@needs_strace
def test_a_tail_that_no_space_is_left_to_save_is_not_read_a_second_time(
    two_directories: LoggerProcess, disk: Path
) -> None:
    logger = two_directories.start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), ("c",), pause_seconds=0.001)
    in_small_batches(sender, 50)
    part = disk / "runs" / "7" / "c_0001.dlog.part"
    durable = logger.stream_status(7, "c").files[0].durable_bytes
    journal = logger.data / "journal" / "data.mdb"
    with strace_on(logger, "fdatasync", "delay_enter=1500000", path=journal):
        sender.start()
        until(lambda: end_of_data(part) > durable, "blocks are written, and no commit tells of it")
        logger.kill()
    both, hog = [logger.data, disk], Hog(disk)
    hog.take()
    logger.start(auto=False)
    assert "no space to save its tail aside" in str(logger.alarms())
    acknowledges(sender)
    sender.halt()
    sender.source.flush(30)
    # The tail is still there; whoever reads must not take it for a part of the file.
    assert_exactly_once(both, sender.expected())
    hog.give_back()
    logger.stop_run(7)
    sender.finish()
    logger.stop()
    assert_exactly_once(both, sender.expected())
    logger.assert_verified()


@needs_strace
def test_what_was_refused_at_the_end_of_a_run_is_not_read_though_it_lies_on_the_disk(
    two_directories: LoggerProcess, disk: Path
) -> None:
    logger = two_directories.start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), ("b",))
    in_small_batches(sender, 50)
    Hog(disk).take()
    part = disk / "runs" / "7" / "b_0001.dlog.part"
    with strace_on(logger, "fdatasync", "error=EIO", path=part):
        # There is room for it in what is reserved; then the sync fails, and there is no new part.
        for _ in range(50):
            sender.send(7)
        until(lambda: "stalled run 7 stream b" in logger.alarms(), "the stream stalls")
    assert logger.do("STOP RUN", {"run": 7}, timeout=20).data["state"] == "ENDED"
    with pytest.raises(EventsRefused):
        sender.source.close(30)
    assert sender.source.report().acknowledged == 50
    assert part.exists(), "there is no space to save aside what is behind its end"
    assert_what_is_acknowledged_is_there([disk], 7, sender)


def end_of_data(path: Path) -> int:
    """Where the last byte of a file is that was written, and not only reserved."""
    with path.open("rb") as file:
        content = file.read()
    return len(content.rstrip(b"\0"))


# --- a journal whose map is full ------------------------------------------------------------------

# No machine can fill 64 GiB of journal in a test: this one has 768 KiB.
SMALL_JOURNAL = """
from dlog.adapters import journal, journal_files
journal._FREE_PAGES_BYTES = 64 << 10
journal_files.JournalSpace.__new__.__defaults__ = (6 << 17, 512 << 10, 64 << 10)
"""
SMALL_PARTS = UNWATCHED.replace("[streams.b]", "[streams.b]\nranges = false\npart_events = 20")


@pytest.fixture
def small_journal(tmp_path: Path) -> dict[str, str]:
    """The environment of a logger with such a journal."""
    folder = tmp_path / "small-journal"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SMALL_JOURNAL)
    return {"PYTHONPATH": f"{folder}:{CHECKOUT}"}


def until_full(logger: LoggerProcess, sender: Sender) -> None:
    """Every twenty events are a closed file in the catalogue, until that takes no more."""
    sender.start()
    until(lambda: "journal-full" in logger.alarms(), "the alarm", seconds=60)
    stands_still(sender)


@pytest.mark.soak
def test_a_journal_that_is_full_stops_the_sources_and_goes_on_when_it_may_grow(
    new_logger: NewLogger, small_journal: dict[str, str]
) -> None:
    logger = new_logger(SMALL_PARTS).start(env=small_journal)
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), ("b",), pause_seconds=0.01)
    until_full(logger, sender)
    sender.halt()
    assert sender.source.report().pending
    for _ in range(2):
        logger.kill()
        logger.start(auto=False, env=small_journal, state="RUNNING")
        stands_still(sender)
    logger.kill()
    logger.start(auto=False, state="RUNNING")
    sender.source.flush(60)
    logger.stop_run(7)
    sender.finish()
    logger.stop()
    assert_exactly_once(logger.data, sender.expected())
    logger.assert_verified()


def test_a_run_can_be_ended_while_the_journal_is_full(
    new_logger: NewLogger, small_journal: dict[str, str]
) -> None:
    logger = new_logger(SMALL_PARTS).start(env=small_journal)
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), ("b",), pause_seconds=0.01)
    until_full(logger, sender)
    assert logger.do("STOP RUN", {"run": 7}, timeout=30).data["state"] == "ENDED"
    end_with_losses(sender)
    assert_what_is_acknowledged_is_there([logger.data], 7, sender)
    logger.do("STOP", timeout=30)
    assert logger.ended() == 0


# --- disks that fail ---------------------------------------------------------------------------


@needs_strace
@pytest.mark.parametrize(
    ("calls", "inject"),
    [
        ("fdatasync", "error=EIO:when=2"),
        ("pwritev2", "error=EIO:when=2"),
        ("pwritev2", "error=ENOSPC:when=2"),
        ("fallocate", "error=EIO:when=1"),
    ],
)
def test_a_failed_write_or_sync_seals_the_part_and_goes_on_in_a_new_one(
    new_logger: NewLogger, calls: str, inject: str
) -> None:
    logger = new_logger(UNWATCHED).start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH)
    in_small_batches(sender, 100)
    part = logger.data / "runs" / "7" / "a_0001.dlog.part"
    with strace_on(logger, calls, inject, path=part):
        # More than what is reserved, so that there is a reservation too.
        in_small_batches(sender, 4000)
    assert any(name.startswith("storage run 7") for name in logger.alarms())
    assert logger.files(7, "a_0002.dlog*"), "there is a new part"
    in_small_batches(sender, 50)
    logger.stop_run(7)
    sender.finish()
    logger.stop()
    assert_exactly_once(logger.data, sender.expected())
    logger.assert_verified()
    sealed = EventFile(logger.data / "runs" / "7" / "a_0001.dlog")
    assert sealed.path.stat().st_mode & 0o777 == 0o444
    assert sealed.sidecar is not None
    assert sealed.sidecar.sealed
    after = EventFile(logger.data / "runs" / "7" / "a_0002.dlog")
    assert after.header.predecessor_part == 1
    assert after.header.predecessor_sealed == sealed.path.stat().st_size


def test_a_stream_on_a_disk_that_dies_does_not_stop_the_others(
    two_directories: LoggerProcess, disk: Path
) -> None:
    logger = two_directories.start()
    logger.start_run(7)
    stalled = Sender(logger.data, "to-the-dead-one", (7,), ("b",), pause_seconds=0.002)
    good = Sender(logger.data, "to-the-other", (7,), ("a",), offset=1, pause_seconds=0.002)
    moving = Sender(logger.data, "to-either", (7,), ("c",), offset=2, pause_seconds=0.002)
    for sender in (stalled, good, moving):
        sender.start()
    for sender in (stalled, good, moving):
        acknowledges(sender)
    break_disk(disk)
    until(lambda: "stalled run 7 stream b" in logger.alarms(), "the stream stalls")
    stands_still(stalled)
    for _ in range(2):
        acknowledges(good)
        acknowledges(moving)
    for sender in (good, moving):
        sender.halt()
        sender.source.flush(30)
    answer = logger.do("STOP RUN", {"run": 7}, timeout=20)
    assert answer.data["state"] == "ENDED"
    good.finish()
    moving.finish()
    end_with_losses(stalled)
    assert set(stalled.source.report().refused) <= {"storage-failed-at-end-of-run", "run-ended"}
    logger.do("STOP", timeout=20)
    assert logger.ended() == 0


@needs_strace
def test_a_run_whose_files_cannot_be_made_fails_in_words_and_leaves_nothing_behind(
    new_logger: NewLogger,
) -> None:
    logger = new_logger(UNWATCHED).start()
    with strace_on(logger, "fsync", "error=EIO", path=logger.data / "runs" / "7"):
        answer = logger.ask("START RUN", {"run": 7})
    assert not answer.ok
    assert "run 7 could not be started: stream" in answer.error
    assert "Input/output error" in answer.error
    assert logger.ended_run(7).state == "FAILED"
    logger.start_run(8)
    logger.stop()
    assert list((logger.data / "runs" / "7").iterdir()) == []
    logger.assert_verified()


@needs_strace
def test_a_journal_commit_that_fails_ends_the_logger_and_loses_nothing(
    new_logger: NewLogger,
) -> None:
    logger = new_logger(UNWATCHED).start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH)
    in_small_batches(sender, 100)
    with strace_on(
        logger, "fdatasync", "error=EIO:when=2+", path=logger.data / "journal" / "data.mdb"
    ):
        for _ in range(200):
            sender.send(7)
        assert logger.ended(20) == 70
    logger.start(auto=False, state="RUNNING")
    in_small_batches(sender, 50)
    logger.stop_run(7)
    sender.finish()
    logger.stop()
    assert_exactly_once(logger.data, sender.expected())
    logger.assert_verified()


def test_a_start_without_the_disk_of_an_active_run_leaves_its_files_as_they_are(
    two_directories: LoggerProcess, disk: Path
) -> None:
    logger = two_directories.start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), ("c",))
    in_small_batches(sender, 50)
    logger.kill()
    subprocess.run(["umount", str(disk)], check=True)
    logger.start(auto=False)
    assert "is its disk mounted?" in logger.alarms()[f"directory {disk}"]
    in_small_batches(sender, 50)  # the stream goes on in its other directory
    logger.kill()
    assert list(disk.iterdir()) == []
    mount(disk)
    logger.start(auto=False)
    in_small_batches(sender, 50)
    logger.stop_run(7)
    sender.finish()
    logger.stop()
    assert_exactly_once([logger.data, disk], sender.expected())
    logger.assert_verified()


def test_a_disk_that_goes_read_only_ends_the_logger_and_costs_nothing(
    new_logger: NewLogger, disk: Path
) -> None:
    logger = new_logger(UNWATCHED, data=disk / "data").start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH, pause_seconds=0.002)
    sender.start()
    acknowledges(sender)
    go_read_only(disk)
    assert logger.ended(20) == 70
    stands_still(sender)
    logger.spawn(auto=False)
    assert logger.ended(20) in (1, 70)
    assert "Read-only file system" in logger.log_tail()
    unmount(disk)
    mount(disk)
    logger.start(auto=False, state="RUNNING")
    acknowledges(sender)
    sender.halt()
    sender.source.flush(30)
    logger.stop_run(7)
    sender.finish()
    logger.stop()
    assert_exactly_once(logger.data, sender.expected())
    logger.assert_verified()


def test_a_start_on_a_disk_that_is_mounted_read_only_is_refused_in_words(
    new_logger: NewLogger, disk: Path
) -> None:
    logger = new_logger(UNWATCHED, data=disk / "data").start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH)
    in_small_batches(sender, 50)
    for _ in range(50):
        sender.send(7)
    logger.kill()
    remount(disk, "ro")
    logger.spawn(auto=False)
    assert logger.ended() in (1, 70)
    assert "Read-only file system" in logger.log_tail()
    assert "Traceback" not in logger.log()
    remount(disk, "rw")
    logger.start(auto=False, state="RUNNING")
    in_small_batches(sender, 50)
    logger.stop_run(7)
    sender.finish()
    logger.stop()
    assert_exactly_once(logger.data, sender.expected())
    logger.assert_verified()


def test_a_stream_on_a_disk_that_goes_read_only_does_not_stop_the_others(
    two_directories: LoggerProcess, disk: Path
) -> None:
    logger = two_directories.start()
    logger.start_run(7)
    stalled = Sender(logger.data, "to-the-dead-one", (7,), ("b",), pause_seconds=0.002)
    good = Sender(logger.data, "to-the-other", (7,), ("a",), offset=1, pause_seconds=0.002)
    moving = Sender(logger.data, "to-either", (7,), ("c",), offset=2, pause_seconds=0.002)
    senders = (stalled, good, moving)
    for sender in senders:
        sender.start()
    for sender in senders:
        acknowledges(sender)
    go_read_only(disk)
    until(lambda: "stalled run 7 stream b" in logger.alarms(), "the stream stalls")
    stands_still(stalled)
    for _ in range(2):
        acknowledges(good)
        acknowledges(moving)
    # What stalls is not lost: it stands once the disk is mounted anew.
    logger.signal(signal.SIGTERM)
    assert logger.ended() == 0
    unmount(disk)
    mount(disk)
    logger.start(auto=False, state="RUNNING")
    acknowledges(stalled)
    for sender in senders:
        sender.halt()
        sender.source.flush(30)
    logger.stop_run(7)
    for sender in senders:
        sender.finish()
    logger.stop()
    assert_exactly_once([logger.data, disk], merged(*(sender.expected() for sender in senders)))
    logger.assert_verified()


def test_without_the_directory_of_the_journal_the_logger_cannot_go_on(
    new_logger: NewLogger, disk: Path
) -> None:
    logger = new_logger(UNWATCHED, data=disk / "data").start()
    logger.start_run(7)
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert logger.ended(20) == 70
    assert "FAILURE" in logger.log()


def test_without_another_directory_streams_go_on_in_the_one_that_is_left(
    two_directories: LoggerProcess, disk: Path
) -> None:
    logger = two_directories.start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), ("a", "c"))
    in_small_batches(sender, 50)
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
    in_small_batches(sender, 50)
    logger.kill()
    logger.start(state="RUNNING")
    in_small_batches(sender, 50)
    assert "is its disk mounted?" in logger.alarms()[f"directory {disk}"]
    assert list(disk.iterdir()) == []
    sender.source.close()
    logger.stop_run(7)
    logger.stop()


def test_where_the_logger_is_found_is_written_once_the_disk_takes_it(new_logger: NewLogger) -> None:
    logger = new_logger(UNWATCHED)
    in_its_way = logger.data / "logger.json.new"
    create_data_directory(logger.data)
    in_its_way.mkdir()
    logger.spawn()
    until(lambda: "nobody finds this logger by it" in logger.log(), "it cannot be written")
    until(lambda: "logger CONFIGURED" in logger.log(), "the logger goes on without")
    in_its_way.rmdir()
    logger.wait_ready({"CONFIGURED"})
    logger.stop()
