"""A whole line of real processes: plant, gateways' agents, broker, receiver; and what every row does with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import oracle
from tests.faults.oracle import SPAN, Evidence, Store, Verdict
from tests.faults.outboxes import OutboxReader
from tests.faults.proxy import HOST, Proxy
from tests.faults.services import Service
from tests.support.brokers import Broker, mosquitto
from tests.support.programs import write_yaml

FLOW_PATIENCE_S = 90.0
IN_HAND_MAX = 20  # of a device, while waiting; the oracle counts exactly
PLACE = {"tenant": "acme", "province": "north", "plant": "mill"}


class Stuck(AssertionError):
    """Readings do not arrive any more."""


@dataclass
class Source:
    """A device with one tag, the only one of its machine. `base`: its numbers begin above this."""

    name: str
    tag: str
    machine: str
    base: int
    log: Path
    port: int = 0
    on_disk: set[int] = field(default_factory=set)
    destroyed: set[int] = field(default_factory=set)


@dataclass
class Gateway:
    """An agent with its sources. `broker_port`: where it finds the broker, perhaps through a proxy."""

    thing: str
    service: Service
    data_dir: Path
    sources: list[Source]
    broker_port: int
    reader: OutboxReader = field(default_factory=OutboxReader)

    @property
    def outbox(self) -> Path:
        return self.data_dir / "outbox"

    def look(self, *, live: bool = False) -> dict[str, set[int]]:
        """What its outbox holds on disk now: by source name."""
        found = self.reader.numbers(self.outbox, live=live) if self.outbox.exists() else {}
        return {
            source.name: {n for n in found.get(source.tag, ()) if n // SPAN == source.base // SPAN}
            for source in self.sources
        }


@dataclass(frozen=True)
class Setup:
    """How a row wants its line. Environments are those of the programs, on top of the harness's own.

    `clock`: who vouches for the gateways' clocks. One that runs fast, as none does, would be set at each reading.
    """

    gateways: int = 1
    period_s: float = 0.05
    sources: int = 2
    interval_s: float = 0.0
    clock: str = "kernel"
    broker_config: str = ""
    broker_persists: bool = True
    agent_env: dict[str, str] = field(default_factory=dict)
    receiver_env: dict[str, str] = field(default_factory=dict)
    agent_dir: Path | None = None
    store_dir: Path | None = None
    agent_proxy: bool = False
    receiver_proxy: bool = False
    clones: bool = False  # each source once more, for a cloned gateway
    outbox: dict[str, int] = field(default_factory=dict)
    busy_timeout_s: float = 1.0


class Line:
    """Made by `line`. `recoveries`: seconds from the end of each fault until readings flow again."""

    def __init__(self, folder: Path, setup: Setup, broker: Broker, rng: random.Random) -> None:
        self.folder = folder
        self.setup = setup
        self.broker = broker
        self.rng = rng
        self.recoveries: list[float] = []
        self.injections = 0
        self.agent_proxy = Proxy(broker.port)
        self.receiver_proxy = Proxy(broker.port)
        self.gateways: list[Gateway] = []
        self.clones: list[Gateway] = []
        self.store = Store((setup.store_dir or folder) / "cloud.db")
        self.receiver = Service("receiver", "cloud.cli", folder / "cloud.yaml", setup.receiver_env)
        self._broker_is_dead = False
        self._plant: subprocess.Popen[bytes] | None = None
        self._watching: asyncio.Task[None] | None = None

    # --- beginning and end ---

    async def start(self) -> None:
        """Everything up, and readings flowing."""
        await self.agent_proxy.open()
        await self.receiver_proxy.open()
        self._make_gateways()
        self.write_receiver()
        await asyncio.gather(self._start_plant(), asyncio.to_thread(self._make_places))
        for gateway in self.gateways:
            self.write_agent(gateway)
        self.receiver.start()
        for gateway in self.gateways:
            gateway.service.start()
        self._watching = asyncio.create_task(self._watch(), name="watch")
        await self.flows("at first")

    async def close(self) -> None:
        """End whatever still runs."""
        if self._watching is not None:
            self._watching.cancel()
        for service in self.services:
            await asyncio.to_thread(service.kill)
        if self._plant is not None:
            self._plant.terminate()
            await asyncio.to_thread(self._plant.wait)
            self._plant = None
        await self.agent_proxy.close()
        await self.receiver_proxy.close()

    async def finish(self) -> list[int]:
        """A planned end: all that was acquired arrives; agents, receiver and plant stop. The exit statuses."""
        self.agent_proxy.heal()
        self.receiver_proxy.heal()
        for service in self.services:
            service.start()
        await self.flows("after everything was healed")
        if self._watching is not None:
            self._watching.cancel()
        statuses = await asyncio.gather(*(asyncio.to_thread(g.service.stop) for g in self.gateways + self.clones))
        statuses.append(await asyncio.to_thread(self.receiver.stop))
        assert self._plant is not None
        self._plant.terminate()
        await asyncio.to_thread(self._plant.wait)
        self._plant = None
        return statuses

    def judge(self, statuses: Sequence[int]) -> Verdict:
        """The oracle's word, when all have stopped."""
        verdict = oracle.judge(self.store, self._evidence())
        if any(statuses):
            verdict.faults.append(f"exit statuses at the planned end: {statuses}")
        verdict.faults += [
            f"{service.name}: its log has a traceback" for service in self.services if "Traceback" in service.said()
        ]
        return verdict

    def _evidence(self) -> list[Evidence]:
        return [
            Evidence(source.tag, source.log, gateway.service.lives, source.on_disk, source.destroyed)
            for gateway in self.gateways + self.clones
            for source in gateway.sources
        ]

    @property
    def services(self) -> list[Service]:
        return [*(gateway.service for gateway in self.gateways + self.clones), self.receiver]

    @property
    def gateway(self) -> Gateway:
        return self.gateways[0]

    async def _watch(self) -> None:
        """The service manager."""
        while True:
            for service in self.services:
                service.watch()
            await asyncio.sleep(0.2)

    # --- making things ---

    def _make_gateways(self) -> None:
        port = self.agent_proxy.port if self.setup.agent_proxy else self.broker.port
        home = self.setup.agent_dir or self.folder
        for at in range(self.setup.gateways):
            sources = [self._source(f"g{at}d{number}", 0) for number in range(self.setup.sources)]
            service = Service(f"agent {at}", "agent.cli", self.folder / f"agent-{at}.yaml", self.setup.agent_env)
            self.gateways.append(Gateway(f"gw-{at}", service, home / f"agent-{at}", sources, port))
            if self.setup.clones:
                clone = [self._source(f"g{at}d{number}", SPAN) for number in range(self.setup.sources)]
                service = Service(f"clone {at}", "agent.cli", self.folder / f"clone-{at}.yaml", self.setup.agent_env)
                self.clones.append(Gateway(f"gw-{at}", service, home / f"clone-{at}", clone, port))

    def _source(self, machine: str, base: int) -> Source:
        name = f"{machine}-{base // SPAN}"
        return Source(name, f"{machine}.count", machine, base, self.folder / f"{name}.log")

    async def _start_plant(self) -> None:
        sources = [source for gateway in self.gateways + self.clones for source in gateway.sources]
        command = [sys.executable, "-m", "tests.faults.plant", str(self.folder)]
        self._plant = await asyncio.to_thread(
            subprocess.Popen, [*command, *(f"{source.name}:{source.base}" for source in sources)]
        )
        ports = self.folder / "ports.json"
        end_s = time.monotonic() + FLOW_PATIENCE_S
        while not ports.exists():
            assert time.monotonic() < end_s and self._plant.poll() is None, "the plant does not start"
            await asyncio.sleep(0.02)
        for source in sources:
            source.port = json.loads(ports.read_text())[source.name]

    def write_agent(self, gateway: Gateway, **changes: Any) -> None:
        """Its configuration file, with other top-level keys where given."""
        settings = {
            "gateway": {"thing": gateway.thing, **PLACE},
            "broker": {"host": HOST, "port": gateway.broker_port, "keep_alive_s": 3},
            "data_dir": str(gateway.data_dir),
            "batch": {"interval_s": self.setup.interval_s},
            "clock": {"synchronised": self.setup.clock},
            "shutdown_drain_s": 120,  # what is missing may go again only a minute later, with the next confirm
            "devices": [self._device(source) for source in gateway.sources],
        }
        if self.setup.outbox:
            settings["outbox"] = dict(self.setup.outbox)
        write_yaml(gateway.service.config, settings | changes)

    def _device(self, source: Source) -> dict[str, Any]:
        tags = [{"name": source.tag, "address": "holding:0", "type": "uint32"}]
        return {
            "name": source.machine, "machine": source.machine, "protocol": "modbus", "host": HOST,
            "port": source.port, "timeout_s": 10.0, "groups": [{"period_s": self.setup.period_s, "tags": tags}],
        }  # fmt: skip

    def write_receiver(self) -> None:
        """Its configuration file."""
        port = self.receiver_proxy.port if self.setup.receiver_proxy else self.broker.port
        write_yaml(
            self.receiver.config,
            {
                "broker": {"host": HOST, "port": port, "keep_alive_s": 3},
                "store": {"path": str(self.store.path), "busy_timeout_s": self.setup.busy_timeout_s},
                "http": {"port": 0},
            },
        )

    def _make_places(self) -> None:
        for words in (("tenant", "add", "acme"), ("plant", "add", "acme", "north", "mill")):
            command = [sys.executable, "-m", "cloud.cli", *words, "--config", str(self.receiver.config)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

    # --- what rows do ---

    async def flows(self, when: str, patience_s: float = FLOW_PATIENCE_S, gateways: Sequence[Gateway] = ()) -> float:
        """Wait until each source has an answer in the database that it gives only from now on; how long it took.

        Rises to the end of the backlog, too, because an agent's numbers arrive in any order but its newest answer is
        only the sign that the line is alive: what was missed on the way is the oracle's to find.
        """
        began_s = time.monotonic()
        sources = [source for gateway in gateways or self.gateways for source in gateway.sources]
        marks = {source.name: _last(source.log, source.base) for source in sources}

        def arrived() -> bool:
            self.store.refresh()
            return all(self.store.highest(s.tag, s.base) > marks[s.name] for s in sources)

        await self.until(f"readings flow {when}", arrived, patience_s)
        return time.monotonic() - began_s

    def given(self) -> int:
        """How many answers the devices of all gateways have given."""
        return sum(_last(s.log, s.base) - s.base for gateway in self.gateways for s in gateway.sources)

    async def drained(self, patience_s: float) -> list[float]:
        """Wait until all that was answered so far is stored, but for what may have been in hand when an agent died.

        How long it took beside it, again and again, until what is acquired from now on was in the database.
        """
        sources = [source for gateway in self.gateways for source in gateway.sources]
        wanted = {source.name: {number for number, _ in oracle.answered(source.log)} for source in sources}

        def stored() -> bool:
            found = self.store.numbers
            return all(len(wanted[s.name] - set(found.get(s.tag, ()))) <= IN_HAND_MAX for s in sources)

        end_s = time.monotonic() + patience_s
        lags_s: list[float] = []
        while not lags_s or not await asyncio.to_thread(stored):
            if time.monotonic() > end_s:
                raise Stuck(f"waited {patience_s:.0f} s in vain: the backlog is stored")
            lags_s.append(await self.flows("while the backlog is stored"))
        return lags_s

    async def recovers(self, when: str, patience_s: float = FLOW_PATIENCE_S) -> None:
        """As `flows`, and on record: call it when a fault has just ended."""
        self.recoveries.append(await self.flows(when, patience_s))

    async def until(self, what: str, condition: Callable[[], bool], patience_s: float = FLOW_PATIENCE_S) -> None:
        """Wait for something to come true. Raises Stuck."""
        end_s = time.monotonic() + patience_s
        while not await asyncio.to_thread(condition):
            if time.monotonic() > end_s:
                raise Stuck(f"waited {patience_s:.0f} s in vain: {what}")
            await asyncio.sleep(0.05)

    async def pause(self, least_s: float, most_s: float) -> None:
        """Some time between the two."""
        await asyncio.sleep(self.rng.uniform(least_s, most_s))

    async def kill_agent(self, gateway: Gateway) -> None:
        """SIGKILL; then see what its outbox holds, which must arrive."""
        await asyncio.to_thread(gateway.service.kill)
        await asyncio.to_thread(self.note_outbox, gateway)

    async def kill_broker(self) -> None:
        """SIGKILL, until `broker_runs`."""
        await self.broker.kill()
        self._broker_is_dead = True

    async def broker_runs(self) -> None:
        """Start the broker where `kill_broker` has ended it."""
        if self._broker_is_dead:
            self._broker_is_dead = False
            await self.broker.start()

    def note_outbox(self, gateway: Gateway, *, live: bool = False) -> None:
        """What is in this outbox now has been acquired."""
        found = gateway.look(live=live)
        for source in gateway.sources:
            source.on_disk |= found[source.name]

    def note_destroyed(self, gateway: Gateway) -> None:
        """What is in this outbox and not in the database will be gone with it."""
        self.store.refresh()
        found = gateway.look()
        for source in gateway.sources:
            source.destroyed |= found[source.name] - set(self.store.numbers.get(source.tag, ()))

    def freeze(self, service: Service) -> None:
        """SIGSTOP."""
        os.kill(service.pid, signal.SIGSTOP)

    def thaw(self, service: Service) -> None:
        """SIGCONT."""
        os.kill(service.pid, signal.SIGCONT)


def _last(log: Path, base: int) -> int:
    """The last number that the device gave."""
    if not log.exists():
        return base
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 200))
        lines = file.read().split(b"\n")
    return int(lines[-2].split()[0]) if len(lines) > 1 and lines[-2] else base


@contextlib.asynccontextmanager
async def line(folder: Path, setup: Setup, rng: random.Random) -> AsyncIterator[Line]:
    """A line that runs, in `folder`; everything is ended when the block is left."""
    async with mosquitto(folder / "broker", config=setup.broker_config, persistence=setup.broker_persists) as broker:
        made = Line(folder, setup, broker, rng)
        try:
            await made.start()
            yield made
        finally:
            await made.close()
