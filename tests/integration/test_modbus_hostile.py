"""A hundred thousand replies that are not what was asked for: no wrong value, no leak, and never an end.

The server is in this process and on real sockets; the seed is fixed. What it does to each request is drawn by lot: most
replies are refusals or come in pieces, which a connection survives, some end it. A right reply holds a number that is
drawn anew for each request, so that no value can be right by accident or from another request.
"""

from __future__ import annotations

import asyncio
import gc
import random
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.poller import Poller
from protocols.field.contract import DeviceAway, Group, Quality, Scan
from protocols.field.modbus import Settings, TagSettings, driver, tag
from protocols.field.modbus_line_lean import LeanLine
from protocols.field.modbus_line_pymodbus import PymodbusLine
from tests.support.modbus_servers import HOST, Exchange, scripted
from tests.support.sockets import open_sockets

TAGS = 48
GROUP = Group(
    "plc-1", "all", 1.0, tuple(tag(TagSettings(name=f"r{at}", address=f"holding:{200 * at}")) for at in range(TAGS))
)
_HEAD = struct.Struct(">HHHBBB")
REFUSALS = [code for code in range(1, 256) if code not in (2, 3, 10, 11)]  # those change what is asked next


class Ask:
    """One request, and the parts of its reply, to be spoiled."""

    def __init__(self, frame: bytes, value: int) -> None:
        self.transaction, _, _, self.unit_id, self.function = struct.unpack_from(">HHHBB", frame)
        self.frame, self.value = frame, value

    def reply(self, *, value: int | None = None, shift: int = 0, **wrong: int) -> bytes:
        """With the right number unless another `value` is given; `shift` changes the transaction."""
        content = struct.pack(">H", self.value if value is None else value)
        parts = {"protocol": 0, "length": 5, "unit": self.unit_id, "function": self.function, "count": 2, **wrong}
        return _HEAD.pack((self.transaction + shift) & 0xFFFF, *parts.values()) + content


def other(chance: random.Random, than: int) -> int:
    """A number that must never be taken for a value."""
    return (than + chance.randrange(1, 65536)) & 0xFFFF


FATAL: dict[str, Callable[[Ask, random.Random], bytes]] = {
    "another transaction": lambda a, c: a.reply(value=other(c, a.value), shift=c.randrange(20_000, 40_000)),
    "another protocol": lambda a, c: a.reply(value=other(c, a.value), protocol=c.randrange(1, 65536)),
    "another unit": lambda a, c: a.reply(value=other(c, a.value), unit=other(c, a.unit_id) & 0xFF ^ 0x80 | 2),
    "another function": lambda a, c: a.reply(value=other(c, a.value), function=c.choice([1, 2, 4, 6, 16, 0x82, 0x90])),
    "another byte count": lambda a, c: a.reply(value=other(c, a.value), count=c.choice([0, 1, 3, 4, 250, 255])),
    "another length": lambda a, c: a.reply(value=other(c, a.value), length=c.choice([0, 1, 2, 3, 4, 6, 7, 255, 65535])),
    "twice, the second time otherwise": lambda a, c: a.reply() + a.reply(value=other(c, a.value)),
    "too long": lambda a, c: a.reply() + bytes(c.randrange(1, 30)),
    "noise": lambda a, c: c.randbytes(c.randrange(12, 80)),
    "its own question": lambda a, c: a.frame,
    "text": lambda a, c: b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


class Hostile(asyncio.Protocol):
    """One connection to the server. `fatal_in`: every how many requests, about, one ends the connection."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.world.connections += 1
        self.world.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self.world.open.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        out = []
        while len(self.buffer) >= 12:
            frame, self.buffer = self.buffer[:12], self.buffer[12:]
            reply = self.world.reply(frame)
            if reply is None:
                self.transport.close()
                return
            out.append(reply)
        whole = b"".join(out)
        cut = self.world.chance.randrange(len(whole) + 1)
        self.transport.write(whole[:cut])  # in two pieces, anywhere
        if cut < len(whole):
            asyncio.get_running_loop().call_soon(self.transport.write, whole[cut:])


class World:
    """What the server has done. `right`: address → the number of the last right reply, while it is the last."""

    def __init__(self, seed: int, fatal_in: int) -> None:
        self.chance = random.Random(seed)
        self.fatal_in = fatal_in
        self.right: dict[int, int] = {}
        self.did: Counter[str] = Counter()
        self.connections = 0
        self.open: set[Hostile] = set()

    @property
    def misbehaved(self) -> int:
        return self.did.total() - self.did["right"]

    def reply(self, frame: bytes) -> bytes | None:
        """None: the connection ends instead."""
        chance = self.chance
        (address,) = struct.unpack_from(">H", frame, 8)
        ask = Ask(frame, chance.randrange(65536))
        self.right.pop(address, None)
        drawn = chance.random()
        if drawn < 1 / self.fatal_in:
            kind = chance.choice([*FATAL, "the end"])
            self.did[kind] += 1
            return None if kind == "the end" else FATAL[kind](ask, chance)
        if drawn < 0.9:
            self.did["refused"] += 1
            length = chance.choice([3, 2])  # some forget to count the unit id
            return _HEAD.pack(ask.transaction, 0, length, ask.unit_id, ask.function | 0x80, chance.choice(REFUSALS))
        self.did["right"] += 1
        self.right[address] = ask.value
        return ask.reply()


@asynccontextmanager
async def hostile(world: World) -> AsyncIterator[int]:
    """A running server; yields its port."""
    listener = await asyncio.get_running_loop().create_server(lambda: Hostile(world), HOST, 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for connection in list(world.open):
            connection.transport.abort()
        await asyncio.sleep(0)


def check(scan: Scan, world: World) -> int:
    """How many values were good; each of them is the one that the server gave for this very request."""
    good = 0
    for index, value in enumerate(scan.values):
        if scan.quality is not None and scan.quality[index] != Quality.GOOD:
            assert value is None
            assert "the PLC answered exception" in scan.reasons[index]
        else:
            assert value == world.right.get(200 * index), "a value without a right reply"
            good += 1
    return good


@pytest.mark.parametrize(
    ("client", "replies", "in_flight_max", "fatal_in"), [("lean", 100_000, 16, 150), ("pymodbus", 3000, 1, 20)]
)
async def test_no_wrong_value_no_leak_no_end(client: str, replies: int, in_flight_max: int, fatal_in: int) -> None:
    thrown: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: thrown.append(context))
    world, good, away, told = World(20, fatal_in), 0, 0, set[str]()
    async with hostile(world) as port:
        given = {"host": HOST, "port": port, "client": client, "in_flight_max": in_flight_max, "timeout_s": 20.0}
        device = driver("plc-1", Settings.model_validate(given), [GROUP])
        sockets, tasks = open_sockets(), len(asyncio.all_tasks())
        while world.misbehaved < replies:
            await device.connect()
            try:
                while True:
                    (scan,) = await device.read(GROUP)
                    good += check(scan, world)
            except DeviceAway as error:
                away += 1
                told.add(str(error).split(": ", 1)[1])
        await device.close()
        while world.open:  # noqa: ASYNC110 the server's ends of the last lines are told one turn later
            await asyncio.sleep(0)
        assert open_sockets() <= sockets
        assert len(asyncio.all_tasks()) == tasks
    gc.collect()
    lines = [one for one in gc.get_objects() if isinstance(one, LeanLine | PymodbusLine)]
    assert lines == []
    assert thrown == []
    assert all(";" in sentence and sentence.endswith(".") for sentence in told)
    assert world.connections == away
    assert set(world.did) == {*FATAL, "the end", "refused", "right"}, "each kind came up"
    assert good > replies / 50


async def test_a_half_open_link_is_found_by_the_first_poll_after_it() -> None:
    """That is within period + time-out: the one request that gets no answer is the last one on that connection."""
    is_open, away = True, asyncio.Event()
    asked_when_half_open: list[int] = []

    async def half_open(exchange: Exchange) -> None:
        if is_open or exchange.connection > 0:
            await exchange.send(exchange.answer(bytes(exchange.size)))
        else:
            asked_when_half_open.append(exchange.number)

    scans: list[Scan] = []

    def take(scan: Scan) -> None:
        nonlocal is_open
        scans.append(scan)
        if len(scans) == 3:
            is_open = False
        if scan.quality is not None:
            away.set()

    polled = Group("plc-1", "all", 0.05, GROUP.tags)
    async with scripted(half_open) as server:
        device = driver("plc-1", Settings(host=HOST, port=server.port, timeout_s=0.3), [polled])
        running = asyncio.create_task(Poller("plc-1", device, [polled], take).run())
        await away.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len(asked_when_half_open) == 1
    assert [scan.quality is None for scan in scans] == [True, True, True, False]
    assert scans[3].quality == [Quality.BAD_TIMEOUT] * TAGS
