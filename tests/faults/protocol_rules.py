"""The rules of the design, and where each is left out or tested; `python -m tests.faults` prints.

The first sixteen are the protocol rules of the design, in its order and in short; the rest are
promises of the contract that have mutations too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Clause:
    """A part of a rule that no mutation of the simulated logger can leave out.

    why: it cannot. tests: functions that hold it, anywhere below tests/.
    """

    words: str
    why: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class ProtocolRule:
    """words: the rule in short. mutations: of mutations.py. model: switches of the protocol model,
    see tests/model/states.py. clauses: the parts of it that stand in neither."""

    words: str
    mutations: tuple[str, ...]
    model: tuple[str, ...] = ()
    clauses: tuple[Clause, ...] = ()


PROTOCOL_RULES: Final = (
    ProtocolRule(
        "Block numbers run over all files of a (run, stream); offsets and watermarks advance along "
        "consecutive ones",
        ("consecutive-blocks", "garbage-without-number", "watermark-one-below",
         "watermark-one-above"),
        ("consecutive_block_numbers",),
    ),
    ProtocolRule(
        "A piece counts as stored only where its last byte is; no commit stops inside a piece",
        ("half-a-piece-counts", "half-a-group-is-committed", "half-a-group-is-synced",
         "boundary-without-its-part", "one-piece-settles-the-batch"),
        ("whole_pieces", "whole_groups", "boundary_with_its_part", "all_pieces_settle"),
    ),
    ProtocolRule(
        "Per session only last admitted + 1 is admitted; a higher one is dropped, counted, and "
        "asked for again",
        ("a-gap-is-admitted", "overtaken-in-its-stream"),
        ("next_alone_is_admitted",),
        (
            Clause(
                "a higher one is counted, and answered \"resend from n\"",
                "left out it costs time alone: the source sees no progress and goes back by itself",
                ("test_a_batch_behind_a_missing_one_is_dropped_counted_and_asked_for_again",),
            ),
        ),
    ),
    ProtocolRule(
        "HELLO names the lowest unacknowledged batch; the cumulative acknowledgement is "
        "journalled; a HELLO above it + 1 is refused with an alarm",
        ("hello-from-the-next", "acknowledgement-not-journalled", "hello-above-is-accepted"),
        ("resend_from_lowest", "acknowledgement_journalled"),
    ),
    ProtocolRule(
        "Duplicates are judged against the highest admitted; acknowledgements come from the "
        "committed",
        ("duplicates-by-what-is-committed", "told-before-the-commit"),
        ("duplicates_by_admitted", "acknowledge_committed"),
    ),
    ProtocolRule(
        "The watermark's key is (session, run, stream as sent), whatever file takes the piece; it "
        "outlives the run, until BYE or a journalled expiry",
        ("orphans-without-watermark", "garbage-without-watermark", "watermark-by-file",
         "watermarks-end-with-the-run", "watermarks-stay-behind-bye", "another-taker-at-once"),
        ("watermark_as_sent", "watermark_outlives_run", "one_taker_at_a_time"),
        (
            Clause(
                "until a journalled expiry",
                "it takes days, and a source that is gone for so long has lost its session",
                ("test_a_session_that_expired_does_not_come_back_as_a_new_one",),
            ),
        ),
    ),
    ProtocolRule(
        "A session is a random id; a second live session of a name is refused; a new session "
        "closes the old one in the journal",
        ("name-not-looked-at", "name-given-away-at-restart", "old-session-stays-open"),
        ("random_session", "name_held_while_alive", "name_held_over_restart"),
        (
            Clause(
                "`dlog send` keeps its session and position on disk",
                "the simulation does not run the process of a source",
                ("test_a_replay_and_a_logger_that_are_killed_lose_and_double_nothing",),
            ),
        ),
    ),
    ProtocolRule(
        "Beyond the durable offset nothing is adopted at restart: the tail is saved aside and cut, "
        "and the cut is durable before the file takes a block",
        ("no-cut", "tail-not-saved-aside"),
        ("tail_not_adopted", "tail_cut"),
        (
            Clause(
                "the cut is durable before the file takes a block",
                "a tail that comes back lies beyond the durable offset and is cut again",
                ("test_a_cut_whose_sync_failed_is_made_durable_by_the_next_try",
                 "test_a_tail_is_saved_aside_and_cut_before_the_file_takes_a_block"),
            ),
        ),
    ),
    ProtocolRule(
        "Failed fsync: \"SEALED at D\" is committed before a moved block is written; moved blocks "
        "keep their numbers; the new part names its predecessor; every reader stops at a sealed D",
        ("retried-fsync", "seal-not-committed", "moved-blocks-renumbered", "predecessor-not-named"),
        ("sealed_not_retried", "moved_blocks_keep_numbers", "predecessor_named",
         "readers_stop_at_sealed"),
        (
            Clause(
                "every reader, verify, recover and rebuild stop at a sealed D",
                "they are other programs",
                ("test_blocks_behind_a_sealed_end_are_not_read",
                 "test_a_sealed_part_is_read_up_to_its_seal_alone",
                 "test_what_lies_behind_a_seal_is_not_recovered_twice",
                 "test_a_sealed_part_counts_up_to_where_its_successor_says"),
            ),
        ),
    ),
    ProtocolRule(
        "Block headers carry the boot number, which never decreases in a file",
        ("boot-always-the-first",),
        clauses=(
            Clause(
                "readers refuse a block of an earlier boot",
                "they are other programs",
                ("test_a_block_of_an_earlier_boot_does_not_come_back",
                 "test_the_boot_number_never_decreases_in_a_file"),
            ),
        ),
    ),
    ProtocolRule(
        "OPEN is committed only after header page and every new directory level are durable; a "
        "CREATING file found at restart is moved aside",
        ("no-directory-fsync", "header-page-not-synced", "creating-left-where-it-is"),
        ("open_after_directory_sync",),
    ),
    ProtocolRule(
        "A reservation is committed, then made, then written to; it covers the largest block and "
        "the footer",
        ("reservation-not-committed", "footer-not-reserved"),
    ),
    ProtocolRule(
        "Acknowledgement and window are absolute, repeated with each heartbeat and the boot "
        "number; a new boot or silence makes the source say HELLO",
        ("window-is-relative", "told-only-with-news", "hello-not-said-again"),
        ("acknowledgement_absolute", "acknowledgement_repeated", "hello_again"),
        (
            Clause(
                "a new boot number in an acknowledgement makes the source say HELLO",
                "another boot does not know the connection, and asks for HELLO too",
                ("test_a_new_boot_number_makes_the_source_say_hello_again",),
            ),
        ),
    ),
    ProtocolRule(
        "A bounded selective list frees window; when a stalled stream's share of memory is full, "
        "sources that send to it stop, others go on",
        ("selective-frees-no-window", "selective-not-told", "no-placeholders"),
        ("selective_acknowledgement", "placeholders"),
        (
            Clause(
                "the selective list is bounded",
                "the bound is thousands of batches, more than a history sends",
                ("test_no_acknowledgement_lists_more_ranges_than_the_limit",),
            ),
            Clause(
                "its share of memory is bounded",
                "the simulated memory is not shared with anything",
                ("test_a_stalled_stream_holds_no_more_than_a_share",
                 "test_sources_that_a_stalled_stream_stopped_leave_room_for_another",
                 "test_a_fast_source_and_a_stalled_stream_take_no_more_than_their_share"),
            ),
        ),
    ),
    ProtocolRule(
        "A failed commit is of unknown outcome: no acknowledgement, exit; the next start copies "
        "the journal to a new file before it reads it",
        ("failed-commit-taken-as-done", "journal-not-copied"),
        ("exit_on_failed_commit", "journal_copied_after_failure"),
        (
            Clause(
                "the copy is fsynced, renamed, and its directory fsynced",
                "the simulated journal stands for LMDB and its files",
                ("test_a_failed_commit_poisons_the_journal",
                 "test_a_move_to_a_new_file_that_is_killed_is_made_up_for"),
            ),
        ),
    ),
    ProtocolRule(
        "Journal full: nothing is dropped, the same group is retried; STOP, STOP RUN and ABORT "
        "use the ballast",
        ("full-journal-drops-the-group", "ballast-not-used"),
        ("full_group_kept",),
    ),
    ProtocolRule(
        "Contract 1: acknowledged means durable",
        ("acknowledge-before-fsync", "written-under-a-sync-is-durable",
         "added-under-a-sync-is-settled"),
    ),
    ProtocolRule("Contract 3: journal first", ("journal-after-file",)),
    ProtocolRule(
        "Contract 4: a refusal is told, until its source has confirmed it",
        ("refusals-not-told",),
        ("refusal_journalled", "refusal_until_seen"),
    ),
    ProtocolRule(
        "While no run is listed, what was sent before and is lost gets the window to be settled",
        (),
        ("settle_window",),
        (
            Clause(
                "the source says how much (`settle_bytes`), and gets no more",
                "each history of the simulation ends with a run that is active, and so with window",
                ("test_what_was_lost_on_the_way_is_refused_while_no_run_is_active",
                 "test_several_sources_with_more_than_the_window_are_all_settled"),
            ),
        ),
    ),
    ProtocolRule(
        "A source gives nothing up on the word of another logger than the one that acknowledged",
        (),
        ("another_logger_ends_nothing",),
        (
            Clause(
                "REFUSED and WELCOME name the logger",
                "the simulation has one logger",
                ("test_nothing_is_given_up_on_the_word_of_another_logger",),
            ),
        ),
    ),
    ProtocolRule(
        "Contract 7: without the journal no block is read twice, though a later boot gave its "
        "number again",
        ("void-blocks-are-read",),
    ),
    ProtocolRule(
        "Late events go to the END part of their range; no single number closes a range for those "
        "that follow, and a counter that begins anew is not late",
        ("late-is-garbage", "wild-number-closes", "anew-is-late"),
        ("wild_number_closes_nothing", "anew_is_not_late"),
    ),
)  # fmt: skip
