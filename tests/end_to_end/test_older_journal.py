"""A copy of the journal of an hour ago in its place: it is seen, told, and harms nothing."""

from __future__ import annotations

import shutil

import pytest

import dlog
from dlog.adapters.notice_links import NoticeServer
from dlog.model.messages import AlarmReport
from tests.rig.commands import run_dlog
from tests.rig.processes import QUICK_INIT, NewLogger
from tests.waiting import until


@pytest.mark.long
def test_a_start_on_an_older_journal_is_refused_with_an_alarm_and_a_rebuild_mends_it(
    new_logger: NewLogger,
) -> None:
    server = NoticeServer("tcp://127.0.0.1:*")
    alarm_server = f'alarm_server = "{server.address}"\n'
    logger = new_logger(
        QUICK_INIT + alarm_server + '[streams.a]\nreserve_bytes = "1 MiB"\n'
    ).start()
    logger.start_run(7)
    source = dlog.Source(logger.data, name="router-1", run=7)
    source.send("a", b"one")
    source.flush(30)
    older = logger.folder / "older"
    shutil.copytree(logger.data / "journal", older)
    for number in range(20):
        source.send("a", b"%d" % number * 500)
        source.flush(30)
    logger.kill()
    journal = logger.data / "journal"
    shutil.rmtree(journal)
    shutil.copytree(older, journal)
    files = {p: p.read_bytes() for p in logger.data.rglob("*.dlog.part")}

    for _ in range(2):  # whatever supervises it starts it again
        assert logger.spawn().wait(60) == 70
        assert "the journal is an older copy" in logger.log()
        assert {p: p.read_bytes() for p in logger.data.rglob("*.dlog.part")} == files
    told: list[AlarmReport] = []

    def raised() -> bool:
        told.extend(r for r in server.receive(100) if isinstance(r, AlarmReport))
        return any("older copy" in alarm.text for report in told for alarm in report.raised)

    until(raised, "an alarm of the refused start")
    verified = run_dlog("verify", logger.data)
    assert verified.returncode == 5
    assert b"older copy" in verified.stdout

    assert run_dlog("journal", "rebuild", logger.data).returncode == 0
    logger.start(auto=False, state="RUNNING")
    source.send("a", b"last")
    source.flush(60)
    logger.stop_run(7)
    source.close(30)
    with dlog.read(logger.data / "runs" / "7") as reader:
        assert len(list(reader)) == 22
    server.close()
