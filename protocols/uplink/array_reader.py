"""A packed block of whole rows → arrays, all columns of a kind at once. Pure.

Reads what protocols/uplink/blocks.py reads, and refuses what it refuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.uplink import array_streams
from protocols.uplink.array_streams import Unsigned
from protocols.uplink.arrays import ArrayBlock
from protocols.uplink.columns import EXACT, unpack_runs
from protocols.uplink.flat import FLOATS, PATTERNS, TEXTS, Layout, picker
from protocols.uplink.lanes import MASK
from protocols.uplink.streams import TIME_SCALES, WIDTHS, XOR, ColumnError
from protocols.values import ValueType

_NUMBERS = [kind for kind in ValueType if kind not in TEXTS]
_POWERS = np.array([10.0**exponent for exponent in range(XOR)])
_CODE = {kind: code for code, kind in enumerate(_NUMBERS)}


class _Columns:
    """The number columns of a layout: what is the same for all its blocks."""

    def __init__(self, layout: Layout) -> None:
        numbers = layout.numbers
        self.kinds = np.array([_CODE[layout.tags[at][1]] for at in numbers], np.uint8)
        self.exponents = np.array([layout.exponents[at] for at in numbers], np.uint8)
        self.firsts = np.array([layout.firsts[at] & MASK for at in numbers], np.uint64)
        self.is_float = np.array([layout.tags[at][1] in FLOATS for at in numbers], np.bool_)
        self.positions = np.array(numbers, np.intp)
        texts = {kind: layout.by_type.get(kind, ()) for kind in TEXTS}
        order = {at: place for place, at in enumerate(sorted(chain.from_iterable(texts.values())))}
        self.extras = {kind: picker([order[at] for at in found]) for kind, found in texts.items() if found}
        self.extras_count = len(order)
        self.patterns = np.array([PATTERNS.get(layout.tags[at][1], 0) for at in numbers], np.uint8)


def unpack_arrays(
    layout: Layout, rows: int, modes: bytes, packed: Sequence[bytes], extras: Sequence[Any]
) -> ArrayBlock:
    """A block of at least one row. Raises ColumnError."""
    columns = layout.plans.setdefault(b"", None) or _Columns(layout)
    layout.plans[b""] = columns
    with np.errstate(all="ignore"):  # what is too large for 32 bits becomes infinite, as it should
        reader = _Reader(columns, rows, modes, packed)
        times_us = reader.times_us(layout.time_us)
        values: dict[ValueType, Any] = reader.values()
    values.update(_texts(columns, rows, extras))
    return ArrayBlock(layout, times_us, values, columns.positions[reader.is_pattern].tolist())


class _Reader:
    def __init__(self, columns: _Columns, rows: int, modes: bytes, packed: Sequence[bytes]) -> None:
        """Raises ColumnError."""
        self._columns, self._rows = columns, rows
        self._time_mode, of_columns = modes[0] if modes else 0xFF, np.frombuffer(modes, np.uint8)[1:]
        top = max(self._time_mode, int(of_columns.max(initial=0)))
        if len(of_columns) != len(columns.kinds) or top >> 4 >= len(WIDTHS):
            raise ColumnError("a block's modes are too many, too few or unknown")
        self._codes, self._exponents = of_columns >> 4, of_columns & 0x0F
        self.is_pattern = columns.is_float & (self._exponents == XOR)
        if (of_columns[self.is_pattern] != columns.patterns[self.is_pattern]).any():
            raise ColumnError("a float column has patterns of another width than its own")
        if self._exponents[~columns.is_float].any():
            raise ColumnError("a column of whole numbers has a decimal exponent")
        self._integer_columns = np.flatnonzero(~self.is_pattern)
        firsts = array_streams.read_varints(packed[0])
        if len(firsts) != 1 + len(self._integer_columns):
            raise ColumnError("a block has more or fewer first values than its columns need")
        self._firsts = array_streams.unzigzag(firsts)
        self._steps: dict[int, Unsigned] = {}
        self._bits: dict[int, Unsigned] = {}
        self._time_steps: NDArray[Any] = np.zeros(rows - 1, np.int64)
        counts = np.bincount(self._codes, minlength=len(WIDTHS)).tolist()
        for code, width in enumerate(WIDTHS[1:], 1):
            if counts[code] or packed[code] or self._time_mode >> 4 == code:
                self._cut(code, array_streams.unshuffle(packed[code], width))

    def _cut(self, code: int, numbers: Unsigned) -> None:
        """One stream to the columns of its width."""
        rows, columns = self._rows, np.flatnonzero(self._codes == code)
        if self._time_mode >> 4 == code:
            self._time_steps, numbers = array_streams.unzigzag(numbers[: rows - 1]), numbers[rows - 1 :]
            if len(self._time_steps) < rows - 1:
                raise ColumnError("a stream ends too early")
        is_pattern = self.is_pattern[columns]
        counts = np.where(is_pattern, rows, rows - 1)
        if int(counts.sum()) != len(numbers):
            raise ColumnError("a stream has more or fewer numbers than its columns need")
        if is_pattern.all():
            self._bits[code] = numbers.reshape(-1, rows)
        elif not is_pattern.any():
            self._steps[code] = numbers.reshape(len(columns), rows - 1)
        else:
            table = array_streams.as_table(numbers, ~is_pattern, rows)
            self._bits[code], self._steps[code] = table[is_pattern], table[~is_pattern, 1:]

    def times_us(self, base_us: int) -> list[int]:
        """Raises ColumnError."""
        scale = TIME_SCALES.get(self._time_mode & 0x0F)
        if scale is None:
            raise ColumnError("a block's times have an unknown scale")
        times = np.concatenate(([self._firsts[0] + np.int64(base_us // scale)], self._time_steps))
        return [time * scale for time in np.cumsum(times, dtype=np.int64).tolist()]

    def values(self) -> dict[ValueType, NDArray[Any]]:
        """By type, as in ArrayBlock."""
        numbers, is_near = self._integers()
        row_of = np.cumsum(~self.is_pattern) - 1
        found: dict[ValueType, NDArray[Any]] = {}
        for code, kind in enumerate(_NUMBERS):
            columns = np.flatnonzero(self._columns.kinds == code)
            if not len(columns):
                continue
            is_pattern = self.is_pattern[columns]
            if is_pattern.all():
                found[kind] = self._patterns(kind, columns)
                continue
            rows = row_of[columns[~is_pattern]]
            own = numbers if len(rows) == len(numbers) else numbers[rows]
            if kind in FLOATS:
                own = _decimals(kind, own, self._exponents[columns[~is_pattern]], is_near[rows])
            elif kind is ValueType.UINT:
                own = own.view(np.uint64)
            if is_pattern.any():
                both = np.empty((len(columns), self._rows), own.dtype)
                both[~is_pattern], both[is_pattern] = own, self._patterns(kind, columns[is_pattern])
                own = both
            found[kind] = own
        return found

    def _integers(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """All integer sequences but the times, and which of them stay below 2^53 for certain."""
        columns, codes = self._integer_columns, self._codes[self._integer_columns]
        has_base = self._exponents[columns] == self._columns.exponents[columns]
        bases = np.where(has_base, self._columns.firsts[columns], 0).astype(np.uint64).view(np.int64)
        numbers = np.empty((len(columns), self._rows), np.int64)
        numbers[:, 0] = firsts = self._firsts[1:] + bases
        is_near = (np.abs(firsts) < EXACT // 2) & (codes < 4) & (firsts > -EXACT)
        if not codes.any():
            numbers[:, 1:] = firsts[:, None]
            return numbers, is_near
        for code in np.flatnonzero(np.bincount(codes)).tolist():
            chosen = slice(None) if (codes == code).all() else codes == code
            numbers[chosen, 1:] = array_streams.unzigzag(self._steps[code]) if code else 0
        return np.cumsum(numbers, axis=1, out=numbers), is_near

    def _patterns(self, kind: ValueType, columns: NDArray[np.intp]) -> NDArray[Any]:
        """The values of these columns, which are all of their kind that come as patterns."""
        has_base = self._columns.exponents[columns] == XOR
        steps = self._bits[WIDTHS.index(FLOATS[kind][2])]
        steps = steps.copy()
        steps[:, 0] ^= np.where(has_base, self._columns.firsts[columns], 0).astype(steps.dtype)
        bits = np.bitwise_xor.accumulate(steps, axis=1, out=steps)
        return bits.astype(f"=u{bits.itemsize}", copy=False).view(f"f{bits.itemsize}")


def _decimals(
    kind: ValueType, numbers: NDArray[np.int64], exponents: NDArray[np.uint8], is_near: NDArray[np.bool_]
) -> NDArray[Any]:
    values = numbers.astype(np.float64)
    if exponents.any():
        values /= _POWERS[exponents][:, None]
    if is_near.all():
        return values.astype(np.float32) if kind is ValueType.FLOAT32 else values
    far = np.flatnonzero(~is_near)
    far = far[((numbers[far] >= EXACT) | (numbers[far] <= -EXACT)).any(axis=1)]
    for at in far.tolist():  # n alone may need rounding here, so that a division would round twice
        power = 10 ** int(exponents[at])
        values[at] = [number / power for number in numbers[at].tolist()]
    return values.astype(np.float32) if kind is ValueType.FLOAT32 else values


def _texts(columns: _Columns, rows: int, extras: Sequence[Any]) -> Mapping[ValueType, Any]:
    if len(extras) != columns.extras_count:
        raise ColumnError("a block has more or fewer extras than columns of bits and texts")
    found: dict[ValueType, Any] = {}
    for kind, pick in columns.extras.items():
        own = pick(extras)
        if kind is ValueType.STRING:
            found[kind] = [unpack_runs(extra, rows, str) for extra in own]
            continue
        width = (rows + 7) // 8
        if set(map(type, own)) != {bytes} or set(map(len, own)) != {width}:
            raise ColumnError(f"a bool column of {rows} values has no {width} bytes")
        packed = np.frombuffer(b"".join(own), np.uint8).reshape(len(own), width)
        found[kind] = np.unpackbits(packed, axis=1, count=rows, bitorder="little").view(np.bool_)
    return found
