"""The benchmark's own arithmetic: ratios, aims, percentiles, what counts as whole."""

from __future__ import annotations

import pytest

from bench.processes import RunFailed
from bench.scenario import BLOCK, REGISTERS, TAGS, Load, mixed
from bench.scenario_latency import check_whole, percentile
from bench.table import Row, figure, render


def test_more_is_better_or_less_is() -> None:
    fast = Row("s", "speed", "1/s", 300.0, {"peer": 100.0}, ("bare", 600.0), (">=", 200.0))
    small = Row("s", "size", "MB", 20.0, {"peer": 60.0}, ("bare", 10.0), ("<=", 19.0), better="lower")
    for row in (fast, small):
        assert row.times_better(row.peers["peer"]) == pytest.approx(3.0)
        assert row.of_limit() == pytest.approx(0.5)
    assert fast.met() is True
    assert small.met() is False


def test_without_a_figure_there_is_no_ratio_and_no_verdict() -> None:
    row = Row("s", "speed", "1/s", None, {"peer": 1.0, "away": None}, None, (">=", 2.0), "the reason")
    assert row.met() is None
    assert row.as_json()["times_better_than_peers"] == {"peer": None, "away": None}
    assert "the reason" in render([row])


def test_nothing_lost_against_something_lost() -> None:
    row = Row("s", "lost", "samples", 0.0, {"peer": 13_000.0, "as good": 0.0}, better="lower")
    assert row.times_better(0.0) == 1.0
    assert "×∞" in render([row])
    assert row.as_json()["times_better_than_peers"] == {"peer": None, "as good": 1.0}


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0, "0"), (0.1234, "0.123"), (12.34, "12.3"), (99.99, "100.0"), (1234.5, "1,234")]
)
def test_three_digits(value: float | None, text: str) -> None:
    assert figure(value) == text


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(n) for n in range(1, 21)]
    assert percentile(values, 95) == 19.0
    assert percentile(values, 100) == 20.0
    assert percentile([7.0], 95) == 7.0


@pytest.mark.parametrize("polls", [[], [1, 3], [1, 2, 2, 3]])
def test_missing_and_doubled_polls_are_no_figure(polls: list[int]) -> None:
    with pytest.raises(RunFailed):
        check_whole(polls)


def test_the_layout_is_a_thousand_tags_that_no_block_border_cuts() -> None:
    tags = mixed()
    sizes = {"float32": 2, "int16": 1}
    assert len({tag.name for tag in tags}) == TAGS == Load().tags
    assert sum(sizes[tag.type] for tag in tags) == REGISTERS
    assert all(tag.address // BLOCK == (tag.address + sizes[tag.type] - 1) // BLOCK for tag in tags)
