"""An alarm that tells of something which still is goes away with it. Alarms about sources are in
test_source_alarms, those about parts in test_stream_thread, about directories in test_space_watch.
"""

from __future__ import annotations

import pytest

from dlog.faults.simulation.world import World
from dlog.limits import MIB
from dlog.ports import Severity
from dlog.services.housekeeper import Housekeeper
from dlog.services.live_state import config_of_ended
from tests.simulated_logger import PHOTONS, life_of, running, send

SECOND_NS = 1_000_000_000


def raised(world: World) -> set[str]:
    return {alarm.name for alarm in life_of(world).alarms.raised()}


def test_a_disk_is_low_until_there_is_space() -> None:
    world = running(low_water_bytes=16 * MIB, resume_bytes=32 * MIB)
    disk = world.disks[0]
    disk.fill()
    world.run_until(lambda: "disk-low" in raised(world), "the disk is not low")
    disk.others_bytes -= 64 * MIB
    world.run_until(lambda: "disk-low" not in raised(world), "the alarm stands")


def test_each_disk_that_is_low_is_named_while_it_is() -> None:
    world = running(directories=2, low_water_bytes=16 * MIB, resume_bytes=32 * MIB)
    alarms = life_of(world).alarms

    def low() -> list[bool]:
        texts = [alarm.text for alarm in alarms.raised() if alarm.name == "disk-low"]
        return [f"disk{number}:data is below" in "".join(texts) for number in (0, 1)]

    world.disks[0].fill()
    world.run_until(lambda: low() == [True, False], "the first one is not named")
    world.disks[1].fill()
    world.run_until(lambda: low() == [True, True], "the second one is not named")
    world.disks[0].others_bytes -= 64 * MIB
    world.run_until(lambda: low() == [False, True], "the first one is still named")
    world.pump(300)
    (alarm,) = [alarm for alarm in alarms.raised() if alarm.name == "disk-low"]
    assert alarm.count == 3


def test_a_journal_is_full_until_it_takes_a_commit() -> None:
    world = running()
    source = world.source("router-1")
    send(source, 1)
    world.settle()
    world.fill_journal(10 * SECOND_NS)
    send(source, 2)
    world.run_until(lambda: raised(world) == {"journal-full", "disk-low"}, "it is not full")
    world.run_until(lambda: not raised(world), "the alarms stand")


def test_the_lock_of_the_journal_is_missing_until_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = running()
    journal = life_of(world).journal
    monkeypatch.setattr(journal, "check_place", lambda: "lock.mdb is gone")
    world.run_until(lambda: "journal-lock" in raised(world), "it is not missed")
    monkeypatch.undo()
    world.run_until(lambda: "journal-lock" not in raised(world), "the alarm stands")


def test_a_directory_is_left_out_until_nothing_is_open_in_it() -> None:
    streams: dict[str, dict[str, object]] = {PHOTONS: {"directories": [1]}}
    world = running(streams=streams, directories=2, drain_seconds=0.0)
    life = life_of(world)
    life.alarms.raise_alarm("left-out disk1", Severity.WARNING, "why")
    housekeeper = Housekeeper(
        life.journal,
        life.storage,
        lambda record: config_of_ended(life.journal, record),
        life.commander.watches,
        ["disk1"],
    )
    housekeeper.step()
    assert "left-out disk1" in raised(world)
    assert world.do("STOP RUN", run=7).ok
    housekeeper.step()
    assert "left-out disk1" not in raised(world)
