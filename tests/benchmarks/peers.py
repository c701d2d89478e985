"""Other ways to write events durably, as their own users would: MCAP, HDF5, SQLite.

Each writes the same events from memory, in its own process's only thread, and makes everything
durable after as many bytes as the logger does at least. No network is between: dlog has one.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from dlog.bench.events import random_bytes
from dlog.limits import MIB, SYNC_BYTES_MAX

GROUP_BYTES: Final = SYNC_BYTES_MAX
MCAP_CHUNK_BYTES: Final = MIB
POOL_BYTES: Final = 48 * MIB


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer's process is to do, the one argument."""

    peer: str
    folder: str
    event_bytes: int
    seconds: float
    bytes_max: int


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. rate: bytes of payload a second."""

    peer: str
    events: int
    payload_bytes: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.payload_bytes / self.seconds


Rows = NDArray[np.uint8]  # shape (events, bytes of an event)
# Writes a group of events, the number of the first one given, and makes it durable; the second one
# closes what is open.
Group = Callable[[int, Rows], None]
Peer = tuple[Group, Callable[[], None]]


def mcap_with_crc(folder: Path, event_bytes: int) -> Peer:
    """MCAP: chunks of 1 MiB with their CRC, not compressed."""
    from mcap.writer import CompressionType, Writer

    file = (folder / "peer.mcap").open("wb", buffering=0)
    writer = Writer(
        file, chunk_size=MCAP_CHUNK_BYTES, compression=CompressionType.NONE, enable_crcs=True
    )
    writer.start(profile="", library="bench")
    schema = writer.register_schema(name="raw", encoding="", data=b"")
    channel = writer.register_channel(topic="s0", message_encoding="raw", schema_id=schema)

    def group(first: int, rows: Rows) -> None:
        now = time.time_ns()
        for number, row in enumerate(memoryview(rows.reshape(-1)[i : i + event_bytes])
                                     for i in range(0, rows.size, event_bytes)):  # fmt: skip
            writer.add_message(
                channel_id=channel, log_time=now, publish_time=now, sequence=first + number,
                data=row,
            )  # fmt: skip
        os.fdatasync(file.fileno())

    def close() -> None:
        writer.finish()
        os.fdatasync(file.fileno())
        file.close()

    return group, close


def hdf5_in_batches(folder: Path, event_bytes: int) -> Peer:
    """HDF5: a dataset of rows, a group of events at once. Nothing of it is checksummed."""
    import h5py

    rows_in_chunk = max(1, MIB // event_bytes)
    file = h5py.File(folder / "peer.h5", "w", libver="latest")
    numbers = file.create_dataset("number", (0, 2), "<u8", maxshape=(None, 2), chunks=(65536, 2))
    data = file.create_dataset(
        "payload", (0, event_bytes), "u1", maxshape=(None, event_bytes),
        chunks=(rows_in_chunk, event_bytes),
    )  # fmt: skip
    descriptor = os.open(folder / "peer.h5", os.O_RDONLY)

    def group(first: int, rows: Rows) -> None:
        end = first + len(rows)
        numbers.resize(end, axis=0)
        data.resize(end, axis=0)
        header = np.empty((len(rows), 2), "<u8")
        header[:, 0] = np.arange(first, end)
        header[:, 1] = time.time_ns()
        numbers[first:end] = header
        data[first:end] = rows
        file.flush()
        os.fdatasync(descriptor)

    def close() -> None:
        file.close()
        os.fdatasync(descriptor)
        os.close(descriptor)

    return group, close


def sqlite_wal_full(folder: Path, event_bytes: int) -> Peer:
    """SQLite: WAL, synchronous=FULL, a transaction for a group of events."""
    database = sqlite3.connect(folder / "peer.sqlite", isolation_level=None)
    database.execute("PRAGMA page_size=16384")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE event (number INTEGER PRIMARY KEY, time_ns INTEGER, data BLOB)")

    def group(first: int, rows: Rows) -> None:
        now = time.time_ns()
        made = zip(range(first, first + len(rows)), repeat(now), rows, strict=False)
        database.execute("BEGIN")
        database.executemany("INSERT INTO event VALUES (?, ?, ?)", made)
        database.execute("COMMIT")

    return group, database.close


PEERS: Final[dict[str, Callable[[Path, int], Peer]]] = {
    "mcap": mcap_with_crc,
    "hdf5": hdf5_in_batches,
    "sqlite": sqlite_wal_full,
}


def write(order: Order) -> Written:
    count = max(1, GROUP_BYTES // order.event_bytes)
    pool = random_bytes(max(1, POOL_BYTES // GROUP_BYTES) * count * order.event_bytes)
    rows = pool.reshape(-1, order.event_bytes)
    group, close = PEERS[order.peer](Path(order.folder), order.event_bytes)
    events = 0
    begin = time.monotonic()
    while events * order.event_bytes < order.bytes_max and (
        time.monotonic() - begin < order.seconds
    ):
        at = events % len(rows)
        group(events, rows[at : at + count])
        events += count
    close()
    return Written(
        peer=order.peer, events=events, payload_bytes=events * order.event_bytes,
        seconds=time.monotonic() - begin,
    )  # fmt: skip


def main() -> None:
    written = write(msgspec.json.decode(sys.argv[1], type=Order))
    print(msgspec.json.encode(written).decode())


if __name__ == "__main__":
    main()
