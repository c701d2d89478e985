"""A FAILURE that leaves the journal working, at full speed: the logger begins anew, its runs have
FAILED, and what was acknowledged stands once."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

import dlog
from dlog.errors import EventsRefused
from tests.end_to_end.test_full_load import CONFIGURATION, RUN, flood, goes_on
from tests.rig.commands import environment_with
from tests.rig.exactly_once import assert_acknowledged_once, finish
from tests.rig.processes import NewLogger
from tests.rig.sources import Flood
from tests.waiting import LONG, until

pytestmark = pytest.mark.long

# A bug, as there is none to be had: a stream's thread dies once, when the file is there.
BUG = """
import os
from dlog.services.stream_thread import StreamWriter

works = StreamWriter.step

def step(self, *, block=False):
    if self.key.run == {run} and os.path.exists({flag!r}):
        os.unlink({flag!r})
        raise RuntimeError("a bug")
    works(self, block=block)

StreamWriter.step = step
"""


@pytest.mark.parametrize("state", ["configured", "initialized"])
def test_a_thread_that_dies_at_full_speed_fails_the_run_and_the_logger_begins_anew(
    new_logger: NewLogger, tmp_path: Path, state: str
) -> None:
    flag = tmp_path / "flag"
    bug = environment_with(tmp_path / "site", BUG.format(run=RUN, flag=str(flag)))
    logger = new_logger("")
    logger.configure_with(
        f'[logger]\ndata = ["{logger.data}"]\non_failure = "{state}"\n{CONFIGURATION}'
    )
    logger.start(env=bug)
    floods = flood(logger)
    pid = logger.pid
    flag.touch()
    # --auto configures it again by itself.
    until(lambda: "begin anew" in logger.log(), "the failure")
    logger.wait_ready({"CONFIGURED"})
    assert logger.pid == pid
    assert logger.ended_run(RUN).state == "FAILED"
    # What was under way for the run is taken up, as orphans, with the next one.
    logger.start_run(RUN + 1)
    for each in floods:
        each.halt(run_is_over=True)
        with contextlib.suppress(EventsRefused):  # what had not left the source
            each.source.close(LONG)
    assert_acknowledged_once(logger.data, *floods)
    in_its_files = sum(len(block) for block in dlog.read(logger.data / "runs" / str(RUN)).blocks())
    assert sum(count.stored for count in logger.counts(RUN).values()) == in_its_files
    after = Flood(logger.data, 0, RUN + 1)
    after.start()
    goes_on([after])
    finish(logger, after)
