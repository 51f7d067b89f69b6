"""The rarer types, and what values mean: against vectors written by hand and a reference that takes tag by tag."""

from __future__ import annotations

import json
import struct
from datetime import datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.field.contract import Group, Quality, Value, ValueType
from protocols.field.modbus import Settings, TagSettings, driver, tag
from protocols.field.modbus_codec import Absent, Encoding, Order, RegisterDecoder, Special
from protocols.field.modbus_meaning import Counter, Judged, Meaning, total_of
from protocols.field.modbus_times import REGISTERS, Time, encoded, iso, now_iso

ORDERS: tuple[Order, ...] = get_args(Order)

# type, value, its bytes in the orders ABCD, CDAB, BADC, DCBA
VECTORS: list[tuple[Special, Value, str, str, str, str]] = [
    ("uint48", 0x123456789ABC, "123456789ABC", "9ABC56781234", "34127856BC9A", "BC9A78563412"),
    ("int48", -2, "FFFFFFFFFFFE", "FFFEFFFFFFFF", "FFFFFFFFFEFF", "FEFFFFFFFFFF"),
    ("float16", -1.5, "BE00", "BE00", "00BE", "00BE"),
    ("bcd16", 1234, "1234", "1234", "3412", "3412"),
    ("bcd32", 12345678, "12345678", "56781234", "34127856", "78563412"),
    ("time_unix32", "2026-11-20T21:30:00Z", "6A16F5E8", "F5E86A16", "166AE8F5", "E8F5166A"),
    ("time_registers", "2026-11-20T21:30:05", "07EA000B00140015001E0005", "0005001E00150014000B07EA", "", ""),
    ("time_iec870", "2026-11-20T21:30:05.250", "001A0BB4151E1482", "1482151E0BB4001A", "", ""),
    ("time_s7", "2026-11-20T21:30:05.250", "2611202130052506", "2506300520212611", "", ""),
]


def decode(encoding: Encoding, raw: bytes) -> tuple[Value, Absent]:
    """One tag alone in its block."""
    values, absent = RegisterDecoder(encoding.registers, [(0, encoding)]).decode(raw)
    return values[0], absent


@pytest.mark.parametrize(("kind", "value", "abcd", "cdab", "badc", "dcba"), VECTORS, ids=[v[0] for v in VECTORS])
def test_every_rare_type_in_every_order(
    kind: Special, value: Value, abcd: str, cdab: str, badc: str, dcba: str
) -> None:
    if kind == "time_unix32":
        abcd = f"{int(datetime.fromisoformat('2026-11-20T21:30:00+00:00').timestamp()):08X}"
        cdab, badc = abcd[4:] + abcd[:4], abcd[2:4] + abcd[:2] + abcd[6:] + abcd[4:6]
        dcba = badc[4:] + badc[:4]
    for order, raw in zip(ORDERS, (abcd, cdab, badc, dcba), strict=True):
        if raw:
            found, absent = decode(Encoding(kind, order), bytes.fromhex(raw))
            assert (type(found), found, absent) == (type(value), value, {}), order


def test_all_rare_types_are_covered_by_the_vectors() -> None:
    flat = {name for part in get_args(Special) for name in (get_args(part) or (part,))}
    assert {vector[0] for vector in VECTORS} == flat
    assert set(REGISTERS) < flat


@pytest.mark.parametrize(
    ("kind", "raw", "says"),
    [
        ("bcd16", "12AF", "0x12AF, which is no BCD number"),
        ("bcd32", "0000000A", "0xA, which is no BCD number"),
        ("time_registers", "07EA000D00140015001E0005", "no time_registers (month must be in 1..12)"),
        ("time_registers", "0" * 24, "no time_registers (year 0 is out of range)"),
        ("time_iec870", "001A0BB4151EEA60", "60000 milliseconds are more than a minute"),
        ("time_iec870", "001A0BB41F1E1482", "hour must be in 0..23"),
        ("time_s7", "26112021300A2506", "it has digits above 9"),
        ("time_s7", "FFFFFFFFFFFFFFFF", "it has digits above 9"),
    ],
)
def test_what_is_no_such_value_is_absent_with_what_was_sent(kind: Special, raw: str, says: str) -> None:
    value, absent = decode(Encoding(kind), bytes.fromhex(raw))
    assert value is None
    assert says in str(absent[0])


def test_bcd_is_scaled_and_a_wrong_one_is_not() -> None:
    good, bad = Encoding("bcd16", scale=0.1), Encoding("bcd16", scale=0.1)
    values, absent = RegisterDecoder(2, [(0, good), (1, bad)]).decode(bytes.fromhex("0187FFFF"))
    assert values == [18.7, None]
    assert list(absent) == [1]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bit", range(13))
def test_a_field_of_bits(order: Order, bit: int) -> None:
    register = struct.pack("<H" if order in ("BADC", "DCBA") else ">H", 0b101 << bit)
    assert decode(Encoding("uint16", order, bit=bit, bit_count=3), register) == (5, {})
    assert decode(Encoding("uint16", order, bit=bit, bit_count=2), register) == (1, {})


@pytest.mark.parametrize(
    ("kind", "marks", "raw"),
    [
        ("int16", [0x8000], "8000"),
        ("int16", [-32768], "8000"),
        ("uint16", [0x8000, 0xFFFF], "FFFF"),
        ("int32", [0x80000000], "80000000"),
        ("int48", [0x800000000000], "800000000000"),
        ("uint64", [2**64 - 2048], "FFFFFFFFFFFFF800"),
        ("float32", [-999.9], struct.pack(">f", -999.9).hex()),
        ("float64", [-999.9], struct.pack(">d", -999.9).hex()),
        ("float16", [-999.9], struct.pack(">e", -999.9).hex()),
        ("bcd16", [9999], "9999"),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_not_available_is_seen_in_the_raw_value(kind: Special, marks: list[float], raw: str, scale: float) -> None:
    encoding = Encoding(kind, unavailable=tuple(map(float, marks)), scale=scale)
    value, absent = decode(encoding, bytes.fromhex(raw))
    assert value is None
    assert "which means that it has no value" in str(absent[0])
    value, absent = decode(encoding, bytes.fromhex(raw)[:-1] + b"\1")
    assert value is not None and absent == {}


rare = st.builds(
    Encoding,
    st.sampled_from(["int48", "uint48", "float16", "bcd16", "bcd32", "uint16", "int16", "float32"]),
    st.sampled_from(ORDERS),
    unavailable=st.sampled_from([(), (0.0,), (32768.0, 1.0)]),
)


@given(st.lists(st.tuples(st.integers(0, 12), rare), min_size=1, max_size=12), st.data())
def test_mixed_blocks_are_the_same_as_each_tag_alone(items: list[tuple[int, Encoding]], data: st.DataObject) -> None:
    count = max(start + encoding.registers for start, encoding in items)
    raw = data.draw(st.binary(min_size=2 * count, max_size=2 * count))
    values, absent = RegisterDecoder(count, items).decode(raw)
    for position, (start, encoding) in enumerate(items):
        value, missing = decode(encoding, raw[2 * start : 2 * (start + encoding.registers)])
        assert (type(values[position]), values[position]) == (type(value), value)
        assert str(absent.get(position)) == str(missing.get(0))


# --- meaning ---


def test_states_flags_and_limits() -> None:
    states = Meaning(states={0: "stopped", 1: "running"})
    assert states.of(1) == Judged("running")
    assert states.of(7) == Judged(None, Quality.BAD_OUT_OF_RANGE, "the device sent 7, which `states` does not name")
    flags = Meaning(flags={3: "alarm", 0: "ready", 15: "manual"})
    assert flags.of(0x8009) == Judged("ready, alarm, manual")
    assert flags.of(0x0002) == Judged("")
    held = Meaning(low=0, high=100)
    assert held.of(50) == Judged(50)
    assert held.of(-3) == Judged(0, Quality.UNCERTAIN, "the device sent -3, below clamp_min 0")
    assert held.of(100.5) == Judged(100.0, Quality.UNCERTAIN, "the device sent 100.5, above clamp_max 100")
    assert [type(held.of(value).value) for value in (-3, -3.5)] == [int, float]


def test_a_roll_over_and_a_reset_are_told_apart() -> None:
    counter = Counter(65536, step_max=1000)
    assert [counter.total(raw) for raw in (65_500, 65_535, 0, 10)] == [65_500, 65_535, 65_536, 65_546]
    assert counter.total(30_000) == 95_536
    assert counter.total(0) == 95_536, "a reset: nothing was counted"
    assert counter.total(5) == 95_541
    again = Counter(65536, step_max=1000)
    again.restore(total_of(json.loads(json.dumps(counter.state))))
    assert again.total(7) == 95_543


@given(st.integers(0, 65535), st.lists(st.integers(0, 1000), max_size=50))
def test_small_steps_are_counted_whatever_goes_round(first: int, steps: list[int]) -> None:
    counter, true = Counter(65536, step_max=1000), first
    assert counter.total(first) == first
    for step in steps:
        true += step
        assert counter.total(true % 65536) == true


@given(st.lists(st.integers(0, 65535), min_size=1))
def test_a_total_never_falls(raws: list[int]) -> None:
    counter = Counter(65536, step_max=100)
    totals = [counter.total(raw) for raw in raws]
    assert totals == sorted(totals)


@pytest.mark.parametrize("state", [None, [], [1], [1, -1], [1, 2.0], [True, 1], "12", {"a": 1}])
def test_what_is_no_counters_state_is_refused(state: object) -> None:
    with pytest.raises(ValueError, match="is no counter"):
        total_of(state)


# --- settings ---


@pytest.mark.parametrize(
    ("keys", "value_type"),
    [
        ({"type": "float16"}, ValueType.FLOAT32),
        ({"type": "bcd32"}, ValueType.UINT),
        ({"type": "int48"}, ValueType.INT),
        ({"type": "uint48"}, ValueType.UINT),
        ({"type": "bcd16", "scale": 0.1}, ValueType.FLOAT64),
        ({"type": "time_s7"}, ValueType.STRING),
        ({"states": {0: "off"}}, ValueType.STRING),
        ({"type": "uint32", "flags": {31: "fault"}}, ValueType.STRING),
        ({"bit": 4, "bit_count": 3}, ValueType.UINT),
        ({"bit": 4, "bit_count": 3, "states": {0: "off"}}, ValueType.STRING),
        ({"counter_step_max": 100}, ValueType.UINT),
        ({"type": "int16", "clamp_min": 0}, ValueType.INT),
    ],
)
def test_the_type_of_the_values(keys: dict[str, object], value_type: ValueType) -> None:
    assert tag(TagSettings.model_validate({"name": "t", "address": 40001, **keys})).value_type is value_type


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"bit_count": 2}, "`bit_count` counts from `bit` on"),
        ({"bit": 14, "bit_count": 3}, "ends within the register"),
        ({"type": "float32", "states": {0: "off"}}, "for whole numbers"),
        ({"scale": 0.1, "flags": {0: "off"}}, "for whole numbers"),
        ({"bit": 1, "states": {0: "off"}}, "for whole numbers"),
        ({"type": "int16", "counter_step_max": 5}, "is an unsigned type"),
        ({"states": {0: "off"}, "flags": {0: "on"}}, "only one of these"),
        ({"states": {0: "off"}, "clamp_min": 1}, "only one of these"),
        ({"type": "string", "length": 4, "unavailable": [0]}, "are for numbers"),
        ({"type": "time_s7", "scale": 2}, "are for numbers"),
        ({"bit": 4, "bit_count": 3, "unavailable": [7]}, "for whole registers"),
        ({"clamp_min": 0.5}, "clamp it at whole numbers"),
        ({"type": "float32", "clamp_min": 2, "clamp_max": 1}, "clamp_min 2 is above clamp_max 1"),
        ({"address": "coil:0", "states": {0: "off"}}, "for whole numbers"),
    ],
)
def test_what_cannot_be_meant_is_told(keys: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tag(TagSettings.model_validate({"name": "t", "address": 40001, **keys}))


def test_a_driver_keeps_its_counters_and_refuses_a_strange_memory_whole() -> None:
    built = tag(TagSettings(name="pieces", address=40001, counter_step_max=10))
    group = Group("plc-1", "all", 1.0, (built,))
    one, other = (driver("plc-1", Settings(host="10.0.0.5"), [group]) for _ in range(2))
    assert one.memory() is None
    counter = one._counter(group, built)
    assert counter is not None
    assert [counter.total(raw) for raw in (65_530, 3)] == [65_530, 65_539]
    state = json.loads(json.dumps(one.memory()))
    assert one.memory() is None
    other.recall(state)
    restored = other._counter(group, built)
    assert restored is not None and restored.total(4) == 65_540
    for strange in (["all/pieces"], {"all/pieces": 7}):
        with pytest.raises((ValueError, TypeError), match="counter"):
            other.recall({**state, "counters": strange})
    assert restored.total(5) == 65_541


@given(st.sampled_from(sorted(get_args(Time))), st.integers(946_684_800_000, 3_700_000_000_000))
def test_a_time_is_written_as_it_is_read(kind: Time, milliseconds: int) -> None:
    text = now_iso(kind, milliseconds * 1000)
    content = encoded(kind, text)
    assert len(content) == 2 * REGISTERS[kind]
    assert iso(kind, content) == text


@pytest.mark.parametrize(
    ("kind", "text"),
    [("time_unix32", "2200-01-01T00:00:00Z"), ("time_s7", "1989-01-01"), ("time_iec870", "1999-01-01")],
)
def test_a_time_that_does_not_fit_is_refused(kind: Time, text: str) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encoded(kind, text)
