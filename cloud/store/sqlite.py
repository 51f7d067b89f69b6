"""The SQLite store: the embedded default, one file.

Tables: cloud/store/sqlite_schema.py. One caller at a time uses a store; other programs may open the file beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cloud import write_off
from cloud.store import (
    sqlite_clock,
    sqlite_gateways,
    sqlite_ledger,
    sqlite_letters,
    sqlite_queries,
    sqlite_retention,
)
from cloud.store.contract import (
    ClockSpan,
    Committed,
    DeadLetter,
    GatewayEvent,
    GatewayRow,
    Item,
    LatestValue,
    Ledger,
    Loss,
    MachineRow,
    Retention,
    StoreError,
    StoreSettings,
    Told,
    Totals,
)
from cloud.store.sqlite_catalog import Catalog, plant_id
from cloud.store.sqlite_connection import Connection
from cloud.store.sqlite_group import Group
from cloud.store.sqlite_stuck import Stuck
from protocols.program.logs import get_logger
from protocols.uplink.topics import GatewayTopic, MachineTopic, Plant

_log = get_logger(part="store")


class SqliteStore:
    """A Store (cloud/store/contract.py) in the file `path`, made if it does not exist (its directory must)."""

    def __init__(
        self,
        path: Path,
        *,
        future_tolerance_s: float = 300.0,
        retention: Retention = Retention(),  # noqa: B008  # frozen
        busy_timeout_s: float = 5.0,
    ) -> None:
        """`future_tolerance_s`: how far a reading's time may lie in the future and still be the latest value.

        `busy_timeout_s`: how long to wait for another program's transaction before StoreAway.
        """
        self._connection = Connection(path, busy_timeout_s)
        self._catalog = Catalog(version=0)  # SQLite's count begins above
        self._future_tolerance_us = int(future_tolerance_s * 1_000_000)
        self._retention = retention
        self._stuck = Stuck()

    def commit(self, items: Sequence[Item]) -> Sequence[Committed]:
        if not items:
            return []
        catalog, self._catalog = self._catalog, Catalog(version=0)  # after a failure nothing is remembered
        with self._connection.transaction() as connection:
            ((version,),) = connection.execute("PRAGMA data_version")
            if version != catalog.version:  # another program has changed the file
                catalog = Catalog(version)
            group = Group(connection, catalog, self._future_tolerance_us)
            outcomes = [group.take(item) for item in items]
            discarded = group.finish(self._retention)
        self._catalog = catalog
        self._tell(discarded)
        return outcomes

    def _tell(self, discarded: int) -> None:
        if discarded:
            _log.warning("dead letters discarded for room", discarded=discarded)

    def confirm(self, gateway: GatewayTopic) -> Told:
        with self._connection.snapshot() as connection:
            return sqlite_queries.confirm(connection, gateway)

    def definition(self, machine: MachineTopic, ref: bytes) -> bytes | None:
        with self._connection.snapshot() as connection:
            return sqlite_queries.definition(connection, machine, ref)

    def add_tenant(self, tenant: str) -> None:
        with self._connection.transaction() as connection:
            added = connection.execute("INSERT INTO tenants (name) VALUES (?) ON CONFLICT DO NOTHING", (tenant,))
            if not added.rowcount:
                raise StoreError(f"tenant {tenant} exists already.")

    def add_plant(self, plant: Plant) -> None:
        with self._connection.transaction() as connection:
            tenant = connection.execute("SELECT id FROM tenants WHERE name = ?", (plant.tenant,)).fetchone()
            if tenant is None:
                raise StoreError(f"plant {plant}: there is no tenant {plant.tenant}; add it first.")
            added = connection.execute(
                "INSERT INTO plants (tenant_id, province, name) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (tenant[0], plant.province, plant.plant),
            )
            if not added.rowcount:
                raise StoreError(f"plant {plant} exists already.")

    def register_gateway(self, gateway: GatewayTopic) -> None:
        with self._connection.transaction() as connection:
            plant = plant_id(connection, gateway.plant)
            if plant is None:
                raise StoreError(f"gateway {gateway.thing}: there is no plant {gateway.plant}; add it first.")
            changed = connection.execute(
                "INSERT INTO gateways (plant_id, name, registered) VALUES (?, ?, 1)"
                " ON CONFLICT (plant_id, name) DO UPDATE SET registered = 1 WHERE registered = 0",
                (plant, gateway.thing),
            )
            if not changed.rowcount:
                raise StoreError(f"gateway {gateway.thing} of plant {gateway.plant} is registered already.")

    def accept_gateway(self, gateway: GatewayTopic) -> str:
        with self._connection.transaction() as connection:
            return sqlite_gateways.accept(connection, gateway)

    def approve_machine(self, machine: MachineTopic) -> None:
        with self._connection.transaction() as connection:
            changed = connection.execute(
                "UPDATE machines SET state = 'approved' WHERE plant_id = ? AND name = ?",
                (plant_id(connection, machine.plant), machine.machine),
            )
            if not changed.rowcount:
                raise StoreError(f"there is no machine {machine.machine} in plant {machine.plant}.")

    def tenants(self) -> Sequence[str]:
        with self._connection.snapshot() as connection:
            return [name for (name,) in connection.execute("SELECT name FROM tenants ORDER BY name")]

    def plants(self) -> Sequence[Plant]:
        with self._connection.snapshot() as connection:
            return sqlite_queries.plants(connection)

    def machines(self) -> Sequence[MachineRow]:
        with self._connection.snapshot() as connection:
            return sqlite_queries.machines(connection)

    def gateways(self) -> Sequence[GatewayRow]:
        with self._connection.snapshot() as connection:
            return sqlite_gateways.rows(connection)

    def history(self, gateway: GatewayTopic, limit: int = 20) -> Sequence[GatewayEvent]:
        with self._connection.snapshot() as connection:
            return sqlite_gateways.history(connection, gateway, limit)

    def spans(self, gateway: GatewayTopic) -> Sequence[ClockSpan]:
        with self._connection.snapshot() as connection:
            return sqlite_clock.spans(connection, gateway)

    def latest(self, machine: MachineTopic | None = None) -> Sequence[LatestValue]:
        with self._connection.snapshot() as connection:
            return sqlite_queries.latest(connection, machine)

    def ledgers(self, machine: MachineTopic) -> Sequence[Ledger]:
        with self._connection.snapshot() as connection:
            return sqlite_queries.ledgers(connection, machine)

    def losses(self, machine: MachineTopic, epoch: str) -> Sequence[Loss]:
        with self._connection.snapshot() as connection:
            return sqlite_queries.losses(connection, machine, epoch)

    def write_off(self, machine: MachineTopic, epoch: str, numbers: Sequence[tuple[int, int]], reason: str) -> int:
        with self._connection.transaction() as connection:
            ledgers = sqlite_queries.ledgers(connection, machine)
            gone = write_off.losses(machine.machine, ledgers, epoch, numbers, reason)
            for loss in gone:
                sqlite_ledger.declare(connection, machine, epoch, loss)
        return sum(loss.last - loss.first + 1 for loss in gone)

    def first_since(self, machine: MachineTopic, epoch: str, since_us: int) -> int | None:
        with self._connection.snapshot() as connection:
            return sqlite_queries.first_since(connection, machine, epoch, since_us)

    def totals(self) -> Totals:
        with self._connection.snapshot() as connection:
            return sqlite_queries.totals(connection)

    def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        with self._connection.snapshot() as connection:
            return sqlite_letters.newest(connection, limit)

    def dead_letter(self, letter_id: int) -> tuple[DeadLetter, bytes]:
        with self._connection.snapshot() as connection:
            letter = sqlite_letters.one(connection, letter_id)
        if letter is None:
            raise StoreError(f"there is no dead letter {letter_id}.")
        return letter

    def waiting(self) -> Sequence[int]:
        with self._connection.snapshot() as connection:
            return sqlite_letters.waiting(connection)

    def mark_replayed(self, letter_id: int) -> None:
        with self._connection.transaction() as connection:
            if not sqlite_letters.mark_replayed(connection, letter_id):
                raise StoreError(f"there is no dead letter {letter_id}.")

    def drop_letter(self, letter_id: int) -> None:
        with self._connection.transaction() as connection:
            if not sqlite_letters.drop(connection, letter_id):
                raise StoreError(f"there is no dead letter {letter_id}.")

    def receiver_beat(self, listening_since_us: int, now_us: int) -> None:
        with self._connection.transaction() as connection:
            connection.execute("UPDATE receiver SET listening_since_us = ?, now_us = ?", (listening_since_us, now_us))
            sqlite_gateways.note_silent(connection, listening_since_us, now_us)

    def retain(self, retention: Retention) -> None:
        self._retention = retention

    def tend(self, now_us: int) -> bool:
        with self._connection.transaction() as connection:
            sqlite_retention.mark(connection, now_us)
            discarded = sqlite_retention.letters(connection, self._retention, now_us)
            more = sqlite_retention.step(connection, self._retention, now_us)
            more |= sqlite_clock.correct(connection)
            self._stuck.settle(connection, now_us)
        self._tell(discarded)
        return more

    def receiver(self) -> tuple[int, int] | None:
        with self._connection.snapshot() as connection:
            ((listening_since_us, now_us),) = connection.execute("SELECT listening_since_us, now_us FROM receiver")
        return None if listening_since_us is None else (listening_since_us, now_us)

    def close(self) -> None:
        self._connection.close()


class Settings(StoreSettings):
    """The embedded database: one file of SQLite on a local disk."""

    path: Annotated[Path, Field(strict=False)] = Field(
        Path("/var/lib/holdfast-cloud/cloud.db"),
        description="The database file, made if it does not exist; its directory must, on a local disk.",
    )
    future_tolerance_s: float = Field(
        300.0,
        ge=0,
        le=86_400,
        description="How far a reading's time may lie in the future and still be the latest value (seconds).",
    )
    busy_timeout_s: float = Field(
        5.0, gt=0, le=60, description="How long to wait for another program's transaction on the file (seconds)."
    )


def open_store(settings: Settings) -> SqliteStore:
    """The store that the settings describe. Raises StoreError."""
    return SqliteStore(
        settings.path,
        future_tolerance_s=settings.future_tolerance_s,
        retention=settings.retention(),
        busy_timeout_s=settings.busy_timeout_s,
    )
