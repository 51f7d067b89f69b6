"""Runs an outbox's blocking calls in a thread of their own, one after another, so that an fsync never stops polling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from agent.outbox.contract import Outbox

P = ParamSpec("P")
R = TypeVar("R")


class OutboxWorker:
    """`open_outbox` runs in the worker's thread, too, because SQLite's connection belongs to one thread."""

    def __init__(self, open_outbox: Callable[[], Outbox]) -> None:
        self._open = open_outbox
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._outbox: Outbox | None = None

    async def open(self) -> Outbox:
        """Raises OutboxError. Of the outbox returned only its properties may be used outside the thread."""
        try:
            self._outbox = await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        except BaseException:  # a cancellation, too, must not leave the thread behind; it is passed on
            self._thread.shutdown()
            raise
        return self._outbox

    async def call(self, method: Callable[Concatenate[Outbox, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`await worker.call(Outbox.offer, lane, first, last)`. It is finished even if the caller is cancelled."""
        return await self.run(lambda outbox: getattr(outbox, method.__name__)(*args, **kwargs))

    async def run(self, job: Callable[[Outbox], R]) -> R:
        """Several calls for the price of one change of threads. It is finished even if the caller is cancelled."""
        assert self._outbox is not None, "open the outbox first"  # noqa: S101  # a programmer's error
        future = asyncio.get_running_loop().run_in_executor(self._thread, job, self._outbox)
        future.add_done_callback(_seen)
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Finish what was asked for, then close the outbox."""
        if self._outbox is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._outbox.close)
        self._thread.shutdown()


def _seen(future: asyncio.Future[R]) -> None:
    """What failed after its caller was cancelled is nobody's news any more."""
    if not future.cancelled():
        future.exception()
