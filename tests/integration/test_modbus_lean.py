"""What only the lean client can do: several requests in flight; and that devices are polled beside one another."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from agent.poller import Poller
from protocols.field.contract import DeviceAway, DeviceTimeout, Group, Scan
from protocols.field.modbus import Settings, TagSettings, driver, tag
from protocols.field.modbus_driver import ModbusDriver
from tests.support.modbus_servers import HOST, Exchange, Script, scripted

BLOCKS = 8


def group(device: str = "plc-1", blocks: int = BLOCKS) -> Group:
    """One tag in each of as many blocks: register 0, 1000, 2000 …"""
    tags = [tag(TagSettings(name=f"r{at}", address=f"holding:{1000 * at}")) for at in range(blocks)]
    return Group(device, "all", 0.05, tuple(tags))


def right(exchange: Exchange) -> bytes:
    """The answer in which each register holds a thousandth of its address."""
    (address,) = struct.unpack_from(">H", exchange.request, 8)
    return exchange.answer(struct.pack(">H", address // 1000))


@asynccontextmanager
async def device(port: int, in_flight_max: int = 1, timeout_s: float = 20.0) -> AsyncIterator[ModbusDriver]:
    settings = Settings(host=HOST, port=port, client="lean", in_flight_max=in_flight_max, timeout_s=timeout_s)
    made = driver("plc-1", settings, [group()])
    await made.connect()
    try:
        yield made
    finally:
        await made.close()


class Held:
    """A script that keeps answers back until as many requests are there as may be in flight, then turns them round."""

    def __init__(self, in_flight_max: int) -> None:
        self._in_flight_max = in_flight_max
        self._waiting: list[Exchange] = []
        self.seen = self.most = 0

    async def __call__(self, exchange: Exchange) -> None:
        self._waiting.append(exchange)
        self.seen += 1
        self.most = max(self.most, len(self._waiting))
        if len(self._waiting) == self._in_flight_max or self.seen == BLOCKS:
            waiting, self._waiting = self._waiting, []
            await exchange.send(b"".join(right(one) for one in reversed(waiting)))


async def test_by_default_one_request_at_a_time() -> None:
    script = Held(1)
    async with scripted(script) as server, device(server.port) as lean:
        (scan,) = await lean.read(group())
        assert scan.values == list(range(BLOCKS))
        assert (script.most, lean.requests) == (1, BLOCKS)


@pytest.mark.parametrize("in_flight_max", [2, 3, BLOCKS, 16])
async def test_as_many_in_flight_as_allowed_answered_in_any_order(in_flight_max: int) -> None:
    """With fewer in flight the server would wait for ever; more would show in what it saw."""
    script = Held(min(in_flight_max, BLOCKS))
    async with scripted(script) as server, device(server.port, in_flight_max) as lean:
        (scan,) = await lean.read(group())
        assert scan.values == list(range(BLOCKS))
        assert script.most == min(in_flight_max, BLOCKS)


WRONG: dict[str, Script] = {}


def wrong(script: Script) -> Script:
    WRONG[script.__name__] = script
    return script


@wrong
async def one_answer_twice(exchange: Exchange) -> None:
    await exchange.send(right(exchange) * 2)


@wrong
async def a_transaction_that_is_not_open(exchange: Exchange) -> None:
    await exchange.send(exchange.answer(b"\0\1", transaction=int.from_bytes(exchange.request[:2], "big") ^ 0x4000))


@wrong
async def another_length_than_its_question(exchange: Exchange) -> None:
    await exchange.send(exchange.answer(bytes(4)))


@wrong
async def too_much_behind_the_last_answer(exchange: Exchange) -> None:
    await exchange.send(right(exchange) + (b"\0" if exchange.number == BLOCKS - 1 else b""))


@pytest.mark.parametrize("name", WRONG)
async def test_with_several_in_flight_a_wrong_answer_is_as_wrong_as_with_one(name: str) -> None:
    async with scripted(WRONG[name]) as server, device(server.port, 4) as lean:
        with pytest.raises(DeviceAway):
            await lean.read(group())


async def test_with_several_in_flight_a_missing_answer_is_a_timeout() -> None:
    async def all_but_one(exchange: Exchange) -> None:
        if exchange.number != 2:
            await exchange.send(right(exchange))

    async with scripted(all_but_one) as server, device(server.port, 4, timeout_s=0.05) as lean:
        with pytest.raises(DeviceTimeout):
            await lean.read(group())


async def test_the_deadline_is_each_requests_own() -> None:
    """Eight answers that are each in time, and together take longer than the time-out."""

    async def slowly(exchange: Exchange) -> None:
        await asyncio.sleep(0.15)
        await exchange.send(right(exchange))

    async with scripted(slowly) as server, device(server.port, timeout_s=1.0) as lean:
        (scan,) = await lean.read(group())
        assert scan.values == list(range(BLOCKS))


async def test_eight_devices_are_polled_beside_one_another() -> None:
    """Each answers only when all eight have asked, eight times over: polled in turn, none would ever be answered."""
    devices = 8
    barrier = asyncio.Barrier(devices)

    async def together(exchange: Exchange) -> None:
        await barrier.wait()
        await exchange.send(right(exchange))

    scans: dict[str, Scan] = {}
    complete = asyncio.Event()

    def take(scan: Scan) -> None:
        scans.setdefault(scan.group.device, scan)
        if len(scans) == devices:
            complete.set()

    async with AsyncExitStack() as stack:
        pollers = []
        for number in range(devices):
            server = await stack.enter_async_context(scripted(together))
            polled = group(f"plc-{number}")
            settings = Settings(host=HOST, port=server.port, client="lean", timeout_s=30.0)
            pollers.append(Poller(polled.device, driver(polled.device, settings, [polled]), [polled], take))
        tasks = [asyncio.create_task(poller.run()) for poller in pollers]
        await complete.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert all(list(scan.values) == list(range(BLOCKS)) for scan in scans.values())


def test_only_the_lean_client_has_several_in_flight() -> None:
    with pytest.raises(ValueError, match="in_flight_max above 1 needs `client: lean`"):
        Settings(host=HOST, in_flight_max=2)
