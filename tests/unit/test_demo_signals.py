"""The simulated plant's pure parts: recording, signals, registers, and the description that the agent gets."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import pytest

from demo.plant import DEVICES, EXCERPT, Ports, devices
from demo.plant_modbus import HOLE, PRESS, SOLAR, Point, addresses, encode, words
from demo.plant_opcua import NAMESPACE_URI, OVEN
from demo.signals import (
    COLUMNS,
    TICKS_PER_ROW,
    Recording,
    RecordingError,
    Row,
    alternating,
    counter,
    jitter,
    load_recording,
    recorded,
    recorded_time,
    wave,
)
from protocols.field import modbus, opcua
from protocols.field.contract import StrictModel


@pytest.fixture(scope="module")
def recording() -> Recording:
    return load_recording(EXCERPT)


def test_the_excerpt_is_a_summer_day_with_its_oddities(recording: Recording) -> None:
    assert len(recording.rows) == 1440
    assert (recording.rows[0].time, recording.rows[-1].time) == ("2017-06-23T08:00:00", "2017-06-24T07:59:00")
    first, last = recording.rows[0].numbers, recording.rows[-1].numbers
    assert (first["temp_1_c"], first["temp_5_c"], first["temp_6_c"]) == (54.1, 888.8, -88.8)
    assert (first["pressure_7_bar"], first["flow_9_lph"]) == (-999.9, -9999)
    assert last["relay_1_seconds"] - first["relay_1_seconds"] == 22772
    assert max(row.numbers["temp_1_c"] for row in recording.rows) > 140


def test_rows_are_stepped_and_begin_again_after_the_last() -> None:
    rows = [Row(f"2020-01-01T00:0{i}:00", {"temp_1_c": float(i)}) for i in range(3)]
    recording = Recording(rows)
    shown = [recorded("temp_1_c")(recording.at(tick)) for tick in range(4 * TICKS_PER_ROW)]
    assert shown == [0.0] * 10 + [1.0] * 10 + [2.0] * 10 + [0.0] * 10
    assert recorded_time(recording.at(25)) == "2020-01-01T00:02"
    assert recording.at(35).row_number == 0


def _csv(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


GOOD_ROW = ",".join(["2017-06-01T00:00:00", *["1"] * len(COLUMNS)])
HEADER = ",".join(["time", *COLUMNS])


@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz"])
def test_a_recording_is_read_plain_or_compressed(tmp_path: Path, name: str) -> None:
    assert len(load_recording(_csv(tmp_path / name, f"{HEADER}\n{GOOD_ROW}\n")).rows) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no column time, temp_1_c, "),
        (HEADER.replace(",heat_wh", "") + "\n" + GOOD_ROW, "no column heat_wh; take a recording"),
        (HEADER + "\n", "the recording has no rows"),
        (f"{HEADER}\n{GOOD_ROW}\n{GOOD_ROW[:-1]}abc\n", ":3: heat_wh is 'abc', not a usable number"),
        (f"{HEADER}\n{GOOD_ROW[:-1]}nan\n", ":2: heat_wh is 'nan', not a usable number"),
        (f"{HEADER}\n{GOOD_ROW[:-1]}1e300\n", ":2: heat_wh is '1e300', not a usable number"),
        (f"{HEADER}\n{GOOD_ROW[:-2]}\n", ":2: heat_wh is None, not a usable number"),
    ],
)
def test_an_unusable_recording_is_refused_with_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = _csv(tmp_path / "r.csv", text)
    with pytest.raises(RecordingError, match=re.escape(sentence)) as refused:
        load_recording(path)
    assert str(refused.value).startswith(str(path))


DAMAGED = (b"not gzip", gzip.compress(b"x" * 9999, mtime=0)[:30], gzip.compress(b"\xff\xfe\xfd", mtime=0))


@pytest.mark.parametrize("data", DAMAGED)
def test_a_damaged_file_is_refused_with_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "r.csv.gz"
    path.write_bytes(data)
    with pytest.raises(RecordingError, match="the recording cannot be read"):
        load_recording(path)


def test_a_missing_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        load_recording(tmp_path / "none.csv")


def test_own_signals_are_deterministic_and_stay_in_their_bounds(recording: Recording) -> None:
    signal = wave(100.0, 10.0, 20, noise=2.0, seed=9)
    values = [signal(recording.at(tick)) for tick in range(400)]
    assert values == [signal(recording.at(tick)) for tick in range(400)]
    assert min(values) >= 88
    assert max(values) <= 112
    assert len(set(values)) == 400
    assert wave(5.0, 2.0, 40)(recording.at(100)) == pytest.approx(7.0)  # a quarter of the period: the crest
    assert jitter(1, 2) != jitter(2, 1)
    assert counter(1000, 12.5)(recording.at(100)) == 1125
    assert [alternating("ab", 2)(recording.at(tick)) for tick in (0, 19, 20, 40)] == ["a", "a", "b", "a"]


@pytest.mark.parametrize(
    ("kind", "order", "value", "registers"),
    [
        ("uint32", "ABCD", 0x0A0B0C0D, [0x0A0B, 0x0C0D]),
        ("uint32", "CDAB", 0x0A0B0C0D, [0x0C0D, 0x0A0B]),
        ("uint32", "BADC", 0x0A0B0C0D, [0x0B0A, 0x0D0C]),
        ("uint32", "DCBA", 0x0A0B0C0D, [0x0D0C, 0x0B0A]),
        ("int64", "ABCD", 0x0102030405060708, [0x0102, 0x0304, 0x0506, 0x0708]),
        ("int64", "CDAB", 0x0102030405060708, [0x0708, 0x0506, 0x0304, 0x0102]),
        ("int64", "BADC", 0x0102030405060708, [0x0201, 0x0403, 0x0605, 0x0807]),
        ("int64", "DCBA", 0x0102030405060708, [0x0807, 0x0605, 0x0403, 0x0201]),
        ("float32", "ABCD", 1.0, [0x3F80, 0]),
        ("float64", "DCBA", 1.0, [0, 0, 0, 0xF03F]),
        ("int16", "ABCD", -1, [0xFFFF]),
        ("int16", "ABCD", 40000, [0x7FFF]),  # saturates
        ("int16", "ABCD", -40000, [0x8000]),
        ("uint16", "ABCD", -1, [0]),
        ("uint16", "ABCD", 70000, [0xFFFF]),
    ],
)
def test_values_lie_in_the_registers_in_the_order_named(
    kind: str, order: str, value: float, registers: list[int]
) -> None:
    assert encode(Point("x", "holding", 0, kind, wave(0, 0, 1), order=order), value) == registers


def test_scale_and_offset_are_undone_and_strings_are_padded() -> None:
    scaled = Point("x", "input", 0, "uint16", wave(0, 0, 1), scale=0.01, offset=-1.0)
    assert encode(scaled, 0.5) == [150]
    text = Point("x", "holding", 0, "string", wave(0, 0, 1), length=5)
    assert encode(text, "AB") == [0x4142, 0, 0]
    assert encode(text, "ABCDEFG") == [0x4142, 0x4344, 0x4500]


@pytest.mark.parametrize("points", [SOLAR, PRESS], ids=["solar", "press"])
def test_no_two_points_share_a_register_or_a_bit(points: tuple[Point, ...]) -> None:
    taken: set[tuple[str, int, int | None]] = set()
    for point in points:
        for i in range(point.register_count):
            address = point.address + i
            both = {(point.table, address, point.bit), (point.table, address, None)}
            assert not taken & both or (point.bit is not None and (point.table, address, None) not in taken), point
            taken.add((point.table, address, point.bit))


def test_a_table_has_every_point_in_its_place_and_a_hole(recording: Recording) -> None:
    moment = recording.at(300 * TICKS_PER_ROW)
    image = words(SOLAR, "holding", moment)
    assert struct.unpack(">f", struct.pack(">2H", *image[0:2]))[0] == pytest.approx(moment.row.numbers["temp_1_c"])
    assert image[30] == 300
    assert image[28] == 0b0010  # relay 2 alone is on
    assert image[9] == 0x10000 - 888
    assert not addresses(SOLAR, "holding") & set(HOLE)
    assert {HOLE[0] - 1, HOLE[-1] + 1} <= addresses(SOLAR, "holding")
    assert words(SOLAR, "discrete", moment) == [0b10]  # sensor 5 is not there, sensor 1 is


def test_the_plant_has_about_sixty_tags_on_three_machines() -> None:
    assert [(device["machine"], device["protocol"]) for device in DEVICES] == [
        ("solar-1", "modbus"),
        ("press-1", "modbus"),
        ("oven-1", "opcua"),
    ]
    names = [[tag["name"] for group in device["groups"] for tag in group["tags"]] for device in DEVICES]
    assert all(len(of_one) == len(set(of_one)) for of_one in names)
    assert 55 <= sum(map(len, names)) <= 80
    assert "missing_temp" in names[0]
    assert "oxygen" in names[2]
    kinds = {tag["type"] for device in DEVICES for group in device["groups"] for tag in group["tags"]}
    assert {"bool", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64", "string"} <= kinds
    orders = {tag.get("order") for device in DEVICES for group in device["groups"] for tag in group["tags"]}
    assert {"ABCD", "CDAB", "BADC", "DCBA"} <= orders
    assert all(tag["node"].startswith(f"nsu={NAMESPACE_URI};s=") for tag in DEVICES[2]["groups"][0]["tags"])
    assert {node.period_ticks for node in OVEN} == {2, 5, 10, 50}


def test_devices_tell_the_ports() -> None:
    there = [device["settings"] for device in devices(Ports(1001, 1002, 1003))]
    assert (there[0]["port"], there[1]["port"], there[2]["url"]) == (1001, 1002, "opc.tcp://127.0.0.1:1003/")


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: str(device["machine"]))
def test_the_drivers_accept_the_description(device: dict[str, object]) -> None:
    driver = {"modbus": modbus, "opcua": opcua}[str(device["protocol"])]
    driver.Settings.model_validate(device["settings"])
    groups = device["groups"]
    assert isinstance(groups, list)
    for group in groups:
        group_settings: type[StrictModel] = driver.GroupSettings
        group_settings.model_validate(group["options"])
        for tag in group["tags"]:
            settings = driver.TagSettings.model_validate(tag)
            assert driver.tag(settings).name == tag["name"]
