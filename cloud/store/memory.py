"""The store in plain Python: for tests and simulations. What it holds is gone with the process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cloud import sequence
from cloud.store.contract import (
    Beat,
    Committed,
    DeadLetter,
    Defined,
    GatewayRow,
    Item,
    LatestValue,
    Ledger,
    MachineRow,
    StoreError,
    Telemetry,
    Totals,
    Undecodable,
)
from cloud.store.packing import Kept, Unfit, pack, readable, restore
from protocols.program.logs import get_logger
from protocols.uplink import ranges
from protocols.uplink.confirm import MachineConfirm
from protocols.uplink.presence import Heard, hear
from protocols.uplink.status import TIMESTAMP_MS_MAX
from protocols.uplink.topics import GatewayTopic, MachineTopic, Plant
from protocols.values import ValueType

_log = get_logger(part="store")

Reading = tuple[MachineTopic, str, ValueType, int, Kept, int]
"""Machine, tag, type, time in µs, value as packing.py keeps it, quality."""


@dataclass(slots=True)
class _Epoch:
    order: int
    gateway: str
    digests: dict[int, bytes] = field(default_factory=dict)
    dropped: ranges.Ranges = ()
    known: int = 0

    def ledger(self, name: str) -> Ledger:
        stored = ranges.of(self.digests)
        return Ledger(name, stored, ranges.minus(self.dropped, stored), self.known)


@dataclass(slots=True)
class _Machine:
    state: str = "pending"
    gateway: str = ""
    last_event_us: int | None = None
    epochs: dict[str, _Epoch] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    latest: dict[str, tuple[tuple[int, int, int], LatestValue]] = field(default_factory=dict)


@dataclass(slots=True)
class _Gateway:
    registered: bool = False
    heard: Heard = field(default_factory=Heard)


class MemoryStore:
    """A Store (cloud/store/contract.py). Never away."""

    def __init__(self, *, future_tolerance_s: float = 300.0, dead_letters_max: int = 10_000) -> None:
        self._future_tolerance_us = int(future_tolerance_s * 1_000_000)
        self._dead_letters_max = dead_letters_max
        self._tenants: set[str] = set()
        self._plants: set[Plant] = set()
        self._machines: dict[MachineTopic, _Machine] = {}
        self._gateways: dict[GatewayTopic, _Gateway] = {}
        self._letters: dict[tuple[str, bytes], DeadLetter] = {}
        self._letter_id = 0
        self._definitions: dict[tuple[MachineTopic, bytes], bytes] = {}
        self._receiver: tuple[int, int] | None = None
        self.readings: list[Reading] = []

    def commit(self, items: Sequence[Item]) -> Sequence[Committed]:
        outcomes = [self._take(item) for item in items]
        self._discard()
        return outcomes

    def _take(self, item: Item) -> Committed:
        if isinstance(item, Undecodable):
            return self._dead(item, item.topic, item.reason, Committed.DEAD)
        if isinstance(item, Defined):
            topic, plant = item.topic.definition, item.topic.machine.plant
        else:
            topic = item.topic.telemetry if isinstance(item, Telemetry) else item.topic.status
            plant = item.topic.plant
        if plant not in self._plants:
            reason = f"no plant {plant} is known; add its tenant and plant, then replay this message"
            return self._dead(item, topic, reason, Committed.UNKNOWN)
        if isinstance(item, Defined):
            self._machines.setdefault(item.topic.machine, _Machine())
            self._definitions.setdefault((item.topic.machine, item.ref), item.payload)
            return Committed.DEFINED
        if isinstance(item, Telemetry):
            return self._telemetry(item, topic)
        if not 0 <= item.status.timestamp <= TIMESTAMP_MS_MAX:
            return self._dead(item, topic, "timestamp is not milliseconds since 1970", Committed.DEAD)
        return self._beat(item)

    def _telemetry(self, item: Telemetry, topic: str) -> Committed:
        batch = item.batch
        try:
            columns = pack(batch, item.received_us + self._future_tolerance_us)
        except Unfit as error:
            epoch = self._epoch(self._machines.setdefault(item.topic, _Machine()), batch.epoch)
            epoch.gateway = batch.gateway or epoch.gateway
            epoch.dropped = ranges.add(epoch.dropped, batch.seq)
            epoch.known = max(epoch.known, batch.seq)
            return self._dead(item, topic, str(error), Committed.DEAD)
        machine = self._machines.setdefault(item.topic, _Machine())
        digests = machine.epochs[batch.epoch].digests if batch.epoch in machine.epochs else {}
        if batch.seq in digests:
            if digests[batch.seq] == item.digest:
                return Committed.DUPLICATE
            reason = f"number {batch.seq} of epoch {batch.epoch!r} is stored already with other content"
            return self._dead(item, topic, reason, Committed.CONFLICT)
        epoch = self._epoch(machine, batch.epoch)
        epoch.gateway = batch.gateway or epoch.gateway
        epoch.digests[batch.seq] = item.digest
        epoch.known = max(epoch.known, batch.seq)
        machine.gateway = batch.gateway or machine.gateway
        machine.last_event_us = max(machine.last_event_us or item.received_us, item.received_us)
        for one in columns:
            machine.tags.add(one.tag)
            rows = zip(one.times_us, one.values, one.quality, strict=True)
            self.readings.extend((item.topic, one.tag, one.type, *row) for row in rows)
            if one.newest is None:
                continue
            order = (one.times_us[one.newest], epoch.order, batch.seq)
            if one.tag not in machine.latest or order >= machine.latest[one.tag][0]:
                value, quality = restore(one.type, one.values[one.newest]), one.quality[one.newest]
                found = LatestValue(
                    item.topic.plant, item.topic.machine, one.tag, one.unit, value, quality, one.reason, order[0]
                )
                machine.latest[one.tag] = (order, found)
        return Committed.NEW

    def _epoch(self, machine: _Machine, name: str) -> _Epoch:
        return machine.epochs.setdefault(name, _Epoch(len(machine.epochs), ""))

    def _beat(self, item: Beat) -> Committed:
        gateway = self._gateways.setdefault(item.topic, _Gateway())
        history = item.status.session < gateway.heard.session
        gateway.heard = hear(gateway.heard, item.status, retained=item.retained, received_us=item.received_us)
        for name, numbers in item.status.machines.items():
            topic = MachineTopic(item.topic.plant, name)
            if history and item.status.epoch not in self._machines.get(topic, _Machine()).epochs:
                continue
            epoch = self._epoch(self._machines.setdefault(topic, _Machine()), item.status.epoch)
            if not history:
                epoch.gateway = epoch.gateway or item.topic.thing
            dropped = [(max(first, 1), last) for first, last, _ in numbers.dropped if last >= max(first, 1)]
            for first, last in dropped:
                epoch.dropped = ranges.add(epoch.dropped, first, last)
            epoch.known = max(epoch.known, numbers.sent_seq, *(last for _, last in dropped))
        return Committed.BEAT

    def _dead(self, item: Item, topic: str, reason: str, outcome: Committed) -> Committed:
        key = (readable(topic), b"" if isinstance(item, Beat) else item.payload)
        before = self._letters.get(key)
        if before is None:
            self._letter_id += 1
            before = DeadLetter(self._letter_id, key[0], "", item.received_us, item.received_us, 0, 0, "", b"")
        self._letters[key] = replace(
            before,
            reason=readable(reason),
            last_us=max(before.last_us, item.received_us),
            count=before.count + 1,
            size=len(item.payload),
            state="waiting",
            payload=item.payload,
        )
        return outcome

    def _discard(self) -> None:
        excess = len(self._letters) - self._dead_letters_max
        if excess <= 0:
            return
        order = sorted(self._letters, key=lambda key: _leaving(self._letters[key]))
        for key in order[:excess]:
            del self._letters[key]
        _log.warning("dead letters discarded for room", discarded=excess, kept_max=self._dead_letters_max)

    def confirm(self, gateway: GatewayTopic) -> dict[str, MachineConfirm]:
        status = self._gateways.get(gateway, _Gateway()).heard.status
        confirms: dict[str, MachineConfirm] = {}
        for topic, machine in sorted(self._machines.items(), key=lambda item: item[0].machine):
            sent = [name for name, epoch in machine.epochs.items() if epoch.gateway == gateway.thing]
            if topic.plant == gateway.plant and sent:
                name = status.epoch if status is not None and status.epoch in sent and status.epoch else sent[-1]
                confirms[topic.machine] = sequence.confirm(machine.epochs[name].ledger(name))
        return confirms

    def definition(self, machine: MachineTopic, ref: bytes) -> bytes | None:
        return self._definitions.get((machine, ref))

    def add_tenant(self, tenant: str) -> None:
        if tenant in self._tenants:
            raise StoreError(f"tenant {tenant} exists already.")
        self._tenants.add(tenant)

    def add_plant(self, plant: Plant) -> None:
        if plant.tenant not in self._tenants:
            raise StoreError(f"plant {plant}: there is no tenant {plant.tenant}; add it first.")
        if plant in self._plants:
            raise StoreError(f"plant {plant} exists already.")
        self._plants.add(plant)

    def register_gateway(self, gateway: GatewayTopic) -> None:
        if gateway.plant not in self._plants:
            raise StoreError(f"gateway {gateway.thing}: there is no plant {gateway.plant}; add it first.")
        row = self._gateways.setdefault(gateway, _Gateway())
        if row.registered:
            raise StoreError(f"gateway {gateway.thing} of plant {gateway.plant} is registered already.")
        row.registered = True

    def approve_machine(self, machine: MachineTopic) -> None:
        if machine not in self._machines:
            raise StoreError(f"there is no machine {machine.machine} in plant {machine.plant}.")
        self._machines[machine].state = "approved"

    def tenants(self) -> Sequence[str]:
        return sorted(self._tenants)

    def plants(self) -> Sequence[Plant]:
        return sorted(self._plants, key=_place)

    def machines(self) -> Sequence[MachineRow]:
        rows = sorted(self._machines.items(), key=lambda item: (*_place(item[0].plant), item[0].machine))
        return [
            MachineRow(
                *(topic.plant, topic.machine, machine.state, machine.gateway, machine.last_event_us),
                *(sum(len(epoch.digests) for epoch in machine.epochs.values()), len(machine.tags)),
            )
            for topic, machine in rows
        ]

    def gateways(self) -> Sequence[GatewayRow]:
        rows = sorted(self._gateways.items(), key=lambda item: (*_place(item[0].plant), item[0].thing))
        return [GatewayRow(topic.plant, topic.thing, row.registered, row.heard) for topic, row in rows]

    def latest(self, machine: MachineTopic | None = None) -> Sequence[LatestValue]:
        machines = [found for topic, found in self._machines.items() if machine in (None, topic)]
        values = [value for found in machines for _, value in found.latest.values()]
        return sorted(values, key=lambda value: (*_place(value.plant), value.machine, value.tag))

    def ledgers(self, machine: MachineTopic) -> Sequence[Ledger]:
        epochs = self._machines[machine].epochs if machine in self._machines else {}
        return [epoch.ledger(name) for name, epoch in epochs.items()]

    def totals(self) -> Totals:
        events = sum(row.batches for row in self.machines())
        distinct = Counter(reading[:4] for reading in self.readings)
        return Totals(events, len(self.readings), len(self.readings) - len(distinct), len(self._letters))

    def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        newest = sorted(self._letters.values(), key=lambda letter: (letter.last_us, letter.id), reverse=True)
        return newest[:limit]

    def dead_letter(self, letter_id: int) -> DeadLetter:
        for letter in self._letters.values():
            if letter.id == letter_id:
                return letter
        raise StoreError(f"there is no dead letter {letter_id}.")

    def waiting(self) -> Sequence[int]:
        letters = [letter for letter in self._letters.values() if letter.state == "waiting"]
        return [letter.id for letter in sorted(letters, key=lambda letter: (letter.last_us, letter.id))]

    def mark_replayed(self, letter_id: int) -> None:
        letter = self.dead_letter(letter_id)
        key = next(key for key, found in self._letters.items() if found is letter)
        self._letters[key] = replace(letter, state="replayed")

    def receiver_beat(self, listening_since_us: int, now_us: int) -> None:
        self._receiver = (listening_since_us, now_us)

    def receiver(self) -> tuple[int, int] | None:
        return self._receiver

    def close(self) -> None:
        """Nothing to close."""


def _place(plant: Plant) -> tuple[str, str, str]:
    return (plant.tenant, plant.province, plant.plant)


def _leaving(letter: DeadLetter) -> tuple[bool, int, int]:
    """Sorts the letters that go first to the front: the replayed, then the oldest."""
    return (letter.state == "waiting", letter.last_us, letter.id)
