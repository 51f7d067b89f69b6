"""With numpy or without: the same bytes out, the same values back, the same refused."""

from __future__ import annotations

import math
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from protocols.uplink import arrays, definition, envelope, frames
from protocols.uplink.arrays import ArrayBlock
from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.columns import NO_BASE, Base
from protocols.uplink.definition import Definition
from protocols.uplink.envelope import EnvelopeError
from protocols.uplink.flat import RowBlock
from protocols.uplink.rows import RowPacker
from protocols.values import ValueType
from tests.unit.test_bulk import PATTERN, a_base, defined_blocks
from tests.unit.test_envelope import TIME, bits, same
from tests.unit.test_lanes import NUMBERS

np: Any = pytest.importorskip("numpy", reason='the extra "fast" is not installed')

from protocols.uplink import array_streams  # noqa: E402  # these import numpy
from protocols.uplink.array_packer import ArrayPacker  # noqa: E402

REF = b"ref000"
ALWAYS, NEVER = 0, 10**9


@pytest.fixture(autouse=True)
def always_with_numpy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(arrays, "READINGS_MIN", ALWAYS)
    yield
    arrays.READINGS_MIN = ALWAYS  # what a test has set is undone after this


def plainly(message: bytes, defined: Definition) -> Batch:
    arrays.READINGS_MIN = NEVER
    try:
        return envelope.decode(message, {REF: defined}.get)
    finally:
        arrays.READINGS_MIN = ALWAYS


each_property = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@given(defined_blocks(whole=True))
@each_property
def test_the_bytes_are_those_of_the_plain_way(given_: tuple[Definition, Block]) -> None:
    defined, block = given_
    rows = list(zip(*(column.values for column in block.columns), strict=True))
    fast = ArrayPacker(REF, defined).pack(block.times_us, rows)
    assert fast is not None
    plain = definition.pack_referring(block, REF, defined)
    assert (fast.packed, fast.exponents) == (plain.packed, plain.exponents)


@given(defined_blocks(whole=True))
@each_property
def test_what_is_decoded_is_that_of_the_plain_way(given_: tuple[Definition, Block]) -> None:
    defined, block = given_
    message = envelope.encode_referring(7, [definition.pack_referring(block, REF, defined)])
    fast, plain = envelope.decode(message, {REF: defined}.get), plainly(message, defined)
    assert same(fast, plain)
    [found], [expected] = fast.blocks, plain.blocks
    assert isinstance(found, RowBlock)
    assert isinstance(expected, RowBlock)
    assert isinstance(found, ArrayBlock) == (len(block.times_us) > 1)
    assert list(found.patterns) == list(expected.patterns)
    assert [[*map(bits, row)] for row in found.rows] == [[*map(bits, row)] for row in expected.rows]
    alone = envelope.encode(Batch("gw-1", "00", 7, [block]))
    assert same(envelope.decode(alone), plainly(alone, defined))


def arrays_of(block: Block, defined: Definition) -> dict[ValueType, Any]:
    found: dict[ValueType, Any] = {}
    dtypes = {"bool": "?", "int": "i8", "uint": "u8", "float32": "f4", "float64": "f8"}
    for kind, positions in defined.layout(REF).by_type.items():
        values = [block.columns[at].values for at in positions]
        found[kind] = values if kind is ValueType.STRING else np.array(values, dtypes[kind])
    return found


@given(defined_blocks(whole=True), st.sampled_from(["as they are", "transposed", "other byte order"]))
@each_property
def test_arrays_are_packed_as_lists_are(given_: tuple[Definition, Block], how: str) -> None:
    defined, block = given_
    values = arrays_of(block, defined)
    for kind, array in values.items():
        if how == "transposed" and kind is not ValueType.STRING:
            values[kind] = np.ascontiguousarray(array.T).T
        elif how == "other byte order" and kind is not ValueType.STRING:
            values[kind] = array.astype(array.dtype.newbyteorder())
    for array in values.values():
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    sent = ArrayBlock(defined.layout(REF), block.times_us, values)
    packed = ArrayPacker(REF, defined).pack_block(sent).packed
    assert packed == definition.pack_referring(block, REF, defined).packed
    assert same(Batch("", "", 1, [sent]), Batch("", "", 1, [block]))


@given(
    st.sampled_from([ValueType.FLOAT32, ValueType.FLOAT64, ValueType.INT, ValueType.UINT]),
    st.integers(1, 5),
    st.lists(PATTERN, min_size=10, max_size=40),
    st.data(),
)
@example(ValueType.FLOAT32, 1, [0x7F80_0001, 0xFFBF_FFFF, 0x7FC0_BEEF, 0x8000_0000] * 3, None)
@each_property
def test_every_pattern_survives_in_arrays_signalling_ones_included(
    kind: ValueType, tags: int, patterns: list[int], data: Any
) -> None:
    dtype, unsigned = {
        ValueType.FLOAT32: ("f4", "u4"),
        ValueType.FLOAT64: ("f8", "u8"),
        ValueType.INT: ("i8", "u8"),
        ValueType.UINT: ("u8", "u8"),
    }[kind]
    rows = len(patterns) // tags
    raw = np.array(patterns[: rows * tags], "u8").astype(unsigned).reshape(tags, rows)
    bases = tuple(NO_BASE if data is None else data.draw(a_base(kind)) for _ in range(tags))
    named = tuple((f"t{at}", kind, "") for at in range(tags))
    defined = Definition("gw-1", "00", "plc", "main", 0, named, bases)
    sent = ArrayBlock(defined.layout(REF), range(rows), {kind: raw.view(dtype)})
    message = envelope.encode_referring(1, [ArrayPacker(REF, defined).pack_block(sent)])
    [found] = envelope.decode(message, {REF: defined}.get).blocks
    event(f"{kind}: {len(found.patterns)} of {tags} as patterns" if isinstance(found, RowBlock) else "no rows")
    if rows == 1:  # one row is read without numpy, as Python's floats
        expected = [raw.view(dtype)[at].tolist() for at in range(tags)]
        assert [[*map(bits, c.values)] for c in found.columns] == [[*map(bits, values)] for values in expected]
    else:
        assert isinstance(found, ArrayBlock)
        assert found.values[kind].dtype == np.dtype(dtype)
        assert (found.values[kind].view(unsigned) == raw).all()


def test_a_float_that_is_too_large_for_32_bits_is_left_to_the_general_way() -> None:
    defined = Definition("g", "00", "d", "m", 0, (("t", ValueType.FLOAT32, ""),), (NO_BASE,))
    packer = ArrayPacker(REF, defined)
    assert packer.pack([0, 1], [(1.0,), (1e39,)]) is None
    assert packer.pack([0, 1], [(1.0,), (math.inf,)]) is not None
    assert packer.pack([0, 1], [(1.0,), (1,)]) is None
    assert packer.pack([0, 1], [(1.0,), (None,)]) is None
    assert packer.pack([0, 1], [(1.0,), ()]) is None


def test_whole_numbers_beyond_64_bits_are_left_to_the_general_way() -> None:
    for kind, beyond in ((ValueType.INT, 2**63), (ValueType.UINT, 2**64), (ValueType.UINT, -1)):
        defined = Definition("g", "00", "d", "m", 0, (("t", kind, ""),), (NO_BASE,))
        assert ArrayPacker(REF, defined).pack([0, 1], [(1,), (beyond,)]) is None


@given(st.binary(max_size=60))
@each_property
def test_variable_length_integers_are_read_alike(data: bytes) -> None:
    from protocols.uplink import streams

    try:
        expected = streams.read_varints(data)
    except streams.ColumnError:
        with pytest.raises(streams.ColumnError, match="variable-length"):
            array_streams.read_varints(data)
        return
    assert array_streams.read_varints(data).tolist() == expected


@given(NUMBERS)
@each_property
def test_variable_length_integers_are_written_alike(numbers: list[int]) -> None:
    from protocols.uplink import streams

    assert array_streams.varints(np.array(numbers, "u8")) == streams.varints(numbers)


KINDS = list(ValueType)
TWELVE = Definition(
    "gw-1",
    "0011",
    "plc-1",
    "main",
    TIME,
    tuple((f"t{at}", kind, "") for at, kind in enumerate(2 * KINDS)),
    tuple(2 * [NO_BASE, Base(0, 5), Base(0, 9), Base(1, 205), Base(15, 7), NO_BASE]),
)
VALUES: list[Any] = [True, -70_000, 2**63, 20.5, math.pi, "RUN"]
SENT = Block(
    "plc-1",
    [TIME, TIME + 1000, TIME + 9000],
    [Column(f"t{at}", kind, [VALUES[at % 6]] * 2 + [type(VALUES[at % 6])()]) for at, kind in enumerate(2 * KINDS)],
)
PACKED = definition.pack_referring(SENT, REF, TWELVE)


def outcome(message: bytes, *, plain: bool) -> str:
    """The batch, or that it was refused."""
    arrays.READINGS_MIN = NEVER if plain else ALWAYS
    try:
        batch = envelope.decode(message, {REF: TWELVE}.get)
    except EnvelopeError:
        return "refused"
    finally:
        arrays.READINGS_MIN = ALWAYS
    return repr([[(c.name, [*map(bits, c.values)]) for c in block.columns] for block in batch.blocks]) + repr(
        [list(block.times_us) for block in batch.blocks]
    )


def test_what_strangers_send_is_refused_by_both_or_by_neither() -> None:
    chance, outcomes = random.Random(5), []
    for _ in range(1500):
        array = frames.unpack(envelope.encode_referring(7, [PACKED]))
        block = array[2][0]
        which = chance.randrange(4)
        if which < 2:
            stream = bytearray(block[1][chance.randrange(len(block[1]))] or b"\0")
            for _ in range(chance.randrange(3)):
                stream[chance.randrange(len(stream))] = chance.randrange(256)
            cut = chance.choice([0, 0, 0, 1, -1, 8])
            stream = stream[:cut] if cut < 0 else stream + bytes(cut)
            block[1][chance.randrange(len(block[1]))] = bytes(stream)
        elif which == 2:
            modes = bytearray(block[3])
            modes[chance.randrange(len(modes))] = chance.choice([*range(0x60), 0xFF])
            block[3] = bytes(modes[: chance.choice([len(modes)] * 5 + [1, 0, -1])])
        else:
            block[4][chance.randrange(4)] = chance.choice(
                [b"\x05", b"", b"\x00\x00", [3, "x"], [2, "x"], [3, 1], 5, []]
            )
        message = frames.pack(array)
        outcomes.append(outcome(message, plain=False))
        assert outcomes[-1] == outcome(message, plain=True)
    assert 150 < outcomes.count("refused") < 1450


def test_rows_take_the_fast_way_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "READINGS_MIN", 36)
    rows = list(zip(*(column.values for column in SENT.columns), strict=True))
    packer = RowPacker(REF, TWELVE)
    few, many = packer.pack(SENT.times_us[:2], rows[:2]), packer.pack(SENT.times_us, rows)
    assert few is not None
    assert few.packed != PACKED.packed
    assert many is not None
    assert many.packed == PACKED.packed


def test_a_device_s_registers_become_values_without_a_number_of_python_s() -> None:
    scans = [struct.pack(">3f", 20.5, 21.5, -0.0), struct.pack(">3f", 20.75, math.pi, 1e-9)]
    values = arrays.from_buffers(scans, ">f4")
    assert values.shape == (3, 2)
    tags = tuple((f"t{at}", ValueType.FLOAT32, "") for at in range(3))
    defined = Definition("g", "00", "d", "m", 0, tags, (Base(1, 200), NO_BASE, Base(15, 1)))
    sent = ArrayBlock(defined.layout(REF), [0, 1000], {ValueType.FLOAT32: values})
    message = envelope.encode_referring(1, [ArrayPacker(REF, defined).pack_block(sent)])
    [found] = envelope.decode(message, {REF: defined}.get).blocks
    assert struct.pack(">6f", *(v for row in zip(*(c.values for c in found.columns), strict=True) for v in row)) == (
        b"".join(scans)
    )


IMPORTS = """
import sys
from protocols.uplink import arrays, definition, envelope
from protocols.uplink.batch import Batch, Block, Column
from protocols.values import ValueType
if {without}:
    sys.modules["numpy"] = None
columns = [Column("t%d" % at, ValueType.FLOAT64, [20.5, 21.5]) for at in range({tags})]
block = Block("d", [0, 1000], columns)
message = envelope.encode(Batch("g", "00", 1, [block]))
[found] = envelope.decode(message).blocks
assert [c.values for c in found.columns] == [[20.5, 21.5]] * {tags}
print(bool(sys.modules.get("numpy")))
"""


@pytest.mark.parametrize(
    ("tags", "without", "is_imported"), [(10, False, "False"), (3000, False, "True"), (3000, True, "False")]
)
def test_numpy_is_imported_for_a_large_block_and_not_before(tags: int, without: bool, is_imported: str) -> None:
    source = IMPORTS.format(tags=tags, without=without)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == is_imported
