"""What nobody can send any more of a lane of an earlier life, of which the receiver has spoken. Pure.

Everything that a former lane gave was confirmed once, or told as dropped, before the outbox let go of the lane. A
receiver that lacks some of it has lost it itself: its database was put back to a backup. It may not even know of those
numbers any more. What it lacks above the last number that is remembered here was given by a later state of this
outbox: by one that damage has destroyed, or by one that may still be alive, where this outbox is a copy or was put
back. Only in the first case may it be declared dropped, because a living copy lets go of what it hears to be dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.outbox.contract import Dropped, Former
from protocols.uplink.confirm import MachineConfirm
from protocols.uplink.ranges import Ranges, common, minus, union

GONE = "confirmed before, and no longer held by the gateway"
DESTROYED = "destroyed with a damaged outbox"


def lost(word: MachineConfirm, former: Former, *, is_held: bool) -> Sequence[Dropped]:
    """Of the numbers that the receiver lacks: those that are gone, and why.

    `is_held`: something of the lane is still here, so that what was given may still be sent.
    """
    missing = union((), word.missing)
    found: list[Dropped] = []
    if not is_held and former.last:
        above = ((max(word.through, word.highest) + 1, former.last),)
        given: Ranges = common(union(missing, above if above[0][0] <= former.last else ()), ((1, former.last),))
        found += [Dropped(*one, GONE) for one in given]
    if former.is_damaged:
        found += [Dropped(*one, DESTROYED) for one in minus(missing, ((1, former.last),) if former.last else ())]
    return found
