"""The bell: no ring is lost, and none is heard twice."""

from __future__ import annotations

import asyncio

from agent.bell import Bell

LONG_S = 3600.0


async def test_a_ring_that_comes_first_is_heard_once() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    assert await bell.wait(LONG_S)
    assert not await bell.wait(0.001)


async def test_a_ring_wakes_who_waits() -> None:
    bell = Bell()
    waiting = asyncio.create_task(bell.wait(LONG_S))
    await asyncio.sleep(0)
    bell.ring()
    assert await waiting
    assert not await bell.wait(0.001)


async def test_who_was_cancelled_takes_no_ring_away() -> None:
    bell = Bell()
    waiting = asyncio.create_task(bell.wait(LONG_S))
    await asyncio.sleep(0)
    bell.ring()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await bell.wait(LONG_S)
