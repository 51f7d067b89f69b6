"""Whole rows: what a database takes from a decoded block is what stands in its columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from protocols.uplink import definition, envelope, frames
from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.columns import NO_BASE, Base
from protocols.uplink.definition import Definition
from protocols.uplink.envelope import EnvelopeError
from protocols.uplink.flat import RowBlock, picker
from protocols.values import ValueType
from tests.unit.test_bulk import defined_blocks
from tests.unit.test_envelope import TIME, bits, same

REF = b"ref000"
KINDS = [ValueType.FLOAT32, ValueType.BOOL, ValueType.INT, ValueType.FLOAT64, ValueType.STRING, ValueType.UINT]
VALUES: list[Any] = [20.5, True, -7, 3.25, "Größe", 2**63]
BASES = [Base(1, 200), NO_BASE, Base(0, -9), Base(15, 5), NO_BASE, Base(0, 3)]
TWELVE = Definition(
    "gw-1",
    "0011",
    "plc-1",
    "main",
    TIME,
    tuple((f"t{at}", kind, "bar") for at, kind in enumerate(2 * KINDS)),
    tuple(2 * BASES),
)


def block(rows: int = 1, tags: list[int] | None = None) -> Block:
    columns = [Column(f"t{at}", (2 * KINDS)[at], [(2 * VALUES)[at]] * rows, "bar") for at in tags or range(12)]
    return Block("plc-1", [TIME + 1000 * row for row in range(rows)], columns)


def message(*blocks: Block) -> bytes:
    return envelope.encode_referring(7, [definition.pack_referring(one, REF, TWELVE) for one in blocks])


def decoded(*blocks: Block) -> list[RowBlock]:
    found = envelope.decode(message(*blocks), {REF: TWELVE}.get).blocks
    assert all(isinstance(one, RowBlock) for one in found)
    return [one for one in found if isinstance(one, RowBlock)]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_rows_hold_the_values_in_the_order_of_the_tags(rows: int) -> None:
    [found] = decoded(block(rows))
    assert [[bits(value) for value in row] for row in found.rows] == [[bits(value) for value in 2 * VALUES]] * rows
    assert list(found.times_us) == [TIME + 1000 * row for row in range(rows)]
    assert (found.device, found.layout.device, found.readings()) == ("plc-1", "plc-1", 12 * rows)
    assert [tag for tag, *_ in found.layout.tags] == [f"t{at}" for at in range(12)]
    assert found.layout.by_type[ValueType.BOOL] == [1, 7]
    assert list(found.patterns) == [3, 9]
    assert [column.values for column in found.columns] == [[value] * rows for value in 2 * VALUES]
    assert found.columns is found.columns


def test_blocks_of_the_same_tags_share_one_layout_and_others_have_another_key() -> None:
    a, b, c, d, e = decoded(block(), block(3), block(1, [2, 3]), block(4, [2, 3]), block(1, [2, 4]))
    assert a.layout is b.layout
    assert a.layout.key == REF
    assert c.layout is d.layout
    assert len({a.layout.key, c.layout.key, e.layout.key}) == 3
    assert c.rows == [VALUES[2:4]]
    [again] = decoded(block())
    assert again.layout is a.layout


def test_many_sets_of_tags_do_not_pile_up() -> None:
    fresh = replace(TWELVE)
    for first in range(11):
        for last in range(first + 1, 12):
            packed = definition.pack_referring(block(1, [first, last]), REF, fresh).packed
            found = definition.unpack_referring(packed, fresh, 1000)
            assert [column.values for column in found.columns] == [[(2 * VALUES)[first]], [(2 * VALUES)[last]]]
    assert len(fresh._layouts) <= definition._LAYOUTS_MAX


def test_a_block_that_is_not_whole_or_not_good_is_no_row_block() -> None:
    whole = block(3)
    for change in (
        {"rows": [0, 2], "values": [1.5, 2.5]},
        {"quality": [0, 0x40000000, 0]},
        {"quality": [0, 0x80000000, 0], "values": [1.5, None, 2.5]},
    ):
        sent = replace(whole, columns=[replace(whole.columns[0], **change), *whole.columns[1:]])
        [found] = envelope.decode(message(sent), {REF: TWELVE}.get).blocks
        assert type(found) is Block
        assert same(Batch("", "", 1, [found]), Batch("", "", 1, [sent]))


def test_blocks_without_rows_or_without_tags_are_whole() -> None:
    none = Block("plc-1", [], [replace(column, values=[]) for column in block().columns])
    empty, bare = decoded(none, Block("plc-1", [TIME, TIME + 1], []))
    assert (empty.rows, [column.values for column in empty.columns]) == ([], [[]] * 12)
    assert (bare.rows, bare.columns, bare.readings()) == ([(), ()], [], 0)


def test_the_self_contained_form_is_whole_too_but_has_nothing_to_be_known_by() -> None:
    [found] = envelope.decode(envelope.encode(Batch("gw-1", "00", 1, [block(2)]))).blocks
    assert isinstance(found, RowBlock)
    assert found.layout.key == b""
    assert same(Batch("", "", 1, [found]), Batch("", "", 1, [block(2)]))


@given(defined_blocks(whole=True))
@settings(max_examples=150)
def test_one_row_is_read_as_the_general_way_reads_it(given_: tuple[Definition, Block]) -> None:
    defined, sent = given_
    packed = definition.pack_referring(sent, REF, defined).packed
    packed += [None] * (7 - len(packed))
    quick = definition.unpack_referring(packed, defined, 10**6)
    assert isinstance(quick, RowBlock)
    packed[5] = {0: [None, None, None, {}]}  # says nothing, but makes the block take the general way
    general = definition.unpack_referring(packed, defined, 10**6)
    assert type(general) is Block
    assert same(Batch("", "", 1, [quick]), Batch("", "", 1, [general]))
    values = [[bits(value) for value in row] for row in quick.rows]
    assert values == [[bits(c.values[at]) for c in general.columns] for at in range(len(sent.times_us))]
    odd = {at for at, c in enumerate(general.columns) for v in c.values if isinstance(v, float) and v - v != 0.0}
    assert odd <= set(quick.patterns), "a NaN or an infinity that nothing pointed at"


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (1, [b"\x00"], "first values"),
        (1, [bytes(7), b"x"], "more or fewer"),
        (1, [bytes(7), b"", b"", b"", bytes(9)], "more or fewer"),
        (1, [b"\xff" * 20], "64 bits"),
        (3, b"\x03", "modes"),
        (3, bytes([3, 1, 0, 0x4F, 0, 1, 0, 0x4F, 0x50]), "modes"),
        (3, bytes([1, 1, 0, 0x4F, 0, 1, 0, 0x4F, 0]), "scale"),
        (3, bytes([3, 0x4F, 0, 0x4F, 0, 1, 0, 0x4F, 0]), "width"),
        (3, bytes([3, 1, 5, 0x4F, 0, 1, 0, 0x4F, 0]), "exponent"),
        (4, [], "extras"),
        (4, [b"\x01", [1, "a"], b"\x01\x00", [1, "b"]], "bool"),
        (4, [[], [1, "a"], b"\x01", [1, "b"]], "bool"),
        (4, [b"\x01", [2, "a"], b"\x01", [1, "b"]], "run"),
        (4, [b"\x01", [1, "a" * 5000], b"\x01", [1, "b"]], "5000 characters"),
    ],
)
def test_a_strange_row_is_refused_in_one_sentence(at: int, value: Any, says: str) -> None:
    array = frames.unpack(message(block()))
    array[2][0] += [None] * (7 - len(array[2][0]))
    array[2][0][at] = value
    with pytest.raises(EnvelopeError, match=says):
        envelope.decode(frames.pack(array), {REF: TWELVE}.get)


@pytest.mark.parametrize("positions", [[0], [3], [0, 1, 2], [2, 1, 0], [0, 2, 1, 3], [1, 3]])
def test_picked_are_exactly_these(positions: list[int]) -> None:
    assert list(picker(positions)("abcd")) == ["abcd"[at] for at in positions]
