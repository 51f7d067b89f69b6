"""The driver against libmodbus's server: another implementation of the standard, in another language."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from protocols.field.contract import Group, Quality, Value, WriteFailed
from protocols.field.modbus import Settings, TagSettings, driver, tag
from protocols.field.modbus_driver import ModbusDriver
from tests.support.libmodbus_server import BAUD, FLOAT, LAID, SIZE, libmodbus_rtu, libmodbus_tcp

WAYS: list[tuple[str, str | None]] = [("tcp", "pymodbus"), ("tcp", "lean"), ("rtu", None)]


@asynccontextmanager
async def settings(way: str, client: str | None) -> AsyncIterator[dict[str, Any]]:
    if way == "tcp":
        async with libmodbus_tcp() as port:
            yield {"host": "127.0.0.1", "port": port, "client": client, "timeout_s": 10.0}
    else:
        async with libmodbus_rtu() as path:
            serial = {"serial_port": path, "baudrate": BAUD, "parity": "even"}
            yield {"transport": "rtu", **serial, "timeout_s": 10.0}


@asynccontextmanager
async def connected(way: str, client: str | None, *tags: dict[str, Any]) -> AsyncIterator[tuple[ModbusDriver, Group]]:
    group = Group("plc", "main", 1.0, tuple(tag(TagSettings.model_validate(one)) for one in tags))
    async with settings(way, client) as given:
        device = driver("plc", Settings.model_validate(given), [group])
        try:
            await device.connect()
            yield device, group
        finally:
            await device.close()


async def values(device: ModbusDriver, group: Group) -> dict[str, Value]:
    (scan,) = await device.read(group)
    return dict(zip((one.name for one in group.tags), scan.values, strict=True))


@pytest.mark.parametrize(("way", "client"), WAYS)
async def test_every_table_and_order(way: str, client: str | None) -> None:
    floats = [
        {"name": order, "address": f"holding:{at}", "type": "float32", "order": order} for order, at in LAID.items()
    ]
    singles = [
        {"name": f"{table}.{at}", "address": f"{table}:{at}"}
        for table in ("holding", "input", "coil", "discrete")
        for at in (0, 1, 42, SIZE - 1)
    ]
    async with connected(way, client, *floats, *singles) as (device, group):
        found = await values(device, group)
    assert {order: found[order] for order in LAID} == dict.fromkeys(LAID, FLOAT)
    for at in (0, 1, 42, SIZE - 1):
        assert (found[f"holding.{at}"], found[f"input.{at}"]) == (at, 1000 + at)
        assert (found[f"coil.{at}"], found[f"discrete.{at}"]) == (at % 3 == 0, at % 3 == 1)


@pytest.mark.parametrize(("way", "client"), WAYS)
async def test_its_refusals_cost_no_neighbour(way: str, client: str | None) -> None:
    """What it does not have, it answers with exception 2, for the whole of a request."""
    inside = [{"name": f"r{at}", "address": f"holding:{at}"} for at in range(SIZE - 6, SIZE)]
    outside = [{"name": f"r{at}", "address": f"holding:{at}"} for at in range(SIZE, SIZE + 3)]
    async with connected(way, client, *inside, *outside) as (device, group):
        for _ in range(3):
            (scan,) = await device.read(group)
            assert list(scan.values) == [*range(SIZE - 6, SIZE), None, None, None]
            assert scan.quality is not None
            assert set(scan.quality[len(inside) :]) == {Quality.BAD_OUT_OF_RANGE}
        before = device.requests
        await device.read(group)
        assert device.requests == before + 1, "once it is known, one request reads what can be read"


@pytest.mark.parametrize(("way", "client"), WAYS)
async def test_every_kind_of_write_is_understood(way: str, client: str | None) -> None:
    """Functions 5, 6, 16, and 22 for a bit, which libmodbus sets by itself."""
    limits = {"writable": True, "write_min": 0, "write_max": 60_000}
    tags: list[dict[str, Any]] = [
        {"name": "coil", "address": "coil:5", "writable": True},
        {"name": "word", "address": "holding:5", **limits},
        {"name": "level", "address": "holding:20", "type": "float32", "order": "CDAB", **limits},
        {"name": "bit", "address": "holding:9", "bit": 1, "writable": True},
        {"name": "beyond", "address": f"holding:{SIZE}", **limits},
        {"name": "whole", "address": "holding:9"},
    ]
    async with connected(way, client, *tags) as (device, group):
        named = {one.name: one for one in group.tags}
        assert await device.write(named["coil"], True) is True
        assert await device.write(named["word"], 4711) == 4711
        assert await device.write(named["level"], 21.25) == 21.25
        assert await device.write(named["bit"], True) is True
        with pytest.raises(WriteFailed, match="exception 2, illegal data address"):
            await device.write(named["beyond"], 1)
        found = await values(device, group)
    assert (found["coil"], found["word"], found["level"], found["bit"]) == (True, 4711, 21.25, True)
    assert found["whole"] == 9 | 2, "the other bits are as they were"
