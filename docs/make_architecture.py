"""Writes the tables of docs/ARCHITECTURE.md that the code knows better: what a restart does, and
what the journal holds. They stand between `<!-- begin NAME -->` and `<!-- end NAME -->`.

    python docs/make_architecture.py            writes them
    python docs/make_architecture.py --check    exits 1 where they are not what would be written
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dlog.core import journal_records as records
from dlog.core.journal_records import (
    AcknowledgedRecord,
    BootRecord,
    ClosedFileRecord,
    CommandRecord,
    CountRecord,
    EndedRunRecord,
    FileRecord,
    JournalMeta,
    LoggerRecord,
    MarkRecord,
    OperationRecord,
    QuarantineRecord,
    RunRecord,
    SessionRecord,
    StreamRecord,
)
from dlog.core.replay import TABLE, Action, OnDisk, decide
from dlog.core.states import FileState
from dlog.limits import OPERATIONS_KEPT_MAX
from dlog.model.ids import (
    CommandId,
    FileKey,
    FileKind,
    MarkKey,
    PartNumber,
    RunNumber,
    SessionId,
    StreamKey,
    StreamName,
)

TARGET: Final = Path(__file__).resolve().parent / "ARCHITECTURE.md"

_SESSION: Final = SessionId(bytes.fromhex("9c") + bytes(14) + bytes.fromhex("41"))
_RUN: Final = RunNumber(7)
_STREAM: Final = StreamName("photons")
_FILE: Final = FileKey(_RUN, _STREAM, FileKind.EVENTS, PartNumber(1))
_SHORT: Final = re.compile(rb"9c0{28}41")

# prefix: (an example of a key, record, what it is for)
_JOURNAL: Final[Mapping[bytes, tuple[bytes, type | None, str]]] = {
    records.META: (records.META, JournalMeta, "schema version, who the logger is, its directories"),
    records.BOOT: (records.BOOT, BootRecord, "how often it was started, and whether it ended well"),
    records.LOGGER: (
        records.LOGGER, LoggerRecord, "its state, and what INIT and CONFIGURE gave it",
    ),
    records.RUNS: (records.run_key(_RUN), RunRecord, "a live run with its frozen configuration"),
    records.STREAMS: (
        records.stream_key(StreamKey(_RUN, _STREAM)), StreamRecord,
        "a live stream: next block, next parts, what is late, who counts anew",
    ),
    records.FILES: (
        records.file_key(_FILE), FileRecord, "a file that is not CLOSED: D, R, chain, totals",
    ),
    records.SESSIONS: (
        records.session_key(_SESSION), SessionRecord,
        "a source's session: cumulative acknowledgement, refusals it has not heard of, what was "
        "diverted",
    ),
    records.MARKS: (
        records.mark_key(MarkKey(_SESSION, _RUN, _STREAM)), MarkRecord,
        "watermark: the highest batch of the session stored for that run and stream, as sent",
    ),
    records.COUNTS: (
        records.count_key("collector-1", _RUN, _STREAM), CountRecord,
        "counters of a source in a live stream",
    ),
    records.OPERATIONS: (
        records.operation_key(41), OperationRecord, "a file operation: announced, not done",
    ),
    records.QUARANTINE: (
        records.quarantine_key("quarantine/7_photons_events_0001_8192_3.tail"), QuarantineRecord,
        "a tail that was saved aside, and what must be stored before it goes",
    ),
    records.ACKNOWLEDGED: (
        records.acknowledged_key("file runs/7/photons_0001.dlog"), AcknowledgedRecord,
        "an alarm that was acknowledged and that a start would raise again",
    ),
    records.DONE_OPERATIONS: (
        records.done_operation_key(40), OperationRecord, "a file operation that was done",
    ),
    records.COMMANDS: (
        records.command_key(CommandId(bytes.fromhex("5e"), 12)), CommandRecord,
        "a command of COOR with its answer",
    ),
    records.COMMAND_ORDER: (
        records.command_order_key(12), None, "the key of that command, by age; oldest dropped",
    ),
    records.ENDED_RUNS: (
        records.ended_run_key(_RUN), EndedRunRecord, "the catalogue: a run that is over",
    ),
    records.CLOSED_FILES: (
        records.closed_file_key(_FILE), ClosedFileRecord, "the catalogue: a closed file",
    ),
}  # fmt: skip


def restart_table() -> str:
    """What is done with each file that is not CLOSED."""
    states = [state for state in FileState if any(s is state for s, _ in TABLE)]
    lines = [
        "| on disk | " + " | ".join(states) + " |",
        "|---|" + "---|" * len(states),
    ]
    for disk in OnDisk:
        cells = [_word(TABLE[state, disk]) for state in states]
        lines.append(f"| {disk.value} | " + " | ".join(cells) + " |")
    lines += ["", *(f"* **{_word(action)}**: {action.value}" for action in Action)]
    creating = [_word(TABLE[FileState.CREATING, disk]) for disk in OnDisk]
    assert creating == [_word(decide_failed(disk)) for disk in OnDisk]
    lines += ["", "An ERROR with nothing durable is a creation that failed: it is as CREATING."]
    return "\n".join(lines)


def decide_failed(disk: OnDisk) -> Action:
    """What is done with a file whose creation failed."""
    return decide(FileState.ERROR, disk, 0)


def _word(action: Action) -> str:
    return action.name.lower().replace("_", " ")


def journal_table() -> str:
    """Every key of the journal, with its record."""
    prefixes = [
        value for name, value in vars(records).items() if name.isupper() and type(value) is bytes
    ]
    lines = ["| key, for example | record | is |", "|---|---|---|"]
    for prefix in prefixes:
        key, record, what = _JOURNAL[prefix]
        live = "" if prefix in records.LIVE_PREFIXES else " †"
        shown = _SHORT.sub("9c…41".encode(), key).decode()
        fields = f"`{record.__name__}`" if record is not None else "a key"
        lines.append(f"| `{shown}`{live} | {fields} | {what} |")
    lines += [
        "",
        "† No live state: a restart reads none of it, so that its time does not grow with the "
        f"archive; save the end of `done/`, which keeps the last {OPERATIONS_KEPT_MAX:,}.",
    ]
    return "\n".join(lines)


SECTIONS: Final = {"restart": restart_table, "journal": journal_table}


def document(text: str) -> str:
    """The document with its tables as they should be."""
    for name, make in SECTIONS.items():
        begin, end = f"<!-- begin {name} -->\n", f"\n<!-- end {name} -->"
        before, found, rest = text.partition(begin)
        _, also, after = rest.partition(end)
        if not (found and also):
            raise SystemExit(f"{TARGET}: no {begin.strip()} and {end.strip()}")
        text = before + begin + make() + end + after
    return text


def main(arguments: list[str]) -> int:
    text = TARGET.read_text()
    fresh = document(text)
    if arguments == ["--check"]:
        if text != fresh:
            sys.stderr.write(f"{TARGET}: not what docs/make_architecture.py writes\n")
        return int(text != fresh)
    TARGET.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
