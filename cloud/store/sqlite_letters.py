"""The dead letters' table: messages that could not be taken, each kept once, and no more than a bound of them."""

from __future__ import annotations

import hashlib
import sqlite3

from cloud.store.contract import DeadLetter
from cloud.store.packing import readable


def put(
    connection: sqlite3.Connection, topic: str, payload: bytes, reason: str, received_us: int, *, newest_only: bool
) -> None:
    """Keep a message, or count it where it is kept already. `newest_only`: keep only the topic's last (a status)."""
    digest = b"" if newest_only else hashlib.blake2b(payload, digest_size=16).digest()
    connection.execute(
        "INSERT INTO dead_letters (topic, digest, reason, first_us, last_us, payload) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (topic, digest) DO UPDATE SET count = count + 1, last_us = max(last_us, excluded.last_us),"
        " reason = excluded.reason, state = 'waiting', payload = excluded.payload",
        (readable(topic), digest, readable(reason), received_us, received_us, payload),
    )


def discard(connection: sqlite3.Connection, count_max: int) -> int:
    """Throw away what is over the bound: the oldest replayed first, then the oldest. Returns and notes how many."""
    excess = int(connection.execute("SELECT count(*) FROM dead_letters").fetchone()[0]) - count_max
    if excess <= 0:
        return 0
    connection.execute(
        "DELETE FROM dead_letters WHERE id IN"
        " (SELECT id FROM dead_letters ORDER BY state = 'waiting', last_us, id LIMIT ?)",
        (excess,),
    )
    connection.execute("UPDATE receiver SET dead_letters_discarded = dead_letters_discarded + ?", (excess,))
    return excess


def newest(connection: sqlite3.Connection, limit: int) -> list[DeadLetter]:
    """The newest first."""
    numbers = connection.execute("SELECT id FROM dead_letters ORDER BY last_us DESC, id DESC LIMIT ?", (limit,))
    found = [one(connection, number) for (number,) in numbers.fetchall()]
    return [letter for letter in found if letter is not None]


def one(connection: sqlite3.Connection, letter_id: int) -> DeadLetter | None:
    """The letter of this number."""
    row = connection.execute(
        "SELECT id, topic, reason, first_us, last_us, count, length(payload), state, payload FROM dead_letters"
        " WHERE id = ?",
        (letter_id,),
    ).fetchone()
    return None if row is None else DeadLetter(*row)


def waiting(connection: sqlite3.Connection) -> list[int]:
    """The numbers of those that were not replayed, the oldest first."""
    rows = connection.execute("SELECT id FROM dead_letters WHERE state = 'waiting' ORDER BY last_us, id")
    return [number for (number,) in rows]


def mark_replayed(connection: sqlite3.Connection, letter_id: int) -> bool:
    """Whether there is one of this number."""
    marked = connection.execute("UPDATE dead_letters SET state = 'replayed' WHERE id = ?", (letter_id,))
    return marked.rowcount == 1
