"""Any damage, several at once: it is found, it costs what it hits, and salvage invents nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from crc32c import crc32c
from hypothesis import example, given
from hypothesis import strategies as st

from dlog.recovery.facts import place_of
from dlog.recovery.judge import verify_file
from dlog.recovery.rebuild import Job, Mode, Outcome, recover_file
from dlog.recovery.report import Verdict
from dlog.recovery.verify import Task
from dlog.recovery.walk import FileChecksum
from tests.event_files import BuiltFile, build_file, make_events, make_key
from tests.recovery.damage import (
    DAMAGES,
    Damage,
    Damaged,
    flipped_bit,
    readable_events,
    sent_events,
    truncated,
    zeroed_sectors,
)


class Files(NamedTuple):
    """A closed file, the same one open, and the bytes of another stream's file."""

    closed: BuiltFile
    opened: BuiltFile
    other: bytes

    def __repr__(self) -> str:
        return "files"


@pytest.fixture(scope="module")
def files() -> Iterator[Files]:
    folder = Path(tempfile.mkdtemp())
    events = make_events(60, size=500)
    closed = build_file(folder / "photons_0001.dlog", events=events, events_per_block=8)
    opened = build_file(folder / "open" / "photons_0001.dlog.part", events=events,
                        events_per_block=8)  # fmt: skip
    other = build_file(folder / "electrons_0001.dlog", key=make_key(stream="electrons"),
                       events=events, events_per_block=8)  # fmt: skip
    yield Files(closed, opened, other.path.read_bytes())
    shutil.rmtree(folder)


def _damage(built: BuiltFile, other: bytes, damages: list[Damage], folder: Path) -> Damaged:
    damaged = Damaged(built, bytearray(built.path.read_bytes()), other)
    for damage in damages:
        damage(damaged)
    path = folder / built.path.name
    folder.mkdir(parents=True)
    path.write_bytes(damaged.content)
    if built.sidecar is not None:
        (folder / built.sidecar.name).write_bytes(built.sidecar.read_bytes())
    return damaged


def _recover(source: Path, output: Path, mode: Mode = Mode.SALVAGE) -> Outcome:
    job = Job(Task(place_of(source), None), output.parent, output.name)
    return recover_file(job, mode).outcome


@given(damages=st.lists(DAMAGES, min_size=1, max_size=4))
@example(damages=[flipped_bit(0.0, 0)])
@example(damages=[zeroed_sectors(0.0, 8), truncated(0.7)])
def test_damage_of_a_closed_file_is_always_found(files: Files, damages: list[Damage]) -> None:
    closed, other = files.closed, files.other
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "runs", "7")
        damaged = _damage(closed, other, damages, folder)
        report = verify_file(place_of(folder / closed.path.name))
        if not damaged.changed:
            assert report.verdict is Verdict.GOOD
            return
        assert report.verdict in (Verdict.DAMAGED, Verdict.UNSUPPORTED)
        if report.verdict is Verdict.DAMAGED and damaged.hit:
            # Found by the blocks themselves, not by the sidecar's checksum alone.
            assert any(f.kind != "sidecar" for f in report.findings)


@pytest.mark.long
@given(damages=st.lists(DAMAGES, min_size=1, max_size=4), closed_file=st.booleans())
def test_salvage_keeps_what_was_not_hit_and_invents_nothing(
    files: Files, damages: list[Damage], closed_file: bool
) -> None:
    built = files[0] if closed_file else files[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "runs", "7")
        damaged = _damage(built, files[2], damages, folder)
        before = (folder / built.path.name).read_bytes()
        output = folder / "out" / "photons_0001.dlog"
        outcome = _recover(folder / built.path.name, output)
        assert (folder / built.path.name).read_bytes() == before
        kept = {b.number for b in built.blocks} - damaged.hit
        if outcome is not Outcome.RECOVERED:
            # Where the header page is gone too, and all blocks, nothing can be kept.
            assert not kept or outcome is Outcome.UNSUPPORTED
            assert not output.exists()
            return
        events = readable_events(output)
        assert set(sent_events(built, kept)) <= set(events)
        assert set(events) <= set(sent_events(built))
        assert len(events) == len(set(events))
        assert verify_file(place_of(output)).verdict is Verdict.GOOD
        again = folder / "again" / "photons_0001.dlog"
        assert _recover(output, again) is Outcome.RECOVERED
        assert readable_events(again) == events


@given(damages=st.lists(DAMAGES, min_size=1, max_size=3))
def test_a_prefix_is_the_events_before_the_first_damage(
    files: Files, damages: list[Damage]
) -> None:
    opened = files[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "runs", "7")
        damaged = _damage(opened, files[2], damages, folder)
        output = folder / "out" / "photons_0001.dlog"
        if _recover(folder / opened.path.name, output, Mode.PREFIX) is not Outcome.RECOVERED:
            return
        events = readable_events(output)
        assert events == sent_events(opened)[: len(events)]
        unhurt = 0
        while unhurt < len(opened.blocks) and opened.blocks[unhurt].number not in damaged.hit:
            unhurt += 1
        assert len(events) >= sum(len(b.events) for b in opened.blocks[:unhurt])
        assert verify_file(place_of(output)).verdict is Verdict.GOOD


@given(content=st.binary(max_size=20_000), part=st.booleans())
def test_any_bytes_get_a_verdict_that_is_not_good(content: bytes, part: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("photons_0001.dlog.part" if part else "photons_0001.dlog")
        path.write_bytes(content)
        assert verify_file(place_of(path)).verdict is not Verdict.GOOD


@given(parts=st.lists(st.one_of(st.binary(max_size=50), st.integers(0, 200_000)), max_size=6))
def test_the_checksum_of_a_hole_is_that_of_its_zeros(parts: list[bytes | int]) -> None:
    checksum, whole = FileChecksum(lambda _count: None), b""
    for part in parts:
        if isinstance(part, int):
            checksum.zeros(part)
            whole += bytes(part)
        else:
            checksum.data(memoryview(part))
            whole += part
    assert checksum.value == crc32c(whole)
