"""A database that somebody else holds on to."""

from __future__ import annotations

import asyncio
import sqlite3

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


ROWS = (Row("store-locked", "another program locks the database", locked, 25, 0, exits=True),)
