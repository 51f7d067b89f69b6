"""Which numbers are there: sets of whole numbers kept as closed ranges, and the account made of them. Pure.

A machine sends 1, 2, 3, … in an epoch; nearly all arrive in order, so that a set of a hundred million numbers is a
handful of ranges. Every function here costs O(log n) to find its place and O(ranges) to build its result; none costs
anything per number.

`Ranges` are tuples of (first, last), both included, ascending, and neither touching nor overlapping: (1, 3), (4, 5) is
always written (1, 5). Two equal sets are therefore equal tuples.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from cloud.store.contract import Ledger
from protocols.uplink.confirm import MISSING_RANGES_MAX, MachineConfirm

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


def confirm(ledger: Ledger) -> MachineConfirm:
    """The account that goes to the gateway.

    What was declared dropped counts as there: nobody waits for it. Where there are more gaps than a confirm can name,
    `highest` stays below the first unnamed one: a gateway takes what lies at or below `highest`, and is not named as
    missing, as stored.
    """
    there = union(ledger.stored, ledger.dropped)
    gaps = missing(there, max(ledger.known, there[-1][1] if there else 0))
    highest = ledger.stored[-1][1] if ledger.stored else 0
    if len(gaps) > MISSING_RANGES_MAX:
        highest = min(highest, gaps[MISSING_RANGES_MAX][0] - 1)
    named = list(islice(gaps, MISSING_RANGES_MAX))
    return MachineConfirm(epoch=ledger.epoch, through=through(there), highest=highest, missing=named)


class Span(NamedTuple):
    """A stretch of a ledger that keeps why: `dropped` is the gateway's reason, None where the numbers are stored."""

    first: int
    last: int
    dropped: str | None = None


def overlay(spans: Sequence[Span], new: Span) -> list[Span]:
    """The ledger's spans (ascending, none overlapping) with the new one.

    Stored covers dropped, whichever came first. Of numbers declared dropped twice, the first reason stays.
    Neighbours that say the same become one.
    """
    if new.dropped is None:
        kept = [piece for span in spans for piece in _outside(span, new)]
        return _merged(sorted([*kept, new], key=_first))
    taken = [(span.first, span.last) for span in spans]
    added = [Span(first, last, new.dropped) for first, last in minus(((new.first, new.last),), taken)]
    return _merged(sorted([*spans, *added], key=_first))


def _outside(span: Span, new: Span) -> list[Span]:
    if span.dropped is None:
        return [span]  # both say stored: _merged makes one of them
    below = Span(span.first, min(span.last, new.first - 1), span.dropped)
    above = Span(max(span.first, new.last + 1), span.last, span.dropped)
    return [piece for piece in (below, above) if piece.first <= piece.last]


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].dropped == span.dropped and span.first <= merged[-1].last + 1:
            merged[-1] = merged[-1]._replace(last=max(merged[-1].last, span.last))
        else:
            merged.append(span)
    return merged


def _joined(ranges: Iterable[Range]) -> Ranges:
    joined: list[Range] = []
    for first, last in ranges:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(joined)


def _first(item: Range | Span) -> int:
    return item[0]


def _last(item: Range | Span) -> int:
    return item[1]
