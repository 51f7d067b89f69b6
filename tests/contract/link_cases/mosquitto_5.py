"""MQTT 5 over Mosquitto, found by asking for it first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.contract.link_cases import LinkCase
from tests.contract.link_cases._mqtt import mqtt_case
from tests.support.brokers import mosquitto


@asynccontextmanager
async def case(folder: Path) -> AsyncIterator[LinkCase]:
    """See the package."""
    async with (
        mosquitto(folder) as broker,
        mqtt_case(broker, "auto", protocol="MQTT 5", knows_subscribers=True) as links,
    ):
        yield links
