"""Modbus TCP devices for tests, on free ports of 127.0.0.1.

`plc` is a well-behaved one: pymodbus's own server over tables that the test fills. Addresses that were not filled are
holes: a request that touches one is answered with exception 2, as real PLCs do.
`scripted` is any other: the test decides, request by request, which bytes go back, and when.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from pymodbus.pdu import ExceptionResponse, ModbusPDU
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

HOST = "127.0.0.1"
_WRITES = (6, 16, 22)  # functions that write registers

logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # the server logs each client that goes away


@dataclass
class Unit:
    """The tables of one unit, address from 0 → content.

    Registers may change while the server runs; which addresses exist, and the bits, are read when it starts.
    """

    holding: dict[int, int] = field(default_factory=dict)
    input: dict[int, int] = field(default_factory=dict)
    coil: dict[int, bool] = field(default_factory=dict)  # bits exist by sixteens: 0–15, 16–31 …
    discrete: dict[int, bool] = field(default_factory=dict)

    def put(self, table: Literal["holding", "input"], address: int, content: bytes) -> None:
        """Writes bytes, two per register, from `address` on."""
        registers = struct.unpack(f">{len(content) // 2}H", content)
        getattr(self, table).update(enumerate(registers, address))


@dataclass(frozen=True)
class Asked:
    """A request as the server received it."""

    unit_id: int
    function: int
    address: int
    count: int


class Plc:
    """A Modbus TCP server of `units`. Start, cut and start it again as often as you like: it keeps its port."""

    def __init__(self, units: Mapping[int, Unit]) -> None:
        self.units = units
        self.port = 0
        self.asked: list[Asked] = []  # every request so far
        self.refuse: Callable[[Asked], int] = lambda asked: 0  # → exception code instead of the answer; 0: answer
        self._server: ModbusTcpServer | None = None

    async def start(self) -> None:
        """Listens and serves; after `cut` at the same port."""
        devices = [_device(unit_id, unit) for unit_id, unit in self.units.items()]
        self._server = ModbusTcpServer(devices, address=(HOST, self.port), trace_pdu=self._trace)
        await self._server.serve_forever(background=True)
        self.port = self._server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]  # an asyncio.Server

    async def cut(self) -> None:
        """Stops listening and drops every connection."""
        if self._server is not None:
            await self._server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus gives it no types
            self._server = None
            await asyncio.sleep(0)  # the loop closes the sockets in its next turn

    def _trace(self, sending: bool, pdu: ModbusPDU) -> ModbusPDU:
        """Called by the server for each request and each answer; what it returns is sent."""
        if not sending:
            self.asked.append(Asked(pdu.dev_id, pdu.function_code, pdu.address, pdu.count))
            return pdu
        code = self.refuse(self.asked[-1])
        return ExceptionResponse(pdu.function_code, code, pdu.dev_id, pdu.transaction_id) if code else pdu


def _device(unit_id: int, unit: Unit) -> SimDevice:
    async def refresh(
        function: int, start: int, address: int, count: int, stored: list[int], values: list[int] | list[bool] | None
    ) -> None:
        """Called by the server for each request: brings its copy of the registers up to date."""
        del count
        if values and function in _WRITES:
            unit.holding.update(enumerate(values, address))
        table = unit.holding if function in (3, *_WRITES) else unit.input if function == 4 else {}
        for place, value in table.items():
            stored[place - start] = value

    return SimDevice(
        unit_id,
        simdata=(_bits(unit.coil), _bits(unit.discrete), _registers(unit.holding), _registers(unit.input)),
        action=refresh,
    )


def _registers(table: Mapping[int, int]) -> list[SimData]:
    """Runs of existing addresses. The server wants at least one entry, even one that does not exist."""
    if not table:
        return [SimData(0, datatype=DataType.INVALID)]
    runs = [
        [place for _, place in run] for _, run in groupby(enumerate(sorted(table)), key=lambda pair: pair[1] - pair[0])
    ]
    return [SimData(run[0], values=[table[place] for place in run], datatype=DataType.REGISTERS) for run in runs]


def _bits(table: Mapping[int, bool]) -> list[SimData]:
    """One run from the first existing sixteen to the last. The server wants at least one entry."""
    words = {place // 16 for place in table} or {4095}
    first, end = min(words) * 16, max(words) * 16 + 16
    values = [table.get(place, False) for place in range(first, end)]
    return [SimData(first, values=values, datatype=DataType.BITS)]


@asynccontextmanager
async def plc(units: Mapping[int, Unit]) -> AsyncIterator[Plc]:
    """A running Plc; stopped on leaving."""
    server = Plc(units)
    await server.start()
    try:
        yield server
    finally:
        await server.cut()


@dataclass(frozen=True)
class Exchange:
    """One request that a scripted server received, and the means to answer it."""

    connection: int  # from 0
    number: int  # of the request, over all connections, from 0
    request: bytes
    writer: asyncio.StreamWriter

    @property
    def size(self) -> int:
        """How many bytes of content were asked for."""
        count = int.from_bytes(self.request[10:12], "big")
        return (count + 7) // 8 if self.request[7] in (1, 2) else 2 * count

    def answer(
        self,
        content: bytes,
        *,
        transaction: int | None = None,
        protocol: int = 0,
        unit_id: int | None = None,
        function: int | None = None,
        byte_count: int | None = None,
        length: int | None = None,
    ) -> bytes:
        """The right answer with this content; each part can be given wrongly."""
        asked_transaction, _, _, asked_unit, asked_function = struct.unpack_from(">HHHBB", self.request)
        header = struct.pack(
            ">HHHBBB",
            asked_transaction if transaction is None else transaction,
            protocol,
            len(content) + 3 if length is None else length,
            asked_unit if unit_id is None else unit_id,
            asked_function if function is None else function,
            len(content) if byte_count is None else byte_count,
        )
        return header + content

    def exception(self, code: int, length: int = 3) -> bytes:
        """The answer with an exception."""
        return self.request[:4] + struct.pack(">HBBB", length, self.request[6], self.request[7] | 0x80, code)

    async def send(self, data: bytes) -> None:
        """Sends; a client that has gone does not matter here."""
        self.writer.write(data)
        with suppress(ConnectionError):
            await self.writer.drain()


Script = Callable[[Exchange], Awaitable[None]]


class ScriptedServer:
    """A TCP server that calls `script` for each Modbus request. `script` may be exchanged at any time."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.greeting = b""  # sent to each new connection, unasked
        self.greeted = asyncio.Event()  # once it has been sent
        self.port = 0
        self.connections = 0
        self.requests = 0
        self.errors: list[Exception] = []  # what went wrong in scripts: `scripted` raises it in the end
        self.listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number = self.connections
        self.connections += 1
        try:
            writer.write(self.greeting)
            self.greeted.set()
            while True:
                header = await reader.readexactly(6)
                body = await reader.readexactly(int.from_bytes(header[4:6], "big"))
                self.requests += 1
                await self.script(Exchange(number, self.requests - 1, header + body, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        except Exception as error:  # noqa: BLE001 of the test's own script: raised again where the test sees it
            self.errors.append(error)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def stop(self) -> None:
        """Ends every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[ScriptedServer]:
    """A running ScriptedServer; stopped on leaving. Raises what failed in the script."""
    server = ScriptedServer(script)
    listener = server.listener = await asyncio.start_server(server.serve, HOST, 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.stop()
    if server.errors:
        raise server.errors[0]
