"""A stream's thread and the committer in the model: groups of blocks, parts that roll over and
fail, syncs, and the commits that move D, watermarks and acknowledgements.

It mirrors dlog/services/{staging,block_store,parts,committer}.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from tests.model.states import (
    Block,
    File,
    Fragment,
    Journal,
    Logger,
    Part,
    Piece,
    Scenario,
    State,
    StreamRecord,
    Writer,
    down,
    put,
)

_Step = TypeVar("_Step")
REACH = 10  # a number further above than that is wild


def steps(
    scenario: Scenario, state: State, step: Callable[[str, bool, State], _Step]
) -> Iterator[_Step]:
    assert state.logger is not None
    for s, writer in enumerate(state.logger.writers):
        record = state.journal.streams[s]
        if record.ended or (state.stalled and s == scenario.stalled_stream):
            continue
        if writer.staged:
            words, after = _store(scenario, state, s, writer)
            yield step(f"stream {s}: {words}", False, after)
        else:
            if writer.queue:
                for count in sorted({1, len(writer.queue)}):
                    after = _stage(scenario, state, s, writer, count)
                    yield step(f"stream {s}: a group of {count} pieces", False, after)
            for words, fault, after in _sync(scenario, state, s):
                yield step(f"stream {s}: {words}", fault, after)
        for words, fault, after in _commits(scenario, state, s):
            yield step(f"stream {s}: {words}", fault, after)
        for words, after in _environment(scenario, state, s, writer):
            yield step(f"stream {s}: {words}", True, after)


def _with(
    state: State,
    s: int,
    *,
    writer: Writer | None = None,
    record: StreamRecord | None = None,
    files: tuple[File, ...] | None = None,
) -> State:
    """The state with what belongs to one stream replaced."""
    if writer is not None:
        assert state.logger is not None
        writers = put(state.logger.writers, s, writer)
        state = state._replace(logger=state.logger._replace(writers=writers))
    if record is not None:
        streams = put(state.journal.streams, s, record)
        state = state._replace(journal=state.journal._replace(streams=streams))
    if files is not None:
        state = state._replace(files=put(state.files, s, files))
    return state


# --- staging: which part an event goes to ---------------------------------------------------------


def _stage(scenario: Scenario, state: State, s: int, writer: Writer, count: int) -> State:
    """A group of the oldest pieces: one block for each part that they go to, numbered in the order
    of the slots. Parts that do not exist are planned."""
    staging = _Staging(scenario, state, s, writer)
    for piece in writer.queue[:count]:
        staging.take(piece)
    record = staging.record
    blocks = []
    order = staging.slots_in_order()
    for at, p in enumerate(order):
        number = writer.next_block + at
        fragments = staging.fragments_of(p, order)
        blocks.append((p, Block(number, fragments, group_end=at == len(order) - 1)))
    after = writer._replace(
        next_block=writer.next_block + len(order),
        low=staging.low,
        highest=staging.highest,
        queue=writer.queue[count:],
        staged=tuple(blocks),
        planned=tuple(staging.parts[len(record.parts) :]),
    )
    return _with(state, s, writer=after, record=record)


class _Staging:
    """Takes pieces, as dlog.services.staging does. record: the stream's, with what has ENDed."""

    def __init__(self, scenario: Scenario, state: State, s: int, writer: Writer) -> None:
        self.scenario = scenario
        self.record = state.journal.streams[s]
        self.parts = [*self.record.parts, *writer.planned]
        self.low, self.highest = writer.low, writer.highest
        self.orphans = s == scenario.orphans
        self.fill = [
            sum(len(f.events) for block in file.blocks for f in block.fragments)
            for file in state.files[s]
        ] + [0] * len(writer.planned)
        self.staged: list[tuple[int, Piece, tuple[int, ...]]] = []

    def take(self, piece: Piece) -> None:
        left = list(piece.events)
        while left:
            now = self._now()
            if self.fill[now] >= self.scenario.part_events and not self.orphans:
                now = self._roll(now)
            late = [e for e in left if self._is_late(e)]
            for e in late:
                self._put(self._part_of_late(e), piece, (e,))
            left = [e for e in left if e not in late]
            fits = left[: max(0, self.scenario.part_events - self.fill[now])]
            if fits:
                self._put(now, piece, tuple(fits))
                self._follow(fits)
            left = left[len(fits) :]

    def _is_late(self, event: int) -> bool:
        """Where its range is closed, a number that a counter begins with is not."""
        anew = self.scenario.rules.anew_is_not_late and event <= 1
        return event <= self.low and (not anew or self._end_of(event) is not None)

    def _follow(self, events: tuple[int, ...] | list[int]) -> None:
        for event in sorted(events):
            near = event <= self.highest + REACH
            if near or not self.scenario.rules.wild_number_closes_nothing:
                self.highest = max(self.highest, event)

    def _now(self) -> int:
        kind = "orphan" if self.orphans else "events"
        for p, part in enumerate(self.parts):
            if part.kind == kind and part.state == "open":
                return p
        return self._plan(Part("orphan") if self.orphans else Part("events", low=self.low))

    def _plan(self, part: Part) -> int:
        self.parts.append(part)
        self.fill.append(0)
        return len(self.parts) - 1

    def _roll(self, now: int) -> int:
        """The part ENDs; where it exists, the journal knows before anything follows."""
        self.low = self.highest
        ended = self.parts[now]._replace(state="end", high=self.highest)
        self.parts[now] = ended
        if now < len(self.record.parts):
            parts = put(self.record.parts, now, ended)
            self.record = self.record._replace(parts=parts, low=self.low)
        return self._plan(Part("events", low=self.low))

    def _part_of_late(self, event: int) -> int:
        end = self._end_of(event)
        if end is not None:
            return end
        for p, part in enumerate(self.parts):
            if part.kind == "garbage" and part.state == "open":
                return p
        return self._plan(Part("garbage"))

    def _end_of(self, event: int) -> int | None:
        """The part in END whose range holds it."""
        return next(
            (
                p
                for p, part in enumerate(self.parts)
                if part.state == "end" and part.low < event <= part.high
            ),
            None,
        )

    def _put(self, p: int, piece: Piece, events: tuple[int, ...]) -> None:
        self.fill[p] += len(events)
        self.staged.append((p, piece, events))

    def slots_in_order(self) -> list[int]:
        """END parts, then the current one, then garbage."""

        def place(p: int) -> tuple[bool, bool, int]:
            return self.parts[p].kind == "garbage", self.parts[p].state != "end", p

        return sorted({p for p, _, _ in self.staged}, key=place)

    def fragments_of(self, p: int, order: list[int]) -> tuple[Fragment, ...]:
        """What a part's block holds: the pieces' fragments, which say whether they are the first
        or the last of theirs."""
        found = []
        for piece in dict.fromkeys(piece for _, piece, _ in self.staged):
            chosen = [(q, events) for q, of, events in self.staged if of == piece]
            slots = sorted({q for q, _ in chosen}, key=order.index)
            events = tuple(e for q, some in chosen if q == p for e in some)
            if events:
                first, last = p == slots[0], p == slots[-1]
                fragment = Fragment(
                    piece.source, piece.batch, piece.stream, events, first=first, last=last
                )
                found.append(fragment)
        return tuple(found)


# --- the block store ------------------------------------------------------------------------------


def _store(scenario: Scenario, state: State, s: int, writer: Writer) -> tuple[str, State]:
    """The next staged block: its part is made where it lacks, then the block goes to the cache."""
    p, block = writer.staged[0]
    record, files = state.journal.streams[s], state.files[s]
    if p >= len(record.parts):
        made = writer.planned[0]
        opened = record._replace(parts=(*record.parts, made))
        file = File(
            name_durable=scenario.rules.open_after_directory_sync,
            predecessor=made.predecessor,
            predecessor_sealed=made.predecessor_sealed,
        )
        after = writer._replace(planned=writer.planned[1:])
        words = f"part {len(record.parts)} ({made.kind}) is created and {made.state.upper()}"
        return words, _with(state, s, writer=after, record=opened, files=(*files, file))
    written = files[p]._replace(blocks=(*files[p].blocks, block))
    after = writer._replace(staged=writer.staged[1:])
    words = f"block {block.number} is written to part {p}"
    return words, _with(state, s, writer=after, files=put(files, p, written))


def _sync(scenario: Scenario, state: State, s: int) -> Iterator[tuple[str, bool, State]]:
    for p, file in enumerate(state.files[s]):
        if all(block.synced is not False for block in file.blocks):
            continue
        blocks = tuple(
            block
            if block.synced is not False
            else block._replace(
                synced=True, medium="synced" if block.medium == "cached" else block.medium
            )
            for block in file.blocks
        )
        after = _with(state, s, files=put(state.files[s], p, file._replace(blocks=blocks)))
        yield f"part {p} is synced", False, after
        if scenario.sync_faults and state.faults:
            words = f"the sync of part {p} fails"
            if scenario.rules.sealed_not_retried:
                words += ", it is sealed at D"
            yield words, True, _sync_failed(scenario, state, s, p)


def _sync_failed(scenario: Scenario, state: State, s: int, p: int) -> State:
    """The part is SEALED at D, which is committed; the blocks behind D move to a new part."""
    assert state.logger is not None
    rules, file, writer = scenario.rules, state.files[s][p], state.logger.writers[s]
    state = state._replace(faults=state.faults - 1)
    clean = tuple(
        block._replace(medium="clean") if block.medium == "cached" else block
        for block in file.blocks
    )
    if not rules.sealed_not_retried:
        return _with(state, s, files=put(state.files[s], p, file._replace(blocks=clean)))
    record = state.journal.streams[s]
    part = record.parts[p]
    moved = [
        block._replace(medium="cached", synced=False)
        for block in file.blocks[part.durable :]
        if block.synced is not None
    ]
    if not rules.moved_blocks_keep_numbers:
        moved = [block._replace(number=writer.next_block + at) for at, block in enumerate(moved)]
        writer = writer._replace(next_block=writer.next_block + len(moved))
    names = rules.predecessor_named
    successor = Part(
        part.kind,
        part.state,
        part.low,
        part.high,
        predecessor=p if names else -1,
        predecessor_sealed=part.durable if names else -1,
    )
    new = len(record.parts)
    left = tuple(block._replace(synced=None) for block in clean)
    return _with(
        state,
        s,
        writer=writer._replace(staged=tuple((new, block) for block in moved), planned=(successor,)),
        record=record._replace(parts=put(record.parts, p, part._replace(state="sealed"))),
        files=put(state.files[s], p, file._replace(blocks=left)),
    )


# --- the committer --------------------------------------------------------------------------------


def _ready(scenario: Scenario, state: State, s: int) -> list[tuple[int, int, Block]]:
    """(part, place in it, block) of all that a commit may tell of now: whole groups, along
    consecutive numbers."""
    rules, record = scenario.rules, state.journal.streams[s]
    waiting = sorted(
        (block.number, p, at, block)
        for p, file in enumerate(state.files[s])
        for at, block in enumerate(file.blocks)
        if at >= record.parts[p].durable and block.synced is not None
    )
    expected = record.next_block
    ready: list[tuple[int, int, Block]] = []
    whole = 0
    for number, p, at, block in waiting:
        if rules.consecutive_block_numbers:
            if number != expected or not block.synced:
                break
            expected += 1
        elif not block.synced:
            del ready[whole:]
            continue
        ready.append((p, at, block))
        if block.group_end:
            whole = len(ready)
    if rules.whole_groups and rules.whole_pieces:
        del ready[whole:]
    return ready


def _commits(scenario: Scenario, state: State, s: int) -> Iterator[tuple[str, bool, State]]:
    ready = _ready(scenario, state, s)
    if not ready:
        return
    numbers = ", ".join(str(block.number) for _, _, block in ready)
    committed = _committed(scenario, state, s, ready)
    yield f"commit of blocks {numbers}", False, committed
    if scenario.commit_faults and state.faults:
        safe = state.safe_journal or state.journal
        failed = committed._replace(safe_journal=safe, faults=state.faults - 1)
        if scenario.rules.exit_on_failed_commit:
            yield f"the commit of blocks {numbers} fails, exit", True, down(failed)
        else:
            yield f"the commit of blocks {numbers} fails, it goes on", True, failed
    if scenario.full_journal and not scenario.rules.full_group_kept:
        files = state.files[s]
        for p, at, block in ready:
            blocks = put(files[p].blocks, at, block._replace(synced=None))
            files = put(files, p, files[p]._replace(blocks=blocks))
        dropped = _with(state, s, files=files)
        yield f"journal full, the group of blocks {numbers} is dropped", True, dropped


def _committed(
    scenario: Scenario, state: State, s: int, ready: list[tuple[int, int, Block]]
) -> State:
    """D, watermarks, block numbers and acknowledgements, in one transaction."""
    assert state.logger is not None
    record = state.journal.streams[s]
    for p, at, block in ready:
        part = record.parts[p]
        record = record._replace(
            next_block=max(record.next_block, block.number + 1),
            parts=put(record.parts, p, part._replace(durable=max(part.durable, at + 1))),
        )
    writer, files = state.logger.writers[s], state.files[s]
    low = writer.low
    if scenario.rules.boundary_with_its_part:
        low = max([record.low, *(part.high for part in record.parts if part.state == "end")])
    record = record._replace(low=low, highest=writer.highest)
    for p, at, block in ready:
        told = put(files[p].blocks, at, block._replace(synced=None))
        files = put(files, p, files[p]._replace(blocks=told))
    state = _with(state, s, record=record, files=files)
    rules = scenario.rules
    for _, _, block in ready:
        for fragment in block.fragments:
            stored = fragment.last if rules.whole_pieces else fragment.first
            if stored:
                key = fragment.stream if rules.watermark_as_sent else s
                session = scenario.session_of(fragment.source)
                state = settle(scenario, state, session, fragment.batch, key)
    return state


def settle(
    scenario: Scenario, state: State, k: int, n: int, mark: int | None, *, refused: bool = False
) -> State:
    """The ledger: a piece of batch n is committed, or refused. The batch is settled when all its
    pieces are; the acknowledgement advances over settled batches."""
    assert state.logger is not None
    record, session = state.journal.sessions[k], state.logger.sessions[k]
    if record.closed:
        return state
    if mark is not None:
        record = record._replace(marks=put(record.marks, mark, max(n, record.marks[mark])))
    if refused and scenario.rules.refusal_journalled:
        record = record._replace(refused=record.refused | 1 << n)
    elif refused:
        session = session._replace(refused=session.refused | 1 << n)
    if n > record.acknowledged and not session.settled >> n & 1:
        left = session.shares[n - 1] - 1
        if left <= 0 or not scenario.rules.all_pieces_settle:
            left = 0
            settled, acknowledged = session.settled | 1 << n, record.acknowledged
            while settled >> (acknowledged + 1) & 1:
                acknowledged += 1
                settled &= ~(1 << acknowledged)
            record = record._replace(acknowledged=acknowledged)
            session = session._replace(settled=settled)
        session = session._replace(shares=put(session.shares, n - 1, left))
    journal = state.journal._replace(sessions=put(state.journal.sessions, k, record))
    logger = state.logger._replace(sessions=put(state.logger.sessions, k, session))
    return state._replace(journal=journal, logger=logger)


def adopted(scenario: Scenario, journal: Journal, s: int, p: int, file: File) -> Journal:
    """What a restart without the rule does: blocks behind D that can be read count as stored."""
    stream = journal.streams[s]
    for at, block in enumerate(file.blocks):
        part = stream.parts[p]
        if at < part.durable or block.number != stream.next_block or part.state == "sealed":
            continue
        stream = stream._replace(
            next_block=block.number + 1,
            parts=put(stream.parts, p, part._replace(durable=at + 1)),
        )
        for fragment in block.fragments:
            k = scenario.session_of(fragment.source)
            record = journal.sessions[k]
            mark = max(record.marks[fragment.stream], fragment.batch)
            record = record._replace(marks=put(record.marks, fragment.stream, mark))
            journal = journal._replace(sessions=put(journal.sessions, k, record))
    return journal._replace(streams=put(journal.streams, s, stream))


# --- what happens to parts and runs ---------------------------------------------------------------


def _environment(
    scenario: Scenario, state: State, s: int, writer: Writer
) -> Iterator[tuple[str, State]]:
    """Late time is over, a run ends. Nobody counts on either."""
    record = state.journal.streams[s]
    for p, part in enumerate(record.parts):
        if not scenario.late_over or part.state != "end" or writer.staged:
            continue
        if part.durable == len(state.files[s][p].blocks):
            closed = record._replace(parts=put(record.parts, p, part._replace(state="closed")))
            yield f"END part {p} is closed", _with(state, s, record=closed)
    if s in scenario.run_ends and not writer.closed:
        yield "its run ends", _with(state, s, writer=writer._replace(closed=True))
    stored = all(
        part.durable == len(file.blocks) or part.state in ("sealed", "closed")
        for part, file in zip(record.parts, state.files[s], strict=True)
    )
    if scenario.aborts and stored and not record.ended and not writer.staged:
        yield "its run is aborted", _aborted(scenario, state, s, writer)
    if writer.closed and stored and not writer.queue and not writer.staged:
        parts = tuple(part._replace(state="closed") for part in record.parts)
        ended = _with(state, s, record=record._replace(ended=True, parts=parts))
        if not scenario.rules.watermark_outlives_run:
            ended = _without_marks(ended, s)
        yield "its run has ended", ended


def _aborted(scenario: Scenario, state: State, s: int, writer: Writer) -> State:
    """What is stored stays; what waits to be stored is refused, as is what comes."""
    record = state.journal.streams[s]
    parts = tuple(part._replace(state="closed") for part in record.parts)
    state = _with(
        state, s, writer=writer._replace(queue=()), record=record._replace(ended=True, parts=parts)
    )
    for piece in writer.queue:
        session = scenario.session_of(piece.source)
        state = settle(scenario, state, session, piece.batch, piece.stream, refused=True)
    return state


def _without_marks(state: State, s: int) -> State:
    assert state.logger is not None
    records = tuple(r._replace(marks=put(r.marks, s, 0)) for r in state.journal.sessions)
    sessions = tuple(x._replace(marks=put(x.marks, s, 0)) for x in state.logger.sessions)
    journal = state.journal._replace(sessions=records)
    return state._replace(journal=journal, logger=Logger(sessions, state.logger.writers))
