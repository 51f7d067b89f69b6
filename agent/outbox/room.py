"""Who goes when room is needed: kept batches first, then waiting ones of the lowest priority, the oldest first.

Where that is allowed, the oldest never-offered ones of a lane are halved for as long as that makes room.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

from agent.outbox.bookkeeping import bounded, note_dropped
from agent.outbox.contract import Lane
from agent.outbox.lane import LaneState
from agent.outbox.rewrite import thin_out
from protocols.uplink.ranges import Ranges

if TYPE_CHECKING:
    from agent.outbox.lanes import Lanes

TOO_OLD = "too old"
_AT_A_TIME = 256
_EVER = 1 << 63


def make(lanes: Lanes, wanted_bytes: int, reason: str, may_thin: bool) -> int:
    """Let go of so many bytes, or of everything; in a transaction. How many went."""
    freed = _let_go_of_kept(lanes, wanted_bytes)
    if freed < wanted_bytes:
        freed += _drop_oldest(lanes, wanted_bytes - freed, reason, may_thin)
    return freed


def let_go_of_old(lanes: Lanes, before_us: int) -> None:
    """Drop what was appended before that time and still waits."""
    for state in list(lanes.states.values()):
        while state.waiting and (lanes.head_us(state) or 0) < before_us:
            state = lanes.touch(state.name)
            head = _head(lanes, state, state.waiting, _EVER, before_us)
            _drop(lanes, state, head, TOO_OLD)


def give_up(lanes: Lanes, state: LaneState, seq: int, reason: str) -> None:
    """Drop this one, which waits."""
    _drop(lanes, state, _head(lanes, state, ((seq, seq),), 0, _EVER), reason)


class _Head(NamedTuple):
    """The low end of a set of numbers: `first` to `last`, whose rows are of so many bytes and hold so many readings."""

    first: int
    last: int
    bytes: int
    readings: int


def _head(lanes: Lanes, state: LaneState, numbers: Ranges, wanted_bytes: int, before_us: int) -> _Head:
    """At least one number; no more once there are enough bytes, or from the first row on that is no older than that."""
    first, end = numbers[0]
    sizes = lanes.rows.sizes(state.number, first, end, _AT_A_TIME)
    taken = first - 1
    size = readings = 0
    for row in sizes:
        if taken >= first and (size >= wanted_bytes or row.appended_us >= before_us):
            return _Head(first, taken, size, readings)
        taken, size, readings = row.seq, size + row.bytes, readings + row.readings
    return _Head(first, taken if len(sizes) == _AT_A_TIME else end, size, readings)


def _let_go_of_kept(lanes: Lanes, wanted_bytes: int) -> int:
    oldest = [(state.kept[0].since_us, state.number, state.name) for state in lanes.states.values() if state.kept]
    heapq.heapify(oldest)
    freed = 0
    while oldest and freed < wanted_bytes:
        name = heapq.heappop(oldest)[2]
        state = lanes.touch(name)
        head = _head(lanes, state, state.kept[0].numbers, wanted_bytes - freed, _EVER)
        state.unkeep(0, ((head.first, head.last),), head.bytes)
        state.doom(((head.first, head.last),))
        freed += head.bytes
        if state.kept:
            heapq.heappush(oldest, (state.kept[0].since_us, state.number, name))
    return freed


def _drop_oldest(lanes: Lanes, wanted_bytes: int, reason: str, may_thin: bool) -> int:
    oldest = [entry for state in lanes.states.values() if (entry := _entry(lanes, state)) is not None]
    heapq.heapify(oldest)
    freed = 0
    while oldest and freed < wanted_bytes:
        priority, _, _, name = heapq.heappop(oldest)
        state = lanes.touch(name)
        if may_thin and lanes.is_present(state) and (saved := thin_out(lanes, state)) > 0:
            freed += saved
            heapq.heappush(oldest, (priority, lanes.head_us(state) or 0, state.number, name))
            continue
        before_us = oldest[0][1] if oldest and oldest[0][0] == priority else _EVER
        head = _head(lanes, state, state.waiting, wanted_bytes - freed, before_us)
        _drop(lanes, state, head, reason)
        freed += head.bytes
        entry = _entry(lanes, state)
        if entry is not None:
            heapq.heappush(oldest, entry)
    return freed


def _entry(lanes: Lanes, state: LaneState) -> tuple[int, int, int, Lane] | None:
    head_us = lanes.head_us(state)
    return None if head_us is None else (state.priority, head_us, state.number, state.name)


def _drop(lanes: Lanes, state: LaneState, head: _Head, reason: str) -> None:
    numbers = ((head.first, head.last),)
    state.stop_waiting(numbers, head.bytes)
    state.dropped = bounded(note_dropped(state.dropped, head.first, head.last, reason), state.waiting)
    state.doom(numbers)
    whole = lanes.touch_whole()
    whole.dropped += head.last - head.first + 1
    whole.dropped_readings += head.readings
