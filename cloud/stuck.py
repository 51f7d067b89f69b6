"""Numbers that are missing because their batches can never be read. Pure.

A batch that was damaged on its gateway's disk so that not even its number can be told comes again with every confirm
that names the number as missing, and becomes the same dead letter each time. Whose it is follows from counting: where
as many different dead letters of a machine keep coming as numbers of it keep missing, these are those. Then the numbers
count as dropped, so that the gateway goes on with what is behind them; a replay that succeeds makes them stored.

A gateway lets go of what it hears is dropped, so nothing here is done in a hurry: the same numbers, and no others, must
have been missing for STUCK_S, and each letter must have come TIMES_MIN times and still come.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloud.store.contract import Loss as Loss
from protocols.uplink import ranges
from protocols.uplink.ranges import Ranges

TIMES_MIN = 5
STUCK_S = 60.0
FRESH_S = 30.0
"""A letter that has not come for this long comes no more: a gateway sends what is missing every ten seconds."""

NUMBERS_MAX = 20


def losses(letters: Sequence[int], missing: Ranges, missing_s: float) -> list[Loss]:
    """What is lost. `letters`: those that keep coming; `missing_s`: for how long exactly these numbers are missing."""
    count = ranges.count(missing)
    if not 0 < count == len(letters) <= NUMBERS_MAX or missing_s < STUCK_S:
        return []
    named = ", ".join(map(str, sorted(letters)))
    reason = f"dead letter {named}: it came {TIMES_MIN} times, and cannot be read"
    if count > 1:
        reason = f"one of the dead letters {named}: each came {TIMES_MIN} times, and none can be read"
    return [Loss(first, last, reason) for first, last in missing]
