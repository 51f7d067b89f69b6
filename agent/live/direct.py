"""The same feed where no agent runs: the devices are polled from here, as the agent would, and nothing is stored."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent import drivers, running
from agent.derived import Board
from agent.live.live import Live
from agent.live.query import Query
from agent.poller import Poller
from agent.settings import Configuration, Device
from agent.shaping import shaping
from protocols.field.contract import Scan
from protocols.program.tasks import Tasks

LOOK_S = 5.0


class AgentAppeared(Exception):
    """An agent was started meanwhile: it needs the devices for itself."""


class Direct:
    """Asked like a LiveClient. `run` ends with AgentAppeared as soon as an agent runs on the same data_dir."""

    def __init__(self, configuration: Configuration) -> None:
        self._data_dir = Path(configuration.settings.data_dir)
        self._boards: dict[str, Board] = {device.machine: {} for device in configuration.devices}
        self._pollers = {device.name: self._poller(configuration, device) for device in configuration.devices}
        self._live = Live(configuration, self._pollers)

    def _poller(self, configuration: Configuration, device: Device) -> Poller:
        driver = drivers.make(device, device.groups, configuration.settings.data_dir)
        shape = shaping(device, self._boards[device.machine], driver, reports_all=True).of
        return Poller(device.name, driver, device.groups, self._take, shape=shape)

    def _take(self, scan: Scan) -> None:
        self._live.take(scan)

    async def ask(self, query: Query) -> dict[str, Any]:
        """What the agent would show."""
        return self._live.look(query)

    def start(self, tasks: Tasks) -> None:
        """Poll until `tasks` are stopped. A task of them fails with AgentAppeared once an agent runs."""
        for name, poller in self._pollers.items():
            tasks.spawn(f"device {name}", poller.run())
        tasks.spawn("way", self._give_way(tasks.stopping))

    async def _give_way(self, stopping: asyncio.Event) -> None:
        try:
            while not stopping.is_set():
                if (await asyncio.to_thread(running.look, self._data_dir, time.time())).is_alive:
                    raise AgentAppeared("an agent runs")
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await stopping.wait()
        finally:
            for poller in self._pollers.values():
                poller.stop()
