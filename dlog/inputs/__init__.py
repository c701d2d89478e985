'''The input formats of `dlog send`: each turns a file or a folder into the events that it replays.

It owns what a format is and how one is found; it never sends, and never decides on a run or on an
event number.

A format is a small plug-in, an object of the `Input` protocol. It says which paths look like its
own, and yields what stands in one of them, in order:

* `InputEvent(EventKind.EVENT, label, time_ns, payload)`: one event of the detector. `label` names
  what it is (a transition, a file) and may choose its stream; `time_ns` is its time since 1970 in
  nanoseconds, or None where the format knows none; `payload` is sent as it is.
* the same with `EventKind.CONTROL`: a record of the run control between the events. These go, in
  order, to the stream `control`.
* `Torn(offset_bytes, size_bytes, declared_bytes, reason)`: bytes that are no whole event. They are
  reported and not sent, and nothing comes after them.

What every format promises:

1. It streams: one event in memory, never the file. No length from a file is believed before it has
   been held against what is there and against `EVENT_BYTES_MAX`.
2. It is deterministic: the same path and options give the same events in the same order, because
   a replay that broke off goes on where it stopped.
3. The payloads in order, and the torn bytes behind them, are the file, byte for byte.
4. It raises `FormatError` (what was wrong, and at which byte) where a file is not of its format,
   and `InputUsageError` for an option that cannot be; `opened` does the rest, see below.

To add one, write a module:

    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dlog.inputs import EventKind, InputEvent, Torn, opened


    class Paragraphs:
        """Text whose events are separated by an empty line."""

        name = "paragraphs"
        options: Mapping[str, str] = {"separator": "the line between two events (default: empty)"}

        def describe(self) -> str:
            return "text, an empty line between two events"

        def recognise(self, path: Path) -> bool:
            return path.suffix == ".par"

        def events(self, path: Path, options: Mapping[str, str]) -> Iterator[InputEvent | Torn]:
            separator = options.get("separator", "").encode() + b"\\n"
            with opened(path) as recording:
                lines: list[bytes] = []
                while line := recording.line():
                    lines.append(line)
                    if line == separator:
                        yield InputEvent(EventKind.EVENT, path.name, None, b"".join(lines))
                        lines.clear()
                if lines:
                    yield InputEvent(EventKind.EVENT, path.name, None, b"".join(lines))

and name it in your package's `pyproject.toml`, under the name that `--format` takes:

    [project.entry-points."dlog.inputs"]
    paragraphs = "my_package.paragraphs:Paragraphs"

`opened` (in `recording`) opens a regular file for reading, refuses an empty one, bounds every
read, and turns the system's errors into `StorageError` with path and offset. `recognise` is asked
about a folder or a file that is not empty, and decides by the name or by `first_bytes(path)`. An
installed format goes before one of ours that recognises the same path; if two are left, the user
is asked for `--format`. Options are typed NAME=VALUE; one that `options` does not name is refused
before `events` is called, and every value is the format's own to check.
'''

from __future__ import annotations

from dlog.inputs.catalogue import Catalogue, installed
from dlog.inputs.event import EventKind, InputEvent, InputItem, Torn
from dlog.inputs.plugin import Input, InputBroken, InputUsageError, parsed_options
from dlog.inputs.recording import Recording, first_bytes, opened
from dlog.inputs.streams import CONTROL_STREAM, StreamRule, assigned, stream_rule

__all__ = [
    "CONTROL_STREAM",
    "Catalogue",
    "EventKind",
    "Input",
    "InputBroken",
    "InputEvent",
    "InputItem",
    "InputUsageError",
    "Recording",
    "StreamRule",
    "Torn",
    "assigned",
    "first_bytes",
    "installed",
    "opened",
    "parsed_options",
    "stream_rule",
]
