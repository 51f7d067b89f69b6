"""Devices with troubles of their own, as processes: registers that are refused, slow answers, a dead unit, OPC UA.

    python -m bench.field_plant modbus '{"port": 1, "latency_s": 0.005, "holes": [7], "dead": [3], "log": "FILE"}'
    python -m bench.field_plant opcua PORT TAGS

A Modbus device writes a line of JSON for each request to its log: unit, address, registers, when it came and when it
was answered (monotonic seconds; null where it was not). It refuses what touches a hole, says nothing for a dead unit,
and answers one request after another on each connection. The OPC UA server changes all its nodes every second.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from bench.processes import HOST, Process, python, wait_until

REGISTERS = 1500
NAMESPACE_URI = "urn:holdfast:bench"
_REQUEST = struct.Struct(">HHHBBHH")
_HEAD = struct.Struct(">HHHBBB")
_ILLEGAL_ADDRESS = 2


@dataclass(frozen=True, slots=True)
class Request:
    """As the device saw it. `answered_s`: None where it said nothing."""

    unit: int
    address: int
    count: int
    came_s: float
    answered_s: float | None


class Device:
    """The device's process, seen from the harness."""

    def __init__(self, directory: Path, port: int, **troubles: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = port
        self._log = directory / f"requests-{port}"
        self._log.touch()
        told = json.dumps({"port": port, "log": str(self._log), **troubles})
        self.process: Process = python("a device", "bench.field_plant", ["modbus", told], directory / "device.log")
        wait_until(lambda: "listens" in self.process.said(), "the device's start", 20.0, self.process)

    def requests(self) -> list[Request]:
        """All so far, in order; one that is being written now is left out."""
        lines = self._log.read_text().split("\n")[:-1]
        return [Request(*json.loads(line)) for line in lines]


async def _modbus(told: dict[str, Any], log: TextIO) -> None:
    latency_s, dead = told.get("latency_s", 0.0), set(told.get("dead", ()))
    holes = set(told.get("holes", ()))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                transaction, _, __, unit, function, address, count = _REQUEST.unpack(await reader.readexactly(12))
                came_s = time.monotonic()
                answered_s = None
                if unit not in dead:
                    await asyncio.sleep(latency_s)
                    writer.write(_answer(transaction, unit, function, address, count, holes))
                    answered_s = time.monotonic()
                log.write(json.dumps([unit, address, count, came_s, answered_s]) + "\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    await asyncio.start_server(serve, HOST, told["port"])
    _say_listens()
    await asyncio.Event().wait()


def _answer(transaction: int, unit: int, function: int, address: int, count: int, holes: set[int]) -> bytes:
    if address + count > REGISTERS or not holes.isdisjoint(range(address, address + count)):
        return _HEAD.pack(transaction, 0, 3, unit, function | 0x80, _ILLEGAL_ADDRESS)
    content = struct.pack(f">{count}H", *(at + int(time.time()) % 100 for at in range(address, address + count)))
    return _HEAD.pack(transaction, 0, 3 + 2 * count, unit, function, 2 * count) + content


async def _opcua(port: int, tags: int) -> None:
    from asyncua import ua
    from asyncua.server.server import Server

    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://{HOST}:{port}/")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    space = await server.register_namespace(NAMESPACE_URI)
    ids = [ua.NodeId.from_string(f"ns={space};s=t{at}") for at in range(tags)]
    for at, one in enumerate(ids):
        await server.nodes.objects.add_variable(one, f"{space}:t{at}", float(at), ua.VariantType.Double)
    async with server:
        _say_listens()
        step = 0
        while True:
            await asyncio.sleep(1.0)
            step += 1
            for at, one in enumerate(ids):
                value = ua.DataValue(ua.Variant(at + step / 10, ua.VariantType.Double))
                await server.write_attribute_value(one, value)


def _say_listens() -> None:
    print("listens", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "modbus":
        what = json.loads(sys.argv[2])
        with Path(what["log"]).open("a", buffering=1) as requests:
            asyncio.run(_modbus(what, requests))
    else:
        asyncio.run(_opcua(int(sys.argv[2]), int(sys.argv[3])))
