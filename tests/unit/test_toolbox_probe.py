"""What registers may mean, and what of it fits."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.toolbox.interpret import ORDERS, SCALINGS, TYPES, expected, fits, text, view, views
from agent.toolbox.probing import classic, question
from agent.toolbox.written import Plain, scalar, tag_line
from protocols.field.modbus_address import Table
from protocols.field.modbus_codec import Encoding
from protocols.program.document import parse


def words(content: bytes, first: int = 0) -> dict[int, int]:
    return dict(enumerate(struct.unpack(f">{len(content) // 2}H", content), first))


LAID: dict[str, Callable[[bytes], bytes]] = {  # by hand, not by the code under test
    "ABCD": lambda b: b,
    "CDAB": lambda b: b"".join(reversed([b[i : i + 2] for i in range(0, len(b), 2)])),
    "BADC": lambda b: b"".join(b[i : i + 2][::-1] for i in range(0, len(b), 2)),
    "DCBA": lambda b: b[::-1],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kind", "form", "value"),
    [("float32", ">f", 23.5), ("int32", ">i", -70000), ("float64", ">d", 1e6), ("int64", ">q", -(2**40))],
)
def test_every_type_in_every_order_is_among_the_views(order: str, kind: str, form: str, value: float) -> None:
    found = {(one.type, one.order): one.value for one in views(words(LAID[order](struct.pack(form, value)), 7), 7)}
    assert found[kind, order] == value  # type: ignore[index]  # plain texts in a test


def test_views_need_all_their_registers() -> None:
    assert view({5: 1}, 5, "uint32", "ABCD") is None
    assert {one.type for one in views({5: 1}, 5)} == {kind for kind in TYPES if Encoding(kind).registers == 1}
    assert text({5: 1}, 5, 2, "ABCD") is None
    assert text(words(b"Ho\x01d"), 0, 2, "ABCD") == "Ho·d"
    assert text(words(b"oHdl"), 0, 2, "BADC") == "Hold"


def test_no_number_is_no_value() -> None:
    found = view(words(struct.pack(">f", float("nan"))), 0, "float32", "ABCD")
    assert found is not None
    assert found.value is None


@given(
    st.integers(-30000, 30000).filter(lambda raw: abs(raw) > 1000),
    st.sampled_from(SCALINGS[:4]),
    st.integers(0, 3),
)
def test_a_scaled_value_is_found_wherever_it_stands(raw: int, scaling: tuple[float, float], at: int) -> None:
    run = {0: 0, 1: 0, 2: 0, 3: 0, at: raw & 0xFFFF}
    wanted = expected(f"{raw * scaling[0]:.3f}", 1.0)
    found = fits(run, wanted, at)
    assert any(fit.view.start == at and fit.view.type == "int16" and fit.is_exact for fit in found)


def test_the_likeliest_fit_comes_first_and_what_is_only_near_last() -> None:
    run = words(struct.pack(">fhh", 23.5, 235, 234))
    found = fits(run, expected("23.5", 1.0), 0)
    assert (found[0].view.type, found[0].view.order, found[0].scale) == ("float32", "ABCD", 1.0)
    assert {fit.view.start for fit in found} >= {0, 2}
    assert all(fit.is_exact for fit in found)
    near = fits(words(struct.pack(">h", 234)), expected("23.5", 1.0), 0)
    assert [fit.is_exact for fit in near] == [False] * len(near)
    assert near[0].value == pytest.approx(23.4)
    assert fits(words(struct.pack(">h", 200)), expected("23.5", 1.0), 0) == []


def test_kelvin_is_found() -> None:
    [fit, *_] = fits({0: 2966}, expected("23.45", 0.0), 0)
    assert (fit.scale, fit.offset, round(fit.value, 6)) == (0.1, -273.15, 23.45)


@pytest.mark.parametrize("wrong", ["", "x", "0", "nan", "inf", "1e400", "0.0"])
def test_what_cannot_be_expected(wrong: str) -> None:
    with pytest.raises(ValueError, match="; "):
        expected(wrong, 1.0)


def test_a_decimal_comma_is_understood() -> None:
    assert expected(" 23,5 ", 1.0).value == 23.5


@pytest.mark.parametrize(
    ("typed", "table", "starts"),
    [
        ("40001", Table.HOLDING, [0]),
        ("300010", Table.INPUT, [9]),
        ("holding:5", Table.HOLDING, [5]),
        ("00001", Table.COIL, [0]),
        ("100", Table.HOLDING, [99, 100]),
        ("0", Table.HOLDING, [0]),
        ("55000", Table.HOLDING, [54999, 55000]),
    ],
)
def test_addresses_as_people_type_them(typed: str, table: Table, starts: list[int]) -> None:
    asked = question(typed, 4)
    assert (asked.table, list(asked.starts)) == (table, starts)
    assert set(asked.shown) <= set(asked.read)
    assert asked.shown.start == starts[0] and asked.shown.stop == starts[-1] + 4


def test_nothing_is_asked_beyond_the_last_register() -> None:
    asked = question("holding:65535", 4)
    assert (asked.shown, asked.read) == (range(65535, 65536), range(65534, 65536))
    for wrong in ("99999", "70000", "x", "40000"):
        with pytest.raises(ValueError, match="address"):
            question(wrong, 4)


def test_references_are_those_of_the_driver() -> None:
    assert (classic(Table.HOLDING, 0), classic(Table.COIL, 0), classic(Table.INPUT, 20000)) == (
        "40001",
        "00001",
        "320001",
    )


@given(
    st.one_of(
        st.text(max_size=20),
        st.integers(-(2**63), 2**63),
        st.booleans(),
        st.none(),
        st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_what_is_written_reads_back(value: str | float | bool | None) -> None:
    """As an item of a list in flow style, which is where the least may stand without quotes."""
    line = scalar(value)
    document = parse(f"key: [{line}, {{a: {line}, b: 1}}]\n", "x")
    assert document.problems == ()
    read = document.value["key"]
    assert read == [value, {"a": value, "b": 1}]
    assert isinstance(read[0], str) == isinstance(value, str)


def test_a_tag_line_is_a_line() -> None:
    tag: dict[str, Plain] = {
        "name": "t",
        "address": "holding:0",
        "type": "float32",
        "scale": 0.1,
        "unit": "°C",
        "description": "a: b #c",
    }
    line = tag_line(tag)
    assert line == '- {name: t, address: holding:0, type: float32, scale: 0.1, unit: °C, description: "a: b #c"}'
    assert parse(line, "x").value == [tag]
