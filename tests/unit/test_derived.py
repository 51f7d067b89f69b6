"""Derived tags: quality and time of the result, rates, and what is computed when."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.derived import Board, Changing, Computed, Derived, Known, Rate, move
from agent.expression import Expression
from agent.filters import Wanted
from protocols.field.contract import Group, Scan, Tag
from protocols.values import Quality, Value, ValueType

SECOND_US = 1_000_000
BAD = Quality.BAD_TIMEOUT


def derived_of(*formulas: tuple[str, Any], board: Board, wanted: dict[int, Wanted] | None = None) -> Derived:
    tags = tuple(
        Tag(name, ValueType.FLOAT64, "", Computed(Expression(formula)) if isinstance(formula, str) else formula)
        for name, formula in formulas
    )
    return Derived(Group("plc-1", "main-derived", 1.0, tags), wanted or {}, board)


def known(value: Value, time_us: int, quality: int = 0, reason: str = "") -> Known:
    return Known(value, quality, time_us, reason, time_us)


def plain(scan: Scan | None) -> Any:
    """(time, values by tag, qualities by tag that are not good, reasons by tag)."""
    if scan is None:
        return None
    indexes = range(len(scan.values)) if scan.indexes is None else scan.indexes
    names = [scan.group.tags[at].name for at in indexes]
    quality = scan.quality or [0] * len(names)
    return (
        scan.time_us,
        dict(zip(names, scan.values, strict=True)),
        {name: code for name, code in zip(names, quality, strict=True) if code},
        {scan.group.tags[at].name: reason for at, reason in scan.reasons.items()},
    )


def test_it_has_no_reading_before_all_that_it_is_made_of_has_one_and_is_as_new_as_the_newest() -> None:
    board: Board = {"a": known(1.0, 5000)}
    derived = derived_of(("sum", "a + b"), board=board)
    assert derived.of() is None
    board["b"] = known(2.0, 9000)
    assert plain(derived.of()) == (9000, {"sum": 3.0}, {}, {})


def test_it_is_computed_only_when_something_is_new() -> None:
    board: Board = {"a": known(1.0, 5000), "b": known(1.0, 5000)}
    derived = derived_of(("twice", "a * 2"), ("thrice", "b * 3"), board=board)
    assert plain(derived.of()) == (5000, {"twice": 2.0, "thrice": 3.0}, {}, {})
    assert derived.of() is None
    board["b"] = known(2.0, 7000)
    assert plain(derived.of()) == (7000, {"thrice": 6.0}, {}, {})


def test_its_own_time_never_goes_back_although_a_late_reading_comes() -> None:
    board: Board = {"a": known(1.0, 9000), "b": known(1.0, 5000)}
    derived = derived_of(("sum", "a + b"), board=board)
    derived.of()
    board["b"] = known(2.0, 6000)
    assert plain(derived.of()) == (10_000, {"sum": 3.0}, {}, {})


def test_when_the_clock_was_set_back_its_time_goes_on_from_there() -> None:
    board: Board = {"a": known(1.0, 9 * SECOND_US), "b": known(1.0, 5 * SECOND_US)}
    derived = derived_of(("sum", "a + b"), board=board)
    derived.of()
    move(board, -8 * SECOND_US)
    derived.clock_set(-8 * SECOND_US)
    board["b"] = known(2.0, 2 * SECOND_US)
    assert plain(derived.of()) == (2 * SECOND_US, {"sum": 3.0}, {}, {})


def test_quality_is_the_worst_of_all_and_the_reason_says_whose() -> None:
    board: Board = {
        "a": known(1.0, 1000),
        "b": known(2.0, 1000, Quality.UNCERTAIN, "the device sent 3, above clamp_max 2"),
    }
    derived = derived_of(("sum", "a + b"), board=board)
    assert plain(derived.of()) == (
        1000,
        {"sum": 3.0},
        {"sum": Quality.UNCERTAIN},
        {"sum": "b: the device sent 3, above clamp_max 2"},
    )
    board["a"] = known(None, 2000, BAD)
    assert plain(derived.of()) == (2000, {"sum": None}, {"sum": BAD}, {"sum": "a: BadTimeout"})


@pytest.mark.parametrize(
    ("formula", "a", "b", "reason"),
    [
        ("a / b", 3.0, 0, "division by zero, where a = 3, b = 0"),
        ("a * b", 1e300, 1e300, "the result is too large for a number, where a = 1e+300, b = 1e+300"),
        ("sqrt(a) + b", -1, 1, "a root, a power or a logarithm has no value, where a = -1, b = 1"),
        ("a + b", "x", 1, "a value is not of the type that the expression needs, where a = 'x', b = 1"),
    ],
)
def test_what_cannot_be_computed_is_bad_with_a_reason_in_words(formula: str, a: Value, b: Value, reason: str) -> None:
    derived = derived_of(("d", formula), board={"a": known(a, 1000), "b": known(b, 1000)})
    assert plain(derived.of()) == (1000, {"d": None}, {"d": Quality.BAD_OUT_OF_RANGE}, {"d": reason})


def test_one_derived_tag_may_be_made_of_another_within_the_same_read() -> None:
    board: Board = {"a": known(10.0, 1000)}
    derived = derived_of(("b", "a * 2"), ("c", "b + 1"), board=board)
    assert plain(derived.of()) == (1000, {"b": 20.0, "c": 21.0}, {}, {})


def test_a_derived_tag_has_filters_too_and_others_see_the_filtered_value() -> None:
    board: Board = {}
    derived = derived_of(("b", "a * 2"), ("c", "b + 1"), board=board, wanted={0: Wanted(average_of=2)})
    board["a"] = known(1.0, 1000)
    derived.of()
    board["a"] = known(3.0, 2000)
    assert plain(derived.of()) == (2000, {"b": 4.0, "c": 5.0}, {}, {})


def test_a_rate_is_per_second_and_needs_two_readings() -> None:
    board: Board = {"energy": known(100, 0)}
    derived = derived_of(("power", Rate("energy")), board=board)
    assert derived.of() is None
    board["energy"] = known(103, 2 * SECOND_US)
    assert plain(derived.of()) == (2 * SECOND_US, {"power": 1.5}, {}, {})


def test_a_rate_begins_anew_after_a_gap_and_when_the_clock_goes_back() -> None:
    rate = Changing("n")
    steps: list[tuple[Known, Any]] = [
        (known(10, 1 * SECOND_US), None),
        (known(12, 2 * SECOND_US), (2.0, 0, "")),
        (known(13, 2 * SECOND_US), None),  # of the same moment: no rate
        (known(None, 3 * SECOND_US, BAD, "no answer"), (None, BAD, "n: no answer")),
        (known(40, 4 * SECOND_US), None),
        (known(41, 5 * SECOND_US, Quality.UNCERTAIN, "doubtful"), (1.0, Quality.UNCERTAIN, "n: doubtful")),
        (known(42, 6 * SECOND_US), (1.0, Quality.UNCERTAIN, "n: doubtful")),  # it rests on that reading, too
        (known(43, 1 * SECOND_US), None),
        (known(44, 2 * SECOND_US), (1.0, 0, "")),
        (known("x", 3 * SECOND_US), (None, Quality.BAD_TYPE_MISMATCH, "n: its value is no number")),
    ]
    for reading, expected in steps:
        assert rate.of([reading]) == expected


numbers = st.one_of(st.none(), st.floats(), st.integers(-(2**70), 2**70), st.booleans(), st.text(max_size=2))
codes = st.sampled_from([0, Quality.UNCERTAIN, BAD, 0xFFFFFFFF])
steps = st.tuples(st.sampled_from("ab"), numbers, codes, st.integers(0, 2**50))


@given(st.lists(steps, max_size=20))
def test_whatever_is_read_it_is_a_number_or_bad_with_a_reason_and_times_only_grow(
    history: list[tuple[str, Value, int, int]],
) -> None:
    board: Board = {}
    derived = derived_of(("q", "a / b"), ("r", Rate("a")), ("s", Rate("q")), board=board)
    last_us = -1
    for name, value, code, time_us in history:
        board[name] = known(value, time_us, code)
        scan = derived.of()
        if scan is None:
            continue
        assert scan.time_us > last_us
        last_us = scan.time_us
        for number, found in enumerate(scan.values):
            at = number if scan.indexes is None else scan.indexes[number]
            code = 0 if scan.quality is None else scan.quality[number]
            if found is None:
                assert Quality.word(code) == "bad"
                assert scan.reasons[at]
            else:
                assert math.isfinite(float(found))
