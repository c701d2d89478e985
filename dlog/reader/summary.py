"""What one file holds, from its headers and fragment tables: totals, sizes, and by session and
stream the batches whose events lie in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from dlog.core.block import FRAGMENT_LAST, OrphanReason
from dlog.core.event_file import FORMAT_VERSION, INDEX_DTYPE, Closing, FileHeader, Sidecar, Totals
from dlog.core.filters import Compression
from dlog.errors import FormatError
from dlog.reader.block import stream_of
from dlog.reader.event_file import EventFile, PathLike, Tail, payload_bytes


class SessionSummary(msgspec.Struct, kw_only=True):
    """Events of a session for a stream as it was sent. pieces: of its batches, those that end here,
    and so are stored."""

    session: bytes
    run: int
    stream: str
    first_sequence: int
    last_sequence: int = 0
    events: int = 0
    payload_bytes: int = 0
    pieces: int = 0
    orphan_reason: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """state: closed, open, sealed or damaged. block_bytes: what the events blocks take on disk,
    raw_bytes: what they would take raw. damage: where the blocks could not be followed further; all
    else is as of what is before it."""

    path: Path
    state: str
    header: FileHeader
    format_version: int
    sidecar: Sidecar | None
    closing: Closing | None
    totals: Totals
    block_bytes: int
    raw_bytes: int
    compressed_blocks: int
    index: NDArray[Any]
    sessions: list[SessionSummary]
    tail: Tail | None
    damage: FormatError | None


def summarise(path: PathLike) -> Summary:
    """Raises `FormatError` where the header does not hold, and `OSError`."""
    file = EventFile(path)
    totals = Totals()
    block_bytes = raw_bytes = compressed = 0
    rows: list[tuple[int, ...]] = []
    sessions: dict[tuple[bytes, int, bytes, int], SessionSummary] = {}
    damage = None
    try:
        for h, pieces in file.outline():
            totals = totals.plus(h, payload_bytes(h))
            block_bytes += h.block_bytes
            raw_bytes += h.raw_bytes
            compressed += h.compression is not Compression.NONE
            rows.append(
                (h.offset, h.number, h.first_event, h.last_event, h.time_ns, h.events,
                 h.block_bytes)
            )  # fmt: skip
            for piece in pieces:
                _add(sessions, piece)
    except FormatError as error:
        damage = error
    state = "sealed" if file.sealed_bytes is not None else "open" if file.is_open else "closed"
    return Summary(
        file.path, "damaged" if damage else state, file.header, FORMAT_VERSION, file.sidecar,
        file.closing, totals, block_bytes, raw_bytes, compressed, np.array(rows, INDEX_DTYPE),
        sorted(sessions.values(), key=lambda s: (s.run, s.stream, s.session)), file.tail, damage,
    )  # fmt: skip


def _add(sessions: dict[tuple[bytes, int, bytes, int], SessionSummary], piece: Any) -> None:
    reason = int(piece["flags"]) >> 8 & 0xFF
    key = (piece["session"].tobytes(), int(piece["run"]), bytes(piece["stream"]), reason)
    sequence = int(piece["sequence"])
    session = sessions.get(key)
    if session is None:
        words = OrphanReason(reason if reason in set(OrphanReason) else OrphanReason.OTHER).words
        session = sessions[key] = SessionSummary(
            session=key[0], run=key[1], stream=stream_of(piece), first_sequence=sequence,
            orphan_reason=words,
        )  # fmt: skip
    session.first_sequence = min(session.first_sequence, sequence)
    session.last_sequence = max(session.last_sequence, sequence)
    session.events += int(piece["events"])
    session.payload_bytes += int(piece["payload_bytes"])
    session.pieces += bool(int(piece["flags"]) & FRAGMENT_LAST)
