"""Whole rows of good readings → a packed block, in a few passes over all columns at once. Pure.

protocols/uplink/definition.py packs any block, column by column. Nearly all blocks of a polled device are regular:
every tag in every row, all good, each as its definition expects. For those this module makes the very same bytes (a
property test compares them) at a fraction of the cost, because the interpreter takes no step per column and row that a
single call can take for all. Columns that are not as expected are packed one by one; a value that is not good, or not
of its tag's type, makes `pack` return None, and the general way is taken for the whole block.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from operator import itemgetter, sub, xor
from typing import Any

from protocols.uplink.columns import TEXT_MAX, Base, pack_runs, write_values
from protocols.uplink.definition import Definition, Referring, expected_mode
from protocols.uplink.streams import XOR, Writer, pack_streams, varints
from protocols.values import Value, ValueType

_CODES = {ValueType.FLOAT32: ("f", "I", 4), ValueType.FLOAT64: ("d", "Q", 8)}
_EXACT = 1 << 53
_LIMITS = {ValueType.INT: (-(1 << 63), (1 << 63) - 1), ValueType.UINT: (0, (1 << 64) - 1)}
_DELTA_MAX = (1 << 63) - 1
_SCALES = ((6, 1_000_000), (3, 1000), (0, 1))
Row = Sequence[Value]


class _Unsound(Exception):
    """Something is not a good value of its type: not for this way."""


class _Irregular(Exception):
    """A class of columns is not as its definition expects: column by column, then."""


@dataclass(frozen=True, slots=True)
class _Class:
    """The number columns of one type with one base exponent. `places`: among all number columns."""

    kind: ValueType
    exponent: int
    positions: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    bases: list[int] = field(default_factory=list)


class RowPacker:
    """Packs rows of one definition, whose columns are all present, in order."""

    def __init__(self, reference: bytes, definition: Definition) -> None:
        self._reference = reference
        self._time_base = definition.time_us
        self._texts: list[tuple[int, ValueType]] = []
        self._modes: list[int] = []
        classes: dict[tuple[ValueType, int], _Class] = {}
        self._numbers: list[int] = []
        for at, ((_, kind, _), base) in enumerate(zip(definition.tags, definition.bases, strict=True)):
            mode = expected_mode(kind, base)
            if mode is None:
                self._texts.append((at, kind))
                continue
            of_kind = classes.setdefault((kind, base.exponent), _Class(kind, base.exponent))
            of_kind.positions.append(at)
            of_kind.places.append(len(self._numbers))
            of_kind.bases.append(base.first)
            self._numbers.append(at)
            self._modes.append(mode)
        self._classes = [(one, _getter(one.positions)) for one in classes.values()]
        self._width = len(definition.tags)

    def pack(self, times_us: Sequence[int], rows: Sequence[Row]) -> Referring | None:
        """`rows`: the values in the definition's order, one row per time. None where one is not a good value.

        `Referring.exponents` is empty where all is as expected.
        """
        if not rows or any(len(row) != self._width for row in rows):
            return None
        try:
            return self._pack(times_us, rows)
        except _Unsound:
            return None

    def _pack(self, times_us: Sequence[int], rows: Sequence[Row]) -> Referring:
        count = len(rows)
        exponent, scale = next((e, s) for e, s in _SCALES if all(time % s == 0 for time in times_us))
        modes = [exponent, *self._modes]
        firsts: list[int] = [0] * len(self._numbers)
        deltas: list[tuple[int, Sequence[int]]] = []  # (place, differences), of columns that have any
        times = [time // scale for time in times_us]
        first_time = _zigzag([times[0] - self._time_base // scale])
        if times.count(times[0]) != count:
            deltas.append((-1, _zigzag(list(map(sub, islice(times, 1, None), times)))))
        surprised = False
        for one, getter in self._classes:
            flat = _flat(getter, rows)
            try:
                odd = (
                    _patterns(one, flat, count, deltas)
                    if one.exponent == XOR
                    else _integers(one, flat, count, firsts, deltas)
                )
            except _Irregular:
                odd = range(len(one.places))
            surprised |= bool(odd)
            for number in odd:
                _column(one, number, flat[number * count : (number + 1) * count], modes, firsts, deltas)
        numbers = [first for first, mode in zip(firsts, modes[1:], strict=True) if mode & 0x0F != XOR]
        streams = self._streams([*first_time, *numbers], modes, sorted(deltas, key=itemgetter(0)))
        expected = bytes([3, *self._modes])
        parts: list[Any] = [
            self._reference,
            streams,
            None if count == 1 else count,
            None if bytes(modes) == expected else bytes(modes),
            [_extra(kind, [row[at] for row in rows]) for at, kind in self._texts],
        ]
        while parts[-1] in (None, []):
            parts.pop()
        used = list(zip(self._numbers, (mode & 0x0F for mode in modes[1:]), strict=True)) if surprised else []
        return Referring(parts, used)

    def _streams(self, firsts: list[int], modes: list[int], deltas: list[tuple[int, Sequence[int]]]) -> list[bytes]:
        by_width: dict[int, list[Sequence[int]]] = {1: [], 2: [], 4: [], 8: []}
        for place, column in deltas:
            mode = modes[place + 1]
            if mode & 0x0F == XOR:
                by_width[4 if mode >> 4 == 3 else 8].append(column)
                continue
            top = max(column)
            code = 1 if top < 1 << 8 else 2 if top < 1 << 16 else 3 if top < 1 << 32 else 4
            modes[place + 1] = mode | code << 4
            by_width[(0, 1, 2, 4, 8)[code]].append(column)
        streams = [varints(firsts), *(pack_streams(width, columns) for width, columns in by_width.items())]
        while not streams[-1] and len(streams) > 1:
            streams.pop()
        return streams


Deltas = list[tuple[int, Sequence[int]]]


def _integers(one: _Class, flat: list[Any], count: int, firsts: list[int], deltas: Deltas) -> Sequence[int]:
    """First values and differences of a class's columns; which of them are not as expected and still to be packed."""
    odd: Sequence[int] = ()
    if one.kind in _CODES:
        numbers, odd = _decimals(one, flat, count)
    else:
        numbers = _whole(one, flat)
    for place, first in zip(one.places, _zigzag(list(map(sub, numbers[::count], one.bases))), strict=True):
        firsts[place] = first
    if count == 1:
        return odd
    steps = _zigzag(list(map(sub, islice(numbers, 1, None), numbers)))
    for number, place in enumerate(one.places):
        column = steps[number * count : number * count + count - 1]
        if any(column) and number not in odd:
            deltas.append((place, column))
    return odd


def _patterns(one: _Class, flat: list[Any], count: int, deltas: Deltas) -> Sequence[int]:
    """Bit patterns of a class's columns, each XORed with the one before it, the first with the base."""
    code, bits_code, _ = _CODES[one.kind]
    bits = array(bits_code, _floats(code, flat).tobytes()).tolist()
    before = [0, *bits[:-1]]
    before[::count] = one.bases
    steps = list(map(xor, bits, before))
    deltas.extend((place, steps[number * count : (number + 1) * count]) for number, place in enumerate(one.places))
    return ()


def _column(one: _Class, number: int, values: list[Any], modes: list[int], firsts: list[int], deltas: Deltas) -> None:
    """The general way, for one column."""
    place, writer = one.places[number], Writer()
    write_values(writer, one.kind, values, Base(one.exponent, one.bases[number]))
    mode = writer.modes[0]
    modes[place + 1] = mode if mode & 0x0F == XOR else mode & 0x0F
    if writer.firsts:
        firsts[place] = writer.firsts[0]
    deltas.extend((place, stream) for stream in writer.streams.values() if stream)


def _getter(positions: list[int]) -> Callable[[Row], tuple[Value, ...]]:
    if positions == list(range(positions[0], positions[-1] + 1)):
        cut = slice(positions[0], positions[-1] + 1)
        return lambda row: tuple(row[cut])
    return itemgetter(*positions) if len(positions) > 1 else lambda row: (row[positions[0]],)


def _flat(getter: Callable[[Row], tuple[Value, ...]], rows: Sequence[Row]) -> list[Any]:
    """Column after column."""
    if len(rows) == 1:
        return list(getter(rows[0]))
    return list(chain.from_iterable(zip(*map(getter, rows), strict=True)))


def _floats(code: str, flat: list[Any]) -> array[float]:
    if set(map(type, flat)) != {float}:
        raise _Unsound
    return array(code, flat)


def _decimals(one: _Class, flat: list[Any], count: int) -> tuple[list[int], Sequence[int]]:
    """As integers with the class's exponent, and which columns are not exactly that."""
    code = _CODES[one.kind][0]
    wanted, power = _floats(code, flat), 10**one.exponent
    try:
        numbers = list(map(round, flat)) if power == 1 else [round(value * power) for value in flat]
        if max(numbers) >= _EXACT or min(numbers) <= -_EXACT:
            raise _Irregular
        found = array(code, numbers) if power == 1 else array(code, [number / power for number in numbers])
    except (ValueError, OverflowError):  # a NaN or an infinity is among them
        raise _Irregular from None
    ours, theirs = found.tobytes(), wanted.tobytes()
    if ours == theirs:
        return numbers, ()
    size = wanted.itemsize * count
    starts = range(0, len(theirs), size)
    return numbers, [n for n, at in enumerate(starts) if ours[at : at + size] != theirs[at : at + size]]


def _whole(one: _Class, flat: list[Any]) -> list[int]:
    low, high = _LIMITS[one.kind]
    if set(map(type, flat)) != {int} or min(flat) < low or max(flat) > high:
        raise _Unsound
    return flat


def _zigzag(steps: list[int]) -> list[int]:
    if max(steps, default=0) > _DELTA_MAX or min(steps, default=0) < -_DELTA_MAX:
        raise _Irregular  # it wraps around; the general way knows how
    return [step << 1 if step >= 0 else ~(step << 1) for step in steps]


def _extra(kind: ValueType, values: list[Any]) -> Any:
    if kind is ValueType.BOOL:
        if set(map(type, values)) != {bool}:
            raise _Unsound
        bits = sum(1 << at for at, value in enumerate(values) if value)
        return bits.to_bytes((len(values) + 7) // 8, "little")
    if set(map(type, values)) != {str} or not all(len(text) <= TEXT_MAX and text.isascii() for text in values):
        raise _Unsound
    return pack_runs(values)
