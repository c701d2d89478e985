"""The states of the protocol model: what sources, network, logger, journal and disk hold. All of it
is tuples, so that a state can be looked up among those seen before. It decides nothing.

Sources, streams, parts and files are counted from 0, batches and blocks from 1, as in the code.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeVar

_T = TypeVar("_T")

# --- the disk -------------------------------------------------------------------------------------

# Where a block is: in the page cache alone; on the disk; in a cache page that a failed fsync marked
# as clean, so that it can be read and will never reach the disk; nowhere any more.
Medium = Literal["cached", "synced", "clean", "gone"]


class Fragment(NamedTuple):
    """The events of a piece that stand in one block. stream: as sent."""

    source: int
    batch: int
    stream: int
    events: tuple[int, ...]
    first: bool
    last: bool


class Block(NamedTuple):
    """synced: what the logger believes of it; None where another boot wrote it, or where it was
    moved: nobody waits for it any more."""

    number: int
    fragments: tuple[Fragment, ...]
    group_end: bool
    medium: Medium = "cached"
    synced: bool | None = False


class File(NamedTuple):
    """An event file. name_durable: whether its directory entry is. predecessor, predecessor_sealed:
    what its header page says of the part that it goes on for; -1 for none."""

    blocks: tuple[Block, ...] = ()
    name_durable: bool = True
    predecessor: int = -1
    predecessor_sealed: int = -1


# --- the journal ----------------------------------------------------------------------------------

Kind = Literal["events", "garbage", "orphan"]
PartState = Literal["open", "end", "closed", "sealed", "lost"]


class Part(NamedTuple):
    """A file's record. low (exclusive), high: its range, -1 for open. durable: D, in blocks."""

    kind: Kind
    state: PartState = "open"
    low: int = -1
    high: int = -1
    durable: int = 0
    predecessor: int = -1
    predecessor_sealed: int = -1


class StreamRecord(NamedTuple):
    """next_block: the number behind the last committed one. ended: its run is over."""

    next_block: int = 1
    low: int = -1
    highest: int = -1
    ended: bool = False
    parts: tuple[Part, ...] = ()


class SessionRecord(NamedTuple):
    """marks: watermarks by stream as sent. known: HELLO came. closed: BYE, or a newer session.
    refused: batches, as bits, whose refusal the source has not confirmed."""

    known: bool = False
    closed: bool = False
    acknowledged: int = 0
    marks: tuple[int, ...] = ()
    refused: int = 0


class Journal(NamedTuple):
    sessions: tuple[SessionRecord, ...]
    streams: tuple[StreamRecord, ...]


# --- the logger's memory --------------------------------------------------------------------------


class Piece(NamedTuple):
    """The events of one batch for one stream, on their way to a writer."""

    source: int
    batch: int
    stream: int
    events: tuple[int, ...]


class Session(NamedTuple):
    """silent: it missed its heartbeats. shares: of each batch the settlements to come. settled:
    batches above the acknowledgement, as bits. takers: by stream as sent, who took the last piece
    (-1: nobody yet) and of which batch. asked: the batch up to which the source wants window while
    no run is listed. told, refused: acknowledgement and settled bits as last told, and refusals,
    where a rule that is left out needs them."""

    connected: bool
    silent: bool
    admitted: int
    high: int
    marks: tuple[int, ...]
    shares: tuple[int, ...]
    takers: tuple[tuple[int, int], ...]
    settled: int = 0
    asked: int = 0
    told: tuple[int, int] = (0, 0)
    refused: int = 0


class Writer(NamedTuple):
    """A stream's thread. staged: encoded blocks that are not written, each with its part. planned:
    parts that blocks are staged for and that do not exist. closed: pieces go to the orphans."""

    next_block: int
    low: int
    highest: int
    queue: tuple[Piece, ...] = ()
    staged: tuple[tuple[int, Block], ...] = ()
    planned: tuple[Part, ...] = ()
    closed: bool = False


class Logger(NamedTuple):
    sessions: tuple[Session, ...]
    writers: tuple[Writer, ...]


# --- sources and network --------------------------------------------------------------------------


class Upward(NamedTuple):
    """A message to the logger. number: HELLO's lowest unacknowledged batch, or the batch's; of
    `seen` the refusals that came, as bits; of `settle` the batch up to which window is wanted."""

    kind: Literal["hello", "batch", "placeholder", "bye", "seen", "settle"]
    number: int = 0


class Downward(NamedTuple):
    """A message to the source; all of it is absolute. settled: bits above the acknowledgement.
    refused: batches, as bits. over: no run is listed any more."""

    kind: Literal["welcome", "acknowledgement", "resend", "bye-done", "refused by another logger"]
    acknowledged: int
    settled: int
    next: int
    limit: int
    refused: int = 0
    over: bool = False


class Source(NamedTuple):
    """up: messages on their way, first in, first out. down: the last answer that is on its way;
    a later one overtakes it, which is as good as its loss. sent: the highest batch sent. refused,
    confirm: batches, as bits, that were refused, and of those what is to be confirmed. over: no run
    is listed any more, so that what has no number yet is given back to the caller."""

    phase: Literal["greeting", "open", "leaving", "over", "dead"] = "greeting"
    acknowledged: int = 0
    settled: int = 0
    cursor: int = 1
    limit: int = 0
    up: tuple[Upward, ...] = ()
    down: Downward | None = None
    sent: int = 0
    refused: int = 0
    confirm: int = 0
    over: bool = False


class State(NamedTuple):
    """logger: None while it is down. safe_journal: what a power cut leaves of the journal, where
    that is not what one reads. faults: failed syncs and commits that may still come."""

    journal: Journal
    files: tuple[tuple[File, ...], ...]
    logger: Logger | None
    sources: tuple[Source, ...]
    safe_journal: Journal | None = None
    faults: int = 0
    stalled: bool = False


# --- what is given --------------------------------------------------------------------------------

Batch = dict[int, tuple[int, ...]]  # the events of each stream


@dataclass(frozen=True)
class Rules:
    """The rules of the protocol, each of which can be left out. Design, section 4."""

    # Blocks carry a number per (run, stream) across all its files; D and watermarks advance only
    # along consecutive numbers.
    consecutive_block_numbers: bool = True
    # A piece counts as stored only where its last byte is; a commit never stops inside one. Without
    # the second half alone (`whole_groups`) it counts rightly, and a half of it stays below D.
    whole_pieces: bool = True
    whole_groups: bool = True
    # A boundary between parts is committed with the END part below it, never before.
    boundary_with_its_part: bool = True
    # A range closes at the number up to which the stream is followed, and no single number is.
    wild_number_closes_nothing: bool = True
    # A counter that begins anew is not late for ranges that are closed.
    anew_is_not_late: bool = True
    # Only last admitted + 1 is admitted; a higher one is dropped and asked for again.
    next_alone_is_admitted: bool = True
    # HELLO names the lowest unacknowledged batch, and the source resends from there.
    resend_from_lowest: bool = True
    # The cumulative acknowledgement is journalled (and a HELLO above it + 1 is refused).
    acknowledgement_journalled: bool = True
    # Duplicates are judged against the highest admitted, acknowledgements come from the committed.
    duplicates_by_admitted: bool = True
    acknowledge_committed: bool = True
    # A batch is settled when all its pieces are.
    all_pieces_settle: bool = True
    # The watermark's key is the stream as sent, whatever file takes the piece; it outlives the run.
    watermark_as_sent: bool = True
    watermark_outlives_run: bool = True
    # Another taker (the orphans) gets a piece only when all before it of its watermark are settled.
    one_taker_at_a_time: bool = True
    # A session is a random id; a second live session of a name waits for the end of the first.
    random_session: bool = True
    name_held_while_alive: bool = True
    # Who was not heard since the start has not missed its heartbeats yet.
    name_held_over_restart: bool = True
    # Beyond D nothing is adopted at restart, and the tail is cut.
    tail_not_adopted: bool = True
    tail_cut: bool = True
    # Failed fsync: never retried, the part is sealed at D; moved blocks keep their numbers; the new
    # part names its predecessor and D; every reader stops there.
    sealed_not_retried: bool = True
    moved_blocks_keep_numbers: bool = True
    predecessor_named: bool = True
    readers_stop_at_sealed: bool = True
    # OPEN is committed only after the directory is synced.
    open_after_directory_sync: bool = True
    # Acknowledgements are absolute and repeated; silence makes the source say HELLO again.
    acknowledgement_absolute: bool = True
    acknowledgement_repeated: bool = True
    hello_again: bool = True
    # A selective list frees window; what it settles is sent again as a placeholder.
    selective_acknowledgement: bool = True
    placeholders: bool = True
    # A failed commit is of unknown outcome: exit; the next start copies the journal before use.
    exit_on_failed_commit: bool = True
    journal_copied_after_failure: bool = True
    # Journal full: the same group is tried again.
    full_group_kept: bool = True
    # A refusal is committed with what it settles, and told until the source has confirmed it.
    refusal_journalled: bool = True
    refusal_until_seen: bool = True
    # While no run is listed, window is granted for what was sent before and is lost.
    settle_window: bool = True
    # A source gives nothing up on the word of another logger than the one that acknowledged.
    another_logger_ends_nothing: bool = True

    def without(self, *names: str) -> Rules:
        return replace(self, **dict.fromkeys(names, False))


@dataclass(frozen=True)
class Scenario:
    """What happens and what may go wrong, with its bounds.

    batches: of each source. streams: those that runs store; the orphans are one more, at the end.
    names: of the sources; equal ones are two processes of one name. part_events: when a part is
    full. window: batches. queue: messages on their way. patient: HELLO is said again only when
    nothing is on its way. The rest: what may happen, how often.
    """

    batches: tuple[tuple[Batch, ...], ...]
    streams: int = 1
    names: tuple[str, ...] = ()
    part_events: int = 99
    window: int = 99
    queue: int = 2
    patient: bool = False
    losses: bool = True
    kills: bool = True
    power_cuts: bool = True
    deaths: bool = False
    late_over: bool = False
    run_ends: frozenset[int] = frozenset()
    sync_faults: int = 0
    commit_faults: int = 0
    full_journal: bool = False
    stalled_stream: int | None = None
    bye: bool = False
    aborts: bool = False
    another_logger: bool = False
    rules: Rules = field(default_factory=Rules)

    @property
    def orphans(self) -> int:
        return self.streams

    def session_of(self, source: int) -> int:
        """The session that the source uses: its own, unless a session is nothing but a name."""
        if self.rules.random_session or not self.names:
            return source
        return self.names.index(self.names[source])

    def rivals_of(self, source: int) -> list[int]:
        """Other sources of the same name."""
        if not self.names or not self.rules.random_session:
            return []
        name = self.names[source]
        return [i for i, other in enumerate(self.names) if other == name and i != source]


def put(items: tuple[_T, ...], index: int, item: _T) -> tuple[_T, ...]:
    """The tuple with one item replaced."""
    return (*items[:index], item, *items[index + 1 :])


def down(state: State) -> State:
    """The process is gone, with its memory; the page cache stays."""
    files = tuple(tuple(map(_without_beliefs, of_stream)) for of_stream in state.files)
    return state._replace(logger=None, files=files)


def _without_beliefs(file: File) -> File:
    if all(block.synced is None for block in file.blocks):
        return file
    return file._replace(blocks=tuple(block._replace(synced=None) for block in file.blocks))
