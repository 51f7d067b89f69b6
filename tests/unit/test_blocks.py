"""Scans that hold some of their group's tags each → columns, compared with reading after reading."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.blocks import block
from protocols.field.contract import Group, Scan, Tag
from protocols.uplink.batch import Column
from protocols.values import Quality, ValueType

GROUP = Group("plc", "main", 1.0, tuple(Tag(f"t{at}", ValueType.INT) for at in range(6)))
CODES = [int(Quality.GOOD), int(Quality.BAD), int(Quality.BAD_OUT_OF_RANGE)]


@st.composite
def scans(draw: st.DrawFn, row: int) -> Scan:
    indexes = draw(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
    codes = draw(st.none() | st.lists(st.sampled_from(CODES), min_size=len(indexes), max_size=len(indexes)))
    values = [None if codes and codes[at] else draw(st.integers(-9, 9)) for at in range(len(indexes))]
    bad = [index for index, code in zip(indexes, codes or (), strict=False) if code]
    reasons = {index: draw(st.sampled_from(["cut", "late"])) for index in bad if draw(st.booleans())}
    return Scan(GROUP, row, values, indexes, codes, reasons)


def one_by_one(found: list[Scan]) -> dict[str, list[tuple[int, Any, int, str]]]:
    """Tag → its readings: row, value, quality, reason."""
    expected: dict[str, list[tuple[int, Any, int, str]]] = {}
    for row, scan in enumerate(found):
        for position, at in enumerate(scan.indexes or ()):
            code = 0 if scan.quality is None else scan.quality[position]
            expected.setdefault(f"t{at}", []).append((row, scan.values[position], code, scan.reasons.get(at, "")))
    return expected


def told(column: Column, at: int, readings: list[tuple[int, Any, int, str]]) -> str:
    """The reason of a reading; one that only repeats the one before it is not carried."""
    repeated = at > 0 and readings[at][3] == readings[at - 1][3]
    return readings[at][3] if repeated else column.reasons.get(at, "")


@given(st.integers(1, 6).flatmap(lambda count: st.tuples(*(scans(row) for row in range(count)))))
@settings(max_examples=150, deadline=None)
def test_readings_of_some_tags_become_the_columns_that_they_are(found: tuple[Scan, ...]) -> None:
    expected = one_by_one(list(found))
    columns = block(GROUP, found).columns
    assert [column.name for column in columns] == sorted(expected)
    for column in columns:
        readings = expected[column.name]
        rows = range(len(found)) if column.rows is None else column.rows
        quality = column.quality or [0] * len(column.values)
        reasons = [told(column, at, readings) for at in range(len(readings))]
        assert list(zip(rows, column.values, quality, reasons, strict=True)) == readings
