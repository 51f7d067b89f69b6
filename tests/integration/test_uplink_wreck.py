"""A receiver waits for numbers whose outbox is gone: the original's successor settles its ledger, a copy's does not.

What runs is the outbox on disk, the forwarder, the receiver and the store's rules, over a broker in memory.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent import heartbeat
from agent.outbox.contract import Draft, Encoded, Outbox
from agent.outbox.disk import DiskOutbox
from agent.outbox.worker import OutboxWorker
from agent.uplink.former import DESTROYED
from agent.uplink.forwarder import Forwarder
from cloud.completeness import Statement, statement
from cloud.receiver import Receiver
from cloud.store.memory import MemoryStore
from cloud.worker import StoreWorker
from protocols.uplink.envelope import encode_json
from protocols.uplink.memory import MemoryBroker
from protocols.uplink.status import Clock, Status
from protocols.uplink.topics import GatewayTopic, MachineTopic, Plant
from tests.support.programs import until

PLANT = Plant("acme", "north", "mill")
GATEWAY = GatewayTopic(PLANT, "gw-1")
PRESS = MachineTopic(PLANT, "press")


def draft() -> Draft:
    return Draft(
        "press", lambda epoch, seq: Encoded(encode_json(time.time_ns() // 10**6, seq, {"count": seq}, epoch=epoch))
    )


class Site:
    """One gateway, whose outbox lies in `directory`, and one receiver."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.broker = MemoryBroker()
        self.store = MemoryStore()
        self.store.add_tenant(PLANT.tenant)
        self.store.add_plant(PLANT)
        self.epoch = ""

    @asynccontextmanager
    async def receiver(self) -> AsyncIterator[None]:
        worker = StoreWorker(lambda: self.store)
        await worker.open()
        task = asyncio.create_task(Receiver(self.broker.cloud_link("receiver"), worker).run(), name="receiver")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await worker.close()

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[tuple[OutboxWorker, Forwarder]]:
        worker = OutboxWorker(lambda: DiskOutbox(self.directory, reserve_bytes=0, grace_s=0))
        outbox = await worker.open()
        self.epoch = outbox.epoch

        async def status(session: int) -> Status:
            stats, held, formers = await worker.run(lambda box: (box.stats(), box.held(), box.formers()))
            return heartbeat.build(
                heartbeat.Figures(
                    thing=GATEWAY.thing, version="1", session=session, epoch=outbox.epoch, instance=outbox.instance,
                    host="gw", now_us=time.time_ns() // 1000, uptime_s=1.0, broker_host="broker", stats=stats,
                    full_in_s=None, held=held, sent={lane: forwarder.window.sent(lane) for lane in held}, devices={},
                    readings_lost=0, clock=Clock(), config_hash="", formers=forwarder.unanswered(formers),
                )
            )  # fmt: skip

        forwarder = Forwarder(
            self.broker.agent_link(GATEWAY.thing), worker, GATEWAY, {"press": PRESS}, status,
            lambda: outbox.epoch, instance=lambda: outbox.instance,
        )  # fmt: skip
        await forwarder.learn()
        task = asyncio.create_task(forwarder.run(), name="forwarder")
        try:
            yield worker, forwarder
        finally:
            forwarder.stop()
            await task
            await worker.close()

    def account(self, epoch: str) -> Statement | None:
        found = [statement(one) for one in self.store.ledgers(PRESS) if one.epoch == epoch]
        return found[0] if found else None

    def state(self, epoch: str) -> tuple[int, int, int]:
        """(stored, dropped, missing or in flight)."""
        found = self.account(epoch)
        return (0, 0, 0) if found is None else (found.stored, found.dropped, found.missing + found.in_flight)

    async def lose_three_of_eight(self) -> str:
        """Five batches are stored, three more are told of, and then the database is deleted. Its epoch."""
        async with self.gateway() as (worker, forwarder):
            epoch = self.epoch
            await worker.call(Outbox.append, [draft()] * 5, 1)
            await forwarder.learn()
            await until("five are stored", lambda: self.state(epoch) == (5, 0, 0))
            await worker.call(Outbox.append, [draft()] * 3, 1)  # nobody tells the forwarder
            forwarder.beat_now()
            await until("the receiver waits for three more", lambda: self.state(epoch) == (5, 0, 3))
        return epoch


async def test_the_ledger_is_settled_after_the_database_was_deleted(tmp_path: Path) -> None:
    site = Site(tmp_path / "o")
    async with site.receiver():
        epoch = await site.lose_three_of_eight()
        shutil.rmtree(tmp_path / "o" / "queue")
        async with site.gateway() as (worker, forwarder):
            await worker.call(Outbox.append, [draft()], 1)
            await forwarder.learn()
            await until("it is said what became of them", lambda: site.state(epoch) == (5, 3, 0))
            await until("what is read now is stored", lambda: site.state(site.epoch) == (1, 0, 0))
            assert epoch != site.epoch
    assert {loss.reason for loss in site.store.losses(PRESS, epoch)} == {DESTROYED}


async def test_a_copy_without_its_database_leaves_the_ledger_as_it_is(tmp_path: Path) -> None:
    site = Site(tmp_path / "o")
    async with site.receiver():
        epoch = await site.lose_three_of_eight()
        shutil.copytree(tmp_path / "o", tmp_path / "copy")
        shutil.rmtree(tmp_path / "copy" / "queue")
        site.directory = tmp_path / "copy"
        async with site.gateway() as (worker, forwarder):
            await worker.call(Outbox.append, [draft()], 1)
            await forwarder.learn()
            await until("what is read now is stored", lambda: site.state(site.epoch) == (1, 0, 0))
            assert site.state(epoch) == (5, 0, 3)
