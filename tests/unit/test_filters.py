"""Filters of single tags: what they make of a series, and that no series breaks them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.filters import Filter, Filters, Wanted
from protocols.field.contract import Group, Quality, Scan, Tag, Value, ValueType

SECOND_US = 1_000_000


def filtered(wanted: Wanted, values: Sequence[Value]) -> list[Value]:
    one = Filter(wanted)
    return [one.of(value, at * SECOND_US) for at, value in enumerate(values)]


def test_the_median_drops_a_spike() -> None:
    assert filtered(Wanted(median_of=3), [1.0, 1.0, 99.0, 1.0, 1.0]) == [1.0, 1.0, 1.0, 1.0, 1.0]


def test_the_average_is_the_mean_of_the_last_readings() -> None:
    assert filtered(Wanted(average_of=3), [1.0, 2.0, 3.0, 4.0]) == [1.0, 1.5, 2.0, 3.0]


def test_smoothing_comes_within_37_percent_of_a_step_after_its_time() -> None:
    found = filtered(Wanted(smooth_s=10.0), [0.0] + [100.0] * 10)
    assert found[0] == 0.0
    assert found[-1] == pytest.approx(100 * (1 - math.exp(-1)))


def test_smoothing_goes_by_the_time_between_readings() -> None:
    one = Filter(Wanted(smooth_s=10.0))
    one.of(0.0, 0)
    assert one.of(100.0, 10 * SECOND_US) == pytest.approx(100 * (1 - math.exp(-1)))
    assert one.of(0.0, 0) == pytest.approx(100 * (1 - math.exp(-1)))  # the clock was set back: no step


def test_median_average_and_smoothing_follow_one_another() -> None:
    assert filtered(Wanted(3, 2), [1.0, 1.0, 99.0, 3.0, 3.0]) == [1.0, 1.0, 1.0, 2.0, 3.0]


def test_whole_numbers_stay_whole() -> None:
    found = filtered(Wanted(average_of=2), [1, 4, 4])
    assert found == [1, 2, 4]
    assert all(type(one) is int for one in found)


@pytest.mark.parametrize("gap", [None, math.nan, math.inf, "text", True, 10**400])
def test_what_is_no_number_passes_and_the_filter_begins_anew(gap: Value) -> None:
    found = filtered(Wanted(average_of=3), [1.0, 1.0, gap, 5.0])
    assert found[2] is gap
    assert found[3] == 5.0


def test_only_the_tags_that_want_it_are_filtered_and_quality_stays() -> None:
    group = Group("plc-1", "main", 1.0, tuple(Tag(name, ValueType.FLOAT64) for name in "abc"))
    filters = Filters({1: Wanted(average_of=2)})
    filters.of(Scan(group, 0, [1.0, 1.0, 1.0]))
    second = filters.of(Scan(group, 1, [2.0, 2.0, None], None, [0, 0, Quality.BAD], {2: "gone"}))
    assert second == Scan(group, 1, [2.0, 1.5, None], None, [0, 0, Quality.BAD], {2: "gone"})
    assert filters.of(Scan(group, 2, [4.0, 7.0], [1, 2])) == Scan(group, 2, [3.0, 7.0], [1, 2])


@given(
    st.builds(Wanted, st.sampled_from([0, 3, 4]), st.sampled_from([0, 2, 5]), st.sampled_from([0.0, 0.1, 1e4])),
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(), st.floats(-5, 5), st.integers(-(2**70), 2**70)),
            st.integers(0, 2**60),
        ),
        max_size=20,
    ),
)
def test_a_filtered_value_lies_among_those_that_it_is_made_of(wanted: Wanted, series: list[tuple[Value, int]]) -> None:
    one, since = Filter(wanted), list[float]()
    for value, time_us in series:
        found = one.of(value, time_us)
        if value is None or not math.isfinite(float(value)):
            since.clear()
            assert found is value
            continue
        since.append(float(value))
        assert isinstance(found, int | float)
        slack = 1 + 1e-9 * max(map(abs, since))
        assert found == math.inf or min(since) - slack <= found <= max(since) + slack
