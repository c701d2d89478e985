"""Tables on terminals of any width: no number is cut, and none of them is left out."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console, RenderableType

from dlog.cli import demo_display, faults, ls, monitor, status
from dlog.cli.tables import Parts, Table
from dlog.core.event_file import Totals
from dlog.core.notices import Desk
from dlog.demo.story import Outcome, StreamOutcome
from dlog.faults.simulation.campaign import Report
from dlog.model.messages import AlarmState, MonitorReport
from dlog.model.status import (
    ConnectionStatus,
    Counts,
    DiskStatus,
    FileStatus,
    LoggerStatus,
    RunStatus,
    Status,
    StreamStatus,
    status_data,
)
from dlog.recovery.catalogue import Catalogue, FileEntry, RunEntry
from dlog.recovery.report import summarise

WIDTHS = (40, 60, 80, 100, 160)
BIG = 1_234_567_890_123
STREAMS = ["waveforms_of_the_inner_detector", "z", "a", *(f"stream_{i}" for i in range(40))]


def drawn(what: RenderableType, width: int, *, copied: bool = False) -> str:
    out = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    out.print(what, soft_wrap=copied)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def numbers_in(text: str) -> set[str]:
    return set(re.findall(r"[0-9][0-9,.:–-]*[0-9]|[0-9]", text))


def big_status() -> Status:
    streams = [
        StreamStatus(
            name=name,
            counts=Counts(received=BIG + i, stored=BIG - i, pending=i, refused={"aborted": BIG}),
            payload_bytes=BIG * 1000,
            files=[
                FileStatus(path=f"runs/7/{name}_{n:04}.dlog", state="END", durable_bytes=BIG)
                for n in range(1, 6)
            ],
        )
        for i, name in enumerate(STREAMS)
    ]
    long_name = "collector-of-the-inner-detector"
    return Status(
        time_ns=10**18,
        monotonic_ns=10**9,
        logger=LoggerStatus(name="daq", state="RUNNING", since_ns=10**17, boot=3, host="daq1"),
        runs=[RunStatus(run=4_294_967_295, state="ACTIVE", since_ns=10**17, streams=streams)],
        disks=[DiskStatus(path="/data/" + "deep/" * 20, free_bytes=BIG, total_bytes=BIG * 9)],
        connections=[
            ConnectionStatus(
                kind="events", state="connected", name=long_name, host="daq7", process=12345,
                messages_in=BIG, bytes_in=BIG, reconnects=17, skipped={"version": 5},
            )
        ],
        alarms=[
            AlarmState(
                name="garbage 4294967295 z", severity="warning", since_ns=10**17, count=BIG,
                text="events 1 to 1234567890 came after their range was closed at 9876543210",
            )
        ],
    )  # fmt: skip


def overview() -> RenderableType:
    desk = Desk()
    for name in ("one", "a logger with a long name"):
        data = status_data(big_status())
        desk.take(MonitorReport(logger=name, uuid=name, number=1, time_ns=1, status=data), 1)
    return monitor._overview(desk)


def big_run() -> RunEntry:
    files = [
        FileEntry(
            path=f"/data/daq/runs/4294967295/{name}_0001.dlog", run=4294967295, stream=name,
            kind="events", part=1, state="CLOSED", size_bytes=BIG, created_ns=10**18,
            totals=Totals(events=BIG, first_event=10**17, last_event=10**18),
        )
        for name in STREAMS
    ]  # fmt: skip
    return RunEntry(
        run=4294967295, state="ENDED", started_ns=10**18, ended_ns=10**18 + 10**13, events=BIG,
        payload_bytes=BIG, comment="first light", files=files,
    )  # fmt: skip


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(
    "made", [lambda: status.view(big_status()), overview], ids=["status", "monitor"]
)
def test_a_narrow_terminal_has_every_number_of_a_wide_one(
    made: Callable[[], RenderableType], copied: bool
) -> None:
    wide = numbers_in(drawn(made(), 10_000))
    assert len(wide) > 3
    for width in WIDTHS:
        text = drawn(made(), width, copied=copied)
        assert wide <= numbers_in(text), width
        if not copied:
            assert max(map(len, text.splitlines())) <= width


def _outcome() -> Outcome:
    stream = StreamOutcome(**dict.fromkeys(StreamOutcome.__struct_fields__, BIG))
    return Outcome(
        holds=True, problems=[], streams=dict.fromkeys(STREAMS, stream), pending_at_kill=0,
        answering_seconds=1.0, acknowledging_seconds=1.0, batches_resent=0,
        verified=summarise([]), total_seconds=1.0,
    )  # fmt: skip


COMMANDS: dict[str, Callable[[], None]] = {
    "ls": lambda: ls._show(Catalogue(data=["data"], journal=True, runs=[big_run()])),
    "faults": lambda: faults._table({"calm": Report(played=BIG, events=BIG)}),
    "demo": lambda: demo_display.Show(5, as_json=False)._table(_outcome()),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_what_a_command_prints_has_every_number_on_a_narrow_terminal(
    command: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dlog.cli.output as output

    def printed(width: int) -> str:
        out = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
        for module in (output, demo_display):
            monkeypatch.setattr(module, "console", lambda **_: out)
        command()
        assert isinstance(out.file, io.StringIO)
        return out.file.getvalue()

    wide = numbers_in(printed(10_000))
    assert f"{BIG:,}" in wide
    for width in WIDTHS:
        assert wide <= numbers_in(printed(width)), width


def test_a_pipe_has_the_whole_table_without_colours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    status.show(status_data(big_status()))
    said = capsys.readouterr().out
    assert "\x1b" not in said
    (line,) = (line for line in said.splitlines() if line.startswith(STREAMS[0]))
    assert line.endswith("END 1.1 TiB and 2 more")


def test_streams_keep_their_order() -> None:
    for width in (40, 10_000):
        text = drawn(status.view(big_status()), width)
        places = [re.search(rf"^{name}\b", text, re.M) for name in STREAMS]
        begins = [place.start() for place in places if place is not None]
        assert len(begins) == len(STREAMS)
        assert begins == sorted(begins)


def test_a_row_that_does_not_fit_is_told_by_title_and_value() -> None:
    shown = Table("stream", "in", "", "acknow-\nledged", "", numbers=("in", "acknow-\nledged"))
    shown.add_row("photons", "1,000", "2.0 KiB", "900", "")
    assert drawn(shown, 30) == "photons  in 1,000 2.0 KiB\n  acknowledged 900\n"


def test_names_are_no_markup_in_any_layout() -> None:
    for width in (20, 10_000):
        shown = Table("stream", "what")
        shown.add_row("[red]x[/] :warning:", "[init]")
        text = drawn(shown, width)
        assert "[red]x[/] :warning:" in text
        assert "[init]" in text


def test_a_part_too_long_for_a_line_is_broken_between_words_or_stays_whole() -> None:
    parts = Parts(["run 7", "12 345 " * 5, "/a/path/without/spaces"])
    assert max(map(len, drawn(parts, 12).splitlines())) <= 12
    assert "/a/path/without/spaces" in drawn(parts, 12, copied=True)


def test_no_parts_are_no_line() -> None:
    assert drawn(Parts(["", ""]), 40) == ""
