"""Whole rows as arrays → a packed block, all columns of a kind at once. Pure.

What comes out is byte for byte what protocols/uplink/rows.py makes (property tests compare them), and for the same
reasons; see protocols/uplink/bulk.py for the choices that are made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.uplink import array_streams
from protocols.uplink.array_streams import Part, Unsigned
from protocols.uplink.arrays import ArrayBlock
from protocols.uplink.bulk import SHIFT, SHIFT_BITS, UNCLEAR, Unsound, near
from protocols.uplink.columns import EXPONENT_MAX, Base, bound_of, write_values
from protocols.uplink.definition import Definition, Referring, put_together
from protocols.uplink.flat import FLOATS, PATTERNS, TEXTS, picker
from protocols.uplink.lanes import MASK
from protocols.uplink.rows import Row, runs
from protocols.uplink.streams import WIDTHS, XOR, Writer
from protocols.values import ValueType

_DTYPES: dict[ValueType, tuple[Any, type]] = {
    ValueType.BOOL: (np.bool_, bool),
    ValueType.INT: (np.int64, int),
    ValueType.UINT: (np.uint64, int),
    ValueType.FLOAT32: (np.float64, float),
    ValueType.FLOAT64: (np.float64, float),
}
_LETTERS = {4: "f", 8: "d"}
_NEAR = {size: np.array([near(code, k) for k in range(EXPONENT_MAX + 1)]).T for size, code in _LETTERS.items()}
_POWERS = np.array([10.0**exponent for exponent in range(XOR)])
Places = NDArray[np.intp]
Exponents = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Lot:
    """Columns of one type: all that are expected to be patterns, or all others. `exponents`: one for each.

    `rows`: which of the arrays of their type these are; None: all.
    """

    kind: ValueType
    exponents: Exponents
    places: Places
    bases: Unsigned
    rows: Places | None


class ArrayAssembly:
    """The sequences of one block, by place: times first, then the number columns."""

    def __init__(self, count: int, rows: int) -> None:
        self._rows = rows
        self.modes = np.zeros(count, np.uint8)
        self._firsts = np.zeros(count, np.uint64)
        self._parts: dict[int, list[Part]] = {}

    def add(self, lot: _Lot, values: NDArray[Any]) -> None:
        """Columns of a lot. `values`: one row for each; floats of 32 bits may come as such of 64. Raises Unsound."""
        if lot.kind not in FLOATS:
            values = np.ascontiguousarray(values, np.int64 if lot.kind is ValueType.INT else np.uint64)
            self._integers(lot.places, lot.exponents, values.view(np.int64), lot.bases)
            return
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        carried = values if lot.kind is ValueType.FLOAT64 else values.astype(np.float32, copy=False)
        if carried.dtype != values.dtype and (np.isinf(carried) & ~np.isinf(values)).any():
            raise Unsound
        if lot.exponents[0] == XOR:
            self._patterns(lot.kind, lot.places, carried, lot.bases)
            return
        odd = np.arange(len(values))
        if lot.exponents.max() <= EXPONENT_MAX:
            odd = self._decimals(lot.places, lot.exponents, values, carried, lot.bases)
        for thorough in (False, True):
            if len(odd):
                odd = self._regroup(lot, odd, values, carried, thorough=thorough)
        for at in odd.tolist():
            base = Base(int(lot.exponents[at]), int(lot.bases[at]))
            self.add_alone(int(lot.places[at]), lot.kind, values[at].tolist(), base)

    def add_alone(self, place: int, kind: ValueType, values: Sequence[Any], base: Base) -> None:
        """One column, the general way."""
        writer = Writer()
        write_values(writer, kind, values, base)
        self._take(place, writer)

    def add_times(self, times: Sequence[int], exponent: int, base: int) -> None:
        """The times, at place 0."""
        writer = Writer()
        writer.integers(times, exponent, base)
        self._take(0, writer)

    def packed(self) -> list[bytes]:
        """[first values, differences of 1, 2, 4 and 8 bytes]."""
        has_first = self.modes & 0x0F != XOR  # there is at least one row
        packed = [array_streams.varints(self._firsts if has_first.all() else self._firsts[has_first])]
        for code, width in enumerate(WIDTHS[1:], 1):
            parts = sorted(self._parts.get(code, ()), key=_first_place)
            packed.append(array_streams.shuffle(array_streams.in_order(parts, self._rows), width) if parts else b"")
        return packed

    def _take(self, place: int, writer: Writer) -> None:
        self.modes[place] = writer.modes[0]
        for first in writer.firsts:
            self._firsts[place] = first
        for code, stream in enumerate(writer.streams.values(), 1):
            if stream:
                numbers = np.frombuffer(stream, f"u{stream.itemsize}").astype(array_streams.dtype_of(code))
                self._add(code, np.array([place]), numbers[None, :])

    def _add(self, code: int, places: Places, numbers: Unsigned) -> None:
        self._parts.setdefault(code, []).append((places, numbers))

    def _integers(
        self,
        places: Places,
        exponents: Exponents,
        numbers: NDArray[np.int64],
        bases: Unsigned,
        scratch: NDArray[np.int64] | None = None,
    ) -> None:
        """Differences modulo 2^64, as everything here. `scratch`: room of the same shape, to be written to."""
        flat = numbers.ravel()
        steps = np.empty(numbers.shape, np.int64) if scratch is None else scratch
        np.subtract(flat[1:], flat[:-1], out=steps.ravel()[1:])
        firsts = numbers[:, 0] - bases.view(np.int64)
        self._firsts[places] = array_streams.zigzag(firsts)
        if numbers.shape[1] == 1:
            self.modes[places] = exponents
            return
        steps[:, 0] = 0
        zigzagged = array_streams.zigzag(array_streams.narrowed(steps))
        codes = array_streams.codes(zigzagged)
        self.modes[places] = exponents | codes << 4
        for code in np.flatnonzero(np.bincount(codes)).tolist():
            if code:
                chosen = codes == code
                rest = zigzagged[:, 1:] if chosen.all() else zigzagged[chosen, 1:]
                self._add(code, places[chosen], rest.astype(array_streams.dtype_of(code)))

    def _patterns(self, kind: ValueType, places: Places, values: NDArray[Any], bases: Unsigned) -> None:
        width = FLOATS[kind][2]
        bits = values.view(f"u{width}")
        flat = bits.ravel()
        steps = np.empty_like(flat)
        np.bitwise_xor(flat[1:], flat[:-1], out=steps[1:])
        steps = steps.reshape(bits.shape)
        steps[:, 0] = bits[:, 0] ^ bases.astype(bits.dtype)
        self.modes[places] = PATTERNS[kind]
        self._add(WIDTHS.index(width), places, steps)

    def _decimals(
        self, places: Places, exponents: Exponents, values: NDArray[Any], carried: NDArray[Any], bases: Unsigned
    ) -> Places:
        """As integers of these exponents. Returns the columns that are not exactly that; they are left out."""
        powers: Any = _POWERS[exponents[0]] if (exponents == exponents[0]).all() else _POWERS[exponents][:, None]
        shifted = np.multiply(values, powers, dtype=np.float64)
        shifted += SHIFT
        again = shifted - SHIFT
        again /= powers
        found, wanted = _bits(again.astype(carried.dtype, copy=False)), _bits(carried)
        numbers, based = shifted.view(np.int64), bases + np.uint64(SHIFT_BITS)
        lows, highs = _NEAR[carried.itemsize][:, exponents]
        if shifted.min() >= lows.max() and shifted.max() < highs.min() and np.array_equal(found, wanted):
            self._integers(places, exponents, numbers, based, again.view(np.int64))
            return np.empty(0, np.intp)
        is_near = (shifted >= lows[:, None]) & (shifted < highs[:, None])
        whole = ((found == wanted) & is_near).all(axis=1)
        if whole.any():
            self._integers(places[whole], exponents[whole], numbers[whole], based[whole])
        left: Places = np.flatnonzero(~whole)
        return left

    def _regroup(
        self, lot: _Lot, odd: Places, values: NDArray[Any], carried: NDArray[Any], *, thorough: bool
    ) -> Places:
        """These columns of a lot by the exponents that a few of their values need, or all. Returns what is left."""
        samples = values[odd] if thorough else values[odd][:, [0, (values.shape[1] - 1) // 2, -1]]
        needs = _needs(samples.astype(np.float64), carried.dtype, lot.exponents[odd])
        is_pattern, unclear = needs == XOR, (needs == UNCLEAR) | (needs == lot.exponents[odd])
        none = np.zeros(len(odd), np.uint64)
        if is_pattern.any():
            columns = odd[is_pattern]
            self._patterns(lot.kind, lot.places[columns], carried[columns], none[is_pattern])
        others = ~is_pattern & ~unclear
        left: Places = odd[unclear]
        if others.any():
            columns = odd[others]
            found = self._decimals(lot.places[columns], needs[others], values[columns], carried[columns], none[others])
            left = np.concatenate((left, columns[found]))
        return left


def _bits(values: NDArray[Any]) -> Unsigned:
    return values.view(f"u{values.itemsize}")


def _needs(samples: NDArray[np.float64], dtype: np.dtype[Any], least: Exponents) -> Exponents:
    """The exponents that each column needs for these of its values, at least `least` where that is possible."""
    needs = _need(samples, dtype, least)
    if least.any() and (needs == XOR).any():
        return np.where(needs == XOR, _need(samples, dtype, np.zeros_like(least)), needs)
    return needs


def _need(samples: NDArray[np.float64], dtype: np.dtype[Any], least: Exponents) -> Exponents:
    needs = np.full(samples.shape, XOR, np.uint8)
    left = np.ones(samples.shape, np.bool_)
    wanted = _bits(samples.astype(dtype))
    for exponent in range(int(least.min()), EXPONENT_MAX + 1):
        power, asked = 10.0**exponent, left & (least <= exponent)[:, None]
        shifted = samples * power + SHIFT
        low, high = _NEAR[dtype.itemsize][:, exponent]
        near = (shifted >= low) & (shifted < high)
        needs[asked & ~near & (np.abs(samples) * power < bound_of(_LETTERS[dtype.itemsize], exponent))] = UNCLEAR
        hit = asked & near & (_bits(((shifted - SHIFT) / power).astype(dtype)) == wanted)
        needs[hit] = exponent
        left &= ~hit & (near | ~asked)
        if not left.any():
            break
    found: Exponents = needs.max(axis=1)
    return found


def _first_place(part: Part) -> int:
    return int(part[0][0])


class ArrayPacker:
    """Packs rows of one definition, whose columns are all present."""

    def __init__(self, reference: bytes, definition: Definition) -> None:
        layout = self._layout = definition.layout(reference)
        place_of = {at: place for place, at in enumerate(layout.numbers, 1)}
        self._lots = []
        for kind, positions in layout.by_type.items():
            if kind in TEXTS:
                continue
            exponents = np.array([layout.exponents[at] for at in positions], np.uint8)
            places = np.array([place_of[at] for at in positions], np.intp)
            bases = np.array([layout.firsts[at] & MASK for at in positions], np.uint64)
            for rows in (np.flatnonzero(exponents == XOR), np.flatnonzero(exponents != XOR)):
                if len(rows):
                    chosen = None if len(rows) == len(positions) else rows
                    self._lots.append(_Lot(kind, exponents[rows], places[rows], bases[rows], chosen))
        self._pickers = {kind: picker(positions) for kind, positions in layout.by_type.items()}

    def pack(self, times_us: Sequence[int], rows: Sequence[Row]) -> Referring | None:
        """As RowPacker.pack."""
        if not rows or set(map(len, rows)) != {len(self._layout.tags)}:
            return None
        try:
            values = {kind: _from_rows(kind, list(map(pick, rows))) for kind, pick in self._pickers.items()}
            return self.pack_arrays(times_us, values)
        except Unsound:
            return None

    def pack_block(self, block: ArrayBlock) -> Referring:
        """A block of this definition's layout. Raises Unsound."""
        return self.pack_arrays(block.times_us, block.values)

    def pack_arrays(self, times_us: Sequence[int], values: Mapping[ValueType, Any]) -> Referring:
        """`values`: as in ArrayBlock. Raises Unsound."""
        layout, rows = self._layout, len(times_us)
        assembly = ArrayAssembly(1 + len(layout.numbers), rows)
        with np.errstate(all="ignore"):  # what overflows or is no number is seen by what comes back
            for lot in self._lots:
                assembly.add(lot, values[lot.kind] if lot.rows is None else values[lot.kind][lot.rows])
        extras: dict[int, Any] = {}
        for kind in TEXTS:
            positions = layout.by_type.get(kind)
            if positions:
                extras.update(zip(positions, _texts(kind, values[kind], rows), strict=True))
        return put_together(layout, None, assembly, times_us, [extras[at] for at in sorted(extras)], {})


def _from_rows(kind: ValueType, rows: Sequence[Sequence[Any]]) -> Any:
    """As in ArrayBlock, but that floats of 32 bits stay what they are for now. Raises Unsound."""
    if kind is ValueType.STRING:
        return list(zip(*rows, strict=True))
    flat = list(chain.from_iterable(rows))
    dtype, only = _DTYPES[kind]
    if set(map(type, flat)) != {only}:
        raise Unsound
    try:
        values = np.array(flat, dtype)
    except OverflowError:
        raise Unsound from None
    return np.ascontiguousarray(values.reshape(len(rows), -1).T)


def _texts(kind: ValueType, values: Any, rows: int) -> Sequence[Any]:
    if kind is ValueType.STRING:
        return runs(list(chain.from_iterable(values)), rows)
    packed = np.packbits(values, axis=1, bitorder="little")
    width = packed.shape[1]
    raw = packed.tobytes()
    return [raw[at : at + width] for at in range(0, len(raw), width)]
