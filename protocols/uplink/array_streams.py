"""Streams of numbers ⇄ bytes with numpy: the same bytes as protocols/uplink/streams.py makes and reads. Pure.

Imported only where numpy is there and pays, see protocols/uplink/arrays.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.uplink.streams import WIDTHS, ColumnError

Unsigned = NDArray[np.unsignedinteger[Any]]
Signed = NDArray[np.int64]

_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}
"""By bytes: what a stream is made of."""
_LONGER = np.array([1 << 7 * length for length in range(1, 10)], np.uint64)
"""From these numbers on a variable-length integer takes one byte more."""
_TOPS = np.array([0, 0xFF, 0xFFFF, 0xFFFFFFFF], np.uint64)
_STEPS = ((np.int8, 7), (np.int16, 15), (np.int32, 31), (np.int64, 63))


def zigzag(steps: NDArray[Any]) -> Unsigned:
    """Signed → unsigned of the same width."""
    zigzagged = steps << 1
    zigzagged ^= steps >> (8 * steps.itemsize - 1)
    return zigzagged.view(f"u{steps.itemsize}")


def unzigzag(numbers: Unsigned) -> NDArray[Any]:
    """The inverse."""
    back: NDArray[Any] = (numbers >> 1).view(f"i{numbers.itemsize}") ^ -(numbers & 1).view(f"i{numbers.itemsize}")
    return back


def narrowed(steps: Signed) -> NDArray[Any]:
    """In the narrowest integers whose zigzag holds them."""
    low, high = int(steps.min()), int(steps.max())
    for dtype, bits in _STEPS:
        if -(1 << bits) <= low and high < 1 << bits:
            return steps.astype(dtype, copy=False)
    return steps


def codes(numbers: Unsigned) -> NDArray[np.uint8]:
    """For each row, which of WIDTHS holds its numbers."""
    starts = np.arange(0, numbers.size, numbers.shape[1])
    tops = np.maximum.reduceat(numbers.ravel(), starts)
    if numbers.itemsize == 1:
        return (tops > 0).view(np.uint8)
    return np.searchsorted(_TOPS, tops.astype(np.uint64)).astype(np.uint8)


def shuffle(numbers: NDArray[Any], width: int) -> bytes:
    """As a stream of `width`-byte numbers: all least significant bytes first, then the next ones, and so on."""
    if width == 1:
        return numbers.astype(np.uint8, copy=False).tobytes()
    return b"".join([(numbers >> (8 * plane)).astype(np.uint8).tobytes() for plane in range(width)])


def unshuffle(data: bytes, width: int) -> Unsigned:
    """The inverse. Raises ColumnError."""
    count, rest = divmod(len(data), width)
    if rest:
        raise ColumnError(f"a stream of {width}-byte numbers has {len(data)} bytes")
    planes = np.frombuffer(data, np.uint8).reshape(width, count)
    numbers: Unsigned = planes[width - 1].astype(_DTYPES[width], copy=False)
    for plane in range(width - 2, -1, -1):
        numbers <<= 8
        numbers |= planes[plane]
    return numbers


def varints(numbers: Unsigned) -> bytes:
    """Unsigned LEB128."""
    lengths = np.searchsorted(_LONGER, numbers, side="right") + 1
    ends = np.cumsum(lengths)
    found = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    at, rest = ends - lengths, numbers
    while len(rest):
        has_more = rest >= 0x80
        found[at] = rest.astype(np.uint8) & 0x7F | has_more.view(np.uint8) << 7
        at, rest = at[has_more] + 1, rest[has_more] >> np.uint64(7)
    return found.tobytes()


def read_varints(data: bytes) -> Unsigned:
    """The inverse. Raises ColumnError."""
    raw = np.frombuffer(data, np.uint8)
    if data.isascii():
        return raw.astype(np.uint64)
    if data[-1] & 0x80:
        raise ColumnError("a variable-length integer is longer than 64 bits or cut short")
    starts = np.flatnonzero(raw < 0x80) + 1
    starts[1:] = starts[:-1]
    starts[0] = 0
    group = raw[starts]
    numbers = (group & 0x7F).astype(np.uint64)
    more = np.flatnonzero(group & 0x80)
    for at in range(1, 10):
        group = raw[starts[more] + at]
        numbers[more] |= (group & 0x7F).astype(np.uint64) << np.uint64(7 * at)
        more = more[group >= 0x80]
        if not len(more):
            return numbers
    raise ColumnError("a variable-length integer is longer than 64 bits")


Part = tuple[NDArray[np.intp], Unsigned]
"""Places of some sequences, ascending, and their numbers, a row for each."""


def in_order(parts: Sequence[Part], rows: int) -> Unsigned:
    """The numbers of all sequences, by place. Each has `rows` of them, or one less."""
    if parts[0][0][0] == 0:  # the times, which stand before all others
        rest = [in_order(parts[1:], rows)] if len(parts) > 1 else []
        return np.concatenate([parts[0][1].ravel(), *rest])
    if len(parts) == 1:
        return parts[0][1].ravel()
    places = np.concatenate([part[0] for part in parts])
    ranks = np.empty(len(places), np.intp)
    ranks[np.argsort(places)] = np.arange(len(places))
    table = np.empty((len(places), rows), parts[0][1].dtype)
    is_there = np.ones(table.shape, np.bool_)
    at = 0
    for some, numbers in parts:
        own, missing = ranks[at : at + len(some)], rows - numbers.shape[1]
        table[own, missing:] = numbers
        is_there[own, :missing] = False
        at += len(some)
    return table[:, 1:].ravel() if not is_there[:, 0].any() else table[is_there]


def as_table(numbers: Unsigned, is_short: NDArray[np.bool_], rows: int) -> Unsigned:
    """The inverse: a row for each sequence, in which the first number of a short one means nothing."""
    table = np.empty((len(is_short), rows), numbers.dtype)
    is_there = np.ones(table.shape, np.bool_)
    is_there[is_short, 0] = False
    table[is_there] = numbers
    return table


def dtype_of(code: int) -> np.dtype[Any]:
    """Of a stream, by the width's code in a mode."""
    return _DTYPES[WIDTHS[code]]
