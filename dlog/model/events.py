"""The event table: the fixed-size record that stands for an event in batches and in blocks.

The layout is that of docs/FORMAT.md, "Event table". It holds no payload and does no I/O.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# 32 bytes, little-endian, no padding: numpy reads it in place from a message or a block.
EVENT_DTYPE: Final = np.dtype(
    [
        ("number", "<u8"),  # event number, given by the experiment
        ("time_ns", "<u8"),  # nanoseconds since 1970-01-01 UTC, the source's clock; 0 = unknown
        ("run", "<u4"),
        ("size", "<u4"),  # bytes of payload
        ("streams", "<u4"),  # bit i: meant for the i-th stream that the batch names
        ("order", "<u4"),  # position in the session's sending order, less the batch's order_base
    ]
)
EVENT_BYTES: Final = EVENT_DTYPE.itemsize
assert EVENT_BYTES == 32

# Shape (n,), dtype EVENT_DTYPE.
EventTable = NDArray[Any]
# Shape (bytes,), dtype uint8: the payloads of a table's events, one behind the other, no padding.
Payload = NDArray[np.uint8]
