"""The statement of completeness, against counting one by one."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cloud.completeness import statement, total
from cloud.store.contract import Ledger
from protocols.uplink import ranges

numbers = st.sets(st.integers(1, 40))


@given(numbers, numbers, *[st.integers(0, 45)] * 3, st.booleans(), st.integers(1, 45), st.none() | st.integers(0, 45))
def test_every_number_is_in_one_state(
    stored: set[int],
    dropped: set[int],
    known: int,
    given_: int,
    sent: int,
    named: bool,
    first: int,
    vouched: int | None,
) -> None:
    dropped_ranges = ranges.of(dropped - stored)
    ledger = Ledger("e1", ranges.of(stored), dropped_ranges, known, given_, sent, named, vouched=vouched)
    found = statement(ledger, first)
    last = max([known, given_, *stored, *(dropped - stored), 0])
    scope = set(range(first, last + 1))
    gaps = scope - stored - dropped
    lost = set() if vouched is None else set(range(vouched + 1, given_ + 1))
    missing = {n for n in gaps if not named or n <= sent or n in lost}
    assert found.batches == len(scope)
    assert found.stored == len(scope & stored)
    assert found.dropped == len((scope & dropped) - stored)
    assert found.missing == len(missing)
    assert found.missing_ranges == ranges.of(missing)
    assert found.in_flight == len(gaps - missing)
    assert found.stored + found.dropped + found.missing + found.in_flight == found.batches


def test_it_costs_ranges_and_not_numbers() -> None:
    ledger = Ledger("e1", ((1, 10**15), (10**15 + 3, 2**62)), (), 2**62, 2**62, 2**62, True, 5)
    found = statement(ledger)
    assert (found.missing, found.stored) == (2, 2**62 - 2)
    assert str(total([replace(found)])) == f"{2**62 - 2:,} of {2**62:,} batches stored; 2 missing"


def test_a_day_of_a_machine_that_is_read_every_second() -> None:
    whole = Ledger("e1", ((1, 86_400),), (), 86_400, 86_400, 86_400, named=True)
    assert str(total([statement(whole)])) == "86,400 of 86,400 batches stored; 0 missing"


def test_nothing_at_all_is_complete() -> None:
    assert str(total([])) == "0 of 0 batches stored; 0 missing"
    assert total([]).complete
