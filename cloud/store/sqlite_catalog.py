"""Which plants, machines, epochs and series there are, as database ids: looked up, made on first sight, remembered.

What is remembered is only valid until a transaction is rolled back or another program changes the file: the store then
starts with an empty catalog again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloud.store.packing import Sheet
from protocols.uplink.topics import MachineTopic, Plant
from protocols.values import ValueType

_SERIES_MAX = 500_000  # more than this is forgotten and looked up anew
_LAYOUTS_MAX = 200  # of one machine, likewise


@dataclass(slots=True)
class Epoch:
    """An epoch's row. The ids rise in the order of first appearance. `named`: by a status of its gateway, ever."""

    id: int
    gateway: str
    known: int
    named: bool


@dataclass(slots=True)
class Series:
    """A series' row: one tag in one type."""

    id: int
    device: str
    unit: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The series of a sheet's tags, in their order."""

    series: Sequence[Series]
    ids: tuple[int, ...]


@dataclass(slots=True)
class Machine:
    """A machine's row with all its epochs by name, its series by tag and type, and its layouts by the sheet's key."""

    id: int
    epochs: dict[str, Epoch] = field(default_factory=dict)
    series: dict[tuple[str, str], Series] = field(default_factory=dict)
    layouts: dict[bytes, Layout] = field(default_factory=dict)


class Catalog:
    """The rows by their names. `version`: SQLite's data_version for which what it remembers is true."""

    def __init__(self, version: int) -> None:
        self.version = version
        self._plants: dict[Plant, int] = {}
        self._machines: dict[MachineTopic, Machine] = {}
        self._series_count = 0

    def plant(self, connection: sqlite3.Connection, plant: Plant) -> int | None:
        """The plant's id; None where no operator has made it."""
        if plant not in self._plants:
            found = plant_id(connection, plant)
            if found is None:
                return None
            self._plants[plant] = found
        return self._plants[plant]

    def machine(self, connection: sqlite3.Connection, topic: MachineTopic, plant: int) -> Machine:
        """The machine of the plant with this id, made as pending where it does not exist."""
        found = self.find_machine(connection, topic, plant)
        if found is None:
            insert = "INSERT INTO machines (plant_id, name) VALUES (?, ?) RETURNING id"
            ((machine_id,),) = connection.execute(insert, (plant, topic.machine))
            found = self._machines[topic] = Machine(machine_id)
        return found

    def find_machine(self, connection: sqlite3.Connection, topic: MachineTopic, plant: int) -> Machine | None:
        """The machine of the plant with this id; None where it does not exist."""
        if topic not in self._machines:
            select = "SELECT id FROM machines WHERE plant_id = ? AND name = ?"
            row = connection.execute(select, (plant, topic.machine)).fetchone()
            if row is None:
                return None
            self._remember(topic, _load(connection, row[0]))
        return self._machines[topic]

    def epoch(
        self, connection: sqlite3.Connection, machine: Machine, name: str, gateway: str, *, named: bool = False
    ) -> Epoch:
        """The machine's epoch, made where it does not exist. `gateway` sends in it: so says its status, if `named`.

        What a batch says counts as long as no status has: batches that wait when a gateway gets another name have the
        old one.
        """
        epoch = machine.epochs.get(name)
        if epoch is None:
            insert = "INSERT INTO epochs (machine_id, epoch, gateway) VALUES (?, ?, ?) RETURNING id"
            ((epoch_id,),) = connection.execute(insert, (machine.id, name, gateway))
            epoch = machine.epochs[name] = Epoch(epoch_id, gateway, 0, named)
        elif gateway and gateway != epoch.gateway and (named or not epoch.named):
            connection.execute("UPDATE epochs SET gateway = ? WHERE id = ?", (gateway, epoch.id))
            epoch.gateway = gateway
        epoch.named = epoch.named or named
        return epoch

    def series(
        self, connection: sqlite3.Connection, machine: Machine, device: str, tag: tuple[str, ValueType, str]
    ) -> Series:
        """The series of the tag (name, type, unit) in this type, made where it does not exist."""
        name, value_type, unit = tag
        series = machine.series.get((name, value_type))
        if series is None:
            ((series_id,),) = connection.execute(
                "INSERT INTO series (machine_id, device, tag, value_type, unit) VALUES (?, ?, ?, ?, ?) RETURNING id",
                (machine.id, device, name, value_type, unit),
            )
            series = machine.series[name, value_type] = Series(series_id, device, unit)
            self._series_count += 1
        return series

    def layout(self, connection: sqlite3.Connection, machine: Machine, sheet: Sheet) -> Layout:
        """The series of the sheet's tags; remembered by its key."""
        layout = machine.layouts.get(sheet.key) if sheet.key else None
        if layout is None:
            series = [self.series(connection, machine, sheet.device, tag) for tag in sheet.tags]
            layout = Layout(series, tuple(one.id for one in series))
            if sheet.key:
                if len(machine.layouts) >= _LAYOUTS_MAX:
                    machine.layouts.clear()
                machine.layouts[sheet.key] = layout
        return layout

    def _remember(self, topic: MachineTopic, machine: Machine) -> None:
        self._series_count += len(machine.series)
        if self._series_count > _SERIES_MAX:
            self._machines.clear()
            self._series_count = len(machine.series)
        self._machines[topic] = machine


def plant_id(connection: sqlite3.Connection, plant: Plant) -> int | None:
    """The plant's id; None where there is none."""
    row = connection.execute(
        "SELECT plants.id FROM plants JOIN tenants ON tenants.id = plants.tenant_id"
        " WHERE tenants.name = ? AND plants.province = ? AND plants.name = ?",
        (plant.tenant, plant.province, plant.plant),
    ).fetchone()
    return None if row is None else int(row[0])


def machine_id(connection: sqlite3.Connection, topic: MachineTopic) -> int | None:
    """The machine's id; None where there is none."""
    row = connection.execute(
        "SELECT id FROM machines WHERE plant_id = ? AND name = ?", (plant_id(connection, topic.plant), topic.machine)
    ).fetchone()
    return None if row is None else int(row[0])


def _load(connection: sqlite3.Connection, machine_id: int) -> Machine:
    epochs = connection.execute(
        "SELECT epoch, id, gateway, known, named_us IS NOT NULL FROM epochs WHERE machine_id = ?", (machine_id,)
    )
    series = connection.execute(
        "SELECT tag, value_type, id, device, unit FROM series WHERE machine_id = ?", (machine_id,)
    )
    return Machine(
        machine_id,
        {name: Epoch(epoch_id, gateway, known, bool(named)) for name, epoch_id, gateway, known, named in epochs},
        {(tag, value_type): Series(*row) for tag, value_type, *row in series},
    )
