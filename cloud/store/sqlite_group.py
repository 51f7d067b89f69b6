"""One group of messages going into the database, within one transaction that the store has begun.

Readings, the latest values and the ledger's ranges are written once for the whole group.
The key of every batch is checked against what is there, the group's own batches included.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from cloud.store import sqlite_clock, sqlite_gateways, sqlite_letters, sqlite_retention
from cloud.store.contract import Beat, Committed, Defined, Item, Number, Retention, Telemetry, Undecodable, Undefined
from cloud.store.packing import UNKNOWN_US, Packed, Sheet, Unfit, pack
from cloud.store.sqlite_catalog import Catalog, Epoch, Machine
from cloud.store.sqlite_clock import Timing
from cloud.store.sqlite_ledger import Numbers
from cloud.store.sqlite_readings import Readings
from protocols.uplink.status import TIMESTAMP_MS_MAX
from protocols.uplink.topics import Plant


class Group:
    """Takes items one by one, in the order of receipt; `finish` writes what was put together."""

    def __init__(self, connection: sqlite3.Connection, catalog: Catalog, future_tolerance_us: int) -> None:
        self._connection = connection
        self._catalog = catalog
        self._future_tolerance_us = future_tolerance_us
        self._readings = Readings(connection, catalog)
        self._numbers = Numbers(connection, catalog)
        self._events: dict[int, list[Telemetry]] = {}
        self._letters = 0

    def take(self, item: Item) -> Committed:
        """What becomes of the item."""
        match item:
            case Telemetry():
                return self._telemetry(item)
            case Beat():
                return self._beat(item)
            case Defined():
                return self._defined(item)
            case Undefined():
                if self._catalog.plant(self._connection, item.topic.plant) is not None:
                    return Committed.ASKED
                return self._unknown(item, item.topic.plant)
            case Undecodable():
                return self._undecodable(item)

    def finish(self, retention: Retention) -> int:
        """Write what is left to write. Returns how many dead letters had to make room."""
        self._readings.write()
        self._numbers.write()
        self._write_machines()
        return sqlite_retention.letters(self._connection, retention) if self._letters else 0

    # --- telemetry ---

    def _telemetry(self, item: Telemetry) -> Committed:
        batch = item.batch
        plant_id = self._catalog.plant(self._connection, item.topic.plant)
        if plant_id is None:
            return self._unknown(item, item.topic.plant)
        timing = sqlite_clock.timing(self._connection, item, plant_id)
        try:
            parts = pack(batch, self._latest_us(item, timing), timing.shift_us or 0)
        except Unfit as error:
            letter = self._dead(item, str(error))
            machine = self._catalog.machine(self._connection, item.topic, plant_id)
            epoch = self._catalog.epoch(self._connection, machine, batch.epoch, batch.gateway)
            self._numbers.lose(epoch, batch.seq, batch.seq, f"dead letter {letter}: {error}")
            return Committed.DEAD
        machine = self._catalog.machine(self._connection, item.topic, plant_id)
        before = self._before(machine.epochs.get(batch.epoch), item)
        if before is Committed.CONFLICT:
            self._dead(item, f"number {batch.seq} of epoch {batch.epoch!r} is stored already with other content")
        if before is not None:
            return before
        span_id = sqlite_clock.note(self._connection, item, timing, plant_id)
        self._store(item, machine, parts, timing, span_id)
        return Committed.NEW

    def _latest_us(self, item: Telemetry, timing: Timing) -> int:
        """Beyond this a time is from the future. Of a clock that nobody vouches for, that cannot be told."""
        return UNKNOWN_US if timing.is_uncertain else item.received_us + self._future_tolerance_us

    def _store(
        self, item: Telemetry, machine: Machine, parts: Sequence[Sheet | Packed], timing: Timing, span_id: int | None
    ) -> None:
        batch = item.batch
        epoch = self._catalog.epoch(self._connection, machine, batch.epoch, batch.gateway)
        readings = batch.readings()
        self._connection.execute(
            "INSERT INTO telemetry_events (epoch_id, seq, digest, received_us, readings, bytes, historical, span_id,"
            " shift_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(epoch.id, batch.seq, item.digest, item.received_us, readings, len(item.payload)),
                *(int(item.historical), span_id, timing.shift_us),
            ),
        )
        self._numbers.store(epoch, batch.seq, readings, item.received_us)
        self._events.setdefault(machine.id, []).append(item)
        if span_id is None or timing.mark is None or not timing.is_uncertain:
            self._readings.add(machine, parts, epoch.id, batch.seq)
        else:
            apart = self._readings.add_apart(machine, parts, epoch.id, batch.seq)
            sqlite_clock.hold(self._connection, span_id, item, timing.mark, epoch.id, *apart)

    def _before(self, epoch: Epoch | None, item: Telemetry) -> Committed | None:
        """Whether the number is stored; by the ledger where the event itself is no longer kept."""
        if epoch is None:
            return None
        event = self._connection.execute(
            "SELECT digest FROM telemetry_events WHERE epoch_id = ? AND seq = ?", (epoch.id, item.batch.seq)
        ).fetchone()
        if event is not None:
            return Committed.DUPLICATE if event[0] == item.digest else Committed.CONFLICT
        return Committed.DUPLICATE if self._numbers.is_stored(epoch, item.batch.seq) else None

    # --- a definition, a gateway's status ---

    def _defined(self, item: Defined) -> Committed:
        plant_id = self._catalog.plant(self._connection, item.topic.machine.plant)
        if plant_id is None:
            return self._unknown(item, item.topic.machine.plant)
        machine = self._catalog.machine(self._connection, item.topic.machine, plant_id)
        self._connection.execute(
            "INSERT INTO definitions (machine_id, ref, message, received_us) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (machine.id, item.ref, item.payload, item.received_us),
        )
        return Committed.DEFINED

    def _beat(self, item: Beat) -> Committed:
        plant_id = self._catalog.plant(self._connection, item.topic.plant)
        if plant_id is None:
            return self._unknown(item, item.topic.plant)
        if not 0 <= item.status.timestamp <= TIMESTAMP_MS_MAX:
            self._dead(item, "timestamp is not milliseconds since 1970")
            return Committed.DEAD
        taken = sqlite_gateways.take(self._connection, item, plant_id)
        self._numbers.say(item, plant_id, taken.before, history=taken.is_history)
        sqlite_clock.tell(self._connection, item, plant_id, self._future_tolerance_us)
        return Committed.BEAT

    # --- what cannot be taken ---

    def _undecodable(self, item: Undecodable) -> Committed:
        letter = self._dead(item, item.reason)
        if item.number is not None:
            self._account(item.number, f"dead letter {letter}: {item.reason}")
        return Committed.DEAD

    def _account(self, number: Number, reason: str) -> None:
        """Nobody is to wait for it, if its gateway has said that it exists: anybody else's word is not enough."""
        plant_id = self._catalog.plant(self._connection, number.machine.plant)
        if plant_id is None:
            return
        machine = self._catalog.find_machine(self._connection, number.machine, plant_id)
        epoch = machine.epochs.get(number.epoch) if machine is not None else None
        if epoch is not None and self._numbers.exists(epoch, number.seq):
            self._numbers.lose(epoch, number.seq, number.seq, reason)

    def _unknown(self, item: Item, plant: Plant) -> Committed:
        self._dead(item, f"no plant {plant} is known; add its tenant and plant, then replay this message")
        return Committed.UNKNOWN

    def _dead(self, item: Item, reason: str) -> int:
        """The dead letter's number."""
        self._letters += 1
        newest_only = isinstance(item, Beat)
        return sqlite_letters.put(
            self._connection, _topic(item), item.payload, reason, item.received_us, newest_only=newest_only
        )

    def _write_machines(self) -> None:
        for machine_id, items in self._events.items():
            gateway = next((item.batch.gateway for item in reversed(items) if item.batch.gateway), None)
            self._connection.execute(
                "UPDATE machines SET batches = batches + ?1, gateway = coalesce(?2, gateway),"
                " last_event_us = max(coalesce(last_event_us, ?3), ?3) WHERE id = ?4",
                (len(items), gateway, max(item.received_us for item in items), machine_id),
            )


def _topic(item: Item) -> str:
    match item:
        case Telemetry() | Undefined():
            return item.topic.telemetry
        case Beat():
            return item.topic.status
        case Defined():
            return item.topic.definition
    return item.topic
