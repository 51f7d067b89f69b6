"""What reading a device costs, reckoned beforehand."""

from __future__ import annotations

from typing import Any

import pytest

from agent.toolbox.reckoning import Way, by_gap, cycle
from protocols.field.contract import Group
from protocols.field.modbus import TagSettings, tag
from protocols.field.modbus_plan import Limits

STANDARD = Limits(125, 2000, 16)


def group(*tags: tuple[Any, ...], period_s: float = 1.0) -> Group:
    """(address, type, unit id) of each tag."""
    made = []
    for number, (address, kind, *unit) in enumerate(tags):
        keys = {"name": f"t{number}", "address": address, "type": kind, "unit_id": unit[0] if unit else None}
        made.append(tag(TagSettings.model_validate(keys)))
    return Group("plc", "main", period_s, tuple(made))


def test_bytes_of_a_request_are_those_of_the_standard() -> None:
    """Application Protocol V1.1b3, 6.3: a read is function, address, count; its answer function, size, content."""
    [one] = cycle(group((40001, "uint16"), (40003, "float32")), 1, STANDARD, Way(0.01)).asks
    assert (one.block.count, one.wasted, one.request_bytes, one.answer_bytes) == (4, 1, 12, 9 + 8)
    [bits] = cycle(group(("coil:0", "bool"), ("coil:8", "bool")), 1, STANDARD, Way(0.01)).asks
    assert (bits.block.count, bits.wasted, bits.answer_bytes) == (9, 7, 9 + 2)
    [rtu] = cycle(group((40001, "uint16")), 1, STANDARD, Way(0.01, is_framed_rtu=True)).asks
    assert (rtu.request_bytes, rtu.answer_bytes) == (8, 7)


def test_overlapping_tags_waste_nothing() -> None:
    [one] = cycle(group((40001, "uint32"), (40002, "uint16")), 1, STANDARD, Way(0)).asks
    assert (one.block.count, one.wasted) == (2, 0)


def test_a_tag_of_another_unit_is_a_request_of_its_own() -> None:
    asks = cycle(group((40001, "uint16"), (40002, "uint16", 9)), 4, STANDARD, Way(0.05)).asks
    assert [ask.block.unit_id for ask in asks] == [4, 9]


def test_time_on_a_serial_line() -> None:
    """8 bytes to ask and 7 to answer at 9,600 bit/s of 11 bits each, and twice 3.5 characters of silence."""
    found = cycle(group((40001, "uint16")), 1, STANDARD, Way(0.02, 9600))
    assert found.duration_s == pytest.approx(0.02 + (8 + 7 + 2 * 3.5) * 11 / 9600)
    fast = cycle(group((40001, "uint16")), 1, STANDARD, Way(0.0, 115_200))
    assert fast.duration_s == pytest.approx(15 * 11 / 115_200 + 2 * 0.00175)


def test_load_is_the_share_of_the_period() -> None:
    found = cycle(group((40001, "uint16"), ("input:0", "uint16"), period_s=0.1), 1, STANDARD, Way(0.06))
    assert found.duration_s == pytest.approx(0.12)
    assert found.load == pytest.approx(1.2)


def test_gaps_are_compared_with_the_one_that_is_set() -> None:
    tags = group((40001, "uint16"), (40011, "uint16"), (40061, "uint16"))
    found = by_gap([tags], 1, Limits(125, 2000, 7), Way(0))
    assert {gap: requests for gap, (requests, _) in found.items()} == {0: 3, 4: 3, 7: 3, 16: 2, 40: 2, 125: 1}
    assert found[0][1] == 3 * (12 + 11)
    assert found[125][1] == 12 + 9 + 2 * 61
