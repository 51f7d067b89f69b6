"""The referring form: what it says is what the self-contained form says, for every batch, in fewer bytes."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from agent.definitions import Book, SelfContained
from agent.outbox.contract import Encoded
from protocols.field.contract import Group, Scan, Tag
from protocols.uplink import definition, frames
from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.definition import Definition, DefinitionError
from protocols.uplink.envelope import DefinitionMissing, EnvelopeError, decode, encode, encode_referring
from protocols.uplink.rows import RowPacker
from protocols.uplink.streams import XOR
from protocols.values import Value, ValueType
from tests.unit.test_envelope import TIME, VALUES, batches, same

EPOCH = "0011223344556677"


def group_of(block: Block, more: int = 0) -> Group:
    """A group with the block's tags, and some that the block does not hold."""
    tags = [Tag(column.name, column.type, column.unit) for column in block.columns]
    extra = [Tag(f"~more{at}", ValueType.FLOAT64) for at in range(more)]
    return Group(block.device, "main", 1.0, tuple(sorted([*tags, *extra], key=lambda tag: tag.name)))


def in_group_order(block: Block) -> Block:
    return replace(block, columns=sorted(block.columns, key=lambda column: column.name))


def scans_of(group: Group, block: Block) -> list[Scan]:
    """The block's rows as a driver would give them; full ones without indexes, good ones without quality."""
    place = {tag.name: at for at, tag in enumerate(group.tags)}
    cells: list[dict[int, tuple[Value, int, str]]] = [{} for _ in block.times_us]
    for column in block.columns:
        rows = range(len(column.values)) if column.rows is None else column.rows
        for at, row in enumerate(rows):
            code = 0 if column.quality is None else column.quality[at]
            cells[row][place[column.name]] = (column.values[at], code, column.reasons.get(at, ""))
    return [
        Scan(
            group,
            time_us,
            [row[at][0] for at in sorted(row)],
            None if len(row) == len(group.tags) else sorted(row),
            [row[at][1] for at in sorted(row)] if any(code for _, code, _ in row.values()) else None,
            {at: reason for at, (_, _, reason) in sorted(row.items()) if reason},
        )
        for time_us, row in zip(block.times_us, cells, strict=True)
        if row
    ]


class Known(dict[bytes, Definition]):
    """What a receiver has been told."""

    def learn(self, encoded: Encoded) -> Encoded:
        for one in encoded.definitions:
            assert definition.ref(one.message) == one.ref
            self[one.ref] = definition.decode(one.message)
        return encoded


@given(st.lists(batches(), min_size=1, max_size=3), st.integers(0, 2))
@settings(max_examples=200)
def test_both_forms_say_the_same(sent: list[Batch], more: int) -> None:
    book, known = Book("gw-1"), Known()
    groups: dict[Any, Group] = {}
    for seq, batch in enumerate(sent, 1):
        blocks = [in_group_order(replace(block, device=f"d{at}")) for at, block in enumerate(batch.blocks)]
        all_scans = []
        for block in blocks:
            key = (block.device, tuple((c.name, c.type, c.unit) for c in block.columns))
            scans = scans_of(groups.setdefault(key, group_of(block, more)), block)
            all_scans += [scans] if scans else []
        if all_scans:
            encoded = known.learn(book.encode(EPOCH, seq, all_scans))
            alone = SelfContained("gw-1").encode(EPOCH, seq, all_scans)
            assert same(decode(encoded.payload, known.get), decode(alone.payload))


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40), st.integers(0, 2**64 - 1))
def test_every_float64_pattern_survives_whatever_the_base_is(patterns: list[int], base: int) -> None:
    def column(bits: list[int]) -> Column:
        return Column("x", ValueType.FLOAT64, [struct.unpack("<d", struct.pack("<Q", b))[0] for b in bits])

    first = Block("d", [TIME], [column([base])])
    group = group_of(first)
    book, known = Book("gw-1"), Known()
    known.learn(book.encode(EPOCH, 1, [scans_of(group, first)]))
    block = Block("d", [TIME + n for n in range(len(patterns))], [column(patterns)])
    got = decode(known.learn(book.encode(EPOCH, 2, [scans_of(group, block)])).payload, known.get).blocks[0].columns[0]
    assert [struct.pack("<d", v) for v in got.values] == [struct.pack("<Q", p) for p in patterns]


def tenths(row: int) -> Block:
    columns = [Column(f"t{n}", ValueType.FLOAT64, [round(20 + n + (row + n) % 13 / 10, 1)]) for n in range(24)]
    return Block("plc", [TIME + 1_000_000 * row], columns)


def test_a_single_scan_costs_half_of_the_self_contained_form() -> None:
    book, known, group = Book("gw-1"), Known(), group_of(tenths(0))
    sizes = [len(known.learn(book.encode(EPOCH, seq, [scans_of(group, tenths(seq))])).payload) for seq in range(1, 200)]
    alone = len(SelfContained("gw-1").encode(EPOCH, 1, [scans_of(group, tenths(1))]).payload)
    assert max(sizes[-50:]) < alone / 2
    assert 2 <= len(known) <= 4, "renewed when it has learned how many decimals are needed, and then seldom"


def test_definitions_cost_little_however_long_it_runs() -> None:
    book, group, telemetry = Book("gw-1"), group_of(tenths(0)), 0
    told: dict[bytes, int] = {}
    for seq in range(1, 3000):
        encoded = book.encode(EPOCH, seq, [scans_of(group, tenths(seq))])
        telemetry += len(encoded.payload)
        told |= {one.ref: len(one.message) for one in encoded.definitions}
    assert sum(told.values()) < telemetry / 40


def test_noise_that_once_looks_like_decimals_is_not_taken_for_them_again_and_again() -> None:
    """Else each amendment would expect other wrong decimals, and each batch hold what is not as expected."""
    chance = Random(1)

    def noise(row: int) -> Block:
        values = [struct.unpack("<f", struct.pack("<f", chance.uniform(50, 90)))[0] for _ in range(200)]
        columns = [Column(f"t{n:03}", ValueType.FLOAT32, [value]) for n, value in enumerate(values)]
        return Block("plc", [TIME + 1_000_000 * row], columns)

    book, group = Book("gw-1"), group_of(noise(0))
    told = [book.encode(EPOCH, seq, [scans_of(group, noise(seq))]).definitions[0] for seq in range(1, 60)]
    assert len({one.ref for one in told}) == 2
    assert {base.exponent for base in definition.decode(told[-1].message).bases} == {XOR}


def test_another_epoch_or_group_is_another_definition() -> None:
    book, group = Book("gw-1"), group_of(tenths(0))
    [first] = book.encode(EPOCH, 1, [scans_of(group, tenths(1))]).definitions
    [same_again] = book.encode(EPOCH, 2, [scans_of(group, tenths(1))]).definitions
    [other_epoch] = book.encode("ff" * 8, 1, [scans_of(group, tenths(1))]).definitions
    [other_group] = book.encode("ff" * 8, 2, [scans_of(replace(group), tenths(2))]).definitions
    assert same_again == first
    assert len({first.ref, other_epoch.ref, other_group.ref}) == 3


def test_a_receiver_that_lacks_a_definition_says_which() -> None:
    encoded = Book("gw-1").encode(EPOCH, 1, [scans_of(group_of(tenths(0)), tenths(1))])
    with pytest.raises(DefinitionMissing) as caught:
        decode(encoded.payload)
    assert caught.value.refs == (encoded.definitions[0].ref,)


ROW_VALUES: dict[ValueType, st.SearchStrategy[Any]] = {
    ValueType.BOOL: st.booleans(),
    ValueType.STRING: st.one_of(st.sampled_from(["", "RUN", "STOP"]), st.text(max_size=5)),
    ValueType.INT: st.one_of(st.integers(-300, 300), st.integers(-(2**63), 2**63 - 1)),
    ValueType.UINT: st.one_of(st.integers(0, 70_000), st.integers(0, 2**64 - 1)),
    ValueType.FLOAT32: VALUES[ValueType.FLOAT32],
    ValueType.FLOAT64: st.one_of(VALUES[ValueType.FLOAT64], st.integers(-999, 999).map(lambda n: n / 10)),
}


@given(st.data(), st.lists(st.sampled_from(list(ValueType)), min_size=1, max_size=8), st.integers(1, 6))
@settings(max_examples=500)
def test_the_quick_way_makes_the_very_same_bytes(data: st.DataObject, kinds: list[ValueType], count: int) -> None:
    kind_of = dict(enumerate(kinds))
    steady = data.draw(st.booleans())

    def rows(number: int) -> list[list[Value]]:
        first = [data.draw(ROW_VALUES[kind]) for kind in kinds]
        if steady:
            return [first] * number
        return [first, *([data.draw(ROW_VALUES[kind]) for kind in kinds] for _ in range(number - 1))]

    def block(found: list[list[Value]]) -> Block:
        times = sorted(data.draw(st.integers(TIME, TIME + 10**10)) for _ in found)
        columns = [Column(f"t{at}", kind_of[at], list(values)) for at, values in enumerate(zip(*found, strict=True))]
        return Block("plc", times, columns)

    tags = [(f"t{at}", kind, "") for at, kind in kind_of.items()]
    base = rows(1)
    made = definition.define("gw-1", EPOCH, "main", tags, block(base))
    sent = block(data.draw(st.sampled_from([base * count, rows(count)])))
    quick = RowPacker(b"ref000", made).pack(sent.times_us, list(zip(*(c.values for c in sent.columns), strict=True)))
    if quick is not None:
        assert quick.packed == definition.pack_referring(sent, b"ref000", made).packed
    else:
        event("taken the general way")


def test_regular_rows_do_take_the_quick_way() -> None:
    rows = [[column.values[0] for column in tenths(row).columns] for row in range(100)]
    columns = [Column(f"t{at}", ValueType.FLOAT64, values) for at, values in enumerate(zip(*rows, strict=True))]
    tags = [(column.name, column.type, "") for column in columns]
    made = definition.define("gw-1", EPOCH, "main", tags, Block("plc", [TIME] * 100, columns))
    packer = RowPacker(b"ref000", made)
    assert all(packer.pack([TIME], [row]) is not None for row in rows)


MESSAGE = definition.encode(
    definition.define("gw-1", EPOCH, "main", [("t", ValueType.FLOAT64, "bar"), ("n", ValueType.INT, "")], tenths(0))
)


def definition_with(at: int, value: Any) -> bytes:
    parts = frames.unpack(MESSAGE)
    parts[at] = value
    return frames.pack(parts)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"", "empty"),
        (b"nonsense", "unknown form"),
        (frames.pack({}), "11 parts"),
        (frames.pack([1]), "11 parts"),
        (definition_with(0, 2), "begins with 1"),
        (definition_with(1, 5), "gateway"),
        (definition_with(2, b""), "epoch"),
        (definition_with(5, -1), "time"),
        (definition_with(6, ["t", "t"]), "twice"),
        (definition_with(7, b"\x09\x09"), "types"),
        (definition_with(8, [1, ""]), "runs end"),
        (definition_with(9, b""), "exponents"),
        (definition_with(10, b"\x00"), "first values"),
        (definition_with(10, b"\xff" * 20), "64 bits"),
    ],
)
def test_a_strange_definition_is_refused_in_one_sentence(message: bytes, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        definition.decode(message)


def referring(change: Any) -> bytes:
    value = frames.unpack(encode_referring(7, [definition.pack_referring(block_of_two(), b"ref000", TWO)]))
    change(value)
    return frames.pack(value)


def block_of_two() -> Block:
    return Block(
        "plc", [TIME, TIME + 1000], [Column("t", ValueType.FLOAT64, [1.5, 2.5]), Column("n", ValueType.INT, [1, 900])]
    )


TWO = definition.decode(MESSAGE)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.append(1), "referring form"),
        (lambda a: a.__setitem__(1, 0), "seq 0"),
        (lambda a: a.__setitem__(2, []), "referring form"),
        (lambda a: a[2].__setitem__(0, []), "reference"),
        (lambda a: a[2][0].__setitem__(0, b"short"), "reference"),
        (lambda a: a[2].__setitem__(0, [b"ref000"]), "two to seven"),
        (lambda a: a[2][0].__setitem__(1, 5), "streams"),
        (lambda a: a[2][0].__setitem__(1, [b""] * 6), "streams"),
        (lambda a: a[2][0].__setitem__(2, 10**9), "rows"),
        (lambda a: a[2][0].__setitem__(3, 5), "modes"),
        (lambda a: a[2][0].__setitem__(3, b"\x01\x00\x00"), "scale"),
        (lambda a: a[2][0].extend([None] * (7 - len(a[2][0]))) or a[2][0].__setitem__(6, [5]), "ascending"),
        (lambda a: a[2][0].extend([None] * (7 - len(a[2][0]))) or a[2][0].__setitem__(6, [0, 0]), "ascending"),
        (lambda a: a[2][0].extend([None] * (7 - len(a[2][0]))) or a[2][0].__setitem__(6, ["x"]), "steps"),
    ],
)
def test_a_strange_block_is_refused_in_one_sentence(change: Any, says: str) -> None:
    with pytest.raises(EnvelopeError, match=says):
        decode(referring(change), {b"ref000": TWO}.get)


json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=5), st.binary()),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=12,
)


@given(st.integers(1, 6), json_like)
@settings(max_examples=400)
def test_a_block_with_any_part_replaced_is_refused_or_still_a_block(at: int, value: Any) -> None:
    def change(array: Any) -> None:
        array[2][0].extend([None] * (7 - len(array[2][0])))
        array[2][0][at] = value

    with contextlib.suppress(EnvelopeError):
        assert decode(referring(change), {b"ref000": TWO}.get).readings() >= 0


def test_blocks_of_several_epochs_in_one_message_are_refused() -> None:
    other = replace(TWO, epoch="ff" * 8)
    blocks = [
        definition.pack_referring(block_of_two(), b"ref000", TWO),
        definition.pack_referring(block_of_two(), b"ref001", other),
    ]
    with pytest.raises(EnvelopeError, match="several"):
        decode(encode_referring(1, blocks), {b"ref000": TWO, b"ref001": other}.get)


def test_the_self_contained_form_is_as_it_was() -> None:
    batch = Batch("gw-1", EPOCH, 1, [tenths(0)])
    assert frames.unpack(encode(batch))[0] == 1
