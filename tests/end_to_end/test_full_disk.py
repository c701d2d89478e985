"""Disks that are full or fail: nothing acknowledged is lost, commands work, and it goes on by
itself."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlog.creation import create_data_directory
from dlog.errors import EventsRefused
from dlog.limits import MIB
from dlog.reader.event_file import EventFile
from tests.rig.commands import environment_with
from tests.rig.exactly_once import assert_acknowledged_once, assert_exactly_once, finish
from tests.rig.filesystems import Hog, break_disk, go_read_only, mount, remount, small_disk, unmount
from tests.rig.processes import LoggerProcess, NewLogger, strace_on
from tests.rig.sources import Sender
from tests.waiting import LONG, until

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

needs_strace = pytest.mark.usefixtures("strace")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "s", 96 * MIB) as place:
        yield place


def end_with_losses(sender: Sender) -> None:
    """A run is over although the source had more, which is counted."""
    sender.ended_with_its_run()
    with pytest.raises(EventsRefused):
        sender.source.close(LONG)


# --- space -------------------------------------------------------------------------------------


@pytest.mark.long
def test_below_the_low_water_mark_sources_wait_and_go_on_by_themselves(
    new_logger: NewLogger, disk: Path
) -> None:
    logger = new_logger(WATCHED, data=disk / "data").start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH, pause_seconds=0.002)
    sender.start()
    sender.goes_on()
    hog = Hog(disk)
    with logger.coor() as coor:
        assert coor.ask("STATUS").ok  # so that the logger knows whom to ask
        hog.take(leave_bytes=20 * MIB)  # more than what a source has under way
        until(lambda: "disk-low" in logger.alarms(), "the alarm")
        until(lambda: "low-water" in sender.source.report().waiting, "the source is told why")
        sender.until_still()
        assert logger.status().disks[0].low
        # Commands work meanwhile, and a run can begin and end.
        assert coor.ask("SET DEBUG", {"level": "info"}).ok
        assert coor.ask("PAUSE RUN", {"run": 7}).ok
        assert coor.ask("RESUME RUN", {"run": 7}).ok
        logger.start_run(8)
        logger.stop_run(8)
        hog.give_back()
        sender.goes_on()
        heard: list[tuple[str, list[int]]] = []

        def asked_to_resume() -> bool:
            coor.ask("STATUS")
            heard.extend((r.request, r.runs) for r in coor.requests())
            return len(heard) >= 2

        until(asked_to_resume, "COOR is asked to pause and to resume")
        assert heard == [("pause", [7]), ("resume", [7])]
    until(lambda: "disk-low" not in logger.alarms(), "the alarm is cleared")
    finish(logger, sender)


def test_a_full_disk_stops_the_sources_and_nothing_else(new_logger: NewLogger, disk: Path) -> None:
    logger = new_logger(UNWATCHED, data=disk / "data").start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH, pause_seconds=0.002)
    sender.start()
    sender.goes_on()
    hog = Hog.full(disk)
    until(lambda: any(name.startswith("stalled") for name in logger.alarms()), "the alarm")
    sender.until_still()
    assert logger.ask("SET DEBUG", {"level": "info"}).ok
    assert logger.ask("PAUSE RUN", {"run": 7}).ok
    assert logger.ask("RESUME RUN", {"run": 7}).ok
    assert logger.status().logger.state == "RUNNING"
    hog.give_back()
    sender.goes_on()
    until(lambda: not any(n.startswith("stalled") for n in logger.alarms()), "the alarm is cleared")
    finish(logger, sender)


@pytest.mark.long
def test_a_run_can_be_ended_while_the_disk_is_full(new_logger: NewLogger, disk: Path) -> None:
    logger = new_logger(UNWATCHED, data=disk / "data").start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH, pause_seconds=0.002)
    sender.start()
    sender.goes_on()
    hog = Hog.full(disk)
    sender.until_still()
    answer = logger.do("STOP RUN", {"run": 7})
    assert answer.data["state"] == "ENDED"
    end_with_losses(sender)
    reasons = set(sender.source.report().refused)
    assert reasons <= {"no-space-at-end-of-run", "run-ended"}, reasons
    assert_acknowledged_once(logger.data, sender)
    assert logger.status().logger.state == "CONFIGURED"
    hog.give_back()
    logger.start_run(8)
    logger.stop()
    logger.assert_verified()


@pytest.mark.long
def test_a_logger_that_dies_on_a_full_disk_starts_on_it_and_goes_on(
    new_logger: NewLogger, disk: Path
) -> None:
    logger = new_logger(UNWATCHED, data=disk / "data").start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH, pause_seconds=0.002)
    sender.start()
    sender.goes_on()
    hog = Hog.full(disk)
    sender.until_still()
    for _ in range(2):
        logger.kill()
        logger.start(auto=False, state="RUNNING")
        assert logger.ask("PAUSE RUN", {"run": 7}).ok
        assert logger.ask("RESUME RUN", {"run": 7}).ok
    hog.give_back()
    sender.goes_on()
    finish(logger, sender)


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


@pytest.mark.long
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
        sender.goes_on()
    Hog.full(disk)
    until(lambda: "stalled run 7 stream b" in logger.alarms(), "the stream stalls")
    stalled.until_still()
    for _ in range(2):
        good.goes_on()
        moving.goes_on()
    good.halt()
    moving.halt()
    good.source.flush(LONG)
    moving.source.flush(LONG)
    assert logger.do("STOP RUN", {"run": 7}).data["state"] == "ENDED"
    good.finish()
    moving.finish()
    end_with_losses(stalled)
    assert_acknowledged_once(logger.directories, *senders)
    assert logger.files(7, "c_*.dlog"), "stream c moved to the other directory"


@pytest.mark.long
@needs_strace
def test_a_tail_that_no_space_is_left_to_save_is_not_read_a_second_time(
    two_directories: LoggerProcess, disk: Path
) -> None:
    logger = two_directories.start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), ("c",), pause_seconds=0.001)
    sender.send_acknowledged(50)
    part = disk / "runs" / "7" / "c_0001.dlog.part"
    durable = logger.stream_status(7, "c").files[0].durable_bytes
    journal = logger.data / "journal" / "data.mdb"
    with strace_on(logger, "fdatasync", "delay_enter=1500000", path=journal):
        sender.start()
        until(lambda: end_of_data(part) > durable, "blocks are written, and no commit tells of it")
        logger.kill()
    hog = Hog.full(disk)
    logger.start(auto=False)
    assert "no space to save its tail aside" in str(logger.alarms())
    sender.goes_on()
    sender.halt()
    sender.source.flush(LONG)
    # The tail is still there; whoever reads must not take it for a part of the file.
    assert_exactly_once(logger.directories, sender)
    hog.give_back()
    finish(logger, sender)


@pytest.mark.long
@needs_strace
def test_what_was_refused_at_the_end_of_a_run_is_not_read_though_it_lies_on_the_disk(
    two_directories: LoggerProcess, disk: Path
) -> None:
    logger = two_directories.start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), ("b",))
    sender.send_acknowledged(50)
    Hog.full(disk)
    part = disk / "runs" / "7" / "b_0001.dlog.part"
    with strace_on(logger, "fdatasync", "error=EIO", path=part):
        # There is room for it in what is reserved; then the sync fails, and there is no new part.
        for _ in range(50):
            sender.send(7)
        until(lambda: "stalled run 7 stream b" in logger.alarms(), "the stream stalls")
    assert logger.do("STOP RUN", {"run": 7}).data["state"] == "ENDED"
    with pytest.raises(EventsRefused):
        sender.source.close(LONG)
    assert sender.source.report().acknowledged == 50
    assert part.exists(), "there is no space to save aside what is behind its end"
    assert_acknowledged_once(disk, sender)


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
    return environment_with(tmp_path / "small-journal", SMALL_JOURNAL)


def until_full(logger: LoggerProcess, sender: Sender) -> None:
    """Every twenty events are a closed file in the catalogue, until that takes no more."""
    sender.start()
    until(lambda: "journal-full" in logger.alarms(), "the alarm")
    sender.until_still()


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
        sender.until_still()
    logger.kill()
    logger.start(auto=False, state="RUNNING")
    finish(logger, sender)


@pytest.mark.long
def test_a_run_can_be_ended_while_the_journal_is_full(
    new_logger: NewLogger, small_journal: dict[str, str]
) -> None:
    logger = new_logger(SMALL_PARTS).start(env=small_journal)
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), ("b",), pause_seconds=0.01)
    until_full(logger, sender)
    wrong = ("PAUSE RUN", {"run": 99}, LONG)
    with logger.coor() as coor:
        refused = coor.ask(*wrong, command_id=("ab", 1))
    assert (refused.ok, refused.code) == (False, "run")
    with logger.coor() as coor:  # the answer was lost with its connection, say
        assert coor.ask(*wrong, command_id=("ab", 1)).error == refused.error
    assert logger.do("STOP RUN", {"run": 7}).data["state"] == "ENDED"
    end_with_losses(sender)
    assert_acknowledged_once(logger.data, sender)
    logger.do("STOP")
    assert logger.ended() == 0


# --- disks that fail ---------------------------------------------------------------------------


@pytest.mark.long
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
    sender.send_acknowledged(100)
    part = logger.data / "runs" / "7" / "a_0001.dlog.part"
    with strace_on(logger, calls, inject, path=part):
        # More than what is reserved, so that there is a reservation too.
        sender.send_acknowledged(4000)
    assert any(name.startswith("storage run 7") for name in logger.alarms())
    assert logger.files(7, "a_0002.dlog*"), "there is a new part"
    sender.send_acknowledged(50)
    finish(logger, sender)
    sealed = EventFile(logger.data / "runs" / "7" / "a_0001.dlog")
    assert sealed.path.stat().st_mode & 0o777 == 0o444
    assert sealed.sidecar is not None
    assert sealed.sidecar.sealed
    after = EventFile(logger.data / "runs" / "7" / "a_0002.dlog")
    assert after.header.predecessor_part == 1
    assert after.header.predecessor_sealed == sealed.path.stat().st_size


@pytest.mark.long
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
        sender.goes_on()
    break_disk(disk)
    until(lambda: "stalled run 7 stream b" in logger.alarms(), "the stream stalls")
    stalled.until_still()
    for _ in range(2):
        good.goes_on()
        moving.goes_on()
    for sender in (good, moving):
        sender.halt()
        sender.source.flush(LONG)
    answer = logger.do("STOP RUN", {"run": 7})
    assert answer.data["state"] == "ENDED"
    good.finish()
    moving.finish()
    end_with_losses(stalled)
    assert set(stalled.source.report().refused) <= {"storage-failed-at-end-of-run", "run-ended"}
    logger.do("STOP")
    assert logger.ended() == 0


@pytest.mark.long
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


@pytest.mark.long
@needs_strace
def test_a_journal_commit_that_fails_ends_the_logger_and_loses_nothing(
    new_logger: NewLogger,
) -> None:
    logger = new_logger(UNWATCHED).start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH)
    sender.send_acknowledged(100)
    with strace_on(
        logger, "fdatasync", "error=EIO:when=2+", path=logger.data / "journal" / "data.mdb"
    ):
        for _ in range(200):
            sender.send(7)
        assert logger.ended() == 70
    logger.start(auto=False, state="RUNNING")
    sender.send_acknowledged(50)
    finish(logger, sender)


@pytest.mark.long
def test_a_start_without_the_disk_of_an_active_run_leaves_its_files_as_they_are(
    two_directories: LoggerProcess, disk: Path
) -> None:
    logger = two_directories.start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), ("c",))
    sender.send_acknowledged(50)
    logger.kill()
    subprocess.run(["umount", str(disk)], check=True)
    logger.start(auto=False)
    assert "is its disk mounted?" in logger.alarms()[f"directory {disk}"]
    sender.send_acknowledged(50)  # the stream goes on in its other directory
    logger.kill()
    assert list(disk.iterdir()) == []
    mount(disk)
    logger.start(auto=False)
    sender.send_acknowledged(50)
    finish(logger, sender)


@pytest.mark.long
def test_a_disk_that_goes_read_only_ends_the_logger_and_costs_nothing(
    new_logger: NewLogger, disk: Path
) -> None:
    logger = new_logger(UNWATCHED, data=disk / "data").start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH, pause_seconds=0.002)
    sender.start()
    sender.goes_on()
    go_read_only(disk)
    assert logger.ended() == 70
    sender.until_still()
    logger.spawn(auto=False)
    assert logger.ended() in (1, 70)
    assert "Read-only file system" in logger.log_tail()
    unmount(disk)
    mount(disk)
    logger.start(auto=False, state="RUNNING")
    sender.goes_on()
    finish(logger, sender)


@pytest.mark.long
def test_a_start_on_a_disk_that_is_mounted_read_only_is_refused_in_words(
    new_logger: NewLogger, disk: Path
) -> None:
    logger = new_logger(UNWATCHED, data=disk / "data").start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), BOTH)
    sender.send_acknowledged(50)
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
    sender.send_acknowledged(50)
    finish(logger, sender)


@pytest.mark.long
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
        sender.goes_on()
    go_read_only(disk)
    until(lambda: "stalled run 7 stream b" in logger.alarms(), "the stream stalls")
    stalled.until_still()
    for _ in range(2):
        good.goes_on()
        moving.goes_on()
    # What stalls is not lost: it stands once the disk is mounted anew.
    logger.signal(signal.SIGTERM)
    assert logger.ended() == 0
    unmount(disk)
    mount(disk)
    logger.start(auto=False, state="RUNNING")
    stalled.goes_on()
    finish(logger, *senders)


@pytest.mark.long
def test_without_the_directory_of_the_journal_the_logger_cannot_go_on(
    new_logger: NewLogger, disk: Path
) -> None:
    logger = new_logger(UNWATCHED, data=disk / "data").start()
    logger.start_run(7)
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert logger.ended() == 70
    assert "FAILURE" in logger.log()


@pytest.mark.long
def test_without_another_directory_streams_go_on_in_the_one_that_is_left(
    two_directories: LoggerProcess, disk: Path
) -> None:
    logger = two_directories.start()
    logger.start_run(7)
    sender = Sender(logger.data, "source", (7,), ("a", "c"))
    sender.send_acknowledged(50)
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
    sender.send_acknowledged(50)
    logger.kill()
    logger.start(state="RUNNING")
    sender.send_acknowledged(50)
    assert "is its disk mounted?" in logger.alarms()[f"directory {disk}"]
    assert list(disk.iterdir()) == []
    sender.source.close()
    logger.stop_run(7)
    logger.stop()


@pytest.mark.long
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
