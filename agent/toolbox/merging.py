"""A list of tags laid over those that a device has: which edits of the file make the one from the other. Pure.

Tags are told apart by name. One that is the same as before is not touched, so that its comments and its place stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.toolbox.editing import CannotEdit, Edit, Listing
from agent.toolbox.taglist import Row
from agent.toolbox.written import Plain


@dataclass
class Changes:
    """How many tags of each kind, and the edits that make them."""

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    same: int = 0
    edits: list[Edit] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class HeldGroup:
    """A poll group as it is in the file."""

    name: str
    tags: Sequence[Mapping[str, Plain]]


def merged(
    text: str, device_at: int, held: Sequence[HeldGroup], rows: Sequence[Row], group: str | None, is_whole: bool
) -> Changes:
    """`group`: where tags go that are new and name none. `is_whole`: tags that are not listed are removed.

    Raises CannotEdit.
    """
    changes = Changes()
    places = {str(tag["name"]): (at, index) for at, one in enumerate(held) for index, tag in enumerate(one.tags)}
    names = [one.name for one in held]
    listings = {at: Listing(text, ("devices", device_at, "groups", at, "tags")) for at in range(len(held))}
    added: dict[str, list[Row]] = {}
    removals: list[tuple[int, int]] = []
    for row in rows:
        name, target = str(row.tag["name"]), row.group or group
        if name not in places:
            added.setdefault(target or names[0], []).append(row)
            changes.new.append(name)
            continue
        at, index = places.pop(name)
        if target not in (None, names[at]):
            removals.append((at, index))
            added.setdefault(str(target), []).append(row)
            changes.changed.append(name)
        elif dict(held[at].tags[index]) == row.tag:
            changes.same += 1
        else:
            changes.edits.append(listings[at].replace(index, row.tag))
            changes.changed.append(name)
    if is_whole:
        removals += places.values()
        changes.removed += places
    else:
        changes.same += len(places)
    for at, one in enumerate(held):
        changes.edits += _of_group(listings[at], one, [index for where, index in removals if where == at], added)
    changes.edits += _new_groups(text, device_at, {name: rows for name, rows in added.items() if name not in names})
    return changes


def _of_group(
    listing: Listing, held: HeldGroup, removed: Sequence[int], added: Mapping[str, Sequence[Row]]
) -> list[Edit]:
    """What goes from a group and what comes to it."""
    new = added.get(held.name, [])
    if len(removed) == len(held.tags) and not new:
        raise CannotEdit(f"no tag would be left in group {held.name}; remove the group by hand, or leave it one")
    edits = [listing.remove(index, others_come=bool(new)) for index in removed]
    return [*edits, *listing.append([row.tag for row in new])]


def _new_groups(text: str, device_at: int, groups: Mapping[str, Sequence[Row]]) -> list[Edit]:
    items: list[Mapping[str, Plain]] = []
    for name, rows in groups.items():
        period_s = next((row.period_s for row in rows if row.period_s is not None), 1.0)
        items.append({"name": name, "period_s": period_s, "tags": [row.tag for row in rows]})
    return Listing(text, ("devices", device_at, "groups")).append(items) if items else []
