"""The receiver's wiring: the one module that chooses implementations and starts everything.

Beginning: the store, the page, then the receiver as a supervised task. A broker that is away does not make the program
unready; a store that cannot be opened, or a port in use, does.
"""

from __future__ import annotations

import asyncio

from cloud.receiver import Receiver
from cloud.settings import CLIENT_ID, Configuration
from cloud.worker import StoreWorker
from protocols.program import notify
from protocols.program.logs import get_logger
from protocols.program.tasks import Tasks
from protocols.uplink.mqtt import MqttCloudLink

_log = get_logger(part="cloud")


async def serve(configuration: Configuration, stopping: asyncio.Event) -> None:
    """Until `stopping`. Raises StoreError, PageError (the page cannot be served) or TaskDied."""
    from cloud.dashboard.server import Page  # aiohttp is heavy; the command line does without it

    settings = configuration.settings
    # The page reads through a connection of its own, so that no question of a browser holds up a commit.
    async with StoreWorker(configuration.open_store) as store, StoreWorker(configuration.open_store) as reader:
        link = MqttCloudLink(settings.broker, settings.broker.client_id or CLIENT_ID)
        page: Page | None = None

        def committed(_items: object) -> None:
            if page is not None:
                page.changed()

        receiver = Receiver(link, store, committed, notify.watchdog)
        page = Page(reader, receiver.state, settings.http)
        async with page, Tasks(stopping, grace_s=0) as tasks:
            tasks.spawn("receiver", receiver.run())
            tasks.spawn("page", page.run())
            notify.ready(f"page at {page.url}")
            _log.info("running", page=page.url)
            try:
                await tasks.wait()
            finally:
                notify.stopping()
