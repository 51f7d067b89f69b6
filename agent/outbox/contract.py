"""The outbox contract: the gateway's disk buffer of batches, and its only queue.

Rules:

1. `append` gives a batch its number and stores it in one durable transaction: when it returns, number and batch survive
   a power cut together; before, neither exists. Batches given in one call share one transaction, hence one fsync.
2. Per machine the numbers are 1, 2, 3, … within the outbox's epoch, and what is held is always one unbroken range:
   `release` takes from the low end, and so does making room.
3. What is let go unconfirmed to make room is recorded in the same transaction as a dropped range with its reason, kept
   until `release` covers it, and is to be declared to the receiver.
4. A definition that a batch refers to is stored with it, and kept at least as long as any such batch is held.
5. The epoch is new when the outbox is created, and only then. The session number rises with every `next_session`.
6. A full disk raises OutboxFull and changes nothing; `release` works all the same, because space is kept in reserve.
7. Calls block and are made from one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class OutboxError(Exception):
    """The message is one sentence: what failed, where, what to do."""


class OutboxFull(OutboxError):
    """The disk takes nothing more, even after making room; nothing was changed. Keep the drafts and try again."""


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
    """A batch before it has a number. `encode(epoch, seq)` is called before it reaches the disk, perhaps twice."""

    machine: str
    encode: Callable[[str, int], Encoded]


@dataclass(frozen=True, slots=True)
class Stored:
    """A batch in the outbox, exactly as it will be sent. `appended_us`: microseconds since 1970."""

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
    """One machine's numbers: `first` to `last` are held (none where first > last); `last` is the last ever given.

    `refs`: the definitions kept, oldest first.
    """

    first: int
    last: int
    dropped: Sequence[Dropped] = ()
    refs: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """`oldest_us`: when the oldest batch held was appended. `dropped`: batches ever let go unconfirmed."""

    batches: int
    bytes: int
    limit_bytes: int
    oldest_us: int | None
    dropped: int


class Outbox(Protocol):
    """See the rules above."""

    epoch: str

    def next_session(self) -> int:
        """A number higher than any given before, durable."""

    def append(self, drafts: Sequence[Draft], now_us: int) -> Sequence[int]:
        """The numbers given, in order. Raises OutboxFull."""

    def pending(self, machine: str, after: int, count_max: int) -> Sequence[Stored]:
        """Up to `count_max` batches with numbers above `after`, ascending."""

    def definition(self, machine: str, ref: bytes) -> GroupDefinition | None:
        """None where it is not kept (any more)."""

    def release(self, machine: str, through: int) -> int:
        """Let go of everything up to and including `through`, of dropped ranges too; how many batches that were."""

    def declare_dropped(self, machine: str, first: int, last: int, reason: str) -> None:
        """Record numbers below what is held as dropped, because the receiver misses them and they are not here."""

    def held(self) -> Mapping[str, Held]:
        """By machine."""

    def stats(self) -> OutboxStats: ...

    def close(self) -> None:
        """Never raises; twice is fine."""
