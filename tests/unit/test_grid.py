"""The grid: no drift, no burst, and an honest count of what was skipped."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from agent.grid import Grid
from protocols.field.contract import Group


def groups(*periods_s: float) -> list[Group]:
    return [Group("plc-1", f"g{at}", period_s, ()) for at, period_s in enumerate(periods_s)]


def test_the_first_points_are_at_the_start_and_groups_take_turns_by_time() -> None:
    grid = Grid(groups(1.0, 0.5), 100.0)
    done = []
    for _ in range(7):
        due_s, at = grid.next_due()
        grid.done(at, due_s)
        done.append((due_s, at))
    assert done == [(100.0, 0), (100.0, 1), (100.5, 1), (101.0, 0), (101.0, 1), (101.5, 1), (102.0, 0)]
    assert grid.skipped == 0


def test_a_late_read_does_not_move_the_grid() -> None:
    grid = Grid(groups(1.0), 0.0)
    grid.done(0, 0.7)
    assert grid.next_due() == (1.0, 0)
    grid.done(0, 1.9)
    assert grid.next_due() == (2.0, 0)
    assert grid.skipped == 0


def test_points_that_passed_are_skipped_and_counted_not_caught_up() -> None:
    grid = Grid(groups(1.0), 0.0)
    grid.done(0, 5.5)
    assert grid.next_due() == (6.0, 0)
    assert grid.skipped == 5


def test_a_read_that_ends_on_a_point_has_missed_it() -> None:
    grid = Grid(groups(1.0), 0.0)
    grid.done(0, 3.0)
    assert grid.next_due() == (4.0, 0)
    assert grid.skipped == 3


def test_after_an_outage_each_group_is_due_at_once_and_then_on_its_grid() -> None:
    grid = Grid(groups(1.0, 3600.0), 0.0)
    grid.done(0, 0.1)
    grid.done(1, 0.2)
    grid.resume(57.3)
    due = []
    for _ in range(4):
        due.append(grid.next_due())
        grid.done(due[-1][1], max(57.4, due[-1][0]))
    assert due == [(0.0, 1), (57.0, 0), (58.0, 0), (59.0, 0)]
    assert grid.skipped == 0


def test_a_group_is_first_read_when_the_device_can_be_reached_not_a_period_later() -> None:
    grid = Grid(groups(3600.0), 100.0)
    grid.resume(100.002)
    assert grid.next_due() == (100.0, 0)
    grid.done(0, 100.01)
    assert grid.next_due() == (3700.0, 0)


periods = st.lists(st.floats(0.05, 100.0), min_size=1, max_size=4)
delays = st.lists(st.one_of(st.just(0.0), st.floats(0.0, 0.01), st.floats(0.0, 500.0)), min_size=1, max_size=60)


@given(periods, st.floats(0.0, 1e6), delays)
def test_whatever_the_delays_every_read_is_on_its_grid_and_later_than_the_last(
    periods_s: list[float], start_s: float, delays_s: list[float]
) -> None:
    grid = Grid(groups(*periods_s), start_s)
    now_s = start_s
    points = [-1] * len(periods_s)
    for delay_s in delays_s:
        due_s, at = grid.next_due()
        point = round((due_s - start_s) / periods_s[at])
        assert math.isclose(due_s, start_s + point * periods_s[at], rel_tol=1e-12, abs_tol=1e-9)
        assert point > points[at]
        points[at] = point
        now_s = max(now_s, due_s) + delay_s
        grid.done(at, now_s)


@given(st.floats(0.05, 100.0), delays)
def test_each_point_was_read_or_is_counted_as_skipped(period_s: float, delays_s: list[float]) -> None:
    grid = Grid(groups(period_s), 0.0)
    now_s = 0.0
    for delay_s in delays_s:
        now_s = max(now_s, grid.next_due()[0]) + delay_s
        grid.done(0, now_s)
    assert round(grid.next_due()[0] / period_s) == len(delays_s) + grid.skipped


@given(periods, st.floats(0.0, 1e6), st.floats(0.0, 1e4), st.booleans())
def test_no_burst_after_a_stall_or_an_outage(
    periods_s: list[float], start_s: float, away_s: float, outage: bool
) -> None:
    """Each group is due at most once before the next point of its own grid; after an outage exactly once."""
    grid = Grid(groups(*periods_s), start_s)
    now_s = start_s + away_s
    if outage:
        grid.resume(now_s)
    reads = [0] * len(periods_s)
    while (due := grid.next_due())[0] < now_s - 1e-6:
        grid.done(due[1], now_s)
        reads[due[1]] += 1
    assert max(reads) <= 1
    assert grid.skipped == 0 or not outage
