"""One row of values → the sequences of a packed block, in a few passes over all columns at once. Pure.

The way back is one_row.py. With one row there are no differences: each number is a first value beside its base, or a
bit pattern. Which of them stands where depends on the definition only, and is worked out once. What comes out is
exactly what protocols/uplink/columns.py makes column by column (property tests compare them); a column that is not as
expected takes that way.
"""

from __future__ import annotations

from array import array
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from math import inf
from operator import le, lt
from typing import Any

from protocols.uplink import lanes
from protocols.uplink.bulk import SHIFT, SHIFT_BITS, Unsound, near, overflows
from protocols.uplink.columns import EXPONENT_MAX, Base, write_values
from protocols.uplink.flat import FLOATS, Layout, picker
from protocols.uplink.lanes import MASK
from protocols.uplink.streams import WIDTHS, XOR, Writer, signed, varints, zigzag
from protocols.values import ValueType

_INTEGERS = {ValueType.INT: "q", ValueType.UINT: "Q"}


class OneRow:
    """The sequences of one row, see protocols/uplink/bulk.py. `patterns`: width in bytes → bit patterns of it."""

    def __init__(self, modes: bytearray, firsts: list[int], patterns: Mapping[int, bytes]) -> None:
        self.modes = modes
        self._firsts = firsts
        self._patterns = patterns

    def add_times(self, times: Sequence[int], exponent: int, base: int) -> None:
        """The one time, at place 0."""
        self.modes[0] = exponent
        self._firsts.insert(0, zigzag(signed(times[0] - base)))

    def packed(self) -> list[bytes]:
        """[first values, differences of 1, 2, 4 and 8 bytes]."""
        streams = [lanes.shuffle(self._patterns.get(width, b""), width) for width in WIDTHS[1:]]
        return [varints(self._firsts), *streams]


class OneRowPacker:
    """Packs single rows of one layout."""

    def __init__(self, layout: Layout) -> None:
        place_of = {at: place for place, at in enumerate(layout.numbers, 1)}
        self._expected = layout.expected
        self._integers: list[tuple[str, Callable[[Sequence[Any]], Sequence[Any]]]] = []
        self._floats = [_Floats(layout, kind, place_of) for kind in FLOATS if kind in layout.by_type]
        bases: list[int] = []
        places: list[int] = []  # of all numbers that are no patterns, in the order in which they are taken
        for kind, letter in _INTEGERS.items():
            if kind in layout.by_type:
                positions = layout.by_type[kind]
                self._integers.append((letter, picker(positions)))
                bases += [layout.firsts[at] & MASK for at in positions]
                places += [place_of[at] for at in positions]
        for floats in self._floats:
            bases += [(base.first + SHIFT_BITS) & MASK for base in floats.bases]
            places += floats.places
        self._bases = lanes.little_endian(array("Q", bases))
        order = sorted(range(len(places)), key=places.__getitem__)
        self._arrange: Callable[[Sequence[int]], Sequence[int]] = picker(order) if order else tuple
        self._place_of_first = [places[at] for at in order]

    def pack(self, row: Sequence[Any]) -> OneRow:
        """`row`: one value for each tag. Raises Unsound."""
        integers = [_whole(letter, pick(row)) for letter, pick in self._integers]
        odd: dict[int, Writer] = {}
        patterns: dict[int, bytes] = {}
        for floats in self._floats:
            now, patterns[floats.width] = floats.pack(row, odd)
            integers.append(now)
        steps = lanes.zigzag_steps(b"".join(integers), self._bases)
        firsts, modes = list(self._arrange(lanes.unsigned(steps, 8))), bytearray(self._expected)
        for place in sorted(odd, reverse=True):  # from the end, because one that has become a pattern is taken out
            at = bisect(self._place_of_first, place) - 1
            modes[place] = odd[place].modes[0]
            firsts[at : at + 1] = odd[place].firsts
        return OneRow(modes, firsts, patterns)


class _Floats:
    """The float columns of one type. `places`, `bases`: of those that are expected to be decimals."""

    def __init__(self, layout: Layout, kind: ValueType, place_of: Mapping[int, int]) -> None:
        self._kind = kind
        self._code, self._bits_code, self.width = FLOATS[kind]
        positions = layout.by_type[kind]
        decimals = [at for at in positions if layout.exponents[at] != XOR]
        patterns = [at for at in positions if layout.exponents[at] == XOR]
        self._pick = picker([*decimals, *patterns])
        self.places = [place_of[at] for at in decimals]
        self.bases = [Base(layout.exponents[at], layout.firsts[at]) for at in decimals]
        self._powers = [10.0**base.exponent for base in self.bases]
        # No exponent above the largest is ever found by the general way: nothing is near it.
        ranges = [near(self._code, b.exponent) if b.exponent <= EXPONENT_MAX else (inf, inf) for b in self.bases]
        self._lows, self._highs = [low for low, _ in ranges], [high for _, high in ranges]
        self._pattern_places = [place_of[at] for at in patterns]
        firsts = array(self._bits_code, [layout.firsts[at] for at in patterns])
        self._pattern_bases = lanes.little_endian(firsts)

    def pack(self, row: Sequence[Any], odd: dict[int, Writer]) -> tuple[bytes, bytes]:
        """(decimals as shifted numbers, patterns); what is no decimal as expected comes into `odd`. Raises Unsound."""
        flat = self._pick(row)
        if set(map(type, flat)) != {float}:
            raise Unsound
        values = array(self._code, flat)
        if self._code == "f" and overflows(values, flat):
            raise Unsound
        shifted = [value * power + SHIFT for value, power in zip(flat, self._powers, strict=False)]
        rounded = [(number - SHIFT) / power for number, power in zip(shifted, self._powers, strict=True)]
        bits = lanes.xored(lanes.little_endian(values[len(shifted) :]), self._pattern_bases)
        strange = self._strange(shifted, array(self._code, rounded), values[: len(shifted)])
        for at in strange:
            writer = odd[self.places[at]] = Writer()
            write_values(writer, self._kind, [flat[at]], self.bases[at])
        return lanes.little_endian(array("d", shifted)), self._with(bits, strange, odd) if strange else bits

    def _strange(self, shifted: Sequence[float], again: array[float], wanted: array[float]) -> list[int]:
        """Which are not exactly what they should be as decimals, a NaN included."""
        found, expected = again.tobytes(), wanted.tobytes()
        if found == expected and all(map(le, self._lows, shifted)) and all(map(lt, shifted, self._highs)):
            return []
        a, b = array(self._bits_code, found), array(self._bits_code, expected)
        near = zip(self._lows, shifted, self._highs, a, b, strict=True)
        return [at for at, (low, n, high, ours, theirs) in enumerate(near) if not low <= n < high or ours != theirs]

    def _with(self, bits: bytes, strange: Sequence[int], odd: Mapping[int, Writer]) -> bytes:
        """The patterns with those that should have been decimals among them, by place."""
        parts, cut = [], 0
        for at in strange:
            stream = odd[self.places[at]].streams[self.width]
            if stream:
                start, cut = cut, self.width * bisect(self._pattern_places, self.places[at])
                parts += [bits[start:cut], lanes.little_endian(stream)]
        return b"".join([*parts, bits[cut:]])


def _whole(letter: str, flat: Sequence[Any]) -> bytes:
    """Whole numbers of 64 bits. Raises Unsound."""
    if set(map(type, flat)) != {int}:
        raise Unsound
    try:
        return lanes.little_endian(array(letter, flat))
    except OverflowError:
        raise Unsound from None
