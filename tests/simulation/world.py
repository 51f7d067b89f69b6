"""One gateway, one broker and one receiver on a virtual clock, with faults by chance; then all heals, and the account.

What runs is the programs' own code: batcher, encoder, pipeline, outbox rules, forwarder, receiver, confirmer and the
store's rules. Only the plant, the sockets and the disks are replaced. A seed decides everything that happens.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from agent import heartbeat
from agent.batcher import Batcher
from agent.definitions import Book
from agent.outbox.contract import HIGH, LOW, NORMAL, Encoded, Lane, Outbox, OutboxError
from agent.outbox.lanes import Limits
from agent.outbox.records import unpack_lane
from agent.outbox.worker import OutboxWorker
from agent.pipeline import Pipeline
from agent.uplink.forwarder import Forwarder
from cloud.receiver import Receiver
from cloud.sequence import confirm
from cloud.store.contract import Item, StoreAway
from cloud.store.memory import MemoryStore
from cloud.worker import StoreWorker
from protocols.field.contract import Group, Scan, Tag
from protocols.uplink import definition as definitions
from protocols.uplink import envelope
from protocols.uplink.batch import Batch
from protocols.uplink.mark import unmark
from protocols.uplink.memory import MemoryBroker
from protocols.uplink.status import Clock as ClockStatus
from protocols.uplink.status import Status
from protocols.uplink.topics import GatewayTopic, MachineTopic, Plant
from protocols.values import ValueType
from tests.simulation.clock import Clock, VirtualLoop
from tests.simulation.disk import Disk, SimulatedOutbox
from tests.simulation.oracle import Account, Broken, check

PLANT = Plant("t", "r", "p")
GATEWAY = GatewayTopic(PLANT, "gw")
CLOUD = "receiver"
HEALING_S = 1500.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a seed chooses once. `faulty_s`: how long faults happen; `mean_s`: the mean time from one to the next."""

    period_s: float
    batch_s: float
    faulty_s: float
    mean_s: float
    queue_max: int
    backlog_bytes_per_s: float
    limits: Limits
    priorities: tuple[int, ...]


def scenario(chance: random.Random) -> Scenario:
    return Scenario(
        period_s=chance.choice((0.5, 1.0, 2.0)),
        batch_s=chance.choice((0.0, 0.0, 1.0, 3.0)),
        faulty_s=chance.choice((30.0, 60.0, 100.0)),
        mean_s=chance.choice((3.0, 8.0, 20.0)),
        queue_max=chance.choice((3, 20, 1000)),
        backlog_bytes_per_s=chance.choice((0.0, 500.0, 4e6)),
        limits=Limits(
            bytes=chance.choice((1 << 30, 1 << 30, 6000)),
            age_max_us=chance.choice((0, 0, 20_000_000)),
            grace_us=chance.choice((0, 30_000_000, 86_400_000_000)),
            thin_out=chance.random() < 0.3,
        ),
        priorities=chance.choice(((NORMAL,), (NORMAL,), (HIGH, NORMAL, LOW))),
    )


class _Store(MemoryStore):
    """A database that can be away, and whose backups can be brought back."""

    away = False

    def commit(self, items: Sequence[Item]) -> Any:
        if self.away:
            raise StoreAway("the simulated database is locked; wait")
        return super().commit(items)


class _Process:
    """Tasks and threads that a SIGKILL ends at once."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._tasks: list[asyncio.Task[None]] = []
        self._executors: list[Any] = []
        self._pipelines: list[Pipeline] = []

    def runs(self, *steps: Awaitable[None]) -> None:
        self._tasks += [asyncio.ensure_future(step) for step in steps]

    def stores_with(self, pipeline: Pipeline) -> None:
        """What it is storing ends with the process, too."""
        self._pipelines.append(pipeline)

    def uses(self, worker: OutboxWorker | StoreWorker) -> None:
        self._executors.append(worker._thread)  # the thread dies with the process

    async def killed(self) -> None:
        for executor in self._executors:
            self._loop.kill_executor(executor)
        storing = [one._storing for one in self._pipelines if one._storing is not None]
        for task in (*self._tasks, *storing):
            task.cancel()
        await asyncio.gather(*self._tasks, *storing, return_exceptions=True)

    def check(self) -> None:
        """Raises what a task died of."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()
                raise Broken(f"{task} has ended")


@dataclass
class World:
    """Everything there is. `log`: what happened when, for whoever replays a seed."""

    seed: int
    clock: Clock
    loop: VirtualLoop
    chance: random.Random
    plan: Scenario
    disk: Disk = field(default_factory=Disk)
    store: _Store = field(default_factory=_Store)
    account: Account = field(default_factory=Account)
    log: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    taken: int = 0
    scans: int = 0
    dead_lanes: set[Lane] = field(default_factory=set)
    copied: bool = False
    boots: int = 0

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(queue_max=self.plan.queue_max, window=self.chance.choice((1, 20, 200)))
        self.store.add_tenant(PLANT.tenant)
        self.store.add_plant(PLANT)
        self.groups = [
            Group("plc", f"g{at}", self.plan.period_s, _tags(f"m-{at}"), priority=priority)
            for at, priority in enumerate(self.plan.priorities)
        ]
        self.agent = _Process(self.loop)
        self.receiver = _Process(self.loop)
        self.worker: OutboxWorker | None = None
        self.pipeline: Pipeline | None = None
        self.is_producing = True
        self.store_backups: list[_Store] = []
        self.disk_backups: list[Disk] = []

    def say(self, what: str) -> None:
        self.log.append(f"{self.clock.now_s:9.3f} {what}")

    # --- the gateway ---

    async def start_agent(self) -> None:
        copied, self.copied = self.copied, False
        process = self.agent = _Process(self.loop)
        outbox = SimulatedOutbox(
            self.disk, self.plan.limits, self.chance, self.note, copied=copied, boot=f"boot {self.boots}"
        )
        worker = self.worker = OutboxWorker(lambda: outbox)
        process.uses(worker)
        await worker.open()
        started_s = time.monotonic()

        async def status(session: int) -> Status:
            stats, held, formers = await worker.run(lambda box: (box.stats(), box.held(), box.formers()))
            return heartbeat.build(
                heartbeat.Figures(
                    thing=GATEWAY.thing, version="simulated", session=session, epoch=outbox.epoch,
                    instance=outbox.instance, host="simulated", now_us=time.time_ns() // 1000,
                    uptime_s=time.monotonic() - started_s, broker_host="broker", stats=stats, full_in_s=None,
                    held=held, sent={lane: forwarder.window.sent(lane) for lane in held}, devices={},
                    readings_lost=0, clock=ClockStatus(), config_hash="", formers=forwarder.unanswered(formers),
                )
            )  # fmt: skip

        forwarder = Forwarder(
            self.broker.agent_link(GATEWAY.thing), worker, GATEWAY, {"m": MachineTopic(PLANT, "m")}, status,
            lambda: outbox.epoch, instance=lambda: outbox.instance,
            backlog_bytes_per_s=self.plan.backlog_bytes_per_s,
        )  # fmt: skip
        self.batcher = Batcher(Book(GATEWAY.thing, self.groups), {"plc": "m"})
        self.pipeline = Pipeline(self.batcher, worker, self.plan.batch_s, forwarder.appended)
        process.stores_with(self.pipeline)
        await forwarder.learn()
        process.runs(forwarder.run(), self.pipeline.run(), self.produce(self.pipeline), _tend(worker))

    async def produce(self, pipeline: Pipeline) -> None:
        """The plant and its poller: a counter that no two scans share."""
        while True:
            for group in self.groups:
                if self.is_producing:
                    self.scans += 1
                    values = [self.scans, self.scans * 0.5, bool(self.scans % 2)]
                    pipeline.take(Scan(group, time.time_ns() // 1000, values))
            await asyncio.sleep(self.plan.period_s)

    def note(self, lane: Lane, seq: int, encoded: Encoded) -> None:
        """The outbox has taken this."""
        known = {one.ref: definitions.decode(one.message) for one in encoded.definitions}
        decoded = envelope.decode(encoded.payload, known.get)
        self.account.note((*lane, seq), _counters(decoded))

    async def kill_agent(self) -> None:
        self.broker.cut(GATEWAY.thing)
        await self.agent.killed()

    # --- the receiver ---

    async def start_receiver(self) -> None:
        process = self.receiver = _Process(self.loop)
        worker = StoreWorker(lambda: self.store)
        process.uses(worker)
        await worker.open()
        process.runs(Receiver(self.broker.cloud_link(CLOUD), worker).run())

    async def kill_receiver(self) -> None:
        self.broker.cut(CLOUD)
        await self.receiver.killed()

    # --- what faults need ---

    async def pause(self, least_s: float, most_s: float) -> None:
        await asyncio.sleep(self.chance.uniform(least_s, most_s))

    def now_us(self) -> int:
        return self.clock.time_ns() // 1000

    def lanes(self) -> dict[Lane, int]:
        """The last number in each lane, as the disk says."""
        return dict(_lasts(self.disk))

    def disk_was_replaced(self, before: Disk) -> None:
        """What the old disk held and the new one does not is gone, unless it was delivered."""
        kept = dict(_lasts(self.disk))
        for key in list(self.account.destroyed):
            lane = Lane(*key[:2])
            self.account.destroyed.discard(key)
            if key[2] > kept.get(lane, 0):  # that it was destroyed, this disk does not know
                self.account.undone.add(key)
            if lane not in kept:
                self.dead_lanes.add(lane)
        for lane, last in _lasts(before):
            for seq in range(kept.get(lane, 0) + 1, last + 1):
                self.account.undone.add((*lane, seq))
            if lane not in kept:
                self.dead_lanes.add(lane)

    def database_was_lost(self, before: Disk) -> None:
        """The gateway itself has to tell of what it gave, and only there: nobody may wait for it."""
        told = () if before.passport is None else (*before.passport.epochs, *before.passport.damaged)
        for lane, last in _lasts(before):
            numbers = {(*lane, seq) for seq in range(1, last + 1)}
            if lane.epoch in told:
                self.account.destroyed |= numbers
            else:
                self.account.undone |= numbers
                self.dead_lanes.add(lane)

    def store_was_restored(self) -> None:
        """Lanes that the gateway holds no more, nobody can tell the restored database about."""
        there = {lane for lane, _ in _lasts(self.disk)}
        for machine, epoch, seq in self.account.taken:
            if (machine, epoch) not in there:
                self.account.undone.add((machine, epoch, seq))
                self.dead_lanes.add(Lane(machine, epoch))

    def check(self) -> None:
        """Raises what a program died of."""
        self.agent.check()
        self.receiver.check()

    async def end(self) -> None:
        """Nothing goes on."""
        await self.agent.killed()
        await self.receiver.killed()

    # --- the end ---

    async def heal(self) -> None:
        """Everything works again; the plant falls silent once the last reading is in the outbox."""
        self.broker.start()
        self.broker.release()
        for pattern in ("factory/#", "ops/#"):
            self.broker.answer(pattern, None)
        self.store.away = self.disk.full = False
        self.disk.failing = 0.0
        self.is_producing = False
        end_s = self.clock.now_s + HEALING_S
        while not await self.is_settled():
            if self.clock.now_s > end_s:
                assert self.worker is not None
                held = await self.worker.call(Outbox.held)
                raise Broken(f"not settled {HEALING_S:g} s after everything healed: {held}, {self.ledger()}")
            await asyncio.sleep(5.0)
            self.check()

    async def is_settled(self) -> bool:
        assert self.worker is not None
        assert self.pipeline is not None
        if self.pipeline._waiting or self.batcher._open:  # collected, and not in the outbox yet
            return False
        held = await self.worker.call(Outbox.held)
        return not any(one.waiting or one.dropped for one in held.values())

    def ledger(self) -> dict[str, Any]:
        """What the receiver would confirm, by epoch."""
        ledgers = self.store.ledgers(MachineTopic(PLANT, "m"))
        return {ledger.epoch: (confirm(ledger), ledger) for ledger in ledgers}

    def verdict(self) -> Counter[str]:
        """Raises Broken."""
        stored: Counter[int] = Counter()
        for topic, tag, _, _, value, _ in self.store.readings:
            if tag.endswith("-n"):
                assert topic.machine == "m"
                stored[int(str(value))] += 1
        dropped, missing = set(), set()
        for epoch, (word, ledger) in self.ledger().items():
            dropped |= {("m", epoch, seq) for first, last in ledger.dropped for seq in range(first, last + 1)}
            if Lane("m", epoch) not in self.dead_lanes:
                missing |= {("m", epoch, seq) for first, last in word.missing for seq in range(first, last + 1)}
        return check(self.account, {"m": stored}, dropped, missing, self.dead()) + self.faults

    def dead(self) -> set[int]:
        """Counters in dead letters; there are none, unless a number was given twice."""
        machine, found = MachineTopic(PLANT, "m"), set[int]()

        def lookup(ref: bytes) -> definitions.Definition | None:
            message = self.store.definition(machine, ref)
            return None if message is None else definitions.decode(message)

        for letter in self.store.dead_letters(1_000_000):
            payload, _ = unmark(self.store.dead_letter(letter.id)[1])
            found |= set(_counters(envelope.decode(payload, lookup)))
        return found


def _counters(batch: Batch) -> list[int]:
    return [
        value
        for block in batch.blocks
        for column in block.columns
        if column.name.endswith("-n")
        for value in column.values
        if isinstance(value, int)
    ]


def _tags(prefix: str) -> tuple[Tag, ...]:
    kinds = (("n", ValueType.INT), ("half", ValueType.FLOAT64), ("odd", ValueType.BOOL))
    return tuple(Tag(f"{prefix}-{name}", kind) for name, kind in kinds)


def _lasts(disk: Disk) -> Iterator[tuple[Lane, int]]:
    """The last number given in each lane."""
    for number, packed in disk.lanes.items():
        state = unpack_lane(number, packed, lambda _: None)
        yield state.name, state.last


async def _tend(worker: OutboxWorker) -> None:
    while True:
        await asyncio.sleep(5.0)
        with suppress(OutboxError):  # as in agent/main.py, where it is told
            await worker.call(Outbox.tend, time.time_ns() // 1000)
