"""Runs a store's blocking calls in a thread of their own, one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from cloud.store.contract import Store

R = TypeVar("R")


class StoreWorker:
    """`open_store` runs in the worker's thread, too, because SQLite's connection belongs to one caller."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open = open_store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._store: Store | None = None

    async def open(self) -> None:
        """Raises StoreError."""
        try:
            self._store = await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        except BaseException:  # a cancellation, too, must not leave the thread behind; it is passed on
            self._thread.shutdown()
            raise

    async def call(self, use: Callable[[Store], R]) -> R:
        """`await worker.call(lambda store: store.totals())`. It is finished even if the caller is cancelled."""
        store = self._store
        if store is None:
            raise RuntimeError("the store is not open")
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, lambda: use(store)))

    async def close(self) -> None:
        """Finish what was asked for, then close the store."""
        try:
            if self._store is not None:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        finally:
            self._thread.shutdown()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
