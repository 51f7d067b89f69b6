"""What every outbox has to reckon: dropped ranges, and which definitions nothing refers to any more. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agent.outbox.contract import Dropped, GroupDefinition


class KeptDefinition(NamedTuple):
    """A definition, and the number of the first batch that referred to it."""

    since: int
    definition: GroupDefinition


def note_dropped(ranges: list[Dropped], first: int, last: int, reason: str) -> None:
    """Add a dropped range, joined to the one before where they touch and the reason is the same."""
    if ranges and ranges[-1].last + 1 == first and ranges[-1].reason == reason:
        ranges[-1] = Dropped(ranges[-1].first, last, reason)
    else:
        ranges.append(Dropped(first, last, reason))


def declared(ranges: Sequence[Dropped], first: int, last: int, reason: str) -> list[Dropped]:
    """The dropped ranges with `first` to `last` among them, as far as they are not yet; in ascending order."""
    found = list(ranges)
    for one in ranges:
        if one.first <= first <= one.last:
            first = one.last + 1
        if one.first <= last <= one.last:
            last = one.first - 1
    if first <= last:
        found = [one for one in found if not first <= one.first <= one.last <= last]
        found.append(Dropped(first, last, reason))
    return sorted(found, key=lambda one: one.first)


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
