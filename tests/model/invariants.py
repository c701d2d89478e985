"""What must hold in every state of the protocol model, whatever was left out to reach it.

It reads journal and disk as a reader would; it knows no rule but where a reader stops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.model.states import Block, File, Journal, Part, Scenario, State

WILD = 50  # from here on, the numbers of the scenarios are wild
Event = tuple[int, int, int, int]  # source, batch, stream as sent, event number


def broken(scenario: Scenario, state: State) -> tuple[str, str] | None:
    """The first thing that does not hold: its kind (loss, duplicate, unsent, misfiled,
    deadlock) and the words. Most deadlocks are found by exploration alone."""
    journal = state.safe_journal or state.journal
    for event, times in Counter(_below_durable(scenario, journal, state.files)).items():
        if times > 1:
            return "duplicate", f"{_words(event)} stands {times} times below a committed D"
        if event[3] not in scenario.batches[event[0]][event[1] - 1].get(event[2], ()):
            return "unsent", f"{_words(event)} was never sent"
    for i, source in enumerate(state.sources):
        closed = journal.sessions[scenario.session_of(i)].closed
        if closed and source.phase in ("greeting", "open") and not _all_known(scenario, state, i):
            return "deadlock", f"the session of source {i}, which lives, is closed for good"
    durable = set(_below_durable(scenario, journal, state.files, on_disk=True))
    for event in _acknowledged(scenario, state):
        if event not in durable:
            return "loss", f"{_words(event)} is acknowledged and not durable below a committed D"
    for stream in journal.streams:
        garbage = any(part.kind == "garbage" and part.durable for part in stream.parts)
        if garbage and all(part.state in ("open", "end") for part in stream.parts):
            return "misfiled", "an event is in the garbage file, and no range was closed"
    for event in _in_garbage(journal, state.files):
        if not _may_be_late(scenario, event):
            return "misfiled", f"{_words(event)} is in the garbage file, and was not late"
    for event, times in Counter(_in_files_alone(state)).items():
        if times > 1:
            return "duplicate", f"{_words(event)} stands {times} times in the files, read alone"
    return None


def _in_garbage(journal: Journal, files: tuple[tuple[File, ...], ...]) -> Iterator[Event]:
    for stream, of_stream in zip(journal.streams, files, strict=True):
        for part, file in zip(stream.parts, of_stream, strict=False):
            if part.kind == "garbage":
                yield from _events(file.blocks[: part.durable], on_disk=False)


def _may_be_late(scenario: Scenario, event: Event) -> bool:
    """Whether its source had sent a higher number before, that is not a wild one; numbers from
    which a counter begins anew are never late."""
    source, batch, stream, number = event
    before = [b.get(stream, ()) for b in scenario.batches[source][:batch]]
    return number > 1 and any(number < other < WILD for events in before for other in events)


def quiet(scenario: Scenario, state: State) -> bool:
    """Every source that lives knows that all it sent is settled; while a stream is stalled, all
    that is not meant for it."""
    return all(
        source.phase == "dead" or _all_known(scenario, state, i)
        for i, source in enumerate(state.sources)
    )


def _all_known(scenario: Scenario, state: State, i: int) -> bool:
    source = state.sources[i]
    for n, batch in enumerate(scenario.batches[i], 1):
        known = n <= source.acknowledged or source.settled >> n & 1
        known = known or (source.over and n > source.sent)
        if not known and not (state.stalled and scenario.stalled_stream in batch):
            return False
    return True


def _events(blocks: tuple[Block, ...], *, on_disk: bool) -> Iterator[Event]:
    for block in blocks:
        if block.medium == "gone" or (on_disk and block.medium != "synced"):
            continue
        for fragment in block.fragments:
            for event in fragment.events:
                yield fragment.source, fragment.batch, fragment.stream, event


def _below_durable(
    scenario: Scenario,
    journal: Journal,
    files: tuple[tuple[File, ...], ...],
    *,
    on_disk: bool = False,
) -> Iterator[Event]:
    """What a reader with the journal finds; on_disk: of it, what would outlast a power cut."""
    for stream, of_stream in zip(journal.streams, files, strict=True):
        for part, file in zip(stream.parts, of_stream, strict=False):
            yield from _events(file.blocks[: _end(scenario, part, file)], on_disk=on_disk)


def _end(scenario: Scenario, part: Part, file: File) -> int:
    if part.state == "sealed" and not scenario.rules.readers_stop_at_sealed:
        return len(file.blocks)
    return part.durable


def _acknowledged(scenario: Scenario, state: State) -> Iterator[Event]:
    """What the sources believe to be acknowledged."""
    for i, batches in enumerate(scenario.batches):
        source = state.sources[i]
        for n, batch in enumerate(batches, 1):
            known = n <= source.acknowledged or source.settled >> n & 1
            if known and not source.refused >> n & 1:
                for stream, events in batch.items():
                    yield from ((i, n, stream, event) for event in events)


def _in_files_alone(state: State) -> Iterator[Event]:
    """What one reads who has no journal: each file as far as it goes, or up to where the header of
    its successor says that it was sealed."""
    for of_stream in state.files:
        ends = {f.predecessor: f.predecessor_sealed for f in of_stream if f.predecessor >= 0}
        for p, file in enumerate(of_stream):
            yield from _events(file.blocks[: ends.get(p, len(file.blocks))], on_disk=False)


def _words(event: Event) -> str:
    source, batch, stream, number = event
    return f"event {number} for stream {stream} (batch {batch} of source {source})"
