"""What is asked of the database, each within a transaction that the store has begun."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from cloud import sequence
from cloud.sequence import LATELY_US
from cloud.store import sqlite_gateways
from cloud.store.contract import LatestValue, Ledger, Loss, MachineRow, Told, Totals
from cloud.store.packing import restore
from cloud.store.sqlite_catalog import machine_id, plant_id
from protocols.uplink import ranges
from protocols.uplink.topics import GatewayTopic, MachineTopic, Plant
from protocols.values import ValueType


def plants(connection: sqlite3.Connection) -> list[Plant]:
    """By name."""
    rows = connection.execute("SELECT tenant, province, plant FROM plants_named ORDER BY 1, 2, 3")
    return [Plant(*row) for row in rows]


def machines(connection: sqlite3.Connection) -> list[MachineRow]:
    """By name."""
    rows = connection.execute(
        "SELECT tenant, province, plant, machine, state, gateway, last_event_us, batches, tags FROM machines_named"
        " ORDER BY 1, 2, 3, 4"
    )
    return [MachineRow(Plant(*row[:3]), *row[3:]) for row in rows]


def latest(connection: sqlite3.Connection, machine: MachineTopic | None) -> list[LatestValue]:
    """One per tag, by name. A tag whose type has changed has several series: the newest reading of them all."""
    if machine is None:
        rows = connection.execute("SELECT * FROM latest_named ORDER BY tenant, province, plant, machine, tag")
    else:
        found = machine_id(connection, machine)
        rows = connection.execute("SELECT * FROM latest_named WHERE machine_id = ? ORDER BY tag", (found,))
    return [
        LatestValue(
            plant=Plant(tenant, province, plant),
            machine=name,
            tag=tag,
            unit=unit,
            value=restore(ValueType(value_type), value),
            quality=quality,
            reason=reason,
            time_us=time_us,
            time_certain=bool(certain),
        )
        for _, tenant, province, plant, name, _, tag, value_type, unit, time_us, value, quality, reason, certain in rows
    ]


_LEDGER = (
    "epochs.id, epoch, known, given, sent, coalesce(named_us = status_us, 0), readings_ever, vouched,"
    " coalesce(stored_us >= status_us, 0) FROM epochs"
    " JOIN machines ON machines.id = machine_id"
    " LEFT JOIN gateways ON gateways.plant_id = machines.plant_id AND gateways.name = epochs.gateway"
)


def ledgers(connection: sqlite3.Connection, machine: MachineTopic) -> list[Ledger]:
    """In the order of the epochs' first appearance."""
    rows = connection.execute(
        f"SELECT {_LEDGER} WHERE machine_id = ? ORDER BY epochs.id",  # our own text
        (machine_id(connection, machine),),
    ).fetchall()
    return [_ledger(connection, *row) for row in rows]


def _ledger(
    connection: sqlite3.Connection,
    epoch_id: int,
    epoch: str,
    known: int,
    given: int,
    sent: int,
    named: int,
    readings: int,
    vouched: int,
    awaited: int,
) -> Ledger:
    stored: list[ranges.Range] = []
    dropped: list[ranges.Range] = []
    for first, last, reason in connection.execute(
        "SELECT first, last, dropped FROM sequence_ledger WHERE epoch_id = ? ORDER BY first", (epoch_id,)
    ):
        (stored if reason is None else dropped).append((first, last))
    lost = ranges.union(dropped, ())  # neighbours may differ in their reason
    return Ledger(epoch, tuple(stored), lost, known, given, sent, bool(named), readings, vouched, bool(awaited))


def losses(connection: sqlite3.Connection, machine: MachineTopic, epoch: str) -> list[Loss]:
    """Ascending."""
    rows = connection.execute(
        "SELECT first, last, dropped FROM sequence_ledger WHERE dropped IS NOT NULL AND epoch_id ="
        " (SELECT id FROM epochs WHERE machine_id = ? AND epoch = ?) ORDER BY first",
        (machine_id(connection, machine), epoch),
    )
    return [Loss(*row) for row in rows]


def first_since(connection: sqlite3.Connection, machine: MachineTopic, epoch: str, since_us: int) -> int | None:
    """The number of the first live event from then on."""
    row = connection.execute(
        "SELECT seq FROM telemetry_events WHERE received_us >= ? AND NOT historical AND epoch_id ="
        " (SELECT id FROM epochs WHERE machine_id = ? AND epoch = ?) ORDER BY received_us, seq LIMIT 1",
        (since_us, machine_id(connection, machine), epoch),
    ).fetchone()
    return None if row is None else int(row[0])


_NAMED = (
    "named (machine, epoch) AS ("
    "SELECT one.key, json_extract(status, '$.epoch') FROM gateways, json_each(status, '$.machines') AS one"
    " WHERE plant_id = ?1 AND name = ?2"
    " UNION SELECT one.key, other.key FROM gateways, json_each(status, '$.others') AS one,"
    " json_each(one.value) AS other WHERE plant_id = ?1 AND name = ?2)"
)
_SENDS = (
    "own (id, is_named) AS ("
    "SELECT id, max(is_named) FROM ("
    "SELECT epochs.id AS id, 0 AS is_named FROM epochs JOIN machines ON machines.id = machine_id"
    " WHERE machines.plant_id = ?1 AND epochs.gateway = ?2"
    " UNION ALL SELECT epochs.id, 1 FROM named CROSS JOIN machines ON plant_id = ?1 AND name = named.machine"
    " CROSS JOIN epochs ON machine_id = machines.id AND epochs.epoch = named.epoch) GROUP BY id)"
)
"""What a gateway sends in: the epochs that are its own, and those that its last status names. (SQLite takes the parts
of a CROSS JOIN in their order: from the few that are named.)"""


def confirm(connection: sqlite3.Connection, gateway: GatewayTopic) -> Told:
    """See the contract. `Lately` is reckoned from what was stored last: no clock takes part."""
    plant = plant_id(connection, gateway.plant)
    said = connection.execute(
        "SELECT json_extract(status, '$.epoch'), json_extract(status, '$.health.buffer.oldestSec') FROM gateways"
        " WHERE plant_id = ? AND name = ?",
        (plant, gateway.thing),
    ).fetchone()
    present, oldest_s = said or ("", None)
    rows = connection.execute(
        f"WITH {_NAMED}, {_SENDS} SELECT machines.name, stored_us, is_named, {_LEDGER}"  # our own text
        " JOIN own ON own.id = epochs.id ORDER BY epochs.id DESC",
        (plant, gateway.thing),
    ).fetchall()
    last_us = max((stored_us for _, stored_us, *_ in rows if stored_us), default=0)
    lanes = []
    for name, stored_us, is_named, *row in rows:
        ledger = _ledger(connection, *row)
        lately = bool(stored_us) and last_us - stored_us <= LATELY_US
        lanes.append(sequence.Lane(name, replace(ledger, named=ledger.named or bool(is_named)), lately))
    return sequence.told(lanes, present or "", oldest_s, sqlite_gateways.speaking(connection, gateway))


def totals(connection: sqlite3.Connection) -> Totals:
    """Counted from the rows themselves, so that it is a proof: it reads the whole index, 0.2 s per million readings."""
    (row,) = connection.execute(
        "SELECT (SELECT count(*) FROM telemetry_events), (SELECT count(*) FROM readings),"
        " (SELECT count(*) FROM readings) - (SELECT count(*) FROM (SELECT DISTINCT time, series_id FROM readings)),"
        " (SELECT count(*) FROM dead_letters)"
    )
    return Totals(*row)


def definition(connection: sqlite3.Connection, machine: MachineTopic, ref: bytes) -> bytes | None:
    found = connection.execute(
        "SELECT message FROM definitions JOIN machines_named USING (machine_id)"
        " WHERE tenant = ? AND province = ? AND plant = ? AND machine = ? AND ref = ?",
        (machine.plant.tenant, machine.plant.province, machine.plant.plant, machine.machine, ref),
    ).fetchone()
    return None if found is None else bytes(found[0])
