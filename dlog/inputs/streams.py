"""Which stream each event of a replay goes to, by a rule that the user gives. It owns the rules and
the names that they make, and never sends.

A rule is one of the following; control records go to the stream `control` under each of them.

| rule | as typed | streams |
|---|---|---|
| one stream | `photons` | `photons`; without any rule `events` |
| size classes, exact | `exact` | `size-224`, `size-2288`, ...: one for each size there is |
| size classes, by limits | `1000,3000` | `up-to-1000`, `up-to-3000`, `over-3000` |
| size classes, named | `small=1000,middle=3000,large` | `small`, `middle`, `large` |
| label, the part before | `_` | `B06-W0212` of the label `B06-W0212_2014-04-02-140255.txt` |
| label, by a pattern | `[^_]*_(....)` | what the group matched: `2014`, called `s-2014` |
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from dlog.inputs.event import EventKind, InputEvent, InputItem, Torn
from dlog.inputs.plugin import InputUsageError
from dlog.limits import EVENT_BYTES_MAX, STREAMS_PER_RUN_MAX
from dlog.model.ids import StreamName, valid_stream_name

CONTROL_STREAM: Final = StreamName("control")
DEFAULT_STREAM: Final = "events"
EXACT_SIZES: Final = "exact"
LIMIT: Final = re.compile(r"[0-9]{1,9}")

# Pure: the same event always goes to the same stream.
StreamRule: TypeAlias = Callable[[InputEvent], StreamName]


def stream_rule(
    *, stream: str | None = None, size_classes: str | None = None, by_label: str | None = None
) -> StreamRule:
    """The rule of a replay, of which at most one is given, as typed."""
    if sum(given is not None for given in (stream, size_classes, by_label)) > 1:
        raise InputUsageError("streams are chosen by a name, by size classes or by label: say one")
    if size_classes is not None:
        rule = _exact_size if size_classes == EXACT_SIZES else _by_size_class(size_classes)
    elif by_label is not None:
        rule = _by_label(by_label)
    else:
        rule = _one_stream(DEFAULT_STREAM if stream is None else stream)

    def stream_of(event: InputEvent) -> StreamName:
        return CONTROL_STREAM if event.kind is EventKind.CONTROL else rule(event)

    return stream_of


def assigned(
    items: Iterable[InputItem], rule: StreamRule
) -> Iterator[tuple[StreamName, InputEvent] | Torn]:
    """Each event with its stream. A rule that makes more streams than a run can have is refused."""
    seen: set[StreamName] = set()
    for item in items:
        if isinstance(item, Torn):
            yield item
            continue
        stream = rule(item)
        seen.add(stream)
        if len(seen) > STREAMS_PER_RUN_MAX:
            raise InputUsageError(
                f"more than {STREAMS_PER_RUN_MAX} streams, the limit of a run: "
                "give the size classes limits, or the labels a shorter pattern"
            )
        yield stream, item


def _one_stream(name: str) -> StreamRule:
    stream = _event_stream(name)
    return lambda _event: stream


def _exact_size(event: InputEvent) -> StreamName:
    return StreamName(f"size-{event.size_bytes}")


def _by_size_class(text: str) -> StreamRule:
    """`1000,3000` or `small=1000,middle=3000,large`: rising limits, then the rest."""
    limits: list[int] = []
    names: list[str] = []
    *classes, last = text.split(",")
    for size_class in classes:
        _add_size_class(size_class, limits, names)
    if LIMIT.fullmatch(last) or "=" in last:
        _add_size_class(last, limits, names)
        last = f"over-{limits[-1]}"
    names.append(last)
    streams = [_event_stream(name) for name in names]
    if not limits or limits != sorted(set(limits)) or len(set(streams)) < len(streams):
        raise InputUsageError(
            f"size classes {text!r}: limits must rise and names differ, as in 1000,3000"
            f" or small=1000,large; {EXACT_SIZES} makes a class of each size"
        )
    return lambda event: streams[bisect.bisect_left(limits, event.size_bytes)]


def _add_size_class(text: str, limits: list[int], names: list[str]) -> None:
    name, equals, limit = text.rpartition("=")
    if LIMIT.fullmatch(limit) is None or not 1 <= int(limit) <= EVENT_BYTES_MAX:
        raise InputUsageError(
            f"size class {text!r}: its limit must be a number of bytes from 1 to {EVENT_BYTES_MAX}"
        )
    limits.append(int(limit))
    names.append(name if equals else f"up-to-{limit}")


def _by_label(text: str) -> StreamRule:
    """The part of the label before `text`, or what the group of `text` matches."""
    pattern = _label_pattern(text)

    def stream_of(event: InputEvent) -> StreamName:
        match = pattern.match(event.label)
        if match is None or match[1] is None:
            raise InputUsageError(f"label {event.label!r} does not fit the rule {text!r}")
        part = match[1]
        # A stream's name begins with a letter, a chip's may well begin with a digit.
        return _event_stream(f"s-{part}" if part[:1].isdigit() else part)

    return stream_of


def _label_pattern(text: str) -> re.Pattern[str]:
    if not text:
        raise InputUsageError("a rule by label needs what ends the stream's part of it, as in _")
    try:
        pattern = re.compile(text if "(" in text else f"(.*?){re.escape(text)}", re.DOTALL)
    except re.error as error:
        raise InputUsageError(f"label pattern {text!r}: {error}") from error
    if pattern.groups != 1:
        raise InputUsageError(f"label pattern {text!r} must have one group, the stream's name")
    return pattern


def _event_stream(name: str) -> StreamName:
    if not valid_stream_name(name):
        raise InputUsageError(
            f"no stream can be called {name!r}: a letter, then letters, digits, _ and -, 32 at most"
        )
    if name == CONTROL_STREAM:
        raise InputUsageError(f"stream {CONTROL_STREAM} is kept for the control records")
    return StreamName(name)
