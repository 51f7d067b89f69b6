"""The search for what a device refuses, and the plan that comes of it. All of it pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.field.modbus_address import Table
from protocols.field.modbus_learned import Barrier, Learned, Walls
from protocols.field.modbus_plan import EXTRA_PER_READ, RETRY_EVERY, Block, Limits, Span
from protocols.field.modbus_search import UnitPlan

STANDARD = Limits(registers=125, bits=2000, gap=16)


def holding(address: int, size: int = 1, unit_id: int = 1) -> Span:
    return Span(unit_id, Table.HOLDING, address, size)


class Device:
    """What the driver does with a plan, against a device given as a rule: block → exception code or 0."""

    def __init__(self, spans: Sequence[Span], rule: Callable[[Block], int], learned: Learned | None = None) -> None:
        self.rule = rule
        self.spans = spans
        self.learned = learned or Learned()
        self.plan: UnitPlan[None] = UnitPlan(range(len(spans)), spans, STANDARD, self.learned)
        self.asked: list[Block] = []  # in the last read
        self.count = len(spans)

    @property
    def requests(self) -> int:
        """Of the last read."""
        return len(self.asked)

    def restarted(self) -> Device:
        """The same device after a restart of the program, which kept what it had learned."""
        return Device(self.spans, self.rule, Learned.load(json.loads(json.dumps(self.learned.dump()))))

    def read(self) -> set[int]:
        """The indexes of the spans that could be read."""
        self.asked = []
        good: list[int] = []
        round_ = self.plan.round()
        while wave := round_.wave():
            for branch in wave:
                self.asked.append(branch.block)
                if code := self.rule(branch.block):
                    round_.refuse(branch, code)
                else:
                    branch.answered()
                    good.extend(branch.block.members)
        bad = [index for branch in round_.refused for index in branch.block.members]
        assert all(branch.code for branch in round_.refused)
        assert sorted(good + bad) == list(range(self.count)), "each tag is either read or refused, and once"
        self.plan.settle(round_)
        return set(good)


def hole_at(*missing: int) -> Callable[[Block], int]:
    return lambda block: 2 * any(block.address <= place < block.address + block.count for place in missing)


def test_one_bad_address_costs_one_tag() -> None:
    device = Device([holding(n) for n in range(100)], hole_at(37))
    assert device.read() == set(range(100)) - {37}
    assert device.requests <= 15
    assert device.read() == set(range(100)) - {37}
    assert [(block.address, block.count) for block in device.asked] == [(0, 37), (38, 62)]


def test_a_gap_that_cannot_be_read_costs_no_tag() -> None:
    device = Device([holding(n) for n in (0, 1, 2, 10, 11)], hole_at(5))
    assert device.read() == {0, 1, 2, 3, 4}
    assert device.read() == {0, 1, 2, 3, 4}
    assert device.requests == 2


def test_a_device_with_a_smaller_limit_is_read_in_smaller_pieces() -> None:
    device = Device([holding(n) for n in range(125)], lambda block: 3 * (block.count > 32))
    assert device.read() == set(range(125))
    assert device.read() == set(range(125))
    assert device.requests == 4


def test_what_was_refused_is_tried_again_now_and_then_and_found_back() -> None:
    device = Device([holding(n) for n in range(64)], hole_at(9))
    device.read()
    device.read()
    usual = device.requests
    asked = []
    for _ in range(2 * RETRY_EVERY):
        device.read()
        asked.append(device.requests)
    assert sum(asked) <= 2 * RETRY_EVERY * usual + 2
    device.rule = hole_at()
    for _ in range(8 * RETRY_EVERY):
        assert device.read() >= set(range(64)) - {9}
    assert device.read() == set(range(64))
    assert device.requests == 1


def test_a_device_that_refuses_everything_is_not_flooded() -> None:
    device = Device([holding(n) for n in range(1000)], lambda block: 2)
    for _ in range(40):
        assert device.read() == set()
        assert device.requests <= 8 + EXTRA_PER_READ + 2
    device.rule = hole_at()
    for _ in range(12 * RETRY_EVERY):
        device.read()
    assert len(device.read()) == 1000
    assert device.requests == 8


def test_other_exceptions_divide_nothing() -> None:
    device = Device([holding(n) for n in range(100)], lambda block: 6)
    for _ in range(3):
        assert device.read() == set()
        assert device.requests == 1
    device.rule = hole_at()
    assert len(device.read()) == 100


def test_after_a_reconnect_what_rested_is_asked_at_once() -> None:
    device = Device([holding(n) for n in range(8)], hole_at(3))
    device.read()
    device.rule = hole_at()
    assert device.read() == set(range(8)) - {3}
    device.plan.wake()
    assert device.read() == set(range(8))


@given(st.lists(st.builds(holding, st.integers(0, 40), st.integers(1, 3)), max_size=25), st.sets(st.integers(0, 43)))
def test_in_the_end_exactly_the_tags_on_missing_addresses_are_bad(spans: list[Span], missing: set[int]) -> None:
    device = Device(spans, hole_at(*missing))
    for _ in range(6):
        good = device.read()
        assert device.requests <= len(spans) + EXTRA_PER_READ + 1
    assert good == {
        index for index, span in enumerate(spans) if not missing.intersection(range(span.address, span.end))
    }


spans_of_a_device = st.lists(st.builds(holding, st.integers(0, 300), st.sampled_from([1, 1, 2, 4])), max_size=40)


def fewest(spans: Sequence[Span], missing: set[int]) -> int:
    """The fewest requests that read these spans from a device without those addresses, whoever plans them.

    The spans in order of their address: a request begins with the first that is not covered yet and takes all that it
    can. Written anew here, without anything of the planner's.
    """
    count, start, end = 0, 0, -1
    for span in sorted(spans, key=lambda span: (span.address, span.size)):
        reached = max(end, span.end)
        fits = end >= 0 and reached - start <= 125 and span.address - end <= 16
        if not fits or missing.intersection(range(start, reached)):
            count, start, reached = count + 1, span.address, span.end
        end = reached
    return count


@given(spans_of_a_device, st.sets(st.integers(0, 303), max_size=25))
def test_after_learning_the_readable_tags_cost_the_fewest_requests(spans: list[Span], missing: set[int]) -> None:
    device = Device(spans, hole_at(*missing))
    readable = [span for span in spans if not missing.intersection(range(span.address, span.end))]
    for _ in range(20):
        device.read()
    assert [spans[index] for index in sorted(device.read())] == readable
    assert device.requests == fewest(readable, missing)


@given(spans_of_a_device, st.sets(st.integers(0, 303), max_size=25))
def test_a_restart_costs_no_readable_tag_and_no_search(spans: list[Span], missing: set[int]) -> None:
    """What was refused is asked for again, each alone, in the first read; nothing readable is refused with it."""
    device = Device(spans, hole_at(*missing))
    for _ in range(20):
        good = device.read()
    again = device.restarted()
    assert again.read() == good
    refused = [block for block in again.asked if again.rule(block)]
    assert all(len(set(block.spans)) == 1 for block in refused)
    again.read()
    assert again.requests == device.requests


def test_a_barrier_is_forgotten_now_and_then_and_found_back_at_growing_intervals() -> None:
    device = Device([holding(n) for n in (*range(10), *range(12, 22))], hole_at(11))
    searches = []
    for number in range(8 * RETRY_EVERY):
        assert len(device.read()) == 20
        if device.requests > 2:
            searches.append(number)
    assert searches == [0, RETRY_EVERY, 3 * RETRY_EVERY, 7 * RETRY_EVERY]
    device.rule = hole_at()
    for _ in range(16 * RETRY_EVERY):
        assert len(device.read()) == 20
    assert device.requests == 1


def test_a_border_between_two_areas_of_memory_is_found() -> None:
    """Both sides are readable, but no request may go over it."""
    device = Device(
        [holding(n) for n in range(200)], lambda block: 2 * (block.address < 100 < block.address + block.count)
    )
    for _ in range(6):
        assert len(device.read()) == 200
    assert [(block.address, block.count) for block in device.asked] == [(0, 100), (100, 100)]


def test_a_lower_limit_is_found_and_kept() -> None:
    device = Device([holding(n) for n in range(250)], lambda block: 3 * (block.count > 32))
    for _ in range(6):
        assert len(device.read()) == 250
    assert device.requests == 8
    assert device.restarted().learned.largest == {(1, Table.HOLDING): 32}
    again = device.restarted()
    assert (len(again.read()), again.requests) == (250, 8)


def test_another_groups_facts_are_used_too() -> None:
    first = Device([holding(n) for n in range(40)], hole_at(20))
    first.read()
    second = Device([holding(n) for n in range(10, 30)], hole_at(20), first.learned)
    second.read()
    assert [(block.address, block.count) for block in second.asked] == [(10, 10), (21, 9), (20, 1)]


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"version": 2, "refused": [], "barriers": [], "largest": []},
        {"version": 1, "refused": [[1, "holding", 0, 1]], "barriers": [], "largest": []},
        {"version": 1, "refused": [[1, "holding", -1, 1, 2]], "barriers": [], "largest": []},
        {"version": 1, "refused": [], "barriers": [[1, "registers", 0, 1]], "largest": []},
        {"version": 1, "refused": [], "barriers": [[1, "coil", 0, True]], "largest": []},
        {"version": 1, "refused": None, "barriers": [], "largest": []},
    ],
)
def test_what_is_no_memory_is_refused(state: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Learned.load(state)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=8), st.integers(0, 36), st.integers(0, 36))
def test_walls_like_the_definition(ranges: list[tuple[int, int]], address: int, end: int) -> None:
    barriers = [Barrier(1, Table.COIL, first, first + size) for first, size in ranges]
    holds_one = any(address <= barrier.first and barrier.end <= end for barrier in barriers)
    assert Walls(barriers).hit(1, Table.COIL, address, end) == holds_one
    assert not Walls(barriers).hit(2, Table.COIL, address, end)
