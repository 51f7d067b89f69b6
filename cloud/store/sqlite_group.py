"""One group of messages going into the database, within one transaction that the store has begun.

A batch's readings are written in one statement; the latest values and the ledger's ranges once for the whole group.
The key of every batch is checked against what is there, the group's own batches included.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, repeat

from cloud.sequence import Span, overlay
from cloud.store import sqlite_letters
from cloud.store.contract import Beat, Committed, Defined, Item, Telemetry, Undecodable
from cloud.store.packing import Kept, Packed, Unfit, pack
from cloud.store.sqlite_catalog import Catalog, Epoch, Series
from cloud.store.sqlite_queries import heard_of
from protocols.uplink.batch import SEQ_MAX
from protocols.uplink.presence import hear
from protocols.uplink.ranges import of
from protocols.uplink.status import TIMESTAMP_MS_MAX
from protocols.uplink.topics import MachineTopic


@dataclass(frozen=True, slots=True)
class _Newest:
    """The group's newest reading of a series, at position `at` of `packed`."""

    order: tuple[int, int, int]  # time, epoch by first appearance, seq
    series: Series
    packed: Packed
    at: int


class Group:
    """Takes items one by one, in the order of receipt; `finish` writes what was put together."""

    def __init__(self, connection: sqlite3.Connection, catalog: Catalog, future_tolerance_us: int) -> None:
        self._connection = connection
        self._catalog = catalog
        self._future_tolerance_us = future_tolerance_us
        self._newest: dict[int, _Newest] = {}
        self._stored: dict[int, tuple[Epoch, list[int]]] = {}
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
            case Undecodable():
                return self._dead(item, item.reason, Committed.DEAD)

    def finish(self, dead_letters_max: int) -> int:
        """Write what is left to write. Returns how many dead letters had to make room."""
        self._write_state()
        self._write_ledger()
        self._write_machines()
        return sqlite_letters.discard(self._connection, dead_letters_max) if self._letters else 0

    # --- telemetry ---

    def _telemetry(self, item: Telemetry) -> Committed:
        batch = item.batch
        plant_id = self._catalog.plant(self._connection, item.topic.plant)
        if plant_id is None:
            return self._dead(item, _unknown(item), Committed.UNKNOWN)
        try:
            columns = pack(batch, item.received_us + self._future_tolerance_us)
        except Unfit as error:
            self._account_for_dead(item, plant_id, str(error))
            return self._dead(item, str(error), Committed.DEAD)
        machine = self._catalog.machine(self._connection, item.topic, plant_id)
        before = self._before(machine.epochs.get(batch.epoch), item)
        if before is Committed.CONFLICT:
            reason = f"number {batch.seq} of epoch {batch.epoch!r} is stored already with other content"
            return self._dead(item, reason, Committed.CONFLICT)
        if before is Committed.DUPLICATE:
            return before
        epoch = self._catalog.epoch(self._connection, machine, batch.epoch, batch.gateway)
        self._connection.execute(
            "INSERT INTO telemetry_events (epoch_id, seq, digest, received_us, readings, bytes)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (epoch.id, batch.seq, item.digest, item.received_us, batch.readings(), len(item.payload)),
        )
        self._stored.setdefault(epoch.id, (epoch, []))[1].append(batch.seq)
        self._events.setdefault(machine.id, []).append(item)
        all_series = [self._catalog.series(self._connection, machine, packed) for packed in columns]
        self._connection.executemany(
            "INSERT INTO readings (series_id, time, value, quality) VALUES (?, ?, ?, ?)",
            chain.from_iterable(map(_rows, all_series, columns)),
        )
        for series, packed in zip(all_series, columns, strict=True):
            self._note_newest(series, packed, epoch.id, batch.seq)
        return Committed.NEW

    def _account_for_dead(self, item: Telemetry, plant_id: int, reason: str) -> None:
        """It is kept, if not as readings: its gateway must not wait for it. A replay that succeeds makes it stored."""
        machine = self._catalog.machine(self._connection, item.topic, plant_id)
        epoch = self._catalog.epoch(self._connection, machine, item.batch.epoch, item.batch.gateway)
        self._overlay(epoch.id, Span(item.batch.seq, item.batch.seq, f"dead letter: {reason}"))
        self._know(epoch, item.batch.seq)

    def _before(self, epoch: Epoch | None, item: Telemetry) -> Committed | None:
        """Whether the number is stored; by the ledger where the event itself is no longer kept."""
        if epoch is None:
            return None
        key = (epoch.id, item.batch.seq)
        event = self._connection.execute(
            "SELECT digest FROM telemetry_events WHERE epoch_id = ? AND seq = ?", key
        ).fetchone()
        if event is not None:
            return Committed.DUPLICATE if event[0] == item.digest else Committed.CONFLICT
        span = self._connection.execute(
            "SELECT last, dropped FROM sequence_ledger WHERE epoch_id = ? AND first <= ? ORDER BY first DESC LIMIT 1",
            key,
        ).fetchone()
        return Committed.DUPLICATE if span is not None and span[0] >= item.batch.seq and span[1] is None else None

    def _note_newest(self, series: Series, packed: Packed, epoch_id: int, seq: int) -> None:
        if packed.newest is None:
            return
        order = (packed.times_us[packed.newest], epoch_id, seq)
        before = self._newest.get(series.id)
        if before is None or order >= before.order:
            self._newest[series.id] = _Newest(order, series, packed, packed.newest)

    # --- a definition ---

    def _defined(self, item: Defined) -> Committed:
        plant_id = self._catalog.plant(self._connection, item.topic.machine.plant)
        if plant_id is None:
            return self._dead(item, _unknown(item), Committed.UNKNOWN)
        machine = self._catalog.machine(self._connection, item.topic.machine, plant_id)
        self._connection.execute(
            "INSERT INTO definitions (machine_id, ref, message, received_us) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (machine.id, item.ref, item.payload, item.received_us),
        )
        return Committed.DEFINED

    # --- a gateway's status ---

    def _beat(self, item: Beat) -> Committed:
        plant_id = self._catalog.plant(self._connection, item.topic.plant)
        if plant_id is None:
            return self._dead(item, _unknown(item), Committed.UNKNOWN)
        if not 0 <= item.status.timestamp <= TIMESTAMP_MS_MAX:
            return self._dead(item, "timestamp is not milliseconds since 1970", Committed.DEAD)
        before = heard_of(self._connection, plant_id, item.topic.thing)
        after = hear(before, item.status, retained=item.retained, received_us=item.received_us)
        self._connection.execute(
            "INSERT INTO gateways (plant_id, name, alive_us, session, ended, ended_us, status, skew_us)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (plant_id, name) DO UPDATE SET alive_us = excluded.alive_us,"
            " session = excluded.session, ended = excluded.ended, ended_us = excluded.ended_us,"
            " status = excluded.status, skew_us = excluded.skew_us",
            (
                *(plant_id, item.topic.thing, after.alive_us, after.session, after.ended, after.ended_us),
                *(after.status.encode().decode() if after.status else None, after.skew_us),
            ),
        )
        self._numbers(item, plant_id, history=item.status.session < before.session)
        return Committed.BEAT

    def _numbers(self, item: Beat, plant_id: int, *, history: bool) -> None:
        """What the gateway says of its machines' numbers. They only grow; an old message makes no new epoch."""
        for name, numbers in item.status.machines.items():
            epoch = self._epoch_of_status(item, MachineTopic(item.topic.plant, name), plant_id, history=history)
            if epoch is None:
                continue
            known = numbers.sent_seq
            for first, last, reason in numbers.dropped:
                if last >= max(first, 1):
                    self._overlay(epoch.id, Span(max(first, 1), last, reason))
                    known = max(known, last)
            self._know(epoch, known)

    def _epoch_of_status(self, item: Beat, topic: MachineTopic, plant_id: int, *, history: bool) -> Epoch | None:
        if history:
            machine = self._catalog.find_machine(self._connection, topic, plant_id)
            return None if machine is None else machine.epochs.get(item.status.epoch)
        machine = self._catalog.machine(self._connection, topic, plant_id)
        epoch = machine.epochs.get(item.status.epoch)
        if epoch is not None and epoch.gateway:
            return epoch
        return self._catalog.epoch(self._connection, machine, item.status.epoch, item.topic.thing)

    # --- what is written together ---

    def _write_state(self) -> None:
        self._connection.executemany(
            "INSERT INTO machine_state (series_id, time, epoch_id, seq, value, quality, reason)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (series_id) DO UPDATE SET time = excluded.time,"
            " epoch_id = excluded.epoch_id, seq = excluded.seq, value = excluded.value, quality = excluded.quality,"
            " reason = excluded.reason WHERE (excluded.time, excluded.epoch_id, excluded.seq)"
            " > (machine_state.time, machine_state.epoch_id, machine_state.seq)",
            (
                (new.series.id, *new.order, new.packed.values[new.at], new.packed.quality[new.at], new.packed.reason)
                for new in self._newest.values()
            ),
        )
        for new in self._newest.values():
            if (new.series.device, new.series.unit) != (new.packed.device, new.packed.unit):
                self._rename(new)

    def _rename(self, new: _Newest) -> None:
        """Device and unit follow the newest reading, so that a late backlog does not bring an old unit back."""
        changed = self._connection.execute(
            "UPDATE series SET device = ?, unit = ? WHERE id = ? AND EXISTS (SELECT 1 FROM machine_state"
            " WHERE series_id = series.id AND time = ? AND epoch_id = ? AND seq = ?)",
            (new.packed.device, new.packed.unit, new.series.id, *new.order),
        )
        if changed.rowcount:
            new.series.device, new.series.unit = new.packed.device, new.packed.unit

    def _write_ledger(self) -> None:
        for epoch, numbers in self._stored.values():
            for first, last in of(numbers):
                self._overlay(epoch.id, Span(first, last))
            self._know(epoch, max(numbers))

    def _overlay(self, epoch_id: int, new: Span) -> None:
        """Put one span into the ledger: only the few that it touches are read and written."""
        rows = self._connection.execute(
            "SELECT first, last, dropped FROM sequence_ledger WHERE epoch_id = ?1 AND first <= ?3 AND first >="
            " coalesce((SELECT max(first) FROM sequence_ledger WHERE epoch_id = ?1 AND first < ?2), ?2)"
            " ORDER BY first",
            (epoch_id, new.first, min(new.last, SEQ_MAX - 1) + 1),
        )
        before = dict.fromkeys(Span(*row) for row in rows)
        after = dict.fromkeys(overlay(list(before), new))
        self._connection.executemany(
            "DELETE FROM sequence_ledger WHERE epoch_id = ? AND first = ?",
            [(epoch_id, span.first) for span in before if span not in after],
        )
        self._connection.executemany(
            "INSERT INTO sequence_ledger (epoch_id, first, last, dropped) VALUES (?, ?, ?, ?)",
            [(epoch_id, *span) for span in after if span not in before],
        )

    def _know(self, epoch: Epoch, known: int) -> None:
        if known > epoch.known:
            self._connection.execute("UPDATE epochs SET known = max(known, ?) WHERE id = ?", (known, epoch.id))
            epoch.known = known

    def _write_machines(self) -> None:
        for machine_id, items in self._events.items():
            gateway = next((item.batch.gateway for item in reversed(items) if item.batch.gateway), None)
            self._connection.execute(
                "UPDATE machines SET batches = batches + ?1, gateway = coalesce(?2, gateway),"
                " last_event_us = max(coalesce(last_event_us, ?3), ?3) WHERE id = ?4",
                (len(items), gateway, max(item.received_us for item in items), machine_id),
            )

    def _dead(self, item: Item, reason: str, outcome: Committed) -> Committed:
        topic = _topic(item)
        newest_only = isinstance(item, Beat)
        sqlite_letters.put(self._connection, topic, item.payload, reason, item.received_us, newest_only=newest_only)
        self._letters += 1
        return outcome


def _rows(series: Series, packed: Packed) -> Iterable[tuple[int, int, Kept, int]]:
    series_ids = repeat(series.id, len(packed.values))
    return zip(series_ids, packed.times_us, packed.values, packed.quality, strict=True)


def _topic(item: Item) -> str:
    match item:
        case Telemetry():
            return item.topic.telemetry
        case Beat():
            return item.topic.status
        case Defined():
            return item.topic.definition
    return item.topic


def _unknown(item: Telemetry | Beat | Defined) -> str:
    plant = item.topic.machine.plant if isinstance(item, Defined) else item.topic.plant
    return f"no plant {plant} is known; add its tenant and plant, then replay this message"
