"""Report by exception: what is reported is enough to know every value within its deadband, and soon enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.changes import Changes, Rule
from protocols.field.contract import Group, Quality, Scan, Tag, Value, ValueType

PERIOD_S = 1.0
BAD = Quality.BAD_TIMEOUT


def group_of(*types: ValueType, period_s: float = PERIOD_S) -> Group:
    return Group("plc-1", "main", period_s, tuple(Tag(f"t{at}", kind) for at, kind in enumerate(types)))


ONE = group_of(ValueType.FLOAT64)


def reported(rule: Rule, values: Sequence[Value], group: Group = ONE) -> list[tuple[int, Value]]:
    """(which read, value) of what is reported of one tag that is read once a period."""
    changes = Changes(group, [rule])
    told = []
    for at, value in enumerate(values):
        quality = [BAD] if value is None else None
        found = changes.of(Scan(group, at, [value], None, quality), at * group.period_s)
        if found is not None:
            told.append((found.time_us, found.values[0]))
    return told


@pytest.mark.parametrize(
    ("rule", "values", "numbers"),
    [
        (Rule(), [1.0, 1.0, 2.0, 2.0, 1.0], [0, 2, 4]),
        (Rule(deadband=0.5), [1.0, 1.5, 1.6, 2.0, 1.0], [0, 2, 4]),  # from the last that was reported
        (Rule(deadband=1.0), [0.0, 0.4, 0.8, 1.2, 1.6], [0, 3]),  # a slow drift cannot hide
        (Rule(percent=2.0), [100.0, 101.9, 102.1, 103.0], [0, 2]),
        (Rule(percent=2.0), [-100.0, -101.9, -102.1], [0, 2]),
        (Rule(percent=2.0), [0.0, 0.001, 0.001], [0, 1]),  # of 0 every change is more than 2 %
        (Rule(deadband=1.0), [5, 6, 7], [0, 2]),
        (Rule(deadband=9.0), ["on", "on", "off"], [0, 2]),
        (Rule(deadband=9.0), [1.0, math.nan, math.nan, 1.0], [0, 1, 3]),
        (Rule(deadband=9.0), [1.0, math.inf, math.inf, -math.inf, 1.0], [0, 1, 3, 4]),
        (Rule(deadband=9.0), [1.0, None, None, 1.0, 1.0], [0, 1, 3]),
        (Rule(deadband=9.0), [1.0, 10**400, 10**400], [0, 1]),
        (Rule(max_silence_s=3.0), [1.0] * 8, [0, 3, 6]),
        (Rule(max_silence_s=2.5), [1.0] * 6, [0, 2, 4]),  # the next read would be too late
        (Rule(max_silence_s=0.0), [1.0] * 4, [0, 1, 2, 3]),
        (Rule(max_silence_s=3.0), [1.0, 1.0, 2.0, 2.0, 2.0, 2.0], [0, 2, 5]),
    ],
)
def test_what_is_reported(rule: Rule, values: list[Value], numbers: list[int]) -> None:
    assert [at for at, _ in reported(rule, values)] == numbers


@pytest.mark.parametrize("kind", [ValueType.BOOL, ValueType.STRING])
def test_a_deadband_is_for_numbers(kind: ValueType) -> None:
    values = [True, False, False] if kind is ValueType.BOOL else ["on", "off", "off"]
    assert [at for at, _ in reported(Rule(deadband=9.0, percent=99.0), values, group_of(kind))] == [0, 1]


def test_a_row_of_numbers_that_move_within_their_bands_is_nothing_new() -> None:
    group = group_of(*[ValueType.FLOAT64] * 3)
    changes = Changes(group, [Rule(deadband=1.0), Rule(percent=10.0), Rule(deadband=0.125)])
    rows = [
        [5.0, 100.0, 1e15],
        [5.5, 91.0, 1e15],
        [6.0, 110.0, 1e15],
        [6.5, 110.1, 1e15 + 0.125],
        [6.5, 110.1, 1e15 + 0.25],
    ]
    told = [changes.of(Scan(group, at, row), float(at)) for at, row in enumerate(rows)]
    assert [None if scan is None else (scan.indexes, scan.values) for scan in told] == [
        (None, rows[0]),
        None,
        None,
        ([0, 1], [6.5, 110.1]),
        ([2], [1e15 + 0.25]),
    ]


def test_a_change_of_quality_is_reported_whatever_the_value() -> None:
    changes, told = Changes(ONE, [Rule(deadband=9.0)]), []
    for at, code in enumerate([0, Quality.UNCERTAIN, Quality.UNCERTAIN, BAD, Quality.BAD, 0]):
        reasons = {0: f"reason {at}"} if code else {}
        found = changes.of(Scan(ONE, at, [1.0], None, [code] if code else None, reasons), at)
        if found is not None:
            told.append((at, code if found.quality is None else found.quality[0], found.reasons.get(0)))
    assert told == [
        (0, 0, None),
        (1, Quality.UNCERTAIN, "reason 1"),
        (3, BAD, "reason 3"),
        (4, Quality.BAD, "reason 4"),
        (5, 0, None),
    ]


def test_tags_without_a_rule_are_reported_with_every_read() -> None:
    group = group_of(*[ValueType.INT] * 3)
    changes = Changes(group, [Rule(), None, Rule()])
    rows = [[1, 1, 1], [1, 1, 1], [1, 2, 2], [1, 2, 2]]
    found = [changes.of(Scan(group, at, row), at) for at, row in enumerate(rows)]
    told = [(scan.indexes, scan.values) for scan in found if scan is not None]
    assert told == [(None, [1, 1, 1]), ([1], [1]), ([1, 2], [2, 2]), ([1], [2])]


def test_of_a_partial_scan_too_only_what_is_new_is_reported() -> None:
    group = group_of(*[ValueType.INT] * 4)
    changes = Changes(group, [Rule()] * 4)
    assert changes.of(Scan(group, 0, [5, 6], [1, 3]), 0.0) == Scan(group, 0, [5, 6], [1, 3])
    assert changes.of(Scan(group, 1, [5, 6], [1, 3]), 1.0) is None
    bad = Scan(group, 2, [5, None], [1, 3], [0, BAD], {3: "gone"})
    assert changes.of(bad, 2.0) == Scan(group, 2, [None], [3], [BAD], {3: "gone"})


SECOND_US = 1_000_000


def test_a_silent_subscription_states_its_last_values_again_as_of_a_period_ago() -> None:
    group = group_of(*[ValueType.INT] * 3)
    changes = Changes(group, [Rule(max_silence_s=3.0), Rule(max_silence_s=5.0), None])
    changes.of(Scan(group, 7, [1, 2], [0, 1], [0, BAD], {1: "gone"}), 0.0)
    changes.of(Scan(group, 8, [9], [2]), 0.0)
    told = {now: changes.overdue(now, now * SECOND_US) for now in range(1, 8)}
    assert {now: scan for now, scan in told.items() if scan is not None} == {
        3: Scan(group, 2 * SECOND_US, [1], [0]),
        5: Scan(group, 4 * SECOND_US, [2], [1], [BAD], {1: "gone"}),
        6: Scan(group, 5 * SECOND_US, [1], [0]),
    }


def test_what_is_stated_again_is_the_last_value_not_the_last_that_was_reported() -> None:
    changes = Changes(ONE, [Rule(deadband=1.0, max_silence_s=3.0)])
    changes.of(Scan(ONE, 0, [5.0], [0]), 0.0)
    assert changes.of(Scan(ONE, 1, [5.5], [0]), 1.0) is None
    assert changes.overdue(3.0, 3 * SECOND_US) == Scan(ONE, 2 * SECOND_US, [5.5], [0])


def test_a_change_that_was_on_its_way_comes_after_what_was_stated_meanwhile() -> None:
    """The server's clock lags, or its report was late: by the time of the change, the old value would seem newer."""
    group = group_of(ValueType.INT, ValueType.INT)
    changes = Changes(group, [Rule(max_silence_s=3.0)] * 2)
    changes.of(Scan(group, 0, [1, 1], [0, 1]), 0.0)
    assert changes.overdue(3.0, 3 * SECOND_US) == Scan(group, 2 * SECOND_US, [1, 1], [0, 1])
    assert changes.of(Scan(group, 1_500_000, [2], [0]), 3.5) == Scan(group, 2_001_000, [2], [0])
    assert changes.of(Scan(group, 2_500_000, [2], [1]), 3.6) == Scan(group, 2_500_000, [2], [1])
    assert changes.of(Scan(group, 1_700_000, [3], [0]), 3.7) == Scan(group, 2_002_000, [3], [0])
    assert changes.of(Scan(group, 2_600_000, [4], [0]), 4.6) == Scan(group, 2_600_000, [4], [0])


def test_what_a_driver_should_not_give_goes_on_to_whom_it_concerns() -> None:
    strange = Scan(ONE, 0, [[1.0]])  # type: ignore[list-item]  # that is the point
    changes = Changes(ONE, [Rule()])
    assert changes.of(strange, 0.0) is strange


def test_a_whole_scan_is_handed_on_as_it_is_and_nothing_where_nothing_is_new() -> None:
    group = group_of(*[ValueType.FLOAT64] * 100)
    changes, row = Changes(group, [Rule()] * 100), [float(at) for at in range(100)]
    first = Scan(group, 0, row)
    assert changes.of(first, 0.0) is first
    assert changes.of(Scan(group, 1, list(row)), 1.0) is None
    changed = [*row[:40], 1.5, *row[41:]]
    assert changes.of(Scan(group, 2, changed), 2.0) == Scan(group, 2, [1.5], [40])


numbers = st.one_of(
    st.floats(-10, 10), st.integers(-5, 5), st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308])
)
readings = st.one_of(numbers, st.none(), st.text(max_size=1), st.booleans())


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Rule], list[tuple[float, list[Value | None], list[int]]]]:
    """Rules of three tags, and rows at uneven moments: (pause before it in periods, values, indexes)."""
    silences = st.one_of(st.just(math.inf), st.floats(0, 4))
    rule = st.builds(Rule, st.floats(0, 3), st.one_of(st.just(0.0), st.floats(0, 50)), silences)
    rules = draw(st.lists(rule, min_size=3, max_size=3))
    rows = []
    for _ in range(draw(st.integers(1, 25))):
        indexes = draw(st.one_of(st.just([0, 1, 2]), st.sets(st.integers(0, 2), min_size=1).map(sorted)))
        rows.append((draw(st.floats(0.95, 1.05)), [draw(readings) for _ in indexes], indexes))
    return rules, rows


@given(histories(), st.sampled_from([0, SECOND_US // 2, 5 * SECOND_US // 2]))
def test_the_series_that_is_reported_is_within_the_deadband_and_never_silent_for_too_long(
    history: tuple[list[Rule], list[tuple[float, list[Value], list[int]]]], lag_us: int
) -> None:
    """The truth is what was read; the receiver holds each reported value until the next, in the order of their times.

    The clock that gives the readings their times lags.
    """
    rules, rows = history
    group = group_of(*[ValueType.FLOAT64] * 3)
    changes = Changes(group, rules)
    held: dict[int, tuple[Value, int]] = {}
    told_s: dict[int, float] = {}
    truth: dict[int, tuple[Value, int]] = {}
    told_us: dict[int, int] = {}
    now_s = 10.0
    for pause, values, indexes in rows:
        now_s += pause * PERIOD_S
        quality = [BAD if value is None else 0 for value in values]
        truth.update({at: (value, code) for at, value, code in zip(indexes, values, quality, strict=True)})
        now_us = int(now_s * SECOND_US)
        scan = Scan(group, now_us - lag_us, values, None if len(indexes) == 3 else indexes, quality)
        for found in (changes.of(scan, now_s), changes.overdue(now_s, now_us)):
            if found is not None:
                codes = found.quality or [0] * len(found)
                for at, value, code in zip(found.indexes or range(3), found.values, codes, strict=True):
                    held[at], told_s[at] = (value, code), now_s
                    assert found.time_us > told_us.get(at, -1)
                    told_us[at] = found.time_us
        for at, (value, code) in truth.items():
            assert held[at][1] == code
            assert is_near(value, held[at][0], rules[at])
            silence_s = now_s + (1 - 0.1) * PERIOD_S - told_s[at]
            assert silence_s <= max(rules[at].max_silence_s, 0.9 * PERIOD_S) + 1e-9


def is_near(value: Value, held: Value, rule: Rule) -> bool:
    if value == held or (value != value and held != held):
        return True
    if isinstance(value, str | None) or isinstance(held, str | None):
        return False
    if not math.isfinite(value) or not math.isfinite(held):
        return False
    return abs(value - held) <= max(rule.deadband, rule.percent / 100 * abs(held))
