"""All columns at once or one by one: the same bytes, for every type, pattern and base."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from protocols.uplink import blocks, definition
from protocols.uplink.batch import Block, Column
from protocols.uplink.bulk import Assembly
from protocols.uplink.columns import NO_BASE, Base
from protocols.uplink.definition import Definition
from protocols.uplink.flat import TEXTS
from protocols.uplink.rows import RowPacker
from protocols.values import Value, ValueType
from tests.unit.test_envelope import TIME, VALUES, float32, float32_of, float64

EXTREMES: dict[ValueType, list[Any]] = {
    ValueType.BOOL: [True],
    ValueType.STRING: ["", "Größe", "x" * 4096],
    ValueType.INT: [0, -1, 2**63 - 1, -(2**63), 2**53],
    ValueType.UINT: [0, 2**63 - 1, 2**63, 2**64 - 1],
    ValueType.FLOAT32: [
        *(0.0, -0.0, math.nan, math.inf, -math.inf, 20.5, 16_777_216.0),
        *(float32(1), float32_of(1e30), float32(0x7FC0_1234), float32(0xFF7F_FFFF)),
    ],
    ValueType.FLOAT64: [
        *(0.0, -0.0, math.nan, math.inf, -math.inf, 20.5, 5e-324, 1e300, 1e16, 0.1 + 0.2, 123.456789012),
        *(2.0**51 - 1, 2.0**51, -(2.0**51), 2.0**52 + 1, 2.0**53 - 1, 2.0**53, float64(0x7FF8_0000_DEAD_BEEF)),
    ],
}


def decimals(kind: ValueType) -> st.SearchStrategy[float]:
    """Numbers with up to 10 decimals, of every size."""
    made = st.builds(lambda n, k: n / 10**k, st.integers(-(2**54), 2**54), st.integers(0, 10))
    return made.map(float32_of) if kind is ValueType.FLOAT32 else made


def one_value(kind: ValueType) -> st.SearchStrategy[Any]:
    found = st.one_of(VALUES[kind], st.sampled_from(EXTREMES[kind]))
    return st.one_of(found, decimals(kind)) if kind in (ValueType.FLOAT32, ValueType.FLOAT64) else found


@st.composite
def values(draw: st.DrawFn, kind: ValueType, count: int) -> list[Value]:
    """Of one tag: all alike, near each other, or anything."""
    how = draw(st.sampled_from(["steady", "near", "any"]))
    if how == "steady" and count:
        return [draw(one_value(kind))] * count
    if how == "near" and kind in (ValueType.FLOAT32, ValueType.FLOAT64):
        power = 10 ** draw(st.integers(0, 9))
        found = [n / power for n in draw(st.lists(st.integers(-9999, 99999), min_size=count, max_size=count))]
        return [float32_of(value) for value in found] if kind is ValueType.FLOAT32 else list(found)
    return [draw(one_value(kind)) for _ in range(count)]


def a_base(kind: ValueType) -> st.SearchStrategy[Base]:
    if kind in TEXTS:
        return st.just(NO_BASE)
    if kind in (ValueType.INT, ValueType.UINT):
        return st.builds(Base, st.just(0), st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-9, 9)))
    width = 32 if kind is ValueType.FLOAT32 else 64
    patterns = st.builds(Base, st.just(15), st.integers(0, 2**width - 1))
    return st.one_of(patterns, st.builds(Base, st.integers(0, 14), st.integers(-(2**53), 2**53)))


@st.composite
def defined_blocks(draw: st.DrawFn, *, whole: bool) -> tuple[Definition, Block]:
    """A block, and a definition that may suit it or not."""
    count = draw(st.sampled_from([0, 1, 2, 3, 9]) if not whole else st.sampled_from([1, 1, 2, 3, 9]))
    kinds = draw(st.lists(st.sampled_from(list(ValueType)), min_size=1, max_size=7))
    columns = []
    for at, kind in enumerate(kinds):
        rows = None
        if not whole and draw(st.booleans()):
            rows = sorted(draw(st.sets(st.integers(0, count - 1)))) if count else []
        found = draw(values(kind, count if rows is None else len(rows)))
        quality = None
        if not whole and draw(st.booleans()):
            quality = draw(st.lists(st.sampled_from([0, 0x80050000]), min_size=len(found), max_size=len(found)))
            found = [None if code else value for value, code in zip(found, quality, strict=True)]
        columns.append(Column(f"t{at}", kind, found, "", rows, quality))
    unit = draw(st.sampled_from([1, 1000, 1_000_000]))
    times = sorted(draw(st.integers(0, 2**37)) * unit for _ in range(count))
    bases = tuple(draw(a_base(kind)) for kind in kinds)
    tags = tuple((column.name, column.type, column.unit) for column in columns)
    return Definition("gw-1", "00", "plc", "main", draw(st.integers(0, TIME)), tags, bases), Block(
        "plc", times, columns
    )


def one_by_one(columns: Sequence[Column], bases: Sequence[Base], times: Sequence[int]) -> tuple[bytes, list[bytes]]:
    """Modes and streams, by the general way for every column."""
    numbers = [(c, base) for c, base in zip(columns, bases, strict=True) if c.type not in TEXTS]
    assembly = Assembly(1 + len(numbers))
    for place, (column, base) in enumerate(numbers, 1):
        assembly.add_alone(place, column.type, [value for value in column.values if value is not None], base)
    assembly.add_times(times, 0, 0)
    return bytes(assembly.modes), assembly.packed()


@given(defined_blocks(whole=False))
@settings(max_examples=150)
def test_all_at_once_is_the_same_as_one_by_one(given_: tuple[Definition, Block]) -> None:
    defined, block = given_
    for bases, is_guess in ((defined.bases, False), ([NO_BASE] * len(block.columns), True)):
        assembly, _, _ = blocks.pack_columns(block.columns, bases, is_guess=is_guess)
        assembly.add_times(block.times_us, 0, 0)
        assert (bytes(assembly.modes), assembly.packed()) == one_by_one(block.columns, bases, block.times_us)


@given(defined_blocks(whole=True))
@settings(max_examples=150)
def test_rows_are_packed_as_columns_are(given_: tuple[Definition, Block]) -> None:
    defined, block = given_
    rows = list(zip(*(column.values for column in block.columns), strict=True))
    quick = RowPacker(b"ref000", defined).pack(block.times_us, rows)
    assert quick is not None
    whole = definition.pack_referring(block, b"ref000", defined)
    assert (quick.packed, quick.exponents) == (whole.packed, whole.exponents)


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (ValueType.FLOAT64, 1),
        (ValueType.FLOAT64, True),
        (ValueType.FLOAT64, None),
        (ValueType.FLOAT32, 1e39),
        (ValueType.INT, 2**63),
        (ValueType.INT, True),
        (ValueType.INT, 1.0),
        (ValueType.UINT, -1),
        (ValueType.BOOL, 1),
        (ValueType.STRING, "\ud800"),
        (ValueType.STRING, "x" * 4097),
        (ValueType.STRING, None),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_what_is_no_good_value_is_left_to_the_general_way(kind: ValueType, bad: Value, count: int) -> None:
    good = EXTREMES[kind][0]
    defined = Definition("gw-1", "00", "plc", "main", 0, (("a", kind, ""), ("b", kind, "")), (NO_BASE, NO_BASE))
    packer = RowPacker(b"ref000", defined)
    assert packer.pack(range(count), [(good, good)] * count) is not None
    assert packer.pack(range(count), [(good, bad)] * count) is None
    assert packer.pack(range(count), [(good,)] * count) is None


def column_of(kind: ValueType, patterns: list[int]) -> Column:
    match kind:
        case ValueType.FLOAT32:
            return Column("x", kind, [float32(pattern & 0xFFFF_FFFF) for pattern in patterns])
        case ValueType.FLOAT64:
            return Column("x", kind, [float64(pattern) for pattern in patterns])
    return Column("x", kind, [struct.unpack("<q", struct.pack("<Q", pattern))[0] for pattern in patterns])


PATTERN = st.one_of(
    st.integers(0, 2**64 - 1),
    st.sampled_from([0x7FF8_0000_DEAD_BEEF, 0xFFF0_0000_0000_0000, 0x8000_0000_0000_0000, 0x7FC0_BEEF, 0xFF80_0000]),
)


@given(
    st.sampled_from([ValueType.FLOAT32, ValueType.FLOAT64, ValueType.INT]),
    st.lists(PATTERN, min_size=1, max_size=40),
    st.data(),
)
@example(ValueType.FLOAT32, [0x7F80_0001, 0xFFFF_FFFF, 0x8000_0000], None)
@settings(max_examples=150)
def test_every_pattern_survives_with_any_base(kind: ValueType, patterns: list[int], data: Any) -> None:
    base = NO_BASE if data is None else data.draw(a_base(kind))
    event(f"base of {kind}: {'patterns' if base.exponent == 15 else 'decimals'}")
    column = column_of(kind, patterns)
    defined = Definition("gw-1", "00", "plc", "main", 0, (("x", kind, ""),), (base,))
    block = Block("plc", range(len(patterns)), [column])
    packed = definition.pack_referring(block, b"ref000", defined).packed
    [back] = definition.unpack_referring(packed, defined, 10**6).columns
    letter = {ValueType.FLOAT32: "f", ValueType.FLOAT64: "d", ValueType.INT: "q"}[kind]
    size = f"<{len(patterns)}{letter}"
    assert struct.pack(size, *back.values) == struct.pack(size, *column.values)
