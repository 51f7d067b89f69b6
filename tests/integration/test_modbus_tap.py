"""What a driver's tap hears is what went over the line, with either client: also what fits nothing."""

from __future__ import annotations

import asyncio
import os
import pty
from collections.abc import Awaitable, Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from protocols.field.contract import DeviceAway, DeviceTimeout, Group, Happening
from protocols.field.modbus import Settings, TagSettings, driver, tag
from protocols.field.modbus_driver import ModbusDriver
from protocols.field.modbus_frame import crc
from tests.support.modbus_servers import HOST, Exchange, Script, scripted
from tests.support.sockets import open_sockets

GROUP = Group("plc-1", "main", 1.0, (tag(TagSettings(name="a", address="holding:0")),))
CLIENTS = pytest.mark.parametrize("client", ["pymodbus", "lean"])


class Ear:
    """Keeps what it hears: neighbouring pieces of one kind as one."""

    def __init__(self) -> None:
        self.heard: list[tuple[Happening, bytes]] = []

    def __call__(self, happening: Happening, content: bytes) -> None:
        self.heard.append((happening, content))

    @property
    def kinds(self) -> list[Happening]:
        return [kind for kind, _ in groupby(self.heard, key=lambda one: one[0])]

    def all(self, happening: Happening) -> bytes:
        return b"".join(content for kind, content in self.heard if kind is happening)


def device(client: str, port: int, ear: Ear | None = None, **more: Any) -> ModbusDriver:
    made = driver("plc-1", Settings.model_validate({"host": HOST, "port": port, "client": client, **more}), [GROUP])
    made.listen(ear)
    return made


async def heard_by(client: str, script: Script, read: Callable[[ModbusDriver], Awaitable[None]], **more: Any) -> Ear:
    ear = Ear()
    async with scripted(script) as server:
        plc = device(client, server.port, ear, **more)
        await plc.connect()
        await read(plc)
        await plc.close()
    return ear


@CLIENTS
async def test_a_good_read_in_pieces(client: str) -> None:
    sent: list[bytes] = []

    async def split(exchange: Exchange) -> None:
        sent.append(exchange.request)
        answer = exchange.answer(b"\x00\x07")
        sent.append(answer)
        for part in (answer[:3], answer[3:8], answer[8:]):
            await exchange.send(part)
            await asyncio.sleep(0.01)

    async def read(plc: ModbusDriver) -> None:
        assert (await plc.read(GROUP))[0].values == [7]

    ear = await heard_by(client, split, read)
    assert ear.kinds == [Happening.OPENED, Happening.SENT, Happening.RECEIVED, Happening.CLOSED]
    assert [ear.all(Happening.SENT), ear.all(Happening.RECEIVED)] == sent


@CLIENTS
@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(range(256)) * 5], ids=["short", "long"])
async def test_what_fits_nothing_is_heard_whole(client: str, garbage: bytes) -> None:
    async def babble(exchange: Exchange) -> None:
        await exchange.send(garbage)

    async def read(plc: ModbusDriver) -> None:
        with pytest.raises(DeviceAway):
            await plc.read(GROUP)

    ear = await heard_by(client, babble, read, timeout_s=0.3)
    assert ear.all(Happening.RECEIVED) == garbage
    assert ear.kinds[:3] == [Happening.OPENED, Happening.SENT, Happening.RECEIVED]
    assert ear.kinds[-1] is Happening.CLOSED


@CLIENTS
async def test_silence_and_hanging_up_are_told_apart(client: str) -> None:
    async def silent_then_gone(exchange: Exchange) -> None:
        if exchange.number == 1:
            exchange.writer.transport.abort()

    async def read(plc: ModbusDriver) -> None:
        with pytest.raises(DeviceTimeout):
            await plc.read(GROUP)
        await plc.connect()
        with pytest.raises(DeviceAway):
            await plc.read(GROUP)

    ear = await heard_by(client, silent_then_gone, read, timeout_s=0.2)
    one = [Happening.OPENED, Happening.SENT]
    assert ear.kinds == [*one, Happening.TIMED_OUT, Happening.CLOSED, *one, Happening.LOST]


@CLIENTS
async def test_nobody_there(client: str, unused_tcp_port: int) -> None:
    ear = Ear()
    with pytest.raises(DeviceAway):
        await device(client, unused_tcp_port, ear).connect()
    assert ear.kinds == [Happening.NOT_OPENED]
    assert b"refused" in ear.all(Happening.NOT_OPENED)


@CLIENTS
async def test_listening_begins_and_ends_while_the_line_is_open(client: str) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(exchange.answer(bytes(2)))

    async with scripted(answer) as server:
        plc, ear = device(client, server.port), Ear()
        await plc.connect()
        await plc.read(GROUP)
        plc.listen(ear)
        await plc.read(GROUP)
        plc.listen(None)
        await plc.read(GROUP)
        await plc.close()
        assert server.connections == 1
    assert ear.heard[0] == (Happening.OPENED, b"already open")
    assert ear.kinds == [Happening.OPENED, Happening.SENT, Happening.RECEIVED]
    assert len(ear.all(Happening.SENT)) == 12


async def test_a_serial_port() -> None:
    master, slave = pty.openpty()
    port, ear = Path(os.ttyname(slave)), Ear()
    os.close(slave)
    settings = Settings(transport="rtu", serial_port=str(port), timeout_s=5.0)
    plc = driver("plc-1", settings, [GROUP])
    plc.listen(ear)
    answer = bytes([1, 3, 2, 0, 9])
    answer += crc(answer)
    loop, got = asyncio.get_running_loop(), bytearray()

    def respond() -> None:
        got.extend(os.read(master, 256))
        if len(got) == 8:
            os.write(master, answer)

    loop.add_reader(master, respond)
    await plc.connect()
    assert (await plc.read(GROUP))[0].values == [9]
    await plc.close()
    loop.remove_reader(master)
    os.close(master)
    assert ear.kinds == [Happening.OPENED, Happening.SENT, Happening.RECEIVED, Happening.CLOSED]
    assert (ear.all(Happening.SENT), ear.all(Happening.RECEIVED)) == (bytes(got), answer)


async def test_no_socket_is_left() -> None:
    before = open_sockets()
    await test_a_good_read_in_pieces("pymodbus")
    assert open_sockets() == before
