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
5. A gateway's presence fields change by the rules of protocols/uplink/presence.py only; which installations speak under
   its name, by those of cloud/speakers.py.
6. A batch that can never be stored (its values fit no database; it cannot be decoded, but its number is recognised)
   becomes a dead letter, and its number counts as dropped with the letter's number as the reason, so that its gateway
   does not wait for ever. Of a number that is only recognised, this holds where its gateway has said that it exists.
   Whatever arrives later under such a number, a replay too, makes it stored.
7. What is over the retention is thrown away by `tend`, in small steps; the ledger stays for ever.
8. Queries may run beside commits, from another process too.
9. Telemetry with a clock's mark has times that nobody vouches for, yet. They compare with no others: its newest values
   are the latest only while nothing with a certain time is newer than when they were received live. When a status tells
   the true zero hour of its span, every batch of the span is corrected, once, by the difference from its mark: the
   latest values at once, the readings by the time that `tend` says that there is no more; what arrives later, as it is
   stored. What is told first of a span stays. Keys and duplicates are recognised as ever.
10. Where a gateway's status says a lower last number of an epoch than the one before it, which was of another session,
   the outbox has lost its end: it was damaged or put back. The numbers up to the highest that was ever said exist, and
   are missing. They are `known`, so that confirms ask for them, where the same installation says it; another one may be
   a copy, and what it was copied from may have them still. While one is fenced nothing follows from its word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from cloud.speakers import Speakers
from protocols.uplink.batch import Batch
from protocols.uplink.confirm import MachineConfirm
from protocols.uplink.definition import Definition
from protocols.uplink.mark import ClockMark
from protocols.uplink.presence import Heard
from protocols.uplink.status import Status
from protocols.uplink.topics import DefinitionTopic, GatewayTopic, MachineTopic, Plant
from protocols.values import Value

GATEWAY_EVENTS_MAX = 200


class StoreError(Exception):
    """The message is one sentence: what failed, where, what to do."""


class StoreAway(StoreError):
    """The database cannot be reached, is locked or full: nothing was changed; wait and commit the same group again."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """A decoded telemetry message with its raw `payload` (kept whole if it turns into a dead letter).

    `digest`: 16 bytes of BLAKE2b of the message, without a mark. `received_us`: the receiver's clock. `historical`:
    of a backlog, `clock`: what is said of the clock that stamped its times (protocols/uplink/mark.py).
    """

    topic: MachineTopic
    batch: Batch
    payload: bytes
    digest: bytes
    received_us: int
    historical: bool = False
    clock: ClockMark | None = None


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
class Number:
    """Whose number a message carries, as far as that can be told."""

    machine: MachineTopic
    gateway: str
    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A message that cannot be taken: kept whole as a dead letter. `topic` as text, since it may be the fault.

    `number`: where it can be recognised all the same.
    """

    topic: str
    payload: bytes
    reason: str
    received_us: int
    number: Number | None = None


@dataclass(frozen=True, slots=True)
class Undefined:
    """Telemetry that refers to definitions which we lack. It is not stored: its gateway has it still, and is asked.

    Only where its plant is not known it becomes a dead letter, because there nothing is confirmed or asked for.
    """

    topic: MachineTopic
    refs: tuple[bytes, ...]
    payload: bytes
    received_us: int


Item = Telemetry | Beat | Defined | Undecodable | Undefined


class Committed(Enum):
    """What became of an item."""

    NEW = "stored"
    DUPLICATE = "had it already"
    CONFLICT = "same key with other content: dead letter"
    UNKNOWN = "unknown tenant or plant: dead letter"
    DEAD = "undecodable: dead letter"
    BEAT = "heartbeat taken"
    DEFINED = "definition taken"
    ASKED = "refers to a definition that is not here: asked for"


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
    """A gateway as listed. `registered`: by an operator, otherwise pending. `since_us`: of its last noted change.

    `uncertain`, `corrected`: batches ever stored whose times nobody vouches for, and those that were corrected since.
    """

    plant: Plant
    thing: str
    registered: bool
    heard: Heard
    speakers: Speakers = field(default_factory=Speakers)
    since_us: int | None = None
    uncertain: int = 0
    corrected: int = 0


@dataclass(frozen=True, slots=True)
class GatewayEvent:
    """Something noted of a gateway: online, stopped, lost, silent, replaced, cloned or clone ended; and why."""

    at_us: int
    event: str
    detail: str


@dataclass(frozen=True, slots=True)
class ClockSpan:
    """A time during which nobody vouched for a gateway's clock. `span`: its name, hexadecimal.

    `zero_us`: the true time at which its boot began, told at `told_us`; None: not yet, or it cannot be known.
    `first_us`, `last_us`: when the first and the last of its batches were received. `corrected`: how many of `batches`.
    """

    span: str
    zero_us: int | None
    told_us: int | None
    first_us: int
    last_us: int
    batches: int
    corrected: int


@dataclass(frozen=True, slots=True)
class LatestValue:
    """The newest reading of a series by (time, order of the epoch, seq).

    `time_certain`: False where nobody vouches for the time, see rule 9.
    """

    plant: Plant
    machine: str
    tag: str
    unit: str
    value: Value
    quality: int
    reason: str
    time_us: int
    time_certain: bool = True


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be taken. `count`: how often the same topic and payload arrived; `size`: bytes."""

    id: int
    topic: str
    reason: str
    first_us: int
    last_us: int
    count: int
    size: int
    state: str  # waiting | replayed


@dataclass(frozen=True, slots=True)
class Ledger:
    """One machine's account in one epoch. Ranges are closed, ascending, and neither touch nor overlap.

    `known`: the highest number known to exist, from what was stored, or declared sent or dropped.
    `given`, `sent`: the highest that the gateway said it has given, and handed to the broker without a gap below.
    `named`: whether the gateway's last status still named this epoch. `readings`: stored in it.
    `vouched`: the highest that the gateway still says it has given, where its outbox has lost its end (rule 10);
    None: `given`. `awaited`: a batch was stored in it after its gateway's last status, so that the next may name it.
    """

    epoch: str
    stored: Sequence[tuple[int, int]]
    dropped: Sequence[tuple[int, int]]
    known: int
    given: int = 0
    sent: int = 0
    named: bool = False
    readings: int = 0
    vouched: int | None = None
    awaited: bool = False


@dataclass(frozen=True, slots=True)
class Loss:
    """Numbers that were let go unstored, and why."""

    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Told:
    """What a gateway's confirm says. Only what it sends for is in it.

    `machines`: of the epoch that its last status is in; of a machine that has nothing in that, the newest one.
    `others`: of the other epochs that the status named, then those with something stored lately; the newest first.
    `pending`: there is a gap or a backlog. `fenced`: why `fenced_instance` must be silent, or empty.
    """

    machines: Mapping[str, MachineConfirm]
    others: Mapping[str, Sequence[MachineConfirm]] = field(default_factory=dict)
    pending: bool = False
    fenced: str = ""
    fenced_instance: str = ""


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept. `days`: readings and events, by the receiver's clock; None: for ever.

    `letters_max`, `letters_bytes_max`, `letters_days`: dead letters; with more, those that were replayed go first, then
    the oldest.
    """

    days: float | None = None
    letters_max: int = 10_000
    letters_bytes_max: int = 256 * 1024 * 1024
    letters_days: float | None = None


class StoreSettings(BaseModel):
    """What every kind of store can be told of its retention; its own settings model adds the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    retain_days: float | None = Field(
        None,
        gt=0,
        le=36_500,
        description="Days to keep readings and the records of messages after they were stored; null: for ever. "
        "The account of numbers stays for ever.",
    )
    dead_letters_max: int = Field(
        10_000, ge=1, le=1_000_000, description="Dead letters to keep; beyond, the oldest go, replayed ones first."
    )
    dead_letters_bytes_max: int = Field(
        256 * 1024 * 1024, ge=1024 * 1024, description="Bytes of dead letters to keep; beyond, likewise."
    )
    dead_letters_days: float | None = Field(
        None, gt=0, le=36_500, description="Days to keep a dead letter after it last arrived; null: for ever."
    )

    def retention(self) -> Retention:
        """What is kept."""
        return Retention(self.retain_days, self.dead_letters_max, self.dead_letters_bytes_max, self.dead_letters_days)


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

    def confirm(self, gateway: GatewayTopic) -> Told:
        """What is told to this gateway."""

    def definition(self, machine: MachineTopic, ref: bytes) -> bytes | None:
        """The definition message that was committed for this machine with this reference; None where there is none."""

    def add_tenant(self, tenant: str) -> None:
        """Raises StoreError where it exists."""

    def add_plant(self, plant: Plant) -> None:
        """Raises StoreError where it exists or its tenant does not."""

    def register_gateway(self, gateway: GatewayTopic) -> None:
        """Make or mark it registered. Raises StoreError where it is registered or its plant does not exist."""

    def accept_gateway(self, gateway: GatewayTopic) -> str:
        """Its fenced installation is the right one; returns that one's host. Raises StoreError where none is fenced."""

    def approve_machine(self, machine: MachineTopic) -> None:
        """Raises StoreError where it does not exist."""

    def tenants(self) -> Sequence[str]: ...

    def plants(self) -> Sequence[Plant]: ...

    def machines(self) -> Sequence[MachineRow]: ...

    def gateways(self) -> Sequence[GatewayRow]: ...

    def history(self, gateway: GatewayTopic, limit: int = 20) -> Sequence[GatewayEvent]:
        """What was noted of it, the newest first; at most GATEWAY_EVENTS_MAX are kept."""

    def spans(self, gateway: GatewayTopic) -> Sequence[ClockSpan]:
        """The times without a synchronised clock that it has sent from, the newest first."""

    def latest(self, machine: MachineTopic | None = None) -> Sequence[LatestValue]: ...

    def ledgers(self, machine: MachineTopic) -> Sequence[Ledger]: ...

    def losses(self, machine: MachineTopic, epoch: str) -> Sequence[Loss]:
        """What the ledger has as dropped, ascending."""

    def write_off(self, machine: MachineTopic, epoch: str, numbers: Sequence[tuple[int, int]], reason: str) -> int:
        """An operator says that nobody has these any more: those that are missing count as dropped; how many they were.

        Raises StoreError where a gateway answers for the epoch itself (cloud/write_off.py).
        """

    def first_since(self, machine: MachineTopic, epoch: str, since_us: int) -> int | None:
        """The number of the first live batch that was stored at or after this time; None where none was.

        It is looked for among the events that are kept.
        """

    def totals(self) -> Totals: ...

    def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Newest first."""

    def dead_letter(self, letter_id: int) -> tuple[DeadLetter, bytes]:
        """The letter and its payload. Raises StoreError where there is none of this number."""

    def drop_letter(self, letter_id: int) -> None:
        """Throw it away. Raises StoreError where there is none of this number."""

    def waiting(self) -> Sequence[int]:
        """The numbers of the dead letters that were not replayed, the oldest first. Cheap: asked every second."""

    def mark_replayed(self, letter_id: int) -> None: ...

    def receiver_beat(self, listening_since_us: int, now_us: int) -> None:
        """Note that a receiver is at work, for programs that look at the database beside it.

        `listening_since_us`: of its present connection to the broker; `now_us` where it has none. Gateways that have
        fallen silent by then are noted as that.
        """

    def retain(self, retention: Retention) -> None:
        """From now on."""

    def tend(self, now_us: int) -> bool:
        """Throw away a little of what is over the retention, correct times, and settle what is stuck (cloud/stuck.py).

        Whether there may be more.
        """

    def receiver(self) -> tuple[int, int] | None:
        """(listening_since_us, now_us) of the last receiver_beat; None before the first."""

    def close(self) -> None: ...
