"""MQTT over NATS, which knows 3.1.1 only: found by falling back from 5."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.contract.link_cases import LinkCase
from tests.contract.link_cases._mqtt import mqtt_case
from tests.support import brokers


@asynccontextmanager
async def case(folder: Path) -> AsyncIterator[LinkCase]:
    """See the package."""
    async with (
        brokers.nats(folder, mqtt='ack_wait: "1s"') as broker,  # it sends again after this time, not at the reconnect
        mqtt_case(broker, "auto", protocol="MQTT 3.1.1") as links,
    ):
        yield links
