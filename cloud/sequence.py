"""The account made of a machine's numbers: what a confirm says, and the ledger's spans. Pure.

The sets of numbers are protocols/uplink/ranges.py; here is what the receiver makes of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from cloud.store.contract import Ledger
from protocols.uplink.confirm import MISSING_RANGES_MAX, MachineConfirm
from protocols.uplink.ranges import minus, missing, through, union


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
        return _merged(sorted([*kept, new], key=_span_first))
    taken = [(span.first, span.last) for span in spans]
    added = [Span(first, last, new.dropped) for first, last in minus(((new.first, new.last),), taken)]
    return _merged(sorted([*spans, *added], key=_span_first))


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


def _span_first(span: Span) -> int:
    return span.first
