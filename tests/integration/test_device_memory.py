"""What a device refuses is remembered over restarts, through the poller and a file."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.devicememory import DeviceMemory
from agent.poller import Poller
from protocols.field.contract import Group, Scan
from protocols.field.memory import MemoryDriver
from protocols.field.modbus import Settings, TagSettings, driver, tag
from tests.support.modbus_servers import HOST, Plc, Unit, plc

TAGS = tuple(tag(TagSettings(name=f"r{at}", address=f"holding:{at}")) for at in range(60))
GROUP = Group("plc-1", "all", 0.05, TAGS)


async def one_scan(server: Plc, path: Path) -> Scan:
    """A run of a poller until its first scan."""
    scans: list[Scan] = []
    taken = asyncio.Event()

    def take(scan: Scan) -> None:
        scans.append(scan)
        taken.set()

    device = driver("plc-1", Settings(host=HOST, port=server.port), [GROUP])
    poller = Poller("plc-1", device, [GROUP], take, memory=DeviceMemory(path, "plc-1", device))
    running = asyncio.create_task(poller.run())
    await taken.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return scans[0]


async def test_a_restart_searches_no_more(tmp_path: Path) -> None:
    path = tmp_path / "devices" / "plc-1.json"
    async with plc({1: Unit(holding={at: at for at in range(60) if at not in (7, 31)})}) as server:
        first = await one_scan(server, path)
        searched = len(server.asked)
        server.asked.clear()
        second = await one_scan(server, path)
    assert first.values == second.values
    assert first.reasons == second.reasons
    assert set(first.reasons) == {7, 31}
    assert searched > 10
    asked = [(asked.address, asked.count) for asked in server.asked[:5]]
    assert asked == [(0, 7), (8, 23), (32, 28), (7, 1), (31, 1)], "readable ones together, the refused ones alone"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\xff", b'{"version":1,"refused":7}', b'{"version":9}']
)
async def test_a_file_that_cannot_be_used_is_said_and_costs_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plc-1.json"
    path.write_bytes(content)
    async with plc({1: Unit(holding={at: at for at in range(59)})}) as server:
        with capture_logs() as logs:
            scan = await one_scan(server, path)
    assert [log["event"] for log in logs] == ["what was learned about the device cannot be read and is learned anew"]
    assert list(scan.values) == [*range(59), None]
    assert json.loads(path.read_text())["refused"] == [[1, "holding", 59, 1, 2]]


def test_a_driver_without_memory_has_no_file(tmp_path: Path) -> None:
    memory = DeviceMemory(tmp_path / "plc-1.json", "plc-1", MemoryDriver("plc-1", []))
    memory.recall()
    memory.keep(at_once=True)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    device = driver("plc-1", Settings(host=HOST), [GROUP])
    device._learned.changed = True
    with capture_logs() as logs:
        DeviceMemory(tmp_path / "file" / "plc-1.json", "plc-1", device).keep(at_once=True)
    assert [log["event"] for log in logs] == ["what was learned about the device cannot be kept"]
