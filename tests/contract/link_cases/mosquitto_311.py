"""MQTT 3.1.1 over Mosquitto, because the configuration says so."""

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
    async with mosquitto(folder) as broker, mqtt_case(broker, "3.1.1", protocol="MQTT 3.1.1") as links:
        yield links
