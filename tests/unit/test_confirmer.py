"""When a gateway is told what is stored of it."""

from __future__ import annotations

from collections import Counter

import pytest

from cloud.confirmer import CALM_S, CONFIRM_S, FULL_BATCHES, FULL_BYTES, FULL_S, STORED_MANY, _Debt


@pytest.mark.parametrize(
    ("debt", "owed", "after_s"),
    [
        (_Debt(pending=False), 1, CALM_S),
        (_Debt(pending=True), 1, CONFIRM_S),
        (_Debt(pending=False, batches=Counter(press=STORED_MANY)), 1, CONFIRM_S),
        (_Debt(pending=False, urgent=True), 1, FULL_S),
        (_Debt(pending=False, batches=Counter(press=FULL_BATCHES)), 1, FULL_S),
        (_Debt(pending=False, bytes=FULL_BYTES), 10, FULL_S),
        (_Debt(pending=False, urgent=True), 50, 5 * FULL_S),
        (_Debt(pending=False, urgent=True), 100_000, CONFIRM_S),
    ],
)
def test_what_is_owed_is_told_after_a_while_that_grows_with_the_crowd(debt: _Debt, owed: int, after_s: float) -> None:
    debt.told_s = 1000.0
    assert debt.due_s(owed) == pytest.approx(1000.0 + after_s)
