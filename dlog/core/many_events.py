"""Many events at once, as numpy arrays: what `send_many` is given, checked, and cut into parts.

It holds no event longer than the call and copies nothing that lies well already.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlog.limits import EVENT_BYTES_MAX
from dlog.model.events import EVENT_BYTES, Payload

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# What has the buffer protocol; collections.abc has a name for it from Python 3.12 on.
Buffer: TypeAlias = "ReadableBuffer | NDArray[Any]"

_U64_MAX: Final = 2**64 - 1
_I64_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ManyEvents:
    """Events of one stream set. payload: all of them behind each other; times_ns: one for each, or
    one for all; numbers: None where they are given when the events are taken (`numbered`)."""

    numbers: NDArray[np.uint64] | None
    times_ns: NDArray[np.uint64] | int
    sizes: NDArray[np.uint32]
    payload: Payload

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def queue_bytes(self) -> int:
        """What they take of a source's queue."""
        return EVENT_BYTES * len(self.sizes) + len(self.payload)

    def numbered(self, first: int) -> ManyEvents:
        """The same events with numbers, counted on from `first` where they have none."""
        if self.numbers is not None:
            return self
        count = len(self.sizes)
        end = first + count
        if end <= _I64_MAX:
            numbers = np.arange(first, end, dtype=np.uint64)
        elif end - 1 <= _U64_MAX:  # more than arange takes
            numbers = np.uint64(first) + np.arange(count, dtype=np.uint64)
        else:
            raise ValueError(f"event numbers from {first} on for {count} events: up to {_U64_MAX}")
        return ManyEvents(numbers, self.times_ns, self.sizes, self.payload)

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
                None if self.numbers is None else self.numbers[begin:end],
                self.times_ns if isinstance(self.times_ns, int) else self.times_ns[begin:end],
                self.sizes[begin:end],
                self.payload[at:stop],
            )
            begin, at, taken = end, stop, int(weights[end - 1])


def flat(payload: Buffer) -> bytes | bytearray | memoryview:
    """The payload as bytes, in C order; copied only where they do not lie like that.

    Raises `TypeError` for what is no buffer, and for a buffer of pointers: an address says nothing
    to whoever reads the file.
    """
    if isinstance(payload, bytes | bytearray):
        return payload
    try:
        view = memoryview(payload)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        if not isinstance(payload, np.ndarray):
            raise _no_payload(payload) from None
        return _array_bytes(payload).data  # of a dtype that exports no buffer, such as a date
    if view.format in _NUMBERS and view.c_contiguous and view.nbytes:
        return view.cast("B")
    if isinstance(payload, np.ndarray):
        return _array_bytes(payload).data
    view = _buffer(payload)
    if not view.nbytes:
        return b""
    # frombuffer, since a cast refuses what is not of a native format.
    return np.frombuffer(view if view.c_contiguous else view.tobytes(), np.uint8).data


# Formats of native numbers, of which nothing else has to be known.
_NUMBERS: Final = frozenset("bBhHiIlLqQefd?c")
# Type codes of buffers that hold addresses, as struct, ctypes and numpy write them; "Zd" and the
# like are complex numbers. Between colons stand names of fields.
_FIELD_NAME: Final = re.compile(r":[^:]*:")
_POINTER: Final = re.compile(r"[OPz&X]|Z(?![fdg])")


def _buffer(payload: object) -> memoryview:
    try:
        view = memoryview(payload)  # type: ignore[arg-type]
    except TypeError:
        raise _no_payload(payload) from None
    if isinstance(payload, str) or _POINTER.search(_FIELD_NAME.sub("", view.format)):
        raise _no_payload(payload)
    return view


def _no_payload(payload: object) -> TypeError:
    kind = type(payload).__name__
    if isinstance(payload, str):
        return TypeError(f"a payload of type {kind} is not bytes: encode it, text.encode()")
    if isinstance(payload, np.ndarray):
        return TypeError(
            f"a payload of type {kind} with dtype {payload.dtype} holds Python objects, not their "
            "values: convert it to a dtype of a fixed size, or encode the objects"
        )
    return TypeError(
        f"a payload of type {kind} is not a buffer of values: give bytes, bytearray, memoryview, a "
        "numpy array, array.array or a ctypes array of numbers, or encode it"
    )


def _array_bytes(array: NDArray[Any]) -> Payload:
    """The bytes of an array in C order. A view as bytes, since some dtypes export no buffer."""
    if array.dtype.hasobject:
        raise _no_payload(array)
    if not array.nbytes:
        return np.empty(0, np.uint8)
    return np.asarray(array, order="C").reshape(-1).view(np.uint8)


def payload_and_sizes(
    payload: Buffer, sizes: ArrayLike | None
) -> tuple[Payload, NDArray[np.uint32]]:
    """The payloads behind each other, and the size of each. Raises `ValueError` and, as `flat`,
    `TypeError`.

    Without `sizes`, the payload's first axis counts the events.
    """
    if sizes is not None:
        return _flat_with_sizes(payload, np.asarray(sizes))
    array = payload if isinstance(payload, np.ndarray) else np.asarray(_buffer(payload))
    data = _array_bytes(array)
    if array.ndim < 2:
        raise ValueError("an array needs a first axis that counts the events; or give sizes")
    size = len(data) // len(array) if len(array) else 0
    if size > EVENT_BYTES_MAX:
        raise ValueError(f"an event of {size} B; {EVENT_BYTES_MAX} B is the limit")
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
