"""Batches that nobody can ever read: a damaged outbox has kept them, and lost the definition that they refer to.

Where the receiver has the definition, that does no harm. Where it asks for it, and no lane of the machine keeps it any
more, these batches would be sent again for ever. (`Held.refs` tells what is kept from memory: a disk that only cannot
be read at present does not count as lost.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.definitions import references
from agent.outbox.contract import Held, Lane, Outbox
from agent.outbox.worker import OutboxWorker
from protocols.uplink.confirm import MachineConfirm
from protocols.uplink.ranges import Range, Ranges, common, of, union

UNDEFINED = "its definition was lost with a damaged outbox"
LOOKED_AT_MAX = 2000
"""Batches of a lane per confirm: the next one names what is left."""

Word = tuple[Lane, MachineConfirm]


def lost_definitions(words: Iterable[Word], held: Mapping[Lane, Held]) -> dict[str, set[bytes]]:
    """By machine: those that the receiver asks for, and that are not kept. Pure."""
    lost: dict[str, set[bytes]] = {}
    for lane, word in words:
        kept = {ref for other, one in held.items() if other.machine == lane.machine for ref in one.refs}
        lost.setdefault(lane.machine, set()).update({bytes.fromhex(ref) for ref in word.definitions} - kept)
    return {machine: refs for machine, refs in lost.items() if refs}


async def orphans(outbox: OutboxWorker, words: Iterable[Word]) -> list[tuple[Lane, Ranges]]:
    """Of the numbers that a confirm misses: those of batches that wait, and refer to a definition that is lost."""
    asking = [(lane, word) for lane, word in words if word.definitions]
    if not asking:
        return []
    held = await outbox.call(Outbox.held)
    lost = lost_definitions(asking, held)
    found = []
    for lane, word in asking:
        if lane in held and (refs := lost.get(lane.machine)):
            missing = common(held[lane].waiting, union((), word.missing))
            if numbers := await _referring(outbox, lane, missing, refs):
                found.append((lane, numbers))
    return found


async def _referring(outbox: OutboxWorker, lane: Lane, missing: Iterable[Range], refs: set[bytes]) -> Ranges:
    numbers: list[int] = []
    left = LOOKED_AT_MAX
    for first, last in missing:
        batches = await outbox.call(Outbox.pending, lane, first, last, left)
        numbers += [batch.seq for batch in batches if refs.intersection(references(batch.payload))]
        left -= len(batches)
        if left <= 0:
            break
    return of(numbers)
