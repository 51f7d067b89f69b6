"""The ranges against plain sets of numbers, and the account that a gateway gets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud import sequence
from cloud.sequence import Fall, Span, fall
from cloud.speakers import Speakers
from cloud.store.contract import Ledger
from protocols.uplink import ranges
from protocols.uplink.batch import SEQ_MAX
from protocols.uplink.confirm import MISSING_RANGES_MAX, MachineConfirm
from protocols.uplink.ranges import Range, Ranges
from protocols.uplink.status import OTHERS_MAX, MachineNumbers, Status

numbers = st.integers(1, 40)
number_sets = st.frozensets(numbers, max_size=30)
bounds = st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))


def members(found: Ranges) -> set[int]:
    return {n for first, last in found for n in range(first, last + 1)}


def assert_well_formed(found: Ranges) -> None:
    assert all(first <= last for first, last in found)
    assert all(left[1] + 1 < right[0] for left, right in pairwise(found))


@given(st.lists(numbers))
def test_numbers_added_in_any_order_make_the_same_ranges(order: list[int]) -> None:
    one_by_one: Ranges = ()
    for n in order:
        one_by_one = ranges.add(one_by_one, n)
    assert_well_formed(one_by_one)
    assert one_by_one == ranges.of(order)
    assert members(one_by_one) == set(order)


@given(number_sets, bounds)
def test_a_range_added(start: frozenset[int], new: Range) -> None:
    found = ranges.add(ranges.of(start), *new)
    assert_well_formed(found)
    assert members(found) == start | set(range(new[0], new[1] + 1))


@given(number_sets, number_sets)
def test_union_and_minus_are_those_of_sets(one: frozenset[int], other: frozenset[int]) -> None:
    union = ranges.union(ranges.of(one), ranges.of(other))
    minus = ranges.minus(ranges.of(one), ranges.of(other))
    assert union == ranges.of(one | other)
    assert minus == ranges.of(one - other)
    # What is taken away may be in ranges that touch.
    assert ranges.minus(ranges.of(one), [(n, n) for n in sorted(other)]) == minus


@given(number_sets, numbers)
def test_contains(some: frozenset[int], n: int) -> None:
    assert ranges.contains(ranges.of(some), n) == (n in some)


@given(number_sets, st.integers(0, 60))
def test_through_and_missing(some: frozenset[int], known: int) -> None:
    found = ranges.of(some)
    through = ranges.through(found)
    assert set(range(1, through + 1)) <= some
    assert through + 1 not in some
    assert members(ranges.missing(found, known)) == set(range(1, known + 1)) - some


def test_the_last_number_there_is() -> None:
    found = ranges.add(((1, 5),), SEQ_MAX)
    assert found == ((1, 5), (SEQ_MAX, SEQ_MAX))
    assert ranges.missing(found, SEQ_MAX) == ((6, SEQ_MAX - 1),)


@given(number_sets, number_sets, st.integers(0, 60))
def test_a_confirm_never_claims_what_is_not_there(stored: frozenset[int], dropped: frozenset[int], known: int) -> None:
    ledger = Ledger("e1", ranges.of(stored), ranges.of(dropped), known)
    told = sequence.confirm(ledger)
    assert told.highest == max(stored, default=0)
    assert_confirm_is_true(told, stored | dropped)
    gaps = set(range(1, max(known, *stored, *dropped, 0) + 1)) - stored - dropped
    assert members(tuple(told.missing)) == gaps


@given(st.integers(MISSING_RANGES_MAX - 2, MISSING_RANGES_MAX + 40), st.booleans())
def test_with_more_gaps_than_a_confirm_can_name_the_unnamed_are_not_taken_for_stored(count: int, first: bool) -> None:
    stored = set(range(1 if first else 2, 2 * count + 2, 2))
    told = sequence.confirm(Ledger("e1", ranges.of(stored), (), max(stored)))
    gaps = sorted(set(range(1, max(stored))) - stored)
    assert told.missing == [(n, n) for n in gaps[:MISSING_RANGES_MAX]]
    assert (told.highest == max(stored)) == (len(gaps) <= MISSING_RANGES_MAX)
    assert_confirm_is_true(told, stored)


def assert_confirm_is_true(told: MachineConfirm, there: set[int] | frozenset[int]) -> None:
    """What a gateway may conclude from a confirm, it may conclude rightly."""
    missing = members(tuple(told.missing))
    assert set(range(1, told.through + 1)) <= there
    assert not missing & there
    assert {n for n in range(told.through + 1, told.highest + 1) if n not in missing} <= there


def test_the_epochs_that_the_gateway_asks_for_go_before_those_that_something_was_stored_in_lately() -> None:
    def lane(at: int, *, named: bool) -> sequence.Lane:
        return sequence.Lane("m", Ledger(f"e{at:03}", (), (), 0, named=named), lately=not named)

    lanes = [lane(at, named=at >= OTHERS_MAX) for at in range(2 * OTHERS_MAX)]
    told = sequence.told([*lanes, lane(999, named=True)], "e999", None, Speakers())
    assert told.machines["m"].epoch == "e999"
    assert [one.epoch for one in told.others["m"]] == [f"e{at:03}" for at in range(OTHERS_MAX, 2 * OTHERS_MAX)]


def test_nothing_known_is_confirmed_as_nothing() -> None:
    told = sequence.confirm(Ledger("", (), (), 0))
    assert (told.epoch, told.through, told.highest, told.missing) == ("", 0, 0, [])


spans = st.lists(st.tuples(bounds, st.sampled_from([None, "disk full", "too old"])), max_size=12)


@given(spans)
def test_spans_laid_over_each_other(laid: list[tuple[Range, str | None]]) -> None:
    ledger: list[Span] = []
    model: dict[int, str | None] = {}
    for (first, last), reason in laid:
        ledger = sequence.overlay(ledger, Span(first, last, reason))
        for n in range(first, last + 1):
            model[n] = None if reason is None else model.get(n, reason)
    found = {n: span.dropped for span in ledger for n in range(span.first, span.last + 1)}
    assert found == model
    assert sum(span.last - span.first + 1 for span in ledger) == len(found)  # none overlap
    for left, right in pairwise(ledger):
        assert left.last < right.first
        assert left.last + 1 < right.first or left.dropped != right.dropped  # neighbours that agree are one


def test_a_hundred_million_numbers_are_one_range() -> None:
    found = ranges.union([(1, 50_000_000)], [(50_000_001, 100_000_000)])
    assert found == ((1, 100_000_000),)
    assert ranges.add(found, 100_000_001) == ((1, 100_000_001),)
    assert sequence.overlay([Span(1, 100_000_000)], Span(7, 9, "disk full")) == [Span(1, 100_000_000)]


# --- an outbox that has lost its end ---


def says(last: int, session: int, instance: str = "a", *, sent: int = 0, aside: bool = False) -> Status:
    """A heartbeat of one machine; `aside`: its epoch is not the gateway's present one."""
    numbers = MachineNumbers(last_seq=last, sent_seq=sent)
    lanes = {"others": {"press": {"e1": numbers}}} if aside else {"machines": {"press": numbers}}
    epoch = "e2" if aside else "e1"
    return Status(timestamp=0, state="online", session=session, instance=instance, epoch=epoch, **lanes)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (says(20, 1), says(12, 2), Fall.OURS),
        (says(20, 1), says(12, 2, aside=True), Fall.OURS),
        (says(20, 1, aside=True), says(12, 2, aside=True), Fall.OURS),
        (says(20, 1), says(20, 2), Fall.NONE),
        (says(20, 1), says(25, 2), Fall.NONE),
        (says(20, 1), says(12, 1), Fall.NONE),  # late, or twice
        (says(20, 0), says(12, 0), Fall.NONE),  # a third party's gateway has no sessions
        (says(20, 3), says(12, 2), Fall.ANOTHERS),  # sessions rise in one installation: it is not what it was
        (says(20, 1), says(12, 2, "b"), Fall.ANOTHERS),
        (says(20, 2), says(12, 2, "b"), Fall.ANOTHERS),
        (says(20, 1), says(12, 2, sent=20), Fall.NONE),  # it says more of what it sent than of what it gave
        (says(12, 1, sent=20), says(12, 2), Fall.OURS),
        (None, says(12, 2), Fall.NONE),
    ],
)
def test_fewer_numbers_than_before(before: Status | None, now: Status, expected: Fall) -> None:
    assert fall(before, now, "press", "e1") is expected
    assert fall(before, now, "press", "e9") is fall(before, now, "oven", "e1") is Fall.NONE
