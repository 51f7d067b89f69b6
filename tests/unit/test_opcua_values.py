"""From the server's types, times and statuses to readings."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.field.contract import Quality, Tag, Value, ValueType
from protocols.field.opcua_nodes import parse_node
from protocols.field.opcua_settings import Address
from protocols.field.opcua_values import Reading, Sample, microseconds, reading

NOW_US = 1_800_000_000_000_000
INTEGERS = ("SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64")


def read(
    type_name: str,
    value: Any,
    wanted: str,
    *,
    is_array: bool = False,
    status: int = 0,
    scale: float = 1.0,
    offset: float = 0.0,
    source_us: int | None = 5,
    server_us: int | None = 7,
) -> Reading:
    tag = Tag("t", ValueType(wanted), "", Address(parse_node("i=1"), scale, offset))
    sample = Sample(type_name, value, is_array, status, source_us, server_us)
    return reading(3, tag, sample, NOW_US, lambda code, node: f"node {node}: code {code:#x}")


@pytest.mark.parametrize(
    ("type_name", "value", "wanted", "expected"),
    [
        ("Boolean", True, "bool", True),
        *((name, 7, "int", 7) for name in INTEGERS),
        *((name, 7, "uint", 7) for name in INTEGERS),
        *((name, 7, "float64", 7.0) for name in INTEGERS),
        ("Int64", -(2**63), "int", -(2**63)),
        ("UInt64", 2**64 - 1, "uint", 2**64 - 1),
        ("Int64", 2**53, "float64", float(2**53)),
        ("Int32", 2**24, "float32", float(2**24)),
        ("Float", 0.5, "float32", 0.5),
        ("Double", 0.1, "float64", 0.1),
        ("Double", 0.1, "float32", 0.10000000149011612),
        ("String", "Nougat", "string", "Nougat"),
        ("String", None, "string", ""),
        ("String", b"a\xffb".decode("utf-8", "surrogateescape"), "string", "a\ufffdb"),
        ("LocalizedText", SimpleNamespace(Text="Presse"), "string", "Presse"),
        ("LocalizedText", SimpleNamespace(Text=None), "string", ""),
        ("DateTime", datetime(2026, 3, 1, 12, tzinfo=UTC), "string", "2026-03-01T12:00:00Z"),
        ("DateTime", datetime(2026, 3, 1, 13, tzinfo=timezone(timedelta(hours=1))), "string", "2026-03-01T12:00:00Z"),
        ("ByteString", b"\x01\xab", "string", "01ab"),
        ("Guid", UUID(int=1), "string", "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_takes_what_fits(type_name: str, value: Any, wanted: str, expected: Value) -> None:
    result = read(type_name, value, wanted)
    assert (result.value, result.quality, result.reason) == (expected, Quality.GOOD, "")
    assert type(result.value) is type(expected)


@pytest.mark.parametrize(
    ("type_name", "value", "wanted", "advice"),
    [
        ("String", "7", "float64", "set its type to string"),
        ("Double", 7.0, "int", "set its type to float64"),
        ("Double", 7.0, "string", "set its type to float64"),
        ("Float", 7.0, "bool", "set its type to float32"),
        ("Boolean", True, "int", "set its type to bool"),
        ("Boolean", True, "float64", "set its type to bool"),
        ("Int16", 1, "bool", "set its type to int"),
        ("Byte", 1, "bool", "set its type to uint"),
        ("Int32", -1, "uint", "set the tag's type to int"),
        ("UInt64", 2**63, "int", "set the tag's type to uint"),
        ("Int64", 2**53 + 1, "float64", "set the tag's type to int"),
        ("Int32", 2**24 + 1, "float32", "set the tag's type to int"),
        ("DateTime", datetime(2026, 3, 1, tzinfo=UTC), "int", "set its type to string"),
        ("DateTime", None, "string", "no value yet"),
        ("Null", None, "float64", "no value yet"),
        ("ExtensionObject", object(), "string", "simple types"),
        ("Custom", b"", "string", "simple types"),
    ],
)
def test_what_does_not_fit_is_bad_and_both_types_are_named(
    type_name: str, value: Any, wanted: str, advice: str
) -> None:
    result = read(type_name, value, wanted)
    assert (result.value, result.quality) == (None, Quality.BAD_TYPE_MISMATCH)
    assert type_name in result.reason and wanted in result.reason and advice in result.reason
    assert result.reason.startswith("node i=1: ")


@pytest.mark.parametrize("wanted", [each for each in ValueType if each is not ValueType.STRING])
def test_an_array_fits_no_single_value(wanted: ValueType) -> None:
    result = read("Double", [1.0], wanted.value, is_array=True)
    assert result.quality == Quality.BAD_TYPE_MISMATCH
    assert "Double[]" in result.reason and "part: [0]" in result.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_is_bad(value: float) -> None:
    result = read("Double", value, "float64")
    assert (result.value, result.quality) == (None, Quality.BAD_OUT_OF_RANGE)


def test_scales_and_offsets() -> None:
    assert read("Int16", 215, "float64", scale=0.1, offset=-5.0).value == pytest.approx(16.5)
    assert read("Int64", 2**53 + 1, "float64", scale=0.5).quality == Quality.GOOD  # a scaled integer is no longer exact
    assert read("Double", 1e308, "float64", scale=1e10).quality == Quality.BAD_OUT_OF_RANGE
    assert read("Double", 1e39, "float32").quality == Quality.BAD_OUT_OF_RANGE


def test_status_is_kept_with_all_its_bits() -> None:
    overflow = read("Double", 1.5, "float64", status=0x00000480)
    assert (overflow.value, overflow.quality, overflow.reason) == (1.5, 0x480, "")
    uncertain = read("Double", 1.5, "float64", status=0x40900000)
    assert (uncertain.value, uncertain.quality) == (1.5, 0x40900000)
    assert uncertain.reason == "node i=1: code 0x40900000"
    bad = read("Double", 1.5, "float64", status=0x808C0480)
    assert (bad.value, bad.quality, bad.reason) == (None, 0x808C0480, "node i=1: code 0x808c0480")
    assert read("Null", None, "float64", status=0x40900000).quality == Quality.BAD_TYPE_MISMATCH


def test_the_best_known_time_counts() -> None:
    assert read("Double", 1.0, "float64").time_us == 5
    assert read("Double", 1.0, "float64", source_us=None).time_us == 7
    assert read("Double", 1.0, "float64", source_us=None, server_us=None).time_us == NOW_US
    assert read("Double", 1.0, "float64", source_us=0).time_us == 0


def test_moments_in_microseconds() -> None:
    assert microseconds(datetime(2026, 3, 1, 12, 0, 0, 250_001, tzinfo=UTC)) == 1_772_366_400_250_001
    assert microseconds(datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)) == -1_000_000
    assert microseconds(datetime(1601, 1, 1, tzinfo=UTC)) is None
    assert microseconds(None) is None


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(), st.binary(), st.uuids()
)


@given(
    st.sampled_from([*INTEGERS, "Float", "Double"]),
    st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats()),
    st.sampled_from(list(ValueType)),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_numbers_are_good_or_bad_and_never_an_error(
    type_name: str, value: float, wanted: ValueType, scale: float
) -> None:
    if type_name in INTEGERS:
        value = int(value) if math.isfinite(value) else 0
    result = read(type_name, value, wanted.value, scale=scale)
    assert (result.value is None) == (Quality.word(result.quality) == "bad")
    assert not isinstance(result.value, float) or math.isfinite(result.value)


@given(st.sampled_from(["Boolean", "String", "DateTime", "ByteString", "Guid", "Null"]), VALUES)
def test_text_is_always_text_that_can_be_encoded(type_name: str, value: Any) -> None:
    result = read(type_name, value, "string")
    if result.value is not None:
        assert isinstance(result.value, str)
        result.value.encode("utf-8")
