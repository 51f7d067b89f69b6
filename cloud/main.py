"""The receiver's wiring: the one module that chooses implementations and starts everything.

Beginning: the store, the page, then the receiver as a supervised task. A broker that is away does not make the program
unready; a store that cannot be opened, or a port in use, does.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from functools import partial

from cloud.receiver import Receiver
from cloud.settings import CLIENT_ID, Configuration
from cloud.store.contract import Retention, Store, StoreAway, StoreSettings
from cloud.worker import StoreWorker
from protocols.program import notify
from protocols.program.logs import get_logger
from protocols.program.tasks import Tasks
from protocols.uplink.mqtt import MqttCloudLink

_log = get_logger(part="cloud")

Load = Callable[[], Configuration | None]


async def serve(configuration: Configuration, stopping: asyncio.Event, reload: asyncio.Event, load: Load) -> None:
    """Until `stopping`. At each `reload`, what `load` gives is taken as far as it can be without a new start.

    Raises StoreError, PageError (the page cannot be served) or TaskDied.
    """
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
            tasks.spawn("retention", receiver.tend())
            tasks.spawn("page", page.run())
            tasks.spawn("reload", _reload(configuration, store, reload, load))
            _leave_modules_alone()
            notify.ready(f"page at {page.url}")
            _log.info("running", page=page.url)
            try:
                await tasks.wait()
            finally:
                notify.stopping()


async def _reload(configuration: Configuration, store: StoreWorker, reload: asyncio.Event, load: Load) -> None:
    """At each signal: retention is taken at once (the log level was, by `load`); the rest needs a new start."""
    while True:
        await reload.wait()
        reload.clear()
        changed = load()
        if changed is None:
            continue
        retention = changed.store_settings.retention()
        try:
            await store.call(partial(_retain, retention))
        except StoreAway as error:
            _log.warning(str(error))  # it holds all the same, from the next step on
        if _lasting(changed) == _lasting(configuration):
            _log.info("the configuration was read anew")
        else:
            _log.warning("the configuration was read anew: log level and retention hold now, the rest after a restart")


def _retain(retention: Retention, store: Store) -> None:
    store.retain(retention)
    store.tend(time.time_ns() // 1000)


def _lasting(configuration: Configuration) -> tuple[object, ...]:
    """The settings that only a new start can change."""
    settings, store = configuration.settings, configuration.store_settings
    return (
        settings.broker,
        settings.http,
        settings.store.type,
        store.model_dump(exclude=set(StoreSettings.model_fields)),
    )


def _leave_modules_alone() -> None:
    """What was imported stays for ever: the garbage collector need not look through it (20 ms each time)."""
    gc.collect()
    gc.freeze()
