"""From scans to the outbox: everything is stored once, nothing waits for ever, and a loss is counted."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from agent import pipeline as module
from agent.batcher import Batcher
from agent.definitions import SelfContained
from agent.outbox.contract import Draft, Lane, Outbox, OutboxError
from agent.outbox.memory import MemoryOutbox
from agent.outbox.worker import OutboxWorker
from agent.pipeline import Pipeline
from agent.uplink.fresh import Fresh
from protocols.field.contract import Group, Scan, Tag
from protocols.uplink.envelope import decode
from protocols.values import ValueType

EPOCH = "00000000000000aa"
PRESS = Lane("press", EPOCH)
GROUP = Group("plc-1", "main", 1.0, (Tag("n", ValueType.INT),))
LONG_S = 3600.0


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.002)


class GatedOutbox(MemoryOutbox):
    """Its appends wait while the gate is closed, as on a slow disk. `tries`: appends begun."""

    def __init__(self) -> None:
        super().__init__(EPOCH)
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.tries = 0

    def append(self, drafts: Sequence[Draft], now_us: int) -> Sequence[int]:
        self.tries += 1
        self.begun.set()
        assert self.gate.wait(30)
        return super().append(drafts, now_us)


@dataclass
class Line:
    """A pipeline with its outbox. `news` is set at each round and each append."""

    outbox: GatedOutbox
    worker: OutboxWorker
    batcher: Batcher
    pipeline: Pipeline = field(init=False)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    appended: int = 0
    fresh: list[Fresh] = field(default_factory=list)
    rounds: int = 0

    def _on_appended(self, batches: Sequence[Fresh]) -> None:
        self.appended += 1
        self.fresh += batches
        self.news.set()

    def _on_round(self) -> None:
        self.rounds += 1
        self.news.set()

    def build(self, interval_s: float) -> None:
        self.pipeline = Pipeline(self.batcher, self.worker, interval_s, self._on_appended, self._on_round)

    def take(self, *numbers: int) -> None:
        for number in numbers:
            self.pipeline.take(Scan(GROUP, number, [number]))

    def stored(self) -> list[int]:
        """The values in the outbox, in order of their batches' numbers."""
        batches = self.outbox.pending(PRESS, 1, 10_000, 10_000)
        return [v for b in batches for c in decode(b.payload).blocks[0].columns for v in c.values if isinstance(v, int)]

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.news.clear()
            await self.news.wait()


@contextlib.asynccontextmanager
async def line(interval_s: float, bytes_max: int = 100_000) -> AsyncIterator[Line]:
    outbox = GatedOutbox()
    made = Line(outbox, OutboxWorker(lambda: outbox), Batcher(SelfContained("gw-1"), {"plc-1": "press"}, bytes_max))
    await made.worker.open()
    made.build(interval_s)
    try:
        yield made
    finally:
        outbox.gate.set()
        await made.worker.close()


@contextlib.asynccontextmanager
async def running(pipeline: Pipeline) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(pipeline.run(), name="pipeline")
    try:
        yield task
        assert not task.done()
    finally:
        task.cancel()
        [end] = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(end, asyncio.CancelledError), end


async def test_what_comes_within_an_interval_is_one_batch() -> None:
    async with line(0.002) as one:
        one.take(1, 2, 3)
        async with running(one.pipeline):
            await one.until(lambda: one.appended == 1)
            one.take(4)
            await one.until(lambda: one.appended == 2)
        assert one.stored() == [1, 2, 3, 4]
        assert one.outbox.stats().batches == 2
        assert one.pipeline.readings_stored == 4
        assert one.pipeline.readings_lost == 0


async def test_what_was_stored_is_handed_on_as_it_stands_on_disk() -> None:
    async with line(0.002) as one:
        one.take(1, 2)
        async with running(one.pipeline):
            await one.until(lambda: one.appended == 1)
            one.take(3)
            await one.until(lambda: one.appended == 2)
        stored = one.outbox.pending(PRESS, 1, 9, 9)
        assert [(batch.lane, batch.seq, batch.payload) for batch in one.fresh] == [
            (PRESS, batch.seq, batch.payload) for batch in stored
        ]
        assert one.pipeline.bytes_stored == sum(len(batch.payload) for batch in stored)


async def test_with_no_interval_each_scan_goes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", LONG_S)
    async with line(0) as one, running(one.pipeline):
        for number in range(3):
            one.take(number)
            await one.until(lambda: one.appended == number + 1)  # noqa: B023  # is awaited before the next round
        assert one.stored() == [0, 1, 2]


@pytest.mark.timeout(10)
async def test_it_rests_when_everything_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", LONG_S)
    async with line(0) as one, running(one.pipeline):
        one.take(1)
        await one.until(lambda: one.appended == 1)
        for _ in range(20):
            await asyncio.sleep(0)
        rounds = one.rounds
        for _ in range(20):
            await asyncio.sleep(0)
        assert one.rounds == rounds


async def test_a_full_batch_does_not_wait_for_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", LONG_S)
    async with line(LONG_S, bytes_max=1000) as one, running(one.pipeline):
        await one.until(lambda: one.rounds > 0)
        one.take(*range(100))
        await one.until(lambda: one.appended == 1)
        assert one.stored() == list(range(100))


async def test_the_watchdog_hears_of_it_though_nothing_comes() -> None:
    async with line(LONG_S) as one, running(one.pipeline):
        await one.until(lambda: one.rounds >= 3)
        assert one.appended == 0


async def test_a_full_disk_is_tried_again_and_said_once() -> None:
    async with line(0.002) as one:
        one.outbox.full = True
        with capture_logs() as logs:
            async with running(one.pipeline):
                one.take(1, 2)
                await one.until(lambda: one.outbox.tries >= 3)
                one.take(3)
                tries = one.outbox.tries
                await one.until(lambda: one.outbox.tries >= tries + 2)
                assert one.appended == 0
                one.outbox.full = False
                await one.until(lambda: one.appended == 1)
        assert one.stored() == [1, 2, 3]
        assert (one.pipeline.readings_stored, one.pipeline.readings_lost) == (3, 0)
        assert [log["log_level"] for log in logs] == ["error", "info"]
        assert logs[0]["event"].startswith("the outbox in memory takes nothing more")
        assert logs[1]["event"] == "the outbox stores again"


async def test_a_disk_that_is_full_a_second_time_is_said_again() -> None:
    async with line(0.002) as one:
        with capture_logs() as logs:
            async with running(one.pipeline):
                for number in range(2):
                    one.outbox.full = True
                    tries = one.outbox.tries
                    one.take(number)
                    await one.until(lambda: one.outbox.tries > tries)  # noqa: B023  # is awaited here
                    one.outbox.full = False
                    await one.until(lambda: one.appended == number + 1)  # noqa: B023  # is awaited here
        assert one.stored() == [0, 1]
        assert [log["log_level"] for log in logs] == ["error", "info"] * 2


async def test_beyond_the_memory_bound_the_oldest_go_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with line(0.002) as one:
        one.outbox.full = True
        with capture_logs() as logs:
            async with running(one.pipeline):
                for number in range(5):
                    tries = one.outbox.tries
                    one.take(2 * number, 2 * number + 1)
                    await one.until(lambda: one.outbox.tries >= tries + 2)  # noqa: B023  # is awaited here
                waiting = list(one.pipeline._waiting)
                assert len(waiting) == 5
                monkeypatch.setattr(module, "MEMORY_BYTES", sum(filled.bytes for filled in waiting[2:]))
                await one.until(lambda: one.pipeline.readings_lost > 0)
                one.outbox.full = False
                await one.until(lambda: one.appended == 1)
        assert one.stored() == [4, 5, 6, 7, 8, 9]
        assert (one.pipeline.readings_stored, one.pipeline.readings_lost) == (6, 4)
        [told] = [log for log in logs if "readings are lost" in log["event"]]
        assert (told["lost"], told["ever"]) == (4, 4)


async def test_finish_stores_what_is_left() -> None:
    async with line(LONG_S) as one:
        async with running(one.pipeline):
            one.take(1, 2)
        assert one.stored() == []
        await one.pipeline.finish()
        assert one.stored() == [1, 2]
        await one.pipeline.finish()
        assert one.stored() == [1, 2]


async def test_finish_says_what_the_disk_would_not_take() -> None:
    async with line(LONG_S) as one:
        one.outbox.full = True
        one.take(1, 2)
        with pytest.raises(OutboxError, match=r"^2 readings could not be stored") as caught, capture_logs():
            await one.pipeline.finish()
        assert "\n" not in str(caught.value)
        one.outbox.full = False
        await one.pipeline.finish()
        assert one.stored() == [1, 2]


async def test_what_is_on_its_way_to_the_disk_when_the_stop_comes_is_stored_once() -> None:
    async with line(0.002) as one:
        one.outbox.gate.clear()
        async with running(one.pipeline):
            one.take(1, 2)
            await asyncio.to_thread(one.outbox.begun.wait)
            one.take(3)
        finishing = asyncio.create_task(one.pipeline.finish())
        await asyncio.sleep(0)
        one.outbox.gate.set()
        await finishing
        assert one.stored() == [1, 2, 3]
        assert one.pipeline.readings_stored == 3


async def test_scans_that_come_while_the_disk_is_slow_are_the_next_batch() -> None:
    async with line(0.002) as one:
        one.outbox.gate.clear()
        async with running(one.pipeline):
            one.take(1)
            await asyncio.to_thread(one.outbox.begun.wait)
            one.take(2, 3)
            one.outbox.gate.set()
            await one.until(lambda: one.appended == 2)
        assert one.stored() == [1, 2, 3]
        assert [b.seq for b in one.outbox.pending(PRESS, 1, 9, 9)] == [1, 2]


class BrokenOutbox(MemoryOutbox):
    def append(self, drafts: Sequence[Draft], now_us: int) -> Sequence[int]:
        raise RuntimeError("a fault of ours")


async def test_a_fault_of_ours_is_not_swallowed() -> None:
    worker = OutboxWorker(BrokenOutbox)
    await worker.open()
    pipeline = Pipeline(Batcher(SelfContained("gw-1"), {"plc-1": "press"}), worker, 0)
    pipeline.take(Scan(GROUP, 1, [1]))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        await pipeline.run()
    await worker.close()


async def test_the_worker_finishes_what_was_asked_for_though_nobody_waits() -> None:
    async with line(LONG_S) as one:
        one.outbox.gate.clear()
        one.take(7)
        drafts = [filled.draft for filled in one.batcher.drain()]
        asking = asyncio.create_task(one.worker.call(Outbox.append, drafts, 1))
        await asyncio.to_thread(one.outbox.begun.wait)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        one.outbox.gate.set()
        held = await one.worker.call(Outbox.held)
        assert held[PRESS].last == 1
