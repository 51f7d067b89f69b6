"""A database that somebody else holds on to, or puts back from a backup."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path

from tests.faults.line import Line
from tests.faults.oracle import Verdict
from tests.faults.stage import Row, Stage


async def locked(stage: Stage) -> Verdict:
    """Another program keeps a transaction open on the receiver's database, and does something with it, or nothing."""
    async with stage.line() as line:
        for _ in range(stage.count):
            connection = await asyncio.to_thread(lock_store, line)
            await line.pause(0.3, 6.0)
            if line.rng.random() < 0.2:
                await asyncio.to_thread(line.receiver.kill)
                line.receiver.start()
                await line.pause(0.5, 2.0)
            connection.close()
            line.injections += 1
            await line.recovers("after the database was locked")
        return await stage.verdict(line)


def lock_store(line: Line) -> sqlite3.Connection:
    """A transaction on the receiver's database, open until the connection is closed."""
    connection = sqlite3.connect(line.store.path, timeout=30, isolation_level=None, check_same_thread=False)
    connection.execute(line.rng.choice(["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"]))
    if line.rng.random() < 0.5:
        connection.execute("UPDATE tenants SET name = name")
    return connection


async def put_back(stage: Stage) -> Verdict:
    """The database is put back from a backup: the receiver asks for the difference, and the gateways still have it."""
    async with stage.line() as line:
        backup = stage.folder / "backup"
        for _ in range(stage.count):
            await asyncio.to_thread(line.receiver.kill)
            await asyncio.to_thread(_copy, line.store.path.parent, backup)
            line.receiver.start()
            await line.flows("after the backup was made")
            await line.pause(0, 4)
            await asyncio.to_thread(line.receiver.kill)
            await asyncio.to_thread(_copy, backup, line.store.path.parent)
            line.store.forget()
            line.receiver.start()
            line.injections += 1
            await line.recovers("after the database was put back")
            await line.drained(120)
        return await stage.verdict(line)


def _copy(source: Path, target: Path) -> None:
    """The database with its log, and nothing else; what was in the target is gone."""
    target.mkdir(exist_ok=True)
    for old in target.glob("cloud.db*"):
        old.unlink()
    for file in source.glob("cloud.db*"):
        if not file.name.endswith("-shm"):
            shutil.copyfile(file, target / file.name)


ROWS = (
    Row("store-locked", "another program locks the database", locked, 25, 0, exits=True),
    Row("store-put-back", "an older copy of the database takes the place of the new", put_back, 12, 0),
)
