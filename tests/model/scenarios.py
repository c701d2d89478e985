"""The scenarios of the protocol model: bounds small enough to be exhausted, and large enough that
each rule, left out, is missed in one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

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
}

# The same with wider bounds; minutes instead of seconds.
WIDER: Final = {
    "plain": replace(SCENARIOS["plain"], batches=(({0: (1,)}, {0: (2,)}, {0: (3,)}),)),
    "roll-over": replace(
        SCENARIOS["roll-over"], batches=(({0: (1, 2)}, {0: (3,)}, {0: (2, 4)}),), part_events=2
    ),
    # The time for late events may be over: they go to the garbage file.
    "late": replace(SCENARIOS["split piece"], kills=True, late_over=True),
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

# Which scenario misses each rule, and how: loss, duplicate or deadlock, as in the design's table.
MISSED: Final = {
    "consecutive_block_numbers": ("roll-over", "loss"),
    "whole_pieces": ("split piece", "loss"),
    "whole_groups": ("split piece", "duplicate"),
    "boundary_with_its_part": ("long piece", "misfiled"),
    "wild_number_closes_nothing": ("wild number", "misfiled"),
    "anew_is_not_late": ("counts anew", "misfiled"),
    "next_alone_is_admitted": ("plain", "loss"),
    "resend_from_lowest": ("plain", "deadlock"),
    "acknowledgement_journalled": ("plain", "deadlock"),
    "duplicates_by_admitted": ("plain", "duplicate"),
    "acknowledge_committed": ("plain", "loss"),
    "all_pieces_settle": ("two streams", "loss"),
    "watermark_as_sent": ("one of two runs ends", "duplicate"),
    "watermark_outlives_run": ("one of two runs ends", "duplicate"),
    "one_taker_at_a_time": ("run ends", "loss"),
    "random_session": ("one name", "loss"),
    "name_held_while_alive": ("one name", "deadlock"),
    "name_held_over_restart": ("one name", "deadlock"),
    "tail_not_adopted": ("plain", "loss"),
    "tail_cut": ("plain", "duplicate"),
    "sealed_not_retried": ("failed sync", "loss"),
    "moved_blocks_keep_numbers": ("failed sync", "deadlock"),
    "predecessor_named": ("failed sync", "duplicate"),
    "readers_stop_at_sealed": ("failed sync", "duplicate"),
    "open_after_directory_sync": ("roll-over", "loss"),
    "acknowledgement_absolute": ("plain", "deadlock"),
    "acknowledgement_repeated": ("plain", "deadlock"),
    "hello_again": ("plain", "deadlock"),
    "selective_acknowledgement": ("stalled stream", "deadlock"),
    "placeholders": ("stalled stream", "deadlock"),
    "exit_on_failed_commit": ("failed commit", "loss"),
    "journal_copied_after_failure": ("failed commit", "loss"),
    "full_group_kept": ("full journal", "deadlock"),
}
