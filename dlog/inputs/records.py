"""Records of one fixed size, each an event. It owns the cutting and never what stands in one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from dlog.inputs.event import EventKind, InputEvent, InputItem, Torn
from dlog.inputs.plugin import InputUsageError
from dlog.inputs.recording import opened
from dlog.limits import EVENT_BYTES_MAX

RECORD_BYTES: Final = re.compile(r"[0-9]{1,9}")


class Records:
    """An event is a record of `size` bytes; a short one at the end is torn."""

    name = "records"
    options: Mapping[str, str] = {"size": "bytes of a record; must be given"}

    def describe(self) -> str:
        return "records of one fixed size, each an event (option size)"

    def recognise(self, path: Path) -> bool:
        # Any file could be one: nothing in it says what the size is.
        return False

    def events(self, path: Path, options: Mapping[str, str]) -> Iterator[InputItem]:
        size_bytes = _record_bytes(options)
        label = path.name
        with opened(path) as recording:
            while recording.left_bytes:
                start = recording.offset_bytes
                record = recording.take(size_bytes)
                if len(record) < size_bytes:
                    yield Torn(start, len(record), size_bytes, "the file ends inside a record")
                    return
                yield InputEvent(EventKind.EVENT, label, None, record)


def _record_bytes(options: Mapping[str, str]) -> int:
    given = options.get("size", "")
    if not given:
        raise InputUsageError("format records needs the size of a record: size=BYTES")
    if RECORD_BYTES.fullmatch(given) is None or not 1 <= int(given) <= EVENT_BYTES_MAX:
        raise InputUsageError(
            f"format records: size={given} is not a number of bytes from 1 to {EVENT_BYTES_MAX}"
        )
    return int(given)
