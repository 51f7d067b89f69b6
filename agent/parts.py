"""Cuts a wide poll group into parts, so that each part's definition fits any broker. Pure.

A definition holds all names and units of a group. That of a group with thousands of long names would be larger than
brokers take (128 KB on AWS IoT Core); it is told as several definitions, each of a run of the group's tags, and each
with a name of its own, because the broker keeps one definition per name. Telemetry refers to the parts as to any group.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from protocols.field.contract import Group, Scan, Tag

PART_BYTES_MAX = 90_000
_TAG_BYTES = 24  # what a tag costs in a definition beside name and unit, however badly it compresses
_NAME_CHARACTERS = 56


@dataclass(frozen=True, slots=True)
class Part:
    """Tags `first` to `end` - 1 of a group, as a group of its own."""

    group: Group
    first: int
    end: int


def parts(group: Group, taken: set[str]) -> list[Part]:
    """One where the whole group fits, which is the group itself. `taken`: names of the device's groups; grows."""
    sizes = [_size(tag) for tag in group.tags]
    if sum(sizes) <= PART_BYTES_MAX:
        return [Part(group, 0, len(group.tags))]
    made = []
    for number, (first, end) in enumerate(_cuts(sizes), 1):
        name = group.name if number == 1 else free_name(group.name, number, taken)
        made.append(Part(replace(group, name=name, tags=group.tags[first:end]), first, end))
    return made


def _size(tag: Tag) -> int:
    return len(tag.name.encode()) + len(tag.unit.encode()) + _TAG_BYTES


def _cuts(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of about the same size, as few as fit."""
    each = sum(sizes) / -(-sum(sizes) // (PART_BYTES_MAX - max(sizes)))
    first = size = 0
    for at, one in enumerate(sizes):
        if size and size + one / 2 > each:
            yield first, at
            first, size = at, 0
        size += one
    yield first, len(sizes)


def free_name(name: str, number: int, taken: set[str]) -> str:
    """`name-number`, or with a higher number the first that is not taken. It is taken then."""
    found = f"{name[:_NAME_CHARACTERS]}-{number}"
    while found in taken:
        number += 1
        found = f"{name[:_NAME_CHARACTERS]}-{number}"
    taken.add(found)
    return found


def cut(part: Part, scans: Sequence[Scan]) -> list[Scan]:
    """What the scans of the whole group hold of this part; none where they hold nothing of it."""
    found = [_cut(part, scan) for scan in scans]
    return [scan for scan in found if len(scan)]


def _cut(part: Part, scan: Scan) -> Scan:
    indexes, at = None, slice(part.first, part.end)
    if scan.indexes is not None:
        at = slice(bisect_left(scan.indexes, part.first), bisect_left(scan.indexes, part.end))
        indexes = [index - part.first for index in scan.indexes[at]]
    return Scan(
        part.group,
        scan.time_us,
        scan.values[at],
        indexes,
        None if scan.quality is None else scan.quality[at],
        {index - part.first: why for index, why in scan.reasons.items() if part.first <= index < part.end},
    )
