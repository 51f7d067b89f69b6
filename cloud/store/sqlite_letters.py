"""The dead letters' table: messages that could not be taken, each kept once. Payloads are read only one at a time."""

from __future__ import annotations

import hashlib
import sqlite3

from cloud.store.contract import DeadLetter
from cloud.store.packing import readable

_HEAD = "id, topic, reason, first_us, last_us, count, size, state"


def put(
    connection: sqlite3.Connection, topic: str, payload: bytes, reason: str, received_us: int, *, newest_only: bool
) -> int:
    """Keep a message, or count it where it is kept already; returns its number.

    `newest_only`: keep only the topic's last (a status).
    """
    digest = b"" if newest_only else hashlib.blake2b(payload, digest_size=16).digest()
    ((letter_id,),) = connection.execute(
        "INSERT INTO dead_letters (topic, digest, reason, first_us, last_us, size, payload)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (topic, digest) DO UPDATE SET count = count + 1, last_us = max(last_us, excluded.last_us),"
        " reason = excluded.reason, state = 'waiting', size = excluded.size, payload = excluded.payload RETURNING id",
        (readable(topic), digest, readable(reason), received_us, received_us, len(payload), payload),
    )
    return int(letter_id)


def newest(connection: sqlite3.Connection, limit: int) -> list[DeadLetter]:
    """The newest first."""
    rows = connection.execute(
        f"SELECT {_HEAD} FROM dead_letters ORDER BY last_us DESC, id DESC LIMIT ?",  # noqa: S608  # our own text
        (limit,),
    )
    return [DeadLetter(*row) for row in rows]


def one(connection: sqlite3.Connection, letter_id: int) -> tuple[DeadLetter, bytes] | None:
    """The letter of this number, and its payload."""
    row = connection.execute(
        f"SELECT {_HEAD}, payload FROM dead_letters WHERE id = ?",  # noqa: S608  # our own text
        (letter_id,),
    ).fetchone()
    return None if row is None else (DeadLetter(*row[:-1]), row[-1])


def waiting(connection: sqlite3.Connection) -> list[int]:
    """The numbers of those that were not replayed, the oldest first."""
    rows = connection.execute("SELECT id FROM dead_letters WHERE state = 'waiting' ORDER BY last_us, id")
    return [number for (number,) in rows]


def mark_replayed(connection: sqlite3.Connection, letter_id: int) -> bool:
    """Whether there is one of this number."""
    marked = connection.execute("UPDATE dead_letters SET state = 'replayed' WHERE id = ?", (letter_id,))
    return marked.rowcount == 1


def drop(connection: sqlite3.Connection, letter_id: int) -> bool:
    """Whether there was one of this number."""
    return connection.execute("DELETE FROM dead_letters WHERE id = ?", (letter_id,)).rowcount == 1
