"""What every link promises (protocols/uplink/link.py), in memory and over real brokers.

A wait here has a limit only so that a failure says where it waited; no time is asserted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio

from protocols.uplink.link import AgentLink, CloudLink, Delivery, LinkAway, LinkHungUp, LinkTakenOver, Message, Outcome
from tests.contract.link_cases import LinkCase, cases

T = TypeVar("T")

PATIENCE_S = 20.0
TELEMETRY = "factory/acme/north/p1/press/telemetry"
STATUS = "ops/acme/north/p1/gateway/gw-1/status"
STATUS_2 = "ops/acme/north/p1/gateway/gw-2/status"
CONFIRM = "ops/acme/north/p1/gateway/gw-1/confirm"
CONFIRM_2 = "ops/acme/north/p1/gateway/gw-2/confirm"
FILTERS = ("factory/+/+/+/+/telemetry", "ops/+/+/+/gateway/+/status")
WILL = Message(STATUS, b"will of gw-1", retain=True)
WILL_2 = Message(STATUS_2, b"will of gw-2", retain=True)
TAKEN = {Outcome.ACCEPTED, Outcome.NO_SUBSCRIBERS}


@pytest_asyncio.fixture(params=cases().items(), ids=cases().keys())
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LinkCase]:
    _, make = request.param
    async with make(tmp_path) as made:
        yield made


@pytest_asyncio.fixture
async def agent(case: LinkCase) -> AsyncIterator[AgentLink]:
    """gw-1, not yet connected."""
    link = case.agent("gw-1")
    yield link
    await link.close()


@pytest_asyncio.fixture
async def other(case: LinkCase) -> AsyncIterator[AgentLink]:
    """gw-2, not yet connected."""
    link = case.agent("gw-2")
    yield link
    await link.close()


@pytest_asyncio.fixture
async def cloud(case: LinkCase) -> AsyncIterator[CloudLink]:
    """The receiver, not yet connected."""
    link = case.cloud("receiver")
    yield link
    await link.close()


async def soon(waiting: Awaitable[T]) -> T:
    """What it gives; TimeoutError where it never comes."""
    async with asyncio.timeout(PATIENCE_S):
        return await waiting


async def receive(cloud: CloudLink, last: bytes) -> list[Delivery]:
    """Everything up to the message with payload `last`, not acknowledged."""
    got: list[Delivery] = []
    while not any(delivery.payload == last for delivery in got):
        got += await soon(cloud.deliveries(100))
    return got


async def receive_and_ack(cloud: CloudLink, last: bytes) -> list[bytes]:
    """The payloads of everything up to the one `last`, acknowledged."""
    got = await receive(cloud, last)
    for delivery in got:
        delivery.ack()
    return [delivery.payload for delivery in got]


async def send(link: AgentLink | CloudLink, *payloads: bytes, topic: str = TELEMETRY, retain: bool = False) -> None:
    """Publish one after the other; the broker must take each."""
    for payload in payloads:
        assert await soon(link.publish(Message(topic, payload, retain))) in TAKEN


async def test_what_is_published_arrives_in_order_and_whole(case: LinkCase, agent: AgentLink, cloud: CloudLink) -> None:
    assert (await cloud.connect(FILTERS)).protocol == case.protocol
    connected = await agent.connect(WILL, CONFIRM)
    assert connected.protocol == case.protocol
    assert 1 <= connected.in_flight_max <= 20
    payloads = [bytes([number]) * (1 + 997 * number) for number in range(100)]  # up to 99 kB, and every byte value
    outcomes: list[Outcome] = []
    for at in range(0, len(payloads), connected.in_flight_max):
        window = payloads[at : at + connected.in_flight_max]
        outcomes += await soon(asyncio.gather(*[agent.publish(Message(TELEMETRY, payload)) for payload in window]))
    assert outcomes == [Outcome.ACCEPTED] * 100
    got: list[Delivery] = []
    while len(got) < 100:
        for delivery in await soon(cloud.deliveries(7)):
            delivery.ack()
            got.append(delivery)
    assert [delivery.payload for delivery in got] == payloads
    assert {(delivery.topic, delivery.retained) for delivery in got} == {(TELEMETRY, False)}


async def test_deliveries_come_at_most_as_many_as_asked_for(agent: AgentLink, cloud: CloudLink) -> None:
    await cloud.connect(FILTERS)
    await agent.connect(WILL, CONFIRM)
    await send(agent, *(b"%d" % number for number in range(10)))
    counts: list[int] = []
    while sum(counts) < 10:
        counts.append(len(await soon(cloud.deliveries(3))))
    assert max(counts) <= 3
    assert min(counts) >= 1


async def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(agent: AgentLink, cloud: CloudLink) -> None:
    await cloud.connect(FILTERS)
    await agent.connect(WILL, CONFIRM)
    await send(agent, b"a", b"b", b"c", b"d")
    got = await receive(cloud, b"d")
    assert [delivery.payload for delivery in got] == [b"a", b"b", b"c", b"d"]
    for delivery in got[:2]:
        delivery.ack()
        delivery.ack()  # a second time does nothing
    await cloud.close()
    assert (await cloud.connect(FILTERS)).session_present
    await send(agent, b"e")
    again: set[bytes] = set()
    while again != {b"c", b"d", b"e"}:
        again |= {delivery.payload for delivery in await soon(cloud.deliveries(100))}
        assert again <= {b"c", b"d", b"e"}


async def test_an_acknowledgement_waits_for_those_before_it(agent: AgentLink, cloud: CloudLink) -> None:
    await cloud.connect(FILTERS)
    await agent.connect(WILL, CONFIRM)
    await send(agent, b"a", b"b", b"c")
    got = await receive(cloud, b"c")
    got[2].ack()
    got[1].ack()  # the first is not acknowledged, so none is
    await cloud.close()
    await cloud.connect(FILTERS)
    again: list[Delivery] = []
    while {delivery.payload for delivery in again} != {b"a", b"b", b"c"}:
        again += await soon(cloud.deliveries(100))
    for delivery in reversed(again):
        delivery.ack()
    await cloud.close()
    await cloud.connect(FILTERS)
    await send(agent, b"d")
    assert await receive_and_ack(cloud, b"d") == [b"d"]


async def test_an_acknowledgement_from_an_earlier_connection_does_nothing(
    case: LinkCase, agent: AgentLink, cloud: CloudLink
) -> None:
    await cloud.connect(FILTERS)
    await agent.connect(WILL, CONFIRM)
    await send(agent, b"a")
    [stale] = await soon(cloud.deliveries(100))
    case.cut("receiver")
    with pytest.raises(LinkAway):
        await soon(cloud.deliveries(1))
    stale.ack()
    await cloud.connect(FILTERS)
    assert [delivery.payload for delivery in await receive(cloud, b"a")] == [b"a"]
    stale.ack()  # the new connection uses the same packet id
    await cloud.close()
    await cloud.connect(FILTERS)
    assert await receive_and_ack(cloud, b"a") == [b"a"]


async def test_what_was_published_while_the_receiver_was_away_arrives(agent: AgentLink, cloud: CloudLink) -> None:
    assert not (await cloud.connect(FILTERS)).session_present
    await cloud.close()
    await agent.connect(WILL, CONFIRM)
    await send(agent, b"a", b"b", b"c")
    assert (await cloud.connect(FILTERS)).session_present
    assert await receive_and_ack(cloud, b"c") == [b"a", b"b", b"c"]


async def test_the_will_arrives_when_the_connection_is_lost(case: LinkCase, agent: AgentLink, cloud: CloudLink) -> None:
    await cloud.connect(FILTERS)
    await agent.connect(WILL, CONFIRM)
    case.cut("gw-1")
    with pytest.raises(LinkAway):
        await soon(agent.inbound())
    [will] = await soon(cloud.deliveries(100))
    assert (will.topic, will.payload, will.retained) == (STATUS, WILL.payload, False)


async def test_the_will_does_not_arrive_after_a_close(agent: AgentLink, other: AgentLink, cloud: CloudLink) -> None:
    await cloud.connect(FILTERS)
    await agent.connect(WILL, CONFIRM)
    await send(cloud, *(b"%d" % number for number in range(15)), topic=CONFIRM)  # still unread when it closes
    await agent.close()
    await other.connect(WILL_2, CONFIRM_2)
    await send(other, b"after")
    assert await receive_and_ack(cloud, b"after") == [b"after"]


async def test_connecting_anew_leaves_the_old_connection_without_a_will(agent: AgentLink, cloud: CloudLink) -> None:
    await cloud.connect(FILTERS)
    await agent.connect(WILL, CONFIRM)
    waiting = asyncio.ensure_future(agent.inbound())
    await asyncio.sleep(0)
    assert (await agent.connect(WILL, CONFIRM)).session_present
    with pytest.raises(LinkAway):
        await soon(waiting)
    await send(agent, b"after")
    assert await receive_and_ack(cloud, b"after") == [b"after"]


async def test_a_retained_status_is_marked_for_whoever_subscribes_later(agent: AgentLink, cloud: CloudLink) -> None:
    await agent.connect(WILL, CONFIRM)
    await send(agent, b"kept", topic=STATUS, retain=True)
    await cloud.connect(FILTERS)
    [history] = await soon(cloud.deliveries(100))
    assert (history.topic, history.payload, history.retained) == (STATUS, b"kept", True)
    await send(agent, b"alive", topic=STATUS, retain=True)
    [alive] = await soon(cloud.deliveries(100))
    assert (alive.payload, alive.retained) == (b"alive", False)


async def test_a_confirm_reaches_the_gateway_now_or_when_it_returns(agent: AgentLink, cloud: CloudLink) -> None:
    await cloud.connect(FILTERS)
    await agent.connect(WILL, CONFIRM)
    await send(cloud, b"now", topic=CONFIRM)
    assert await soon(agent.inbound()) == Message(CONFIRM, b"now")
    await agent.close()
    await send(cloud, b"later", topic=CONFIRM)
    assert (await agent.connect(WILL, CONFIRM)).session_present
    assert await soon(agent.inbound()) == Message(CONFIRM, b"later")


async def test_what_the_gateway_has_taken_does_not_come_again(agent: AgentLink, cloud: CloudLink) -> None:
    await cloud.connect(FILTERS)
    await agent.connect(WILL, CONFIRM)
    await send(cloud, b"1", b"2", topic=CONFIRM)
    assert [(await soon(agent.inbound())).payload for _ in range(2)] == [b"1", b"2"]
    await agent.close()
    await agent.connect(WILL, CONFIRM)
    await send(cloud, b"3", topic=CONFIRM)
    assert (await soon(agent.inbound())).payload == b"3"


async def test_when_the_broker_dies_everybody_is_told_and_can_come_back(
    case: LinkCase, agent: AgentLink, cloud: CloudLink
) -> None:
    await cloud.connect(FILTERS)
    await agent.connect(WILL, CONFIRM)
    waiting = [asyncio.ensure_future(agent.inbound()), asyncio.ensure_future(cloud.deliveries(1))]
    await asyncio.sleep(0)
    case.freeze()
    publishes = [link.publish(Message(TELEMETRY, b"x")) for link in (agent, agent, cloud)]
    await case.kill()
    assert await soon(asyncio.gather(*publishes)) == [Outcome.LOST] * 3
    for task in waiting:
        with pytest.raises(LinkAway):
            await soon(task)
    assert await agent.publish(Message(TELEMETRY, b"x")) is Outcome.LOST
    with pytest.raises(LinkAway):
        await soon(agent.connect(WILL, CONFIRM))
    with pytest.raises(LinkAway):
        await soon(cloud.connect(FILTERS))
    await case.restart()
    await cloud.connect(FILTERS)
    await agent.connect(WILL, CONFIRM)
    await send(agent, b"again")
    assert b"again" in await receive_and_ack(cloud, b"again")


async def test_an_open_publish_is_lost_with_the_connection_and_no_other(
    case: LinkCase, agent: AgentLink, other: AgentLink, cloud: CloudLink
) -> None:
    await cloud.connect(FILTERS)
    await agent.connect(WILL, CONFIRM)
    await other.connect(WILL_2, CONFIRM_2)
    await send(agent, b"before")
    case.cut("gw-1")
    with pytest.raises(LinkAway):
        await soon(agent.inbound())
    assert await agent.publish(Message(TELEMETRY, b"x")) is Outcome.LOST
    await send(other, b"after")
    assert b"after" in await receive_and_ack(cloud, b"after")


async def test_more_publishes_than_agreed_are_an_error_of_the_caller(
    case: LinkCase, agent: AgentLink, cloud: CloudLink
) -> None:
    await cloud.connect(FILTERS)
    limit = (await agent.connect(WILL, CONFIRM)).in_flight_max
    case.freeze()
    publishes = [agent.publish(Message(TELEMETRY, b"x")) for _ in range(limit)]
    with pytest.raises(RuntimeError, match=str(limit)):
        agent.publish(Message(TELEMETRY, b"x"))
    await case.kill()
    assert set(await soon(asyncio.gather(*publishes))) == {Outcome.LOST}


async def test_closing_twice_or_before_connecting_is_fine(agent: AgentLink, cloud: CloudLink) -> None:
    for link in (agent, cloud):
        await link.close()
    await agent.connect(WILL, CONFIRM)
    await cloud.connect(FILTERS)
    for link in (agent, cloud):
        await link.close()
        await link.close()
    with pytest.raises(LinkAway):
        await soon(agent.inbound())
    with pytest.raises(LinkAway):
        await soon(cloud.deliveries(1))
    assert await agent.publish(Message(TELEMETRY, b"x")) is Outcome.LOST
    assert await cloud.publish(Message(CONFIRM, b"x")) is Outcome.LOST


async def test_before_connecting_nothing_works_and_nothing_breaks(agent: AgentLink, cloud: CloudLink) -> None:
    with pytest.raises(LinkAway):
        await agent.inbound()
    with pytest.raises(LinkAway):
        await cloud.deliveries(1)
    assert await agent.publish(Message(TELEMETRY, b"x")) is Outcome.LOST


async def test_a_publish_that_nobody_gets_is_told_where_the_broker_tells(case: LinkCase, agent: AgentLink) -> None:
    await agent.connect(WILL, CONFIRM)
    outcome = await soon(agent.publish(Message(TELEMETRY, b"x")))
    assert outcome is (Outcome.NO_SUBSCRIBERS if case.knows_subscribers else Outcome.ACCEPTED)


async def test_a_second_client_with_the_same_id_takes_over(case: LinkCase, agent: AgentLink, cloud: CloudLink) -> None:
    await cloud.connect(FILTERS)
    await agent.connect(WILL, CONFIRM)
    twin = case.agent("gw-1")
    try:
        assert (await twin.connect(Message(STATUS, b"will of the twin"), CONFIRM)).session_present
        # Not every broker says why; the one that says nothing has hung up.
        with pytest.raises((LinkTakenOver, LinkHungUp), match="'gw-1'"):
            await soon(agent.inbound())
        await send(twin, b"twin")
        assert b"twin" in await receive_and_ack(cloud, b"twin")
    finally:
        await twin.close()
