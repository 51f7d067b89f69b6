"""Writing is reading the other way round: whatever is encoded decodes to the same, and what cannot is refused."""

from __future__ import annotations

import math
import struct
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import WriteMultipleCoilsRequest, WriteSingleCoilRequest
from pymodbus.pdu.register_message import (
    MaskWriteRegisterRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

from protocols.field.contract import Value
from protocols.field.modbus import TagSettings, tag
from protocols.field.modbus_address import Table
from protocols.field.modbus_codec import Encoding, Order, RegisterDecoder
from protocols.field.modbus_encode import Writable, same, to_registers, write_request
from protocols.field.modbus_request import write_coils_request

ORDERS: tuple[Order, ...] = get_args(Order)
ALL = {5, 6, 15, 16, 22}
ANY = Writable(-1e30, 1e30)
INTEGERS = {
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int48": (-(2**47), 2**47 - 1),
    "uint48": (0, 2**48 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
    "bcd16": (0, 9999),
    "bcd32": (0, 99_999_999),
}


def decoded(encoding: Encoding, content: bytes) -> Value:
    values, absent = RegisterDecoder(encoding.registers, [(0, encoding)]).decode(content)
    assert absent == {}
    return values[0]


@given(st.sampled_from(sorted(INTEGERS)), st.sampled_from(ORDERS), st.data())
def test_integers_there_and_back(kind: str, order: Order, data: st.DataObject) -> None:
    encoding = Encoding(kind, order)  # type: ignore[arg-type]  # one of the types, by construction
    low, high = INTEGERS[kind]
    number = data.draw(st.integers(low, high))
    assert decoded(encoding, to_registers(encoding, number)) == number
    for outside in (low - 1, high + 1):
        with pytest.raises(ValueError, match="does not fit into"):
            to_registers(encoding, outside)


@given(st.sampled_from(["float16", "float32", "float64"]), st.sampled_from(ORDERS), st.floats(-60000, 60000))
def test_floats_there_and_back(kind: str, order: Order, number: float) -> None:
    encoding = Encoding(kind, order)  # type: ignore[arg-type]  # one of the types, by construction
    found = decoded(encoding, to_registers(encoding, number))
    if kind == "float64":
        assert found == number
    if abs(number) > 1e-3:
        assert same(found, number, encoding)


@given(st.sampled_from(ORDERS), st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=9))
def test_texts_there_and_back(order: Order, text: str) -> None:
    encoding = Encoding("string", order, length=9)
    assert decoded(encoding, to_registers(encoding, text)) == text


@given(st.integers(-3276, 3276), st.sampled_from([(0.1, 0.0), (0.01, -40.0), (10.0, 5.0), (-0.5, 0.0)]))
def test_scaled_integers_there_and_back(raw: int, scaling: tuple[float, float]) -> None:
    encoding = Encoding("int16", scale=scaling[0], offset=scaling[1])
    shown = decoded(encoding, struct.pack(">h", raw))
    request = write_request(1, Table.HOLDING, 0, encoding, ANY, shown, ALL)
    assert request.pdu == struct.pack(">BHh", 6, 0, raw)


@pytest.mark.parametrize(
    ("encoding", "writable", "value", "says"),
    [
        (Encoding("uint16"), Writable(0, 100), 101, "101 is outside what may be written, 0 to 100"),
        (Encoding("uint16"), Writable(0, 100), -1, "outside what may be written"),
        (Encoding("uint16"), Writable(0, 100), 1.5, "between two values"),
        (Encoding("int16", scale=0.1), Writable(0, 100), 18.75, "18.75 is between two values that it can hold"),
        (Encoding("uint16"), Writable(0, 1e6), 70_000, "70000 does not fit into uint16"),
        (Encoding("float32"), Writable(0, 1), math.nan, "nan is no number"),
        (Encoding("float32"), Writable(0, 1), math.inf, "inf is no number"),
        (Encoding("float32"), Writable(0, 1e300), 1e299, "does not fit into float32"),
        (Encoding("uint16"), Writable(0, 1), True, "True is no number"),
        (Encoding("uint16"), Writable(0, 1), "1", "'1' is no number"),
        (Encoding("bool"), Writable(None, None), 1, "1 is neither true nor false"),
        (Encoding("string", length=3), Writable(None, None), "Größe", "the text has 7 bytes, and there is room for 3"),
        (Encoding("string", length=250), Writable(None, None), "x", "123 registers at most, and this takes 125"),
        (Encoding("string", length=3), Writable(None, None), 7, "7 is not of type string"),
        (Encoding("uint16"), Writable(None, None, {0: "off", 1: "on"}), "of", "'of' is none of its states: off, on"),
        (Encoding("uint16", bit=0, bit_count=2), Writable(0, 10), 4, "4 does not fit into 2 bits"),
    ],
)
def test_what_must_not_be_written_is_told(encoding: Encoding, writable: Writable, value: Value, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        write_request(1, Table.HOLDING, 0, encoding, writable, value, ALL)


def like(request: ModbusPDU) -> bytes:
    """The PDU as pymodbus writes it."""
    return bytes([request.function_code]) + request.encode()


@pytest.mark.parametrize("functions", [ALL, {15, 16}])
@pytest.mark.parametrize("bit", [True, False])
def test_requests_as_pymodbus_writes_them(functions: set[int], bit: bool) -> None:
    coil = write_request(1, Table.COIL, 5, Encoding("bool"), Writable(None, None), bit, functions)
    single = WriteSingleCoilRequest(address=5, bits=[bit])
    assert coil.pdu == like(single if 5 in functions else WriteMultipleCoilsRequest(address=5, bits=[bit]))
    register = write_request(1, Table.HOLDING, 5, Encoding("uint16"), ANY, 77, functions)
    one = WriteSingleRegisterRequest(address=5, registers=[77])
    assert register.pdu == like(one if 5 in functions else WriteMultipleRegistersRequest(address=5, registers=[77]))
    wide = write_request(1, Table.HOLDING, 5, Encoding("uint32"), ANY, 0x10002, functions)
    assert wide.pdu == like(WriteMultipleRegistersRequest(address=5, registers=[1, 2]))


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_many_coils_as_pymodbus_writes_them(bits: list[bool]) -> None:
    assert write_coils_request(1, 9, bits).pdu == like(WriteMultipleCoilsRequest(address=9, bits=bits))


@given(st.integers(0, 15), st.integers(1, 16), st.sampled_from(ORDERS), st.integers(0, 65535), st.data())
def test_bits_are_set_and_the_others_left(bit: int, count: int, order: Order, before: int, data: st.DataObject) -> None:
    count = min(count, 16 - bit)
    number = data.draw(st.integers(0, (1 << count) - 1))
    value: Value = bool(number) if count == 1 else number
    encoding = Encoding("bool" if count == 1 else "uint16", order, bit=bit, bit_count=count)
    request = write_request(1, Table.HOLDING, 3, encoding, Writable(0, 65535), value, ALL)
    function, address, keep, put = struct.unpack(">BHHH", request.pdu)
    assert (function, address) == (22, 3)
    assert request.pdu == like(MaskWriteRegisterRequest(address=3, and_mask=keep, or_mask=put))
    after = (before & keep) | (put & ~keep & 0xFFFF)
    assert decoded(encoding, after.to_bytes(2, "big")) == value
    whole = Encoding("uint16", order)
    mask = ((1 << count) - 1) << bit
    old, new = (decoded(whole, register.to_bytes(2, "big")) for register in (before, after))
    assert isinstance(old, int) and isinstance(new, int)
    assert old & ~mask == new & ~mask


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"address": 30001, "write_min": 0, "write_max": 1}, "a input cannot be written"),
        ({"address": 10001}, "a discrete cannot be written"),
        ({}, "a number that can be written needs write_min and write_max"),
        ({"write_min": 2, "write_max": 1}, "write_min 2 is above write_max 1"),
        ({"type": "bool", "write_min": 0, "write_max": 1}, "are for numbers"),
        ({"flags": {0: "on"}}, "flags, counters and times cannot be written"),
        ({"counter_step_max": 4}, "flags, counters and times cannot be written"),
        ({"writable": False, "write_min": 0}, "need `writable: true`"),
    ],
)
def test_what_cannot_be_made_writable_is_told(keys: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tag(TagSettings.model_validate({"name": "t", "address": 40001, "writable": True, **keys}))
