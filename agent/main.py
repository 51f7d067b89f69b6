"""The agent's wiring: the one module that chooses implementations and starts everything.

Beginning: outbox, then pollers, pipeline and forwarder as supervised tasks. An outage of a PLC or of the broker never
makes the agent unready; only the outbox does. End: stop polling, store what is in memory, send what is left for a
while, say goodbye, close the outbox.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent import drivers, heartbeat
from agent.batcher import Batcher
from agent.bell import Bell
from agent.capture.service import CaptureService
from agent.certificate import Certificate
from agent.clock import GatewayClock
from agent.definitions import Book, SelfContained
from agent.derived import Board, move
from agent.devicememory import DeviceMemory
from agent.live import address as live_address
from agent.live.line import Standing
from agent.live.live import Live
from agent.live.server import LiveServer
from agent.outbox.contract import Held, Lane, Outbox, OutboxError, OutboxStats
from agent.outbox.disk import DiskOutbox
from agent.outbox.worker import OutboxWorker
from agent.pipeline import Pipeline
from agent.poller import Poller
from agent.settings import Configuration, Device
from agent.shaping import Shaping, shaping
from agent.statusfile import write_status
from agent.uplink.forwarder import Forwarder
from agent.uplink.fresh import Fresh
from protocols.field.contract import Driver, Scan
from protocols.program import notify
from protocols.program.logs import get_logger
from protocols.program.tasks import Tasks
from protocols.program.version import program_version
from protocols.uplink.mqtt import MqttAgentLink
from protocols.uplink.status import Status

if TYPE_CHECKING:
    from agent.page.service import PageService

STATUS_FILE_S = 4.0
WATCHED_S = 1.0  # the same while somebody watches
LAST_READ_S = 2.0  # a read that is under way at a planned stop may take so long
POLLER_PATIENCE_S = 90.0  # a driver may spend its own deadlines; beyond this its loop is stuck

_log = get_logger(part="agent")


class Agent:
    """One run of the agent with one configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        settings = configuration.settings
        data_dir = Path(settings.data_dir)
        self._status_path = data_dir / "status.json"
        self._worker = OutboxWorker(
            lambda: DiskOutbox(
                data_dir / "outbox",
                limit_bytes=settings.outbox.limit_bytes,
                reserve_bytes=settings.outbox.reserve_bytes,
                age_max_s=settings.outbox.age_max_s,
                grace_s=settings.outbox.grace_s,
                free_disk_bytes=settings.outbox.free_disk_bytes,
                thin_out=settings.outbox.when_full == "thin",
            )
        )
        thing = settings.gateway.thing
        groups = [group for device in configuration.devices for group in device.published]
        encoder = Book(thing, groups) if settings.delivery == "confirmed" else SelfContained(thing)
        self._batcher = Batcher(encoder, {d.name: d.machine for d in configuration.devices})
        self._clock = GatewayClock(settings.clock.synchronised, data_dir / "clock.json", self._on_change, self._on_set)
        self._pipeline = Pipeline(
            self._batcher, self._worker, settings.batch.interval_s, self._on_appended, self._on_round, self._clock
        )
        self._shapings: list[Shaping] = []
        self._boards: dict[str, Board] = {device.machine: {} for device in configuration.devices}
        made = {d.name: drivers.make(d, d.groups, settings.data_dir) for d in configuration.devices}
        self._pollers = {d.name: self._poller(d, made[d.name], data_dir / "devices") for d in configuration.devices}
        self._captures = CaptureService(configuration, made, self._pollers)
        self._machine_of = {device.name: device.machine for device in configuration.devices}
        self._started_s = time.monotonic()
        self._fill_rate = heartbeat.FillRate()
        self._forwarder: Forwarder | None = None
        self._outbox: Outbox | None = None  # its properties; all else goes through the worker
        self._bell = Bell()
        self._tend_trouble = ""
        self._certificate = Certificate(configuration.settings.broker.tls)
        self._said: Status | None = None  # what was told last
        self._live = Live(configuration, self._pollers, self._standing)
        self._page = self._page_service()
        self._live_server = LiveServer(data_dir / live_address.NAME, self._live.look)

    def _poller(self, device: Device, driver: Driver, memories: Path) -> Poller:
        memory = DeviceMemory(memories / f"{device.name}.json", device.name, driver)
        shape = shaping(device, self._boards[device.machine], driver, see=self._see)
        self._shapings.append(shape)
        return Poller(device.name, driver, device.groups, self._pipeline.take, self._on_change, memory, shape.of)

    def _page_service(self) -> PageService | None:
        if self._configuration.settings.page is None:
            return None
        from agent.page.service import PageService  # what most gateways have not costs them no memory

        return PageService(self._live, self._configuration.settings.page)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`. Raises OutboxError where the outbox cannot be opened, TaskDied where a part fails."""
        self._outbox = outbox = await self._worker.open()
        try:
            self._clock.look()
            self._forwarder = self._make_forwarder(outbox)
            await self._forwarder.learn()
            async with Tasks(stopping, grace_s=0) as tasks:
                polling = [tasks.spawn(f"device {name}", poller.run()) for name, poller in self._pollers.items()]
                storing = tasks.spawn("pipeline", self._pipeline.run())
                sending = tasks.spawn("forwarder", self._forwarder.run())
                telling = tasks.spawn("status file", self._tell())
                tasks.spawn("captures", self._captures.run())
                showing = [tasks.spawn("live feed", self._live_server.run())]
                if self._page is not None:
                    showing.append(tasks.spawn("page", self._page.run()))
                notify.ready(f"{len(polling)} devices")
                _log.info("running", devices=len(polling), data_dir=self._configuration.settings.data_dir)
                try:
                    await tasks.wait()
                finally:
                    notify.stopping()
                    for poller in self._pollers.values():
                        poller.stop()
                    await asyncio.wait(polling, timeout=LAST_READ_S)
                    await _cancelled(*polling)
                    await _cancelled(storing)
                    await self._finish(sending)
                    await _cancelled(telling, *showing)
                    await write_status(
                        self._status_path, await self._status(self._forwarder.state.session), "stopped", ""
                    )
        finally:
            await self._worker.close()

    def _make_forwarder(self, outbox: Outbox) -> Forwarder:
        configuration, settings = self._configuration, self._configuration.settings
        client_id = settings.broker.client_id or settings.gateway.thing
        return Forwarder(
            MqttAgentLink(settings.broker, client_id),
            self._worker,
            configuration.gateway,
            configuration.machines,
            self._status,
            lambda: outbox.epoch,
            settings.delivery,
            instance=lambda: outbox.instance,
            client_id=client_id,
            backlog_bytes_per_s=settings.uplink.backlog_bytes_per_s,
        )

    async def _finish(self, sending: asyncio.Task[None]) -> None:
        """Store what is in memory, send what is left within the drain time, say goodbye."""
        forwarder = self._forwarder
        if forwarder is None:
            return
        try:
            await self._pipeline.finish()
        except OutboxError as error:
            _log.error(str(error))
        forwarder.beat_now()  # the receiver answers it with a confirm
        drained = asyncio.create_task(forwarder.drained(), name="drain")
        await asyncio.wait(
            [drained, sending],
            timeout=self._configuration.settings.shutdown_drain_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        await _cancelled(drained)
        left = (await self._worker.call(Outbox.stats)).batches
        if left:
            _log.info("batches stay in the outbox until the next start", batches=left)
        forwarder.stop()
        await asyncio.wait([sending])

    # --- what the parts tell each other ---

    def _see(self, scan: Scan) -> None:
        self._live.take(scan)
        if self._page is not None:
            self._page.take(scan)

    def _on_appended(self, batches: Sequence[Fresh]) -> None:
        if self._forwarder is not None:
            self._forwarder.appended(batches)

    def _on_change(self) -> None:
        if self._forwarder is not None:
            self._forwarder.beat_now()
        self._bell.ring()

    def _on_set(self, ahead_us: int) -> None:
        """The clock was set: how long a device or a reading has been as it is has not changed by that."""
        for poller in self._pollers.values():
            poller.state.since_us = max(0, poller.state.since_us + ahead_us)
        for board in self._boards.values():
            move(board, ahead_us)
        for shape in self._shapings:
            shape.clock_set(ahead_us)

    def _on_round(self) -> None:
        """Called from the working loop every second: whatever is to be done so often needs no wake-up of its own."""
        self._ping_watchdog()
        self._captures.look()

    def _ping_watchdog(self) -> None:
        """No ping while any device's loop is stuck, or nothing reaches the pipeline."""
        now_s = time.monotonic()
        if all(now_s - poller.alive_s < POLLER_PATIENCE_S for poller in self._pollers.values()):
            notify.watchdog()

    async def _status(self, session: int) -> Status:
        stats, held, formers = await self._worker.run(lambda box: (box.stats(), box.held(), box.formers()))
        return self._built(session, stats, held, {} if self._forwarder is None else self._forwarder.unanswered(formers))

    def _built(
        self, session: int, stats: OutboxStats, held: Mapping[Lane, Held], formers: Mapping[Lane, int] | None = None
    ) -> Status:
        settings, forwarder, outbox = self._configuration.settings, self._forwarder, self._outbox
        return heartbeat.build(
            heartbeat.Figures(
                thing=settings.gateway.thing,
                version=program_version(),
                session=session,
                epoch="" if outbox is None else outbox.epoch,
                instance="" if outbox is None else outbox.instance,
                host=socket.gethostname()[:255],
                now_us=time.time_ns() // 1000,
                uptime_s=time.monotonic() - self._started_s,
                broker_host=settings.broker.host,
                stats=stats,
                full_in_s=self._fill_rate.lasts_s(heartbeat.room_bytes(stats, settings.outbox.free_disk_bytes)),
                held=held,
                sent={} if forwarder is None else {lane: forwarder.window.sent(lane) for lane in held},
                devices={name: (self._machine_of[name], poller.state) for name, poller in self._pollers.items()},
                readings_lost=self._pipeline.readings_lost,
                clock=self._clock.status(),
                config_hash=self._configuration.hash,
                certificate_days_left=self._certificate.days_left(time.time()),
                formers=formers or {},
            )
        )

    async def _tell(self) -> None:
        """Every few seconds let the outbox tend to itself, and keep the status file current for `holdfast status`."""
        while True:
            stats, held = await self._worker.run(self._tended)
            self._clock.look()
            self._fill_rate.stored(time.monotonic(), self._pipeline.bytes_stored)
            if self._forwarder is not None:
                link = self._forwarder.state
                state = f"connected, {link.protocol}" if link.connected else "not connected"
                status = self._built(link.session, stats, held)
                self._said = status
                await write_status(self._status_path, status, state, self._forwarder.trouble)
            await self._bell.wait(WATCHED_S if self._live.is_watched else STATUS_FILE_S)

    def _standing(self) -> Standing:
        if self._forwarder is None:
            return Standing(self._said)
        link = self._forwarder.state
        return Standing(
            status=self._said,
            is_connected=link.connected,
            protocol=link.protocol,
            is_confirmed=self._configuration.settings.delivery == "confirmed",
            troubles=dict(self._forwarder.troubles),
            disk=self._pipeline.trouble or self._tend_trouble,
        )

    def _tended(self, outbox: Outbox) -> tuple[OutboxStats, Mapping[Lane, Held]]:
        """In the outbox's thread. A disk that fails must not end the telling of it."""
        trouble = ""
        try:
            outbox.tend(time.time_ns() // 1000)
        except OutboxError as error:
            trouble = str(error)
        if trouble and not self._tend_trouble:
            _log.error(trouble)
        self._tend_trouble = trouble
        return outbox.stats(), outbox.held()


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def serve(
    configuration: Configuration,
    stopping: asyncio.Event,
    reload: asyncio.Event,
    load: Callable[[], Configuration | None],
) -> None:
    """Run until `stopping`; at each `reload` begin anew with what `load` gives, or go on where it gives None."""
    while not stopping.is_set():
        ending = asyncio.Event()
        running = asyncio.create_task(Agent(configuration).run(ending), name="agent")
        waiting = [asyncio.create_task(event.wait(), name="signal") for event in (stopping, reload)]
        try:
            while not ending.is_set():
                await asyncio.wait([running, *waiting], return_when=asyncio.FIRST_COMPLETED)
                if running.done() or stopping.is_set():
                    ending.set()
                elif reload.is_set():
                    reload.clear()
                    waiting[1] = asyncio.create_task(reload.wait(), name="signal")
                    changed = load()
                    if changed is not None:
                        configuration = changed
                        notify.reloading()
                        ending.set()
            await running
        finally:
            for wait in waiting:
                wait.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            ending.set()
            await asyncio.wait([running])
