"""Every bound of dlog in one file, its unit last. Nothing is allocated before one of these held."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# --- names and numbers
STREAM_NAME_BYTES_MAX: Final = 32
SOURCE_NAME_BYTES_MAX: Final = 64
HOST_LETTERS_MAX: Final = 255
RUN_NUMBER_MAX: Final = 2**32 - 1
STREAMS_PER_BATCH_MAX: Final = 32
PIECES_PER_BATCH_MAX: Final = 64  # runs times streams
STREAMS_PER_RUN_MAX: Final = 256
RUNS_ACTIVE_MAX: Final = 64
SESSIONS_MAX: Final = 256
CLOSED_SESSIONS_MAX: Final = 4096
WATERMARKS_PER_SESSION_MAX: Final = 4096

# --- messages
EVENT_BYTES_MAX: Final = 64 * MIB
BATCH_EVENTS_MAX: Final = 262_144
CONTROL_MESSAGE_BYTES_MAX: Final = 256 * KIB
# A batch holds at least the largest event, its table row, the stream names and the header.
MESSAGE_BYTES_MAX: Final = EVENT_BYTES_MAX + MIB
BATCH_BYTES_DEFAULT: Final = MIB
SELECTIVE_RANGES_MAX: Final = 1024
DIVERSIONS_KEPT_MAX: Final = 256  # of a session, by run, stream and reason; beyond: by reason
REFUSALS_TOLD_MAX: Final = 256  # in one message; the next ones when these are confirmed

# --- blocks and files
PAGE_BYTES: Final = 4096
BLOCK_BYTES_DEFAULT: Final = MIB
BLOCK_BYTES_MAX: Final = MESSAGE_BYTES_MAX + 16 * MIB
BLOCK_EVENTS_MAX: Final = 2 * BATCH_EVENTS_MAX
BLOCK_PIECES_MAX: Final = 16_384
SMALL_BLOCK_BYTES: Final = 64 * KIB
COMPRESSION_GAIN_MIN: Final = 0.03
BLOCKS_PER_FILE_MAX: Final = 1_000_000
# END parts of a stream that are kept open for late events; the oldest closes where there are more.
END_PARTS_MAX: Final = 16
# Parts that one batch may fill; the last one takes the rest of it. Each is an open file meanwhile.
PARTS_PER_BATCH_MAX: Final = 64
ANEW_SESSIONS_MAX: Final = 64  # of a stream: sessions that count anew, or whose events are late
RESERVE_BYTES_MIN: Final = MIB
RESERVE_BYTES_DEFAULT: Final = 64 * MIB
RESERVE_BYTES_MAX: Final = 1024 * GIB

# --- memory of a source: the largest event fits beside others
SOURCE_QUEUE_BYTES_DEFAULT: Final = 128 * MIB

# --- memory of the logger
MEMORY_BYTES_DEFAULT: Final = 512 * MIB
SYNC_BYTES_MAX: Final = 8 * MIB

# --- journal
JOURNAL_MAP_BYTES_INITIAL: Final = 256 * MIB
JOURNAL_MAP_BYTES_MAX: Final = 64 * GIB
JOURNAL_ASIDES_KEPT_MAX: Final = 3  # data.mdb.failed-N; older ones are removed
JOURNAL_VALUE_BYTES_MAX: Final = 4 * MIB
COUNTS_PER_RUN_MAX: Final = 8192  # sources times streams; what is beyond is one source
ORPHAN_SOURCES_MAX: Final = 1024  # with counters of their own; what is beyond is one source
OPERATIONS_KEPT_MAX: Final = 10_000
COMMANDS_KEPT_MAX: Final = 10_000
COMMANDS_IN_HAND_MAX: Final = 1000
COMMAND_NAME_LETTERS_MAX: Final = 64
ERROR_LETTERS_MAX: Final = 32_000

# --- time
HEARTBEAT_MS: Final = 500
HEARTBEATS_MISSED_MAX: Final = 6
SECONDS_MAX: Final = 10 * 366 * 24 * 3600  # of any configured time; nanoseconds of it fit
MONITOR_INTERVAL_MS_MAX: Final = 24 * 3600 * 1000
SESSION_EXPIRY_SECONDS_DEFAULT: Final = 7 * 24 * 3600
THREAD_SWITCH_SECONDS: Final = 0.0005
