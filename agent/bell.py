"""Waiting for a ring, or for a time to pass, without a task or a cancellation: for loops that do it for ever."""

from __future__ import annotations

import asyncio


class Bell:
    """Whoever rings wakes the one who waits; a ring that comes first is not lost."""

    def __init__(self) -> None:
        self._rung = False
        self._waiting: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake who waits, now or as soon as somebody does."""
        self._rung = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def wait(self, within_s: float) -> bool:
        """Whether it rings in that time. One waits at a time; the ring is used up with that."""
        if not self._rung:
            loop = asyncio.get_running_loop()
            self._waiting = waiting = loop.create_future()
            timer = loop.call_later(within_s, _wake, waiting)
            try:
                await waiting
            finally:
                timer.cancel()
                self._waiting = None
        rung, self._rung = self._rung, False
        return rung


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
