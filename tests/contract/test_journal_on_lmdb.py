"""What LMDB does on a failing, full or scrambled disk, and what the journal makes of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import lmdb
import pytest

from dlog.adapters.journal import LmdbJournal
from dlog.adapters.journal_files import (
    AHEAD_BYTES_DEFAULT,
    BALLAST_BYTES_DEFAULT,
    JournalSpace,
    mark_failed,
)
from dlog.core import journal_records as records
from dlog.errors import (
    DiskFull,
    InvariantBroken,
    JournalFailed,
    JournalFull,
    JournalGone,
    JournalUnreadable,
    NameTaken,
)
from dlog.limits import KIB, MIB
from tests.rig.commands import environment, obeying_permissions, run_python, start_python
from tests.rig.filesystems import Hog
from tests.waiting import LONG

SPACE = JournalSpace(ballast_bytes=MIB, ahead_bytes=2 * MIB)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def made(path: Path, pairs: int = 0) -> LmdbJournal:
    journal = LmdbJournal.create(path, space=SPACE)
    for n in range(pairs):
        journal.commit([(b"live/%04d" % n, b"%d" % n), (b"last", b"%d" % n)])
    return journal


def opened(path: Path) -> LmdbJournal:
    return LmdbJournal.open(path, space=SPACE)


# --- creation and opening ---------------------------------------------------------------------


def test_a_journal_is_created_once(path: Path) -> None:
    made(path).close()
    with pytest.raises(NameTaken):
        LmdbJournal.create(path, space=SPACE)


def test_a_creation_that_was_cut_off_leaves_no_journal(path: Path) -> None:
    unfinished = path.with_name("journal.new")
    unfinished.mkdir()
    (unfinished / "data.mdb").write_bytes(b"")
    assert not LmdbJournal.exists(path)
    with made(path) as journal:
        journal.commit([(b"a", b"1")])
    assert LmdbJournal.exists(path)
    assert not unfinished.exists()


def test_a_second_opening_in_a_process_is_refused_and_harms_nothing(path: Path) -> None:
    with made(path) as journal:
        with pytest.raises(InvariantBroken, match="already"):
            opened(path)
        with pytest.raises(InvariantBroken, match="already"):
            LmdbJournal.open_read_only(path)
        journal.commit([(b"a", b"1")])
        said = run_python(_READ, str(path), "a")
        assert said == ["b'1'", "exit 0"]


_READ = """
import sys
from pathlib import Path
from dlog.adapters.journal import LmdbJournal
with LmdbJournal.open_read_only(Path(sys.argv[1])) as journal:
    print(journal.get(sys.argv[2].encode()))
"""


def test_opening_without_a_journal_says_so(path: Path) -> None:
    with pytest.raises(JournalUnreadable, match="no journal there"):
        opened(path)


def test_every_commit_is_synced_and_every_new_name_too(strace: str, path: Path) -> None:
    log = path.with_name("calls")
    tracer = [
        strace,
        "-o",
        str(log),
        "-e",
        "trace=fsync,fdatasync,?rename,?renameat,?renameat2",
        "-y",
    ]
    assert run_python(_CREATE_AND_COMMIT, str(path), tracer=tracer)[-1] == "exit 0"
    calls = log.read_text().splitlines()
    renamed = next(n for n, call in enumerate(calls) if call.startswith("rename"))
    before, after = calls[:renamed], calls[renamed:]
    assert any("fsync" in call and "journal.new/data.mdb>" in call for call in before)
    assert any("fsync" in call and "journal.new>" in call for call in before)
    assert any("fsync" in call and f"<{path.parent}>" in call for call in after)
    assert sum("fdatasync" in call and "journal/data.mdb>" in call for call in after) == 3


_CREATE_AND_COMMIT = """
import sys
from pathlib import Path
from dlog.adapters.journal import LmdbJournal
with LmdbJournal.create(Path(sys.argv[1])) as journal:
    for n in range(3):
        journal.commit([(b"a", b"%d" % n)])
"""


# --- damage -----------------------------------------------------------------------------------


def refused(path: Path) -> str:
    """That it is refused, in this very process and for readers and writers, and the words."""
    with pytest.raises(JournalUnreadable) as reading:
        LmdbJournal.open_read_only(path)
    with pytest.raises(JournalUnreadable) as writing:
        opened(path)
    for error in (reading, writing):
        assert "dlog journal rebuild" in str(error.value)
    return str(writing.value)


def test_an_emptied_journal_is_not_taken_for_a_new_one(path: Path) -> None:
    made(path, 10).close()
    os.truncate(path / "data.mdb", 0)
    assert "ends after 0 bytes" in refused(path)
    assert (path / "data.mdb").stat().st_size == 0


def test_a_missing_data_file_is_not_made_anew(path: Path) -> None:
    made(path, 10).close()
    (path / "data.mdb").unlink()
    refused(path)
    assert not (path / "data.mdb").exists()


@pytest.mark.parametrize("kept_bytes", [100, 4096, 8191, 8192, 12288, 40960, 131072])
def test_a_truncated_journal_is_refused_and_not_changed(path: Path, kept_bytes: int) -> None:
    made(path, 300).close()
    os.truncate(path / "data.mdb", kept_bytes)
    before = (path / "data.mdb").read_bytes()
    refused(path)
    assert (path / "data.mdb").read_bytes() == before


def test_a_journal_cut_behind_its_last_page_is_whole(path: Path) -> None:
    with made(path, 50) as journal:
        pairs = list(journal.scan(b""))
    copy = path.with_name("copy")
    copy.mkdir()
    with lmdb.open(str(path), readonly=True, lock=False) as env:
        env.copy(str(copy))
    with opened(copy) as journal:
        assert list(journal.scan(b"")) == pairs
        journal.commit([(b"more", b"1")])


def test_no_scrambling_kills_or_hangs_the_process_that_opens(path: Path) -> None:
    made(path, 200).close()
    good = path.with_name("good")
    shutil.copytree(path, good)
    used = (good / "data.mdb").read_bytes()[: 340 * 4096]
    verdicts = set()
    for seed in range(25):
        dice = random.Random(seed)
        scrambled = bytearray(used)
        for _ in range(dice.choice([1, 40])):
            # Whole pages of noise, noise in page headers, and single bytes.
            page = dice.randrange(2, len(used) // 4096) * 4096
            size = dice.choice([1, 16, 4096])
            scrambled[page : page + size] = dice.randbytes(size)
        (path / "data.mdb").write_bytes(scrambled)
        try:
            with opened(path) as journal:
                assert all(key for key, _ in journal.scan(b""))
            verdicts.add("readable")
        except JournalUnreadable:
            verdicts.add("refused")
    assert verdicts == {"readable", "refused"}  # pages in use and free ones were hit


def test_a_page_of_noise_at_the_root_is_told_apart_from_a_crash_of_ours(path: Path) -> None:
    made(path, 200).close()
    noise = random.Random(1).randbytes(400 * 4096)
    with (path / "data.mdb").open("r+b") as file:
        file.seek(8192)
        file.write(noise)
    assert "is damaged" in refused(path)


@pytest.mark.parametrize("prefix", [b"file/", b"done/"])
def test_a_damaged_page_is_found_by_the_probe_and_not_by_the_start(
    path: Path, prefix: bytes
) -> None:
    with made(path) as journal:
        keys = [prefix + b"%016d" % n for n in range(2000)]
        journal.commit([(key, bytes(100)) for key in (records.META, *keys, records.LOGGER)])
    content = bytearray((path / "data.mdb").read_bytes())
    noise = random.Random(1)
    for page in range(2 * 4096, len(content), 4096):
        # Leaf pages with such keys, whatever version of the tree they are of.
        if content[page : page + 4096].count(prefix) > 5:
            content[page : page + 4096] = noise.randbytes(4096)
    (path / "data.mdb").write_bytes(content)
    with pytest.raises(JournalUnreadable, match="is damaged"):
        LmdbJournal.open(path, live_prefixes=records.START_PREFIXES, space=SPACE)


_OPEN_WITHIN = """
import resource, sys
from pathlib import Path
from dlog.adapters.journal import LmdbJournal
from dlog.errors import DlogError
what, limit, path = getattr(resource, sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
if what == resource.RLIMIT_AS:  # beyond what it has
    limit += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(what, (limit, limit))
for opening in (LmdbJournal.open, LmdbJournal.open_read_only):
    try:
        opening(path).close()
        print("opened")
    except DlogError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("what", "limits"), [("RLIMIT_NOFILE", range(4, 12, 2)), ("RLIMIT_AS", [0, MIB, 64 * MIB])]
)
def test_a_journal_that_cannot_be_looked_at_is_not_called_damaged(
    path: Path, what: str, limits: list[int]
) -> None:
    made(path, 10).close()
    said = []
    for limit in limits:
        lines = run_python(_OPEN_WITHIN, what, limit, path)
        assert lines[-1] == "exit 0", lines
        said += lines[:-1]
    for line in said:
        assert line == "opened" or line.startswith("ResourcesExhausted"), line
        assert "damaged" not in line
        assert "rebuild" not in line
    assert {line.split()[0] for line in said} == {"opened", "ResourcesExhausted"}, said


@pytest.mark.parametrize("page", [0, 1])
def test_a_scrambled_meta_page_is_refused(path: Path, page: int) -> None:
    made(path, 10).close()
    with (path / "data.mdb").open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xff" * 64)
    assert "no meta page" in refused(path)


def test_a_lost_lock_file_does_not_matter(path: Path) -> None:
    made(path, 10).close()
    (path / "lock.mdb").unlink()
    with opened(path) as journal:
        assert journal.get(b"last") == b"9"


# --- readers in other processes ---------------------------------------------------------------


_ANSWER = """
import sys
from pathlib import Path
from dlog.adapters.journal import LmdbJournal
with LmdbJournal.open_read_only(Path(sys.argv[1])) as journal:
    for line in sys.stdin:
        print(journal.get(line.strip().encode()), flush=True)
"""


@contextlib.contextmanager
def reader_of(path: Path) -> Iterator[Callable[[str], str]]:
    """Another process that reads, key by key, while this one writes."""
    with start_python(_ANSWER, path) as process:
        asking, answering = process.stdin, process.stdout
        assert asking is not None
        assert answering is not None

        def ask(key: str) -> str:
            asking.write(key + "\n")
            asking.flush()
            return answering.readline().strip()

        yield ask
        asking.close()
        assert process.wait(LONG) == 0


_SCAN = """
import sys
from pathlib import Path
from dlog.adapters.journal import LmdbJournal
from dlog.errors import NotReadable
read = 0
print("ready", flush=True)
while read < 300:
    with LmdbJournal.open_read_only(Path(sys.argv[1]), live_prefixes=()) as journal:
        try:
            values = [int(value) for _, value in journal.scan(b"k")]
        except NotReadable:
            continue
    read += 1
    assert len(values) == 200, values
    assert values == sorted(values), values
print(values[-1], flush=True)
"""


@pytest.mark.long
@pytest.mark.parametrize("lock", ["read-only", "missing"])
def test_a_reader_without_write_access_reads_whole_records_while_a_logger_commits(
    path: Path, lock: str
) -> None:
    prefix = obeying_permissions()
    with made(path) as journal:
        keys = [b"k%03d" % n for n in range(200)]
        journal.commit([(key, b"0") for key in keys])
        if lock == "missing":
            (path / "lock.mdb").unlink()
        else:
            (path / "lock.mdb").chmod(0o444)
        with subprocess.Popen(
            [*prefix, sys.executable, "-c", _SCAN, str(path)], stdout=subprocess.PIPE, text=True,
            env=environment(),
        ) as reader:  # fmt: skip
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            number = 0
            while reader.poll() is None:
                number += 1
                # The last keys first: what is read in the order of keys never goes back.
                for begin in (100, 0):
                    journal.commit([(key, b"%d" % number) for key in keys[begin : begin + 100]])
            said = reader.stdout.read()
    assert reader.returncode == 0
    assert int(said) > 0
    assert (path / "lock.mdb").exists() is (lock == "read-only")


def test_a_journal_that_may_not_be_read_is_not_called_damaged(path: Path) -> None:
    prefix = obeying_permissions()
    made(path, 10).close()
    (path / "data.mdb").chmod(0)
    program = (
        "import sys; from pathlib import Path; from dlog.errors import NotReadable\n"
        "from dlog.adapters.journal import LmdbJournal\n"
        "try: LmdbJournal.open_read_only(Path(sys.argv[1]))\n"
        "except NotReadable as error: print(error)\n"
    )
    said = run_python(program, path, tracer=prefix)
    assert said == [f"{path}/data.mdb: Permission denied", "exit 0"]


def test_a_reader_in_another_process_sees_commits_and_the_growth_of_the_map(path: Path) -> None:
    with made(path) as journal, reader_of(path) as ask:
        for n in range(6):
            journal.commit([(b"k%d" % n, bytes(3 * MIB)), (b"n%d" % n, b"%d" % n)])
            assert ask(f"n{n}") == f"b'{n}'"


def test_a_reader_killed_inside_a_read_does_not_hold_pages_for_ever(path: Path) -> None:
    space = SPACE._replace(map_bytes_max=6 * MIB)
    program = """
import lmdb, os, signal, sys
env = lmdb.open(sys.argv[1], readonly=True)
txn = env.begin()
print("reading", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with LmdbJournal.create(path, space=space) as journal:
        journal.commit([(b"a", b"0")])
        assert run_python(program, str(path))[-1] == f"exit {-signal.SIGKILL}"
        # 30 MiB through 6 MiB: only if the pages of earlier commits are used again.
        for n in range(300):
            journal.commit([(b"a", bytes([n % 256]) * 100 * KIB)])


def test_a_scan_in_progress_does_not_make_the_journal_grow(path: Path) -> None:
    with LmdbJournal.create(path, space=SPACE._replace(map_bytes_max=6 * MIB)) as journal:
        journal.commit([(b"a%d" % n, b"x") for n in range(10)])
        scan = journal.scan(b"a")
        next(scan)
        for n in range(300):
            journal.commit([(b"big", bytes([n % 256]) * 100 * KIB)])
        assert len(list(scan)) == 9


def test_another_thread_reads_whole_commits_while_they_are_made(path: Path) -> None:
    journal = made(path)
    journal.commit([(b"a", b"0"), (b"b", b"0")])
    done = threading.Event()
    seen: list[tuple[bytes, bytes]] = []

    def read() -> None:
        while not done.is_set():
            pairs = dict(journal.scan(b""))
            seen.append((pairs[b"a"], pairs[b"b"]))

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(200):
        journal.commit([(b"a", b"%d" % n), (b"b", b"%d" % n)])
    journal.commit([(b"large", bytes(4 * MIB))])  # and while the map is moved
    for n in range(200):
        journal.commit([(b"a", b"%d" % n), (b"b", b"%d" % n), (b"grow%d" % n, bytes(100 * KIB))])
    done.set()
    reader.join()
    journal.close()
    assert seen
    assert all(a == b for a, b in seen)


# --- commits that fail ------------------------------------------------------------------------

_COMMIT_UNTIL_IT_FAILS = """
import json, sys
from pathlib import Path
from dlog.adapters.journal import LmdbJournal
from dlog.errors import JournalFailed
journal = LmdbJournal.open(Path(sys.argv[1]), live_prefixes=())
committed, failed = 0, None
for n in range(1, 6):
    try:
        journal.commit([(b"a", b"%d" % n), (b"b", b"%d" % n), (b"big", bytes([n]) * 100_000)])
        committed = n
    except JournalFailed as error:
        failed = n
        break
later = []
for call in (
    lambda: journal.commit([(b"c", b"later")]),
    lambda: journal.commit([(b"c", b"later")], use_ballast=True),
    lambda: journal.get(b"a"),
    lambda: list(journal.scan(b"")),
    journal.size_bytes,
):
    try:
        call()
        later.append("went on")
    except JournalFailed:
        later.append("refused")
journal.close()
print(json.dumps([committed, failed, later]))
"""


def commit_with_fault(
    strace: str, path: Path, call: str, when: int
) -> tuple[int, int | None, list[str]]:
    tracer = [strace, "-o", os.devnull, "-e", f"trace={call}"]
    tracer += ["-e", f"inject={call}:error=EIO:when={when}"]
    said = run_python(_COMMIT_UNTIL_IT_FAILS, str(path), tracer=tracer)
    committed, failed, later = json.loads(said[0])
    return committed, failed, later


# The first fdatasync and pwrite64 are of opening; then each commit has one of each (pwrite64 is the
# meta page's), and a lseek and a writev for its pages.
@pytest.mark.parametrize(
    ("call", "when"),
    [("fdatasync", 2), ("fdatasync", 4), ("pwrite64", 2), ("pwrite64", 4), ("writev", 2)],
)
def test_a_failed_commit_poisons_the_journal(strace: str, path: Path, call: str, when: int) -> None:
    made(path).close()
    committed, failed, later = commit_with_fault(strace, path, call, when)
    assert failed == committed + 1
    assert set(later) == {"refused"}
    assert (path / "journal.failed").exists()

    with opened(path) as journal:
        # The outcome was unknown, but it is one of two, and nothing before it is touched.
        assert journal.get(b"a") in (b"%d" % committed, b"%d" % failed, None)
        a, b, big = (journal.get(key) for key in (b"a", b"b", b"big"))
        assert a == b
        assert (big or b"\0")[0] == int(a or b"0")
        assert int(a or b"0") in (committed, failed)
        assert journal.get(b"c") is None
        journal.commit([(b"c", b"goes on")])
    assert sorted(os.listdir(path)) == ["data.mdb", "data.mdb.failed-1", "lock.mdb"]
    with opened(path) as journal:
        assert journal.get(b"c") == b"goes on"
    assert not (path / "data.mdb.failed-2").exists()


def test_of_the_files_that_failed_the_last_ones_are_kept(path: Path) -> None:
    made(path).close()
    for number in range(1, 7):
        mark_failed(path, "a test")
        with opened(path) as journal:
            journal.commit([(b"a", b"%d" % number)])
    kept = [f"data.mdb.failed-{number}" for number in (4, 5, 6)]
    assert sorted(os.listdir(path)) == ["data.mdb", *kept, "lock.mdb"]
    with opened(path) as journal:
        assert journal.get(b"a") == b"6"


def test_a_failed_commit_whose_marker_fails_too_is_survived(strace: str, path: Path) -> None:
    made(path).close()
    tracer = [strace, "-o", os.devnull, "-e", "trace=fdatasync,fsync,openat"]
    tracer += ["-e", "inject=fdatasync:error=EIO:when=3"]
    tracer += ["-e", "inject=fsync:error=EIO:when=1+"]
    committed, _, later = json.loads(
        run_python(_COMMIT_UNTIL_IT_FAILS, str(path), tracer=tracer)[0]
    )
    assert set(later) == {"refused"}
    (path / "journal.failed").unlink()
    with opened(path) as journal:
        assert journal.get(b"a") == b"%d" % committed
        journal.commit([(b"c", b"goes on")])


_OPEN = """
import sys
from pathlib import Path
from dlog.adapters.journal import LmdbJournal
with LmdbJournal.open(Path(sys.argv[1]), live_prefixes=()) as journal:
    print(len(list(journal.scan(b""))))
"""
_STEPS_OF_THE_MOVE = [
    *(("fsync", n) for n in range(1, 5)),
    ("?link,linkat", 1),
    ("?rename,?renameat,renameat2", 1),
    ("?unlink,unlinkat", 1),
    ("truncate", 1),
    ("fdatasync", 1),
    ("pwrite64", 1),
]


@pytest.mark.parametrize(("call", "when"), _STEPS_OF_THE_MOVE)
def test_a_move_to_a_new_file_that_is_killed_is_made_up_for(
    strace: str, path: Path, call: str, when: int
) -> None:
    made(path, 20).close()
    (path / "journal.failed").write_bytes(b"for the test\n")
    tracer = [strace, "-o", os.devnull, "-e", f"trace={call}"]
    tracer += ["-e", f"inject={call}:signal=SIGKILL:when={when}"]
    said = run_python(_OPEN, str(path), tracer=tracer)
    if said[-1] == "exit 0":
        pytest.fail(f"{call} was not called {when} times")
    with opened(path) as journal:
        assert len(list(journal.scan(b"live/"))) == 20
        assert journal.get(b"last") == b"19"
    left = set(os.listdir(path))
    assert {"journal.failed", "data.mdb.copy"}.isdisjoint(left)
    assert "data.mdb.failed-1" in left


@pytest.mark.parametrize("pairs", [5, 6])  # the transaction count odd and even
def test_a_reader_follows_the_journal_to_its_new_file(path: Path, pairs: int) -> None:
    with made(path, pairs) as journal, reader_of(path) as ask:
        assert ask("last") == f"b'{pairs - 1}'"
        journal.close()
        (path / "journal.failed").write_bytes(b"for the test\n")
        # The reader keeps the lock table alive, with the transaction count of the old file.
        with opened(path) as moved:
            assert moved.get(b"last") == b"%d" % (pairs - 1)
            moved.commit([(b"last", b"more")])
            moved.commit([(b"last", b"most")])
            assert ask("last") == "b'most'"
    with opened(path) as journal:
        assert journal.get(b"last") == b"most"
        assert len(list(journal.scan(b"live/"))) == pairs


def test_a_killed_writer_loses_no_commit_also_with_a_reader_attached(path: Path) -> None:
    program = """
import sys
from pathlib import Path
from dlog.adapters.journal import LmdbJournal
with LmdbJournal.open(Path(sys.argv[1]), live_prefixes=()) as journal:
    n = int(journal.get(b"n") or 0)
    while True:
        n += 1
        journal.commit([(b"n", b"%d" % n), (b"big", b"%d" % n * 20_000)])
        print(n, flush=True)
"""
    made(path).close()
    with reader_of(path) as ask:
        for _ in range(5):
            with start_python(program, path) as writer:
                assert writer.stdout is not None
                said = [writer.stdout.readline() for _ in range(30)]
                ask("n")
                writer.kill()
                committed = int([*said, *writer.stdout.readlines()][-1])
            with opened(path) as journal:
                n = int(journal.get(b"n") or 0)
                assert n in (committed, committed + 1)
                assert journal.get(b"big") == b"%d" % n * 20_000
                journal.commit([(b"restarted", b"%d" % n)])
            assert ask("restarted") == f"b'{n}'"


# --- space ------------------------------------------------------------------------------------


def test_the_map_grows_with_what_is_committed(path: Path) -> None:
    with made(path) as journal:
        for n in range(30):
            journal.commit([(b"k%d" % n, bytes(MIB))])
        assert sum(len(value) for _, value in journal.scan(b"k")) == 30 * MIB


def test_a_group_larger_than_the_map_is_redone_until_it_fits(path: Path) -> None:
    with made(path) as journal:
        journal.commit([(b"k%d" % n, bytes(4 * MIB)) for n in range(16)])
        assert len(list(journal.scan(b"k"))) == 16


def test_a_journal_at_its_limit_is_full_and_unchanged(path: Path) -> None:
    space = SPACE._replace(map_bytes_max=8 * MIB)
    with LmdbJournal.create(path, space=space) as journal:
        journal.commit([(b"a", b"1")])
        with pytest.raises(JournalFull):
            journal.commit([(b"a", b"2"), *((b"k%d" % n, bytes(MIB)) for n in range(20))])
        assert list(journal.scan(b"")) == [(b"a", b"1")]
        journal.commit([(b"a", b"3")])
        assert journal.get(b"a") == b"3"


def test_space_is_kept_ahead_of_what_is_used(path: Path) -> None:
    with LmdbJournal.create(path) as journal:
        assert journal.size_bytes() >= AHEAD_BYTES_DEFAULT + BALLAST_BYTES_DEFAULT
        for n in range(8):
            journal.commit([(b"k%d" % n, bytes(4 * MIB))])
            used = sum(len(value) for _, value in journal.scan(b""))
            assert journal.size_bytes() >= used + AHEAD_BYTES_DEFAULT + BALLAST_BYTES_DEFAULT


def commit_until_full(journal: LmdbJournal, prefix: bytes, *, use_ballast: bool = False) -> int:
    for n in range(100_000):
        try:
            journal.commit([(b"%s%06d" % (prefix, n), bytes(1000))], use_ballast=use_ballast)
        except JournalFull:
            return n
    pytest.fail("the disk is never full")


def test_a_full_disk_leaves_room_for_many_commits_then_says_full(small_filesystem: Path) -> None:
    with made(small_filesystem / "journal") as journal:
        journal.commit([(b"a", b"1")])
        hog = Hog.full(small_filesystem)
        count = commit_until_full(journal, b"new")
        assert count > 1000  # 2 MiB were kept ahead
        assert len(list(journal.scan(b"new"))) == count
        assert journal.get(b"a") == b"1"
        hog.give_back()
        journal.commit([(b"big", bytes(2 * MIB))])
    with opened(small_filesystem / "journal") as journal:
        assert len(list(journal.scan(b"new"))) == count


def test_ballast_commits_go_on_where_ordinary_ones_are_refused(small_filesystem: Path) -> None:
    with made(small_filesystem / "journal") as journal:
        Hog.full(small_filesystem)
        commit_until_full(journal, b"new")
        for n in range(100):
            with pytest.raises(JournalFull):
                journal.commit([(b"refused", bytes(MIB))])
            journal.commit([(b"run/%d" % n, b"ENDED" * 20)], use_ballast=True)
        assert len(list(journal.scan(b"run/"))) == 100
        assert journal.get(b"refused") is None
        assert commit_until_full(journal, b"ballast", use_ballast=True) > 200
    # And all of it on a disk that is still full.
    with opened(small_filesystem / "journal") as journal:
        assert len(list(journal.scan(b"run/"))) == 100


def test_overwriting_commits_never_fill_the_disk(small_filesystem: Path) -> None:
    with made(small_filesystem / "journal") as journal:
        Hog.full(small_filesystem)
        for n in range(3000):
            journal.commit([(b"offset/%d" % (n % 20), b"%d" % n)])


def test_a_journal_opens_and_commits_on_a_full_disk(small_filesystem: Path) -> None:
    made(small_filesystem / "journal", 10).close()
    Hog.full(small_filesystem)
    with opened(small_filesystem / "journal") as journal:
        assert journal.get(b"last") == b"9"
        for n in range(200):
            journal.commit([(b"more%d" % n, bytes(100))])


def test_a_full_disk_without_a_lock_file_is_an_error_and_no_signal(small_filesystem: Path) -> None:
    path = small_filesystem / "journal"
    made(path, 10).close()
    (path / "lock.mdb").unlink()
    hog = Hog.full(small_filesystem)
    said = run_python(_OPEN, str(path))
    assert said[-1] == "exit 1"
    with pytest.raises(DiskFull):
        opened(path)
    hog.give_back()
    with opened(path) as journal:
        assert journal.get(b"last") == b"9"


def test_a_journal_is_not_created_on_a_full_disk(small_filesystem: Path) -> None:
    hog = Hog.full(small_filesystem)
    with pytest.raises(DiskFull):
        made(small_filesystem / "journal")
    assert not LmdbJournal.exists(small_filesystem / "journal")
    hog.give_back()
    made(small_filesystem / "journal").close()


def test_a_failed_journal_on_a_full_disk_waits_for_space(small_filesystem: Path) -> None:
    path = small_filesystem / "journal"
    with made(path, 10) as journal:
        journal.commit([(b"big", bytes(2 * MIB))])
    (path / "journal.failed").write_bytes(b"for the test\n")
    hog = Hog.full(small_filesystem)
    with pytest.raises(DiskFull):
        opened(path)
    assert (path / "journal.failed").exists()
    assert not (path / "data.mdb.copy").exists()
    hog.give_back()
    with opened(path) as journal:
        assert journal.get(b"last") == b"9"


def test_a_disk_that_is_full_where_nothing_could_be_reserved_is_full_and_not_failed(
    small_filesystem: Path, strace: str
) -> None:
    """As on filesystems that copy on write, where reserved space may not be had after all."""
    path = small_filesystem / "journal"
    made(path, 10).close()
    tracer = [strace, "-o", os.devnull, "-e", "trace=writev,pwrite64"]
    tracer += ["-e", "inject=writev:error=ENOSPC:when=2..3"]
    program = """
import sys
from pathlib import Path
from dlog.adapters.journal import LmdbJournal
from dlog.errors import JournalFull
with LmdbJournal.open(Path(sys.argv[1]), live_prefixes=()) as journal:
    last = None
    for n in range(6):
        try:
            journal.commit([(b"a", b"%d" % n), (b"big", bytes([n]) * 100_000)])
            last = b"%d" % n
            print("committed")
        except JournalFull:
            assert journal.get(b"a") == last
            print("full")
"""
    said = run_python(program, str(path), tracer=tracer)
    assert "full" in said
    assert said[-2:] == ["committed", "exit 0"]
    assert not (path / "journal.failed").exists()


# --- a journal that somebody takes away ---------------------------------------------------------


def deleted(path: Path) -> None:
    shutil.rmtree(path)


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replaced_by_a_copy(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    shutil.copytree(path.with_name("elsewhere"), path)


def emptied(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


@pytest.mark.parametrize("by", ["a commit", "a look"])
@pytest.mark.parametrize(
    ("take_away", "words"),
    [
        (deleted, "was deleted;"),
        (moved, "was moved to .*/elsewhere;"),
        (replaced_by_a_copy, "was moved to .*/elsewhere, and another one stands in its place"),
        (emptied, "was deleted;"),
    ],
)
def test_a_journal_that_is_gone_commits_nothing_more(
    path: Path, take_away: Callable[[Path], None], words: str, by: str
) -> None:
    journal = made(path, pairs=3)
    assert journal.check_place() == ""
    take_away(path)
    notice = partial(journal.commit, [(b"a", b"b")]) if by == "a commit" else journal.check_place
    with pytest.raises(JournalGone, match=words) as gone:
        notice()
    assert str(path) in str(gone.value)
    assert "journal rebuild" in str(gone.value)
    with pytest.raises(JournalFailed, match=words):
        journal.commit([(b"a", b"b")])
    journal.close()


def test_a_journal_that_was_moved_is_as_it_was_once_it_is_back(path: Path) -> None:
    journal = made(path, pairs=3)
    moved(path)
    with pytest.raises(JournalGone):
        journal.commit([(b"last", b"lost")])
    journal.close()
    path.with_name("elsewhere").rename(path)
    with opened(path) as again:
        assert again.get(b"last") == b"2"


def test_its_size_and_a_deleted_lock_file_are_no_failure(path: Path) -> None:
    journal = made(path)
    (path / "lock.mdb").unlink()
    assert journal.size_bytes() > 0
    assert "lock.mdb was deleted" in journal.check_place()
    journal.commit([(b"a", b"b")])
    journal.close()


def test_a_journal_that_may_not_grow_is_full(path: Path) -> None:
    # EFBIG was a commit of unknown outcome, and the end of the logger.
    program = """
import resource, sys
from pathlib import Path
from dlog.adapters.journal import LmdbJournal
from dlog.adapters.journal_files import JournalSpace
from dlog.errors import JournalFull
from dlog.limits import MIB
space = JournalSpace(ballast_bytes=MIB, ahead_bytes=2 * MIB)
journal = LmdbJournal.create(Path(sys.argv[1]), space=space)
size = (Path(sys.argv[1]) / "data.mdb").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    for n in range(10_000):
        journal.commit([(b"key/%05d" % n, bytes(3000))])
except JournalFull as error:
    print("full")
journal.commit([(b"last", b"x")], use_ballast=True)
print(journal.get(b"last"))
"""
    assert run_python(program, path) == ["full", "b'x'", "exit 0"]
