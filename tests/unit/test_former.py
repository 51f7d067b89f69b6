"""What is declared of a lane of an earlier life, from the receiver's word and from what the outbox remembers."""

from __future__ import annotations

import pytest

from agent.outbox.contract import Dropped, Former
from agent.uplink.former import DESTROYED, GONE, lost
from protocols.uplink.confirm import MachineConfirm
from protocols.uplink.ranges import Range


def word(through: int, highest: int = 0, *missing: Range) -> MachineConfirm:
    return MachineConfirm(epoch="e", through=through, highest=highest, missing=list(missing))


@pytest.mark.parametrize(
    ("said", "former", "is_held", "expected"),
    [
        (word(14, 14), Former(14, is_damaged=False), False, []),
        (word(5, 5, (6, 14)), Former(14, is_damaged=False), False, [(6, 14, GONE)]),
        (word(5, 10, (6, 8)), Former(14, is_damaged=False), False, [(6, 8, GONE), (11, 14, GONE)]),
        (word(5, 5), Former(14, is_damaged=False), False, [(6, 14, GONE)]),  # it knows no more of the others
        (word(0), Former(14, is_damaged=False), False, [(1, 14, GONE)]),
        (word(5, 20, (6, 7), (16, 18)), Former(14, is_damaged=False), False, [(6, 7, GONE)]),  # a copy may have those
        (word(5, 20, (6, 7), (13, 18)), Former(14, is_damaged=True), False,
         [(6, 7, GONE), (13, 14, GONE), (15, 18, DESTROYED)]),
        (word(5, 20, (6, 7), (13, 18)), Former(14, is_damaged=True), True, [(15, 18, DESTROYED)]),
        (word(0, 3, (1, 2)), Former(0, is_damaged=True), False, [(1, 2, DESTROYED)]),
        (word(0, 3, (1, 2)), Former(0, is_damaged=False), False, []),
    ],
)  # fmt: skip
def test_what_is_gone_and_why(
    said: MachineConfirm, former: Former, is_held: bool, expected: list[tuple[int, int, str]]
) -> None:
    assert lost(said, former, is_held=is_held) == [Dropped(*one) for one in expected]
