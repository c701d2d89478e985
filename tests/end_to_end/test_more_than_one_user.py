"""Several accounts of one group run the logger in turn; others may look, or not even that."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import dlog
from tests.conftest import need_program
from tests.rig.commands import dlog_command, environment
from tests.rig.processes import QUICK_INIT, LoggerProcess, NewLogger
from tests.waiting import LONG

pytestmark = pytest.mark.long

GROUP = 2000
STREAM = "[streams.s]\npart_events = 100\n"
FIRST, SECOND, STRANGER = 1001, 1002, 1003


# Says why nothing moves, once it knows more than that nobody has answered.
SOURCE = """
import os, sys, time, dlog
source = dlog.Source(sys.argv[1], name="c", run=1)
while "denied" not in source.report().waiting:
    time.sleep(0.01)
print(source.report().waiting, flush=True)
os._exit(0)
"""


@pytest.fixture(autouse=True)
def _may_become_others() -> None:
    if os.geteuid():
        pytest.skip("only root may become another user")
    need_program("setpriv")


def as_user(uid: int, *, gid: int = GROUP, umask: int = 0o022) -> list[str]:
    """Before a command. It reads all files, so that the interpreter may stand anywhere; whether it
    may write is asked of each."""
    reads = "+dac_read_search"
    return [
        "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups",
        f"--bounding-set=-all,{reads}", f"--inh-caps=-all,{reads}", f"--ambient-caps=-all,{reads}",
        "/bin/sh", "-c", f'umask {umask:03o}; exec "$@"', "sh",
    ]  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    """That of the first user, where others may enter; pytest's own they may not."""
    made = Path(tempfile.mkdtemp(prefix="dlog-users-"))
    os.chown(made, FIRST, GROUP)
    made.chmod(0o2775)
    yield made
    shutil.rmtree(made)


def new(new_logger: NewLogger, folder: Path, keys: str = "") -> LoggerProcess:
    """A logger that is not started yet."""
    logger = new_logger("", name=str(folder))
    logger.configure_with(f'[logger]\ndata = ["{logger.data}"]\n{keys}\n{QUICK_INIT}\n{STREAM}')
    return logger


def modes(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")
    }


@pytest.mark.parametrize(
    ("keys", "umask"),
    [("", 0o002), (f'mode = "0660"\ngroup = "{GROUP}"', 0o077), ('mode = "0660"', 0o022)],
)
def test_the_next_member_of_the_group_goes_on_with_the_run(
    new_logger: NewLogger, folder: Path, keys: str, umask: int
) -> None:
    logger = new(new_logger, folder, keys).start(prefix=as_user(FIRST, umask=umask))
    logger.start_run(1)
    with dlog.Source(logger.data, name="c", run=1) as source:
        source.send("s", b"a")
        source.flush(LONG)
        logger.process.terminate()
        assert logger.ended() == 0
        logger.start(prefix=as_user(SECOND, umask=umask), state="RUNNING")
        for _ in range(250):
            source.send("s", b"b")
        source.flush(LONG)
    logger.stop_run(1)
    logger.start_run(2)
    logger.stop()
    # And back: what the second one made, the first one uses.
    logger.start(prefix=as_user(FIRST, umask=umask))
    logger.start_run(3)
    logger.stop()
    logger.assert_verified()
    assert len(list(dlog.read(logger.data / "runs/1"))) == 251
    assert {path.stat().st_gid for path in logger.data.rglob("*")} == {GROUP}


def test_each_file_has_the_mode_that_is_configured(new_logger: NewLogger, folder: Path) -> None:
    logger = new(new_logger, folder, f'mode = "0640"\ngroup = "{GROUP}"')
    socket = logger.folder / "events.sock"
    logger.configure_with(
        logger.config_file.read_text().replace(
            "[init]", f'[init]\nevent_address = "ipc://{socket}"'
        )
    )
    logger.start(prefix=as_user(FIRST, umask=0o077))
    logger.start_run(1)
    found = modes(logger.data)
    folders = {name for name in found if (logger.data / name).is_dir()}
    assert {found[name] for name in folders} == {0o2750}
    assert found["control.sock"] == stat.S_IMODE(socket.stat().st_mode) == 0o750
    assert socket.stat().st_gid == GROUP
    marks = {"dlog-created", "dlog-directory"}
    assert {found[name] for name in marks} == {0o440}
    assert {found[name] for name in {*found} - folders - marks - {"control.sock"}} == {0o640}
    with dlog.Source(f"ipc://{socket}", name="c", run=1) as source:
        source.send("s", b"a")
    logger.stop()
    closed = modes(logger.data / "runs/1")
    assert set(closed.values()) == {0o440}, closed


def test_a_directory_that_was_made_before_gets_the_mode_at_the_next_start(
    new_logger: NewLogger, folder: Path
) -> None:
    logger = new(new_logger, folder).start(prefix=as_user(FIRST, umask=0o077))
    logger.start_run(1)
    logger.process.terminate()
    assert logger.ended() == 0
    text = logger.config_file.read_text()
    logger.configure_with(text.replace("[init]", f'mode = "0660"\ngroup = "{GROUP}"\n[init]'))
    logger.start(prefix=as_user(FIRST, umask=0o077), state="RUNNING").process.terminate()
    assert logger.ended() == 0
    logger.start(prefix=as_user(SECOND, umask=0o077), state="RUNNING")
    logger.stop()
    logger.assert_verified()


def test_a_directory_that_one_may_not_write_is_named_with_its_owner(
    new_logger: NewLogger, folder: Path
) -> None:
    logger = new(new_logger, folder).start(prefix=as_user(FIRST))
    logger.stop()
    logger.spawn(prefix=as_user(SECOND), create=False)
    assert logger.ended() == 70
    assert (
        f"{logger.data} belongs to user 1001, group 2000, mode 2755; user 1002 may not write there"
    ) in logger.log()


def test_a_stranger_is_told_that_the_permission_is_missing(
    new_logger: NewLogger, folder: Path
) -> None:
    socket = folder / "events.sock"
    logger = new(new_logger, folder)
    logger.configure_with(
        logger.config_file.read_text().replace(
            "[init]", f'[init]\nevent_address = "ipc://{socket}"'
        )
    )
    logger.start(prefix=as_user(FIRST))
    logger.start_run(1)
    stranger = as_user(STRANGER, gid=STRANGER)
    asked = subprocess.run(
        [*stranger, *dlog_command("status", "-d", logger.data, "--timeout", LONG)],
        capture_output=True, text=True, timeout=LONG, env=environment(), check=False,
    )  # fmt: skip
    assert asked.returncode == 1
    assert asked.stderr == (
        f"dlog: the logger cannot be asked: {logger.data}/control.sock: permission denied for "
        "user 1003; it belongs to user 1001, group 2000, mode 0755\n"
    )
    waits = subprocess.run(
        [*stranger, sys.executable, "-c", SOURCE, str(logger.data)],
        capture_output=True, text=True, timeout=LONG, env=environment(), check=False,
    )  # fmt: skip
    assert f"{socket}: permission denied for user 1003" in waits.stdout
    logger.stop()
    asked = subprocess.run(
        [*stranger, *dlog_command("status", "-d", logger.data, "--timeout", LONG)],
        capture_output=True, text=True, timeout=LONG, env=environment(), check=False,
    )  # fmt: skip
    # Its socket is still there. Asking its owner would not help.
    assert asked.stderr.startswith(f"dlog: no logger runs on {logger.data}: process ")


def test_a_group_that_one_is_not_in_is_an_error_of_the_configuration(
    new_logger: NewLogger, folder: Path
) -> None:
    logger = new(new_logger, folder, 'group = "4321"')
    logger.spawn(prefix=as_user(FIRST), create=False)
    assert logger.ended() == 78
    assert "logger.group: user 1001 is not a member of group 4321" in logger.log()
