"""The outbox contract: the gateway's disk buffer of batches, and its only queue.

A *lane* is one machine's numbers in one epoch. The outbox has one epoch for each priority that is in use, so that each
priority has lanes of its own; epochs of an earlier life (a damaged, copied or restored outbox) stay as lanes until they
are empty, and are remembered then. A batch keeps its lane and number for ever, so that sending it again never stores it
twice.

Of a lane's numbers 1 to `last` each is in one of four states: *waiting* (here, not confirmed), *kept* (confirmed, and
still here for a grace time), *dropped* (let go unconfirmed, to be declared), or gone (confirmed and let go).

Rules:

1. `append` gives a batch its number and stores it in one durable transaction: when it returns, number and batch survive
   a power cut together; before, neither exists. Batches given in one call share one transaction, hence one fsync.
2. `confirmed` and `wanted` may be written down later, with the next transaction: after a crash a batch may be waiting
   that was confirmed; it is sent again and stored once.
3. Room is made in this order: kept batches, the oldest first; then waiting ones of the lowest priority, the oldest
   first. What is let go unconfirmed is recorded in the same transaction as a dropped range with its reason, kept until
   a confirm covers it, and is to be declared to the receiver. Where thinning out is chosen, the oldest that were never
   offered are not let go of whole: half of their scans are appended again under new numbers, the old ones are dropped.
4. A definition that a batch refers to is stored with it, and kept at least as long as any such batch is here.
5. An epoch is new when the outbox is created, found damaged (that may be in any call) or emptied, copied or restored
   from a backup, at the first opening after a boot of the machine (its disk may have been set back to a snapshot), or
   when the receiver knows numbers that it never gave (`fork`). The session number rises with every `next_session`.
6. A full disk raises OutboxFull and changes nothing; letting go works all the same, because space is kept in reserve.
7. Calls block and are made from one thread.
8. Ages (the grace time, the greatest age) go by a steady time of the outbox's own: it is begun at the wall clock's, and
   neither jumps nor stops when that is set. `now_us` is always the wall clock's.
9. `held`, `stats`, `definition`, `former`, `formers` and `close` never raise; while the disk cannot be read, the age
   told of the oldest batch is the last known. What a disk that fails makes of any other call is an OutboxError.
10. Of a former lane that is empty its last number is remembered, of so many lanes as agent/outbox/former.py says, the
   newest. All up to that number was confirmed or told as dropped; what the receiver then lacks of it, because its
   database was put back, nobody has any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

from protocols.uplink.ranges import Ranges


class OutboxError(Exception):
    """The message is one sentence: what failed, where, what to do."""


class OutboxFull(OutboxError):
    """The disk takes nothing more, even after making room; nothing was changed. Keep the drafts and try again.

    With the same Draft objects: one that turns out to be stored after all, because the disk failed only when it was to
    say so, is then not stored again.
    """


class Lane(NamedTuple):
    """Whose numbers: a machine's, in an epoch (hexadecimal)."""

    machine: str
    epoch: str


NOTHING: Mapping[Lane, Ranges] = MappingProxyType({})

GRACE_S = 24 * 3600.0
"""How long confirmed batches are kept unless told otherwise."""

LOW, NORMAL, HIGH = -1, 0, 1
PRIORITIES = (LOW, NORMAL, HIGH)


@dataclass(frozen=True, slots=True)
class GroupDefinition:
    """A definition message (protocols/uplink/definition.py) with its reference and the poll group that it is of."""

    ref: bytes
    device: str
    group: str
    message: bytes


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch's final bytes, and every definition that it refers to."""

    payload: bytes
    definitions: Sequence[GroupDefinition] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """A batch before it has a number. `encode(epoch, seq)` is called before it reaches the disk, perhaps twice.

    `readings`: how many it holds. `priority`: of LOW, NORMAL and HIGH.
    """

    machine: str
    encode: Callable[[str, int], Encoded]
    readings: int = 0
    priority: int = NORMAL


@dataclass(frozen=True, slots=True)
class Stored:
    """A batch in the outbox, exactly as it will be sent. `appended_us`: when, in microseconds of steady time."""

    seq: int
    payload: bytes
    appended_us: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """Numbers `first` to `last` were let go unconfirmed."""

    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Held:
    """One lane. `last`: the last number ever given in it. `refs`: the definitions kept, oldest first.

    `offered`: numbers that may have been handed to a broker at some time, in this run or an earlier one.
    """

    last: int
    waiting: Ranges = ()
    kept: Ranges = ()
    dropped: Sequence[Dropped] = ()
    refs: Sequence[bytes] = ()
    priority: int = NORMAL
    offered: Ranges = ()


class Former(NamedTuple):
    """A lane of an earlier life of this outbox, in which nothing is given any more.

    `last`: the last number known to be given here. `is_damaged`: the life ended with damage or a lost database, so that
    the numbers above are destroyed. Otherwise a copy of this outbox may have given them, and may still have them.
    """

    last: int
    is_damaged: bool


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """`batches`, `bytes`: waiting. `kept_bytes`: of confirmed batches within their grace time.

    `limit_bytes` holds for both together. `oldest_us`: when the oldest waiting batch was appended, by the wall clock as
    it goes now.
    `dropped`, `dropped_readings`: batches and readings ever let go unconfirmed.
    `disk_free_bytes`: of the file system.
    """

    batches: int
    bytes: int
    limit_bytes: int
    oldest_us: int | None
    dropped: int
    kept_bytes: int = 0
    dropped_readings: int = 0
    disk_free_bytes: int | None = None


class Outbox(Protocol):
    """See the rules above."""

    @property
    def epoch(self) -> str:
        """Of what is appended now with NORMAL priority: the one that names this outbox's life."""

    @property
    def instance(self) -> str:
        """Which installation this is: a copy of the outbox, or one on another machine, has another."""

    @property
    def news(self) -> Sequence[str]:
        """Sentences on what was found at opening and at forks (damaged, copied, salvaged), to be said loudly."""

    def next_session(self) -> int:
        """A number higher than any given before, durable."""

    def append(self, drafts: Sequence[Draft], now_us: int) -> Sequence[int]:
        """The numbers given, in order. Raises OutboxFull."""

    def pending(self, lane: Lane, first: int, last: int, count_max: int) -> Sequence[Stored]:
        """Up to `count_max` batches that are here (waiting or kept) with numbers from `first` to `last`, ascending.

        What cannot be read any more is missing from it, and declared dropped.
        """

    def offer(self, lane: Lane, first: int, last: int) -> None:
        """Durably: these numbers are about to be handed to a broker. Cheap where it is known already.

        Also numbers that are not given yet. What was offered keeps its number: it is neither thinned out nor moved.
        """

    def definition(self, lane: Lane, ref: bytes) -> GroupDefinition | None:
        """None where it is not kept (any more)."""

    def confirmed(self, lane: Lane, through: int, above: Ranges, now_us: int) -> None:
        """Everything up to `through`, and `above`, is stored: waiting ones become kept; dropped ranges up to
        `through` are told and forgotten."""

    def wanted(self, lane: Lane, missing: Ranges) -> Ranges:
        """The receiver lacks these: kept ones wait again. Returns those that are not here (nor known as dropped)."""

    def former(self, lane: Lane) -> Former | None:
        """What is remembered of a lane of an earlier life, empty or not; None: it is a present one, or unknown."""

    def formers(self) -> Mapping[Lane, int]:
        """What is remembered of empty lanes of earlier lives, the newest first: the last number given in each."""

    def declare_dropped(self, lane: Lane, first: int, last: int, reason: str) -> None:
        """Record numbers as dropped, because the receiver misses them and they are not here.

        Numbers that are here are left alone; numbers above the last given will not be given any more.
        """

    def give_up(self, lane: Lane, seq: int, reason: str) -> None:
        """Let go of a batch that waits and can never be sent, and record its number as dropped."""

    def fork(self, reason: str, unsent: Mapping[Lane, Ranges] = NOTHING) -> None:
        """Begin new epochs: the receiver knows numbers of a lane that were never given here.

        What was appended since the outbox was opened, and never offered, moves to the new epoch under new numbers;
        so does `unsent`: appended since then, offered ahead, and never published. Everything else keeps its lane.
        """

    def tend(self, now_us: int) -> None:
        """Every few seconds: let go of what is over its grace time or its age, write down what waits to be written,
        lay the reserve anew."""

    def held(self) -> Mapping[Lane, Held]:
        """Every lane, also an empty one of the present epochs."""

    def stats(self) -> OutboxStats: ...

    def close(self) -> None:
        """Never raises; twice is fine."""
