"""Named tasks under supervision, and how a service begins and ends.

    async def main(stopping: asyncio.Event) -> None:
        async with Tasks(stopping, grace_s=5) as tasks:
            tasks.spawn("poll plc-1", poll(..., stopping))
            tasks.spawn("heartbeat", beat(..., stopping))
            await tasks.wait()

    run_until_signal(main)

1. A task that dies stops the service: `wait` raises TaskDied. A task that returns is done, which is no failure.
2. A stop has two steps: `stopping` is set and every task may finish what it holds; after `grace_s` the rest is
   cancelled. Leaving the `async with` block is such a stop, however it is left. When it is over, no task is left.
3. The first SIGINT or SIGTERM sets `stopping`; a second one cancels everything at once.

asyncio.TaskGroup does the half of this: it cancels at once, and knows no step before that.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

# How long a cancelled task may take to close what it holds. Then it is cancelled once more, because a cancellation can
# get lost (asyncio.wait_for of Python 3.11 does that), and waited for as long again.
CANCEL_PATIENCE_S = 5.0


class TaskDied(Exception):
    """A supervised task ended with an error, which is its cause. `name` is the task's."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} ended: {reason}")
        self.name = name


class Tasks:
    """Tasks that live and end together. See the module's text for the rules."""

    def __init__(self, stopping: asyncio.Event | None = None, *, grace_s: float = 5.0) -> None:
        self.stopping = stopping if stopping is not None else asyncio.Event()
        self._grace_s = grace_s
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: TaskDied | None = None  # the first one
        self._told = False
        self._closed = False
        self._over = asyncio.Event()  # nothing runs, or something failed
        self._over.set()

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task; while stopping too, it will see that for itself. Raises RuntimeError once the stop is over."""
        if self._closed:
            coroutine.close()
            raise RuntimeError(f"{name} cannot be started, everything was stopped")
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if self._failure is None:
            self._over.clear()
        return task

    @property
    def names(self) -> list[str]:
        """The tasks that run, in alphabetical order."""
        return sorted(task.get_name() for task in self._tasks)

    async def wait(self) -> None:
        """Return when the stop has begun or every task has returned. Raises TaskDied as soon as one has failed."""
        ends = [asyncio.create_task(event.wait(), name="wait for the end") for event in (self.stopping, self._over)]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        self._tell()

    async def stop(self, grace_s: float | None = None) -> list[str]:
        """Let the tasks finish, cancel what has not after `grace_s`, and return the names of those.

        Raises TaskDied when a task failed and `wait` has not said so. Cancelled itself, it cancels the tasks at once,
        waits for their end and passes the cancellation on.
        """
        self.stopping.set()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._grace_s if grace_s is None else grace_s):
                    while self._tasks:
                        await asyncio.wait(self._tasks)
        finally:
            late = self.names
            await self._cancel()
        self._tell()
        return late

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            await self.stop(0 if isinstance(error, asyncio.CancelledError) else None)
        except TaskDied as died:
            if error is None:
                raise
            error.add_note(str(died))  # the error that is already under way goes first

    async def _cancel(self) -> None:
        self._closed = True
        for _ in range(2):
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=CANCEL_PATIENCE_S)
        for name in self.names:
            self._fail(name, "it did not end when it was cancelled, twice", None)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(task.get_name(), str(error) or type(error).__name__, error)
        if not self._tasks:
            self._over.set()

    def _fail(self, name: str, reason: str, cause: BaseException | None) -> None:
        self._over.set()
        died = TaskDied(name, reason)
        if self._failure is None:
            self._failure = died
            self._failure.__cause__ = cause
        else:
            self._failure.add_note(str(died))

    def _tell(self) -> None:
        if self._failure is not None and not self._told:
            self._told = True
            raise self._failure


def run_until_signal(
    main: Callable[[asyncio.Event], Coroutine[Any, Any, T]], *, on_hangup: Callable[[], None] | None = None
) -> T:
    """Run `main(stopping)` in a new event loop; the first SIGINT or SIGTERM sets `stopping`, the second cancels.

    `on_hangup` is called in the loop at each SIGHUP; without it, SIGHUP keeps its meaning. Raises whatever `main`
    raises, and KeyboardInterrupt after a second signal. For the main thread only.
    """
    try:
        return asyncio.run(_until_signal(main, on_hangup))
    except _SecondSignal:
        raise KeyboardInterrupt from None


def run_interruptible(main: Coroutine[Any, Any, T]) -> T:
    """asyncio.run for a command: Ctrl-C cancels `main`, which may tidy up, and raises KeyboardInterrupt.

    asyncio.run alone cancels from within the signal handler, between any two bytecodes, and asyncio's own callbacks do
    not always survive that (an AssertionError of `_copy_future_state`, CPython 3.11); here the loop does it.
    """
    try:
        return asyncio.run(_interruptible(main))
    except _Interrupted:
        raise KeyboardInterrupt from None


class _Interrupted(Exception):
    """Someone pressed Ctrl-C."""


async def _interruptible(main: Coroutine[Any, Any, T]) -> T:
    loop, running = asyncio.get_running_loop(), asyncio.create_task(main, name="main")
    interrupted = False

    def stop() -> None:
        nonlocal interrupted
        interrupted = True
        running.cancel()

    signals_are_ours = threading.current_thread() is threading.main_thread()  # Python gives them to no other
    if signals_are_ours:
        loop.add_signal_handler(signal.SIGINT, stop)
    try:
        return await running
    except asyncio.CancelledError:
        if interrupted:
            raise _Interrupted from None
        raise
    finally:
        if signals_are_ours:
            loop.remove_signal_handler(signal.SIGINT)


class _SecondSignal(Exception):
    """Someone does not want to wait any longer."""


async def _until_signal(
    main: Callable[[asyncio.Event], Coroutine[Any, Any, T]], on_hangup: Callable[[], None] | None
) -> T:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    running = loop.create_task(main(stopping), name="main")
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        stopping.set()
        if signals > 1:
            running.cancel()

    handlers: dict[signal.Signals, Callable[[], None]] = {signal.SIGINT: stop, signal.SIGTERM: stop}
    if on_hangup is not None:
        handlers[signal.SIGHUP] = on_hangup
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        return await running
    except asyncio.CancelledError:
        if signals > 1:
            raise _SecondSignal from None
        raise
    finally:
        for number in handlers:  # before the loop waits for its threads, so that a stuck one can be interrupted
            loop.remove_signal_handler(number)
