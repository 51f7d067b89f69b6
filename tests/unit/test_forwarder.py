"""The forwarder between an outbox and a broker in memory: what it publishes, when, and when it lets go.

A wait here has a limit only so that a failure says where it waited; no time is asserted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from agent.outbox.contract import Draft, Encoded, GroupDefinition, Outbox
from agent.outbox.memory import MemoryOutbox
from agent.outbox.worker import OutboxWorker
from agent.uplink import forwarder as module
from agent.uplink import window
from agent.uplink.forwarder import GONE, Delivery, Forwarder
from protocols.uplink.confirm import Confirm, MachineConfirm
from protocols.uplink.link import LinkAway, Message, Outcome
from protocols.uplink.memory import MemoryBroker, MemoryCloudLink
from protocols.uplink.status import MachineNumbers, Status, decode
from protocols.uplink.topics import (
    DEFINITION_FILTER,
    STATUS_FILTER,
    TELEMETRY_FILTER,
    GatewayTopic,
    MachineTopic,
    Plant,
)

PATIENCE_S = 10.0
PLANT = Plant("acme", "north", "p1")
PRESS = MachineTopic(PLANT, "press")
GATEWAY = GatewayTopic(PLANT, "gw-1")
FILTERS = (DEFINITION_FILTER, TELEMETRY_FILTER, STATUS_FILTER)
MAIN = GroupDefinition(b"ref-01", "plc-1", "main", b"definition 1")
LATER = GroupDefinition(b"ref-02", "plc-1", "main", b"definition 2")
OTHER = GroupDefinition(b"ref-03", "plc-2", "other", b"definition 3")
MAIN_SENT = (PRESS.definition("plc-1", "main"), b"definition 1")
LATER_SENT = (PRESS.definition("plc-1", "main"), b"definition 2")
OTHER_SENT = (PRESS.definition("plc-2", "other"), b"definition 3")


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter pauses than in life."""
    monkeypatch.setattr(module, "RETRY_S_FIRST", 0.01)
    monkeypatch.setattr(module, "RETRY_S_MAX", 0.02)
    monkeypatch.setattr(module, "REFUSED_PAUSE_S", 0.05)
    monkeypatch.setattr(window, "RESEND_S", 0.0)


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for it; TimeoutError where it never comes."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.002)


def batch(seq: int) -> tuple[str, bytes]:
    """Telemetry as it is published."""
    return (PRESS.telemetry, b"batch %d" % seq)


@dataclass
class Cloud:
    """A receiver that notes what comes and says what it is told to. `sent`: telemetry and definitions, in order."""

    link: MemoryCloudLink
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    said: list[Status] = field(default_factory=list)

    async def listen(self) -> None:
        await self.link.connect(FILTERS)
        while True:
            for delivery in await self.link.deliveries(100):
                delivery.ack()
                if delivery.topic == GATEWAY.status:
                    self.said.append(decode(delivery.payload))
                else:
                    self.sent.append((delivery.topic, delivery.payload))

    async def confirm(self, through: int, *missing: tuple[int, int], asks: tuple[bytes, ...] = (), **more: str) -> None:
        said = {"epoch": "00000000000000aa", **more}
        word = MachineConfirm(
            epoch=said["epoch"], through=through, missing=list(missing), definitions=[ref.hex() for ref in asks]
        )
        await self.raw(Confirm(timestamp=1, machines={"press": word}).encode())

    async def raw(self, payload: bytes) -> None:
        assert await self.link.publish(Message(GATEWAY.confirm, payload)) is Outcome.ACCEPTED

    async def got(self, *expected: tuple[str, bytes]) -> None:
        """Wait until these, and nothing else, came since the last time."""
        await until(lambda: len(self.sent) >= len(expected))
        assert self.sent == list(expected)
        self.sent.clear()


@dataclass
class Site:
    """A gateway's uplink and its surroundings."""

    broker: MemoryBroker
    outbox: MemoryOutbox
    worker: OutboxWorker
    forwarder: Forwarder

    async def append(self, *definitions: GroupDefinition) -> None:
        """One batch that refers to these."""
        draft = Draft("press", lambda _, seq: Encoded(b"batch %d" % seq, definitions))
        await self.worker.call(Outbox.append, [draft], 1)
        self.forwarder.wake()

    async def batches(self) -> int:
        return (await self.worker.call(Outbox.stats)).batches

    async def holds(self, count: int) -> None:
        """Wait until the outbox holds so many batches."""

        async def so_many() -> bool:
            return await self.batches() == count

        await until(so_many)

    async def connected(self, session: int = 1) -> None:
        """Wait until it is, in this session or a later one: each attempt takes a number."""
        await until(lambda: self.forwarder.state.connected and self.forwarder.state.session >= session)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The forwarder at work; it must end by itself when it is told to."""
        task = asyncio.create_task(self.forwarder.run(), name="forwarder")
        try:
            yield
        finally:
            self.forwarder.stop()
            async with asyncio.timeout(PATIENCE_S):
                await task

    @asynccontextmanager
    async def receiver(self) -> AsyncIterator[Cloud]:
        cloud = Cloud(self.broker.cloud_link("receiver"))
        task = asyncio.create_task(cloud.listen(), name="receiver")
        await asyncio.sleep(0)
        try:
            yield cloud
        finally:
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            await cloud.link.close()
        assert isinstance(ended, asyncio.CancelledError | LinkAway), ended


@asynccontextmanager
async def site(delivery: Delivery = "confirmed", in_flight_max: int = 50) -> AsyncIterator[Site]:
    broker, outbox = MemoryBroker(in_flight_max=in_flight_max), MemoryOutbox()
    worker = OutboxWorker(lambda: outbox)
    await worker.open()

    async def status(session: int) -> Status:
        held = await worker.call(Outbox.held)
        machines = {
            name: MachineNumbers(
                last_seq=one.last,
                sent_seq=forwarder.window.sent_seq(name),
                dropped=[(gone.first, gone.last, gone.reason) for gone in one.dropped],
            )
            for name, one in held.items()
        }
        return Status(timestamp=1, state="online", session=session, epoch=outbox.epoch, machines=machines)

    link = broker.agent_link(GATEWAY.thing)
    forwarder = Forwarder(link, worker, GATEWAY, {"press": PRESS}, status, outbox.epoch, delivery)
    try:
        yield Site(broker, outbox, worker, forwarder)
    finally:
        await worker.close()


# --- definitions ---


async def test_definitions_go_before_the_batches_that_refer_to_them() -> None:
    async with site() as one, one.receiver() as cloud:
        await one.append(MAIN)
        await one.append(MAIN, OTHER)
        await one.append(LATER)
        async with one.running():
            await cloud.got(MAIN_SENT, OTHER_SENT, LATER_SENT, batch(1), batch(2), batch(3))
            await one.append(LATER, OTHER)  # nothing new is referred to
            await cloud.got(batch(4))
        newcomer = one.broker.cloud_link("newcomer")
        await newcomer.connect([DEFINITION_FILTER])
        retained = await newcomer.deliveries(10)
        assert {(kept.topic, kept.payload, kept.retained) for kept in retained} == {
            (*LATER_SENT, True),
            (*OTHER_SENT, True),
        }
        await newcomer.close()


async def test_a_new_definition_goes_before_the_batch_that_brings_it() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        for definition, sent, seq in [(MAIN, MAIN_SENT, 1), (LATER, LATER_SENT, 2), (OTHER, OTHER_SENT, 3)]:
            await one.append(definition)
            await cloud.got(sent, batch(seq))


async def test_definitions_are_said_again_on_each_connection() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        await one.append(MAIN)
        await cloud.got(MAIN_SENT, batch(1))
        one.broker.cut(GATEWAY.thing)
        await one.connected(session=2)
        await cloud.got(MAIN_SENT)  # the batch was taken: it does not go again
        await one.append(MAIN)
        await cloud.got(batch(2))


async def test_a_definition_that_the_receiver_asks_for_goes_again() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        await one.append(MAIN, OTHER)
        await one.append(MAIN)
        await cloud.got(MAIN_SENT, OTHER_SENT, batch(1), batch(2))
        await cloud.confirm(0, asks=(b"never heard of",), epoch="ff")
        await cloud.confirm(0, asks=(b"never heard of",))
        await cloud.confirm(0, asks=(MAIN.ref,), epoch="ff")  # another epoch's
        await cloud.confirm(0, (2, 2), asks=(MAIN.ref,))
        await cloud.got(MAIN_SENT, batch(2))


async def test_nothing_goes_without_its_definition() -> None:
    async with site() as one, one.receiver() as cloud:
        one.broker.deny(DEFINITION_FILTER)
        await one.append(MAIN)
        async with one.running():
            await until(lambda: "definition of plc-1 of machine press" in one.forwarder.state.trouble)
            assert "allow this gateway to publish there" in one.forwarder.state.trouble
            one.broker.answer(DEFINITION_FILTER, None)
            await cloud.got(MAIN_SENT, batch(1))
            await until(lambda: one.forwarder.state.trouble == "")


# --- letting go ---


async def test_only_what_is_confirmed_is_let_go() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        for _ in range(3):
            await one.append()
        await cloud.got(batch(1), batch(2), batch(3))
        await cloud.confirm(3, epoch="ff")
        await cloud.raw(b"no confirm at all")
        await cloud.confirm(2)
        await one.holds(1)
        await cloud.confirm(3)
        await one.holds(0)


async def test_what_the_receiver_misses_goes_again() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        for _ in range(4):
            await one.append()
        await cloud.got(batch(1), batch(2), batch(3), batch(4))
        await cloud.confirm(1, (2, 3))
        await cloud.got(batch(2), batch(3))
        assert await one.batches() == 3


async def test_what_the_receiver_misses_and_is_no_longer_here_is_declared_dropped() -> None:
    """Its database is new, or restored: it must not wait for ever."""
    async with site() as one, one.receiver() as cloud:
        for _ in range(5):
            await one.append()
        await one.worker.call(Outbox.release, "press", 3)  # confirmed in an earlier life
        async with one.running():
            await cloud.got(batch(4), batch(5))
            assert all(not status.machines["press"].dropped for status in cloud.said)
            await cloud.confirm(0, (1, 4))
            await cloud.got(batch(4))
            await until(lambda: bool(cloud.said[-1].machines["press"].dropped))
            assert cloud.said[-1].machines["press"].dropped == [(1, 3, GONE)]
            heard = len(cloud.said)
            await cloud.confirm(0, (1, 3))  # crossed the heartbeat: it is declared already
            await cloud.confirm(5)
            await one.holds(0)
            assert len(cloud.said) == heard
            one.forwarder.beat_now()
            await until(lambda: len(cloud.said) > heard)
            assert cloud.said[-1].machines["press"].dropped == [], "the receiver knows by now"


async def test_a_machine_that_is_not_here_is_no_concern() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        await one.connected()
        await cloud.confirm(7, (8, 9))
        await one.append()
        await cloud.got(batch(1))
        assert await one.batches() == 1


async def test_with_delivery_to_the_broker_its_word_lets_go() -> None:
    async with site(delivery="broker") as one, one.receiver() as cloud, one.running():
        await one.append(MAIN)
        await one.append(MAIN)
        await cloud.got(MAIN_SENT, batch(1), batch(2))
        await one.holds(0)


async def test_with_delivery_to_the_broker_what_it_has_not_answered_stays() -> None:
    async with site(delivery="broker") as one, one.receiver() as cloud, one.running():
        await one.append()
        await cloud.got(batch(1))
        await one.holds(0)
        one.broker.hold()
        await one.append()
        await cloud.got(batch(2))
        assert await one.batches() == 1
        one.broker.release()
        await one.holds(0)


async def test_draining_ends_when_all_is_confirmed_and_not_before() -> None:
    async with site() as one, one.receiver() as cloud:
        await one.append(MAIN)
        await one.append(MAIN)
        drained = asyncio.create_task(one.forwarder.drained())
        await one.holds(2)
        assert not drained.done(), "the link is away: there is time until it is back"
        async with one.running():
            await cloud.got(MAIN_SENT, batch(1), batch(2))
            await cloud.confirm(1)
            await one.holds(1)
            assert not drained.done()
            await cloud.confirm(2)
            async with asyncio.timeout(PATIENCE_S):
                await drained
        assert await one.batches() == 0


async def test_an_empty_outbox_is_drained() -> None:
    async with site() as one:
        async with asyncio.timeout(PATIENCE_S):
            await one.forwarder.drained()


# --- what the broker refuses ---


async def test_without_a_receiver_it_waits_and_says_so() -> None:
    async with site() as one:
        await one.append(MAIN)
        async with one.running():
            await until(lambda: "nobody is subscribed" in one.forwarder.state.trouble)
            assert "machine press" in one.forwarder.state.trouble
            assert "start the receiver; the data waits here on disk" in one.forwarder.state.trouble
            async with one.receiver() as cloud:
                await until(lambda: batch(1) in cloud.sent)
                assert cloud.sent == [MAIN_SENT, batch(1)]  # the definition was kept by the broker
                await until(lambda: one.forwarder.state.trouble == "")
                assert await one.batches() == 1


@pytest.mark.parametrize(
    ("outcome", "remedy"),
    [
        (Outcome.DENIED, "allow this gateway to publish there"),
        (Outcome.TOO_LARGE, "raise the broker's message size limit"),
        (Outcome.QUOTA, "look at the broker's quotas"),
        (Outcome.REFUSED, "look at the broker's log"),
    ],
)
async def test_what_the_broker_refuses_stays_and_is_said(outcome: Outcome, remedy: str) -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        one.broker.answer(TELEMETRY_FILTER, outcome)
        await one.append()
        await until(lambda: outcome.value in one.forwarder.state.trouble)
        assert remedy in one.forwarder.state.trouble
        assert one.forwarder.state.connected
        assert await one.batches() == 1
        one.broker.answer(TELEMETRY_FILTER, None)
        await cloud.got(batch(1))
        await until(lambda: one.forwarder.state.trouble == "")


async def test_a_refused_heartbeat_is_said() -> None:
    async with site() as one, one.receiver(), one.running():
        one.broker.deny(STATUS_FILTER)
        one.forwarder.beat_now()
        await until(lambda: "does not take this gateway's status" in one.forwarder.state.trouble)


# --- connections ---


async def test_it_says_goodbye_at_a_planned_stop() -> None:
    async with site() as one, one.receiver() as cloud:
        async with one.running():
            await until(lambda: bool(cloud.said))
        await until(lambda: cloud.said[-1].state == "offline")
        assert [(said.state, said.reason, said.session) for said in cloud.said] == [
            ("online", None, 1),
            ("offline", "shutdown", 1),
        ]
        assert not one.forwarder.state.connected


async def test_what_was_in_flight_when_the_connection_broke_goes_again() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        await until(lambda: bool(cloud.said))
        one.broker.hold(stored=False)
        await one.append()
        await one.append()
        await until(lambda: len(one.broker._held) >= 2)
        one.broker.cut(GATEWAY.thing)
        one.broker.release()
        await one.connected(session=2)
        await cloud.got(batch(1), batch(2))
        assert [(said.state, said.session) for said in cloud.said[:2]] == [("online", 1), ("offline", 1)]  # the will


async def test_all_that_is_unconfirmed_goes_again_after_the_broker_forgot_everything() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        await one.append(MAIN)
        await cloud.got(MAIN_SENT, batch(1))
        one.broker.wipe()
        async with one.receiver() as again:
            await one.connected(session=2)
            await until(lambda: batch(1) in again.sent)
            assert [sent for sent in again.sent if sent != MAIN_SENT] == [batch(1)]
            assert again.sent[0] == MAIN_SENT


async def test_while_the_broker_is_away_it_says_so_and_comes_back() -> None:
    async with site() as one, one.running():
        await one.connected()
        one.broker.stop()
        await until(lambda: one.forwarder.state.trouble == "memory broker: not running; start it")
        assert not one.forwarder.state.connected
        one.broker.start()
        await one.connected(session=2)
        assert one.forwarder.state.trouble == ""


async def test_a_broker_that_takes_one_message_at_a_time_is_refused_in_a_sentence() -> None:
    async with site(in_flight_max=1) as one, one.running():
        await until(lambda: "it must allow two or more" in one.forwarder.state.trouble)


async def test_never_more_in_flight_than_the_broker_takes() -> None:
    """The broker in memory raises where a client has more open."""
    async with site(in_flight_max=3) as one, one.receiver() as cloud, one.running():
        await until(lambda: bool(cloud.said))
        one.broker.hold()
        for definition in (MAIN, OTHER, LATER, MAIN):
            await one.append(definition)
        for _ in range(12):
            await asyncio.sleep(0)
            one.broker.release()
            one.broker.hold()
            await asyncio.sleep(0.005)
        one.broker.release()
        await until(lambda: batch(4) in cloud.sent)
        seqs = [sent for sent in cloud.sent if sent[0] == PRESS.telemetry]
        assert seqs == [batch(1), batch(2), batch(3), batch(4)]
