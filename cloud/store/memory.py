"""The store in plain Python: for tests and simulations. What it holds is gone with the process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cloud import sequence, speakers, write_off
from cloud.sequence import Fall, Span, fall, given, overlay, said
from cloud.store.contract import (
    Beat,
    ClockSpan,
    Committed,
    DeadLetter,
    Defined,
    GatewayEvent,
    GatewayRow,
    Item,
    LatestValue,
    Ledger,
    Loss,
    MachineRow,
    Number,
    Retention,
    StoreError,
    Telemetry,
    Told,
    Totals,
    Undecodable,
    Undefined,
)
from cloud.store.memory_clock import Reading, Spans, newest_of
from cloud.store.memory_rows import Epoch, Gateway, Machine, Ranked
from cloud.store.packing import UNKNOWN_US, Packed, Unfit, columns, pack, readable, restore
from protocols.program.logs import get_logger
from protocols.uplink import ranges
from protocols.uplink.presence import Heard, Presence, came, hear, is_history, presence
from protocols.uplink.status import SILENCE_S, TIMESTAMP_MS_MAX
from protocols.uplink.topics import GatewayTopic, MachineTopic, Plant

_log = get_logger(part="store")


class MemoryStore:
    """A Store (cloud/store/contract.py). Never away."""

    def __init__(self, *, future_tolerance_s: float = 300.0, retention: Retention = Retention()) -> None:  # noqa: B008  # frozen
        self._future_tolerance_us = int(future_tolerance_s * 1_000_000)
        self._retention = retention
        self._tenants: set[str] = set()
        self._plants: set[Plant] = set()
        self._machines: dict[MachineTopic, Machine] = {}
        self._gateways: dict[GatewayTopic, Gateway] = {}
        self._letters: dict[tuple[str, bytes], tuple[DeadLetter, bytes]] = {}
        self._letter_id = 0
        self._definitions: dict[tuple[MachineTopic, bytes], bytes] = {}
        self._receiver: tuple[int, int] | None = None
        self.readings: list[Reading] = []
        self._spans = Spans(self.readings)

    def commit(self, items: Sequence[Item]) -> Sequence[Committed]:
        outcomes = [self._take(item) for item in items]
        self._discard()
        return outcomes

    def _take(self, item: Item) -> Committed:
        if isinstance(item, Undecodable):
            letter = self._dead(item, item.topic, item.reason)
            self._account(item.number, f"dead letter {letter}: {item.reason}")
            return Committed.DEAD
        topic, plant = _where(item)
        if plant not in self._plants:
            self._dead(item, topic, f"no plant {plant} is known; add its tenant and plant, then replay this message")
            return Committed.UNKNOWN
        if isinstance(item, Undefined):
            return Committed.ASKED
        if isinstance(item, Defined):
            self._machines.setdefault(item.topic.machine, Machine())
            self._definitions.setdefault((item.topic.machine, item.ref), item.payload)
            return Committed.DEFINED
        if isinstance(item, Telemetry):
            return self._telemetry(item, topic)
        if not 0 <= item.status.timestamp <= TIMESTAMP_MS_MAX:
            self._dead(item, topic, "timestamp is not milliseconds since 1970")
            return Committed.DEAD
        return self._beat(item)

    def _telemetry(self, item: Telemetry, topic: str) -> Committed:
        batch, shift_us = item.batch, self._spans.shift_us(item)
        try:
            latest_us = UNKNOWN_US if shift_us is None else item.received_us + self._future_tolerance_us
            parts = columns(pack(batch, latest_us, shift_us or 0))
        except Unfit as error:
            letter = self._dead(item, topic, str(error))
            epoch = self._epoch(self._machines.setdefault(item.topic, Machine()), batch.epoch)
            epoch.sent_by(batch.gateway)
            epoch.lose(batch.seq, batch.seq, f"dead letter {letter}: {error}")
            return Committed.DEAD
        machine = self._machines.setdefault(item.topic, Machine())
        digests = machine.epochs[batch.epoch].digests if batch.epoch in machine.epochs else {}
        if batch.seq in digests:
            if digests[batch.seq] == item.digest:
                return Committed.DUPLICATE
            self._dead(item, topic, f"number {batch.seq} of epoch {batch.epoch!r} is stored already with other content")
            return Committed.CONFLICT
        first = len(self.readings)
        newest = self._store(item, machine, parts)
        self._spans.note(item, first, newest, is_corrected=shift_us is not None)
        if shift_us is not None:
            self._compete(machine, newest)
        return Committed.NEW

    def _store(self, item: Telemetry, machine: Machine, parts: Iterable[Packed]) -> list[Ranked]:
        """Returns what may become the latest values."""
        batch = item.batch
        epoch = self._epoch(machine, batch.epoch)
        epoch.sent_by(batch.gateway)
        epoch.digests[batch.seq] = item.digest
        epoch.known = max(epoch.known, batch.seq)
        epoch.stored_us = max(epoch.stored_us or 0, item.received_us)
        epoch.readings += batch.readings()
        if not item.historical:
            epoch.live.append((item.received_us, batch.seq))
        machine.gateway = batch.gateway or machine.gateway
        machine.last_event_us = max(machine.last_event_us or item.received_us, item.received_us)
        newest: list[Ranked] = []
        for one in parts:
            machine.tags.add(one.tag)
            rows = zip(one.times_us, one.values, one.quality, strict=True)
            self.readings.extend((item.topic, one.tag, one.type, *row) for row in rows)
            if one.newest is None:
                continue
            order = (one.times_us[one.newest], epoch.order, batch.seq)
            value, quality = restore(one.type, one.values[one.newest]), one.quality[one.newest]
            found = LatestValue(
                item.topic.plant, item.topic.machine, one.tag, one.unit, value, quality, one.reason, order[0]
            )
            newest.append((order, found))
        return newest

    @staticmethod
    def _compete(machine: Machine, newest: Iterable[Ranked]) -> None:
        for order, found in newest:
            if found.tag not in machine.latest or order >= machine.latest[found.tag][0]:
                machine.latest[found.tag] = (order, found)

    def _epoch(self, machine: Machine, name: str) -> Epoch:
        return machine.epochs.setdefault(name, Epoch(len(machine.epochs), ""))

    def _account(self, number: Number | None, reason: str) -> None:
        if number is None or number.machine not in self._machines:
            return
        epoch = self._machines[number.machine].epochs.get(number.epoch)
        if epoch is not None and number.seq <= max(epoch.given, epoch.known):
            epoch.lose(number.seq, number.seq, reason)

    def _beat(self, item: Beat) -> Committed:
        gateway = self._gateways.setdefault(item.topic, Gateway())
        history = is_history(gateway.heard, item.status, retained=item.retained)
        before = gateway.heard
        gateway.heard = hear(before, item.status, retained=item.retained, received_us=item.received_us)
        if item.status.gateway is not None and not history:
            gateway.status_us = item.received_us
        if item.status.state == "online" and not item.retained:
            gateway.speakers, news = speakers.heard(
                gateway.speakers, item.status.instance, item.status.host, item.received_us
            )
            for one in news:
                gateway.note(item.received_us, one.event, one.detail)
        self._note_presence(gateway, before, item.received_us)
        for name, epoch_name, numbers in said(item.status):
            topic = MachineTopic(item.topic.plant, name)
            if history and epoch_name not in self._machines.get(topic, Machine()).epochs:
                continue
            epoch = self._epoch(self._machines.setdefault(topic, Machine()), epoch_name)
            for first, last, reason in numbers.dropped:
                if last >= max(first, 1):
                    epoch.lose(max(first, 1), last, reason)
            epoch.known = max(epoch.known, numbers.sent_seq, numbers.sent_highest)
            epoch.given = max(epoch.given, given(numbers))
            epoch.sent = max(epoch.sent, numbers.sent_seq)
            if not history:
                epoch.gateway = item.topic.thing
                fallen = Fall.NONE if gateway.speakers.fenced else fall(before.status, item.status, name, epoch_name)
                epoch.name(item.received_us, given(numbers), fallen)
        for topic, ranked in self._spans.tell(item.topic, item.status, item.received_us):
            if 0 <= ranked[1].time_us <= item.received_us + self._future_tolerance_us:
                self._compete(self._machines[topic], [ranked])
        return Committed.BEAT

    @staticmethod
    def _note_presence(gateway: Gateway, before: Heard, now_us: int) -> None:
        heard = gateway.heard
        if not heard.ended and heard.alive_us != now_us:
            return
        word = presence(heard, now_us=now_us, listening_since_us=now_us).word
        if word != gateway.noted:
            gateway.note_presence(now_us, word, heard.ended or came(before, gateway.noted, heard))

    def _dead(self, item: Item, topic: str, reason: str) -> int:
        key = (readable(topic), b"" if isinstance(item, Beat) else item.payload)
        if key in self._letters:
            before, _ = self._letters[key]
        else:
            self._letter_id += 1
            before = DeadLetter(self._letter_id, key[0], "", item.received_us, item.received_us, 0, 0, "")
        letter = replace(
            before,
            reason=readable(reason),
            last_us=max(before.last_us, item.received_us),
            count=before.count + 1,
            size=len(item.payload),
            state="waiting",
        )
        self._letters[key] = (letter, item.payload)
        return letter.id

    def _discard(self) -> None:
        order = sorted(self._letters, key=lambda key: _leaving(self._letters[key][0]))
        size = sum(letter.size for letter, _ in self._letters.values())
        gone = 0
        for key in order:
            if len(self._letters) <= self._retention.letters_max and size <= self._retention.letters_bytes_max:
                break
            size -= self._letters.pop(key)[0].size
            gone += 1
        if gone:
            _log.warning("dead letters discarded for room", discarded=gone)

    def confirm(self, gateway: GatewayTopic) -> Told:
        row = self._gateways.get(gateway, Gateway())
        status = row.heard.status
        named = set() if status is None else {(machine, epoch) for machine, epoch, _ in said(status)}
        own = [
            (topic.machine, name, epoch)
            for topic, machine in self._machines.items()
            for name, epoch in machine.epochs.items()
            if topic.plant == gateway.plant and (epoch.gateway == gateway.thing or (topic.machine, name) in named)
        ]
        last_us = max((epoch.stored_us or 0 for _, _, epoch in own), default=0)
        lanes = [
            sequence.Lane(
                machine,
                replace(ledger, named=ledger.named or (machine, name) in named),
                bool(epoch.stored_us) and last_us - (epoch.stored_us or 0) <= sequence.LATELY_US,
            )
            for machine, name, epoch in sorted(own, key=lambda one: -one[2].order)
            for ledger in [epoch.ledger(name, row.status_us)]
        ]
        oldest_s = None if status is None or status.health is None else status.health.buffer.oldest_sec
        return sequence.told(lanes, "" if status is None else status.epoch, oldest_s, row.speakers)

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
        row = self._gateways.setdefault(gateway, Gateway())
        if row.registered:
            raise StoreError(f"gateway {gateway.thing} of plant {gateway.plant} is registered already.")
        row.registered = True

    def accept_gateway(self, gateway: GatewayTopic) -> str:
        row = self._gateways.get(gateway, Gateway())
        fenced = row.speakers.find(row.speakers.fenced)
        if fenced is None:
            raise StoreError(f"gateway {gateway.thing} of plant {gateway.plant}: none of its installations is fenced.")
        row.speakers = speakers.accepted(row.speakers)
        return fenced.host

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
        return [
            GatewayRow(topic.plant, topic.thing, row.registered, row.heard, row.speakers, row.noted_us, *counted)
            for topic, row in rows
            for spans in [self._spans.of(topic)]
            for counted in [(sum(one.batches - one.corrected for one in spans), sum(one.corrected for one in spans))]
        ]

    def spans(self, gateway: GatewayTopic) -> Sequence[ClockSpan]:
        return self._spans.of(gateway)

    def history(self, gateway: GatewayTopic, limit: int = 20) -> Sequence[GatewayEvent]:
        return self._gateways.get(gateway, Gateway()).events[::-1][:limit]

    def latest(self, machine: MachineTopic | None = None) -> Sequence[LatestValue]:
        values = [
            value
            for topic, found in self._machines.items()
            if machine in (None, topic)
            for value in newest_of(found.latest.values(), self._spans.latest(topic))
        ]
        return sorted(values, key=lambda value: (*_place(value.plant), value.machine, value.tag))

    def ledgers(self, machine: MachineTopic) -> Sequence[Ledger]:
        epochs = self._machines[machine].epochs if machine in self._machines else {}
        return [
            epoch.ledger(name, self._gateways.get(GatewayTopic(machine.plant, epoch.gateway), Gateway()).status_us)
            for name, epoch in epochs.items()
        ]

    def losses(self, machine: MachineTopic, epoch: str) -> Sequence[Loss]:
        found = self._machines.get(machine, Machine()).epochs.get(epoch)
        if found is None:
            return []
        spans = found.dropped
        for first, last in ranges.of(found.digests):
            spans = overlay(spans, Span(first, last))
        return [Loss(span.first, span.last, span.dropped) for span in spans if span.dropped is not None]

    def write_off(self, machine: MachineTopic, epoch: str, numbers: Sequence[tuple[int, int]], reason: str) -> int:
        gone = write_off.losses(machine.machine, self.ledgers(machine), epoch, numbers, reason)
        for loss in gone:
            self._machines[machine].epochs[epoch].lose(loss.first, loss.last, loss.reason)
        return sum(loss.last - loss.first + 1 for loss in gone)

    def first_since(self, machine: MachineTopic, epoch: str, since_us: int) -> int | None:
        found = self._machines.get(machine, Machine()).epochs.get(epoch)
        later = [] if found is None else [one for one in found.live if one[0] >= since_us]
        return min(later)[1] if later else None

    def totals(self) -> Totals:
        events = sum(row.batches for row in self.machines())
        distinct = Counter(reading[:4] for reading in self.readings)
        return Totals(events, len(self.readings), len(self.readings) - len(distinct), len(self._letters))

    def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        letters = [letter for letter, _ in self._letters.values()]
        return sorted(letters, key=lambda letter: (letter.last_us, letter.id), reverse=True)[:limit]

    def dead_letter(self, letter_id: int) -> tuple[DeadLetter, bytes]:
        return self._letters[self._key(letter_id)]

    def _key(self, letter_id: int) -> tuple[str, bytes]:
        for key, (letter, _) in self._letters.items():
            if letter.id == letter_id:
                return key
        raise StoreError(f"there is no dead letter {letter_id}.")

    def drop_letter(self, letter_id: int) -> None:
        del self._letters[self._key(letter_id)]

    def waiting(self) -> Sequence[int]:
        letters = [letter for letter, _ in self._letters.values() if letter.state == "waiting"]
        return [letter.id for letter in sorted(letters, key=lambda letter: (letter.last_us, letter.id))]

    def mark_replayed(self, letter_id: int) -> None:
        key = self._key(letter_id)
        letter, payload = self._letters[key]
        self._letters[key] = (replace(letter, state="replayed"), payload)

    def receiver_beat(self, listening_since_us: int, now_us: int) -> None:
        self._receiver = (listening_since_us, now_us)
        silence_us = int(SILENCE_S * 1_000_000)
        if now_us - listening_since_us < silence_us:
            return
        for gateway in self._gateways.values():
            alive_us = gateway.heard.alive_us
            if gateway.noted == Presence.ONLINE.word and alive_us is not None and alive_us < now_us - silence_us:
                since_us = max(alive_us, listening_since_us) + silence_us
                gateway.note_presence(since_us, Presence.SILENT.word, f"no heartbeat for {SILENCE_S:.0f} s")

    def receiver(self) -> tuple[int, int] | None:
        return self._receiver

    def retain(self, retention: Retention) -> None:
        self._retention = retention

    def tend(self, now_us: int) -> bool:
        """Only dead letters go, and nothing is settled: this one is for tests and simulations."""
        if self._retention.letters_days is not None:
            before_us = now_us - int(self._retention.letters_days * 86_400_000_000)
            self._letters = {key: one for key, one in self._letters.items() if one[0].last_us >= before_us}
        return False

    def close(self) -> None:
        """Nothing to close."""


def _place(plant: Plant) -> tuple[str, str, str]:
    return (plant.tenant, plant.province, plant.plant)


def _where(item: Telemetry | Beat | Defined | Undefined) -> tuple[str, Plant]:
    match item:
        case Defined():
            return item.topic.definition, item.topic.machine.plant
        case Beat():
            return item.topic.status, item.topic.plant
    return item.topic.telemetry, item.topic.plant


def _leaving(letter: DeadLetter) -> tuple[bool, int, int]:
    """Sorts the letters that go first to the front: the replayed, then the oldest."""
    return (letter.state == "waiting", letter.last_us, letter.id)
