"""Sets of whole numbers kept as closed ranges. Pure.

A machine sends 1, 2, 3, … in an epoch; nearly all arrive in order, so that a set of a hundred million numbers is a
handful of ranges. Every function here costs O(log n) to find its place and O(ranges) to build its result; none costs
anything per number.

`Ranges` are tuples of (first, last), both included, ascending, and neither touching nor overlapping: (1, 3), (4, 5) is
always written (1, 5). Two equal sets are therefore equal tuples.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

Range = tuple[int, int]
Ranges = tuple[Range, ...]


def of(numbers: Iterable[int]) -> Ranges:
    """The set of these numbers, in whatever order they come."""
    return _joined((n, n) for n in sorted(numbers))


def add(ranges: Ranges, first: int, last: int | None = None) -> Ranges:
    """With `first` too, or with all from `first` to `last`."""
    last = first if last is None else last
    begin = bisect_left(ranges, first - 1, key=_last)  # the first that reaches or touches the new one
    end = bisect_right(ranges, last + 1, key=_first)  # behind the last that does
    if begin < end:
        first, last = min(first, ranges[begin][0]), max(last, ranges[end - 1][1])
    return (*ranges[:begin], (first, last), *ranges[end:])


def union(one: Sequence[Range], other: Sequence[Range]) -> Ranges:
    """What is in either."""
    return _joined(sorted((*one, *other)))


def minus(ranges: Sequence[Range], taken: Sequence[Range]) -> Ranges:
    """What is in `ranges` and not in `taken`. (Ranges in `taken` may touch.)"""
    left: list[Range] = []
    for first, last in ranges:
        for at in range(bisect_left(taken, first, key=_last), len(taken)):
            gone_first, gone_last = taken[at]
            if gone_first > last:
                break
            if first < gone_first:
                left.append((first, gone_first - 1))
            first = gone_last + 1
        if first <= last:
            left.append((first, last))
    return tuple(left)


def contains(ranges: Sequence[Range], number: int) -> bool:
    """Whether the number is in the set."""
    at = bisect_left(ranges, number, key=_last)
    return at < len(ranges) and ranges[at][0] <= number


def through(ranges: Sequence[Range]) -> int:
    """The highest number up to which all from 1 are there; 0 where 1 is not."""
    return ranges[0][1] if ranges and ranges[0][0] <= 1 else 0


def missing(ranges: Sequence[Range], known: int) -> Ranges:
    """What is not there of the numbers from 1 to `known`."""
    return minus(((1, known),), ranges) if known >= 1 else ()


def count(ranges: Iterable[Range]) -> int:
    """How many numbers are in the set."""
    return sum(last - first + 1 for first, last in ranges)


def common(one: Sequence[Range], other: Sequence[Range]) -> Ranges:
    """What is in both."""
    return minus(one, minus(one, other))


def _joined(ranges: Iterable[Range]) -> Ranges:
    joined: list[Range] = []
    for first, last in ranges:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(joined)


def _first(item: Range) -> int:
    return item[0]


def _last(item: Range) -> int:
    return item[1]
