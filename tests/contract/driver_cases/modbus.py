"""Modbus TCP against pymodbus's own server: every table and type, a second unit, and a hole in the registers."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from protocols.field.contract import Group
from protocols.field.modbus import Settings, TagSettings, driver, tag
from protocols.field.modbus_line import Client
from tests.contract.driver_cases import DriverCase, Expected
from tests.support.modbus_servers import HOST, Unit, plc


@asynccontextmanager
async def case(client: Client = "pymodbus") -> AsyncIterator[DriverCase]:
    """Holding registers 0–15 and 18 exist; 16 and 17 do not."""
    first, second = Unit(), Unit()
    first.put("holding", 0, struct.pack(">hHiIf", -2, 65535, -70_000, 4_000_000_000, 1.5))
    first.put("holding", 8, struct.pack(">d", -0.1) + struct.pack(">H", 187) + b"R-12\0\0")
    first.put("holding", 18, struct.pack(">H", 0x8001))
    first.put("input", 100, struct.pack("<i", 123_456)[2:] + struct.pack("<i", 123_456)[:2])  # bytes swapped
    first.put("input", 102, struct.pack(">Q", 2**63 + 1))
    first.coil.update({0: True, 1: False, 20: True})
    first.discrete.update({7: True})
    second.put("holding", 0, struct.pack(">f", float("nan")) + struct.pack(">H", 7))
    tags = {
        "offset": TagSettings(name="offset", address=40001, type="int16"),
        "count": TagSettings(name="count", address="holding:1"),
        "position": TagSettings(name="position", address=400003, type="int32"),
        "energy": TagSettings(name="energy", address="holding:4", type="uint32"),
        "pressure": TagSettings(name="pressure", address="40007", type="float32"),
        "drift": TagSettings(name="drift", address="holding:8", type="float64"),
        "temperature": TagSettings(name="temperature", address="holding:12", type="int16", scale=0.1, unit="°C"),
        "recipe": TagSettings(name="recipe", address="holding:13", type="string", length=6),
        "missing": TagSettings(name="missing", address="holding:16", type="float32"),
        "alarm": TagSettings(name="alarm", address="holding:18", bit=15),
        "quiet": TagSettings(name="quiet", address="holding:18", bit=14),
        "swapped": TagSettings(name="swapped", address="input:100", type="int32", order="BADC"),
        "total": TagSettings(name="total", address=30103, type="uint64"),
        "pump": TagSettings(name="pump", address="00001"),
        "valve": TagSettings(name="valve", address="coil:1"),
        "fan": TagSettings(name="fan", address="coil:20"),
        "door": TagSettings(name="door", address=10008),
        "no_number": TagSettings(name="no_number", address="holding:0", type="float32", unit_id=2),
        "other": TagSettings(name="other", address="holding:2", unit_id=2),
    }
    built = [tag(settings) for settings in tags.values()]
    groups = [Group("plc-1", "fast", 1.0, tuple(built[:10])), Group("plc-1", "slow", 10.0, tuple(built[10:]))]
    good: dict[str, Expected] = {
        "offset": -2,
        "count": 65535,
        "position": -70_000,
        "energy": 4_000_000_000,
        "pressure": 1.5,
        "drift": -0.1,
        "temperature": 18.7,
        "recipe": "R-12",
        "alarm": True,
        "quiet": False,
        "swapped": 123_456,
        "total": 2**63 + 1,
        "pump": True,
        "valve": False,
        "fan": True,
        "door": True,
        "other": 7,
    }
    async with plc({1: first, 2: second}) as server:
        settings = Settings(host=HOST, port=server.port, client=client)
        device = driver("plc-1", settings, groups)
        yield DriverCase(device, groups, good, frozenset({"missing", "no_number"}), server.cut, server.start)
