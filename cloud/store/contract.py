"""The store contract: what the receiver needs of a database.

Rules:

1. `commit` is one durable transaction for a whole group of items, in the order of receipt. It returns after the data
   would survive a power cut, or raises StoreAway and has changed nothing. Only after it returns is anything
   acknowledged to the broker or confirmed to a gateway.
2. Storing is idempotent by key: (machine, epoch, seq). The same key with the same digest is DUPLICATE; with another
   digest CONFLICT, and the message becomes a dead letter in the same transaction. Recognition is by the events table
   and, for numbers older than the retained events, by the ledger.
3. Tenants and plants are made by an operator only: a message of an unknown one becomes a dead letter (UNKNOWN).
   Machines and gateways of a known plant are created as `pending` by their first message.
4. The ledger holds, per machine and epoch, ranges of numbers that are stored or declared dropped; its cost is in
   ranges, not in messages (see cloud/sequence.py).
5. A gateway's presence fields change by the rules of protocols/uplink/presence.py only.
6. Queries may run beside commits, from another process too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from protocols.uplink.batch import Batch
from protocols.uplink.confirm import MachineConfirm
from protocols.uplink.definition import Definition
from protocols.uplink.presence import Heard
from protocols.uplink.status import Status
from protocols.uplink.topics import DefinitionTopic, GatewayTopic, MachineTopic, Plant
from protocols.values import Value


class StoreError(Exception):
    """The message is one sentence: what failed, where, what to do."""


class StoreAway(StoreError):
    """The database cannot be reached, is locked or full: nothing was changed; wait and commit the same group again."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """A decoded telemetry message with its raw `payload` (kept whole if it turns into a dead letter).

    `digest`: 16 bytes of BLAKE2b of the payload. `received_us`: the receiver's clock.
    """

    topic: MachineTopic
    batch: Batch
    payload: bytes
    digest: bytes
    received_us: int


@dataclass(frozen=True, slots=True)
class Beat:
    """A status or will, with `retained` as it came (a retained one is history and never a sign of life)."""

    topic: GatewayTopic
    status: Status
    payload: bytes
    retained: bool
    received_us: int


@dataclass(frozen=True, slots=True)
class Defined:
    """A definition message with its reference: what later telemetry of its machine refers to."""

    topic: DefinitionTopic
    ref: bytes
    definition: Definition
    payload: bytes
    received_us: int


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A message that cannot be taken: kept whole as a dead letter. `topic` as text, since it may be the fault."""

    topic: str
    payload: bytes
    reason: str
    received_us: int


Item = Telemetry | Beat | Defined | Undecodable


class Committed(Enum):
    """What became of an item."""

    NEW = "stored"
    DUPLICATE = "had it already"
    CONFLICT = "same key with other content: dead letter"
    UNKNOWN = "unknown tenant or plant: dead letter"
    DEAD = "undecodable: dead letter"
    BEAT = "heartbeat taken"
    DEFINED = "definition taken"


@dataclass(frozen=True, slots=True)
class MachineRow:
    """A machine as listed. `state`: pending or approved. `batches`: in the store; `tags`: ever seen."""

    plant: Plant
    machine: str
    state: str
    gateway: str
    last_event_us: int | None
    batches: int
    tags: int


@dataclass(frozen=True, slots=True)
class GatewayRow:
    """A gateway as listed. `registered`: by an operator, otherwise pending."""

    plant: Plant
    thing: str
    registered: bool
    heard: Heard


@dataclass(frozen=True, slots=True)
class LatestValue:
    """The newest reading of a series by (time, order of the epoch, seq)."""

    plant: Plant
    machine: str
    tag: str
    unit: str
    value: Value
    quality: int
    reason: str
    time_us: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be taken. `count`: how often the same topic and payload arrived."""

    id: int
    topic: str
    reason: str
    first_us: int
    last_us: int
    count: int
    size: int
    state: str  # waiting | replayed
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ledger:
    """One machine's account in one epoch. Ranges are closed, ascending, and neither touch nor overlap.

    `known`: the highest number known to exist, from what was stored, or declared sent or dropped.
    """

    epoch: str
    stored: Sequence[tuple[int, int]]
    dropped: Sequence[tuple[int, int]]
    known: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over the whole database. `repeated`: readings beyond the first with the same series and time."""

    events: int
    readings: int
    repeated: int
    dead_letters: int


class Store(Protocol):
    """A database. Calls block; the receiver makes them from one worker thread, the CLI from its own process."""

    def commit(self, items: Sequence[Item]) -> Sequence[Committed]: ...

    def confirm(self, gateway: GatewayTopic) -> dict[str, MachineConfirm]:
        """Per machine that this gateway has sent for, the newest epoch's account, for the gateway's confirm."""

    def definition(self, machine: MachineTopic, ref: bytes) -> bytes | None:
        """The definition message that was committed for this machine with this reference; None where there is none."""

    def add_tenant(self, tenant: str) -> None:
        """Raises StoreError where it exists."""

    def add_plant(self, plant: Plant) -> None:
        """Raises StoreError where it exists or its tenant does not."""

    def register_gateway(self, gateway: GatewayTopic) -> None:
        """Make or mark it registered. Raises StoreError where it is registered or its plant does not exist."""

    def approve_machine(self, machine: MachineTopic) -> None:
        """Raises StoreError where it does not exist."""

    def tenants(self) -> Sequence[str]: ...

    def plants(self) -> Sequence[Plant]: ...

    def machines(self) -> Sequence[MachineRow]: ...

    def gateways(self) -> Sequence[GatewayRow]: ...

    def latest(self, machine: MachineTopic | None = None) -> Sequence[LatestValue]: ...

    def ledgers(self, machine: MachineTopic) -> Sequence[Ledger]: ...

    def totals(self) -> Totals: ...

    def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Newest first."""

    def dead_letter(self, letter_id: int) -> DeadLetter:
        """Raises StoreError where there is none of this number."""

    def waiting(self) -> Sequence[int]:
        """The numbers of the dead letters that were not replayed, the oldest first. Cheap: asked every second."""

    def mark_replayed(self, letter_id: int) -> None: ...

    def receiver_beat(self, listening_since_us: int, now_us: int) -> None:
        """Note that a receiver is at work, for programs that look at the database beside it.

        `listening_since_us`: of its present connection to the broker; `now_us` where it has none.
        """

    def receiver(self) -> tuple[int, int] | None:
        """(listening_since_us, now_us) of the last receiver_beat; None before the first."""

    def close(self) -> None: ...
