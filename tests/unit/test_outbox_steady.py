"""The outbox's steady time: a clock that is set makes nothing too old, and ends no grace time."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.outbox.contract import Draft, Encoded, Lane
from agent.outbox.disk import DiskOutbox
from agent.outbox.steady import SteadyClock

S = 1_000_000
DAY = 86_400
YEAR = 365 * DAY
START_S = 1_800_000_000
AGE_S, GRACE_S = 7 * DAY, DAY


class Gateway:
    """Its two clocks, in seconds, and its outbox. `step` sets the wall clock; `off` takes the power away meanwhile."""

    def __init__(self, directory: Path, wall_s: float = START_S) -> None:
        self.directory = directory
        self.wall_s = wall_s
        self.passed_s = 12.5
        self.outbox = self.opened()

    def opened(self) -> DiskOutbox:
        return DiskOutbox(
            self.directory, reserve_bytes=0, age_max_s=AGE_S, grace_s=GRACE_S, monotonic_s=lambda: self.passed_s
        )

    @property
    def now_us(self) -> int:
        return round(self.wall_s * S)

    def goes_on(self, for_s: float) -> None:
        self.wall_s += for_s
        self.passed_s += for_s
        self.outbox.tend(self.now_us)

    def step(self, by_s: float) -> None:
        self.wall_s += by_s
        self.outbox.tend(self.now_us)

    def off(self, for_s: float, then_wall_s: float | None = None) -> None:
        self.outbox.close()
        self.passed_s = 3.0
        self.wall_s = self.wall_s + for_s if then_wall_s is None else then_wall_s
        self.outbox = self.opened()
        self.outbox.tend(self.now_us)

    def append(self) -> None:
        self.outbox.append([Draft("m", lambda epoch, seq: Encoded(f"{epoch} {seq}".encode()), 1)], self.now_us)

    def holds(self) -> tuple[int, int, int]:
        """How many wait, how many are kept, how many seconds ago the oldest that waits was appended."""
        [held] = self.outbox.held().values()
        oldest_us = self.outbox.stats().oldest_us
        counts = [sum(last - first + 1 for first, last in one) for one in (held.waiting, held.kept)]
        return counts[0], counts[1], 0 if oldest_us is None else round((self.now_us - oldest_us) / S)

    def fill(self) -> None:
        """Two that wait, one that is kept; an hour passes."""
        for _ in range(3):
            self.append()
        self.outbox.confirmed(Lane("m", self.outbox.epoch), 1, (), self.now_us)
        self.goes_on(3600)


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path / "o")


@pytest.mark.parametrize("step_s", [2 * YEAR, -2 * YEAR])
def test_a_step_of_years_drops_nothing_and_time_goes_on(gateway: Gateway, step_s: float) -> None:
    gateway.fill()
    gateway.step(step_s)
    assert gateway.holds() == (2, 1, 3600)
    gateway.goes_on(GRACE_S - 7200)
    assert gateway.holds() == (2, 1, GRACE_S - 3600)
    gateway.goes_on(3 * 3600)
    assert gateway.holds() == (2, 0, GRACE_S + 2 * 3600), "its grace time is over"
    gateway.step(-step_s)
    gateway.goes_on(AGE_S - GRACE_S - 3 * 3600)
    assert gateway.holds()[0] == 2
    gateway.goes_on(2 * 3600)
    assert gateway.holds()[0] == 0, "they are too old"
    gateway.outbox.close()


def test_a_gateway_that_begins_in_1970_and_is_then_set(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "o", wall_s=20)
    gateway.fill()
    gateway.step(START_S)
    assert gateway.holds() == (2, 1, 3600)
    gateway.off(3 * DAY)
    assert gateway.holds() == (2, 0, 3 * DAY + 3600), "the step was written down: the time since counts"
    gateway.outbox.close()


def test_the_time_that_it_is_off_counts(gateway: Gateway) -> None:
    gateway.fill()
    gateway.off(5 * DAY)
    assert gateway.holds() == (2, 0, 5 * DAY + 3600)
    gateway.off(2 * DAY)
    assert gateway.holds() == (0, 0, 0), "too old"
    gateway.outbox.close()


@pytest.mark.parametrize("wall_s", [15.0, START_S + 2.0 * YEAR, START_S - 2.0 * YEAR])
def test_a_restart_with_a_wrong_clock_is_taken_for_no_time_at_all(gateway: Gateway, wall_s: float) -> None:
    gateway.fill()
    gateway.off(0, then_wall_s=wall_s)
    assert gateway.holds() == (2, 1, 3600)
    gateway.step(START_S + 2 * DAY - wall_s)
    assert gateway.holds() == (2, 1, 3600)
    gateway.off(DAY)
    assert gateway.holds() == (2, 0, DAY + 3600)
    gateway.outbox.close()


def test_a_crash_takes_none_of_its_time(gateway: Gateway) -> None:
    """What passed since the last transaction is told by the wall clock."""
    gateway.fill()
    gateway.goes_on(3600)
    gateway.goes_on(3600)
    clock = gateway.outbox._database.clock
    whole = gateway.outbox._lanes.whole
    again = SteadyClock(lambda: 1.0, whole.steady_us, whole.wall_us)
    assert again.now_us(gateway.now_us) == clock.now_us(gateway.now_us) == START_S * S + 3 * 3600 * S
    gateway.outbox.close()
