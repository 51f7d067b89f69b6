"""Which empty lanes of earlier lives are remembered: the newest, so many of each machine and in all. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from agent.outbox.contract import Lane
from agent.outbox.lane import LaneState

OF_A_MACHINE = 16
IN_ALL = 1000
"""An outbox is asked for them, and written down, as fast as without."""


def newest_first(lanes: Iterable[LaneState], next_number: int, numbers: int) -> list[LaneState]:
    """Lanes got their numbers in turn, of so many; the next one gets `next_number`."""
    return sorted(lanes, key=lambda state: (next_number - 1 - state.number) % numbers)


def surplus(empty: Iterable[LaneState], next_number: int, numbers: int) -> set[Lane]:
    """Those to be forgotten."""
    of_machine: Counter[str] = Counter()
    gone = set()
    for at, state in enumerate(newest_first(empty, next_number, numbers)):
        of_machine[state.name.machine] += 1
        if at >= IN_ALL or of_machine[state.name.machine] > OF_A_MACHINE:
            gone.add(state.name)
    return gone
