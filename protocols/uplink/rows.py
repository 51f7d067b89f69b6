"""Whole rows of good readings → a packed block, in a few passes over all columns at once. Pure.

What a definition's columns are is worked out once. A value that is not good, or not of its tag's type, makes `pack`
return None: pack_referring, which takes any block, packs it then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from protocols.uplink import arrays
from protocols.uplink.bulk import Assembly, Lot, Unsound
from protocols.uplink.columns import TEXT_MAX, pack_bits, pack_runs
from protocols.uplink.definition import Definition, Referring, Sequences, put_together
from protocols.uplink.flat import TEXTS, picker
from protocols.uplink.one_row_packer import OneRowPacker
from protocols.values import Value, ValueType

if TYPE_CHECKING:
    from protocols.uplink.array_packer import ArrayPacker

Row = Sequence[Value]
_BITS = {False: b"\x00", True: b"\x01"}


class RowPacker:
    """Packs rows of one definition, whose columns are all present, in order."""

    def __init__(self, reference: bytes, definition: Definition) -> None:
        self._reference, self._definition = reference, definition
        self._arrays: ArrayPacker | None = None
        self._layout = definition.layout(reference)
        lots: dict[tuple[ValueType, int], tuple[Lot, list[int]]] = {}
        texts: dict[ValueType, list[int]] = {}
        place = 1
        for at, ((_, kind, _), base) in enumerate(zip(definition.tags, definition.bases, strict=True)):
            if kind in TEXTS:
                texts.setdefault(kind, []).append(at)
                continue
            lot, positions = lots.setdefault((kind, base.exponent), (Lot(kind, base.exponent), []))
            lot.places.append(place)
            lot.bases.append(base.first)
            positions.append(at)
            place += 1
        self._lots = [(lot, picker(positions)) for lot, positions in lots.values()]
        self._one_row: OneRowPacker | None = None
        self._texts = [(kind, positions, picker(positions)) for kind, positions in texts.items()]
        self._order = sorted(chain.from_iterable(texts.values()))

    def pack(self, times_us: Sequence[int], rows: Sequence[Row]) -> Referring | None:
        """`rows`: the values in the definition's order, one row per time. None where one is not a good value.

        `Referring.exponents` is empty where all is as expected.
        """
        if not rows or set(map(len, rows)) != {len(self._layout.tags)}:
            return None
        if arrays.pays(len(rows) * len(self._layout.tags)):
            return self._with_numpy().pack(times_us, rows)
        try:
            return self._pack(times_us, rows)
        except Unsound:
            return None

    def _with_numpy(self) -> ArrayPacker:
        if self._arrays is None:
            from protocols.uplink.array_packer import ArrayPacker  # numpy is imported where it pays, not before

            self._arrays = ArrayPacker(self._reference, self._definition)
        return self._arrays

    def _pack(self, times_us: Sequence[int], rows: Sequence[Row]) -> Referring:
        layout = self._layout
        assembly = self._one(rows[0]) if len(rows) == 1 else self._all(rows)
        extras: dict[int, Any] = {}
        for kind, positions, pick in self._texts:
            packed = (_bits if kind is ValueType.BOOL else runs)(_flat(pick, rows), len(rows))
            extras.update(zip(positions, packed, strict=True))
        return put_together(layout, None, assembly, times_us, [extras[at] for at in self._order], {})

    def _one(self, row: Row) -> Sequences:
        if self._one_row is None:
            self._one_row = OneRowPacker(self._layout)
        return self._one_row.pack(row)

    def _all(self, rows: Sequence[Row]) -> Sequences:
        assembly = Assembly(1 + len(self._layout.numbers))
        for lot, pick in self._lots:
            assembly.add(lot, _flat(pick, rows), [len(rows)] * len(lot.places))
        return assembly


def _flat(pick: Callable[[Sequence[Any]], Sequence[Any]], rows: Sequence[Row]) -> list[Any]:
    """Column after column."""
    if len(rows) == 1:
        return list(pick(rows[0]))
    return list(chain.from_iterable(zip(*map(pick, rows), strict=True)))


def _bits(flat: list[Any], count: int) -> list[bytes]:
    if set(map(type, flat)) != {bool}:
        raise Unsound
    if count == 1:
        return [_BITS[value] for value in flat]
    return [pack_bits(flat[at : at + count]) for at in range(0, len(flat), count)]


def runs(flat: list[Any], count: int) -> list[list[Any]]:
    """Runs of each of some columns of texts, `count` values each. Raises Unsound."""
    if set(map(type, flat)) != {str} or max(map(len, flat)) > TEXT_MAX:
        raise Unsound
    try:
        "".join(flat).encode()
    except UnicodeEncodeError:  # half a surrogate pair is no character
        raise Unsound from None
    if count == 1:
        return [[1, text] for text in flat]
    return [pack_runs(flat[at : at + count]) for at in range(0, len(flat), count)]
