"""Where a source finds its logger: a data directory that cannot be looked into is asked again."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import dlog
from dlog.adapters.coor_link import CoorClient, NoAnswer
from dlog.adapters.logger_address import LOGGER_FILE, event_address
from tests.scripted_logger import LONG, ScriptedLogger
from tests.waiting import until


@pytest.fixture
def logger() -> Iterator[ScriptedLogger]:
    made = ScriptedLogger()
    yield made
    made.close()


def write_address(data: Path, address: str) -> None:
    about = {"name": "t", "uuid": "", "pid": 1, "boot": 1, "control": "ipc://x", "coor_listen": ""}
    (data / LOGGER_FILE).write_text(json.dumps({**about, "event_address": address}))


def make_unreadable(data: Path) -> None:
    """The data directory leads in a circle of links for a while: ELOOP for root too, where a
    missing permission would stop an ordinary user alone."""
    data.rename(data.with_name("elsewhere"))
    data.symlink_to(data)


def make_readable(data: Path) -> None:
    data.unlink()
    data.with_name("elsewhere").rename(data)


def test_a_source_waits_for_a_data_directory_that_cannot_be_read_and_keeps_its_events(
    tmp_path: Path, logger: ScriptedLogger
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with dlog.Source(data, name="s", run=7) as source:
        make_unreadable(data)
        source.send("a", b"kept")
        until(lambda: os.strerror(errno.ELOOP) in source.report().waiting, "why it waits")
        assert LOGGER_FILE in source.report().waiting
        make_readable(data)
        write_address(data, logger.address)
        source.flush(LONG)
    assert logger.stored[7, "a"] == [b"kept"]


def test_a_source_may_begin_while_its_data_directory_cannot_be_read(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    make_unreadable(data)
    find = event_address(data)
    with pytest.raises(OSError, match=LOGGER_FILE):
        find()
    make_readable(data)
    assert find() is None
    write_address(data, "tcp://127.0.0.1:5")
    assert find() == "tcp://127.0.0.1:5"


@pytest.mark.parametrize("made", ["nothing", "a file"])
def test_what_is_no_directory_is_refused(tmp_path: Path, made: str) -> None:
    place = tmp_path / "place"
    if made == "a file":
        place.write_text("")
    with pytest.raises(ValueError, match="neither an address"):
        event_address(place)


def test_a_coor_that_knows_its_logger_goes_on_while_the_directory_cannot_be_read(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_address(data, "")
    with CoorClient(data) as coor:
        for unreadable in (False, True):
            if unreadable:
                make_unreadable(data)
            with pytest.raises(NoAnswer, match=r"no logger (runs on|at ipc://x)"):
                coor.ask("STATUS", timeout=0.1)
