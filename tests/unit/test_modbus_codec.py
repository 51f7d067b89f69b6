"""Decoding of blocks: against vectors written by hand, and against a reference that takes tag by tag."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.field.contract import Value
from protocols.field.modbus_codec import BitDecoder, Encoding, Order, RegisterDecoder, Type, exact, swap_bytes, text

ORDERS: tuple[Order, ...] = get_args(Order)

# type, value, its bytes in the orders ABCD, CDAB, BADC, DCBA
VECTORS: list[tuple[Type, Value, str, str, str, str]] = [
    ("uint16", 0x1234, "1234", "1234", "3412", "3412"),
    ("int16", -2, "FFFE", "FFFE", "FEFF", "FEFF"),
    ("bool", True, "0100", "0100", "0001", "0001"),
    ("uint32", 0x12345678, "12345678", "56781234", "34127856", "78563412"),
    ("int32", -2, "FFFFFFFE", "FFFEFFFF", "FFFFFEFF", "FEFFFFFF"),
    ("float32", 123.456, "42F6E979", "E97942F6", "F64279E9", "79E9F642"),
    (
        "uint64",
        0x0123456789ABCDEF,
        "0123456789ABCDEF",
        "CDEF89AB45670123",
        "23016745AB89EFCD",
        "EFCDAB8967452301",
    ),
    ("int64", -2, "FFFFFFFFFFFFFFFE", "FFFEFFFFFFFFFFFF", "FFFFFFFFFFFFFEFF", "FEFFFFFFFFFFFFFF"),
    ("float64", -0.1, "BFB999999999999A", "999A99999999BFB9", "B9BF999999999A99", "9A9999999999B9BF"),
    ("string", "Pump 7", "50756D702037", "50756D702037", "7550706D3720", "7550706D3720"),
]


def decode(encoding: Encoding, raw: bytes) -> Value:
    """One tag alone in its block."""
    values, nonfinite = RegisterDecoder(encoding.registers, [(0, encoding)]).decode(raw)
    assert nonfinite == {}
    (value,) = values
    return value


@pytest.mark.parametrize(("kind", "value", "abcd", "cdab", "badc", "dcba"), VECTORS, ids=[v[0] for v in VECTORS])
def test_every_type_in_every_order(kind: Type, value: Value, abcd: str, cdab: str, badc: str, dcba: str) -> None:
    for order, raw in zip(ORDERS, (abcd, cdab, badc, dcba), strict=True):
        data = bytes.fromhex(raw)
        decoded = decode(Encoding(kind, order, length=len(data) if kind == "string" else 0), data)
        if kind == "float32":  # 123.456 as the nearest float32
            assert isinstance(decoded, float) and struct.pack(">f", decoded) == bytes.fromhex(abcd)
            assert decoded == pytest.approx(value)
        else:
            assert (type(decoded), decoded) == (type(value), value), order


def test_all_types_and_orders_are_covered_by_the_vectors() -> None:
    assert {vector[0] for vector in VECTORS} == set(get_args(Type))
    assert ORDERS == ("ABCD", "CDAB", "BADC", "DCBA")


@pytest.mark.parametrize("order", ORDERS)
def test_bits_are_counted_in_the_value_not_in_the_bytes(order: Order) -> None:
    register = bytes.fromhex("8001" if order in ("ABCD", "CDAB") else "0180")
    assert [bit for bit in range(16) if decode(Encoding("bool", order, bit=bit), register)] == [0, 15]
    register = bytes.fromhex("0200" if order in ("ABCD", "CDAB") else "0002")
    assert [bit for bit in range(16) if decode(Encoding("bool", order, bit=bit), register)] == [9]


def test_a_bool_of_a_register_is_true_unless_it_is_0() -> None:
    assert decode(Encoding("bool"), b"\0\0") is False
    assert decode(Encoding("bool"), b"\0\1") is True
    assert decode(Encoding("bool"), b"\1\0") is True


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"R-12\0\0", "R-12"),
        (b"R-12\0X", "R-12"),  # what follows the NUL was left there by a longer text
        (b"R-12  ", "R-12"),
        (b" R 12\0", " R 12"),
        (b"\0\0\0\0\0\0", ""),
        ("Größe".encode()[:6], "Größ"),
        ("Größe ".encode("latin-1"), "Größe"),
        (b"\xff\xfe\x80\x81\x01\x02", "ÿþ\x80\x81\x01\x02"),
    ],
)
def test_text(raw: bytes, shown: str) -> None:
    assert text(raw) == shown


def test_a_string_of_odd_length_ends_within_its_last_register() -> None:
    assert decode(Encoding("string", length=3), b"ABCD") == "ABC"
    assert decode(Encoding("string", "BADC", length=3), b"BADC") == "ABC"


@pytest.mark.parametrize(
    ("raw", "scale", "offset", "value"),
    [
        (187, 0.1, 0.0, 18.7),
        (3, 0.1, 0.0, 0.3),
        (1234, 0.001, 0.0, 1.234),
        (-2731, 0.1, 273.15, 0.05),
        (7, 10.0, 0.0, 70.0),
        (0, 0.1, -40.0, -40.0),
        (5, 1e-05, 0.0, 5e-05),
    ],
)
def test_scaling_of_integers_is_decimal(raw: int, scale: float, offset: float, value: float) -> None:
    decoded = decode(Encoding("int16", scale=scale, offset=offset), struct.pack(">h", raw))
    assert (type(decoded), decoded) == (float, value)


@given(st.integers(-(2**63), 2**63 - 1), st.floats(1e-9, 1e9), st.floats(-1e9, 1e9))
def test_scaling_of_integers_is_rounded_once(raw: int, scale: float, offset: float) -> None:
    a, b, c = exact(scale, offset)
    assert (raw * a + b) / c == float(raw * Fraction(repr(scale)) + Fraction(repr(offset)))


def test_scaling_of_floats() -> None:
    assert decode(Encoding("float32", scale=0.5, offset=1.0), struct.pack(">f", 3.0)) == 2.5


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_has_no_value(number: float, order: Order, scale: float) -> None:
    """In a block with others, which keep theirs."""
    encoding = Encoding("float32", order, scale=scale)
    raw = struct.pack("<f" if order in ("CDAB", "DCBA") else ">f", number)
    raw = swap_bytes(raw) if order in ("CDAB", "BADC") else raw
    good = struct.pack(">f", 1.5)
    items = [(0, Encoding("float32")), (2, encoding), (4, Encoding("float32", scale=2.0)), (6, Encoding("uint16"))]
    values, nonfinite = RegisterDecoder(7, items).decode(good + raw + good + b"\0\7")
    assert values == [1.5, None, 3.0, 7]
    assert [str(value) for value in nonfinite.values()] == [str(number)]
    assert list(nonfinite) == [1]


def test_numbers_whose_sum_overflows_are_finite_all_the_same() -> None:
    huge = struct.pack(">d", 1.7e308)
    values, nonfinite = RegisterDecoder(8, [(0, Encoding("float64")), (4, Encoding("float64"))]).decode(huge + huge)
    assert (values, nonfinite) == ([1.7e308, 1.7e308], {})


def test_a_scaled_number_that_leaves_the_range_has_no_value() -> None:
    encoding = Encoding("float64", scale=1e100)
    values, nonfinite = RegisterDecoder(4, [(0, encoding)]).decode(struct.pack(">d", 1e300))
    assert (values, nonfinite) == ([None], {0: math.inf})


def test_coils_begin_with_the_least_significant_bit() -> None:
    assert BitDecoder([0, 1, 2, 7, 8, 9, 15]).decode(bytes.fromhex("8103"))[0] == [
        *(True, False, False, True),
        *(True, True, False),
    ]


@given(st.binary(min_size=1, max_size=250), st.data())
def test_coils_like_the_reference(raw: bytes, data: st.DataObject) -> None:
    offsets = data.draw(st.lists(st.integers(0, 8 * len(raw) - 1), min_size=1))
    expected = [bool(raw[offset // 8] >> (offset % 8) & 1) for offset in offsets]
    assert BitDecoder(offsets).decode(raw) == (expected, {})


def reference(encoding: Encoding, raw: bytes) -> Value:
    """One tag from its registers, step by step as the table of orders says; NaN and infinity as they are."""
    words = [raw[place : place + 2] for place in range(0, len(raw), 2)]
    if encoding.order in ("BADC", "DCBA"):
        words = [word[::-1] for word in words]
    if encoding.type == "string":
        return text(b"".join(words)[: encoding.length])
    if encoding.order in ("CDAB", "DCBA"):
        words = words[::-1]
    content = b"".join(words)
    if encoding.bit is not None:
        return bool(int.from_bytes(content, "big") >> encoding.bit & 1)
    if encoding.type == "bool":
        return any(content)
    if encoding.is_float:
        (number,) = struct.unpack(">f" if encoding.type == "float32" else ">d", content)
        return float(number * encoding.scale + encoding.offset) if encoding.is_scaled else float(number)
    integer = int.from_bytes(content, "big", signed=encoding.type.startswith("int"))
    a, b, c = exact(encoding.scale, encoding.offset)
    return (integer * a + b) / c if encoding.is_scaled else integer


numbers = st.builds(
    Encoding,
    st.sampled_from([kind for kind in get_args(Type) if kind not in ("bool", "string")]),
    st.sampled_from(ORDERS),
    scale=st.sampled_from([1.0, 0.1, -2.5]),
    offset=st.sampled_from([0.0, 0.05]),
)
bools = st.builds(Encoding, st.just("bool"), st.sampled_from(ORDERS), bit=st.none() | st.integers(0, 15))
strings = st.builds(Encoding, st.just("string"), st.sampled_from(ORDERS), length=st.integers(1, 20))


@given(st.lists(st.tuples(st.integers(0, 20), numbers | bools | strings), min_size=1, max_size=25), st.data())
def test_blocks_like_the_reference(items: list[tuple[int, Encoding]], data: st.DataObject) -> None:
    """Any mixture of types and orders, with gaps, overlaps, and twice the same."""
    count = max(start + encoding.registers for start, encoding in items)
    raw = data.draw(st.binary(min_size=2 * count, max_size=2 * count))
    values, nonfinite = RegisterDecoder(count, items).decode(raw)
    for position, (start, encoding) in enumerate(items):
        expected = reference(encoding, raw[2 * start : 2 * (start + encoding.registers)])
        if isinstance(expected, float) and not math.isfinite(expected):
            assert values[position] is None
            assert str(nonfinite[position]) in (str(expected), str(-math.inf), str(math.inf))
        else:
            assert position not in nonfinite
            assert (type(values[position]), values[position]) == (type(expected), expected)
