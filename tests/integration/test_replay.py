"""What a misbehaving device did is recorded and served again: the driver sees the same readings and faults."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.capture.conversation import conversation
from agent.capture.recorder import Recorder
from agent.capture.records import Header, Packer, Record, joined
from agent.capture.replaying import Replay
from agent.capture.ring import read_file
from protocols.field.contract import FieldError, Group, Happening
from protocols.field.modbus import Settings, TagSettings, driver, tag
from protocols.field.modbus_driver import ModbusDriver
from protocols.field.modbus_frame import crc
from protocols.field.modbus_server import ModbusServer
from tests.support.modbus_servers import HOST, Exchange, Unit, plc, scripted
from tests.support.serving import serving
from tests.support.sockets import open_sockets
from tests.support.toolbox import Toolbox, configuration, modbus_device, toolbox, write

ADDRESSES = ("holding:0", "holding:1", "input:7", "coil:3", "holding:300")
GROUP = Group("plc", "main", 1.0, tuple(tag(TagSettings(name=f"t{at}", address=a)) for at, a in enumerate(ADDRESSES)))
ROUNDS = 12
CLIENTS = pytest.mark.parametrize("client", ["pymodbus", "lean"])


def device(port: int, **more: Any) -> ModbusDriver:
    settings = {"host": HOST, "port": port, "timeout_s": 0.3, **more}
    return driver("plc", Settings.model_validate(settings), [GROUP])


async def seen_by(plc: ModbusDriver, rounds: int = ROUNDS) -> list[Any]:
    """Values, qualities and reasons of each read, or the error in its place; the port left out of the sentences."""
    seen: list[Any] = []
    for _ in range(rounds):
        try:
            if not plc._is_connected:
                await plc.connect()
            (scan,) = await plc.read(GROUP)
            seen.append((list(scan.values), scan.quality, sorted(set(scan.reasons.values()))))
        except FieldError as error:
            seen.append((type(error).__name__, str(error)))
    await plc.close()
    return [re.sub(rf"{HOST}:\d+|transaction \d+ instead of \d+", "…", str(one)) for one in seen]


@asynccontextmanager
async def recording(plc: ModbusDriver, path: Path, transport: str = "tcp") -> AsyncIterator[None]:
    recorder = Recorder(path, Header(transport, "10.0.0.5:502", "holdfast 1", "now", {"name": "plc"}), 1 << 20)
    await recorder.open()
    writing = asyncio.create_task(recorder.run(), name="capture")
    plc.listen(recorder.tap)
    try:
        yield
    finally:
        plc.listen(None)
        writing.cancel()
        await asyncio.wait([writing])


@asynccontextmanager
async def replayed(path: Path, speed: float = 0) -> AsyncIterator[ModbusServer]:
    capture = read_file(path)
    transport: Any = capture.header.transport
    found = conversation(joined(capture.records), transport)
    replay = Replay(found, transport, speed)
    server = ModbusServer(transport, replay.answer, replay.greet)
    await server.start(HOST, 0)
    try:
        yield server
    finally:
        await server.stop()


async def misbehave(exchange: Exchange) -> None:
    """Something else at each request, and an answer that no other request had."""
    content = (b"%04d" % exchange.number)[-exchange.size :].rjust(exchange.size, b"\1")
    answer = exchange.answer(content)
    match exchange.number % 13:
        case 3:
            await exchange.send(exchange.exception(2 + exchange.number % 3))
        case 5:
            for part in (answer[:3], answer[3:]):
                await exchange.send(part)
                await asyncio.sleep(0.02)
        case 6:
            await exchange.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        case 7:
            pass  # silence
        case 8:
            await exchange.send(answer[:-1])
            exchange.writer.transport.close()
        case 9:
            exchange.writer.transport.abort()
        case 10:
            await exchange.send(exchange.answer(content, transaction=7))
        case 11:
            await exchange.send(answer + answer)
        case 12:
            await exchange.send(exchange.answer(content, function=6))
        case _:
            await exchange.send(answer)


@CLIENTS
async def test_the_driver_sees_the_same_of_the_replay(client: str, tmp_path: Path) -> None:
    path = tmp_path / "a.hfcap"
    async with scripted(misbehave) as server:
        plc = device(server.port, client=client)
        async with recording(plc, path):
            seen = await seen_by(plc)
    assert len(set(seen)) > 7, "most reads met something else"
    async with replayed(path) as served:
        assert await seen_by(device(served.port, client=client)) == seen
        assert await seen_by(device(served.port, client=client)) == seen, "and again from the beginning"


async def test_what_one_client_recorded_the_other_meets(tmp_path: Path) -> None:
    path = tmp_path / "a.hfcap"
    async with scripted(misbehave) as server:
        plc = device(server.port, client="lean")
        async with recording(plc, path):
            seen = await seen_by(plc, 4)
    async with replayed(path) as served:
        assert await seen_by(device(served.port, client="pymodbus"), 4) == seen


async def test_several_requests_at_once_get_their_own_answers(tmp_path: Path) -> None:
    path, held = tmp_path / "a.hfcap", list[Exchange]()

    async def later(exchange: Exchange) -> None:
        held.append(exchange)
        if len(held) == 2:
            for one in reversed(held):  # the last first
                await one.send(one.answer((b"%04d" % one.number)[-one.size :].rjust(one.size, b"\1")))
            held.clear()

    async with scripted(later) as server:
        plc = device(server.port, client="lean", in_flight_max=2, max_gap=0)
        async with recording(plc, path):
            seen = await seen_by(plc, 3)
    assert not any("Device" in one for one in seen), seen
    async with replayed(path) as served:
        assert await seen_by(device(served.port, client="lean", in_flight_max=2, max_gap=0), 3) == seen


@pytest.mark.parametrize("speed", [1, 0])
async def test_a_device_that_was_away_is_away_again(tmp_path: Path, speed: float) -> None:
    path = tmp_path / "a.hfcap"
    async with plc({1: Unit(holding=dict.fromkeys(range(400), 1))}) as server:
        gone = device(server.port)
        async with recording(gone, path):
            await gone.connect()
            await gone.read(GROUP)
            await server.cut()
            seen = await seen_by(gone, 3)
            await server.start()
            seen += await seen_by(gone, 1)
    assert "refused" in seen[1]
    found = conversation(joined(read_file(path).records), "tcp")
    assert [one.away_us > 0 for several in found.exchanges.values() for one in several].count(True) == 1
    async with replayed(path, speed) as served:
        again = device(served.port)
        await again.connect()
        await again.read(GROUP)
        assert "DeviceAway" in (await seen_by(again, 1))[0]
        for _ in range(200):  # it comes back
            if "DeviceAway" not in (back := (await seen_by(again, 1))[0]):
                break
            await asyncio.sleep(0.02)
        assert back == seen[-1]


async def test_serial_frames_over_tcp(tmp_path: Path) -> None:
    path, count = tmp_path / "a.hfcap", 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        while len(frame := await reader.read(8)) == 8:
            count += 1
            size = (frame[5] + 7) // 8 if frame[1] < 3 else 2 * frame[5]
            body = bytes([frame[0], frame[1], size, *([count] * size)])
            check = crc(body) if count != 6 else b"\0\0"
            if count != 9:
                writer.write(body + check)
        writer.close()

    listener = await asyncio.start_server(serve, HOST, 0)
    port = listener.sockets[0].getsockname()[1]
    plc = device(port, transport="rtu_over_tcp", timeout_s=0.1)
    async with recording(plc, path, "rtu_over_tcp"):
        seen = await seen_by(plc, 4)
    listener.close()
    await listener.wait_closed()
    assert any("checksum" in one for one in seen)
    async with replayed(path) as served:
        assert await seen_by(device(served.port, transport="rtu_over_tcp", timeout_s=0.1), 4) == seen


async def test_datagrams(tmp_path: Path) -> None:
    path = tmp_path / "a.hfcap"

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport, self.count = transport, 0

        def datagram_received(self, data: bytes, address: Any) -> None:
            self.count += 1
            size = (data[11] + 7) // 8 if data[7] < 3 else 2 * data[11]
            if self.count != 5:
                head = data[:4] + (size + 3).to_bytes(2, "big") + data[6:8] + bytes([size])
                self.transport.sendto(head + bytes([self.count]) * size, address)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=(HOST, 0))
    plc = device(transport.get_extra_info("sockname")[1], transport="udp", timeout_s=0.1)
    async with recording(plc, path, "udp"):
        seen = await seen_by(plc, 3)
    transport.close()
    async with replayed(path) as served:
        assert await seen_by(device(served.port, transport="udp", timeout_s=0.1), 3) == seen


async def test_what_was_never_asked_is_composed_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.hfcap"
    async with plc({1: Unit(holding={at: 100 + at for at in range(400)}, coil=dict.fromkeys(range(16), True))}) as real:
        whole = device(real.port)
        async with recording(whole, path):
            await seen_by(whole, 1)
    before = open_sockets()
    async with replayed(path) as served:
        parts = [TagSettings(name="known", address="holding:1"), TagSettings(name="unknown", address="holding:2")]
        coil, other = (
            TagSettings(name="coil", address="coil:3"),
            TagSettings(name="other", address="holding:0", unit_id=9),
        )
        group = Group("plc", "main", 1.0, tuple(map(tag, [*parts, coil, other])))
        asks = driver("plc", Settings(host=HOST, port=served.port, max_gap=0), [group])
        await asks.connect()
        (scan,) = await asks.read(group)
        await asks.close()
    assert list(scan.values) == [101, None, True, None]
    assert all("exception 2" in reason for reason in scan.reasons.values())
    await asyncio.sleep(0)
    assert open_sockets() == before


@pytest.mark.parametrize("transport", ["tcp", "rtu_over_tcp"])
async def test_strangers_do_no_harm(transport: Any) -> None:
    replay = Replay(conversation([], transport), transport, 0)
    server = ModbusServer(transport, replay.answer, replay.greet)
    await server.start(HOST, 0)
    for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(5000), b"\xff" * 5000, bytes(range(256)) * 9):
        reader, writer = await asyncio.open_connection(HOST, server.port)
        writer.write(sent)
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()
    await server.stop()
    assert server.lines == set()


# --- the command ---


@pytest.fixture(scope="module")
def holdfast() -> Iterator[Toolbox]:
    with toolbox("agent.commands.replay", "agent.commands.replay_run") as prepared:
        yield prepared


def captured(path: Path, *records: Record) -> Path:
    packer = Packer()
    for record in records:
        packer.add(*record)
    header = Header("tcp", "10.0.0.5:502", "holdfast 1", "2026-11-28T03:00:00+00:00", {"name": "plc"})
    path.write_bytes(header.encode() + b"".join(one for _, one in packer.take()))
    return path


ASKED = bytes.fromhex("000100000006010300000001")
TOLD = bytes.fromhex("000100000005010302002a")


async def test_list_and_pcap(holdfast: Toolbox, tmp_path: Path) -> None:
    second = 1_000_000
    path = captured(
        tmp_path / "a.hfcap",
        Record(Happening.OPENED, 0, b""),
        Record(Happening.SENT, second, ASKED),
        Record(Happening.RECEIVED, 2 * second, TOLD),
        Record(Happening.LOST, 3 * second, b"it closed\x1b[2J the connection"),
    )
    said = await holdfast.run(tmp_path, "replay", str(path), "--list", TZ="UTC")
    assert said.out.splitlines() == [
        "00:00:00.000 · connected",
        "00:00:01.000 → 00 01 00 00 00 06 01 03 00 00 00 01",
        "00:00:02.000 ← 00 01 00 00 00 05 01 03 02 00 2a",
        "00:00:03.000 · lost: it closed\\x1b[2J the connection",
    ]
    said = await holdfast.run(tmp_path, "replay", str(path), "--list", "--json")
    assert said.json["records"][1] == {"time_us": second, "happening": "sent", "bytes": ASKED.hex()}
    said = await holdfast.run(tmp_path, "replay", str(path), "--pcap", "a.pcap")
    assert said.code == 0
    raw = (tmp_path / "a.pcap").read_bytes()
    assert raw[:4].hex() == "a1b2c3d4"
    assert ASKED in raw and TOLD in raw
    assert (await holdfast.run(tmp_path, "replay", str(path), "--pcap", "a.pcap")).code == 69


async def test_the_desk_reads_what_the_site_recorded(holdfast: Toolbox, tmp_path: Path) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(
            exchange.answer(bytes([0, 100 + exchange.number])) if exchange.number != 1 else b"nonsense!"
        )

    async with scripted(answer) as server:
        write(tmp_path, configuration(modbus_device("plc", server.port, {"name": "level", "address": 40001})))
        assert (await holdfast.run(tmp_path, "capture", "plc", "--for", "3", "--out", "a.hfcap")).code == 0
    async with serving(tmp_path, "replay", "a.hfcap", "--port", "0", "--speed", "0", "--write", "desk.yaml") as said:
        (row,) = said["serves"]
        assert (row["unit_id"], row["function"], row["ranges"]) == (1, 3, [[0, 0]])
        assert row["replies"]["answered"] == row["asked"] - 1
        assert "what it sent is not Modbus TCP" in row["faults_text"]
        first = await holdfast.run(tmp_path, "read", "plc", "--config", "desk.yaml", "--json")
        second = await holdfast.run(tmp_path, "read", "plc", "--config", "desk.yaml", "--json")
        other = await holdfast.run(tmp_path, "probe", f"127.0.0.1:{said['port']}", "holding:7", "--json")
        taken = await holdfast.run(tmp_path, "replay", "a.hfcap", "--port", str(said["port"]))
    assert [one["value"] for one in first.json["tags"]] == [100]
    assert "what it sent is not Modbus TCP" in second.flat
    assert (other.code, taken.code) == (69, 69)
    assert "exception 2" in other.flat
    assert "give another one with --port" in taken.flat


@pytest.mark.parametrize("content", [b"", b"x" * 9000, b'{"holdfast_capture": 9}\n'])
async def test_a_file_that_is_none_is_said(holdfast: Toolbox, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    said = await holdfast.run(tmp_path, "replay", "x")
    assert (said.code, "is no capture file that can be read" in said.flat) == (64, True)
    assert (await holdfast.run(tmp_path, "replay", "nothing")).code == 64
