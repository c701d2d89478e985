"""The protocol as steps of a small model: from a state, everything that may happen next.

The decisions stand here as they stand in dlog/core and dlog/services, without bytes, time and
threads; each rule can be left out (`Rules`). What must hold of a state is invariants.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.model import writer
from tests.model.states import (
    Downward,
    File,
    Journal,
    Logger,
    Part,
    Piece,
    Scenario,
    Session,
    SessionRecord,
    Source,
    State,
    StreamRecord,
    Upward,
    Writer,
    down,
    put,
)


class Step(NamedTuple):
    """What happens, and the state behind it. fault: nobody may count on it."""

    action: str
    fault: bool
    state: State


def first_state(scenario: Scenario) -> State:
    """The runs were started: each stream has its first part. No source has said HELLO."""
    streams = scenario.streams + bool(scenario.run_ends)
    journal = Journal(
        tuple(SessionRecord(marks=(0,) * streams) for _ in scenario.batches),
        tuple(
            StreamRecord(parts=(Part("events"),)) if s < scenario.streams else StreamRecord()
            for s in range(streams)
        ),
    )
    files = tuple((File(),) if s < scenario.streams else () for s in range(streams))
    state = State(
        journal,
        files,
        None,
        tuple(Source() for _ in scenario.batches),
        faults=scenario.sync_faults + scenario.commit_faults,
        stalled=scenario.stalled_stream is not None,
    )
    return state._replace(logger=_memory_of(scenario, journal))


def steps(scenario: Scenario, state: State) -> Iterator[Step]:
    """Everything that may happen in a state."""
    for i, source in enumerate(state.sources):
        yield from _source_steps(scenario, state, i, source)
    if state.logger is None:
        yield Step("the logger starts", False, restarted(scenario, state))
    else:
        yield from _server_steps(scenario, state, state.logger)
        yield from writer.steps(scenario, state, Step)
        if scenario.kills:
            yield Step("the logger is killed", True, down(state))
    if scenario.power_cuts:
        for kept, after in after_power_cut(state):
            yield Step(f"power cut{kept}", True, after)
    if state.stalled:
        yield Step(
            f"stream {scenario.stalled_stream} can be written", True, state._replace(stalled=False)
        )


def _with_source(state: State, i: int, source: Source) -> State:
    return state._replace(sources=put(state.sources, i, source))


# --- the sources ----------------------------------------------------------------------------------


def _source_steps(scenario: Scenario, state: State, i: int, source: Source) -> Iterator[Step]:
    last = len(scenario.batches[i])
    room = len(source.up) < scenario.queue
    begun = source.phase in ("open", "leaving")
    greets = source.phase == "greeting" or (begun and scenario.rules.hello_again)
    waits = any(message.kind == "hello" for message in source.up)
    if scenario.patient:
        waits = bool(source.up) or source.down is not None
    if greets and room and not waits:
        lowest = source.acknowledged + 1 if scenario.rules.resend_from_lowest else source.cursor
        greeted = source._replace(
            phase="greeting",
            cursor=lowest,
            limit=0,
            up=(*source.up, Upward("hello", lowest)),
            down=None,  # what is on its way would be passed over
        )
        yield Step(f"source {i} says HELLO from {lowest}", False, _with_source(state, i, greeted))
    if source.phase == "open" and source.cursor <= last and room:
        yield from _send(scenario, state, i, source)
    if source.phase == "open" and source.confirm and room:
        seen = source._replace(confirm=0, up=(*source.up, Upward("seen", source.confirm)))
        yield Step(f"source {i} confirms refusals", False, _with_source(state, i, seen))
    if scenario.another_logger and source.up and source.up[0].kind == "hello":
        yield from _another_logger(state, i, source)
    done = scenario.bye and source.phase in ("open", "leaving") and source.acknowledged == last
    if done and room and Upward("bye") not in source.up:
        left = source._replace(phase="leaving", up=(*source.up, Upward("bye")))
        yield Step(f"source {i} says BYE", False, _with_source(state, i, left))
    if source.down is not None:
        heard = _heard(scenario, source._replace(down=None), source.down, last)
        yield Step(f"source {i} hears {_words(source.down)}", False, _with_source(state, i, heard))
    if scenario.losses and source.up:
        lost = source._replace(up=source.up[1:])
        yield Step(f"{_what(source.up[0], i)} is lost", True, _with_source(state, i, lost))
    if scenario.deaths and source.phase not in ("over", "dead"):
        dead = Source(phase="dead", acknowledged=source.acknowledged, up=source.up)
        yield Step(f"source {i} dies", True, _with_source(state, i, dead))


def _send(scenario: Scenario, state: State, i: int, source: Source) -> Iterator[Step]:
    n = source.cursor
    if source.settled >> n & 1:
        if not scenario.rules.placeholders:
            skipped = source._replace(cursor=n + 1)
            yield Step(f"source {i} passes batch {n} over", False, _with_source(state, i, skipped))
            return
        message = Upward("placeholder", n)
    elif source.over and n > source.sent:
        return
    elif n > source.limit:
        message = Upward("settle", source.sent)
        if source.over and scenario.rules.settle_window and message not in source.up:
            asked = source._replace(up=(*source.up, message))
            yield Step(f"source {i} wants window", False, _with_source(state, i, asked))
        return
    else:
        message = Upward("batch", n)
    sent = source._replace(cursor=n + 1, up=(*source.up, message))
    if scenario.aborts:  # nothing else asks for it
        sent = sent._replace(sent=max(source.sent, n))
    yield Step(f"source {i} sends {message.kind} {n}", False, _with_source(state, i, sent))


def _another_logger(state: State, i: int, source: Source) -> Iterator[Step]:
    """At the same address, and begun anew: it does not know a session that goes on."""
    lowest = source.up[0].number
    if lowest > 1:
        said = Downward("refused by another logger", 0, 0, 1, 0)
        refused = source._replace(up=source.up[1:], down=said)
        yield Step(f"another logger refuses source {i}", True, _with_source(state, i, refused))


def _heard(scenario: Scenario, source: Source, said: Downward, last: int) -> Source:
    if source.phase in ("over", "dead"):
        return source
    if said.kind == "refused by another logger":
        ours = scenario.rules.another_logger_ends_nothing
        return source if ours else source._replace(phase="over")
    if said.kind == "bye-done":
        return source._replace(phase="over")
    if source.phase == "greeting" and said.kind != "welcome":
        return source
    if source.phase == "leaving":
        return source
    acknowledged = max(source.acknowledged, said.acknowledged)
    settled = source.settled | said.settled
    settled = settled >> (acknowledged + 1) << (acknowledged + 1)
    cursor = source.cursor
    if source.phase == "greeting":
        cursor = min(said.next, last + 1)
    elif said.kind == "resend" and said.next < cursor:
        cursor = said.next
    return source._replace(
        phase="open",
        acknowledged=acknowledged,
        settled=settled,
        cursor=max(cursor, acknowledged + 1),
        limit=said.limit,
        refused=source.refused | said.refused,
        confirm=source.confirm | said.refused,
        over=source.over or said.over,
    )


# --- the event server -----------------------------------------------------------------------------


def _server_steps(scenario: Scenario, state: State, logger: Logger) -> Iterator[Step]:
    for i, source in enumerate(state.sources):
        k = scenario.session_of(i)
        session = logger.sessions[k]
        if source.up:
            taken = _with_source(state, i, source._replace(up=source.up[1:]))
            what = _what(source.up[0], i)
            for words, after in _receive(scenario, taken, logger, i, source.up[0]):
                yield Step(f"{what} comes: {words}", False, after)
        if session.connected and source.phase != "dead":
            yield from _tell(scenario, state, i, k)
        if source.phase == "dead" and state.journal.sessions[k].known and not session.silent:
            quiet = session._replace(silent=True, connected=False)
            after = _with_session(state, k, quiet)
            yield Step(f"source {i} has missed its heartbeats", False, after)


def _with_session(state: State, k: int, session: Session) -> State:
    assert state.logger is not None
    return state._replace(
        logger=state.logger._replace(sessions=put(state.logger.sessions, k, session))
    )


def _with_record(state: State, k: int, record: SessionRecord) -> State:
    journal = state.journal
    return state._replace(journal=journal._replace(sessions=put(journal.sessions, k, record)))


def _receive(
    scenario: Scenario, state: State, logger: Logger, i: int, message: Upward
) -> Iterator[tuple[str, State]]:
    k = scenario.session_of(i)
    session, record = logger.sessions[k], state.journal.sessions[k]
    if message.kind == "hello":
        yield _hello(scenario, state, logger, i, message.number)
    elif message.kind == "bye" and (record.closed or not record.known):
        yield "done before", _answer(scenario, state, i, "bye-done")
    elif not session.connected or record.closed:
        yield "refused, there was no HELLO", state
    elif message.kind == "bye":
        closed = record._replace(closed=True, marks=(0,) * len(record.marks))
        after = _with_record(_with_session(state, k, session._replace(connected=False)), k, closed)
        yield "the session is dropped", _answer(scenario, after, i, "bye-done")
    elif message.kind == "seen":
        state = _with_session(state, k, session._replace(refused=session.refused & ~message.number))
        yield (
            "noted",
            _with_record(state, k, record._replace(refused=record.refused & ~message.number)),
        )
    elif message.kind == "settle":
        yield "granted", _with_session(state, k, session._replace(asked=message.number))
    else:
        yield _batch(scenario, state, i, message)


def _hello(
    scenario: Scenario, state: State, logger: Logger, i: int, lowest: int
) -> tuple[str, State]:
    k = scenario.session_of(i)
    record, session = state.journal.sessions[k], logger.sessions[k]
    if record.closed:
        return "refused, the session is closed", state
    for rival in scenario.rivals_of(i):
        before, rival_session = state.journal.sessions[rival], logger.sessions[rival]
        if not before.known or before.closed:
            continue
        if scenario.rules.name_held_while_alive and not rival_session.silent:
            return "refused, the name is in use", state
        state = _with_record(state, rival, before._replace(closed=True))
        state = _with_session(state, rival, rival_session._replace(connected=False))
    if lowest > record.acknowledged + 1:
        return "refused, batches are missing", state
    state = _with_record(state, k, record._replace(known=True))
    opened = session._replace(connected=True, silent=False, admitted=lowest - 1)
    return "welcome", _answer(scenario, _with_session(state, k, opened), i, "welcome")


def _batch(scenario: Scenario, state: State, i: int, message: Upward) -> tuple[str, State]:
    """Judge a batch, as SessionState.judge does, and hand its pieces on."""
    assert state.logger is not None
    rules, n, k = scenario.rules, message.number, scenario.session_of(i)
    session, record = state.logger.sessions[k], state.journal.sessions[k]
    if n > session.admitted + 1 and rules.next_alone_is_admitted:
        return "one is missing", _answer(scenario, state, i, "resend")
    if n <= session.admitted:
        return "a duplicate", state
    known = n <= record.acknowledged or (rules.duplicates_by_admitted and n <= session.high)
    if known:
        return "a duplicate", _with_session(state, k, session._replace(admitted=n))
    batch = {} if message.kind == "placeholder" else scenario.batches[i][n - 1]
    takers = {stream: _taker(scenario, state, stream) for stream in batch}
    if rules.one_taker_at_a_time and not all(
        _may_go_to(session, record, stream, taker) for stream, taker in takers.items()
    ):
        return "before its turn, dropped", state
    shares = put(session.shares, n - 1, max(1, len(batch)))
    admitted = session._replace(admitted=n, high=max(n, session.high), shares=shares)
    state = _with_session(state, k, admitted)
    if not batch:
        return "settled", writer.settle(scenario, state, k, n, None)
    for stream, taker in takers.items():
        piece = Piece(i, n, stream, batch[stream])
        state = _admit_piece(scenario, state, k, piece, taker)
    return "admitted", state


def _taker(scenario: Scenario, state: State, stream: int) -> int:
    assert state.logger is not None
    over = state.journal.streams[stream].ended or state.logger.writers[stream].closed
    return scenario.orphans if over and scenario.run_ends else stream


def _may_go_to(session: Session, record: SessionRecord, stream: int, taker: int) -> bool:
    last_taker, last = session.takers[stream]
    settled = last <= record.acknowledged or bool(session.settled >> last & 1)
    return last_taker in (-1, taker) or settled


def _admit_piece(scenario: Scenario, state: State, k: int, piece: Piece, taker: int) -> State:
    assert state.logger is not None
    rules, n = scenario.rules, piece.batch
    session, record = state.logger.sessions[k], state.journal.sessions[k]
    key = piece.stream if rules.watermark_as_sent else taker
    marks = session.marks if rules.duplicates_by_admitted else record.marks
    if n <= marks[key]:
        return writer.settle(scenario, state, k, n, None)
    if scenario.aborts and state.journal.streams[piece.stream].ended:
        return writer.settle(scenario, state, k, n, key, refused=True)
    marked = session._replace(marks=put(session.marks, key, max(n, session.marks[key])))
    if scenario.run_ends:
        marked = marked._replace(takers=put(session.takers, piece.stream, (taker, n)))
    taking = state.logger.writers[taker]
    writers = put(state.logger.writers, taker, taking._replace(queue=(*taking.queue, piece)))
    sessions = put(state.logger.sessions, k, marked)
    return state._replace(logger=Logger(sessions, writers))


def _tell(scenario: Scenario, state: State, i: int, k: int) -> Iterator[Step]:
    """A heartbeat with the acknowledgement; without repetition, only where there is news."""
    assert state.logger is not None
    session, record = state.logger.sessions[k], state.journal.sessions[k]
    news = session.told != (record.acknowledged, session.settled)
    if not scenario.rules.acknowledgement_repeated and not news:
        return
    told = _answer(scenario, state, i, "acknowledgement")
    if told != state:
        yield Step(f"source {i} is told", False, told)


def _answer(scenario: Scenario, state: State, i: int, kind: str) -> State:
    """The absolute answer of this moment, on its way to the source."""
    assert state.logger is not None
    rules, k = scenario.rules, scenario.session_of(i)
    session, record = state.logger.sessions[k], state.journal.sessions[k]
    committed, settled = record.acknowledged, session.settled
    if not rules.selective_acknowledgement:
        settled = 0
    over = all(stream.ended for stream in state.journal.streams)
    window = max(0, session.asked - committed) if over else scenario.window
    limit = committed + settled.bit_count() + window
    refused = record.refused | session.refused
    if not rules.refusal_until_seen:
        state = _with_record(state, k, record._replace(refused=0))
    acknowledged = committed if rules.acknowledge_committed else session.high
    if not rules.acknowledgement_repeated and kind in ("welcome", "resend"):
        acknowledged, settled = 0, 0
    elif not (rules.acknowledgement_absolute and rules.acknowledgement_repeated):
        state = _with_session(state, k, session._replace(told=(committed, session.settled)))
    source = state.sources[i]
    if not rules.acknowledgement_absolute:
        acknowledged += source.acknowledged - session.told[0]
    said = Downward(
        kind,
        acknowledged,
        settled,
        session.admitted + 1,
        limit,
        refused,
        over,  # type: ignore[arg-type]
    )
    return _with_source(state, i, source._replace(down=said))


# --- crash and restart ----------------------------------------------------------------------------


def after_power_cut(state: State) -> Iterator[tuple[str, State]]:
    """Each file keeps some of what was only in the page cache, or nothing; names may vanish."""
    cut = down(state)
    cut = cut._replace(journal=cut.safe_journal or cut.journal, safe_journal=None)
    outcomes: list[tuple[str, tuple[tuple[File, ...], ...]]] = [("", ())]
    for s, of_stream in enumerate(cut.files):
        known = len(cut.journal.streams[s].parts)
        ways: list[tuple[str, tuple[File, ...]]] = [("", ())]
        for p, file in enumerate(of_stream[:known]):
            durable = cut.journal.streams[s].parts[p].durable
            ways = [
                (words + more, (*before, kept))
                for words, before in ways
                for more, kept in _kept(file, durable, f"{s}/{p}")
            ]
        outcomes = [
            (words + more, (*before, way)) for words, before in outcomes for more, way in ways
        ]
    for words, files in outcomes:
        yield words, cut._replace(files=files)


def _kept(file: File, durable: int, name: str) -> Iterator[tuple[str, File]]:
    if file.name_durable and all(block.medium == "synced" for block in file.blocks):
        yield "", file
        return
    if not file.name_durable:
        yield (
            f", file {name} vanishes",
            File((file.blocks[0]._replace(medium="gone"),) * durable if file.blocks else ()),
        )
    file = file._replace(name_durable=True)
    cached = sum(block.medium == "cached" for block in file.blocks)
    for kept in range(cached + 1):
        left, blocks = kept, []
        for at, block in enumerate(file.blocks):
            medium = block.medium
            if medium == "cached":
                medium = "synced" if left else "gone"
                left -= 1
            if medium == "clean":
                medium = "gone"
            if medium == "gone" and at >= durable:
                break
            blocks.append(block._replace(medium=medium))
        words = f", {kept} of {cached} blocks of file {name} are kept" if cached else ""
        yield words, file._replace(blocks=tuple(blocks))


def restarted(scenario: Scenario, state: State) -> State:
    """Settle every file that is not closed, then go on from the journal."""
    rules, journal = scenario.rules, state.journal
    if not rules.acknowledgement_journalled:
        sessions = tuple(record._replace(acknowledged=0) for record in journal.sessions)
        journal = journal._replace(sessions=sessions)
    if rules.journal_copied_after_failure:
        state = state._replace(safe_journal=None)
    all_files = []
    for s, of_stream in enumerate(state.files):
        files = []
        for p, file in enumerate(of_stream[: len(journal.streams[s].parts)]):
            if not rules.tail_not_adopted:
                journal = writer.adopted(scenario, journal, s, p, file)
            stream = journal.streams[s]
            part = stream.parts[p]
            settled = part._replace(state="closed") if part.state == "sealed" else part
            stream = stream._replace(parts=put(stream.parts, p, settled))
            journal = journal._replace(streams=put(journal.streams, s, stream))
            if rules.tail_cut:
                file = file._replace(blocks=file.blocks[: part.durable])
            files.append(file)
        all_files.append(tuple(files))
    state = state._replace(journal=journal, files=tuple(all_files))
    return state._replace(logger=_memory_of(scenario, journal))


def _memory_of(scenario: Scenario, journal: Journal) -> Logger:
    """Nothing above the acknowledgement was admitted yet; the watermarks are those committed."""
    rules = scenario.rules
    repeats = rules.acknowledgement_absolute and rules.acknowledgement_repeated
    return Logger(
        tuple(
            Session(
                False,
                record.known and not scenario.rules.name_held_over_restart,
                record.acknowledged,
                record.acknowledged,
                record.marks,
                (0,) * len(scenario.batches[k]),
                ((-1, 0),) * len(journal.streams),
                told=(0 if repeats else record.acknowledged, 0),
            )
            for k, record in enumerate(journal.sessions)
        ),
        tuple(
            Writer(
                stream.next_block,
                max([stream.low, *(p.high for p in stream.parts if p.state == "end")]),
                stream.highest,
            )
            for stream in journal.streams
        ),
    )


# --- words ----------------------------------------------------------------------------------------


def _what(message: Upward, i: int) -> str:
    return f"{message.kind} {message.number or ''}".strip() + f" of source {i}"


def _words(said: Downward) -> str:
    settled = [n for n in range(said.settled.bit_length()) if said.settled >> n & 1]
    return f"{said.kind} (acknowledged {said.acknowledged}, settled {settled}, next {said.next})"
