"""The Modbus driver against real servers: a well-behaved one, and everything that a bad one can do.

The time-outs of devices that fall silent are 50 ms; no test asserts how long anything took.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from protocols.field.contract import DeviceAway, DeviceTimeout, Group, Quality, Scan, Value
from protocols.field.modbus import Settings, TagSettings, driver, tag
from protocols.field.modbus_codec import RegisterDecoder
from protocols.field.modbus_driver import ModbusDriver
from protocols.field.modbus_line_lean import LeanLine
from protocols.field.modbus_line_pymodbus import PymodbusLine
from protocols.field.modbus_plan import RETRY_EVERY
from tests.support.modbus_servers import HOST, Asked, Exchange, Plc, Script, Unit, plc, scripted
from tests.support.sockets import open_sockets


@dataclass(frozen=True)
class Device:
    """A driver with its only group."""

    driver: ModbusDriver
    group: Group

    async def connect(self) -> None:
        await self.driver.connect()

    async def scan(self) -> Scan:
        (scan,) = await self.driver.read(self.group)
        return scan

    async def values(self) -> list[Value]:
        """Of a scan in which all is good."""
        scan = await self.scan()
        assert scan.quality is None, scan.reasons
        return list(scan.values)


NewDevice = Callable[..., Device]


@pytest.fixture(params=["pymodbus", "lean"])
async def new_device(request: pytest.FixtureRequest) -> AsyncIterator[NewDevice]:
    """Makes devices, and closes them. Every test that uses it runs over both clients."""
    made: list[Device] = []

    def make(port: int, *tags: TagSettings, timeout_s: float = 5.0, **settings: object) -> Device:
        group = Group("plc-1", "all", 1.0, tuple(map(tag, tags)))
        given = {"host": HOST, "port": port, "timeout_s": timeout_s, "client": request.param, **settings}
        chosen = Settings.model_validate(given)
        made.append(Device(driver("plc-1", chosen, [group]), group))
        return made[-1]

    yield make
    for device in made:
        await device.driver.close()


async def settle() -> None:
    """Lets the loop see what has arrived: between two sockets of one machine, everything that was sent."""
    for _ in range(5):
        await asyncio.sleep(0)


def registers(*addresses: int, **keys: object) -> list[TagSettings]:
    return [
        TagSettings.model_validate({"name": f"r{address}", "address": f"holding:{address}", **keys})
        for address in addresses
    ]


def filled(*addresses: int) -> Unit:
    """Holding registers that hold their own address."""
    return Unit(holding={address: address for address in addresses})


class TestWellBehaved:
    async def test_a_thousand_tags_take_as_few_requests_as_planned(self, new_device: NewDevice) -> None:
        unit = Unit()
        tags: list[TagSettings] = []
        expected: list[Value] = []
        address = 0
        for machine in range(12):
            floats = 42 if machine < 8 else 41
            for number in range(125 - floats):
                is_float = number < floats
                size, kind = (2, "float32") if is_float else (1, "int16")
                value = address / 2 if is_float else -address
                unit.put("holding", address, struct.pack(">f" if is_float else ">h", value))
                tags += registers(address, type=kind)
                expected.append(value)
                address += size
        assert (len(tags), address) == (1000, 1500)
        async with plc({1: unit}) as server:
            device = new_device(server.port, *tags)
            await device.connect()
            assert await device.values() == expected
            assert device.driver.requests == len(server.asked) == 12
            assert {(asked.function, asked.count) for asked in server.asked} == {(3, 125)}

    async def test_settings_bound_the_requests(self, new_device: NewDevice) -> None:
        async with plc({3: filled(*range(40))}) as server:
            device = new_device(server.port, *registers(0, 5, 19, 39), unit_id=3, max_registers=20, max_gap=4)
            await device.connect()
            assert await device.values() == [0, 5, 19, 39]
            assert server.asked == [Asked(3, 3, 0, 6), Asked(3, 3, 19, 1), Asked(3, 3, 39, 1)]

    async def test_the_device_order_holds_for_tags_without_their_own(self, new_device: NewDevice) -> None:
        unit = Unit()
        unit.put("holding", 0, bytes.fromhex("E97942F6") + bytes.fromhex("42F6E979"))
        tags = [*registers(0, type="float32"), *registers(2, type="float32", order="ABCD")]
        async with plc({1: unit}) as server:
            device = new_device(server.port, *tags, order="CDAB")
            await device.connect()
            assert await device.values() == [pytest.approx(123.456, rel=1e-7)] * 2

    async def test_values_are_read_anew_each_time(self, new_device: NewDevice) -> None:
        unit = filled(0)
        async with plc({1: unit}) as server:
            device = new_device(server.port, *registers(0))
            await device.connect()
            for value in (1, 2, 65535):
                unit.holding[0] = value
                assert await device.values() == [value]

    async def test_the_time_is_that_of_the_answer_in_whole_milliseconds(self, new_device: NewDevice) -> None:
        async with plc({1: filled(0)}) as server:
            device = new_device(server.port, *registers(0))
            await device.connect()
            before = time.time_ns() // 1_000_000
            scan = await device.scan()
            assert scan.time_us % 1000 == 0
            assert before <= scan.time_us // 1000 <= time.time_ns() // 1_000_000

    async def test_a_group_without_tags_asks_nothing(self, new_device: NewDevice) -> None:
        async with plc({1: filled(0)}) as server:
            device = new_device(server.port)
            await device.connect()
            assert await device.values() == []
            assert device.driver.requests == 0

    async def test_nothing_is_logged(self, new_device: NewDevice, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        async with plc({1: filled(0)}) as server:
            device = new_device(server.port, *registers(0))
            await device.connect()
            await server.cut()
            with pytest.raises(DeviceAway):
                await device.scan()
        assert [record.name for record in caplog.records if record.name.startswith(("pymodbus", "asyncio"))] == []


class TestRefusals:
    async def test_a_hole_costs_only_the_tags_in_it(self, new_device: NewDevice) -> None:
        exists = [address for address in range(60) if address not in (30, 31)]
        async with plc({1: filled(*exists)}) as server:
            device = new_device(server.port, *registers(*range(60)))
            await device.connect()
            for _ in range(3):
                scan = await device.scan()
                assert [index for index, value in enumerate(scan.values) if value is None] == [30, 31]
                assert [value for value in scan.values if value is not None] == exists
                assert scan.quality is not None
                assert {index: scan.quality[index] for index in (29, 30, 31, 32)} == {
                    29: Quality.GOOD,
                    30: Quality.BAD_OUT_OF_RANGE,
                    31: Quality.BAD_OUT_OF_RANGE,
                    32: Quality.GOOD,
                }
            assert scan.reasons == {
                30: "holding 30 (40031): the PLC answered exception 2, illegal data address; "
                "check the address and whether this PLC counts from 0 or 1",
                31: "holding 31 (40032): the PLC answered exception 2, illegal data address; "
                "check the address and whether this PLC counts from 0 or 1",
            }
            before = len(server.asked)
            await device.scan()
            asked = {(asked.address, asked.count) for asked in server.asked[before:]}
            assert (30, 1) not in asked and (31, 1) not in asked
            assert len(asked) < 12

    async def test_a_gap_that_does_not_exist_costs_no_tag(self, new_device: NewDevice) -> None:
        async with plc({1: filled(0, 1, 8, 9)}) as server:
            device = new_device(server.port, *registers(0, 1, 8, 9))
            await device.connect()
            assert await device.values() == [0, 1, 8, 9]
            assert await device.values() == [0, 1, 8, 9]
            assert [(asked.address, asked.count) for asked in server.asked] == [(0, 10), (0, 2), (8, 2), (0, 2), (8, 2)]

    async def test_what_the_device_learns_to_serve_is_found_again(self, new_device: NewDevice) -> None:
        async with plc({1: filled(*range(8))}) as server:
            device = new_device(server.port, *registers(*range(8)))
            server.refuse = lambda asked: 2 if asked.address <= 3 < asked.address + asked.count else 0
            await device.connect()
            assert (await device.scan()).values[2:5] == [2, None, 4]
            server.refuse = lambda asked: 0
            assert (await device.scan()).values[2:5] == [2, None, 4]
            await device.connect()
            assert await device.values() == list(range(8))
            for _ in range(4 * RETRY_EVERY):
                assert await device.values() == list(range(8))
            before = device.driver.requests
            assert await device.values() == list(range(8))
            assert device.driver.requests == before + 1, "the divided block is whole again"

    @pytest.mark.parametrize(
        ("code", "quality", "words"),
        [
            (1, Quality.BAD_NOT_SUPPORTED, "illegal function"),
            (2, Quality.BAD_OUT_OF_RANGE, "illegal data address"),
            (3, Quality.BAD_OUT_OF_RANGE, "illegal data value"),
            (4, Quality.BAD_DEVICE_FAILURE, "server device failure"),
            (5, Quality.BAD_COMMUNICATION, "acknowledge"),
            (6, Quality.BAD_COMMUNICATION, "server device busy"),
            (8, Quality.BAD_DEVICE_FAILURE, "memory parity error"),
            (99, Quality.BAD_COMMUNICATION, "which the standard does not know"),
        ],
    )
    async def test_an_exception_makes_its_block_bad_and_no_other(
        self, new_device: NewDevice, code: int, quality: int, words: str
    ) -> None:
        async with plc({1: filled(0, 1, 100), 2: filled(0)}) as server:
            server.refuse = lambda asked: code if asked.address < 50 and asked.unit_id == 1 else 0
            device = new_device(server.port, *registers(0, 1, 100), *registers(0, unit_id=2))
            await device.connect()
            for _ in range(2):
                scan = await device.scan()
                assert scan.values == [None, None, 100, 0]
                assert scan.quality == [quality, quality, Quality.GOOD, Quality.GOOD]
                assert set(scan.reasons) == {0, 1}
                assert f"the PLC answered exception {code}, {words};" in scan.reasons[0]
            server.refuse = lambda asked: 0
            await device.connect()
            assert await device.values() == [0, 1, 100, 0]

    async def test_a_reason_names_the_unit_where_it_is_the_tags_own(self, new_device: NewDevice) -> None:
        async with plc({1: filled(0), 2: filled(0)}) as server:
            server.refuse = lambda asked: 4 if asked.unit_id == 2 else 0
            device = new_device(server.port, *registers(0), *registers(0, unit_id=2))
            await device.connect()
            reason = (await device.scan()).reasons[1]
            assert reason.startswith("unit 2, holding 0 (40001): the PLC answered exception 4")

    async def test_no_number_is_no_value(self, new_device: NewDevice) -> None:
        unit = Unit()
        unit.put("holding", 0, struct.pack(">fff", float("nan"), 1.5, float("-inf")))
        async with plc({1: unit}) as server:
            device = new_device(server.port, *registers(0, 2, 4, type="float32"))
            await device.connect()
            scan = await device.scan()
            assert scan.values == [None, 1.5, None]
            assert scan.quality == [Quality.BAD_OUT_OF_RANGE, Quality.GOOD, Quality.BAD_OUT_OF_RANGE]
            assert scan.reasons[0].startswith(
                "holding 0–1 (40001–40002): the device sent NaN (not a number) as float32"
            )
            assert "infinity" in scan.reasons[2]


CONTENT = struct.pack(">HH", 111, 222)


async def well(exchange: Exchange) -> None:
    await exchange.send(exchange.answer(CONTENT))


def sends(make: Callable[[Exchange], bytes]) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.send(make(exchange))

    return script


async def closes(exchange: Exchange) -> None:
    exchange.writer.close()


async def resets(exchange: Exchange) -> None:
    exchange.writer.transport.abort()


async def in_single_bytes(exchange: Exchange) -> None:
    for byte in exchange.answer(CONTENT, unit_id=2) * 3:
        await exchange.send(bytes([byte]))
        await asyncio.sleep(0)


async def closes_in_the_middle(exchange: Exchange) -> None:
    await exchange.send(exchange.answer(CONTENT)[:10])
    exchange.writer.close()


async def silent(exchange: Exchange) -> None:
    del exchange


# What a device may do instead of answering well. After each the driver must have raised, and must be usable again.
# Only where nothing more may follow than what has come must it wait for its time-out.
MISBEHAVIOURS: dict[str, Script] = {
    "the next transaction id": sends(lambda e: e.answer(CONTENT, transaction=int.from_bytes(e.request[:2], "big") + 1)),
    "transaction id 0": sends(lambda e: e.answer(CONTENT, transaction=0)),
    "another protocol id": sends(lambda e: e.answer(CONTENT, protocol=1)),
    "another unit id": sends(lambda e: e.answer(CONTENT, unit_id=2)),
    "unit id 0": sends(lambda e: e.answer(CONTENT, unit_id=0)),
    "input instead of holding registers": sends(lambda e: e.answer(CONTENT, function=4)),
    "coils instead of registers": sends(lambda e: e.answer(CONTENT, function=1)),
    "a function that nobody knows": sends(lambda e: e.answer(CONTENT, function=99)),
    "a function with sub-functions": sends(lambda e: e.answer(CONTENT, function=43)),
    "an exception of another function": sends(lambda e: e.answer(CONTENT, function=0x84)),
    "function 0x80": sends(lambda e: e.answer(CONTENT, function=0x80)),
    "one register too few": sends(lambda e: e.answer(CONTENT[:2])),
    "one byte too few": sends(lambda e: e.answer(CONTENT[:3])),
    "one register too many": sends(lambda e: e.answer(CONTENT + b"\0\1")),
    "nothing in it": sends(lambda e: e.answer(b"")),
    "byte count 0": sends(lambda e: e.answer(CONTENT, byte_count=0)),
    "byte count too small": sends(lambda e: e.answer(CONTENT, byte_count=3)),
    "byte count too great": sends(lambda e: e.answer(CONTENT, byte_count=250)),
    "length too small": sends(lambda e: e.answer(CONTENT, length=5)),
    "length too great": sends(lambda e: e.answer(CONTENT, length=9)),
    "length 0": sends(lambda e: e.answer(CONTENT, length=0)),
    "the answer twice at once": sends(lambda e: 2 * e.answer(CONTENT)),
    "a byte before the answer": sends(lambda e: b"\0" + e.answer(CONTENT)),
    "a byte after the answer": sends(lambda e: e.answer(CONTENT) + b"\0"),
    "an exception that is too long": sends(lambda e: e.exception(2) + b"\0"),
    "its own question": sends(lambda e: e.request),
    "a line of text": sends(lambda e: b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "zeros": sends(lambda e: bytes(60)),
    "0xFF": sends(lambda e: b"\xff" * 60),
    "a flood": sends(lambda e: e.answer(CONTENT) * 1000),
    "a wrong answer in single bytes": in_single_bytes,
    "one byte": sends(lambda e: b"\0"),
    "half an answer": sends(lambda e: e.answer(CONTENT)[:10]),
    "nothing": silent,
    "the end of the connection": closes,
    "a reset": resets,
    "half an answer and the end": closes_in_the_middle,
}


HANG_S = 20  # well below the driver's own 60 s: whoever waits for those, hangs
WAITS = {"a flood", "one byte", "half an answer", "nothing"}  # pymodbus throws a flood away unseen


class TestMisbehaved:
    @pytest.mark.parametrize("name", MISBEHAVIOURS)
    async def test_never_a_wrong_value_and_the_next_connection_works(self, new_device: NewDevice, name: str) -> None:
        thrown: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: thrown.append(context))
        async with scripted(MISBEHAVIOURS[name]) as server:
            device = new_device(server.port, *registers(0, 1), timeout_s=0.05 if name in WAITS else 60.0)
            await device.connect()
            with pytest.raises(DeviceAway) as caught:
                async with asyncio.timeout(HANG_S):
                    await device.scan()
            message = str(caught.value)
            assert message.startswith(f"plc-1 (modbus {HOST}:{server.port}, unit 1): ")
            assert message.endswith(".") and ";" in message and "\n" not in message
            with pytest.raises(DeviceAway, match="connect first"):
                await device.scan()
            server.script = well
            await device.connect()
            assert await device.values() == [111, 222]
            assert server.connections == 2
        assert thrown == []

    async def test_a_silent_device_is_a_timeout(self, new_device: NewDevice) -> None:
        async with scripted(silent) as server:
            device = new_device(server.port, *registers(0, 1), timeout_s=0.05)
            await device.connect()
            with pytest.raises(DeviceTimeout) as caught:
                await device.scan()
            assert str(caught.value) == (
                f"plc-1 (modbus 127.0.0.1:{server.port}, unit 1): no answer within 0.05 s; "
                "check the unit id, and that the PLC is in RUN."
            )
            assert caught.value.quality == Quality.BAD_TIMEOUT
            assert (device.driver.requests, server.requests) == (1, 1), "asked once, not again and again"

    async def test_a_wrong_answer_is_told_in_words(self, new_device: NewDevice) -> None:
        async with scripted(MISBEHAVIOURS["another unit id"]) as server:
            device = new_device(server.port, *registers(0, 1))
            await device.connect()
            with pytest.raises(DeviceAway, match="it answered as unit 2; check the unit id"):
                await device.scan()

    async def test_an_answer_in_single_bytes_is_an_answer(self, new_device: NewDevice) -> None:
        async def slowly(exchange: Exchange) -> None:
            for byte in exchange.answer(CONTENT):
                await exchange.send(bytes([byte]))
                await asyncio.sleep(0)

        async with scripted(slowly) as server:
            device = new_device(server.port, *registers(0, 1))
            await device.connect()
            assert await device.values() == [111, 222]

    @pytest.mark.parametrize("length", [2, 3])
    async def test_an_exception_may_count_its_length_wrongly(self, new_device: NewDevice, length: int) -> None:
        async with scripted(sends(lambda e: e.exception(6, length))) as server:
            device = new_device(server.port, *registers(0))
            await device.connect()
            for _ in range(2):
                assert (await device.scan()).quality == [Quality.BAD_COMMUNICATION]
            assert server.connections == 1

    async def test_an_answer_before_the_question_is_refused(self, new_device: NewDevice) -> None:
        """As from a gateway that passes on, to the new connection, what came too late for the old one."""
        async with scripted(well) as server:
            server.greeting = struct.pack(">HHHBBB", 1, 0, 7, 1, 3, 4) + struct.pack(">HH", 9, 9)
            device = new_device(server.port, *registers(0, 1))
            await device.connect()
            await server.greeted.wait()
            await settle()
            with pytest.raises(DeviceAway, match="an answer that nobody asked for"):
                await device.scan()
            server.greeting = b""
            await device.connect()
            assert await device.values() == [111, 222]


class TestLateAnswers:
    async def test_a_late_answer_is_never_taken_for_the_next_one(self, new_device: NewDevice) -> None:
        """The device answers the first question on the old connection when the second has been asked on the new one."""
        late: list[Callable[[], Awaitable[None]]] = []

        async def script(exchange: Exchange) -> None:
            if exchange.number == 0:
                late.append(lambda: exchange.send(exchange.answer(struct.pack(">H", 13))))
                return
            await late[0]()
            await exchange.send(exchange.answer(struct.pack(">H", 42)))

        async with scripted(script) as server:
            device = new_device(server.port, *registers(0), timeout_s=0.05)
            await device.connect()
            with pytest.raises(DeviceTimeout):
                await device.scan()
            await device.connect()
            assert await device.values() == [42]
            assert server.connections == 2

    async def test_nor_when_a_gateway_passes_it_on_to_the_new_connection(self, new_device: NewDevice) -> None:
        """Transaction ids go on counting over connections: otherwise this answer would fit the new question."""
        kept: list[bytes] = []

        async def script(exchange: Exchange) -> None:
            if exchange.number == 0:
                kept.append(exchange.answer(struct.pack(">H", 13)))
            elif exchange.number == 1:
                await exchange.send(kept[0])
            else:
                await exchange.send(exchange.answer(struct.pack(">H", 42)))

        async with scripted(script) as server:
            device = new_device(server.port, *registers(0), timeout_s=0.05)
            await device.connect()
            with pytest.raises(DeviceTimeout):
                await device.scan()
            await device.connect()
            with pytest.raises(DeviceAway, match=r"it answered transaction \d+ instead of \d+"):
                await device.scan()
            await device.connect()
            assert await device.values() == [42]

    async def test_nor_after_a_cancelled_read(self, new_device: NewDevice) -> None:
        asked = asyncio.Event()

        async def script(exchange: Exchange) -> None:
            asked.set()
            if exchange.number > 0:
                await exchange.send(exchange.answer(struct.pack(">H", 42)))

        async with scripted(script) as server:
            device = new_device(server.port, *registers(0))
            await device.connect()
            task = asyncio.create_task(device.scan())
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await device.values() == [42]
            assert server.connections == 2


class TestConnecting:
    async def test_a_port_where_nobody_listens(self, new_device: NewDevice) -> None:
        server = Plc({1: filled(0)})
        await server.start()
        await server.cut()
        device = new_device(server.port, *registers(0))
        with pytest.raises(DeviceAway) as caught:
            await device.connect()
        assert str(caught.value) == (
            f"plc-1 (modbus 127.0.0.1:{server.port}, unit 1): the connection was refused; "
            "check the address and the port, and that Modbus TCP is enabled."
        )
        await server.start()
        await device.connect()
        assert await device.values() == [0]
        await server.cut()

    @pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70])
    async def test_a_host_that_does_not_exist(self, new_device: NewDevice, host: str) -> None:
        device = new_device(502, *registers(0), host=host)
        with pytest.raises(DeviceAway, match=rf"plc-1 \(modbus {host}:502, unit 1\): (this host name|no connection)"):
            await device.connect()

    async def test_a_connection_that_the_device_closes_between_two_reads(self, new_device: NewDevice) -> None:
        async with scripted(well) as server:
            device = new_device(server.port, *registers(0, 1))
            await device.connect()
            assert await device.values() == [111, 222]
            await server.stop()
            await settle()
            with pytest.raises(DeviceAway, match="it closed the connection"):
                await device.scan()
            await device.connect()
            assert await device.values() == [111, 222]

    async def test_a_lost_line_is_noticed_even_when_there_is_nothing_to_ask(self, new_device: NewDevice) -> None:
        """All that was asked for was refused and rests."""
        async with plc({1: filled(9)}) as server:
            device = new_device(server.port, *registers(0))
            await device.connect()
            for _ in range(2):
                assert (await device.scan()).quality == [Quality.BAD_OUT_OF_RANGE]
            assert device.driver.requests == 1
            await server.cut()
            await settle()
            with pytest.raises(DeviceAway, match="it closed the connection"):
                await device.scan()

    async def test_a_second_fault_while_the_first_one_ends_the_exchange(self, new_device: NewDevice) -> None:
        """Timed to the turn of the loop between the deadline and the task that it wakes."""
        asked = asyncio.Event()

        async def script(exchange: Exchange) -> None:
            del exchange
            asked.set()

        async with scripted(script) as server:
            device = new_device(server.port, *registers(0))
            await device.connect()
            line = device.driver._endpoint._line
            assert isinstance(line, LeanLine | PymodbusLine)
            reading = asyncio.create_task(device.scan())
            await asked.wait()
            line._give_up("the first")
            await asyncio.sleep(0)
            line._give_up("the second")
            with pytest.raises(DeviceAway, match="the first"):
                await reading

    async def test_the_socket_is_closed_when_close_returns(self, new_device: NewDevice) -> None:
        async with scripted(well) as server:
            device = new_device(server.port, *registers(0, 1))
            await device.connect()
            assert await device.values() == [111, 222]
            before = open_sockets()
            await device.driver.close()
            assert open_sockets() < before


def test_a_tag_too_large_for_a_request_is_refused_at_once() -> None:
    group = Group("plc-1", "all", 1.0, (tag(TagSettings(name="total", address=40001, type="uint64")),))
    with pytest.raises(
        ValueError, match=r"plc-1 \(modbus 10\.0\.0\.5:502, unit 1\): a tag of 4 registers does not fit"
    ):
        driver("plc-1", Settings(host="10.0.0.5", max_registers=3), [group])


async def test_what_values_mean(new_device: NewDevice) -> None:
    unit = Unit(holding={0: 1, 1: 0x8000, 2: 300, 3: 65_530, 4: 9, 5: 0x12AF, 6: 0b1010})
    tags = [
        TagSettings(name="mode", address="holding:0", states={0: "off", 1: "auto"}),
        TagSettings(name="sensor", address="holding:1", type="int16", scale=0.1, unavailable=[0x8000]),
        TagSettings(name="level", address="holding:2", clamp_max=100),
        TagSettings(name="pieces", address="holding:3", counter_step_max=100),
        TagSettings(name="odd", address="holding:4", states={0: "off"}),
        TagSettings(name="meter", address="holding:5", type="bcd16"),
        TagSettings(name="alarms", address="holding:6", flags={1: "hot", 3: "full"}),
    ]
    async with plc({1: unit}) as server:
        device = new_device(server.port, *tags)
        await device.connect()
        scan = await device.scan()
        assert list(scan.values) == ["auto", None, 100, 65_530, None, None, "hot, full"]
        out_of_range = Quality.BAD_OUT_OF_RANGE
        assert scan.quality == [0, out_of_range, Quality.UNCERTAIN, 0, out_of_range, out_of_range, 0]
        assert scan.reasons == {
            1: "holding 1 (40002): the device sent -32768, which means that it has no value",
            2: "holding 2 (40003): the device sent 300, above clamp_max 100",
            4: "holding 4 (40005): the device sent 9, which `states` does not name",
            5: "holding 5 (40006): the device sent 0x12AF, which is no BCD number",
        }
        unit.holding.update({3: 4, 0: 0})
        scan = await device.scan()
        assert (scan.values[0], scan.values[3]) == ("off", 65_540)


async def test_a_scans_time_is_the_moment_of_its_last_answer_not_of_its_decoding(
    new_device: NewDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two blocks: the time lies between the second answer and the first decoding, however long that takes."""
    answered_us, decoding_us = list[int](), list[int]()
    decode = RegisterDecoder.decode

    def answer(asked: Asked) -> int:
        time.sleep(0.003)  # scans have milliseconds
        answered_us.append(time.time_ns() // 1000)
        return 0

    def slow_decode(self: RegisterDecoder, content: bytes) -> Any:
        decoding_us.append(time.time_ns() // 1000)
        time.sleep(0.003)
        return decode(self, content)

    monkeypatch.setattr(RegisterDecoder, "decode", slow_decode)
    async with plc({1: Unit(holding={0: 1, 1000: 2})}) as server:
        server.refuse = answer
        device = new_device(server.port, *registers(0, 1000))
        await device.connect()
        scan = await device.scan()
    assert (len(answered_us), len(decoding_us)) == (2, 2)
    assert answered_us[1] // 1000 * 1000 <= scan.time_us <= decoding_us[0]
