"""Batches that are written anew under other numbers: half of their scans when thinned out, all of them at a fork.

Only batches that were never offered may be: nobody else has them, so that no reading is ever stored twice. Their
replacements are of the self-contained form, and the old numbers are declared dropped, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

from agent.outbox.bookkeeping import bounded, note_dropped
from agent.outbox.contract import Lane, Stored
from agent.outbox.lane import LaneState
from agent.outbox.thinning import every_second
from protocols.uplink import definition as definitions
from protocols.uplink import ranges
from protocols.uplink.batch import Batch
from protocols.uplink.definition import Definition, DefinitionError
from protocols.uplink.envelope import DefinitionMissing, EnvelopeError, decode, encode
from protocols.uplink.mark import read
from protocols.uplink.ranges import Range, Ranges

if TYPE_CHECKING:
    from agent.outbox.lanes import Lanes

THINNED = "thinned out: every second scan kept"
RUN_BATCHES = 256
RUN_BYTES = 64_000  # half of it, written anew, is well below what a broker takes
RUN_READINGS = 500_000


class _Reader:
    """Decodes a lane's batches with the definitions kept for it."""

    def __init__(self, state: LaneState) -> None:
        self._messages = {kept.definition.ref: kept.definition.message for kept in state.definitions}
        self._known: dict[bytes, Definition] = {}

    def _lookup(self, ref: bytes) -> Definition | None:
        if ref not in self._known and ref in self._messages:
            self._known[ref] = definitions.decode(self._messages[ref])
        return self._known.get(ref)

    def read(self, payload: bytes) -> tuple[bytes, Batch] | None:
        """With the clock's mark before it; None where it cannot be decoded: it is then left as it is."""
        marked = read(payload)
        try:
            batch = decode(marked.message, self._lookup)
        except (EnvelopeError, DefinitionMissing, DefinitionError):
            return None
        return b"" if marked.clock is None else marked.clock.encode(), batch


# --- thinning out -----------------------------------------------------------------------------------------------------


def thin_out(lanes: Lanes, state: LaneState) -> int:
    """Halve a run of the oldest never-offered batches of a present lane; in a transaction. How many bytes that freed.

    0 where nothing can be halved; then nothing is changed.
    """
    reader = _Reader(state)
    for run in _runs(lanes, state):
        rows = lanes.rows.read(state.number, *run)
        found = [one for row in rows if (one := reader.read(row.payload)) is not None]
        if len(found) < run[1] - run[0] + 1 or len({batch.gateway for _, batch in found}) > 1:
            continue
        mark = found[0][0]
        alike = len(list(takewhile(partial(_has, mark), found)))  # one message has one clock
        run = run[0], run[0] + alike - 1
        pairs = sorted(zip(rows[:alike], found, strict=False), key=lambda pair: (pair[0].appended_us, pair[0].seq))
        stored, batches = [row for row, _ in pairs], [batch for _, (_, batch) in pairs]
        halved = Batch(batches[0].gateway, state.name.epoch, state.last + 1, every_second(batches))
        payload = mark + encode(halved)
        freed = sum(len(one.payload) for one in stored) - len(payload)
        if freed <= 0:
            continue
        lost = sum(batch.readings() for batch in batches) - halved.readings()
        oldest_us = stored[0].appended_us
        _replace(lanes, state, (run,), freed + len(payload), THINNED)
        lanes.rows.insert(state.number, Stored(halved.seq, payload, oldest_us), halved.readings())
        lanes.note_waiting(state, halved.seq, len(payload), oldest_us)
        before_us = oldest_us if state.thinned is None else state.thinned[1]
        state.thinned = halved.seq, min(oldest_us, before_us)
        whole = lanes.touch_whole()
        whole.dropped += len(batches)
        whole.dropped_readings += lost
        return freed
    return 0


def _has(mark: bytes, one: tuple[bytes, Batch]) -> bool:
    return one[0] == mark


def _runs(lanes: Lanes, state: LaneState) -> Sequence[Range]:
    """The first runs to try: bounded in what they hold, the oldest one first, the next one where that is a single."""
    runs: list[Range] = []
    for first, last in ranges.minus(state.waiting, state.offered):
        size = readings = 0
        end = first - 1
        for row in lanes.rows.sizes(state.number, first, last, RUN_BATCHES):
            size, readings = size + row.bytes, readings + row.readings
            if end >= first and (size > RUN_BYTES or readings > RUN_READINGS):
                break
            end = row.seq
        if end >= first:
            runs.append((first, end))
        if end > first or len(runs) >= 4:
            break
    return runs


def _replace(lanes: Lanes, state: LaneState, numbers: Ranges, size: int, reason: str) -> None:
    """These are written anew elsewhere: here they are dropped."""
    state.stop_waiting(numbers, size)
    for first, last in numbers:
        state.dropped = note_dropped(state.dropped, first, last, reason)
        lanes.rows.delete(state.number, first, last)  # at once, so that there is room for what replaces them
    state.dropped = bounded(state.dropped, state.waiting)
    state.doom(())


# --- a fork -----------------------------------------------------------------------------------------------------------


def to_move(state: LaneState, unsent: Ranges) -> list[Range]:
    """What was appended since the opening and never offered, or `unsent` all the same; a bounded run at a time."""
    runs = []
    never = ranges.union(ranges.minus(state.waiting, state.offered), ranges.common(state.waiting, unsent))
    for first, last in ranges.common(never, ((state.fresh, state.last),)):
        runs += [(low, min(last, low + RUN_BATCHES - 1)) for low in range(first, last + 1, RUN_BATCHES)]
    return runs


def move(lanes: Lanes, name: Lane, run: Range) -> None:
    """Write a run anew in the present epoch; in a transaction. A batch that cannot be decoded keeps its number."""
    if name not in lanes.states:
        return
    state = lanes.touch(name)
    target = lanes.lane(name.machine, state.priority)
    reader = _Reader(state)
    moved, size = [], 0
    for old in lanes.rows.read(state.number, *run):
        found = reader.read(old.payload)
        if found is None:
            continue
        mark, batch = found
        seq = target.last + 1
        payload = mark + encode(replace(batch, epoch=target.name.epoch, seq=seq))
        lanes.rows.insert(target.number, Stored(seq, payload, old.appended_us), batch.readings())
        lanes.note_waiting(target, seq, len(payload), old.appended_us)
        moved.append(old.seq)
        size += len(old.payload)
    _replace(lanes, state, ranges.of(moved), size, f"numbered anew in epoch {target.name.epoch}")
