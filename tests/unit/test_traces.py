"""The readings behind a plot: those of the tags that are looked at, and of no others, within bounds."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.page.service import is_local
from agent.page.traces import KEPT_S, POINTS_MAX, TRACES_MAX, Traces, number
from protocols.field.contract import Group, Scan, Tag, ValueType

COUNT = TRACES_MAX + 5
GROUP = Group("plc", "main", 1.0, tuple(Tag(f"t{at}", ValueType.FLOAT64) for at in range(COUNT)))


def scan(time_us: int, values: list[Any] | None = None, indexes: list[int] | None = None) -> Scan:
    return Scan(GROUP, time_us, values or [float(at) for at in range(COUNT)], indexes)


def test_a_trace_begins_when_it_is_asked_for_and_goes_on_from_there() -> None:
    traces = Traces()
    traces.take(scan(1))
    assert traces.points(GROUP, 3, 0, 0.0) == []
    traces.take(scan(2))
    traces.take(scan(3, [7.5], [4]))  # another tag
    traces.take(scan(4, [None], [3]))
    traces.take(scan(5, [True, "x"], [3, 9]))
    assert traces.points(GROUP, 3, 0, 1.0) == [(2, 3.0), (4, None), (5, 1.0)]
    assert traces.points(GROUP, 3, 4, 1.0) == [(5, 1.0)]


def test_a_trace_that_nobody_asks_for_ends() -> None:
    traces = Traces()
    traces.points(GROUP, 0, 0, 0.0)
    traces.points(GROUP, 1, 0, KEPT_S - 1)
    traces.points(GROUP, 1, 0, KEPT_S + 1)
    assert len(traces) == 1


@given(st.lists(st.integers(0, COUNT - 1), max_size=80))
def test_there_are_never_more_than_so_many_and_the_last_asked_for_stay(asked: list[int]) -> None:
    traces = Traces()
    for at, index in enumerate(asked):
        traces.points(GROUP, index, 0, at / 100)
    latest = list(dict.fromkeys(reversed(asked)))[:TRACES_MAX]
    assert len(traces) == len(latest)
    traces.take(scan(9))
    assert all(traces.points(GROUP, index, 0, len(asked) / 100) == [(9, float(index))] for index in reversed(latest))


def test_a_trace_keeps_the_last_points() -> None:
    traces = Traces()
    traces.points(GROUP, 0, 0, 0.0)
    for at in range(POINTS_MAX + 10):
        traces.take(scan(at + 1, [1.0], [0]))
    points = traces.points(GROUP, 0, 0, 0.0)
    assert (len(points), points[0][0]) == (POINTS_MAX, 11)


def test_what_has_no_height_is_a_gap() -> None:
    assert [number(value) for value in (None, "x", math.nan, math.inf, 10**400, False, 2)] == [None] * 5 + [0.0, 2.0]


def test_which_addresses_only_this_machine_reaches() -> None:
    assert [is_local(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.5", "gw.local")] == (  # noqa: S104
        [True] * 3 + [False] * 3
    )
