"""A bug at full speed: the logger ends with a FAILURE, and what goes on until it has ended tells of
nothing that is not stored. The next start goes on with the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.test_full_load import CONFIGURATION, RUN, flood, goes_on
from tests.rig.commands import environment_with
from tests.rig.exactly_once import finish
from tests.rig.processes import NewLogger

pytestmark = pytest.mark.long

# No thread can be started for a sync, once, in the middle of the turn of whoever wanted it.
BUG = """
import os, threading
from dlog.adapters.write_behind import WorkThreads

begin = WorkThreads.begin

def begin_once_not(self, *args):
    if threading.current_thread().name == {who!r} and os.path.exists({flag!r}):
        os.unlink({flag!r})
        raise RuntimeError("can't start new thread")
    return begin(self, *args)

WorkThreads.begin = begin_once_not
"""


@pytest.mark.parametrize("who", ["event server", f"stream {RUN}/a"])
def test_a_turn_that_ends_in_the_middle_loses_nothing(
    new_logger: NewLogger, tmp_path: Path, who: str
) -> None:
    flag = tmp_path / "flag"
    bug = environment_with(tmp_path / "site", BUG.format(who=who, flag=str(flag)))
    logger = new_logger(CONFIGURATION).start(env=bug)
    floods = flood(logger)
    flag.touch()
    assert logger.ended() == 70
    assert "can't start new thread" in logger.log()
    logger.start(auto=False, state="RUNNING")
    goes_on(floods)
    finish(logger, *floods)
