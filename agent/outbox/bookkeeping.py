"""What every outbox has to reckon: dropped ranges, and which definitions nothing refers to any more. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from agent.outbox.contract import Dropped, GroupDefinition
from protocols.uplink.ranges import Ranges, common

DROPPED_RANGES_MAX = 200
"""More than a status can tell; then the two that lie closest together are declared as one."""


class KeptDefinition(NamedTuple):
    """A definition, and the number of the first batch that referred to it."""

    since: int
    definition: GroupDefinition


def note_dropped(ranges: Sequence[Dropped], first: int, last: int, reason: str) -> tuple[Dropped, ...]:
    """With a range that is in none yet, joined to its neighbours where they touch and the reason is the same."""
    joined: list[Dropped] = []
    for one in sorted((*ranges, Dropped(first, last, reason)), key=lambda one: one.first):
        if joined and joined[-1].last + 1 == one.first and joined[-1].reason == one.reason:
            joined[-1] = Dropped(joined[-1].first, one.last, one.reason)
        else:
            joined.append(one)
    return tuple(joined)


def declared(ranges: Sequence[Dropped], first: int, last: int, reason: str) -> tuple[Dropped, ...]:
    """The dropped ranges with `first` to `last` among them, as far as they are not yet; in ascending order."""
    found = list(ranges)
    for one in ranges:
        if one.first <= first <= one.last:
            first = one.last + 1
        if one.first <= last <= one.last:
            last = one.first - 1
    if first > last:
        return tuple(ranges)
    return note_dropped([one for one in found if not first <= one.first <= one.last <= last], first, last, reason)


def told(ranges: Sequence[Dropped], through: int) -> tuple[Dropped, ...]:
    """What is left to tell when everything up to `through` was told."""
    return tuple(Dropped(max(one.first, through + 1), one.last, one.reason) for one in ranges if one.last > through)


def bounded(ranges: tuple[Dropped, ...], waiting: Ranges) -> tuple[Dropped, ...]:
    """At most DROPPED_RANGES_MAX of them: the closest become one, where nothing between them is still to be sent.

    What lies between was confirmed: declaring that, too, changes nothing, because the receiver has it.
    """
    while len(ranges) > DROPPED_RANGES_MAX:
        gaps = [
            (after.first - before.last, at)
            for at, (before, after) in enumerate(itertools.pairwise(ranges))
            if not common(waiting, ((before.last, after.first),))
        ]
        if not gaps:
            break
        _, at = min(gaps)
        ranges = (*ranges[:at], Dropped(ranges[at].first, ranges[at + 1].last, ranges[at].reason), *ranges[at + 2 :])
    return ranges


def unknown(kept: Sequence[KeptDefinition], used: Sequence[GroupDefinition]) -> list[GroupDefinition]:
    """Those of `used` that are not the newest of their group in `kept`, and so have to be kept from now on."""
    newest = {(one.definition.device, one.definition.group): one.definition.ref for one in kept}
    return [one for one in used if newest.get((one.device, one.group)) != one.ref]


def superseded(kept: Sequence[KeptDefinition], first: int) -> list[KeptDefinition]:
    """Those of `kept`, oldest first, that no batch from `first` on refers to: their group has a newer one by then."""
    gone = []
    newest_since: dict[tuple[str, str], int] = {}
    for one in reversed(kept):
        group = (one.definition.device, one.definition.group)
        if newest_since.get(group, first + 1) <= first:
            gone.append(one)
        newest_since[group] = min(one.since, newest_since.get(group, one.since))
    return gone
