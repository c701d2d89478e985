"""What stands between a program and its disk sees every storage call, and does as it is told."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dlog.faults.call_table import LISTEN
from dlog.faults.plan import Fault, Lasting, Plan
from dlog.faults.system_calls import PASS, Call, Deed, Fate, Interposed

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("held_calls")]
RUN_SECONDS_MAX = 200.0  # of a program that takes milliseconds

# Each does one storage call in the working directory, whose trace shows whether it was done.
CALLS = {
    "mkdir": "os.mkdir('made')",
    "openat": "os.close(os.open('made', os.O_CREAT | os.O_WRONLY))",
    "rename": "os.rename('old', 'made')",
    "renameat2": "ctypes.CDLL(None).renameat2(folder, b'old', folder, b'made', 1)",
    "linkat": "os.link('old', 'made', src_dir_fd=folder, dst_dir_fd=folder)",
    "unlinkat": "os.unlink('old', dir_fd=folder)",
    "pwrite64": "os.pwrite(file, b'made', 2)",
    "write": "os.write(file, b'made')",
    "writev": "os.writev(file, [b'ma', b'de'])",
    "ftruncate": "os.ftruncate(file, 100)",
    "fallocate": "os.posix_fallocate(file, 0, 8192)",
    "fchmod": "os.fchmod(file, 0o400)",
}
BEGIN = """
import ctypes, os, sys, threading
folder = os.open('.', os.O_RDONLY)
file = os.open('old', os.O_RDWR)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The watched one, with a file in it."""
    made = tmp_path / "watched"
    made.mkdir()
    (made / "old").write_bytes(b"before")
    return made


def run(folder: Path, program: str, decide: Callable[[Call], Fate]) -> int:
    """A program in that folder, to its end; its exit code."""
    text = f"import os; os.chdir({str(folder)!r}){BEGIN}{program}"
    command = [sys.executable, "-I", "-S", "-c", text]
    with Interposed(command, folder, decide, log=subprocess.DEVNULL) as process:
        code = process.process.wait(RUN_SECONDS_MAX)
    assert process.error is None
    return code


def on(name: str, fate: Fate) -> Callable[[Call], Fate]:
    return lambda call: fate if call.name == name else PASS


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything that one of the calls could have changed."""
    return {
        path.name: (path.stat().st_mode, path.stat().st_size, content(path))
        for path in folder.iterdir()
    }


def content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@pytest.mark.parametrize("name", CALLS)
def test_a_kill_before_a_call_leaves_nothing_of_it(folder: Path, name: str) -> None:
    before = state(folder)
    assert run(folder, CALLS[name], on(name, Fate(Deed.KILL_BEFORE))) == -9
    assert state(folder) == before


@pytest.mark.parametrize("name", CALLS)
def test_a_kill_after_a_call_leaves_all_of_it(folder: Path, tmp_path: Path, name: str) -> None:
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    (undisturbed / "old").write_bytes(b"before")
    assert run(undisturbed, CALLS[name], lambda call: PASS) == 0
    assert run(folder, CALLS[name], on(name, Fate(Deed.KILL_AFTER))) == -9
    assert state(folder) == state(undisturbed)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "renameat2"])
def test_a_call_that_fails_does_nothing_and_says_why(folder: Path, name: str) -> None:
    before = state(folder)
    program = f"""
try:
    {CALLS[name]}
except OSError as error:
    sys.exit(error.errno)
"""
    assert run(folder, program, on(name, Fate(Deed.FAIL, code=errno.EIO))) == errno.EIO
    assert state(folder) == before


@pytest.mark.parametrize("name", ["pwrite64", "write", "writev"])
def test_a_short_write_is_half_of_it(folder: Path, name: str) -> None:
    assert run(folder, f"sys.exit({CALLS[name]})", on(name, Fate(Deed.SHORT))) == 2
    assert (folder / "old").read_bytes() == (b"bemare" if name == "pwrite64" else b"mafore")


def test_the_calls_of_all_threads_and_children_are_one_sequence(folder: Path) -> None:
    program = """
def work(name):
    for n in range(50):
        os.pwrite(file, b'x', n)
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
child = os.fork()
if child == 0:
    work(9)
    os._exit(0)
os.waitpid(child, 0)
"""
    seen: list[Call] = []

    def decide(call: Call) -> Fate:
        seen.append(call)
        return PASS

    assert run(folder, program, decide) == 0
    assert len([call for call in seen if call.name == "pwrite64"]) == 250
    assert len({call.thread for call in seen}) == 5
    assert {call.path for call in seen} == {"old"}


def test_calls_on_other_files_are_not_asked_about(folder: Path, tmp_path: Path) -> None:
    seen: list[Call] = []

    def decide(call: Call) -> Fate:
        seen.append(call)
        return Fate(Deed.FAIL, code=errno.EIO)

    beside = tmp_path / "watched-not"
    assert run(folder, f"open({str(beside)!r}, 'w').write('free')", decide) == 0
    assert beside.read_text() == "free"
    assert [call for call in seen if call.name != LISTEN] == []


@pytest.mark.parametrize("lasting", Lasting)
def test_a_plan_strikes_at_the_nth_call_once_or_from_then_on(
    folder: Path, lasting: Lasting
) -> None:
    program = """
failed = 0
for n in range(10):
    try:
        os.pwrite(file, b'x', n)
    except OSError:
        failed += 1
sys.exit(failed)
"""
    fate = Fate(Deed.FAIL, code=errno.ENOSPC)
    fault = Fault(fate, 4, frozenset({"pwrite64"}), lasting)
    plan = Plan([fault], lambda fault: None)
    assert run(folder, program, plan.decide) == (1 if lasting is Lasting.ONCE else 7)
    assert plan.struck == [fault]
    assert "pwrite64 old: ENOSPC" in plan.story[-1]


def test_a_program_does_not_outlive_its_with_block(folder: Path) -> None:
    command = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(3600)"]
    with Interposed(command, folder, lambda call: PASS, log=subprocess.DEVNULL) as process:
        assert process.process.poll() is None
    assert process.process.returncode == -9
