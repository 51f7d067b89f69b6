"""Number columns → streams, in a few passes over all columns of a kind at once. Pure.

The numbers of many columns stand one behind the other as lanes of bytes (protocols/uplink/lanes.py); one subtraction
gives the differences of all of them. What comes out is exactly what protocols/uplink/columns.py makes column by column
(property tests compare them), at a fraction of the cost. A column that is not as expected takes the general way.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from math import copysign
from operator import attrgetter
from typing import Any

from protocols.uplink import lanes
from protocols.uplink.columns import EXACT, EXPONENT_MAX, Base, bound_of, write_values
from protocols.uplink.flat import FLOATS, PATTERNS
from protocols.uplink.lanes import MASK
from protocols.uplink.streams import WIDTHS, XOR, Writer, varints
from protocols.values import ValueType

_LIMITS = {ValueType.INT: (-(1 << 63), (1 << 63) - 1), ValueType.UINT: (0, (1 << 64) - 1)}
SHIFT = 1.5 * 2.0**52
"""A float64 plus this has no room for fractions: its lowest bits are the number rounded, half to even."""
SHIFT_BITS = 0x4338 << 48
UNCLEAR = XOR - 1
_NEAR = bytes(range(0x30, 0x40))
"""Byte 6 of a number that was shifted so and lies within 2^51; byte 7 is 0x43."""


class Unsound(Exception):
    """Something is not a value of its type."""


@dataclass(frozen=True, slots=True)
class Lot:
    """Columns of one type with one base exponent. `places`: among all sequences of the block, ascending.

    `is_guess`: nothing is known of them, the exponent and the bases are 0.
    """

    kind: ValueType
    exponent: int
    places: list[int] = field(default_factory=list)
    bases: list[int] = field(default_factory=list)
    is_guess: bool = False


@dataclass(slots=True)
class _Ranges:
    """Where each of some columns stands among their numbers. `step`: how many each has, 0: not all the same."""

    starts: Sequence[int]
    ends: Sequence[int]
    step: int

    @classmethod
    def of(cls, counts: Sequence[int]) -> _Ranges:
        step, total = counts[0], sum(counts)
        if step * len(counts) == total and counts.count(step) == len(counts):
            return cls(range(0, total, step), range(step, total + 1, step), step)
        ends = list(accumulate(counts))
        return cls([0, *ends[:-1]], ends, 0)


@dataclass(slots=True)
class _Run:
    """The numbers `start` to before `end` in byte planes: those of places `place` to before `until`."""

    place: int
    until: int
    code: int
    planes: Sequence[bytes]
    start: int
    end: int


class Assembly:
    """The sequences of one block, by place: times first, then the number columns; put together in that order."""

    def __init__(self, count: int) -> None:
        """`count` sequences, all without numbers as long as nothing is added."""
        self.modes = bytearray(count)
        self._firsts: list[int | None] = [None] * count
        self._runs: list[_Run] = []

    def add(self, lot: Lot, flat: list[Any], counts: Sequence[int]) -> None:
        """Columns of a lot, `counts` (all above 0) of the numbers in `flat` each. Raises Unsound."""
        ranges = _Ranges.of(counts)
        if lot.kind not in FLOATS:
            low, high = _LIMITS[lot.kind]
            if set(map(type, flat)) != {int} or min(flat) < low or max(flat) > high:
                raise Unsound
            letter = "q" if lot.kind is ValueType.INT else "Q"
            self._integers(lot, lanes.little_endian(array(letter, flat)), ranges)
            return
        if set(map(type, flat)) != {float}:
            raise Unsound
        code = FLOATS[lot.kind][0]
        values = array(code, flat)
        if code == "f" and overflows(values, flat):
            raise Unsound
        if lot.exponent == XOR:
            self._patterns(lot, lanes.little_endian(values), ranges)
        elif lot.is_guess or lot.exponent > EXPONENT_MAX:
            self._regroup(lot, range(len(counts)), flat, ranges)
        elif odd := self._decimals(lot, flat, values, ranges):
            self._regroup(lot, odd, flat, ranges)

    def add_alone(self, place: int, kind: ValueType, values: Sequence[Any], base: Base) -> None:
        """One column, the general way."""
        writer = Writer()
        write_values(writer, kind, values, base)
        self.modes[place] = writer.modes[0]
        if writer.firsts:
            self._firsts[place] = writer.firsts[0]
        self._add_streams(place, writer)

    def add_times(self, times: Sequence[int], exponent: int, base: int) -> None:
        """The times, at place 0."""
        writer = Writer()
        writer.integers(times, exponent, base)
        self.modes[0] = writer.modes[0]
        self._firsts[0] = writer.firsts[0] if writer.firsts else None
        self._add_streams(0, writer)

    def packed(self) -> list[bytes]:
        """[first values, differences of 1, 2, 4 and 8 bytes]."""
        streams = []
        self._runs.sort(key=attrgetter("place"))
        for code, width in enumerate(WIDTHS[1:], 1):
            runs = [run for run in self._runs if run.code == code]
            streams.append(b"".join([run.planes[at][run.start : run.end] for at in range(width) for run in runs]))
        return [varints([first for first in self._firsts if first is not None]), *streams]

    def _add_streams(self, place: int, writer: Writer) -> None:
        for code, (width, stream) in enumerate(writer.streams.items(), 1):
            if stream:
                raw = lanes.little_endian(stream)
                self._add_run(place, code, [raw[at::width] for at in range(width)], 0, len(stream))

    def _add_run(self, place: int, code: int, planes: Sequence[bytes], start: int, end: int) -> None:
        """Longer runs where neighbours follow each other without a gap."""
        if not code:
            return
        last = self._runs[-1] if self._runs else None
        if last and last.planes is planes and last.end == start and last.until == place and last.code == code:
            last.end, last.until = end, place + 1
        else:
            self._runs.append(_Run(place, place + 1, code, planes, start, end))

    def _decimals(self, lot: Lot, flat: list[float], values: array[float], ranges: _Ranges) -> list[int]:
        """As integers of the lot's exponent. Returns the columns that are not exactly that; they are left out."""
        power = 10.0**lot.exponent
        shifted = [value * power + SHIFT for value in flat]
        now = lanes.little_endian(array("d", shifted))
        odd = _differing(array(values.typecode, [(number - SHIFT) / power for number in shifted]), values, ranges)
        low, high = near(values.typecode, lot.exponent)
        far = now[7::8].count(0x43) < len(flat) or now[6::8].translate(None, _NEAR)
        if far or (high < 2.0**53 and (max(shifted) >= high or min(shifted) < low)):
            odd |= {
                number
                for number, (start, end) in enumerate(zip(ranges.starts, ranges.ends, strict=True))
                if not all(low <= value < high for value in shifted[start:end])
            }
        bases = [base + SHIFT_BITS for base in lot.bases]
        self._integers(Lot(lot.kind, lot.exponent, lot.places, bases), now, ranges, odd)
        return sorted(odd)

    def _regroup(self, lot: Lot, numbers: Sequence[int], flat: list[float], ranges: _Ranges) -> None:
        """These columns of a lot by the exponents that a few of their values need; alone where that does not do."""
        code = FLOATS[lot.kind][0]
        by_need: dict[int, list[int]] = {}
        for number, need in zip(numbers, _needs(numbers, flat, ranges, code, lot.exponent), strict=True):
            by_need.setdefault(need, []).append(number)
        for need, columns in by_need.items():
            some = Lot(lot.kind, need, [lot.places[number] for number in columns], [0] * len(columns))
            parts = [flat[ranges.starts[number] : ranges.ends[number]] for number in columns]
            of_some, cut = list(chain.from_iterable(parts)), _Ranges.of(list(map(len, parts)))
            values, odd = array(code, of_some), list(range(len(parts)))
            if need == XOR:
                self._patterns(some, lanes.little_endian(values), cut)
                odd = []
            elif need != UNCLEAR and (need != lot.exponent or lot.is_guess):
                odd = self._decimals(some, of_some, values, cut)
            for at in odd:
                base = Base(lot.exponent, lot.bases[columns[at]])
                self.add_alone(some.places[at], lot.kind, parts[at], base)

    def _integers(self, lot: Lot, now: bytes, ranges: _Ranges, without: Collection[int] = ()) -> None:
        """64-bit numbers, whose bases are modulo 2^64."""
        steps = lanes.zigzag_steps(now, _before(now, "Q", [base & MASK for base in lot.bases], ranges))
        firsts, rest, starts, ends = _cut_firsts(steps, ranges)
        planes = [rest[at::8] for at in range(8)]
        codes = _codes(planes, starts, ends)
        for number, place in enumerate(lot.places):
            if number not in without:
                self.modes[place] = lot.exponent | codes[number] << 4
                self._firsts[place] = firsts[number]
                self._add_run(place, codes[number], planes, starts[number], ends[number])

    def _patterns(self, lot: Lot, bits: bytes, ranges: _Ranges) -> None:
        _, letter, width = FLOATS[lot.kind]
        steps = lanes.xored(bits, _before(bits, letter, lot.bases, ranges))
        planes, code = [steps[at::width] for at in range(width)], WIDTHS.index(width)
        mode = PATTERNS[lot.kind]
        for place, start, end in zip(lot.places, ranges.starts, ranges.ends, strict=True):
            self.modes[place] = mode
            self._add_run(place, code, planes, start, end)


def _before(now: bytes, letter: str, bases: Sequence[int], ranges: _Ranges) -> bytes:
    """To each number the one before it, to the first of a column its base."""
    firsts = array(letter, bases)
    before = array(letter, bytes(firsts.itemsize))
    before.frombytes(now[: -firsts.itemsize])
    if lanes.BIG_ENDIAN:
        before.byteswap()
    if ranges.step:
        before[:: ranges.step] = firsts
    else:
        for start, first in zip(ranges.starts, firsts, strict=True):
            before[start] = first
    return lanes.little_endian(before)


def _cut_firsts(steps: bytes, ranges: _Ranges) -> tuple[Sequence[int], bytes, Sequence[int], Sequence[int]]:
    """(first number of each column, all others, where those of each column start and end) of 64-bit numbers."""
    numbers = lanes.unsigned(steps, 8)
    if ranges.step:
        firsts, step = numbers[:: ranges.step], ranges.step - 1
        del numbers[:: ranges.step]
        total = step * len(firsts)
        if not step:
            return firsts, b"", [0] * len(firsts), [0] * len(firsts)
        return firsts, lanes.little_endian(numbers), range(0, total, step), range(step, total + 1, step)
    parts = [steps[8 * start + 8 : 8 * end] for start, end in zip(ranges.starts, ranges.ends, strict=True)]
    starts = [start - number for number, start in enumerate(ranges.starts)]
    ends = [end - number for number, end in enumerate(ranges.ends, 1)]
    return [numbers[start] for start in ranges.starts], b"".join(parts), starts, ends


def _codes(planes: Sequence[bytes], starts: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Which of WIDTHS each column's numbers need."""
    codes = [0] * len(starts)
    for at, code in enumerate((1, 2, 3, 3, 4, 4, 4, 4)):
        plane = planes[at]
        zeros = plane.count(0)
        if zeros == len(plane):
            continue
        codes = [
            code if plane.count(0, start, end) < end - start else before
            for before, start, end in zip(codes, starts, ends, strict=True)
        ]
    return codes


def _differing(a: array[float], b: array[float], ranges: _Ranges) -> set[int]:
    """The columns that are not the same bit for bit."""
    ours, theirs = a.tobytes(), b.tobytes()
    if ours == theirs:
        return set()
    size = a.itemsize
    return {
        number
        for number, (start, end) in enumerate(zip(ranges.starts, ranges.ends, strict=True))
        if ours[start * size : end * size] != theirs[start * size : end * size]
    }


def _needs(numbers: Sequence[int], flat: list[float], ranges: _Ranges, code: str, least: int) -> list[int]:
    """The exponents that a few values of each of these columns need, at least `least` where that is possible."""
    needs = [least] * len(numbers)
    for sample in (0, 1, 2):  # the first value, the middle one, the last; what is XOR stays so
        left = [at for at, need in enumerate(needs) if need != XOR]
        places = [_sample(ranges, numbers[at], sample) for at in left]
        for at, need in zip(left, _need([flat[place] for place in places], code, least), strict=True):
            needs[at] = max(needs[at], need)
    if least and XOR in needs:
        again = _needs(numbers, flat, ranges, code, 0)
        return [other if need == XOR else need for need, other in zip(needs, again, strict=True)]
    return needs


def _sample(ranges: _Ranges, number: int, sample: int) -> int:
    start, last = ranges.starts[number], ranges.ends[number] - 1
    return (start, (start + last) // 2, last)[sample]


def _need(values: Sequence[float], code: str, least: int) -> list[int]:
    """The least exponent from `least` on with which each value is exact; XOR: none is; UNCLEAR: too large to say."""
    needs, wanted, left = [XOR] * len(values), array(code, values), list(range(len(values)))
    for exponent in range(least, EXPONENT_MAX + 1):
        power, (low, high) = 10.0**exponent, near(code, exponent)
        shifted = [values[at] * power + SHIFT for at in left]
        again = array(code, [(number - SHIFT) / power for number in shifted])
        still = []
        for at, number, found in zip(left, shifted, again, strict=True):
            if not low <= number < high:
                needs[at] = UNCLEAR if abs(values[at]) * power < bound_of(code, exponent) else XOR
            elif found == wanted[at] and (found or copysign(1.0, wanted[at]) > 0):
                needs[at] = exponent
            else:
                still.append(at)
        left = still
    return needs


def near(code: str, exponent: int) -> tuple[float, float]:
    """From where to before where a shifted number is as it should be; no infinity and no NaN lies there."""
    bound = bound_of(code, exponent)
    return (2.0**52, 2.0**53) if bound == EXACT else (SHIFT - bound + 1, SHIFT + bound)


def overflows(values: array[float], flat: Sequence[float]) -> bool:
    """Whether something became infinite that is none, by being too large for 32 bits."""
    raw = lanes.little_endian(values)
    if b"\x00\x00\x80\x7f" not in raw and b"\x00\x00\x80\xff" not in raw:
        return False
    infinite = (float("inf"), float("-inf"))
    return any(carried in infinite and value not in infinite for carried, value in zip(values, flat, strict=True))
