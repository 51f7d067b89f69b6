"""The faults that the broker in memory can rehearse; what it shares with real ones is in the contract suite."""

from __future__ import annotations

import asyncio

import pytest

from protocols.uplink.link import LinkAway, LinkRefused, Message, Outcome
from protocols.uplink.memory import MemoryAgentLink, MemoryBroker, MemoryCloudLink

WILL = Message("ops/gw/status", b"gone", retain=True)
FILTERS = ("factory/+/telemetry", "ops/+/status")


def telemetry(number: int) -> Message:
    return Message("factory/press/telemetry", b"%d" % number)


async def connected(broker: MemoryBroker) -> tuple[MemoryAgentLink, MemoryCloudLink]:
    agent, cloud = broker.agent_link("gw"), broker.cloud_link("receiver")
    await cloud.connect(FILTERS)
    await agent.connect(WILL, "ops/gw/confirm")
    return agent, cloud


async def payloads(cloud: MemoryCloudLink) -> list[bytes]:
    got = await cloud.deliveries(1000)
    for delivery in got:
        delivery.ack()
    return [delivery.payload for delivery in got]


async def test_a_full_queue_drops_the_newest_and_still_says_accepted() -> None:
    broker = MemoryBroker(queue_max=3)
    agent, cloud = await connected(broker)
    await cloud.close()
    assert [await agent.publish(telemetry(number)) for number in range(5)] == [Outcome.ACCEPTED] * 5
    assert broker.dropped == 2
    await cloud.connect(FILTERS)
    assert await payloads(cloud) == [b"0", b"1", b"2"]


async def test_the_window_bounds_what_is_unacknowledged() -> None:
    broker = MemoryBroker(window=2)
    agent, cloud = await connected(broker)
    for number in range(5):
        await agent.publish(telemetry(number))
    first = await cloud.deliveries(1000)
    assert [delivery.payload for delivery in first] == [b"0", b"1"]
    first[0].ack()
    assert [delivery.payload for delivery in await cloud.deliveries(1000)] == [b"2"]


async def test_wiping_forgets_sessions_and_retained_messages() -> None:
    broker = MemoryBroker()
    agent, cloud = await connected(broker)
    await agent.publish(Message("ops/gw/status", b"on", retain=True))
    broker.wipe()
    with pytest.raises(LinkAway):
        await agent.inbound()
    assert not (await cloud.connect(FILTERS)).session_present
    assert not (await agent.connect(WILL, "ops/gw/confirm")).session_present
    await agent.publish(telemetry(1))
    assert await payloads(cloud) == [b"1"]


async def test_stopping_keeps_what_is_stored_and_sends_no_will() -> None:
    broker = MemoryBroker()
    agent, cloud = await connected(broker)
    await agent.publish(telemetry(1))
    broker.stop()
    with pytest.raises(LinkAway, match="not running"):
        await agent.connect(WILL, "ops/gw/confirm")
    broker.start()
    assert (await cloud.connect(FILTERS)).session_present
    assert await payloads(cloud) == [b"1"]


async def test_denying_a_topic() -> None:
    broker = MemoryBroker()
    agent, cloud = await connected(broker)
    broker.deny("factory/#")
    assert await agent.publish(telemetry(1)) is Outcome.DENIED
    broker.answer("factory/#", Outcome.QUOTA)
    assert await agent.publish(telemetry(2)) is Outcome.QUOTA
    broker.answer("factory/#", None)
    assert await agent.publish(telemetry(3)) is Outcome.ACCEPTED
    assert await payloads(cloud) == [b"3"]


async def test_refusing_connects() -> None:
    broker = MemoryBroker()
    agent, _ = await connected(broker)
    broker.refuse(LinkRefused("memory broker: wrong password"))
    with pytest.raises(LinkRefused, match="wrong password"):
        await agent.connect(WILL, "ops/gw/confirm")
    broker.refuse(None)
    assert (await agent.connect(WILL, "ops/gw/confirm")).session_present


@pytest.mark.parametrize("stored", [True, False])
async def test_holding_back_the_answers_until_the_connection_is_lost(stored: bool) -> None:
    broker = MemoryBroker()
    agent, cloud = await connected(broker)
    broker.hold(stored=stored)
    publishes = [agent.publish(telemetry(number)) for number in range(2)]
    assert not any(future.done() for future in publishes)
    broker.cut("gw")
    assert await asyncio.gather(*publishes) == [Outcome.LOST] * 2
    assert await payloads(cloud) == ([b"0", b"1", WILL.payload] if stored else [WILL.payload])


async def test_releasing_the_answers() -> None:
    broker = MemoryBroker()
    agent, _ = await connected(broker)
    broker.hold()
    publish = agent.publish(telemetry(1))
    broker.release()
    assert await publish is Outcome.ACCEPTED
    assert await agent.publish(telemetry(2)) is Outcome.ACCEPTED


async def test_too_large() -> None:
    broker = MemoryBroker(payload_bytes_max=2)
    agent, _ = await connected(broker)
    assert await agent.publish(telemetry(99)) is Outcome.ACCEPTED
    assert await agent.publish(telemetry(100)) is Outcome.TOO_LARGE


async def test_an_empty_retained_message_deletes_what_was_kept() -> None:
    broker = MemoryBroker()
    agent, cloud = await connected(broker)
    await agent.publish(Message("ops/gw/status", b"on", retain=True))
    await agent.publish(Message("ops/gw/status", b"", retain=True))
    late = broker.cloud_link("late")
    await late.connect(FILTERS)
    await agent.publish(telemetry(1))
    assert await payloads(late) == [b"1"]
    assert await payloads(cloud) == [b"on", b"", b"1"]
