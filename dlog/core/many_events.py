"""Many events at once, as numpy arrays: what `send_many` is given, checked, and cut into parts.

It holds no event longer than the call and copies nothing that lies well already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlog.limits import EVENT_BYTES_MAX
from dlog.model.events import EVENT_BYTES, Payload

Buffer: TypeAlias = bytes | bytearray | memoryview | NDArray[Any]


@dataclass(frozen=True, slots=True)
class ManyEvents:
    """Events of one stream set. payload: all of them behind each other; times_ns: one for each, or
    one for all."""

    numbers: NDArray[np.uint64]
    times_ns: NDArray[np.uint64] | int
    sizes: NDArray[np.uint32]
    payload: Payload

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def queue_bytes(self) -> int:
        """What they take of a source's queue."""
        return EVENT_BYTES * len(self.sizes) + len(self.payload)

    def parts(self, part_bytes: int) -> Iterator[ManyEvents]:
        """The same events, about so many bytes at a time; one event at least."""
        if self.queue_bytes <= part_bytes:
            yield self
            return
        ends = np.cumsum(self.sizes, dtype=np.int64)
        weights = ends + EVENT_BYTES * np.arange(1, len(self) + 1)
        begin = at = taken = 0
        while begin < len(self):
            end = max(begin + 1, int(np.searchsorted(weights, taken + part_bytes, side="right")))
            stop = int(ends[end - 1])
            yield ManyEvents(
                self.numbers[begin:end],
                self.times_ns if isinstance(self.times_ns, int) else self.times_ns[begin:end],
                self.sizes[begin:end],
                self.payload[at:stop],
            )
            begin, at, taken = end, stop, int(weights[end - 1])


def flat(payload: Buffer) -> bytes | bytearray | memoryview:
    """The payload as bytes, one behind the other; copied only where it does not lie like that."""
    if isinstance(payload, bytes | bytearray):
        return payload
    view = payload.data if isinstance(payload, np.ndarray) else payload
    return view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes()


def payload_and_sizes(
    payload: Buffer, sizes: ArrayLike | None
) -> tuple[Payload, NDArray[np.uint32]]:
    """The payloads behind each other, and the size of each. Raises `ValueError`.

    Without `sizes`, the payload's first axis counts the events.
    """
    if sizes is not None:
        return _flat_with_sizes(payload, np.asarray(sizes))
    array = np.ascontiguousarray(payload)
    if array.ndim < 2:
        raise ValueError("an array needs a first axis that counts the events; or give sizes")
    size = array.nbytes // len(array) if len(array) else 0
    if size > EVENT_BYTES_MAX:
        raise ValueError(f"an event of {size} B; {EVENT_BYTES_MAX} B is the limit")
    data = array.reshape(-1).view(np.uint8) if array.nbytes else np.empty(0, np.uint8)
    return data, np.full(len(array), size, np.uint32)


def _flat_with_sizes(payload: Buffer, sizes: NDArray[Any]) -> tuple[Payload, NDArray[np.uint32]]:
    content = flat(payload)
    data = np.frombuffer(content, np.uint8) if len(content) else np.empty(0, np.uint8)
    if sizes.size == 0:
        sizes = np.empty(0, np.uint32)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu":
        raise ValueError("sizes: a list of whole numbers")
    if len(sizes) and (
        (sizes.dtype.kind == "i" and int(sizes.min()) < 0) or int(sizes.max()) > EVENT_BYTES_MAX
    ):
        raise ValueError(f"sizes: from 0 to {EVENT_BYTES_MAX}")
    if int(sizes.sum(dtype=np.int64)) != len(data):
        raise ValueError("the sizes do not add up to the payload")
    return data, sizes.astype(np.uint32, copy=False)


def unsigned(values: ArrayLike, count: int, what: str) -> NDArray[np.uint64]:
    """Event numbers or times. Raises `ValueError`."""
    array = np.asarray(values)
    if array.shape != (count,) or (count and array.dtype.kind not in "iu"):
        raise ValueError(f"{what}: {count} whole numbers, one for each event")
    if array.dtype.kind == "i" and count and int(array.min()) < 0:
        raise ValueError(f"{what}: none may be negative")
    return array.astype(np.uint64)
