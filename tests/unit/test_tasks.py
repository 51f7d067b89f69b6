"""Supervision: what dies stops the service, a stop drains before it cancels, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from protocols.program import tasks as module
from protocols.program.tasks import TaskDied, Tasks, run_interruptible, run_until_signal


@pytest.fixture(autouse=True)
async def nothing_leaks() -> AsyncIterator[None]:
    """No test leaves a task behind; the fixture's own ones, which differ before and after, do not count."""
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}


async def for_ever() -> None:
    await asyncio.Event().wait()


async def fail(message: str) -> None:
    await asyncio.sleep(0)
    raise ValueError(message)


async def test_the_first_failure_stops_the_wait_and_names_the_task() -> None:
    async with Tasks(grace_s=0) as tasks:
        tasks.spawn("heartbeat", for_ever())
        tasks.spawn("poll plc-1", fail("no such unit"))
        with pytest.raises(TaskDied, match=r"^poll plc-1 ended: no such unit$") as caught:
            await tasks.wait()
    assert caught.value.name == "poll plc-1"
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_failure_leaves_the_block_after_the_others_ended() -> None:
    closed = []

    async def holder(stopping: asyncio.Event) -> None:
        await stopping.wait()
        closed.append("holder")

    async def service() -> None:
        async with Tasks() as tasks:
            tasks.spawn("holder", holder(tasks.stopping))
            tasks.spawn("poll", fail("x"))
            await tasks.wait()

    with pytest.raises(TaskDied, match="poll ended: x"):
        await service()
    assert closed == ["holder"]


async def test_later_failures_are_told_with_the_first() -> None:
    async def fail_at_stop(stopping: asyncio.Event) -> None:
        await stopping.wait()
        raise OSError("disk full")

    async def service() -> None:
        async with Tasks() as tasks:
            tasks.spawn("outbox", fail_at_stop(tasks.stopping))
            tasks.spawn("poll", fail("x"))
            await tasks.wait()

    with pytest.raises(TaskDied) as caught:
        await service()
    assert caught.value.name == "poll"
    assert caught.value.__notes__ == ["outbox ended: disk full"]


async def test_wait_returns_when_all_have_returned_and_when_there_is_nothing() -> None:
    async with Tasks() as tasks:
        await tasks.wait()
        tasks.spawn("once", asyncio.sleep(0))
        await tasks.wait()
        assert tasks.names == []
        assert not tasks.stopping.is_set()


async def test_wait_sees_a_task_that_was_spawned_meanwhile() -> None:
    async with Tasks(grace_s=0) as tasks:

        async def parent() -> None:
            tasks.spawn("child", fail("born unlucky"))
            await for_ever()

        tasks.spawn("parent", parent())
        with pytest.raises(TaskDied, match="child ended: born unlucky"):
            await tasks.wait()


async def test_wait_leaves_no_helper_behind() -> None:
    tasks = Tasks()
    tasks.spawn("poll", for_ever())
    tasks.stopping.set()
    before = asyncio.all_tasks()
    await tasks.wait()
    assert asyncio.all_tasks() == before
    assert await tasks.stop(grace_s=0) == ["poll"]


async def test_wait_goes_on_while_a_task_runs() -> None:
    release = asyncio.Event()
    async with Tasks() as tasks:
        tasks.spawn("poll", wait_for(release))
        waiting = asyncio.create_task(tasks.wait())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        release.set()
        await waiting
        assert tasks.names == []


async def test_a_task_cancelled_by_its_owner_is_no_failure() -> None:
    async with Tasks() as tasks:
        tasks.spawn("extra", for_ever()).cancel()
        await tasks.wait()


async def test_stop_drains_first_and_cancels_only_what_is_late() -> None:
    ends = []

    async def drains(stopping: asyncio.Event) -> None:
        await stopping.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        ends.append("drained")

    async def stays() -> None:
        try:
            await for_ever()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    tasks = Tasks()
    tasks.spawn("forwarder", drains(tasks.stopping))
    tasks.spawn("poller", stays())
    assert tasks.names == ["forwarder", "poller"]
    assert await tasks.stop(grace_s=0.05) == ["poller"]
    assert ends == ["drained", "cancelled"]
    assert tasks.names == []
    assert await tasks.stop() == []


async def test_a_failure_during_the_stop_is_raised_by_it() -> None:
    async def fails(stopping: asyncio.Event) -> None:
        await stopping.wait()
        raise OSError("disk full")

    tasks = Tasks()
    tasks.spawn("outbox", fails(tasks.stopping))
    with pytest.raises(TaskDied, match="outbox ended: disk full"):
        await tasks.stop()


async def test_an_error_of_the_block_goes_first_and_carries_the_tasks_failure() -> None:
    async def service() -> None:
        async with Tasks() as tasks:
            tasks.spawn("poll", fail("x"))
            await asyncio.sleep(0)
            raise KeyError("own")

    with pytest.raises(KeyError) as caught:
        await service()
    assert caught.value.__notes__ == ["poll ended: x"]


async def test_a_task_may_be_started_while_stopping_but_not_after() -> None:
    stopping = asyncio.Event()
    stopping.set()  # a signal that came before anything was started
    ran = []

    async def looks(stopping: asyncio.Event) -> None:
        ran.append(stopping.is_set())

    async with Tasks(stopping) as tasks:
        tasks.spawn("poll", looks(stopping))
        await tasks.wait()
    assert ran == [True]
    with pytest.raises(RuntimeError, match="poll cannot be started, everything was stopped"):
        tasks.spawn("poll", for_ever())


async def test_a_stop_that_is_cancelled_cancels_the_tasks_at_once() -> None:
    tasks = Tasks()
    tasks.spawn("poller", for_ever())
    stop = asyncio.create_task(tasks.stop(grace_s=3600))
    await tasks.stopping.wait()
    stop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stop
    assert tasks.names == []


async def test_a_lost_cancellation_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANCEL_PATIENCE_S", 0.02)
    cancelled = []

    async def deaf() -> None:
        for _ in range(2):
            try:
                await for_ever()
            except asyncio.CancelledError:
                cancelled.append(1)

    tasks = Tasks()
    tasks.spawn("deaf", deaf())
    await asyncio.sleep(0)
    assert await tasks.stop(grace_s=0) == ["deaf"]
    assert len(cancelled) == 2


async def test_a_task_that_never_ends_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANCEL_PATIENCE_S", 0.01)
    release = asyncio.Event()

    async def stuck() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    tasks = Tasks()
    task = tasks.spawn("stuck", stuck())
    await asyncio.sleep(0)
    with pytest.raises(TaskDied, match="stuck ended: it did not end when it was cancelled, twice"):
        await tasks.stop(grace_s=0)
    release.set()
    await task


def kill_self(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks(number: signal.Signals) -> None:
    async def main(stopping: asyncio.Event) -> str:
        async with Tasks(stopping) as tasks:
            tasks.spawn("poll", wait_for(stopping))
            kill_self(number)
            await tasks.wait()
        return "drained"

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert run_until_signal(main) == "drained"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def wait_for(event: asyncio.Event) -> None:
    await event.wait()


def test_the_second_signal_cancels_at_once() -> None:
    ended = []

    async def slow(stopping: asyncio.Event) -> None:
        await stopping.wait()
        kill_self(signal.SIGINT)
        try:
            await for_ever()
        finally:
            ended.append("slow")

    async def main(stopping: asyncio.Event) -> None:
        async with Tasks(stopping, grace_s=3600) as tasks:
            tasks.spawn("slow", slow(stopping))
            kill_self(signal.SIGTERM)
            await tasks.wait()

    with pytest.raises(KeyboardInterrupt):
        run_until_signal(main)
    assert ended == ["slow"]


def test_hangup_calls_back_each_time() -> None:
    calls = []
    called = asyncio.Event()

    async def main(stopping: asyncio.Event) -> None:
        for _ in range(2):
            kill_self(signal.SIGHUP)
            await called.wait()
            called.clear()
        assert not stopping.is_set()

    def reload() -> None:
        calls.append("reload")
        called.set()

    before = signal.getsignal(signal.SIGHUP)
    run_until_signal(main, on_hangup=reload)
    assert calls == ["reload", "reload"]
    assert signal.getsignal(signal.SIGHUP) == before


async def test_the_signal_handlers_go_before_the_loop_does() -> None:
    async def main(stopping: asyncio.Event) -> None:
        kill_self(signal.SIGTERM)
        await stopping.wait()

    await module._until_signal(main, lambda: None)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        assert loop.remove_signal_handler(number) is False


@pytest.mark.parametrize("error", [TaskDied("poll", "x"), ValueError("y"), asyncio.CancelledError()])
def test_errors_of_main_come_out_as_they_are(error: BaseException) -> None:
    async def main(_: asyncio.Event) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run_until_signal(main)
    assert str(caught.value) == str(error)


def test_an_interruptible_command_is_cancelled_in_the_loops_own_turn() -> None:
    tidied = []

    async def waits() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        finally:
            tidied.append(True)

    with pytest.raises(KeyboardInterrupt):
        run_interruptible(waits())
    assert tidied == [True]


def test_an_interruptible_command_gives_its_result_in_any_thread() -> None:
    async def answers() -> int:
        await asyncio.sleep(0)
        return 42

    assert run_interruptible(answers()) == 42
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(lambda: run_interruptible(answers())).result() == 42
