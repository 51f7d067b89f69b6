"""What to ask next, and what a device has by its answers."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.toolbox.scanning import (
    SINGLY,
    STRIDE,
    Answer,
    TableFound,
    UnitFound,
    answers,
    estimate,
    listed,
    merged,
    ranges,
    serial_settings,
    tables,
    unit_ids,
)
from protocols.field.modbus_address import Table


class Device:
    """Holding registers at some addresses; exception 2 for a read that touches any other."""

    def __init__(self, there: Collection[int], largest: int = 125) -> None:
        self.there = frozenset(there)
        self.largest = largest
        self.asked: list[tuple[int, int]] = []

    async def ask(self, unit_id: int, table: Table, address: int, count: int) -> Answer:
        assert count <= (2000 if table.holds_bits else 125)
        self.asked.append((address, count))
        if table is not Table.HOLDING:
            return 1
        if count > self.largest:
            return 3
        return bytes(2 * count) if self.there.issuperset(range(address, address + count)) else 2


def addresses(found: TableFound) -> set[int]:
    return {at for part in found.ranges for at in part}


@given(st.sets(st.integers(0, 149)), st.integers(1, 125))
async def test_asking_for_each_finds_exactly_what_is_there(there: set[int], largest: int) -> None:
    device, found = Device(there, largest), TableFound(Table.HOLDING, 0)
    await ranges(device.ask, 1, found, range(150), stride=1)
    assert addresses(found) == there
    assert found.ranges == merged(found.ranges)
    assert found.largest <= largest


@given(st.lists(st.tuples(st.integers(0, 140), st.integers(STRIDE, 60)), max_size=6))
async def test_islands_as_wide_as_the_stride_are_found_whole(islands: list[tuple[int, int]]) -> None:
    there = {at for start, size in islands for at in range(start, min(start + size, 150))}
    wide = {at for part in merged(range(at, at + 1) for at in there) if len(part) >= STRIDE for at in part}
    device, found = Device(there), TableFound(Table.HOLDING, 0)
    await ranges(device.ask, 1, found, range(150))
    assert wide <= addresses(found) <= there


@given(st.sets(st.integers(0, 149)), st.sampled_from([1, STRIDE]))
async def test_the_estimate_is_kept_and_nothing_is_asked_twice(there: set[int], stride: int) -> None:
    device, found = Device(there), TableFound(Table.HOLDING, 0)
    await ranges(device.ask, 1, found, range(150), stride)
    assert len(device.asked) == len(set(device.asked))
    if stride == 1 or not there:
        assert len(device.asked) <= estimate(1, 150, 0.1, 0.5, stride=stride).unit[1]


async def test_what_is_all_there_costs_one_request_per_hundred() -> None:
    device, found = Device(range(1000)), TableFound(Table.HOLDING, 0)
    await ranges(device.ask, 1, found, range(250))
    assert device.asked == [(0, 100), (100, 100), (200, 50)]
    assert found.ranges == [range(250)]


async def test_nobody_is_asked_on_after_no_answer() -> None:
    async def silent(unit_id: int, table: Table, address: int, count: int) -> Answer:
        return None

    found = TableFound(Table.HOLDING, 0)
    await ranges(silent, 1, found, range(SINGLY * 10))
    assert found.ranges == []
    unit = UnitFound(1)
    await tables(silent, unit)
    assert unit.tables == []


async def test_tables_and_units() -> None:
    unit = UnitFound(1)
    await tables(Device({0}).ask, unit)
    assert [(one.table, one.code, one.is_served) for one in unit.tables] == [
        (Table.COIL, 1, False),
        (Table.DISCRETE, 1, False),
        (Table.HOLDING, 0, True),
        (Table.INPUT, 1, False),
    ]
    for answer, is_there in ((b"\0\0", True), (1, True), (2, True), (4, True), (10, False), (11, False), (None, False)):

        async def ask(unit_id: int, table: Table, address: int, count: int, answer: Answer = answer) -> Answer:
            return answer

        assert await answers(ask, 1) is is_there


def test_unit_ids_as_people_type_them() -> None:
    assert unit_ids("1-3, 255,2") == (1, 2, 3, 255)
    for wrong in ("", "x", "1-", "3-1", "256", "1..3", "-1"):
        with pytest.raises(ValueError, match="unit id"):
            unit_ids(wrong)
    assert listed([7, 1, 2, 3, 255]) == "1–3, 7, 255"


def test_serial_settings_begin_with_the_usual_and_miss_none() -> None:
    found = serial_settings()
    assert [(one.baudrate, one.parity) for one in found[:2]] == [(19200, "even"), (9600, "even")]
    assert len({(one.baudrate, one.parity) for one in found}) == 8 * 3
