"""The uplink over a real broker: what only shows there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.outbox.contract import Draft, Encoded, Outbox
from agent.outbox.memory import MemoryOutbox
from agent.outbox.worker import OutboxWorker
from agent.uplink import forwarder as module
from agent.uplink.contest import HANG_UPS
from agent.uplink.forwarder import Forwarder
from protocols.uplink.definition import Referring
from protocols.uplink.envelope import encode_referring
from protocols.uplink.mark import unmark
from protocols.uplink.mqtt import BrokerSettings, MqttAgentLink, MqttCloudLink
from protocols.uplink.status import Status
from protocols.uplink.topics import STATUS_FILTER, TELEMETRY_FILTER, GatewayTopic, Plant
from tests.support.brokers import HOST, mosquitto, wire
from tests.support.programs import until

PATIENCE_S = 30.0
GATEWAY = GatewayTopic(Plant("acme", "north", "p1"), "gw-1")


@asynccontextmanager
async def gateway(port: int, batches: int = 0, **more: str) -> AsyncIterator[Forwarder]:
    """Under the name gw-1, with so many batches from before."""
    outbox = MemoryOutbox()
    worker = OutboxWorker(lambda: outbox)
    await worker.open()

    async def status(session: int) -> Status:
        return Status(timestamp=1, state="online", session=session, epoch=outbox.epoch)

    def encode(_: str, seq: int) -> Encoded:
        return Encoded(encode_referring(seq, [Referring([b"%06d" % seq, [b""]], [])]))

    for _ in range(batches):
        await worker.call(Outbox.append, [Draft("press", encode)], 1)
    settings = BrokerSettings(host=HOST, port=port, **more)  # type: ignore[arg-type]  # its own fields
    link = MqttAgentLink(settings, "gw-1")
    forwarder = Forwarder(link, worker, GATEWAY, {}, status, lambda: outbox.epoch)
    running = asyncio.create_task(forwarder.run(), name="forwarder")
    try:
        yield forwarder
    finally:
        forwarder.stop()
        await running
        await worker.close()


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_two_gateways_with_one_name_find_out(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mosquitto 2.0.11 gives no reason, whatever the version: it hangs up."""
    monkeypatch.setattr(module, "RETRY_S_FIRST", 0.1)
    async with (
        mosquitto(tmp_path) as broker,
        gateway(broker.port, mqtt_version=version) as one,
        gateway(broker.port, mqtt_version=version) as twin,
    ):
        await until(
            "one of them says so",
            lambda: any("two programs use the client id 'gw-1'" in each.trouble for each in (one, twin)),
        )


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_line_that_is_cut_again_and_again_is_used_again_at_once(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More often than a rival is suspected for; only a broker's word for one makes it wait (here: until the end)."""
    monkeypatch.setattr(module, "RETRY_S_FIRST", 0.05)
    monkeypatch.setattr(module, "RETRY_S_MAX", 0.2)
    monkeypatch.setattr(module, "CONTESTED_S", (3600.0, 3600.0))
    async with (
        mosquitto(tmp_path) as broker,
        wire(broker.port) as line,
        gateway(line.port, mqtt_version=version) as one,
    ):
        session = 0

        def is_back() -> bool:
            return one.state.connected and one.state.session > session

        for cuts in range(HANG_UPS + 4):
            await until(f"connected after {cuts} cuts", is_back)
            if cuts < HANG_UPS:
                assert "two programs" not in one.trouble
            session = one.state.session
            line.cut()
        await until("connected in the end", is_back)
        assert "or the line is bad" in one.trouble


async def test_a_backlog_arrives_whole_in_order_and_marked(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker:
        cloud = MqttCloudLink(BrokerSettings(host=broker.host, port=broker.port), "receiver")
        await cloud.connect([TELEMETRY_FILTER, STATUS_FILTER])
        async with gateway(broker.port, batches=370):
            found: list[bytes] = []
            async with asyncio.timeout(PATIENCE_S):
                while len(found) < 370:
                    for delivery in await cloud.deliveries(100):
                        delivery.ack()
                        if delivery.topic != GATEWAY.status:
                            payload, is_history = unmark(delivery.payload)
                            assert is_history
                            found.append(payload)
        await cloud.close()
    expected = [encode_referring(seq, [Referring([b"%06d" % seq, [b""]], [])]) for seq in range(1, 371)]
    assert found == expected
