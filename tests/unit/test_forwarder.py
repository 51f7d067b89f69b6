"""The forwarder between an outbox and a broker in memory: what it publishes, when, and when it lets go.

A wait here has a limit only so that a failure says where it waited; no time is asserted.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from agent.definitions import Book
from agent.outbox.contract import (
    HIGH,
    NORMAL,
    NOTHING,
    Draft,
    Dropped,
    Encoded,
    GroupDefinition,
    Held,
    Lane,
    Outbox,
    OutboxError,
    Stored,
)
from agent.outbox.memory import MemoryOutbox
from agent.outbox.worker import OutboxWorker
from agent.uplink import confirms, sender, window
from agent.uplink import forwarder as module
from agent.uplink.former import GONE
from agent.uplink.forwarder import HOLD_S, Delivery, Forwarder
from agent.uplink.fresh import Fresh
from agent.uplink.orphans import UNDEFINED
from agent.uplink.trouble import Kind
from protocols.field.contract import Group, Scan, Tag
from protocols.uplink import definition
from protocols.uplink.confirm import Confirm, MachineConfirm
from protocols.uplink.definition import Referring
from protocols.uplink.envelope import decode as decode_batch
from protocols.uplink.envelope import encode_referring
from protocols.uplink.link import LinkAway, Message, Outcome
from protocols.uplink.mark import unmark
from protocols.uplink.memory import MemoryBroker, MemoryCloudLink
from protocols.uplink.ranges import Range, Ranges
from protocols.uplink.status import MachineNumbers, Status, decode, will
from protocols.uplink.topics import (
    DEFINITION_FILTER,
    STATUS_FILTER,
    TELEMETRY_FILTER,
    GatewayTopic,
    MachineTopic,
    Plant,
)
from protocols.values import ValueType

PATIENCE_S = 10.0
PLANT = Plant("acme", "north", "p1")
PRESS = MachineTopic(PLANT, "press")
GATEWAY = GatewayTopic(PLANT, "gw-1")
FILTERS = (DEFINITION_FILTER, TELEMETRY_FILTER, STATUS_FILTER)
EPOCH = "00000000000000aa"
LANE = Lane("press", EPOCH)
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
    monkeypatch.setattr(module, "HOLD_S", 0.02)
    monkeypatch.setattr(sender, "REFUSED_PAUSE_S", 0.05)
    monkeypatch.setattr(confirms, "WRITE_S", 0.0)
    monkeypatch.setattr(window, "RESEND_S", 0.0)
    monkeypatch.setattr(window, "ASIDE_REST_S", 0.05)


@pytest.fixture
def patiently(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for the receiver's word waits as long as in life."""
    monkeypatch.setattr(module, "HOLD_S", HOLD_S)


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for it; TimeoutError where it never comes."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.002)


def message(seq: int, *definitions: GroupDefinition, noise: int = 0) -> bytes:
    """Telemetry that refers to these, and holds so many bytes that do not compress."""
    content = random.Random(seq).randbytes(noise)
    return encode_referring(seq, [Referring([one.ref, [content]], []) for one in definitions])


def batch(seq: int, *definitions: GroupDefinition) -> tuple[str, bytes]:
    """Telemetry as it is published."""
    return (PRESS.telemetry, message(seq, *definitions))


@dataclass
class Cloud:
    """A receiver that notes what comes and says what it is told to. `sent`: telemetry and definitions, in order.

    `marked`: telemetry that was marked as historical.
    """

    link: MemoryCloudLink
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    marked: list[tuple[str, bytes]] = field(default_factory=list)
    said: list[Status] = field(default_factory=list)

    async def listen(self) -> None:
        await self.link.connect(FILTERS)
        while True:
            for delivery in await self.link.deliveries(100):
                delivery.ack()
                if delivery.topic == GATEWAY.status:
                    self.said.append(decode(delivery.payload))
                    continue
                payload, is_history = unmark(delivery.payload)
                self.sent.append((delivery.topic, payload))
                if is_history:
                    self.marked.append((delivery.topic, payload))

    async def confirm(
        self,
        through: int,
        *missing: tuple[int, int],
        asks: tuple[bytes, ...] = (),
        epoch: str = EPOCH,
        highest: int = 0,
        **more: str,
    ) -> None:
        refs = [ref.hex() for ref in asks]
        word = MachineConfirm(epoch=epoch, through=through, highest=highest, missing=list(missing), definitions=refs)
        await self.say(Confirm(timestamp=1, machines={"press": word}, **more))

    async def say(self, confirm: Confirm) -> None:
        await self.raw(confirm.encode())

    async def raw(self, payload: bytes) -> None:
        assert await self.link.publish(Message(GATEWAY.confirm, payload)) is Outcome.ACCEPTED

    async def got(self, *expected: tuple[str, bytes]) -> None:
        """Wait until these, and nothing else, came since the last time."""
        await until(lambda: len(self.sent) >= len(expected))
        assert self.sent == list(expected)
        self.sent.clear()


class NotingOutbox(MemoryOutbox):
    """`calls`: what it was asked, in order. `refusals`: how often it is yet to fail when asked so."""

    def __init__(self, epoch: str, grace_s: float) -> None:
        super().__init__(epoch, grace_s=grace_s)
        self.calls: list[str] = []
        self.refusals: Counter[str] = Counter()

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.refusals[call] > 0:
            self.refusals[call] -= 1
            raise OutboxError("outbox in memory: it was told to fail; wait")

    def next_session(self) -> int:
        self._note("next_session")
        return super().next_session()

    def pending(self, lane: Lane, first: int, last: int, count_max: int) -> Sequence[Stored]:
        self._note("pending")
        return super().pending(lane, first, last, count_max)

    def offer(self, lane: Lane, first: int, last: int) -> None:
        self._note("offer")
        super().offer(lane, first, last)

    def confirmed(self, lane: Lane, through: int, above: Ranges, now_us: int) -> None:
        self._note("confirmed")
        super().confirmed(lane, through, above, now_us)

    def wanted(self, lane: Lane, missing: Ranges) -> Ranges:
        self._note("wanted")
        return super().wanted(lane, missing)

    def declare_dropped(self, lane: Lane, first: int, last: int, reason: str) -> None:
        self._note("declare_dropped")
        super().declare_dropped(lane, first, last, reason)

    def fork(self, reason: str, unsent: Mapping[Lane, Ranges] = NOTHING) -> None:
        self._note("fork")
        super().fork(reason, unsent)


@dataclass
class Site:
    """A gateway's uplink and its surroundings. `calls`: of the outbox, in order.

    `is_begun`: what is appended is appended in this run of the program, not in an earlier one.
    """

    broker: MemoryBroker
    outbox: NotingOutbox
    worker: OutboxWorker
    forwarder: Forwarder
    calls: list[str]
    is_begun: bool = True

    async def append(self, *definitions: GroupDefinition, noise: int = 0) -> None:
        """One batch that refers to these."""
        await self.append_to("press", NORMAL, *definitions, noise=noise)

    async def append_to(self, machine: str, priority: int, *definitions: GroupDefinition, noise: int = 0) -> None:
        def encode(_: str, seq: int) -> Encoded:
            return Encoded(message(seq, *definitions, noise=noise), definitions)

        await self.append_as(encode, machine, priority)

    async def append_as(
        self, encode: Callable[[str, int], Encoded], machine: str = "press", priority: int = NORMAL
    ) -> None:
        made: list[Fresh] = []

        def noted(epoch: str, seq: int) -> Encoded:
            encoded = encode(epoch, seq)
            made[:] = [Fresh(Lane(machine, epoch), seq, encoded.payload, encoded.definitions, priority)]
            return encoded

        await self.worker.call(Outbox.append, [Draft(machine, noted, 1, priority)], 1)
        if self.is_begun:
            self.forwarder.appended(made)

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
    async def running(self, *, until_connected: bool = True) -> AsyncIterator[None]:
        """The forwarder at work; it must end by itself when it is told to."""
        task = asyncio.create_task(self.forwarder.run(), name="forwarder")
        try:
            if until_connected:
                await self.connected()
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
async def site(
    delivery: Delivery = "confirmed", in_flight_max: int = 50, grace_s: float = 86_400, **broker_options: int
) -> AsyncIterator[Site]:
    broker, outbox = MemoryBroker(in_flight_max=in_flight_max, **broker_options), NotingOutbox(EPOCH, grace_s=grace_s)
    worker = OutboxWorker(lambda: outbox)
    await worker.open()

    async def status(session: int) -> Status:
        held = await worker.call(Outbox.held)
        machines = {
            lane.machine: MachineNumbers(
                last_seq=one.last,
                sent_seq=forwarder.window.sent(lane).through,
                sent_highest=forwarder.window.sent(lane).highest,
                dropped=[(gone.first, gone.last, gone.reason) for gone in one.dropped],
            )
            for lane, one in held.items()
            if lane.epoch == outbox.epoch
        }
        return Status(timestamp=1, state="online", session=session, epoch=outbox.epoch, machines=machines)

    link = broker.agent_link(GATEWAY.thing)
    forwarder = Forwarder(
        link, worker, GATEWAY, {"press": PRESS}, status, lambda: outbox.epoch, delivery, instance=lambda: "me"
    )
    try:
        yield Site(broker, outbox, worker, forwarder, outbox.calls)
    finally:
        await worker.close()


# --- definitions ---


async def test_definitions_go_before_the_batches_that_refer_to_them() -> None:
    async with site() as one, one.receiver() as cloud:
        await one.append(MAIN)
        await one.append(MAIN, OTHER)
        await one.append(LATER)
        async with one.running():
            await cloud.got(
                *(MAIN_SENT, batch(1, MAIN)),
                *(OTHER_SENT, batch(2, MAIN, OTHER)),
                *(LATER_SENT, batch(3, LATER)),
            )
            await one.append(LATER, OTHER)  # nothing new is referred to
            await cloud.got(batch(4, LATER, OTHER))
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
            await cloud.got(sent, batch(seq, definition))


async def test_definitions_are_said_again_on_each_connection() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        await one.append(MAIN)
        await cloud.got(MAIN_SENT, batch(1, MAIN))
        one.broker.cut(GATEWAY.thing)
        await one.connected(session=2)
        await one.append(MAIN)  # the batch before was taken: it does not go again
        await cloud.got(MAIN_SENT, batch(2, MAIN))


async def test_a_definition_that_the_receiver_asks_for_goes_again() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        await one.append(MAIN, OTHER)
        await one.append(MAIN)
        await cloud.got(MAIN_SENT, OTHER_SENT, batch(1, MAIN, OTHER), batch(2, MAIN))
        await cloud.confirm(0, asks=(b"never heard of",), epoch="ff")
        await cloud.confirm(0, asks=(b"never heard of",))
        await cloud.confirm(0, asks=(MAIN.ref,), epoch="ff")  # another epoch's
        await cloud.confirm(0, (2, 2), asks=(MAIN.ref,))
        await cloud.got(MAIN_SENT, batch(2, MAIN))


async def test_what_refers_to_a_definition_that_is_lost_is_given_up_when_the_receiver_asks_for_it() -> None:
    """As a damaged outbox leaves it: the batches are there, and what they refer to is not."""
    async with site() as one, one.receiver() as cloud, one.running():
        await one.append(MAIN)
        await one.append_as(lambda _, seq: Encoded(message(seq, LATER)))
        await one.append_as(lambda _, seq: Encoded(message(seq, LATER, OTHER)))
        await one.append_as(lambda _, seq: Encoded(message(seq, OTHER)))
        await until(lambda: len(cloud.sent) == 5)
        await cloud.confirm(1, (2, 4), asks=(MAIN.ref,))  # it is kept, and goes again
        await until(lambda: cloud.sent.count(MAIN_SENT) == 2)
        assert await one.batches() == 3
        await cloud.confirm(1, (2, 4), asks=(LATER.ref,))
        await one.holds(1)
        [held] = (await one.worker.call(Outbox.held)).values()
        assert (held.waiting, list(held.dropped)) == (((4, 4),), [Dropped(2, 3, UNDEFINED)])
        await until(lambda: any(one.dropped == [(2, 3, UNDEFINED)] for one in cloud.said[-1].machines.values()))
        await cloud.confirm(3, (4, 4), asks=(OTHER.ref,))
        await one.holds(0)


async def test_what_may_be_anothers_is_not_given_up() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        await one.append_as(lambda _, seq: Encoded(message(seq, LATER)))
        await until(lambda: len(cloud.sent) == 1)
        await cloud.confirm(0, (1, 1), asks=(LATER.ref,), fenced="two speak", fenced_instance="other")
        await until(lambda: one.forwarder.trouble == "two speak")
        await one.append(MAIN)
        await until(lambda: batch(2, MAIN) in cloud.sent)
        assert await one.batches() == 2


async def test_nothing_goes_without_its_definition() -> None:
    async with site() as one, one.receiver() as cloud:
        one.broker.deny(DEFINITION_FILTER)
        await one.append(MAIN)
        async with one.running():
            await until(lambda: "definition of plc-1 of machine press" in one.forwarder.trouble)
            assert "allow this gateway to publish there" in one.forwarder.trouble
            one.broker.answer(DEFINITION_FILTER, None)
            await cloud.got(MAIN_SENT, batch(1, MAIN))
            await until(lambda: one.forwarder.trouble == "")


async def test_the_broker_keeps_the_newest_definition_whatever_the_backlog_needs() -> None:
    async with site() as one, one.receiver() as cloud:
        await one.append(MAIN)
        one.broker.hold()
        async with one.running():
            await one.append(LATER)
            await until(lambda: LATER_SENT in cloud.sent)
            one.broker.release()
            await until(lambda: batch(1, MAIN) in cloud.sent and batch(2, LATER) in cloud.sent)
            newcomer = one.broker.cloud_link("newcomer")
            await newcomer.connect([DEFINITION_FILTER])
            [kept] = await newcomer.deliveries(10)
            assert (kept.topic, kept.payload) == LATER_SENT
            await newcomer.close()


# --- live first ---


async def test_new_batches_pass_the_backlog_which_is_marked() -> None:
    async with site(in_flight_max=4) as one, one.receiver() as cloud:
        for _ in range(40):
            await one.append()
        one.broker.hold()
        async with one.running():
            await one.append()
            await until(lambda: batch(41) in cloud.sent)
            assert len([sent for sent in cloud.sent if sent in cloud.marked]) < 4
            one.broker.release()
            await until(lambda: len(cloud.sent) == 41)
        assert cloud.marked == [batch(seq) for seq in range(1, 41)], "in order"


async def test_what_is_live_is_published_from_memory_and_offered_ahead() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        await one.append()
        await cloud.got(batch(1))
        await cloud.confirm(1)
        await one.holds(0)
        await one.append()
        await cloud.got(batch(2))
        one.calls.clear()
        for seq in range(3, 40):
            await one.append()
            await cloud.got(batch(seq))
        assert one.calls == []
        assert cloud.marked == []


async def test_high_priority_has_numbers_of_its_own_which_others_confirms() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        await one.append_to("press", HIGH)
        await one.append_to("press", NORMAL)
        await cloud.got(batch(1), batch(1))
        [high] = [lane for lane in await one.worker.call(Outbox.held) if lane.epoch != EPOCH]
        word = MachineConfirm(epoch=high.epoch, through=1, highest=1)
        await cloud.say(Confirm(timestamp=1, machines={}, others={"press": [word]}))
        await one.holds(1)
        await cloud.confirm(1)
        await one.holds(0)


# --- letting go ---


async def test_confirms_are_written_down_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirms, "WRITE_S", 3600.0)
    async with site() as one, one.receiver() as cloud:
        async with one.running():
            for seq in range(1, 6):
                await one.append()
                await cloud.got(batch(seq))
                await cloud.confirm(seq)
            await until(one.forwarder.window.idle)
            assert "confirmed" not in one.calls
            await one.forwarder.drained()
            assert one.calls.count("confirmed") == 1
        await one.holds(0)


async def test_what_the_receiver_has_lost_is_sent_again_while_it_is_kept() -> None:
    """Its database is set back to a backup."""
    async with site() as one, one.receiver() as cloud, one.running():
        for _ in range(3):
            await one.append()
        await cloud.got(batch(1), batch(2), batch(3))
        await cloud.confirm(3)
        await one.holds(0)
        await cloud.confirm(1, (2, 3))
        await cloud.got(batch(2), batch(3))
        assert cloud.marked == [batch(2), batch(3)]
        await cloud.confirm(3)
        await one.holds(0)


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
    async with site(grace_s=0) as one, one.receiver() as cloud:
        for _ in range(5):
            await one.append()
        await one.worker.call(Outbox.confirmed, LANE, 3, (), 1)  # in an earlier life
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


async def over(one: Site) -> Lane:
    """Five batches of an epoch that is over: all was confirmed and let go of."""
    lane, one.is_begun = Lane("press", one.outbox.epoch), False
    for _ in range(5):
        await one.append()
    await one.worker.call(Outbox.confirmed, lane, 5, (), 1)
    await one.worker.call(Outbox.fork, "the machine was booted")
    await one.worker.call(Outbox.tend, 2)
    assert lane not in one.outbox.held()
    return lane


def of(lane: Lane, through: int, *missing: Range, fenced: str = "") -> Confirm:
    word = MachineConfirm(epoch=lane.epoch, through=through, highest=through, missing=list(missing))
    return Confirm(timestamp=1, machines={lane.machine: word}, fenced=fenced, fenced_instance="another")


async def test_what_the_receiver_lost_of_an_epoch_that_is_over_is_declared_dropped() -> None:
    """Nobody has it any more; what lies above the last number that was given here, a copy might have."""
    async with site(grace_s=0) as one, one.receiver() as cloud:
        old = await over(one)
        async with one.running():
            await cloud.say(of(old, 1, (3, 4), (7, 9)))
            await until(lambda: old in one.outbox.held())
            assert [(gone.first, gone.last, gone.reason) for gone in one.outbox.held()[old].dropped] == [(2, 5, GONE)]
            await cloud.say(of(old, 5))
            await until(lambda: not one.outbox.held().get(old, Held(0)).dropped)
            await one.worker.call(Outbox.tend, 3)
            assert old not in one.outbox.held()


async def test_an_epoch_that_is_over_is_told_of_until_this_run_of_the_receiver_lacks_nothing_of_it() -> None:
    """Its database may be a backup of before that epoch: then it can not ask for it."""
    async with site(grace_s=0) as one, one.receiver() as cloud:
        old = await over(one)

        async def unanswered() -> dict[Lane, int]:
            return one.forwarder.unanswered(await one.worker.call(Outbox.formers))

        async with one.running():
            await cloud.say(of(old, 5))
            await until(lambda: one.forwarder.unanswered({old: 5}) == {})
            await cloud.say(Confirm(timestamp=1, machines={}, receiver="another run"))
            await until(lambda: one.forwarder.unanswered({old: 5}) == {old: 5})
            await cloud.say(of(old, 0, (1, 5)).model_copy(update={"receiver": "another run"}))
            await until(lambda: bool(one.outbox.held().get(old, Held(0)).dropped))
            assert await unanswered() == {}, "the heartbeat names it among those that hold something"
            await cloud.say(of(old, 5).model_copy(update={"receiver": "another run"}))
            await until(lambda: old not in one.outbox.held())
            await until(lambda: one.forwarder.unanswered({old: 5}) == {old: 5})
            await cloud.say(of(old, 5).model_copy(update={"receiver": "another run"}))
            await until(lambda: one.forwarder.unanswered({old: 5}) == {})


async def test_who_delivers_to_the_broker_asks_nobody() -> None:
    async with site("broker") as one:
        assert one.forwarder.unanswered({LANE: 5}) == {}


async def test_nothing_is_declared_of_an_epoch_that_somebody_else_may_have() -> None:
    async with site(grace_s=0) as one, one.receiver() as cloud:
        old, foreign = await over(one), Lane("press", "f0" * 8)
        async with one.running():
            await cloud.say(of(old, 1, (2, 5), fenced="two installations speak under this gateway's name"))
            await until(lambda: Kind.TWINNED in one.forwarder.troubles)
            await cloud.say(of(foreign, 1, (2, 5)))
            await until(lambda: Kind.TWINNED not in one.forwarder.troubles)
            assert "declare_dropped" not in one.calls
            await cloud.say(of(old, 1, (2, 5)))
            await until(lambda: old in one.outbox.held())
            assert foreign not in one.outbox.held()


async def test_a_machine_that_is_not_here_is_no_concern() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        await cloud.confirm(7, (8, 9), epoch="ff")
        await one.append()
        await cloud.got(batch(1))
        assert await one.batches() == 1


async def test_with_delivery_to_the_broker_its_word_lets_go() -> None:
    async with site(delivery="broker") as one, one.receiver() as cloud, one.running():
        await one.append(MAIN)
        await one.append(MAIN)
        await cloud.got(MAIN_SENT, batch(1, MAIN), batch(2, MAIN))
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
            await cloud.got(MAIN_SENT, batch(1, MAIN), batch(2, MAIN))
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
            await until(lambda: "nobody is subscribed" in one.forwarder.trouble)
            assert "machine press" in one.forwarder.trouble
            assert "start the receiver; the data waits here on disk" in one.forwarder.trouble
            async with one.receiver() as cloud:
                await until(lambda: batch(1, MAIN) in cloud.sent)
                assert cloud.sent == [MAIN_SENT, batch(1, MAIN)]  # the definition was kept by the broker
                await until(lambda: one.forwarder.trouble == "")
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
        await until(lambda: outcome.value in one.forwarder.trouble)
        assert remedy in one.forwarder.trouble
        assert one.forwarder.state.connected
        assert await one.batches() == 1
        one.broker.answer(TELEMETRY_FILTER, None)
        await cloud.got(batch(1))
        await until(lambda: one.forwarder.trouble == "")


async def test_a_message_that_is_too_large_is_given_up_when_others_of_its_machine_pass() -> None:
    async with site(payload_bytes_max=2000) as one, one.receiver() as cloud, one.running():
        await one.append(MAIN)
        await cloud.got(MAIN_SENT, batch(1, MAIN))
        await one.append(MAIN, noise=4000)
        await until(lambda: "raise the broker's message size limit" in one.forwarder.trouble)
        assert await one.batches() == 2, "perhaps nothing passes: it stays"
        cloud.sent.clear()
        await one.append(MAIN)
        await cloud.got(batch(3, MAIN))
        await until(lambda: "press" in cloud.said[-1].machines and bool(cloud.said[-1].machines["press"].dropped))
        assert cloud.said[-1].machines["press"].dropped == [(2, 2, "larger than the broker takes")]
        assert one.forwarder.trouble == ""
        assert await one.batches() == 2


async def test_one_machine_that_is_refused_does_not_stop_the_others() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        one.broker.deny(PRESS.telemetry)
        await one.append()
        await until(lambda: "machine press" in one.forwarder.trouble)
        await one.append_to("oven", NORMAL)
        await cloud.got((MachineTopic(PLANT, "oven").telemetry, message(1)))


async def test_a_receiver_that_never_confirms_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        await one.append()
        await cloud.got(batch(1))
        one.forwarder.beat_now()
        await until(lambda: len(cloud.said) >= 2)
        assert one.forwarder.trouble == ""
        monkeypatch.setattr(module, "UNCONFIRMED_MIN", 0)
        monkeypatch.setattr(module, "SILENT_S", 0.0)
        one.forwarder.beat_now()
        await until(lambda: "the receiver has confirmed nothing for 0 min; check that it runs" in one.forwarder.trouble)
        monkeypatch.setattr(module, "SILENT_S", 60.0)
        await cloud.confirm(0)
        await until(lambda: one.forwarder.window.is_heard(LANE))
        one.forwarder.beat_now()
        await until(lambda: "but not number 1 of machine press" in one.forwarder.trouble)
        await cloud.confirm(1)
        await until(one.forwarder.window.idle)
        one.forwarder.beat_now()
        await until(lambda: one.forwarder.trouble == "")


async def test_a_refused_heartbeat_is_said() -> None:
    async with site() as one, one.receiver(), one.running():
        one.broker.deny(STATUS_FILTER)
        one.forwarder.beat_now()
        await until(lambda: "does not take this gateway's status" in one.forwarder.trouble)


# --- copies and set-backs ---


async def begun_before(one: Site, batches: int = 0) -> None:
    """This outbox has been connected before, and holds so many batches from then."""
    await one.worker.call(Outbox.next_session)
    one.is_begun = False
    for _ in range(batches):
        await one.append()
    one.is_begun = True
    await one.forwarder.learn()


@pytest.mark.usefixtures("patiently")
async def test_new_numbers_wait_for_the_receivers_word_after_a_start() -> None:
    async with site() as one, one.receiver() as cloud:
        await begun_before(one, batches=1)
        await one.append()
        async with one.running():
            await one.append()
            await cloud.got(batch(1))
            await until(lambda: bool(cloud.said))
            assert cloud.sent == []
            await cloud.confirm(1)
            await until(lambda: len(cloud.sent) == 2)
            assert sorted(cloud.sent) == [batch(2), batch(3)]
            assert batch(2) in cloud.marked
            assert batch(3) not in cloud.marked


@pytest.mark.parametrize("how", ["by a confirm that knows nothing", "by time"])
async def test_a_receiver_that_does_not_know_us_holds_nothing_up(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "by time":
        monkeypatch.setattr(module, "HOLD_S", 0.05)
    async with site() as one, one.receiver() as cloud:
        await begun_before(one)
        async with one.running():
            await one.append()
            if how != "by time":
                await until(lambda: bool(cloud.said))
                assert cloud.sent == []
                await cloud.say(Confirm(timestamp=1, machines={}))
            await cloud.got(batch(1))


def counting(
    one: Site, cloud: Cloud
) -> tuple[Callable[[int], Awaitable[None]], Callable[[], list[tuple[str, int, object]]]]:
    """(appends a batch that holds this value, gives (epoch, number, value) of all telemetry that came so far)."""
    book, group = Book("gw-1"), Group("plc-1", "main", 1.0, (Tag("count", ValueType.INT),))

    async def append(value: int) -> None:
        await one.append_as(lambda epoch, seq: book.encode(epoch, seq, [[Scan(group, 10**6 * value, [value])]]))

    def received() -> list[tuple[str, int, object]]:
        known = {
            definition.ref(payload): definition.decode(payload)
            for topic, payload in cloud.sent
            if topic != PRESS.telemetry
        }
        found = [decode_batch(payload, known.get) for topic, payload in cloud.sent if topic == PRESS.telemetry]
        return [(one.epoch, one.seq, value) for one in found for value in one.blocks[0].columns[0].values]

    return append, received


@pytest.mark.usefixtures("patiently")
async def test_a_machine_that_was_set_back_with_its_memory_gives_what_it_read_since_new_numbers() -> None:
    """It goes on as if nothing had happened but a cut: 2 and 3 were given in the future that is lost, too."""
    async with site() as one, one.receiver() as cloud:
        append, received = counting(one, cloud)
        async with one.running():
            await cloud.say(Confirm(timestamp=1, machines={}))
            await append(1)
            await until(lambda: received() == [(EPOCH, 1, 1)])
            await cloud.confirm(1, highest=1)
            await one.holds(0)
            await append(2)
            await until(lambda: len(received()) == 2)
            assert one.outbox.held()[LANE].offered[-1][1] > 3, "offered ahead, and never sent"
            await cloud.confirm(2, highest=2)
            await one.holds(0)
            session = one.forwarder.state.session
            one.broker.cut(GATEWAY.thing)
            await until(lambda: not one.forwarder.state.connected)
            await append(3)
            await one.connected(session + 1)
            await append(4)
            await until(lambda: cloud.said[-1].session > session)
            assert len(received()) == 2, "until the receiver has spoken"
            await cloud.confirm(9, highest=9)
            await until(lambda: one.forwarder.epoch() != EPOCH)
            await cloud.say(Confirm(timestamp=1, machines={}))
            await until(lambda: len(received()) == 4)
            assert sorted(received()[2:]) == [(one.forwarder.epoch(), 1, 3), (one.forwarder.epoch(), 2, 4)]


@pytest.mark.usefixtures("patiently")
@pytest.mark.parametrize("call", ["", "fork", "confirmed", "offer", "pending", "next_session"])
async def test_an_outbox_that_was_set_back_gives_its_new_numbers_in_a_new_epoch(call: str) -> None:
    """The receiver knows 1 to 9, and here only 1 to 3 were ever given before this start.

    A disk that fails twice when asked for this or that delays it, and no more.
    """
    async with site() as one, one.receiver() as cloud:
        append, received = counting(one, cloud)
        await one.worker.call(Outbox.next_session)
        one.is_begun = False
        for value in (1, 2, 3):
            await append(value)
        one.is_begun = True
        await one.forwarder.learn()
        await append(4)
        async with one.running():
            await append(5)
            await until(lambda: len(received()) == 3)
            assert received() == [(EPOCH, seq, seq) for seq in (1, 2, 3)]
            one.outbox.refusals[call] = 2
            await cloud.confirm(9, highest=9)
            await until(lambda: one.forwarder.epoch() != EPOCH and cloud.said[-1].epoch == one.forwarder.epoch())
            await cloud.say(Confirm(timestamp=1, machines={}))  # as at every connection
            await until(lambda: {value for _, _, value in received()} == {1, 2, 3, 4, 5})
            assert {epoch for epoch, _, value in received() if value in (4, 5)} == {one.forwarder.epoch()}
            await append(6)
            await cloud.say(Confirm(timestamp=1, machines={}))
            await until(lambda: received()[-1][2] == 6)
            new, last, _ = received()[-1]
            await cloud.confirm(last, highest=last, epoch=new)
            await one.holds(3)
            await cloud.confirm(9, highest=9)
            await one.holds(0)
            assert one.forwarder.epoch() == new, "that was settled"


@pytest.mark.usefixtures("patiently")
async def test_what_was_dropped_before_it_was_sent_makes_no_fork() -> None:
    """The heartbeat has told the receiver of it."""
    async with site() as one, one.receiver() as cloud:
        await begun_before(one, batches=1)
        async with one.running():
            await one.append()
            await one.append()
            await cloud.got(batch(1))
            await one.worker.call(Outbox.give_up, LANE, 2, "outbox full")
            await cloud.confirm(2, highest=2)
            await cloud.got(batch(3))
            assert one.forwarder.epoch() == EPOCH


async def test_a_confirm_of_what_is_here_is_no_fork() -> None:
    async with site() as one, one.receiver() as cloud:
        await begun_before(one, batches=3)
        async with one.running():
            await cloud.got(batch(1), batch(2), batch(3))
            await cloud.confirm(3, highest=3)
            await one.holds(0)
            await cloud.confirm(99, highest=99, epoch="ff")
            await one.append()
            await cloud.got(batch(4))
            assert one.forwarder.epoch() == EPOCH


async def test_a_gateway_that_is_fenced_sends_no_telemetry_until_it_is_not() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        await cloud.confirm(0, fenced="another installation speaks; stop one", fenced_instance="me")
        await until(lambda: "another installation speaks; stop one" in one.forwarder.trouble)
        await one.append()
        heard = len(cloud.said)
        one.forwarder.beat_now()
        await until(lambda: len(cloud.said) > heard)
        one.broker.cut(GATEWAY.thing)
        await one.connected(session=2)
        assert "another installation" in one.forwarder.trouble, "until the receiver says otherwise"
        assert cloud.sent == []
        await cloud.confirm(0)
        await cloud.got(batch(1))
        assert one.forwarder.trouble == ""


async def test_the_other_of_two_installations_goes_on_and_says_so() -> None:
    async with site() as one, one.receiver() as cloud, one.running():
        await cloud.confirm(0, fenced="two installations; stop one", fenced_instance="the other")
        await until(lambda: one.forwarder.trouble == "two installations; stop one")
        await one.append()
        await cloud.got(batch(1))
        await cloud.confirm(1)
        await until(lambda: one.forwarder.trouble == "")


# --- connections ---


async def test_two_gateways_with_one_client_id_say_so_and_do_not_fight_for_ever() -> None:
    async with site() as one, one.receiver(), one.running():
        twin = one.broker.agent_link(GATEWAY.thing)
        for session in (2, 3):
            await twin.connect(Message(GATEWAY.status, will(0, 1).encode(), retain=True), GATEWAY.confirm)
            if session == 2:
                assert "two programs" not in one.forwarder.trouble
                await one.connected(session)
        await until(lambda: "two programs use the client id 'gw-1'" in one.forwarder.trouble)
        for _ in range(50):
            await asyncio.sleep(0.002)
        assert not one.forwarder.state.connected, "the retries of this test take 20 ms at most"
        await twin.close()


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
        await cloud.got(MAIN_SENT, batch(1, MAIN))
        one.broker.wipe()
        async with one.receiver() as again:
            await one.connected(session=2)
            await until(lambda: batch(1, MAIN) in again.sent)
            assert [sent for sent in again.sent if sent != MAIN_SENT] == [batch(1, MAIN)]
            assert again.sent[0] == MAIN_SENT


async def test_while_the_broker_is_away_it_says_so_and_comes_back() -> None:
    async with site() as one, one.running():
        await one.connected()
        one.broker.stop()
        await until(lambda: one.forwarder.trouble == "memory broker: not running; start it")
        assert not one.forwarder.state.connected
        one.broker.start()
        await one.connected(session=2)
        assert one.forwarder.trouble == ""


async def test_a_broker_that_takes_one_message_at_a_time_is_refused_in_a_sentence() -> None:
    async with site(in_flight_max=1) as one, one.running(until_connected=False):
        await until(lambda: "it must allow two or more" in one.forwarder.trouble)


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
        await until(lambda: batch(4, MAIN) in cloud.sent)
        seqs = [sent for sent in cloud.sent if sent[0] == PRESS.telemetry]
        assert seqs == [batch(1, MAIN), batch(2, OTHER), batch(3, LATER), batch(4, MAIN)]
