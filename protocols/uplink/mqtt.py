"""The link over MQTT: 5, or 3.1.1 where the broker knows nothing newer. See `link.py` for what both ends promise.

The session is kept on both ends: MQTT 5 with clean start 0 and a session expiry, 3.1.1 with clean session 0. A lost
connection is reported; paho's own reconnecting is never used, because it would publish again what the outbox will.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from paho.mqtt.enums import MQTTProtocolVersion

from protocols.uplink.link import Connected, Delivery, LinkAway, Message, Outcome
from protocols.uplink.mqtt_client import MQTT_5, MQTT_311
from protocols.uplink.mqtt_connection import Connection, NoAnswer, VersionRefused
from protocols.uplink.mqtt_dial import place
from protocols.uplink.mqtt_settings import BrokerSettings as BrokerSettings
from protocols.uplink.mqtt_settings import TlsSettings as TlsSettings

_VERSIONS = {"auto": None, "5": MQTT_5, "3.1.1": MQTT_311}


class _MqttLink:
    """What both ends share: at most one connection, and the MQTT version that this broker turned out to speak."""

    def __init__(self, settings: BrokerSettings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._version = _VERSIONS[settings.mqtt_version]
        self._connection: Connection | None = None

    async def _connect(self, will: Message | None, filters: Sequence[str]) -> Connected:
        await self.close()
        if self._version is not None:
            return await self._open(self._version, will, filters)
        try:
            connected = await self._open(MQTT_5, will, filters)
            self._version = MQTT_5
        except VersionRefused:
            connected = await self._open(MQTT_311, will, filters)
            self._version = MQTT_311
        except NoAnswer:  # the version, or a broker that was just going down: next time 5 is tried again
            connected = await self._open(MQTT_311, will, filters)
        return connected

    async def _open(self, version: MQTTProtocolVersion, will: Message | None, filters: Sequence[str]) -> Connected:
        connection = Connection(self._settings, self._client_id, version)
        connected = await connection.open(will, filters)
        self._connection = connection
        return connected

    def _up(self) -> Connection:
        if self._connection is None:
            raise LinkAway(f"{place(self._settings)}: not connected")
        return self._connection

    def publish(self, message: Message) -> asyncio.Future[Outcome]:
        """See the contract. Raises RuntimeError when more than `in_flight_max` are open, ValueError at a bad topic."""
        if self._connection is None:
            lost: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            lost.set_result(Outcome.LOST)
            return lost
        return self._connection.publish(message)

    async def close(self) -> None:
        """See the contract."""
        if self._connection is not None:
            await self._connection.close()


class MqttAgentLink(_MqttLink):
    """The gateway's end. A message to the gateway is acknowledged when `inbound` hands it out."""

    async def connect(self, will: Message, subscribe: str) -> Connected:
        """See the contract. Takes at most twice `connect_timeout_s`, the second time for the older MQTT."""
        return await self._connect(will, [subscribe])

    async def inbound(self) -> Message:
        """See the contract."""
        connection = self._up()
        [receipt] = await connection.receive(1)
        connection.acknowledge(receipt)
        return Message(receipt.topic, receipt.payload, receipt.retained)


class MqttCloudLink(_MqttLink):
    """The receiver's end. At most RECEIVE_MAX (MQTT 5) or the broker's own number (3.1.1) wait unacknowledged."""

    async def connect(self, subscribe: Sequence[str]) -> Connected:
        """See the contract. Takes at most twice `connect_timeout_s`, the second time for the older MQTT."""
        return await self._connect(None, subscribe)

    async def deliveries(self, count_max: int) -> Sequence[Delivery]:
        """See the contract."""
        connection = self._up()
        return [
            Delivery(receipt.topic, receipt.payload, receipt.retained, partial(connection.acknowledge, receipt))
            for receipt in await connection.receive(count_max)
        ]
