"""Corrections of times that were stamped by a clock nobody vouched for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from protocols.uplink.batch import Batch
from protocols.uplink.status import TIMESTAMP_MS_MAX


def times(batch: Batch) -> Sequence[int]:
    """The earliest and the latest of its times, in µs; none where it has no rows."""
    found = [time_us for block in batch.blocks for time_us in block.times_us]
    return (min(found), max(found)) if found else ()


def fits(times_us: Sequence[int], shift_us: int) -> bool:
    """Whether all of the times, corrected, are times that a reading can have."""
    return all(0 <= time_us + shift_us <= TIMESTAMP_MS_MAX * 1000 for time_us in times_us)
