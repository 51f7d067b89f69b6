"""From scans to the outbox: collect, and every `interval_s` number and store what came, in one transaction.

A reading is taken when `append` has returned; before that it is only in memory. If the disk takes nothing, batches wait
here within MEMORY_BYTES; beyond that the oldest are given up, counted and said loudly.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate, islice, takewhile
from typing import Protocol

from agent.batcher import Batcher, Filled
from agent.bell import Bell
from agent.outbox.contract import Outbox, OutboxError
from agent.outbox.worker import OutboxWorker
from agent.uplink.fresh import Fresh
from protocols.field.contract import Scan
from protocols.program.logs import get_logger

MEMORY_BYTES = 32 << 20
PORTION_BYTES = 256 << 10
RETRY_S = 1.0

_log = get_logger(part="outbox")


class Marks(Protocol):
    """Says with which mark a batch is stamped (agent/clock.py)."""

    def mark(self, time_us: int) -> bytes:
        """For what was stamped with this time, and is taken now."""

    def marked(self, count: int) -> None:
        """So many batches were stored with a mark."""


class Vouched:
    """Every time is right."""

    def mark(self, time_us: int) -> bytes:
        return b""

    def marked(self, count: int) -> None:
        pass


class Pipeline:
    """`on_appended` is called after each append with what the outbox has taken.

    `on_round` is called every second, which is the watchdog's sign of life.
    """

    def __init__(
        self,
        batcher: Batcher,
        outbox: OutboxWorker,
        interval_s: float,
        on_appended: Callable[[Sequence[Fresh]], None] = lambda _: None,
        on_round: Callable[[], None] = lambda: None,
        marks: Marks = Vouched(),  # noqa: B008  # it holds nothing
    ) -> None:
        self._batcher = batcher
        self._outbox = outbox
        self._interval_s = interval_s
        self._on_appended = on_appended
        self._on_round = on_round
        self._marks = marks
        self._bell = Bell()
        self._waiting: deque[Filled] = deque()
        self._storing: asyncio.Task[None] | None = None
        self.trouble = ""
        """Why the outbox takes nothing; empty while it does."""
        self.bytes_stored = 0
        self.readings_stored = 0
        self.readings_lost = 0

    def take(self, scan: Scan) -> None:
        """Collect one scan."""
        self._batcher.add(scan, self._marks.mark(scan.time_us))
        if self._interval_s == 0 or self._batcher.full:
            self._bell.ring()

    async def run(self) -> None:
        """Until cancelled; then nothing is lost that `finish` does not store."""
        while True:
            await self._pause(RETRY_S if self.trouble else self._interval_s or RETRY_S)
            await self._round()

    async def _pause(self, pause_s: float) -> None:
        """Until the bell rings or for `pause_s`, with a sign of life every second: the interval may be an hour."""
        end_s = time.monotonic() + pause_s
        while (left_s := end_s - time.monotonic()) > 0:
            self._on_round()
            if await self._bell.wait(min(left_s, RETRY_S)):
                return

    async def finish(self) -> None:
        """Store what is still in memory. Raises OutboxError where the disk takes nothing."""
        if self._storing is not None:  # `run` was cancelled while this was on its way to the disk
            await self._storing
        await self._round()
        if self._waiting:
            raise OutboxError(
                f"{sum(f.readings for f in self._waiting)} readings could not be stored; the disk is full"
            )

    async def _round(self) -> None:
        self._waiting.extend(self._batcher.drain())
        if self._waiting:
            # Not cancelled with us: what the disk has taken must not wait here still, or it would be stored twice.
            self._storing = asyncio.create_task(self._store(), name="store")
            await asyncio.shield(self._storing)
        self._on_round()

    async def _store(self) -> None:
        while self._waiting:
            filled = self._portion()
            try:
                numbers = await self._outbox.call(Outbox.append, [f.draft for f in filled], time.time_ns() // 1000)
            except OutboxError as error:
                if not self.trouble:
                    _log.error(str(error))
                self.trouble = str(error)
                self._give_up_excess()
                return
            for _ in filled:
                self._waiting.popleft()
            self._note(filled, numbers)
        if self.trouble:
            _log.info("the outbox stores again", readings_lost=self.readings_lost)
            self.trouble = ""

    def _portion(self) -> list[Filled]:
        """All that waits; a little of it while the disk is full: there is room then for what the log holds, no more."""
        if not self.trouble:
            return list(self._waiting)
        sizes = accumulate(f.bytes for f in self._waiting)
        count = sum(1 for _ in takewhile(lambda size: size <= PORTION_BYTES, sizes))
        return list(islice(self._waiting, max(1, count)))

    def _note(self, filled: Sequence[Filled], numbers: Sequence[int]) -> None:
        self.readings_stored += sum(f.readings for f in filled)
        self._marks.marked(sum(1 for f in filled if f.mark))
        fresh = []
        for one, number in zip(filled, numbers, strict=True):
            if one.made is not None and one.made.seq == number:
                lane, seq, encoded = one.made
                self.bytes_stored += len(encoded.payload)
                fresh.append(Fresh(lane, seq, encoded.payload, encoded.definitions, one.draft.priority))
        self._on_appended(fresh)

    def _give_up_excess(self) -> None:
        excess = sum(f.bytes for f in self._waiting) - MEMORY_BYTES
        lost = 0
        while excess > 0:
            oldest = self._waiting.popleft()
            excess -= oldest.bytes
            lost += oldest.readings
        if lost:
            self.readings_lost += lost
            _log.error(
                "the disk takes nothing and memory is used up: readings are lost", lost=lost, ever=self.readings_lost
            )
