"""The link in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from protocols.uplink.memory import MemoryBroker
from tests.contract.link_cases import LinkCase


@asynccontextmanager
async def case(folder: Path) -> AsyncIterator[LinkCase]:
    """See the package."""
    broker = MemoryBroker(in_flight_max=20)

    async def kill() -> None:
        broker.stop()

    async def restart() -> None:
        broker.release()
        broker.start()

    yield LinkCase(
        agent=broker.agent_link,
        cloud=broker.cloud_link,
        protocol="memory",
        knows_subscribers=True,
        cut=broker.cut,
        freeze=lambda: broker.hold(stored=False),
        kill=kill,
        restart=restart,
    )
