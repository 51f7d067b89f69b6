"""Parts of arrays and structures, and structures as bytes."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from asyncua import ua
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.field.opcua_parts import NoSuchPart, as_json, parse_part, part_of, text_of
from protocols.field.opcua_structures import Types, Undecodable, plain

ENCODING, AXIS, TYPE = (ua.NodeId(ua.Int32(number), ua.Int16(2)) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", ()),
        ("[3]", (3,)),
        ("[1][2]", (1, 2)),
        ("Position.X", ("Position", "X")),
        ("Axes[2].Speed", ("Axes", 2, "Speed")),
        ("[0].Größe in mm", (0, "Größe in mm")),
    ],
)
def test_a_part_is_read_as_it_is_written(text: str, part: tuple[str | int, ...]) -> None:
    assert parse_part(text) == part
    assert text_of(part) == text


@pytest.mark.parametrize("text", [".", ".X", "X.", "X..Y", "[", "[]", "[-1]", "[x]", "X[1]Y", "]", "[1]2"])
def test_what_names_no_part_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names no part"):
        parse_part(text)


@given(st.text(max_size=20))
def test_any_text_is_a_part_or_refused(text: str) -> None:
    try:
        part = parse_part(text)
    except ValueError:
        return
    assert text_of(part) == text


def test_a_part_is_taken_out() -> None:
    value: Any = {"Axes": [{"Speed": 1.5}]}
    assert part_of(value, ("Axes", 0, "Speed")) == 1.5
    for part in (("Axes", 1), ("Axes", "X"), ("X",), (0,), ("Axes", 0, "Speed", 0)):
        with pytest.raises(NoSuchPart):
            part_of(value, part)


def test_a_whole_value_as_json() -> None:
    value = {"a": [1, True, None, float("nan")], "b": b"\x01", "c": datetime(2026, 1, 1, tzinfo=UTC), "d": "\udcff"}
    assert as_json(value) == '{"a":[1,true,null,null],"b":"AQ==","c":"2026-01-01T00:00:00+00:00","d":"\ufffd"}'


def field(name: str, data_type: ua.NodeId, rank: int = -1, *, optional: bool = False) -> ua.StructureField:
    return ua.StructureField(Name=ua.String(name), DataType=data_type, ValueRank=ua.Int32(rank), IsOptional=optional)


def built_in(kind: ua.VariantType) -> ua.NodeId:
    return ua.NodeId(ua.Int32(kind.value))


def types(kind: ua.StructureType, *fields: ua.StructureField) -> Types:
    known = Types()
    known.add(TYPE, ua.StructureDefinition(ENCODING, ua.NodeId(), kind, list(fields)))
    return known


def taken_apart(known: Types, body: bytes) -> Any:
    return plain(ua.ExtensionObject(ENCODING, ua.ByteString(body)), known)


INT, TEXT = built_in(ua.VariantType.Int16), built_in(ua.VariantType.String)


def test_a_union_has_the_member_that_is_chosen() -> None:
    known = types(ua.StructureType.Union, field("a", INT), field("b", TEXT))
    assert taken_apart(known, b"\x00\0\0\0") == {"a": None, "b": None}
    assert taken_apart(known, b"\x01\0\0\0\x05\0") == {"a": 5, "b": None}
    with pytest.raises(Undecodable, match="without a member 3"):
        taken_apart(known, b"\x03\0\0\0")


def test_optional_members_and_matrices() -> None:
    known = types(
        ua.StructureType.StructureWithOptionalFields,
        field("a", INT, optional=True),
        field("b", INT),
        field("c", INT, optional=True),
        field("m", INT, 2),
    )
    body = b"\x02\0\0\0" + b"\x07\0" + b"\x08\0" + b"\x02\0\0\0\x01\0\0\0\x02\0\0\0" + b"\x01\0\x02\0"
    assert taken_apart(known, body) == {"a": None, "b": 7, "c": 8, "m": [[1, 2]]}


def test_what_does_not_fit_its_description_is_said() -> None:
    known = types(ua.StructureType.Structure, field("a", INT))
    for body, says in ((b"\x01", "do not fit"), (b"\x01\0\x02", "1 bytes longer")):
        with pytest.raises(Undecodable, match=says):
            taken_apart(known, body)
    with pytest.raises(Undecodable, match="what its structure ns=2;i=1 is made of"):
        taken_apart(Types(), b"")
    with pytest.raises(Undecodable, match="what its type ns=2;i=2 is made of"):
        taken_apart(types(ua.StructureType.Structure, field("a", AXIS)), b"")
    with pytest.raises(Undecodable, match="array of"):
        taken_apart(types(ua.StructureType.Structure, field("a", INT, 1)), b"\xff\xff\xff\x7f")
    itself = types(ua.StructureType.Structure, field("a", TYPE))
    with pytest.raises(Undecodable, match="too deeply"):
        taken_apart(itself, b"")


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_any_bytes_are_taken_apart_or_refused(body: bytes) -> None:
    known = types(
        ua.StructureType.StructureWithOptionalFields,
        field("a", INT, optional=True),
        field("t", TEXT, 1),
        field("v", built_in(ua.VariantType.Variant)),
        field("m", INT, 2),
    )
    with suppress(Undecodable):
        taken_apart(known, body)
