"""Both Modbus clients send the same bytes, for any plan, and whatever the device refuses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from protocols.field.contract import Group, Scan
from protocols.field.modbus import Settings, TagSettings, driver, tag
from tests.support.modbus_servers import HOST, Unit, plc


@dataclass
class Recorder:
    """A proxy in front of a server. `sent`: what clients sent through it."""

    port: int = 0
    sent: bytearray = field(default_factory=bytearray)


@asynccontextmanager
async def recorder(target_port: int) -> AsyncIterator[Recorder]:
    """A running Recorder; closed on leaving."""
    recorded = Recorder()
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, into: bytearray) -> None:
        try:
            while data := await reader.read(4096):
                into += data
                writer.write(data)
        finally:
            writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, target_port)
        both = (pump(reader, far_writer, recorded.sent), pump(far_reader, writer, bytearray()))
        tasks.update(map(asyncio.ensure_future, both))

    listener = await asyncio.start_server(serve, HOST, 0)
    recorded.port = listener.sockets[0].getsockname()[1]
    try:
        yield recorded
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the loop closes the sockets in its next turn


def any_plan(chance: random.Random) -> tuple[list[TagSettings], dict[int, Unit]]:
    """Tags in all tables of two units, with gaps and a few addresses that do not exist."""
    units = {1: Unit(), 9: Unit()}
    tags = []
    for number in range(120):
        unit_id, table = chance.choice([1, 1, 9]), chance.choice(["holding", "holding", "input", "coil", "discrete"])
        address = chance.randrange(0, 400)
        kind = chance.choice(["uint16", "float32", "int64"]) if table in ("holding", "input") else None
        tags.append(TagSettings(name=f"t{number}", address=f"{table}:{address}", type=kind, unit_id=unit_id))  # type: ignore[arg-type]  # one of the choices above
    for unit in units.values():
        for content in (unit.holding, unit.input):
            content.update({address: chance.randrange(65536) for address in range(410)})
            for _ in range(12):
                del content[chance.choice(list(content))]
        for bits in (unit.coil, unit.discrete):
            bits.update({address: chance.random() < 0.5 for address in range(416)})
    return tags, units


async def read_with(client: str, tags: list[TagSettings], units: dict[int, Unit]) -> tuple[bytes, list[Scan], int]:
    """What was sent in three reads, what was read, and how many requests that took."""
    group = Group("plc-1", "all", 1.0, tuple(map(tag, tags)))
    async with plc(units) as server, recorder(server.port) as recorded:
        settings = Settings.model_validate({"host": HOST, "port": recorded.port, "client": client, "timeout_s": 20.0})
        device = driver("plc-1", settings, [group])
        device._endpoint._sent = 64_990  # so that the numbering begins anew on the way
        await device.connect()
        scans = [(await device.read(group))[0] for _ in range(3)]
        await device.close()
        return bytes(recorded.sent), scans, device.requests


@pytest.mark.parametrize("seed", range(4))
async def test_both_clients_send_the_same_bytes_and_read_the_same(seed: int) -> None:
    tags, units = any_plan(random.Random(seed))
    sent, scans, requests = await read_with("pymodbus", tags, units)
    sent_lean, scans_lean, requests_lean = await read_with("lean", tags, units)
    assert sent == sent_lean
    assert requests == requests_lean == len(sent) // 12 > 20
    for one, other in zip(scans, scans_lean, strict=True):
        assert (one.values, one.quality, one.reasons) == (other.values, other.quality, other.reasons)
    assert any(scan.reasons for scan in scans), "some addresses do not exist"
    transactions = [int.from_bytes(sent[at : at + 2], "big") for at in range(0, len(sent), 12)]
    assert 1 in transactions and 65_000 in transactions
