"""How the field section of the bench reads a device's log, and what it takes as the fewest requests."""

from __future__ import annotations

import pytest

from bench.field import MAX_GAP, cycles, least_requests
from bench.field_plant import Request


def test_requests_that_follow_each_other_are_one_cycle() -> None:
    came_s = [0.0, 0.01, 0.02, 1.0, 1.01, 2.5]
    requests = [Request(1, 0, 125, at_s, at_s) for at_s in came_s]
    other = Request(2, 0, 125, 0.5, None)
    assert [len(cycle) for cycle in cycles([*requests[:3], other, *requests[3:]], 1, 1.0)] == [3, 2, 1]


@pytest.mark.parametrize(
    ("addresses", "holes", "count"),
    [
        (range(1500), set(), 12),
        (range(125), set(), 1),
        (range(126), set(), 2),
        ([0, MAX_GAP + 1], set(), 1),  # a gap is read through
        ([0, MAX_GAP + 2], set(), 2),
        ([0, 2, 4], {1}, 2),
        ([0, 2, 4], {1, 3}, 3),
        ([5], {4, 6}, 1),
    ],
)
def test_the_fewest_requests(addresses: range | list[int], holes: set[int], count: int) -> None:
    assert least_requests(addresses, holes) == count
