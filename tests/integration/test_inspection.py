"""What a driver shows of its readings: the bytes are those that the device sent, and each answer has a latency."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest

from protocols.field import modbus, opcua
from protocols.field.contract import Group, Inspection, Quality, ValueType
from protocols.field.modbus_line import Client
from tests.support.modbus_servers import HOST, Unit, plc
from tests.support.opcua_server import opcua_server


@pytest.mark.parametrize("client", ["pymodbus", "lean"])
async def test_registers_as_they_came(client: Client) -> None:
    """Whatever is made of them: swapped words, a scaling, a bit, a coil, a text, NaN."""
    unit, meter = Unit(), Unit()
    unit.put("holding", 0, struct.pack(">f", 23.5)[2:] + struct.pack(">f", 23.5)[:2] + b"\x00\xbb" + b"R-12\0\0")
    unit.coil = dict.fromkeys(range(16), False) | {11: True}
    meter.put("input", 0, bytes.fromhex("7fc00000"))
    tags = {
        "level": modbus.TagSettings(name="level", address=40001, type="float32", order="CDAB", unit="m"),
        "oil": modbus.TagSettings(name="oil", address="holding:2", type="int16", scale=0.1),
        "low": modbus.TagSettings(name="low", address="holding:2", bit=0),
        "gear": modbus.TagSettings(name="gear", address="holding:2", bit=4, bit_count=3),
        "recipe": modbus.TagSettings(name="recipe", address="holding:3", type="string", length=6),
        "pump": modbus.TagSettings(name="pump", address="coil:11"),
        "fan": modbus.TagSettings(name="fan", address="coil:10"),
        "gone": modbus.TagSettings(name="gone", address="holding:90"),
        "power": modbus.TagSettings(name="power", address="input:0", type="float32", unit_id=7),
    }
    group = Group("press", "main", 1.0, tuple(modbus.tag(each) for each in tags.values()))
    async with plc({1: unit, 7: meter}) as server:
        settings = modbus.Settings(host=HOST, port=server.port, client=client, order="BADC", pause_s=0.05)
        driver = modbus.driver("press", settings, [group])
        assert driver.facts()["units"] == "1, 7"
        try:
            await driver.connect()
            await driver.inspect(group)  # learns that one place is refused
            asked = len(server.asked)
            seen = await driver.inspect(group)
            requests = len(server.asked) - asked
        finally:
            await driver.close()
    found = {tag.name: one for tag, one in zip(group.tags, seen.evidence, strict=True)}
    assert {name: one.raw.hex() for name, one in found.items()} == {
        "level": "000041bc",
        "oil": "00bb",
        "low": "00bb",
        "gear": "00bb",
        "recipe": "522d31320000",
        "pump": "01",
        "fan": "00",
        "gone": "",
        "power": "7fc00000",
    }
    assert (found["level"].place, found["level"].type, found["level"].order) == (
        "holding 0–1 (40001–40002)",
        "float32",
        "CDAB",
    )
    assert (found["oil"].order, found["low"].type, found["gear"].type) == ("BADC", "bit 0", "bits 4–6")
    assert (found["pump"].type, found["pump"].order) == ("bit", "")
    assert found["power"].place == "unit 7, input 0–1 (30001–30002)"
    assert _values(seen)["level"] == 23.5
    assert len(seen.latencies_s) == requests == 3, "the refused place rests"


def _values(seen: Inspection) -> dict[str, object]:
    found: dict[str, object] = {}
    for scan in seen.scans:
        indexes = range(len(scan.group.tags)) if scan.indexes is None else scan.indexes
        found |= {scan.group.tags[at].name: value for at, value in zip(indexes, scan.values, strict=True)}
    return found


async def test_variants_as_they_came() -> None:
    """The type's number, then the value, little-endian: OPC 10000-6, 5.2.2.16."""
    nodes = {
        "temperature": ("nsu=urn:plant:press;s=Temperature", ValueType.FLOAT64, None),
        "running": ("nsu=urn:plant:press;s=Running", ValueType.BOOL, None),
        "first": ("nsu=urn:plant:press;s=Curve", ValueType.FLOAT64, "[0]"),
        "recipe": ("ns=2;s=Recipe", ValueType.STRING, None),
        "none": ("ns=2;s=NoSuchNode", ValueType.FLOAT64, None),
        "nowhere": ("nsu=urn:nobody;s=X", ValueType.FLOAT64, None),
    }
    settings = [
        opcua.TagSettings.model_validate({"name": name, "node": node, "type": kind} | ({"part": part} if part else {}))
        for name, (node, kind, part) in nodes.items()
    ]
    async with opcua_server() as server:
        for name, value in {"Temperature": 71.5, "Running": True, "Curve": [1.0, 2.0], "Recipe": "Nougat"}.items():
            await server.set(name, value, source=datetime.now(UTC))
        for mode in ("subscribe", "poll"):
            options = opcua.GroupSettings.model_validate({"mode": mode})
            group = Group("press", "main", 0.1, tuple(opcua.tag(each) for each in settings), options)
            driver = opcua.driver("press", opcua.Settings(url=server.url, timeout_s=2), [group])
            try:
                await driver.connect()
                seen = await driver.inspect(group)
            finally:
                await driver.close()
            found = {tag.name: one for tag, one in zip(group.tags, seen.evidence, strict=True)}
            curve = "8b02000000" + struct.pack("<dd", 1, 2).hex()
            assert {name: one.raw.hex() for name, one in found.items()} == {
                "temperature": "0b" + struct.pack("<d", 71.5).hex(),
                "running": "0101",
                "first": curve,
                "recipe": "0c" + struct.pack("<i", 6).hex() + b"Nougat".hex(),
                "none": "00",
                "nowhere": "",
            }
            assert found["temperature"].place == "nsu=urn:plant:press;s=Temperature (ns=2;s=Temperature)"
            assert (found["recipe"].place, found["recipe"].type) == ("ns=2;s=Recipe", "String")
            assert found["first"].type == "Double[], part [0]"
            assert _values(seen) | {"first": 1.0} == _values(seen)
            reasons = {at: reason for scan in seen.scans for at, reason in scan.reasons.items()}
            assert set(reasons) == {4, 5}
            codes = [code for scan in seen.scans for code in scan.quality or ()]
            assert codes.count(Quality.BAD_NODE_ID_UNKNOWN) == 2
            assert len(seen.latencies_s) == 1
            assert driver.facts() == {"security": "none: nothing is encrypted", "user": "anonymous"}
