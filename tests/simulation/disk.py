"""The outbox on a disk that is a value: what a crash leaves behind, and what a backup of it would hold.

The rules are the outbox's own (agent/outbox/lanes.py), and so are its records, and how it recognises itself; only
SQLite and the file system are not here. A transaction is one step of the virtual clock: a crash comes before it or
after it.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.outbox.contract import (
    NORMAL,
    NOTHING,
    Draft,
    Encoded,
    Former,
    GroupDefinition,
    Held,
    Lane,
    OutboxError,
    OutboxFull,
    OutboxStats,
    Stored,
)
from agent.outbox.lane import LaneState
from agent.outbox.lanes import Lanes, Limits
from agent.outbox.passport import Passport
from agent.outbox.recognition import Here, recognise, settle
from agent.outbox.records import pack_lane, pack_whole, unpack_lane, unpack_whole
from agent.outbox.rewrite import move
from agent.outbox.rows import MemoryRows, Whole
from agent.outbox.steady import SteadyClock
from agent.outbox.tally import Count
from protocols.uplink.ranges import Ranges

Note = Callable[[Lane, int, Encoded], None]


@dataclass
class Disk:
    """What is durable. `full`: it takes nothing. `failing`: so many calls fail.

    Beside the database: the `marker`, the `passport`, the `tally`, and the `register` of lanes with their priorities.
    """

    rows: MemoryRows = field(default_factory=MemoryRows)
    whole: bytes = b""
    lanes: dict[int, bytes] = field(default_factory=dict)
    definitions: dict[tuple[int, bytes], GroupDefinition] = field(default_factory=dict)
    marker: str | None = None
    passport: Passport | None = None
    tally: Count = field(default_factory=Count)
    register: tuple[tuple[Lane, int], ...] = ()
    full: bool = False
    failing: float = 0.0

    def backup(self) -> Disk:
        """As it is now; later changes leave it alone."""
        found = copy.deepcopy(self)
        found.full, found.failing = False, 0.0
        return found

    def without_database(self) -> Disk:
        """What is left beside it."""
        return Disk(marker=self.marker, passport=self.passport, tally=self.tally, register=self.register)


class _Rows(MemoryRows):
    """Batches and records of a disk."""

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self._disk = disk
        self._batches = disk.rows._batches  # the same ones: this is the disk's own view of them

    def put_definition(self, number: int, since: int, definition: GroupDefinition) -> None:
        self._disk.definitions[number, definition.ref] = definition

    def delete_definition(self, number: int, ref: bytes) -> None:
        self._disk.definitions.pop((number, ref), None)

    def save_lane(self, state: LaneState) -> None:
        self._disk.lanes[state.number] = pack_lane(state)

    def delete_lane(self, number: int) -> None:
        self._disk.lanes.pop(number, None)

    def save_whole(self, whole: Whole) -> None:
        self._disk.whole = pack_whole(whole)


def _watched(draft: Draft, encoded: dict[tuple[str, int], Encoded]) -> Draft:
    """The draft; what it is encoded to is kept: what makes no room for itself is gone at once, and was published."""

    def encode(epoch: str, seq: int) -> Encoded:
        found = encoded[epoch, seq] = draft.encode(epoch, seq)
        return found

    return replace(draft, encode=encode)


class SimulatedOutbox:
    """The contract over a Disk. `note` is told of every batch right after it got its number.

    `copied`: its files are others than those that it knows. `boot`: of the machine, which one it is.
    """

    def __init__(
        self, disk: Disk, limits: Limits, chance: random.Random, note: Note, *, copied: bool, boot: str
    ) -> None:
        self._disk = disk
        self._chance = chance
        self._note = note
        self.news: Sequence[str] = ()
        rows = _Rows(disk)

        def new_epoch() -> str:
            return f"{chance.getrandbits(64):016x}"

        def definition(number: int) -> Callable[[bytes], GroupDefinition | None]:
            return lambda ref: disk.definitions.get((number, ref))

        whole = unpack_whole(disk.whole)[0] if disk.whole else Whole({NORMAL: new_epoch()}, id=new_epoch())
        states = [unpack_lane(number, packed, definition(number)) for number, packed in disk.lanes.items()]
        self._lanes = Lanes(rows, whole, limits, new_epoch, states)
        self._clock = SteadyClock(time.monotonic, whole.steady_us, whole.wall_us)
        if copied:
            disk.marker = f"{chance.getrandbits(32)} 1.5"
        here = Here(disk.marker, f"{chance.getrandbits(32)} 1.5", {}, boot)
        found = recognise(whole, disk.passport, disk.tally, here)
        settle(self._lanes, found, here, disk.register)
        self._epochs = found.epochs
        self._flush()
        disk.marker = here.made

    @property
    def instance(self) -> str:
        return self._lanes.whole.id

    def _flush(self) -> None:
        """As agent/outbox/database.py does, in the same order."""
        disk, whole = self._disk, self._lanes.touch_whole()
        whole.commits += 1
        whole.steady_us, whole.wall_us = self._clock.steady_us, self._clock.wall_us
        self._lanes.flush()
        disk.register = tuple((state.name, state.priority) for state in self._lanes.states.values())
        disk.tally = Count(whole.commits, whole.session)
        disk.passport = Passport.of(whole.copy(), self._epochs, disk.tally)

    def _fails(self) -> bool:
        return self._disk.failing > 0 and self._chance.random() < self._disk.failing

    def _try(self) -> None:
        if self._fails():
            raise OutboxError("the simulated disk fails; look at it")

    @property
    def epoch(self) -> str:
        return self._lanes.epoch(NORMAL)

    def next_session(self) -> int:
        self._try()
        whole = self._lanes.touch_whole()
        whole.session = max(whole.session + 1, int(time.time()))
        self._flush()
        return whole.session

    def append(self, drafts: Sequence[Draft], now_us: int) -> Sequence[int]:
        if self._disk.full or self._fails():
            raise OutboxFull("the simulated disk is full; free some space")
        encoded: dict[tuple[str, int], Encoded] = {}
        numbers = self._lanes.append([_watched(draft, encoded) for draft in drafts], self._clock.now_us(now_us))
        self._flush()
        for draft, number in zip(drafts, numbers, strict=True):
            epoch = self._lanes.epoch(draft.priority)
            self._note(Lane(draft.machine, epoch), number, encoded[epoch, number])
        return numbers

    def pending(self, lane: Lane, first: int, last: int, count_max: int) -> Sequence[Stored]:
        self._try()
        return self._lanes.pending(lane, first, last, count_max)

    def offer(self, lane: Lane, first: int, last: int) -> None:
        self._try()
        self._lanes.offer(lane, first, last)
        self._flush()

    def definition(self, lane: Lane, ref: bytes) -> GroupDefinition | None:
        self._try()
        return self._lanes.definition(lane, ref)

    def confirmed(self, lane: Lane, through: int, above: Ranges, now_us: int) -> None:
        self._try()
        self._lanes.confirmed(lane, through, above, self._clock.now_us(now_us))

    def wanted(self, lane: Lane, missing: Ranges) -> Ranges:
        self._try()
        return self._lanes.wanted(lane, missing)

    def former(self, lane: Lane) -> Former | None:
        self._try()
        return self._lanes.former(lane)

    def formers(self) -> Mapping[Lane, int]:
        return self._lanes.formers()

    def declare_dropped(self, lane: Lane, first: int, last: int, reason: str) -> None:
        self._try()
        self._lanes.declare_dropped(lane, first, last, reason)
        self._flush()

    def give_up(self, lane: Lane, seq: int, reason: str) -> None:
        self._try()
        self._lanes.give_up(lane, seq, reason)
        self._flush()

    def fork(self, reason: str, unsent: Mapping[Lane, Ranges] = NOTHING) -> None:
        self._try()
        self._epochs = ()
        for lane, run in self._lanes.fork(unsent):
            move(self._lanes, lane, run)
        self.news = (*self.news, f"a new epoch begins: {reason}")
        self._flush()

    def tend(self, now_us: int) -> None:
        self._try()
        self._lanes.tend(self._clock.now_us(now_us))
        self._flush()

    def held(self) -> Mapping[Lane, Held]:
        self._try()
        return self._lanes.held()

    def stats(self) -> OutboxStats:
        self._try()
        oldest_us = self._lanes.oldest_us()
        return self._lanes.stats(None if oldest_us is None else oldest_us + self._clock.ahead_us)

    def close(self) -> None:
        self._flush()
