"""The outbox's rules, over any store of rows: numbering, confirming, keeping, letting go. The contract says what.

Changes are made in memory and to the rows at once; `begin` and `undo` take back what a failed transaction did to
memory, and `flush` writes down the records of all lanes that have changed. What is confirmed or over its grace time
changes memory only, and is written down with the next transaction. Rows of batches let go of are *doomed* first, and
deleted a bounded number at a time. Former lanes that are empty stay among `states`, to be remembered.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.outbox import former, room
from agent.outbox.bookkeeping import KeptDefinition, bounded, declared, note_dropped, told, unknown
from agent.outbox.contract import (
    NORMAL,
    NOTHING,
    Draft,
    Former,
    GroupDefinition,
    Held,
    Lane,
    OutboxError,
    OutboxStats,
    Stored,
)
from agent.outbox.lane import LaneState, blocks, covers
from agent.outbox.rewrite import to_move
from agent.outbox.rows import Rows, RowsMissing, Whole
from protocols.uplink import ranges
from protocols.uplink.ranges import Range, Ranges

LANES_MAX = 32_767  # as many as there are numbers for, see agent/outbox/cache.py
DELETE_MAX = 4_000
KEPT_SLOTS = 24  # confirmed batches are let go of in so many portions per grace time


@dataclass(frozen=True, slots=True)
class Limits:
    """What an outbox may hold. `age_max_us`: 0 for no limit. `grace_us`: 0 lets go at once."""

    bytes: int
    age_max_us: int = 0
    grace_us: int = 0
    thin_out: bool = False


class Lanes:
    """`new_epoch` makes one. `states` are those found in the store. `made`: the lanes made since `begin`."""

    def __init__(
        self,
        rows: Rows,
        whole: Whole,
        limits: Limits,
        new_epoch: Callable[[], str],
        states: Sequence[LaneState] = (),
    ) -> None:
        self.rows = rows
        self.whole = whole
        self.limits = limits
        self.states = {state.name: state for state in states}
        self.made: list[LaneState] = []
        self._new_epoch = new_epoch
        self._dirty: dict[Lane, None] = {state.name: None for state in states if state.doomed}
        self._whole_dirty = False
        self._before: dict[Lane, LaneState | None] | None = None
        self._whole_before: tuple[Whole, bool] | None = None

    # --- transactions ---

    def begin(self) -> None:
        """From here on everything can be undone, until `done`."""
        self._before = {}
        self._whole_before = None
        self.made = []

    def undo(self) -> None:
        """Take back every change since `begin`. Lanes changed before it stay to be written down."""
        for name, state in (self._before or {}).items():
            if state is None:
                self.states.pop(name, None)
                self._dirty.pop(name, None)
            else:
                self.states[name] = state
                self._dirty[name] = None
        if self._whole_before is not None:
            self.whole, self._whole_dirty = self._whole_before
        self.done()

    def done(self) -> None:
        """What was changed since `begin` is durable, or undone."""
        self._before = self._whole_before = None

    def flush(self, delete_max: int = DELETE_MAX) -> None:
        """Write down what has changed, deleting at most about so many rows."""
        forgotten = self._forgotten()
        for name in dict.fromkeys((*self._dirty, *forgotten)):
            state = self.touch(name)
            while state.doomed and delete_max > 0:
                first, last = state.doomed[0]
                last = min(last, first + delete_max - 1)
                self.rows.delete(state.number, first, last)
                delete_max -= last - first + 1
                state.doomed = ranges.minus(state.doomed, ((first, last),))
            for ref in state.doomed_refs:
                self.rows.delete_definition(state.number, ref)
            state.doomed_refs = ()
            if not state.doomed and not self._is_alive(state):
                for kept in state.definitions:
                    self.rows.delete_definition(state.number, kept.definition.ref)
                state.definitions = ()
            if name in forgotten:
                self.rows.delete_lane(state.number)
                del self.states[name]
            else:
                self.rows.save_lane(state)
            if not state.doomed:
                self._dirty.pop(name, None)
        if self._whole_dirty:
            self.rows.save_whole(self.whole)
            self._whole_dirty = False

    def _forgotten(self) -> set[Lane]:
        """Empty former lanes that are too many to be remembered. There are no more of them unless one became empty."""
        if all(self._is_alive(self.states[name]) for name in self._dirty):
            return set()
        empty = [state for state in self.states.values() if not self._is_alive(state)]
        gone = former.surplus(empty, self.whole.next_lane, LANES_MAX)
        return {name for name in gone if not self.states[name].doomed}

    def is_dirty(self) -> bool:
        """Something waits to be written down."""
        return bool(self._dirty) or self._whole_dirty

    def touch(self, name: Lane) -> LaneState:
        """The lane, to be changed."""
        state = self.states[name]
        if self._before is not None and name not in self._before:
            self._before[name] = state
            state = self.states[name] = state.copy()
        state.view = None
        self._dirty[name] = None
        return state

    def touch_whole(self) -> Whole:
        """What concerns all lanes, to be changed."""
        if self._before is not None and self._whole_before is None:
            self._whole_before = self.whole.copy(), self._whole_dirty
        self._whole_dirty = True
        return self.whole

    # --- lanes ---

    def epoch(self, priority: int) -> str:
        """The present one; a new one where the priority was not in use."""
        epoch = self.whole.epochs.get(priority)
        if epoch is None:
            epoch = self.touch_whole().epochs[priority] = self._new_epoch()
        return epoch

    def is_present(self, state: LaneState) -> bool:
        """New batches may still be appended to it."""
        return self.whole.epochs.get(state.priority) == state.name.epoch

    def _is_alive(self, state: LaneState) -> bool:
        return self.is_present(state) or not state.is_empty()

    def make_lane(self, name: Lane, priority: int) -> LaneState:
        """A new lane."""
        used = {state.number for state in self.states.values()}
        if len(used) >= LANES_MAX:
            raise OutboxError(f"the outbox holds {LANES_MAX} lanes and takes no more; let it drain")
        whole = self.touch_whole()
        while whole.next_lane in used:
            whole.next_lane = (whole.next_lane + 1) % LANES_MAX
        state = LaneState(name, whole.next_lane, priority)
        whole.next_lane = (whole.next_lane + 1) % LANES_MAX
        if self._before is not None:
            self._before.setdefault(name, None)
        self.states[name] = state
        self._dirty[name] = None
        self.made.append(state)
        return state

    def lane(self, machine: str, priority: int) -> LaneState:
        """The machine's present lane of this priority, to be changed; a new one where there is none."""
        name = Lane(machine, self.epoch(priority))
        return self.touch(name) if name in self.states else self.make_lane(name, priority)

    # --- the contract ---

    def append(self, drafts: Sequence[Draft], now_us: int) -> list[int]:
        """In a transaction."""
        numbers = []
        for draft in drafts:
            state = self.lane(draft.machine, draft.priority)
            seq = state.last + 1
            encoded = draft.encode(state.name.epoch, seq)
            self.rows.insert(state.number, Stored(seq, encoded.payload, now_us), draft.readings)
            for definition in unknown(state.definitions, encoded.definitions):
                self._define(state, seq, definition)
            self.note_waiting(state, seq, len(encoded.payload), now_us)
            numbers.append(seq)
        excess = self.bytes() - self.limits.bytes
        if excess > 0:  # only now, so that a new batch of low priority does not push out older ones of a higher one
            room.make(self, excess, "outbox full", self.limits.thin_out)
        return numbers

    def _define(self, state: LaneState, since: int, definition: GroupDefinition) -> None:
        state.definitions = (*state.definitions, KeptDefinition(since, definition))
        state.doomed_refs = tuple(ref for ref in state.doomed_refs if ref != definition.ref)
        self.rows.put_definition(state.number, since, definition)

    @staticmethod
    def note_waiting(state: LaneState, seq: int, size: int, appended_us: int) -> None:
        """A batch was stored under a new number."""
        if not state.waiting:
            state.oldest = seq, appended_us
        state.last = seq
        state.waiting = ranges.add(state.waiting, seq)
        state.waiting_bytes += size

    def pending(self, lane: Lane, first: int, last: int, count_max: int) -> list[Stored]:
        """What cannot be read is declared dropped, so that nobody waits for it. Raises RowsMissing."""
        state = self.states.get(lane)
        if state is None:
            return []
        found: list[Stored] = []
        for low, high in ranges.common(state.here(), ((first, last),)):
            if count_max <= 0:
                break
            high = min(high, low + count_max - 1)
            batches = self.rows.read(state.number, low, high)
            if len(batches) < high - low + 1:
                self._give_up_unreadable(lane, ranges.minus(((low, high),), ranges.of(batch.seq for batch in batches)))
            found += batches
            count_max -= high - low + 1
        return found

    def _give_up_unreadable(self, lane: Lane, lost: Ranges) -> None:
        """Rows that are damaged. Waiting ones are declared, kept ones were confirmed anyway."""
        state = self.states[lane]
        for first, last in lost:
            if len(self.rows.sizes(state.number, first, last, last - first + 1)) <= last - first:
                raise RowsMissing(f"rows between {first} and {last} of machine {lane.machine} are missing")
        state = self.touch(lane)
        waiting = ranges.common(lost, state.waiting)
        state.stop_waiting(waiting, 0)
        for at in reversed(range(len(state.kept))):
            state.unkeep(at, ranges.common(lost, state.kept[at].numbers), 0)
        for first, last in waiting:
            state.dropped = note_dropped(state.dropped, first, last, "unreadable in the outbox")
        self.touch_whole().dropped += ranges.count(waiting)
        state.doom(lost)
        state.waiting_bytes = self._measure(state, state.waiting)
        state.keep_only([slot._replace(bytes=self._measure(state, slot.numbers)) for slot in state.kept])

    def _measure(self, state: LaneState, numbers: Ranges) -> int:
        return sum(self.rows.measure(state.number, first, last) for first, last in numbers)

    def is_marked(self, lane: Lane, first: int, last: int) -> bool:
        """Whether offering these needs no writing down."""
        state = self.states.get(lane)
        return state is None or covers(state.marked, first, last)

    def offer(self, lane: Lane, first: int, last: int) -> None:
        """In a transaction, unless they are marked."""
        state = self.states.get(lane)
        if state is None:
            return
        if not covers(state.marked, first, last):
            state = self.touch(lane)
            state.marked = ranges.add(state.marked, *blocks(first, last))
        if not covers(state.offered, first, last):
            state.view = None
            state.offered = ranges.add(state.offered, first, last)

    def definition(self, lane: Lane, ref: bytes) -> GroupDefinition | None:
        state = self.states.get(lane)
        kept = () if state is None else state.definitions
        return next((one.definition for one in kept if one.definition.ref == ref), None)

    def confirmed(self, lane: Lane, through: int, above: Ranges, now_us: int) -> None:
        state = self.states.get(lane)
        if state is None:
            return
        stored = ranges.union(((1, through),), above) if through > 0 else above
        moved = ranges.common(state.waiting, stored)
        dropped = told(state.dropped, through)
        if not moved and dropped == state.dropped:
            return
        state = self.touch(lane)
        state.dropped = dropped
        if moved:
            size = state.waiting_bytes if moved == state.waiting else self._measure(state, moved)
            state.stop_waiting(moved, size)
            if self.limits.grace_us:
                state.keep(self._slot_us(now_us), moved, size)
            else:
                state.doom(moved)

    def _slot_us(self, now_us: int) -> int:
        return now_us - now_us % self._slot_width_us()

    def _slot_width_us(self) -> int:
        return max(1, self.limits.grace_us // KEPT_SLOTS)

    def wanted(self, lane: Lane, missing: Ranges) -> Ranges:
        state = self.states.get(lane)
        if state is None:
            return missing
        here = state.here()
        back = ranges.minus(ranges.common(here, missing), state.waiting)
        if back:
            moved = [ranges.common(slot.numbers, back) for slot in state.kept]
            sizes = [self._measure(state, numbers) for numbers in moved]  # before any change: it may fail
            state = self.touch(lane)
            for at in reversed(range(len(state.kept))):
                state.unkeep(at, moved[at], sizes[at])
            state.waiting_bytes += sum(sizes)
            state.waiting = ranges.union(state.waiting, back)
        return ranges.minus(ranges.minus(missing, here), [(one.first, one.last) for one in state.dropped])

    def give_up(self, lane: Lane, seq: int, reason: str) -> None:
        """In a transaction."""
        if lane in self.states and ranges.contains(self.states[lane].waiting, seq):
            room.give_up(self, self.touch(lane), seq, reason)

    def former(self, lane: Lane) -> Former | None:
        if lane.epoch in self.whole.epochs.values():
            return None
        state, is_damaged = self.states.get(lane), lane.epoch in self.whole.damaged
        return Former(0 if state is None else state.last, is_damaged) if state is not None or is_damaged else None

    def formers(self) -> dict[Lane, int]:
        """Of a lane that gave nothing and has lost nothing there is nothing to say."""
        empty = [state for state in self.states.values() if not self._is_alive(state)]
        damaged = self.whole.damaged
        found = former.newest_first(empty, self.whole.next_lane, LANES_MAX)
        return {state.name: state.last for state in found if state.last or state.name.epoch in damaged}

    def declare_dropped(self, lane: Lane, first: int, last: int, reason: str) -> None:
        """In a transaction. Numbers above the last given are given by that, and are not given again."""
        state = self.touch(lane) if lane in self.states else self.make_lane(lane, NORMAL)
        for low, high in ranges.minus(((first, last),), state.here()):
            state.dropped = declared(state.dropped, low, high, reason)
        state.dropped = bounded(state.dropped, state.waiting)
        state.last = max(state.last, last)

    def fork(self, unsent: Mapping[Lane, Ranges] = NOTHING) -> list[tuple[Lane, Range]]:
        """In a transaction. Every present lane becomes one of an earlier epoch. What is to move, see rewrite.move."""
        present = [(name, state) for name, state in self.states.items() if self.is_present(state)]
        runs = [(name, run) for name, state in present for run in to_move(state, unsent.get(name, ()))]
        self.touch_whole().epochs = {NORMAL: self._new_epoch()}
        for name in list(self.states):
            self.touch(name)  # so that one that is empty becomes a former one
        return runs

    def tend(self, now_us: int) -> None:
        """In a transaction, or before one."""
        for state in list(self.states.values()):
            if state.kept:
                self._end_grace(state, now_us)
        if self.limits.age_max_us:
            room.let_go_of_old(self, now_us - self.limits.age_max_us)

    def _end_grace(self, state: LaneState, now_us: int) -> None:
        over_us = now_us - self.limits.grace_us - self._slot_width_us()
        if state.kept[0].since_us > over_us and state.kept[-1].since_us <= now_us:
            return
        state = self.touch(state.name)
        over = [slot for slot in state.kept if slot.since_us <= over_us]
        ahead = [slot for slot in state.kept if slot.since_us > now_us]  # of an outbox that went by the wall clock yet
        state.keep_only([slot for slot in state.kept if over_us < slot.since_us <= now_us])
        for slot in ahead:
            state.keep(self._slot_us(now_us), slot.numbers, slot.bytes)
        for slot in over:
            state.doom(slot.numbers)

    def held(self) -> dict[Lane, Held]:
        return {name: state.held() for name, state in self.states.items() if self._is_alive(state)}

    def bytes(self) -> int:
        """Waiting and kept."""
        return sum(state.waiting_bytes + state.kept_bytes for state in self.states.values())

    def head_us(self, state: LaneState) -> int | None:
        """When its first waiting batch was appended; None: none waits."""
        if not state.waiting:
            return None
        if state.oldest is None or state.oldest[0] != state.waiting[0][0]:
            sizes = self.rows.sizes(state.number, *state.waiting[0], 1)
            state.oldest = state.waiting[0][0], sizes[0].appended_us if sizes else 0
        return state.oldest[1]

    def _oldest_us(self, state: LaneState) -> int:
        """As `head_us`, but thinned-out readings count from when they were first appended. Some batch waits."""
        head_us = self.head_us(state) or 0
        return head_us if state.thinned is None else min(head_us, state.thinned[1])

    def oldest_us(self) -> int | None:
        """When the oldest waiting batch was appended. The only one of the figures that may have to be read."""
        return min((self._oldest_us(state) for state in self.states.values() if state.waiting), default=None)

    def stats(self, oldest_us: int | None) -> OutboxStats:
        """The figures, with this one."""
        waiting = [state for state in self.states.values() if state.waiting]
        return OutboxStats(
            batches=sum(ranges.count(state.waiting) for state in waiting),
            bytes=sum(state.waiting_bytes for state in waiting),
            limit_bytes=self.limits.bytes,
            oldest_us=oldest_us,
            dropped=self.whole.dropped,
            kept_bytes=sum(state.kept_bytes for state in self.states.values()),
            dropped_readings=self.whole.dropped_readings,
        )


def new_epoch() -> str:
    """Sixteen hexadecimal digits that were never used before."""
    return secrets.token_hex(8)
