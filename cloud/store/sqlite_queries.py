"""What is asked of the database, each within a transaction that the store has begun."""

from __future__ import annotations

import sqlite3

from cloud import sequence
from cloud.store.contract import GatewayRow, LatestValue, Ledger, MachineRow, Totals
from cloud.store.packing import restore
from cloud.store.sqlite_catalog import machine_id, plant_id
from protocols.uplink import ranges
from protocols.uplink.confirm import MachineConfirm
from protocols.uplink.presence import Heard
from protocols.uplink.status import Status
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


def gateways(connection: sqlite3.Connection) -> list[GatewayRow]:
    """By name."""
    rows = connection.execute(
        "SELECT tenant, province, plant, name, registered, alive_us, session, ended, ended_us, status, skew_us"
        " FROM gateways JOIN plants_named USING (plant_id) ORDER BY 1, 2, 3, 4"
    )
    return [GatewayRow(Plant(*row[:3]), row[3], bool(row[4]), _heard(*row[5:])) for row in rows]


def heard_of(connection: sqlite3.Connection, plant: int, thing: str) -> Heard:
    """What is known of the gateway in the plant with this id."""
    row = connection.execute(
        "SELECT alive_us, session, ended, ended_us, status, skew_us FROM gateways WHERE plant_id = ? AND name = ?",
        (plant, thing),
    ).fetchone()
    return Heard() if row is None else _heard(*row)


def _heard(
    alive_us: int | None, session: int, ended: str, ended_us: int | None, status: str | None, skew_us: int | None
) -> Heard:
    said = None if status is None else Status.model_validate_json(status)
    return Heard(alive_us, session, ended, ended_us, said, skew_us)


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
        )
        for _, tenant, province, plant, name, _, tag, value_type, unit, time_us, value, quality, reason in rows
    ]


def ledgers(connection: sqlite3.Connection, machine: MachineTopic) -> list[Ledger]:
    """In the order of the epochs' first appearance."""
    rows = connection.execute(
        "SELECT id, epoch, known FROM epochs WHERE machine_id = ? ORDER BY id", (machine_id(connection, machine),)
    ).fetchall()
    return [_ledger(connection, *row) for row in rows]


def _ledger(connection: sqlite3.Connection, epoch_id: int, epoch: str, known: int) -> Ledger:
    stored: list[ranges.Range] = []
    dropped: list[ranges.Range] = []
    for first, last, reason in connection.execute(
        "SELECT first, last, dropped FROM sequence_ledger WHERE epoch_id = ? ORDER BY first", (epoch_id,)
    ):
        (stored if reason is None else dropped).append((first, last))
    return Ledger(epoch, tuple(stored), ranges.union(dropped, ()), known)  # neighbours may differ in their reason


def confirm(connection: sqlite3.Connection, gateway: GatewayTopic) -> dict[str, MachineConfirm]:
    """Per machine the epoch that the gateway said it is in; where it sent nothing in that one, its newest."""
    plant = plant_id(connection, gateway.plant)
    said = connection.execute(
        "SELECT json_extract(status, '$.epoch') FROM gateways WHERE plant_id = ? AND name = ?", (plant, gateway.thing)
    ).fetchone()
    rows = connection.execute(
        "SELECT name, epochs.id, epoch, known FROM epochs JOIN machines ON machines.id = machine_id"
        " WHERE plant_id = ? AND epochs.gateway = ? ORDER BY (epoch <> '' AND epoch = ?), epochs.id",
        (plant, gateway.thing, (said[0] if said else None) or ""),
    ).fetchall()
    newest = {name: row for name, *row in rows}  # the last of each name stays
    return {name: sequence.confirm(_ledger(connection, *row)) for name, row in sorted(newest.items())}


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
