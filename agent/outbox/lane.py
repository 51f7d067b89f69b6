"""What an outbox knows of one lane: which of its numbers wait, are kept, are dropped, were offered. Values, no rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agent.outbox.bookkeeping import KeptDefinition, superseded
from agent.outbox.contract import NORMAL, Dropped, Held, Lane
from protocols.uplink import ranges
from protocols.uplink.ranges import Ranges

OFFER_BLOCK = 256
"""Offers are written down for whole blocks of this many numbers, so that few of them need a transaction."""


class Kept(NamedTuple):
    """Confirmed batches, all confirmed within the same slot of time, which begins at `since_us`."""

    since_us: int
    numbers: Ranges
    bytes: int


@dataclass(slots=True)
class LaneState:
    """Its fields are values, never changed in place: `copy` is cheap, and a copy stays as it is.

    `number`: this lane's own number in the outbox, part of its rows' keys. `doomed`, `doomed_refs`: batches and
    definitions let go of, whose rows are still to be deleted. `marked`: offered as written down, in whole blocks;
    `offered`: exact for what was appended since the opening. `fresh`: the first number that was. `oldest`: a waiting
    batch's number and when it was appended, as last looked up. `thinned`: the highest number that holds thinned-out
    readings, and when the oldest of them were first appended.
    """

    name: Lane
    number: int
    priority: int = NORMAL
    last: int = 0
    waiting: Ranges = ()
    waiting_bytes: int = 0
    kept: tuple[Kept, ...] = ()
    kept_bytes: int = 0
    dropped: tuple[Dropped, ...] = ()
    offered: Ranges = ()
    marked: Ranges = ()
    definitions: tuple[KeptDefinition, ...] = ()
    doomed: Ranges = ()
    doomed_refs: tuple[bytes, ...] = ()
    fresh: int = 1
    oldest: tuple[int, int] | None = None
    thinned: tuple[int, int] | None = None
    view: Held | None = None

    def copy(self) -> LaneState:
        """One that later changes of this one leave alone."""
        return LaneState(
            self.name,
            self.number,
            self.priority,
            self.last,
            self.waiting,
            self.waiting_bytes,
            self.kept,
            self.kept_bytes,
            self.dropped,
            self.offered,
            self.marked,
            self.definitions,
            self.doomed,
            self.doomed_refs,
            self.fresh,
            self.oldest,
            self.thinned,
            self.view,
        )

    def held(self) -> Held:
        """What others may know of it."""
        if self.view is None:
            self.view = Held(
                last=self.last,
                waiting=self.waiting,
                kept=self.kept_numbers(),
                dropped=self.dropped,
                refs=tuple(kept.definition.ref for kept in self.definitions),
                priority=self.priority,
                offered=self.offered,
            )
        return self.view

    def kept_numbers(self) -> Ranges:
        """All confirmed ones that are still here."""
        if len(self.kept) == 1:
            return self.kept[0].numbers
        return ranges.union([one for slot in self.kept for one in slot.numbers], ())

    def here(self) -> Ranges:
        """Waiting or kept."""
        return ranges.union(self.waiting, self.kept_numbers()) if self.kept else self.waiting

    def is_empty(self) -> bool:
        """Nothing waits, is kept or has to be declared."""
        return not (self.waiting or self.kept or self.dropped)

    # --- changes; the caller has seen to it that they can be undone ---

    def keep(self, since_us: int, numbers: Ranges, size: int) -> None:
        """Numbers that no longer wait become kept."""
        self.kept_bytes += size
        if self.kept and self.kept[-1].since_us == since_us:  # as nearly always
            newest = self.kept[-1]
            grown = Kept(since_us, ranges.union(newest.numbers, numbers), newest.bytes + size)
            self.kept = (*self.kept[:-1], grown)
            return
        slots = {slot.since_us: slot for slot in self.kept}
        there = slots.get(since_us, Kept(since_us, (), 0))
        slots[since_us] = Kept(since_us, ranges.union(there.numbers, numbers), there.bytes + size)
        self.kept = tuple(slots[since] for since in sorted(slots))

    def unkeep(self, at: int, numbers: Ranges, size: int) -> None:
        """Numbers of the slot at this position, of so many bytes, are kept no longer."""
        slot = self.kept[at]
        left = ranges.minus(slot.numbers, numbers)
        rest = (Kept(slot.since_us, left, slot.bytes - size),) if left else ()
        self.kept = (*self.kept[:at], *rest, *self.kept[at + 1 :])
        self.kept_bytes -= size if left else slot.bytes

    def keep_only(self, slots: Sequence[Kept]) -> None:
        """These, and nothing else, are kept."""
        self.kept = tuple(slot for slot in slots if slot.numbers)
        self.kept_bytes = sum(slot.bytes for slot in self.kept)

    def stop_waiting(self, numbers: Ranges, size: int) -> None:
        """Numbers that wait, of so many bytes, wait no longer."""
        self.waiting = ranges.minus(self.waiting, numbers)
        self.waiting_bytes = self.waiting_bytes - size if self.waiting else 0
        if self.thinned is not None and (not self.waiting or self.waiting[0][0] > self.thinned[0]):
            self.thinned = None

    def doom(self, numbers: Ranges) -> None:
        """Rows that are to be deleted, and with them the definitions that nothing here refers to any more."""
        self.doomed = ranges.union(self.doomed, numbers)
        heads = [numbers[0][0] for numbers in (self.waiting, *(slot.numbers for slot in self.kept)) if numbers]
        gone = superseded(self.definitions, min(heads, default=self.last + 1))
        if gone:
            self.definitions = tuple(kept for kept in self.definitions if kept not in gone)
            left = {kept.definition.ref for kept in self.definitions}
            refs = {kept.definition.ref for kept in gone} - left
            self.doomed_refs = tuple({*self.doomed_refs, *refs})


def blocks(first: int, last: int) -> tuple[int, int]:
    """The whole blocks that the numbers lie in."""
    return max(1, first // OFFER_BLOCK * OFFER_BLOCK), (last // OFFER_BLOCK + 1) * OFFER_BLOCK - 1


def covers(found: Ranges, first: int, last: int) -> bool:
    """Whether all of `first` to `last` are in the set."""
    return any(low <= first and last <= high for low, high in found)
