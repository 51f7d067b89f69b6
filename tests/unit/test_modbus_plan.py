"""Addresses, the plan of requests, and the search for what a device refuses. All of it pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.field.modbus_address import Table, parse, place
from protocols.field.modbus_plan import (
    Block,
    Limits,
    Span,
    plan,
    split,
)

STANDARD = Limits(registers=125, bits=2000, gap=16)


def holding(address: int, size: int = 1, unit_id: int = 1) -> Span:
    return Span(unit_id, Table.HOLDING, address, size)


def shapes(blocks: Sequence[Block]) -> list[tuple[int, int]]:
    return [(block.address, block.count) for block in blocks]


@pytest.mark.parametrize(
    ("written", "table", "address"),
    [
        (40001, Table.HOLDING, 0),
        ("40001", Table.HOLDING, 0),
        (49999, Table.HOLDING, 9998),
        (400001, Table.HOLDING, 0),
        (465536, Table.HOLDING, 65535),
        (30001, Table.INPUT, 0),
        (300124, Table.INPUT, 123),
        (10008, Table.DISCRETE, 7),
        (100008, Table.DISCRETE, 7),
        ("00001", Table.COIL, 0),
        ("000021", Table.COIL, 20),
        ("holding:0", Table.HOLDING, 0),
        ("input:65535", Table.INPUT, 65535),
        ("coil:3", Table.COIL, 3),
        ("discrete:00", Table.DISCRETE, 0),
    ],
)
def test_both_notations(written: int | str, table: Table, address: int) -> None:
    assert parse(written) == (table, address)


@pytest.mark.parametrize(
    "written",
    [
        *(0, 1, 9999, 20001, 50001, 40000, 400000, 465537, 4000001, -40001),
        *("holding:65536", "holding:-1", "40001 ", "Holding:1", "holding:", "holding", "4x0001", "", "holding:1.5"),
        "٤٠٠٠١",  # digits, but not ours
    ],
)
def test_what_is_no_address_is_answered_with_both_notations(written: int | str) -> None:
    with pytest.raises(ValueError, match=r"40001 or 400001.*holding:0") as caught:
        parse(written)
    assert str(written) in str(caught.value)


def test_places_are_shown_in_both_notations() -> None:
    assert place(Table.HOLDING, 10, 5) == "holding 10–14 (40011–40015)"
    assert place(Table.COIL, 3, 1) == "coil 3 (00004)"
    assert place(Table.INPUT, 9998, 1) == "input 9998 (39999)"
    assert place(Table.INPUT, 9998, 2) == "input 9998–9999 (309999–310000)"
    assert place(Table.DISCRETE, 65535, 1) == "discrete 65535 (165536)"


@given(st.sampled_from(Table), st.integers(0, 65535))
def test_what_is_shown_can_be_written(table: Table, address: int) -> None:
    pdu, reference = place(table, address, 1).split(" (")
    assert parse(pdu.replace(" ", ":")) == (table, address)
    assert parse(reference[:-1]) == (table, address)


def test_a_thousand_tags_in_twelve_requests() -> None:
    """1,500 registers are twelve times 125, and twelve requests read them where no float lies across a border."""
    spans: list[Span] = []
    address = 0
    for machine in range(12):
        floats = 42 if machine < 8 else 41
        for size in [2] * floats + [1] * (125 - 2 * floats):
            spans.append(holding(address, size))
            address += size
    assert (len(spans), sum(span.size == 2 for span in spans), address) == (1000, 500, 1500)
    assert shapes(plan(spans, STANDARD)) == [(125 * number, 125) for number in range(12)]


def test_floats_in_a_row_leave_the_last_register_of_a_request_unused() -> None:
    """500 float32 and then 500 int16: 62 floats fit into a request, so thirteen requests are the fewest possible."""
    spans = [holding(2 * n, 2) for n in range(500)] + [holding(1000 + n) for n in range(500)]
    blocks = plan(spans, STANDARD)
    assert [block.count for block in blocks] == [124] * 8 + [125] * 4 + [8]
    assert sum(block.count for block in blocks) == 1500


def test_gaps_are_read_through_up_to_the_limit() -> None:
    assert shapes(plan([holding(0), holding(17)], STANDARD)) == [(0, 18)]
    assert shapes(plan([holding(0), holding(18)], STANDARD)) == [(0, 1), (18, 1)]
    assert shapes(plan([holding(0), holding(2)], STANDARD._replace(gap=0))) == [(0, 1), (2, 1)]
    coils = [Span(1, Table.COIL, address, 1) for address in (0, 257, 515)]
    assert shapes(plan(coils, STANDARD)) == [(0, 258), (515, 1)]


def test_units_and_tables_are_never_mixed() -> None:
    spans = [holding(0), holding(1, unit_id=2), Span(1, Table.INPUT, 1, 1), Span(1, Table.COIL, 1, 1), holding(2)]
    blocks = plan(spans, STANDARD)
    assert [(block.unit_id, block.table, block.members) for block in blocks] == [
        (1, Table.COIL, (3,)),
        (1, Table.HOLDING, (0, 4)),
        (1, Table.INPUT, (2,)),
        (2, Table.HOLDING, (1,)),
    ]


def test_a_span_over_the_limit_is_an_error() -> None:
    with pytest.raises(ValueError, match="4 registers does not fit into one request of 3"):
        plan([holding(0, 4)], Limits(3, 2000, 0))
    assert plan([], STANDARD) == []


limits = st.builds(Limits, st.integers(8, 40), st.just(2000), st.integers(0, 10))


@given(
    st.lists(
        st.builds(
            Span, st.integers(1, 2), st.sampled_from(Table), st.integers(0, 300), st.sampled_from([1, 1, 2, 4, 20])
        )
    ),
    st.builds(Limits, st.integers(20, 125), st.integers(20, 2000), st.integers(0, 30)),
)
def test_every_plan_keeps_the_rules(spans: list[Span], limits: Limits) -> None:
    blocks = plan(spans, limits)
    assert sorted(index for block in blocks for index in block.members) == list(range(len(spans)))
    for block in blocks:
        assert tuple(spans[index] for index in block.members) == block.spans
        assert {(span.unit_id, span.table) for span in block.spans} == {(block.unit_id, block.table)}
        assert block.count <= limits.largest(block.table)
        assert all(block.address <= span.address and span.end <= block.address + block.count for span in block.spans)
        wanted = {address for span in block.spans for address in range(span.address, span.end)}
        gap = 0
        for address in range(block.address, block.address + block.count):
            gap = 0 if address in wanted else gap + 1
            assert gap <= limits.widest_gap(block.table)


def partitions(items: Sequence[int]) -> Iterator[list[list[int]]]:
    """Every way to divide the items into groups."""
    if not items:
        yield []
        return
    for rest in partitions(items[1:]):
        yield [[items[0]], *rest]
        for number, group in enumerate(rest):
            yield [*rest[:number], [items[0], *group], *rest[number + 1 :]]


def allowed(spans: Sequence[Span], limits: Limits) -> bool:
    """Whether one request may read all of these."""
    wanted = {address for span in spans for address in range(span.address, span.end)}
    missing = "".join("." if address in wanted else "x" for address in range(min(wanted), max(wanted) + 1))
    return len(missing) <= limits.registers and max(map(len, missing.split("."))) <= limits.gap


@given(st.lists(st.builds(holding, st.integers(0, 30), st.integers(1, 8)), min_size=1, max_size=6), limits)
def test_no_division_needs_fewer_requests(spans: list[Span], limits: Limits) -> None:
    fewest = min(
        len(groups)
        for groups in partitions(range(len(spans)))
        if all(allowed([spans[index] for index in group], limits) for group in groups)
    )
    assert len(plan(spans, limits)) == fewest


def test_splits_at_the_widest_gap_else_in_the_middle_never_within_one_place() -> None:
    def cut(*spans: Span) -> list[tuple[int, int]] | None:
        halves = split(Block(tuple(range(len(spans))), spans))
        return None if halves is None else shapes(halves)

    assert cut(*(holding(n) for n in range(8))) == [(0, 4), (4, 4)]
    assert cut(holding(0), holding(1), holding(2), holding(3), holding(9)) == [(0, 4), (9, 1)]
    assert cut(holding(0), holding(2), holding(7), holding(8)) == [(0, 3), (7, 2)]
    assert cut(holding(0), holding(0), holding(0), holding(1)) == [(0, 1), (1, 1)]
    assert cut(holding(0, 2), holding(1)) == [(0, 2), (1, 1)]
    assert cut(holding(5), holding(5)) is None
    assert cut(holding(5)) is None
