"""The outbox against a plain model, under random operations: every number's state, byte for byte, in every lane."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.outbox.contract import NORMAL, PRIORITIES, Draft, Encoded, Lane, Outbox
from agent.outbox.memory import MemoryOutbox
from protocols.uplink import ranges
from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.envelope import decode, encode
from protocols.values import ValueType
from tests.support.timed_outbox import TimedOutbox

S = 1_000_000
GRACE_S, AGE_S = 240, 500
SLOT_US = GRACE_S * S // 24
LIMIT_BYTES = 1500

machines = st.sampled_from("ab")
priorities = st.sampled_from(PRIORITIES)
some_ranges = st.lists(st.tuples(st.integers(1, 14), st.integers(0, 4)), max_size=3).map(
    lambda pairs: ranges.of(n for first, more in pairs for n in range(first, first + more + 1))
)


def payload(epoch: str, seq: int, body: int) -> bytes:
    """A real batch, so that a fork can number it anew."""
    values = [body * 1000 + n for n in range(body % 7 * 9 + 1)]
    column = Column("count", ValueType.INT, values)
    return encode(Batch("gw-1", epoch, seq, [Block("plc", [S * n for n in range(len(values))], [column])]))


@dataclass
class One:
    """A batch that is here. `slot`: None while it waits."""

    payload: bytes
    readings: int
    appended_us: int
    slot: int | None = None
    fresh: bool = True


@dataclass
class ModelLane:
    order: int
    priority: int
    last: int = 0
    here: dict[int, One] = field(default_factory=dict)
    dropped: dict[int, str] = field(default_factory=dict)
    offered: set[int] = field(default_factory=set)

    def waiting(self) -> list[int]:
        return sorted(seq for seq, one in self.here.items() if one.slot is None)


class Model:
    """The contract in so many words, without any thought of cost."""

    def __init__(self) -> None:
        self.lanes: dict[Lane, ModelLane] = {}
        self.epochs: dict[int, str] = {}
        self.made = 0
        self.dropped = self.dropped_readings = 0

    def lane(self, name: Lane, priority: int) -> ModelLane:
        if name not in self.lanes:
            self.lanes[name] = ModelLane(self.made, priority)
            self.made += 1
        return self.lanes[name]

    def drop(self, lane: ModelLane, seq: int, reason: str) -> int:
        one = lane.here.pop(seq)
        lane.dropped[seq] = reason
        self.dropped += 1
        self.dropped_readings += one.readings
        return len(one.payload)

    def bytes(self) -> int:
        return sum(len(one.payload) for lane in self.lanes.values() for one in lane.here.values())

    def make_room(self) -> None:
        while self.bytes() > LIMIT_BYTES:
            kept = [
                (one.slot, lane.order, seq, lane)
                for lane in self.lanes.values()
                for seq, one in lane.here.items()
                if one.slot is not None
            ]
            if kept:
                _, _, seq, lane = min(kept, key=lambda entry: entry[:3])
                del lane.here[seq]
                continue
            waiting = [
                (lane.priority, lane.here[lane.waiting()[0]].appended_us, lane.order, lane)
                for lane in self.lanes.values()
                if lane.waiting()
            ]
            lane = min(waiting, key=lambda entry: entry[:3])[3]
            self.drop(lane, lane.waiting()[0], "outbox full")

    def tend(self, now_us: int) -> None:
        for lane in self.lanes.values():
            for seq, one in list(lane.here.items()):
                if one.slot is not None and one.slot + SLOT_US + GRACE_S * S <= now_us:
                    del lane.here[seq]
            for seq in lane.waiting():
                if lane.here[seq].appended_us >= now_us - AGE_S * S:
                    break
                self.drop(lane, seq, "too old")

    def vanish(self) -> None:
        for name, lane in list(self.lanes.items()):
            if not lane.here and not lane.dropped and self.epochs.get(lane.priority) != name.epoch:
                del self.lanes[name]


class OutboxMachine(RuleBasedStateMachine):
    """`outbox` and `model` side by side."""

    outbox: Outbox

    def __init__(self) -> None:
        super().__init__()
        self.open()
        self.model = Model()
        self.model.epochs[NORMAL] = self.outbox.epoch
        self.now_us = 1000 * S
        self.session = 0

    def open(self) -> None:
        raise NotImplementedError

    def names(self) -> Iterator[Lane]:
        yield from self.model.lanes

    def pick(self, data: Any) -> Lane:
        """A lane that is there, or one that is not."""
        lane: Lane = data.draw(st.sampled_from([*self.model.lanes, Lane("a", self.outbox.epoch), Lane("b", "00" * 8)]))
        return lane

    @rule(group=st.lists(st.tuples(machines, priorities, st.integers(0, 50)), min_size=1, max_size=5))
    def append(self, group: list[tuple[str, int, int]]) -> None:
        given: list[tuple[str, int]] = []

        def draft(machine: str, priority: int, body: int) -> Draft:
            def encoded(epoch: str, seq: int) -> Encoded:
                given.append((epoch, seq))
                return Encoded(payload(epoch, seq, body))

            return Draft(machine, encoded, body, priority)

        seqs = self.outbox.append([draft(*parts) for parts in group], self.now_us)
        assert [seq for _, seq in given] == list(seqs)
        for (machine, priority, body), (epoch, seq) in zip(group, given, strict=True):
            assert self.model.epochs.setdefault(priority, epoch) == epoch
            lane = self.model.lane(Lane(machine, epoch), priority)
            lane.last += 1
            assert lane.last == seq
            lane.here[seq] = One(payload(epoch, seq, body), body, self.now_us)
        self.model.make_room()

    @rule(data=st.data(), through=st.integers(0, 12), above=some_ranges)
    def confirmed(self, data: Any, through: int, above: ranges.Ranges) -> None:
        name = self.pick(data)
        self.outbox.confirmed(name, through, above, self.now_us)
        lane = self.model.lanes.get(name, ModelLane(0, 0))
        for seq in lane.waiting():
            if seq <= through or ranges.contains(above, seq):
                lane.here[seq].slot = self.now_us // SLOT_US * SLOT_US
        lane.dropped = {seq: reason for seq, reason in lane.dropped.items() if seq > through}

    @rule(data=st.data(), missing=some_ranges)
    def wanted(self, data: Any, missing: ranges.Ranges) -> None:
        name = self.pick(data)
        lane = self.model.lanes.get(name, ModelLane(0, 0))
        expected = {
            seq
            for first, last in missing
            for seq in range(first, last + 1)
            if seq not in lane.here and seq not in lane.dropped
        }
        assert self.outbox.wanted(name, missing) == ranges.of(expected)
        for seq, one in lane.here.items():
            if ranges.contains(missing, seq):
                one.slot = None

    @rule(data=st.data(), first=st.integers(1, 14), more=st.integers(0, 3))
    def declare_dropped(self, data: Any, first: int, more: int) -> None:
        name = self.pick(data)
        priority = NORMAL
        if name in self.model.lanes:
            priority = self.model.lanes[name].priority
        self.outbox.declare_dropped(name, first, first + more, "gone")
        lane = self.model.lane(name, priority)
        lane.last = max(lane.last, first + more)
        for seq in range(first, first + more + 1):
            if seq not in lane.here:
                lane.dropped.setdefault(seq, "gone")

    @rule(data=st.data(), seq=st.integers(1, 14))
    def give_up(self, data: Any, seq: int) -> None:
        name = self.pick(data)
        self.outbox.give_up(name, seq, "too large")
        lane = self.model.lanes.get(name, ModelLane(0, 0))
        if seq in lane.waiting():
            self.model.drop(lane, seq, "too large")

    @rule(data=st.data(), first=st.integers(1, 14), more=st.integers(0, 3))
    def offer(self, data: Any, first: int, more: int) -> None:
        name = self.pick(data)
        self.outbox.offer(name, first, first + more)
        self.model.lanes.get(name, ModelLane(0, 0)).offered |= set(range(first, first + more + 1))

    @rule(seconds=st.sampled_from([1, 30, 120, 300, 600]))
    def tend(self, seconds: int) -> None:
        self.now_us += seconds * S
        self.outbox.tend(self.now_us)
        self.model.tend(self.now_us)

    @rule(seconds=st.integers(1, 20))
    def pass_time(self, seconds: int) -> None:
        self.now_us += seconds * S

    @rule()
    def next_session(self) -> None:
        session = self.outbox.next_session()
        assert session > self.session
        self.session = session

    @rule()
    def fork(self) -> None:
        before = self.outbox.epoch
        present = set(self.model.epochs.values())
        self.outbox.fork("told to")
        assert self.outbox.epoch != before
        self.model.epochs = {
            found.priority: name.epoch for name, found in self.outbox.held().items() if name not in self.model.lanes
        }
        self.model.epochs[NORMAL] = self.outbox.epoch
        for name, lane in list(self.model.lanes.items()):
            if name.epoch in present:
                self._move(name, lane)

    def _move(self, name: Lane, lane: ModelLane) -> None:
        for seq in lane.waiting():
            one = lane.here[seq]
            if not one.fresh or seq in lane.offered:
                continue
            target_name = Lane(name.machine, self.model.epochs[lane.priority])
            target = self.model.lane(target_name, lane.priority)
            target.last += 1
            old = decode(one.payload)
            moved = encode(Batch(old.gateway, target_name.epoch, target.last, old.blocks))
            target.here[target.last] = One(moved, old.readings(), one.appended_us)
            del lane.here[seq]
            lane.dropped[seq] = f"numbered anew in epoch {target_name.epoch}"

    @invariant()
    def agree(self) -> None:
        self.model.vanish()
        held = self.outbox.held()
        assert held.keys() == self.model.lanes.keys()
        for name, lane in self.model.lanes.items():
            found = held[name]
            if self.model.epochs.get(lane.priority) == name.epoch:
                assert found.last == lane.last
            else:  # one that had vanished and came back may or may not remember
                assert found.last >= lane.last
            assert found.priority == lane.priority
            assert found.waiting == ranges.of(lane.waiting())
            assert found.kept == ranges.of(seq for seq, one in lane.here.items() if one.slot is not None)
            told = {seq: one.reason for one in found.dropped for seq in range(one.first, one.last + 1)}
            assert told.keys() == lane.dropped.keys()
            pending = self.outbox.pending(name, 1, 1 << 40, 1 << 20)
            assert [(one.seq, one.payload, one.appended_us) for one in pending] == [
                (seq, one.payload, one.appended_us) for seq, one in sorted(lane.here.items())
            ]
        self._agree_on_stats()

    def _agree_on_stats(self) -> None:
        stats = self.outbox.stats()
        here = [one for lane in self.model.lanes.values() for one in lane.here.values()]
        waiting = [one for one in here if one.slot is None]
        assert stats.batches == len(waiting)
        assert stats.bytes == sum(len(one.payload) for one in waiting)
        assert stats.kept_bytes == sum(len(one.payload) for one in here if one.slot is not None)
        heads = [lane.here[lane.waiting()[0]].appended_us for lane in self.model.lanes.values() if lane.waiting()]
        assert stats.oldest_us == min(heads, default=None)
        assert (stats.dropped, stats.dropped_readings) == (self.model.dropped, self.model.dropped_readings)


class MemoryMachine(OutboxMachine):
    def open(self) -> None:
        self.outbox = MemoryOutbox(limit_bytes=LIMIT_BYTES, grace_s=GRACE_S, age_max_s=AGE_S)


class DiskMachine(OutboxMachine):
    """Reopened now and then, after which nothing may be different but what counts as offered or fresh."""

    directories: ClassVar[list[Path]] = []

    def open(self) -> None:
        if not hasattr(self, "directory"):
            self.directory = Path(tempfile.mkdtemp(prefix="holdfast-outbox-"))
        self.outbox = TimedOutbox(
            self.directory, limit_bytes=LIMIT_BYTES, grace_s=GRACE_S, age_max_s=AGE_S, reserve_bytes=0
        )

    @rule()
    def reopen(self) -> None:
        self.outbox.close()
        self.open()
        assert self.outbox.epoch == self.model.epochs[NORMAL]
        for lane in self.model.lanes.values():
            lane.offered.clear()
            for one in lane.here.values():
                one.fresh = False

    def teardown(self) -> None:
        self.outbox.close()
        shutil.rmtree(self.directory)


MemoryMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
DiskMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=25)
TestMemoryOutbox = MemoryMachine.TestCase
TestDiskOutbox = DiskMachine.TestCase
