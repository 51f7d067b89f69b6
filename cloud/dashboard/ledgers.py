"""A machine's ledger as the page shows it: figures over all epochs, why batches were dropped, which are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from cloud.completeness import Statement, Sum, statement, total
from cloud.dashboard.text import plain
from cloud.store.contract import Store
from protocols.uplink.topics import MachineTopic

REASONS_MAX = 3
RANGES_MAX = 5

Missing = tuple[str, int, int]
"""Epoch, first and last number."""


@dataclass(frozen=True, slots=True)
class Books:
    """A machine's statement. `losses`: (batches, reason), most batches first. `missing`: the newest epoch's first.

    `reasons`, `gaps`: how many there are, where only the first are here.
    """

    all: Sum
    losses: tuple[tuple[int, str], ...] = ()
    reasons: int = 0
    missing: tuple[Missing, ...] = ()
    gaps: int = 0


def books(store: Store, machine: MachineTopic) -> Books | None:
    """Read and reckon them; None where no number is known. Reasons are read only where something was dropped."""
    found = [statement(ledger) for ledger in store.ledgers(machine)]
    if not found:
        return None
    whys: Counter[str] = Counter()
    for one in found:
        if one.dropped:
            for loss in store.losses(machine, one.epoch):
                whys[loss.reason] += loss.last - loss.first + 1
    return Books(
        all=total(found),
        losses=tuple((count, reason) for reason, count in whys.most_common(REASONS_MAX)),
        reasons=len(whys),
        missing=_missing(found),
        gaps=sum(len(one.missing_ranges) for one in found),
    )


def _missing(statements: Sequence[Statement]) -> tuple[Missing, ...]:
    found = [
        (one.epoch, first, last) for one in reversed(statements) for first, last in one.missing_ranges[:RANGES_MAX]
    ]
    return tuple(found[:RANGES_MAX])


def whole(found: Iterable[Books | None]) -> dict[str, Any]:
    """Over all machines."""
    sums = [astuple(one.all) for one in found if one is not None]
    return _figures(Sum(*map(sum, zip(*sums, strict=True))))


def shown(one: Books | None) -> dict[str, Any] | None:
    """One machine's, as plain values."""
    if one is None:
        return None
    return {
        **_figures(one.all),
        "losses": [{"batches": count, "reason": plain(reason)} for count, reason in one.losses],
        "reasons": one.reasons,
        "gaps": [{"epoch": plain(epoch), "first": first, "last": last} for epoch, first, last in one.missing],
        "gaps_in_all": one.gaps,
    }


def _figures(found: Sum) -> dict[str, Any]:
    return {**asdict(found), "complete": found.complete}
