"""Writes, through both clients, against pymodbus's own server; and every way in which they must not happen."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from protocols.field.contract import DeviceAway, DeviceTimeout, Group, Value, WriteFailed, Writes
from protocols.field.modbus import Settings, TagSettings, driver, tag
from protocols.field.modbus_driver import ModbusDriver
from tests.support.modbus_servers import HOST, Exchange, Unit, plc, scripted

CLIENTS = pytest.mark.parametrize("client", ["pymodbus", "lean"])

TAGS = {
    built.name: built
    for built in map(
        tag,
        [
            TagSettings(name="setpoint", address="holding:0", type="float32", writable=True, write_min=0, write_max=90),
            TagSettings(
                name="limit", address="holding:2", type="int16", scale=0.1, writable=True, write_min=-5, write_max=5
            ),
            TagSettings(name="mode", address="holding:3", states={0: "off", 1: "auto", 7: "manual"}, writable=True),
            TagSettings(name="enable", address="holding:4", bit=9, writable=True),
            TagSettings(name="gear", address="holding:4", bit=2, bit_count=3, writable=True, write_min=0, write_max=7),
            TagSettings(name="recipe", address="holding:5", type="string", length=7, order="BADC", writable=True),
            TagSettings(
                name="total",
                address="holding:9",
                type="int48",
                order="CDAB",
                writable=True,
                write_min=-9e13,
                write_max=9e13,
            ),
            TagSettings(name="pump", address="coil:3", writable=True),
            TagSettings(name="missing", address="holding:99", writable=True, write_min=0, write_max=9),
            TagSettings(name="fixed", address="holding:0", type="float32"),
        ],
    )
}
GROUP = Group("plc-1", "all", 1.0, tuple(TAGS.values()))


@asynccontextmanager
async def connected(port: int, client: str, **more: object) -> AsyncIterator[ModbusDriver]:
    given = {"host": HOST, "port": port, "client": client, "timeout_s": 5.0, **more}
    device = driver("plc-1", Settings.model_validate(given), [GROUP])
    await device.connect()
    try:
        yield device
    finally:
        await device.close()


@CLIENTS
@pytest.mark.parametrize("single", [[5, 6], []])
async def test_what_is_written_is_read_back(client: str, single: list[int]) -> None:
    unit = Unit(holding={at: 0xFFFF if at == 4 else 0 for at in range(12)}, coil={3: False})
    written: list[tuple[str, Value]] = [
        ("setpoint", 71.5),
        ("limit", -1.3),
        ("mode", "manual"),
        ("enable", False),
        ("gear", 5),
        ("recipe", "R-12"),
        ("total", -123_456_789_012),
        ("pump", True),
        ("pump", False),
    ]
    known = [1, 3, 15, 16, 22, *single]
    async with plc({1: unit}) as server, connected(server.port, client, functions=known) as device:
        assert isinstance(device, Writes)
        for name, value in written:
            assert await device.write(TAGS[name], value) == value
        (scan,) = await device.read(GROUP)
        found = dict(zip(TAGS, scan.values, strict=True))
        assert {name: found[name] for name, _ in written} == dict(written)
        assert unit.holding[4] == 0xFFFF & ~(1 << 9) & ~(7 << 2) | 5 << 2, "the other bits are as they were"
        assert unit.holding[5] == int.from_bytes(b"-R", "big"), "the characters of each register are swapped"
        functions = [asked.function for asked in server.asked if asked.function > 4]
        assert functions == ([16, 6, 6, 22, 22, 16, 16, 5, 5] if single else [16, 16, 16, 22, 22, 16, 16, 15, 15])


@CLIENTS
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("fixed", 1.0, "not writable; set `writable: true`"),
        ("setpoint", 90.5, "90.5 is outside what may be written, 0 to 90"),
        ("limit", 0.15, "between two values"),
        ("mode", "on", "none of its states: off, auto, manual"),
        ("pump", 1, "neither true nor false"),
    ],
)
async def test_what_must_not_be_written_is_never_sent(client: str, name: str, value: Value, says: str) -> None:
    async with plc({1: Unit(holding=dict.fromkeys(range(12), 0))}) as server, connected(server.port, client) as device:
        with pytest.raises(WriteFailed, match=says) as caught:
            await device.write(TAGS[name], value)
        assert str(caught.value).startswith(f"plc-1 (modbus {HOST}:{server.port}, unit 1), tag {name}, ")
        assert str(caught.value).endswith(".")
        assert server.asked == []


@CLIENTS
async def test_a_refused_write_is_told_and_the_connection_goes_on(client: str) -> None:
    async with plc({1: Unit(holding=dict.fromkeys(range(12), 0))}) as server, connected(server.port, client) as device:
        with pytest.raises(WriteFailed, match=r"holding 99 \(40100\): not written, the PLC answered exception 2"):
            await device.write(TAGS["missing"], 5)
        assert await device.write(TAGS["setpoint"], 5.0) == 5.0


@CLIENTS
async def test_a_device_that_takes_it_and_keeps_another_value_is_told(client: str) -> None:
    async def forgetful(exchange: Exchange) -> None:
        if exchange.request[7] > 4:
            await exchange.send(exchange.request[:4] + struct.pack(">H", 6) + exchange.request[6:12])
        else:
            await exchange.send(exchange.answer(bytes(exchange.size)))

    async with scripted(forgetful) as server, connected(server.port, client) as device:
        with pytest.raises(WriteFailed, match=r"71.5 was written, but it holds 0.0; see what else writes it"):
            await device.write(TAGS["setpoint"], 71.5)


@CLIENTS
async def test_an_unanswered_write_is_not_repeated(client: str) -> None:
    async def silent(exchange: Exchange) -> None:
        del exchange

    async with scripted(silent) as server, connected(server.port, client, timeout_s=0.05) as device:
        with pytest.raises(DeviceTimeout, match="It is not known whether tag setpoint was written"):
            await device.write(TAGS["setpoint"], 71.5)
        assert server.requests == 1


@CLIENTS
@pytest.mark.parametrize("wrong", [b"\0\1", b"\0\0\0\3"], ids=["another address", "another count"])
async def test_an_answer_to_another_write_is_none(client: str, wrong: bytes) -> None:
    async def other(exchange: Exchange) -> None:
        echo = bytearray(exchange.request[:4] + struct.pack(">H", 6) + exchange.request[6:12])
        echo[8 : 8 + len(wrong)] = wrong
        await exchange.send(bytes(echo))

    async with scripted(other) as server, connected(server.port, client) as device:
        with pytest.raises(DeviceAway, match="repeats something else than what was written"):
            await device.write(TAGS["setpoint"], 71.5)


async def test_unit_0_of_a_serial_line_is_never_written() -> None:
    settings = Settings(transport="rtu", serial_port="/dev/ttyS0", unit_id=0)
    with pytest.raises(WriteFailed, match="unit id 0 is everybody on a serial line"):
        await driver("bus", settings, [GROUP]).write(TAGS["setpoint"], 1.0)


async def test_a_write_before_connect_says_so() -> None:
    with pytest.raises(DeviceAway, match="connect first"):
        await driver("plc-1", Settings(host=HOST), [GROUP]).write(TAGS["setpoint"], 1.0)
