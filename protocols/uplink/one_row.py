"""One row of a block → its values, in a few passes over all columns at once. Pure.

With one row there are no differences: each number is its base and a first value, or a bit pattern. Which of them is
what depends on the layout and the modes only, and is worked out once for each pair.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from operator import add, truediv
from typing import Any

from protocols.uplink import lanes
from protocols.uplink.columns import unpack_runs
from protocols.uplink.flat import FLOATS, PATTERNS, TEXTS, Layout, picker
from protocols.uplink.lanes import MASK
from protocols.uplink.streams import FAR, TIME_SCALES, XOR, ColumnError, read_varints, signed
from protocols.values import Value, ValueType

_PLANS_MAX = 8

_BITS = {bytes([byte]): bool(byte & 1) for byte in range(256)}

_Column = tuple[int, int, int]
"""Position, place (among the integers, the patterns of its width, or the extras), base or exponent."""
_Part = Callable[[Sequence[int], Sequence[bytes], Sequence[Any]], Sequence[Value]]
"""Values of some columns from all the row's integers, its streams and its extras."""


def one_row(layout: Layout, modes: bytes) -> OneRow:
    """The plan for these modes; the same one again. Raises ColumnError where they do not fit the layout."""
    plan = layout.plans.get(modes)
    if plan is None:
        if len(layout.plans) >= _PLANS_MAX:
            layout.plans.clear()
        plan = layout.plans[modes] = OneRow(layout, modes)
    return plan


class OneRow:
    """Reads rows of one layout with these modes. `patterns`: positions of the columns that come as bit patterns."""

    def __init__(self, layout: Layout, modes: bytes) -> None:
        """Raises ColumnError."""
        if len(modes) != 1 + len(layout.numbers) or max(modes) >> 4 > 4:
            raise ColumnError("a block's modes are too many, too few or unknown")
        if modes[0] & 0x0F not in TIME_SCALES:
            raise ColumnError("a block's times have an unknown scale")
        self._scale = TIME_SCALES[modes[0] & 0x0F]
        self._bases = [layout.time_us // self._scale]
        self._bytes = [0, 0, 0, 0]  # that the streams of 1, 2, 4 and 8 bytes have
        self.patterns: list[int] = []
        groups: dict[tuple[ValueType, bool], list[_Column]] = {}
        for at, mode in zip(layout.numbers, modes[1:], strict=True):
            self._add(layout, at, mode, groups)
        extras = [at for at, (_, kind, _) in enumerate(layout.tags) if kind in TEXTS]
        for place, at in enumerate(extras):
            groups.setdefault((layout.tags[at][1], False), []).append((at, place, 0))
        self._extras = len(extras)
        self._is_near = all(-FAR < base < FAR for base in self._bases)
        self._parts = [_part(kind, is_pattern, columns) for (kind, is_pattern), columns in groups.items()]
        places = {at: place for place, (at, _, _) in enumerate(chain.from_iterable(groups.values()))}
        self._order = picker([places[at] for at in range(len(places))]) if len(self._parts) > 1 else None

    def _add(self, layout: Layout, at: int, mode: int, groups: dict[tuple[ValueType, bool], list[_Column]]) -> None:
        kind, exponent = layout.tags[at][1], mode & 0x0F
        base = layout.firsts[at] if exponent == layout.exponents[at] else 0
        if kind in FLOATS and exponent == XOR:
            if mode != PATTERNS[kind]:
                raise ColumnError(f"a {kind} column has patterns of another width")
            width = FLOATS[kind][2]
            groups.setdefault((kind, True), []).append((at, 0, base))
            self._bytes[2 if width == 4 else 3] += width
            self.patterns.append(at)
            return
        if exponent and kind not in FLOATS:
            raise ColumnError(f"a {kind} column has a decimal exponent")
        groups.setdefault((kind, False), []).append((at, len(self._bases), exponent))
        self._bases.append(base)

    def read(self, streams: Sequence[bytes], extras: Sequence[Any]) -> tuple[int, Sequence[Value]]:
        """Time in µs, values in the layout's order. `streams`: as of Writer.packed. Raises ColumnError."""
        firsts = read_varints(streams[0])
        if len(firsts) != len(self._bases) or len(extras) != self._extras:
            raise ColumnError("a block's first values or extras do not match its tags")
        if list(map(len, streams[1:])) != self._bytes:
            raise ColumnError("a block of one row has more or fewer numbers than its columns name")
        numbers = list(map(add, [~(z >> 1) if z & 1 else z >> 1 for z in firsts], self._bases))
        if not self._is_near or max(firsts) >= FAR:
            numbers = list(map(signed, numbers))
        found = [part(numbers, streams, extras) for part in self._parts]
        if self._order is None:
            return numbers[0] * self._scale, found[0] if found else ()
        return numbers[0] * self._scale, self._order(list(chain.from_iterable(found)))


def _part(kind: ValueType, is_pattern: bool, columns: Sequence[_Column]) -> _Part:
    if is_pattern:
        _, bits_code, width = FLOATS[kind]
        stream = 3 if width == 4 else 4
        bases = lanes.little_endian(array(bits_code, [base for _, _, base in columns]))
        return lambda _, streams, __: lanes.floats(lanes.xored(lanes.unshuffle(streams[stream], width), bases), width)
    pick = picker([place for _, place, _ in columns])
    match kind:
        case ValueType.BOOL:
            return lambda _, __, extras: _bools(pick(extras))
        case ValueType.STRING:
            return lambda _, __, extras: list(map(_text, pick(extras)))
        case ValueType.INT:
            return lambda numbers, _, __: pick(numbers)
        case ValueType.UINT:
            return lambda numbers, _, __: [n & MASK for n in pick(numbers)]
    powers = [10**exponent for _, _, exponent in columns]
    if kind is ValueType.FLOAT32:
        return lambda numbers, _, __: array("f", list(map(truediv, pick(numbers), powers))).tolist()
    return lambda numbers, _, __: list(map(truediv, pick(numbers), powers))


def _bools(extras: Sequence[Any]) -> list[bool]:
    try:
        return [_BITS[extra] for extra in extras]
    except (KeyError, TypeError):  # TypeError: a list cannot be looked up
        raise ColumnError("a bool column of 1 value has no 1 byte") from None


def _text(extra: Any) -> str:
    text: str = unpack_runs(extra, 1, str)[0]
    return text
