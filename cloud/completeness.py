"""The statement of completeness: which of the numbers that a gateway gave are stored, and what became of the rest.

Pure. Every number is in one state: *stored*; *dropped*: let go by its gateway, a dead letter, or
written off, with the reason;
*in flight*: given, and not yet sent as far as its gateway has said, so that it still has it; *missing*: everything
else that is known to exist. A gap in an epoch that the gateway's last status does not name any more is missing: nobody
has it. So is one above the last number that the gateway says it gave, where it said more before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloud.store.contract import Ledger
from protocols.uplink import ranges
from protocols.uplink.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Statement:
    """Of one epoch, from number `first` on. `through`: all up to there are stored or dropped.

    `readings`: stored in the whole epoch. `abandoned`: its gateway's last status does not name it any more, so that
    nobody will say what became of what is missing (cloud/write_off.py).
    """

    epoch: str
    first: int
    through: int
    last: int
    stored: int
    in_flight: int
    dropped: int
    missing: int
    missing_ranges: Ranges
    readings: int
    abandoned: bool

    @property
    def batches(self) -> int:
        """How many numbers it is about."""
        return max(0, self.last - self.first + 1)


def statement(ledger: Ledger, first: int = 1) -> Statement:
    """Costs ranges, not numbers."""
    last = max(ledger.known, ledger.given, *(end for _, end in (*ledger.stored[-1:], *ledger.dropped[-1:])), 0)
    scope = ((first, last),) if first <= last else ()
    stored = ranges.common(scope, ledger.stored)
    there = ranges.union(ledger.stored, ledger.dropped)
    dropped = ranges.minus(ranges.common(scope, ledger.dropped), ledger.stored)
    gaps = ranges.minus(scope, there)
    missing = ranges.common(gaps, _no_longer_there(ledger)) if ledger.named else gaps
    return Statement(
        epoch=ledger.epoch,
        first=first,
        through=ranges.through(there),
        last=last,
        stored=ranges.count(stored),
        in_flight=ranges.count(gaps) - ranges.count(missing),
        dropped=ranges.count(dropped),
        missing=ranges.count(missing),
        missing_ranges=missing,
        readings=ledger.readings,
        abandoned=not (ledger.named or ledger.awaited),
    )


def _no_longer_there(ledger: Ledger) -> Ranges:
    """Of an epoch that its gateway names: what it has handed over, and what its outbox has lost."""
    sent = ((1, ledger.sent),) if ledger.sent else ()
    has_lost = ledger.vouched is not None and ledger.vouched < ledger.given
    return ranges.union(sent, (((ledger.vouched or 0) + 1, ledger.given),) if has_lost else ())


@dataclass(frozen=True, slots=True)
class Sum:
    """Of several statements."""

    batches: int = 0
    stored: int = 0
    in_flight: int = 0
    dropped: int = 0
    missing: int = 0
    readings: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing is missing and nothing was lost."""
        return not (self.missing or self.dropped)

    def __str__(self) -> str:
        """`86,400 of 86,400 batches stored; 0 missing`, and what else there is."""
        more = [(self.dropped, "dropped"), (self.in_flight, "in flight")]
        parts = [f"{count:,} {word}" for count, word in more if count]
        return ", ".join([f"{self.stored:,} of {self.batches:,} batches stored; {self.missing:,} missing", *parts])


def total(statements: Iterable[Statement]) -> Sum:
    """All of them together."""
    found = list(statements)
    return Sum(
        batches=sum(one.batches for one in found),
        stored=sum(one.stored for one in found),
        in_flight=sum(one.in_flight for one in found),
        dropped=sum(one.dropped for one in found),
        missing=sum(one.missing for one in found),
        readings=sum(one.readings for one in found),
    )


@dataclass(frozen=True, slots=True)
class Account:
    """A machine's ledger in figures: of the newest epoch, and what is missing from older ones. `all`: of all epochs."""

    epoch: str
    through: int
    known: int
    stored: int
    in_flight: int
    missing: int
    dropped: int
    missing_before: int
    all: Sum

    @property
    def complete(self) -> bool:
        """Whether nothing is missing and nothing was lost in the newest epoch, nor missing from an older one."""
        return not (self.missing or self.dropped or self.missing_before)

    def __str__(self) -> str:
        """One line for people."""
        parts = [f"through {self.through:,} of {self.known:,}"]
        parts.append(f"{self.missing:,} missing" if self.missing else "nothing missing")
        if self.in_flight:
            parts.append(f"{self.in_flight:,} in flight")
        if self.dropped:
            parts.append(f"{self.dropped:,} dropped")
        if self.missing_before:
            parts.append(f"{self.missing_before:,} missing from earlier epochs")
        return ", ".join(parts)


def account(ledgers: Sequence[Ledger]) -> Account | None:
    """From a machine's ledgers, in the order of the epochs' first appearance; None where there is none."""
    if not ledgers:
        return None
    statements = [statement(ledger) for ledger in ledgers]
    newest = statements[-1]
    return Account(
        epoch=newest.epoch,
        through=newest.through,
        known=newest.last,
        stored=newest.stored,
        in_flight=newest.in_flight,
        missing=newest.missing,
        dropped=newest.dropped,
        missing_before=sum(one.missing for one in statements[:-1]),
        all=total(statements),
    )
