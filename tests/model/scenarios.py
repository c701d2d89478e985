"""The scenarios of the protocol model: bounds small enough to be exhausted, and large enough that
each rule, left out, is missed in one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from tests.model.states import Scenario

SCENARIOS: Final = {
    # Two batches for one stream; messages vanish, the program is killed, the power is cut.
    "plain": Scenario((({0: (1,)}, {0: (2,)}),)),
    # A part is full after two events: batch 2 begins the second part.
    "roll-over": Scenario((({0: (1, 2)}, {0: (3,)}),), part_events=2, losses=False, kills=False),
    # Batch 2 has a late event and one on time, so it stands in two parts.
    "split piece": Scenario(
        (({0: (1, 3)}, {0: (2, 4)}),), part_events=2, losses=False, kills=False
    ),
    # Batch 2 is longer than a part.
    "long piece": Scenario(
        (({0: (1,)}, {0: (2, 3)}),), part_events=1, patient=True, losses=False, kills=False
    ),
    # An event of batch 1 has a wild number, in a part that is full then; its time may be over. (A
    # crash would send again what was not late, after its time: the program waits for the sources.)
    "wild number": Scenario(
        (({0: (1, 90, 2)}, {0: (3,)}),),
        part_events=2,
        late_over=True,
        kills=False,
        power_cuts=False,
    ),
    # Batch 2 comes from a counter that was set back.
    "counts anew": Scenario(
        (({0: (2, 3, 4)}, {0: (1,)}),),
        part_events=2,
        late_over=True,
        kills=False,
        power_cuts=False,
    ),
    # A batch for two streams.
    "two streams": Scenario((({0: (1,), 1: (1,)},),), streams=2, losses=False),
    # The run may end at any time: what comes then goes to the orphans.
    "run ends": Scenario(
        (({0: (1,)}, {0: (2,)}),),
        patient=True,
        losses=False,
        kills=False,
        run_ends=frozenset({0}),
    ),
    # A batch for a stream of each of two runs; the first run may end.
    "one of two runs ends": Scenario(
        (({0: (1,), 1: (1,)},),),
        streams=2,
        patient=True,
        losses=False,
        kills=False,
        run_ends=frozenset({0}),
    ),
    # Each sync may fail, once in all.
    "failed sync": Scenario(
        (({0: (1,)}, {0: (2,)}),),
        patient=True,
        losses=False,
        kills=False,
        sync_faults=1,
    ),
    # The first stream cannot be written, perhaps for ever; the window holds two batches.
    "stalled stream": Scenario(
        (({0: (1,)}, {1: (1,)}, {1: (2,)}),),
        streams=2,
        window=2,
        patient=True,
        losses=False,
        power_cuts=False,
        stalled_stream=0,
    ),
    # Two processes of one name, both alive.
    "one name": Scenario(
        (({0: (1,)},), ({0: (2,)},)),
        names=("a", "a"),
        queue=1,
        patient=True,
        losses=False,
        power_cuts=False,
        bye=True,
    ),
    # A commit may fail, once: nobody knows whether it is on the disk.
    "failed commit": Scenario((({0: (1,)}, {0: (2,)}),), losses=False, commit_faults=1),
    # The journal may be full at any commit.
    "full journal": Scenario((({0: (1,)}, {0: (2,)}),), losses=False, full_journal=True),
    # The run may be aborted: what is not stored then is refused, and no run is listed any more.
    "aborted run": Scenario((({0: (1,)}, {0: (2,)}),), power_cuts=False, aborts=True),
    # Another logger may stand at the address for a while.
    "another logger": Scenario(
        (({0: (1,)}, {0: (2,)}),),
        patient=True,
        losses=False,
        power_cuts=False,
        another_logger=True,
    ),
}

# The same with wider bounds; minutes instead of seconds.
WIDER: Final = {
    "plain": replace(SCENARIOS["plain"], batches=(({0: (1,)}, {0: (2,)}, {0: (3,)}),)),
    "roll-over": replace(
        SCENARIOS["roll-over"], batches=(({0: (1, 2)}, {0: (3,)}, {0: (2, 4)}),), part_events=2
    ),
    # The time for late events may be over: they go to the garbage file.
    # (Without crashes, after which the program waits for the sources: see "wild number".)
    "late": replace(SCENARIOS["split piece"], losses=True, power_cuts=False, late_over=True),
    "failed sync": replace(SCENARIOS["failed sync"], part_events=1),
    "failed syncs": replace(
        SCENARIOS["failed sync"],
        batches=(({0: (1, 3)}, {0: (2, 4)}),),
        part_events=2,
        sync_faults=2,
    ),
    "two streams": replace(
        SCENARIOS["two streams"], batches=(({0: (1,), 1: (1,)}, {0: (2,)}),), losses=True
    ),
    "run ends": replace(
        SCENARIOS["run ends"],
        batches=(({0: (1,), 1: (1,)}, {0: (2,)}),),
        streams=2,
        patient=False,
    ),
    "stalled stream": replace(SCENARIOS["stalled stream"], losses=True, power_cuts=True),
    "one name": replace(SCENARIOS["one name"], deaths=True, power_cuts=True),
    # Two sources of a stream, each with its own session.
    "two sources": Scenario((({0: (1,)},), ({0: (2,)},)), queue=1, losses=False),
    "failed commit": replace(SCENARIOS["failed commit"], losses=True, part_events=1),
}

# How many states each has with all rules.
STATES: Final = {
    "plain": 3735,
    "roll-over": 5219,
    "split piece": 7157,
    "long piece": 9645,
    "wild number": 4287,
    "counts anew": 3866,
    "two streams": 833,
    "run ends": 18977,
    "one of two runs ends": 6976,
    "failed sync": 10767,
    "stalled stream": 12657,
    "one name": 7528,
    "failed commit": 5655,
    "full journal": 2690,
    "aborted run": 16950,
    "another logger": 2315,
}


class Missed(NamedTuple):
    """What happens without a rule: loss, duplicate or deadlock, as in the design's table. actions:
    of the shortest counterexample."""

    scenario: str
    kind: str
    actions: int


MISSED: Final = {
    "consecutive_block_numbers": Missed("roll-over", "loss", 22),
    "whole_pieces": Missed("split piece", "loss", 15),
    "whole_groups": Missed("split piece", "duplicate", 24),
    "boundary_with_its_part": Missed("long piece", "misfiled", 29),
    "wild_number_closes_nothing": Missed("wild number", "misfiled", 18),
    "anew_is_not_late": Missed("counts anew", "misfiled", 20),
    "next_alone_is_admitted": Missed("plain", "loss", 20),
    "resend_from_lowest": Missed("plain", "deadlock", 5),
    "acknowledgement_journalled": Missed("plain", "deadlock", 12),
    "duplicates_by_admitted": Missed("plain", "duplicate", 12),
    "acknowledge_committed": Missed("plain", "loss", 7),
    "all_pieces_settle": Missed("two streams", "loss", 11),
    "watermark_as_sent": Missed("one of two runs ends", "duplicate", 20),
    "watermark_outlives_run": Missed("one of two runs ends", "duplicate", 21),
    "one_taker_at_a_time": Missed("run ends", "loss", 22),
    "random_session": Missed("one name", "loss", 12),
    "name_held_while_alive": Missed("one name", "deadlock", 4),
    "name_held_over_restart": Missed("one name", "deadlock", 6),
    "tail_not_adopted": Missed("plain", "loss", 16),
    "tail_cut": Missed("plain", "duplicate", 16),
    "sealed_not_retried": Missed("failed sync", "loss", 12),
    "moved_blocks_keep_numbers": Missed("failed sync", "deadlock", 8),
    "predecessor_named": Missed("failed sync", "duplicate", 10),
    "readers_stop_at_sealed": Missed("failed sync", "duplicate", 12),
    "open_after_directory_sync": Missed("roll-over", "loss", 17),
    "acknowledgement_absolute": Missed("plain", "deadlock", 10),
    "acknowledgement_repeated": Missed("plain", "deadlock", 12),
    "hello_again": Missed("plain", "deadlock", 4),
    "selective_acknowledgement": Missed("stalled stream", "deadlock", 0),
    "placeholders": Missed("stalled stream", "deadlock", 12),
    "exit_on_failed_commit": Missed("failed commit", "loss", 11),
    "journal_copied_after_failure": Missed("failed commit", "loss", 13),
    "full_group_kept": Missed("full journal", "deadlock", 9),
    "refusal_journalled": Missed("aborted run", "loss", 11),
    "refusal_until_seen": Missed("aborted run", "loss", 9),
    "settle_window": Missed("aborted run", "deadlock", 6),
    "another_logger_ends_nothing": Missed("another logger", "deadlock", 14),
}
