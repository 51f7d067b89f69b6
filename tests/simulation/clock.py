"""A virtual clock under asyncio: time passes only when nobody has anything to do, and then at once.

Everything that tells the time in this process goes by it (`time.monotonic`, `time.time`, `time.time_ns`), and what is
given to a thread runs in the loop instead, after a delay by chance, so that a seed decides all there is to decide.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

START_S = 1_780_000_000.0  # 2026-05-28


class Stuck(Exception):
    """Nobody has anything to do, now or ever."""


class Clock:
    """`now_s`: virtual monotonic seconds; the wall clock is START_S later, plus `skew_s`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.skew_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return START_S + self.now_s + self.skew_s

    def time_ns(self) -> int:
        return round(self.time() * 1e6) * 1000

    @contextmanager
    def installed(self) -> Iterator[None]:
        """All of this process goes by this clock."""
        kept = time.monotonic, time.time, time.time_ns
        time.monotonic, time.time, time.time_ns = self.monotonic, self.time, self.time_ns
        try:
            yield
        finally:
            time.monotonic, time.time, time.time_ns = kept


class _Selector(selectors.BaseSelector):
    """Waiting is advancing the clock. Nothing is ever readable: there are no sockets in here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, data)
        self._keys[key.fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("nothing is scheduled any more, and the simulation has not ended")
        self._clock.now_s += max(0.0, timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """`chance` decides how long what would run in a thread takes: up to `latency_s`."""

    def __init__(self, clock: Clock, chance: random.Random, latency_s: float = 0.02) -> None:
        super().__init__(_Selector(clock))
        self._chance = chance
        self._latency_s = latency_s
        self._free_s: dict[Executor, float] = {}
        self._dead: set[Executor] = set()

    def kill_executor(self, executor: Executor) -> None:
        """The process that it belongs to is gone: what it had not begun never happens."""
        self._dead.add(executor)

    def run_in_executor(  # type: ignore[override]  # typeshed's is generic in the arguments, which nobody here uses
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """One after another per executor, as in its one thread."""
        future: asyncio.Future[Any] = self.create_future()
        begin_s = max(self.time(), self._free_s.get(executor, 0.0))
        self._free_s[executor] = done_s = begin_s + self._chance.uniform(0.0, self._latency_s)

        def run() -> None:
            if executor in self._dead:
                return
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001  # whatever it is belongs to whoever waits, as in a thread
                if not future.cancelled():
                    future.set_exception(error)
            else:
                if not future.cancelled():
                    future.set_result(result)

        self.call_at(done_s, run)
        return future
