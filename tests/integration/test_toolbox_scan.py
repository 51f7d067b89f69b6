"""`holdfast scan` against real sockets and a serial port: what it finds, and that it does no harm."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from agent.commands.scan_line import Asker, ScanEnded, quick
from protocols.field.modbus_address import Table
from protocols.field.modbus_frame import crc
from protocols.field.modbus_settings import Settings
from tests.support.cli import ROOT
from tests.support.modbus_servers import Exchange, Unit, plc, scripted
from tests.support.toolbox import Toolbox, configuration, modbus_device, toolbox, write


@pytest.fixture(scope="module")
def holdfast() -> Iterator[Toolbox]:
    with toolbox(
        "agent.commands.scan_lines", "agent.commands.scan_line", "protocols.field.modbus_line_lean"
    ) as prepared:
        yield prepared


async def test_scan_finds_units_functions_and_ranges(holdfast: Toolbox, tmp_path: Path) -> None:
    unit, other = Unit(), Unit()
    unit.put("holding", 0, bytes(8))
    unit.put("holding", 10, bytes(12))
    other.put("input", 0, bytes(32))
    async with plc({1: unit, 7: other}) as server:
        # This server answers exception 4 for units that it has not, and 1 for nothing: so make it.
        server.refuse = lambda asked: 11 if asked.unit_id == 2 else 1 if asked.function < 3 else 0
        where = f"127.0.0.1:{server.port}"
        write(tmp_path, configuration(modbus_device("other", 1)))
        line = ("scan", where, "--yes", "--units", "1-2,7", "--to", "15", "--json", "--write", "line")
        said = await holdfast.run(tmp_path, *line)
        assert said.code == 0
        assert {asked.function for asked in server.asked} == {1, 2, 3, 4}
        assert len(server.asked) == said.json["requests"]
        assert "nothing is written" in said.flat
    found = {
        (unit["unit_id"], table["function"]): table["ranges"] for unit in said.json["units"] for table in unit["tables"]
    }
    assert found[1, 3] == [[0, 3], [10, 15]]
    assert found[7, 4] == [[0, 15]]
    assert sorted({unit for unit, _ in found}) == [1, 7]
    assert (found[1, 1], found[1, 4]) == ([], [])
    served = {table["function"]: table["served"] for table in said.json["units"][0]["tables"]}
    assert served == {1: False, 2: False, 3: True, 4: True}
    listed = await holdfast.run(tmp_path, "device", "list", "--json")
    assert [(one["name"], one["endpoint"], one["tags"]) for one in listed.json["devices"]] == [
        ("other", "127.0.0.1:1", 1),
        ("line-1", where, 2),
        ("line-7", where, 1),
    ]


async def test_a_device_that_ignores_unit_ids_is_recognised(holdfast: Toolbox, tmp_path: Path) -> None:
    async def same(exchange: Exchange) -> None:
        await exchange.send(
            exchange.exception(1) if exchange.request[7] != 3 else exchange.answer(bytes(exchange.size))
        )

    async with scripted(same) as server:
        said = await holdfast.run(tmp_path, "scan", f"127.0.0.1:{server.port}", "-y", "-u", "1-4", "--to", "9")
        assert (said.code, server.connections) == (0, 1)
    assert "units 1–4 answer" in said.flat
    assert "it seems to ignore the unit id" in said.flat
    assert "   1  3 (holding)   holding 0–9 (40001–40010)" in said.out
    assert "   2  " not in said.out
    assert max(map(len, (said.out + said.err).splitlines())) <= 80


async def test_nobody_is_scanned_unasked(holdfast: Toolbox, tmp_path: Path) -> None:
    async with plc({1: Unit(holding={0: 1})}) as server:
        write(tmp_path, configuration(modbus_device("press-plc", server.port)))
        said = await holdfast.run(tmp_path, "scan", "press-plc")
        assert (said.code, server.asked) == (64, [])
        assert said.err.splitlines()[-1] == "nobody is here to agree; add --yes to begin all the same"
    refused = await holdfast.run(tmp_path, "scan", "press-plc", "--yes")
    assert refused.code == 69
    assert "the connection was refused; check the address and the port" in refused.err.splitlines()[-1]
    wrong = await holdfast.run(tmp_path, "scan", "press-plc", "--units", "1-300")
    assert (wrong.code, wrong.err) == (64, "1-300: unit ids are 0 to 255, the smaller one first\n")
    fast = await holdfast.run(tmp_path, "scan", "press-plc", "--interval", "50")
    assert fast.code == 64


async def test_a_pause_before_every_request_and_one_connection_at_a_time() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def deaf_to_5(exchange: Exchange) -> None:
        if exchange.request[6] != 5:
            await exchange.send(exchange.answer(bytes(exchange.size)))

    async with scripted(deaf_to_5) as server:
        link = quick(Settings.model_validate({"host": "127.0.0.1", "port": server.port}).link, 0.1)
        asker = Asker(link, 0.0, lambda *_: None, sleep)
        found = [await asker.ask(unit_id, Table.HOLDING, 0, 1) for unit_id in (1, 5, 1)]
        await asker.close()
        assert found == [b"\0\0", None, b"\0\0"]
        assert slept == [0.1, 0.1, 0.1]
        # The one that was not answered cost its connection: a late answer must not answer the next question.
        assert server.connections == 2


async def test_a_device_that_hangs_up_is_left_in_peace() -> None:
    async def sleep(seconds: float) -> None:
        """No need to wait here."""

    async def hangs_up(exchange: Exchange) -> None:
        exchange.writer.close()

    async with scripted(hangs_up) as server:
        link = quick(Settings.model_validate({"host": "127.0.0.1", "port": server.port}).link, 1.0)
        asker = Asker(link, 0.0, lambda *_: None, sleep)
        assert [await asker.ask(unit_id, Table.HOLDING, 0, 1) for unit_id in (1, 2)] == [None, None]
        with pytest.raises(ScanEnded, match="3 times in a row; it was left in peace"):
            await asker.ask(3, Table.HOLDING, 0, 1)
        await asker.close()
        assert server.requests == 3


async def test_ctrl_c_ends_at_once_and_shows_what_was_found(tmp_path: Path) -> None:
    async with plc({1: Unit(holding=dict.fromkeys(range(4), 1))}) as server:
        line = [sys.executable, "-m", "agent.cli", "scan", f"127.0.0.1:{server.port}", "-y", "--json", "--fine"]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = await asyncio.create_subprocess_exec(
            *line, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            while len(server.asked) < 3:
                assert process.returncode is None
                await asyncio.sleep(0.02)
            process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 130
    said = json.loads(out)
    assert (said["complete"], said["ended"]) == (False, "interrupted")
    assert said["units"][0]["unit_id"] == 1
    assert b"Traceback" not in err


@asynccontextmanager
async def serial_device(unit_id: int, speed: int) -> AsyncIterator[str]:
    """One register on a pseudo-terminal, which answers only at its own speed, and knows no parity. Yields the path."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    received = bytearray()

    def read() -> None:
        with suppress(BlockingIOError, OSError):
            received.extend(os.read(master, 4096))
        while len(received) >= 8:
            frame = bytes(received[:8])
            del received[:8]
            if termios.tcgetattr(slave)[5] != speed or frame[0] != unit_id:
                continue
            body = bytes([unit_id, frame[1] | 0x80, 2])
            if frame[1] == 3 and frame[2:6] == b"\0\0\0\1":
                body = bytes([unit_id, 3, 2, 0, 42])
            os.write(master, body + crc(body))

    asyncio.get_running_loop().add_reader(master, read)
    try:
        yield os.ttyname(slave)
    finally:
        asyncio.get_running_loop().remove_reader(master)
        os.close(slave)
        os.close(master)


async def test_a_serial_port_is_tried_at_every_speed(holdfast: Toolbox, tmp_path: Path) -> None:
    async with serial_device(3, termios.B9600) as path:
        said = await holdfast.run(tmp_path, "scan", path, "-y", "-u", "3", "--to", "0", "--timeout", "0.2", "--json")
    assert said.code == 0, said.out
    assert said.json["serial"]["baudrate"] == 9600  # a pseudo-terminal takes any parity, or none
    [unit] = said.json["units"]
    assert unit["unit_id"] == 3
    assert {table["function"]: table["ranges"] for table in unit["tables"]}[3] == [[0, 0]]
