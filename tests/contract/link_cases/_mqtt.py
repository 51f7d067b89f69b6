"""What the cases over a real MQTT broker share: a cable of its own for each client, which can be cut."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

from protocols.uplink.mqtt import BrokerSettings, MqttAgentLink, MqttCloudLink
from tests.contract.link_cases import CLIENTS, LinkCase
from tests.support.brokers import Broker, wire


@asynccontextmanager
async def mqtt_case(
    broker: Broker,
    version: Literal["auto", "5", "3.1.1"],
    *,
    protocol: str,
    knows_subscribers: bool = False,
) -> AsyncIterator[LinkCase]:
    """Links through cables to a broker that runs."""
    async with AsyncExitStack() as stack:
        cables = {client: await stack.enter_async_context(wire(broker.port)) for client in CLIENTS}

        def settings(client: str) -> BrokerSettings:
            return BrokerSettings(
                host=broker.host, port=cables[client].port, mqtt_version=version, keep_alive_s=5, in_flight_max=20
            )

        yield LinkCase(
            agent=lambda client: MqttAgentLink(settings(client), client),
            cloud=lambda client: MqttCloudLink(settings(client), client),
            protocol=protocol,
            knows_subscribers=knows_subscribers,
            cut=lambda client: cables[client].cut(),
            freeze=broker.freeze,
            kill=broker.kill,
            restart=broker.start,
        )
