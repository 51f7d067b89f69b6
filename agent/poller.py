"""One device, one task: connect, read its groups on their grid, hand every scan on; reconnect when it is away.

A device that is away yields bad readings with the reason once per change, and a log line once; in between it is tried
again with growing pauses. No device ever waits for another: each has its own task and its own driver.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from agent.bell import Bell
from agent.devicememory import DeviceMemory
from agent.grid import Grid
from protocols.field.contract import Driver, FieldError, Group, Scan
from protocols.program.logs import get_logger
from protocols.uplink.status import TIMESTAMP_MS_MAX

RETRY_S_FIRST = 1.0
RETRY_S_MAX = 30.0
T = TypeVar("T")
REMIND_S = 600.0  # how often the log says that a device is still away

_log = get_logger(part="device")


@dataclass(slots=True)
class DeviceState:
    """What is known of a device's link, for heartbeats and people. `state`: starting, ok, bad or away."""

    state: str = "starting"
    since_us: int = 0
    reason: str = ""
    readings: int = 0
    failures: int = 0


class DriverFailed(FieldError):
    """A driver raised what its contract does not allow."""


Shape = Callable[[Group, Sequence[Scan], float, int], Sequence[Scan]]
"""What becomes of the scans that a read of a group gave: see agent.shaping. Monotonic seconds; µs since 1970."""


Ear = Callable[[Scan | FieldError], None]
"""Hears what a driver gives, or why it gives nothing. Returns at once and never raises."""


def _as_it_is(group: Group, scans: Sequence[Scan], now_s: float, now_us: int) -> Sequence[Scan]:
    del group, now_s, now_us
    return scans


class Poller:
    """`take` gets every scan at once, in the event loop. `on_change` is called after each change of state.

    `memory` keeps what the driver learns about the device, for the next start. `shape` makes of what was read what
    `take` gets, and what counts as readings.
    """

    def __init__(
        self,
        device: str,
        driver: Driver,
        groups: Sequence[Group],
        take: Callable[[Scan], None],
        on_change: Callable[[], None] = lambda: None,
        memory: DeviceMemory | None = None,
        shape: Shape = _as_it_is,
    ) -> None:
        self.device = device
        self.state = DeviceState(since_us=_now_us())
        self.alive_s = time.monotonic()
        """When the loop last went round; for the watchdog."""
        self._stopping = False
        self._bell = Bell()
        self._driver = driver
        self._groups = list(groups)
        self._take = take
        self._on_change = on_change
        self._memory = memory
        self._shape = shape
        self._away_as: tuple[type[FieldError], int] | None = None
        self._away_s = self._reminded_s = 0.0
        self._pause_s = RETRY_S_FIRST
        self._faults: dict[tuple[int, int], str] = {}  # (group, tag) → why
        self._ear: Ear | None = None
        self._grid = Grid(groups, time.monotonic())

    @property
    def requests(self) -> int:
        """How many requests were sent to the device since the start."""
        return self._driver.requests

    async def run(self) -> None:
        """Until `stop`, which lets a read that is under way end, or until cancelled."""
        if self._memory is not None:
            self._memory.recall()
        try:
            while not self._stopping:
                try:
                    await self._guard(self._driver.connect())
                    self._grid.resume(time.monotonic())
                    await self._read_on()
                except FieldError as error:
                    self._away(error)
                await self._close()
                await self._sleep(self._pause_s * random.uniform(0.8, 1.2))
                self._pause_s = min(2 * self._pause_s, RETRY_S_MAX)
        finally:
            await self._close()
            if self._memory is not None:
                self._memory.keep(at_once=True)

    def listen(self, ear: Ear | None) -> None:
        """`ear` gets what the driver gives from now on, before anything is made of it; None ends that."""
        self._ear = ear

    def stop(self) -> None:
        """Begin no further read: what the device is answering just now is still taken."""
        self._stopping = True
        self._bell.ring()

    async def _read_on(self) -> None:
        while True:
            due_s, at = self._grid.next_due()
            await self._sleep(due_s - time.monotonic())
            if self._stopping:
                return
            scans = await self._guard(self._driver.read(self._groups[at]))
            self._check(self._groups[at], scans)
            if self._ear is not None:
                for scan in scans:
                    self._ear(scan)
            self._grid.done(at, time.monotonic())
            self._read(at, scans)
            if self._memory is not None:
                self._memory.keep()

    async def _sleep(self, pause_s: float) -> None:
        """Sleep, showing the watchdog every second that this loop is alive."""
        end_s = time.monotonic() + max(0.0, pause_s)
        while True:
            self.alive_s = time.monotonic()
            left_s = end_s - self.alive_s
            if left_s <= 0 or self._stopping:
                return
            await self._bell.wait(min(left_s, 1.0))

    async def _guard(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except FieldError:
            raise
        except Exception as error:  # a third party's driver is code we do not know: its fault takes its device away
            what = f"{type(error).__name__}: {error}"
            raise DriverFailed(f"{self.device}: the driver failed ({what}); the log has the details") from error

    async def _close(self) -> None:
        try:
            await self._guard(self._driver.close())
        except FieldError as error:  # it promises not to raise; the next connect shows whether it matters
            _log.warning(str(error), device=self.device, exc_info=error.__cause__)

    def _check(self, group: Group, scans: Sequence[Scan]) -> None:
        """What could not be stored must not get as far as the batcher."""
        for scan in scans:
            count = len(group.tags) if scan.indexes is None else len(scan.indexes)
            if scan.group is not group or not all(0 <= at < len(group.tags) for at in scan.indexes or ()):
                what = "a scan of other tags than it was asked for"
            elif len(scan.values) != count:
                what = f"{len(scan.values)} values for {count} tags"
            elif scan.quality is not None and len(scan.quality) != count:
                what = f"{len(scan.quality)} qualities for {count} tags"
            elif type(scan.time_us) is not int or not 0 <= scan.time_us <= TIMESTAMP_MS_MAX * 1000:
                what = f"the time {scan.time_us!r:.40}, which is not microseconds in the years 1970 to 9999"
            else:
                continue
            raise DriverFailed(f"{self.device}: the driver gave {what}; report it to whoever wrote the driver")

    def _read(self, at: int, scans: Sequence[Scan]) -> None:
        self._hand_on(self._groups[at], scans)
        for scan in scans:
            self._note_faults(at, scan)
        self._pause_s = RETRY_S_FIRST
        if self._away_as is not None:
            _log.info("answers again", device=self.device, failures=self.state.failures)
            self._away_as = None
            self.state.failures = 0
        if self._faults:
            reason = next(iter(self._faults.values()))
            count = len(self._faults)
            self._change("bad", f"one tag fails: {reason}" if count == 1 else f"{count} tags fail, such as: {reason}")
        else:
            self._change("ok", "")

    def _hand_on(self, group: Group, scans: Sequence[Scan]) -> None:
        for scan in self._shape(group, scans, time.monotonic(), _now_us()):
            self.state.readings += len(scan)
            self._take(scan)

    def _note_faults(self, at: int, scan: Scan) -> None:
        if not scan.reasons and not self._faults:
            return
        for position in range(len(scan.group.tags)) if scan.indexes is None else scan.indexes:
            reason = scan.reasons.get(position)
            if reason is None:
                self._faults.pop((at, position), None)
            else:
                self._faults[at, position] = reason

    def _away(self, error: FieldError) -> None:
        """Say it once per change, to the log and as readings; remind the log now and then."""
        self.state.failures += 1
        if self._ear is not None:
            self._ear(error)
        now_s, kind = time.monotonic(), (type(error), error.quality)
        if self._away_as != kind:
            self._away_as, self._away_s, self._reminded_s = kind, now_s, now_s
            self._faults.clear()
            _log.warning(str(error), device=self.device, exc_info=error.__cause__)
            for group in self._groups:
                self._hand_on(group, [Scan.all_bad(group, _now_us(), error.quality, str(error))])
        elif now_s - self._reminded_s >= REMIND_S:
            self._reminded_s = now_s
            minutes = round((now_s - self._away_s) / 60)
            _log.warning(
                "still away", device=self.device, failures=self.state.failures, minutes=minutes, reason=str(error)
            )
        self._change("away", str(error))

    def _change(self, state: str, reason: str) -> None:
        changed = state != self.state.state
        self.state.reason = reason
        if changed:
            self.state.state, self.state.since_us = state, _now_us()
            self._on_change()


def _now_us() -> int:
    return time.time_ns() // 1000
