"""What every connection through asyncua's client has in common: its requests are counted, and it is shut for good."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from asyncua.client.client import Client
from asyncua.observer import Observer

# What the library logs, the driver reports as errors and bad readings. Above CRITICAL, which the library uses too.
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)


class _Counter(Observer):
    """Counts the requests that the library sends."""

    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    def observe_request(self, request: Any) -> AbstractContextManager[None]:
        self._count()
        return nullcontext()


def count_requests(client: Client, count: Callable[[], None]) -> None:
    """From now on `count` is called for each request sent."""
    client.uaclient.observer = _Counter(count)


async def shut(client: Client) -> None:
    """Leave no task and no socket, without a word to the server."""
    low = client.uaclient
    if low.protocol is not None and low.protocol.transport is not None:
        low.protocol.transport.abort()
    # The library cancels its publishing task without waiting for it, and only if the goodbye came that far.
    if low._publish_task is not None:
        low._publish_task.cancel()
        await asyncio.gather(low._publish_task, return_exceptions=True)
    while low.protocol is not None and low.protocol.transport is not None:  # noqa: ASYNC110
        await asyncio.sleep(0)  # abort() closes the socket in the loop's next turn
