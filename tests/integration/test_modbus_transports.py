"""The transports beside Modbus TCP: datagrams, serial frames over TCP, a serial port (a pair of pseudo-terminals)."""

from __future__ import annotations

import asyncio
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from protocols.field.contract import DeviceAway, DeviceTimeout, Group, Quality, Scan
from protocols.field.modbus import Settings, TagSettings, driver, tag
from protocols.field.modbus_driver import ModbusDriver
from protocols.field.modbus_frame import crc
from protocols.field.modbus_line import Serial
from protocols.field.modbus_serial import control_flags
from protocols.field.modbus_settings import presets
from tests.support.modbus_servers import HOST

Answer = Callable[[bytes], bytes]  # request PDU with unit id in front → the same of the answer; b"": silence


def well(request: bytes) -> bytes:
    """Holding registers that hold their own address; unit 9 is silent, address 99 does not exist."""
    unit_id, function, address, count = struct.unpack(">BBHH", request)
    if unit_id == 9:
        return b""
    if address <= 99 < address + count:
        return bytes([unit_id, function | 0x80, 2])
    return struct.pack(f">BBB{count}H", unit_id, function, 2 * count, *range(address, address + count))


class Server:
    """One device on any transport. `corrupt` changes the bytes that go out; `answer` makes them."""

    def __init__(self) -> None:
        self.answer: Answer = well
        self.corrupt: Answer = lambda frame: frame
        self.requests: list[bytes] = []
        self.settings: dict[str, Any] = {}

    def mbap(self, frame: bytes) -> bytes:
        self.requests.append(frame)
        answer = self.answer(frame[6:])
        return self.corrupt(frame[:4] + struct.pack(">H", len(answer)) + answer) if answer else b""

    def rtu(self, frame: bytes) -> bytes:
        assert crc(frame[:-2]) == frame[-2:]
        self.requests.append(frame)
        answer = self.answer(frame[:-2])
        return self.corrupt(answer + crc(answer)) if answer else b""


@asynccontextmanager
async def over_udp() -> AsyncIterator[Server]:
    server = Server()

    class Endpoint(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            if answer := server.mbap(data):
                self.transport.sendto(answer, address)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Endpoint, local_addr=(HOST, 0))
    server.settings = {"transport": "udp", "host": HOST, "port": transport.get_extra_info("sockname")[1]}
    yield server
    transport.close()
    await asyncio.sleep(0)


@asynccontextmanager
async def over_tcp() -> AsyncIterator[Server]:
    server, writers = Server(), list[asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                writer.write(server.rtu(await reader.readexactly(8)))

    listener = await asyncio.start_server(serve, HOST, 0)
    server.settings = {"transport": "rtu_over_tcp", "host": HOST, "port": listener.sockets[0].getsockname()[1]}
    yield server
    listener.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


@asynccontextmanager
async def over_serial() -> AsyncIterator[Server]:
    server, received = Server(), bytearray()
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    loop = asyncio.get_running_loop()

    def read() -> None:
        received.extend(os.read(master, 4096))
        while len(received) >= 8:
            frame = bytes(received[:8])
            del received[:8]
            os.write(master, server.rtu(frame))

    loop.add_reader(master, read)
    server.settings = {"transport": "rtu", "serial_port": os.ttyname(slave), "baudrate": 115200, "parity": "none"}
    yield server
    loop.remove_reader(master)
    os.close(slave)
    with suppress(OSError):
        os.close(master)


WAYS: dict[str, tuple[Callable[[], Any], str | None]] = {
    "udp, pymodbus": (over_udp, "pymodbus"),
    "udp, lean": (over_udp, "lean"),
    "rtu over tcp, pymodbus": (over_tcp, "pymodbus"),
    "rtu over tcp, lean": (over_tcp, "lean"),
    "serial": (over_serial, None),
}


@pytest.fixture(params=WAYS)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    make, client = WAYS[request.param]
    async with make() as made:
        if client is not None:
            made.settings["client"] = client
        yield made


@asynccontextmanager
async def reading(server: Server, polled: Group, timeout_s: float = 5.0) -> AsyncIterator[ModbusDriver]:
    device = driver("bus", Settings.model_validate({"timeout_s": timeout_s, **server.settings}), [polled])
    await device.connect()
    try:
        yield device
    finally:
        await device.close()


def group(*addresses: int, unit_id: int = 1) -> Group:
    tags = [TagSettings(name=f"r{at}", address=f"holding:{at}", unit_id=unit_id) for at in addresses]
    return Group("bus", "all", 1.0, tuple(map(tag, tags)))


async def scan(device: ModbusDriver, polled: Group) -> Scan:
    (found,) = await device.read(polled)
    return found


async def test_reads_and_refusals(server: Server) -> None:
    polled = group(*range(98, 101), *range(300, 425), 7)
    async with reading(server, polled) as device:
        for _ in range(3):
            found = await scan(device, polled)
            assert found.values == [98, None, 100, *range(300, 425), 7]
            assert "exception 2, illegal data address" in found.reasons[1]
        assert device.requests == len(server.requests)


WRONG: dict[str, Answer] = {
    "the checksum or the length": lambda frame: frame[:-1] + bytes([frame[-1] ^ 1, 0]),
    "another unit": lambda frame: frame.replace(b"\1\3\4", b"\2\3\4"),
    "another function": lambda frame: frame.replace(b"\1\3\4", b"\1\4\4"),
    "another byte count": lambda frame: frame.replace(b"\1\3\4", b"\1\3\2"),
    "something behind it": lambda frame: frame + b"\1",
    "twice": lambda frame: frame * 2,
    "noise": lambda frame: b"\xf0\x0f" * 20,
}


async def test_the_bytes_behind_a_reading_are_shown(server: Server) -> None:
    """Over every transport; and one request after another, each with its latency."""
    polled = group(7, 8, 60, 99)
    async with reading(server, polled) as device:
        seen = await device.inspect(polled)
        asked = len(server.requests)
        again = await device.inspect(polled)
    assert [one.raw for one in seen.evidence] == [b"\0\7", b"\0\10", b"\0\x3c", b""]
    assert [one.raw for one in again.evidence] == [one.raw for one in seen.evidence]
    assert seen.evidence[0].place == "unit 1, holding 7 (40008)"
    assert (len(seen.latencies_s), len(again.latencies_s)) == (asked, len(server.requests) - asked)
    line = {"udp": "Modbus UDP", "rtu_over_tcp": "Modbus RTU over TCP", "rtu": "Modbus RTU"}
    assert device.facts()["transport"] == line[server.settings["transport"]]
    assert ("line" in device.facts()) == (server.settings["transport"] == "rtu")


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_answer_gives_no_value_and_the_next_connection_works(server: Server, name: str) -> None:
    polled = group(5, 6)
    async with reading(server, polled) as device:
        server.corrupt = WRONG[name]
        with pytest.raises(DeviceAway) as caught:
            await scan(device, polled)
        assert str(caught.value).startswith("bus (modbus ") and ";" in str(caught.value)
        server.corrupt = lambda frame: frame
        await device.connect()
        assert (await scan(device, polled)).values == [5, 6]


async def test_silence_is_a_timeout_and_one_silent_unit_is_alone(server: Server) -> None:
    both = Group("bus", "all", 1.0, (*group(1).tags, *group(2, unit_id=9).tags))
    async with reading(server, both, timeout_s=0.3) as device:
        found = await scan(device, both)
        assert (found.values, found.quality) == ([1, None], [0, Quality.BAD_TIMEOUT])
        assert (await scan(device, both)).values == [1, None]
    alone = group(2, unit_id=9)
    async with reading(server, alone, timeout_s=0.05) as device:
        with pytest.raises(DeviceTimeout):
            await scan(device, alone)


async def test_half_an_answer_is_none(server: Server) -> None:
    polled = group(5, 6)
    async with reading(server, polled, timeout_s=0.05) as device:
        server.corrupt = lambda frame: frame[:-3]
        with pytest.raises(DeviceAway):
            await scan(device, polled)


async def test_a_serial_port_that_vanishes_is_told(tmp_path: Path) -> None:
    polled = group(1)
    settings = Settings(transport="rtu", serial_port=str(tmp_path / "ttyUSB0"))
    with pytest.raises(DeviceAway) as caught:
        await driver("bus", settings, [polled]).connect()
    assert str(caught.value) == (
        f"bus (modbus rtu {tmp_path}/ttyUSB0, unit 1): the serial port cannot be used (no such file or directory); "
        "check its path and rights, and that nobody else uses it."
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceAway, match="cannot be used"):
        await driver("bus", Settings(transport="rtu", serial_port=str(tmp_path / "file")), [polled]).connect()
    master, slave = pty.openpty()
    device = driver("bus", Settings(transport="rtu", serial_port=os.ttyname(slave), parity="none"), [polled])
    await device.connect()
    os.close(slave)
    os.close(master)
    with pytest.raises(DeviceAway):
        await scan(device, polled)
    await device.close()


async def test_a_datagram_to_nobody_is_told() -> None:
    polled = group(1)
    async with over_udp() as gone:
        settings = Settings.model_validate({**gone.settings, "client": "lean"})
    device = driver("bus", settings, [polled])
    await device.connect()
    with pytest.raises(DeviceAway, match=r"modbus udp .*no answer \(connection refused\)"):
        await scan(device, polled)
    await device.close()


@pytest.mark.parametrize(
    ("parity", "stop_bits", "flags"),
    [("none", 2, termios.CSTOPB), ("even", 1, termios.PARENB), ("odd", 1, termios.PARENB | termios.PARODD)],
)
def test_the_flags_of_a_serial_port(parity: Any, stop_bits: Any, flags: int) -> None:
    mask = termios.PARENB | termios.PARODD | termios.CSTOPB | termios.CSIZE | termios.CRTSCTS
    for before in (0, mask):
        assert control_flags(Serial(9600, parity, stop_bits), before) & mask == flags | termios.CS8


async def test_the_serial_port_is_set() -> None:
    """A pseudo-terminal keeps its speed, though it sends no bits, and knows no parity."""
    master, slave = pty.openpty()
    path = os.ttyname(slave)
    device = driver("bus", Settings(transport="rtu", serial_port=path, baudrate=9600, parity="none"), [group(1)])
    await device.connect()
    found = termios.tcgetattr(slave)
    assert (found[4], found[5], found[3] & (termios.ECHO | termios.ICANON)) == (termios.B9600, termios.B9600, 0)
    await device.close()
    os.close(slave)
    os.close(master)


async def test_a_virtual_port_is_opened_again_whatever_its_parity() -> None:
    """As technicians have them for simulators. The second opening was refused, because only the parity differed."""
    master, slave = pty.openpty()
    device = driver("bus", Settings(transport="rtu", serial_port=os.ttyname(slave), parity="odd"), [group(1)])
    for _ in range(3):
        await device.connect()
        await device.close()
    os.close(slave)
    os.close(master)


def test_frames_are_kept_apart_by_three_and_a_half_characters() -> None:
    assert Serial(9600, "even", 1).frame_gap_s == pytest.approx(0.00401, rel=0.01)
    assert Serial(115200, "even", 1).frame_gap_s == 0.00175


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"transport": "rtu", "host": "10.0.0.5", "serial_port": "/dev/ttyS0"}, "leave `host` out"),
        ({"transport": "rtu"}, "serial_port\n  Field required"),
        ({"transport": "udp"}, "host\n  Field required"),
        ({"host": "10.0.0.5", "serial_port": "/dev/ttyS0"}, "`transport: tcp` has no serial_port; leave it out"),
        ({"transport": "rtu", "serial_port": "/dev/ttyS0", "client": "pymodbus"}, "leave `client` out"),
        ({"transport": "udp", "host": "a", "client": "lean", "in_flight_max": 2}, "`transport: tcp`"),
        ({"host": "10.0.0.5", "preset": "vax"}, "there is no preset 'vax'; known are eastron-sdm630, generic-slow"),
        ({"transport": "rtu", "serial_port": "/dev/ttyS0", "baudrate": 9601}, "baudrate"),
    ],
)
def test_what_contradicts_itself_is_told(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(given)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", presets())
def test_each_preset_is_valid_and_only_fills_in(name: str) -> None:
    filled = Settings.model_validate({"host": "10.0.0.5", "preset": name})
    for key, value in presets()[name].items():
        assert getattr(filled, key) == value
    assert Settings.model_validate({"host": "10.0.0.5", "preset": name, "order": "BADC"}).order == "BADC"
