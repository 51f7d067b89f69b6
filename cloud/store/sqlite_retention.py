"""Throwing away what is over the retention: a little at a time, so that no commit waits long.

Readings go by when they were stored, which the marks tell: a sender's clock may say anything. The ledger stays.
"""

from __future__ import annotations

import sqlite3

from cloud.store.contract import Retention

DAY_US = 86_400_000_000
MARK_US = 3_600_000_000
"""Readings are marked every hour, so they stay up to an hour longer than they must."""

STEP_ROWS = 5_000


def mark(connection: sqlite3.Connection, now_us: int) -> None:
    """Note once an hour up to which row the readings were stored by now."""
    ((last_us,),) = connection.execute("SELECT max(received_us) FROM readings_marks")
    if last_us is not None and 0 <= now_us - last_us < MARK_US:
        return
    ((last_rowid,),) = connection.execute("SELECT max(rowid) FROM readings")
    if last_rowid is not None:
        connection.execute(
            "INSERT INTO readings_marks (last_rowid, received_us) VALUES (?1, ?2) ON CONFLICT (last_rowid) DO NOTHING",
            (last_rowid, now_us),
        )


def step(connection: sqlite3.Connection, retention: Retention, now_us: int) -> bool:
    """Whether there may be more."""
    if retention.days is None:
        return False
    before_us = now_us - int(retention.days * DAY_US)
    return _readings(connection, before_us) or _events(connection, before_us)


def _readings(connection: sqlite3.Connection, before_us: int) -> bool:
    row = connection.execute(
        "SELECT last_rowid FROM readings_marks WHERE received_us < ? ORDER BY last_rowid DESC LIMIT 1", (before_us,)
    ).fetchone()
    if row is None:
        return False
    connection.execute(
        "DELETE FROM readings WHERE rowid IN (SELECT rowid FROM readings WHERE rowid <= ? ORDER BY rowid LIMIT ?)",
        (row[0], STEP_ROWS),
    )
    ((left,),) = connection.execute("SELECT EXISTS (SELECT 1 FROM readings WHERE rowid <= ?)", (row[0],))
    if not left:  # in the same transaction: an emptied table counts its rows from 1 again
        connection.execute("DELETE FROM readings_marks WHERE last_rowid <= ?", (row[0],))
        connection.execute("DELETE FROM uncertain_batches WHERE last_rowid <= ?", (row[0],))
    return True


def _events(connection: sqlite3.Connection, before_us: int) -> bool:
    for (epoch_id,) in connection.execute("SELECT id FROM epochs").fetchall():
        gone = connection.execute(
            "DELETE FROM telemetry_events WHERE (epoch_id, seq) IN (SELECT epoch_id, seq FROM telemetry_events"
            " WHERE epoch_id = ? AND received_us < ? ORDER BY received_us LIMIT ?)",
            (epoch_id, before_us, STEP_ROWS),
        )
        if gone.rowcount:
            return True
    return False


def letters(connection: sqlite3.Connection, retention: Retention, now_us: int | None = None) -> int:
    """Throw away dead letters over the bounds: by age where `now_us` is given, then the oldest replayed, then the
    oldest. Returns and notes how many."""
    gone = 0
    if now_us is not None and retention.letters_days is not None:
        before_us = now_us - int(retention.letters_days * DAY_US)
        for state in ("replayed", "waiting"):
            gone += connection.execute(
                "DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE state = ? AND last_us < ?"
                " ORDER BY last_us LIMIT ?)",
                (state, before_us, STEP_ROWS),
            ).rowcount
    ((count, size),) = connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM dead_letters")
    excess, excess_bytes = count - retention.letters_max, size - retention.letters_bytes_max
    if excess > 0 or excess_bytes > 0:
        gone += _oldest(connection, excess, excess_bytes)
    if gone:
        connection.execute("UPDATE receiver SET dead_letters_discarded = dead_letters_discarded + ?", (gone,))
    return gone


def _oldest(connection: sqlite3.Connection, excess: int, excess_bytes: int) -> int:
    leaving = []
    for letter_id, size in connection.execute(
        "SELECT id, size FROM dead_letters ORDER BY state = 'waiting', last_us, id"
    ):
        if excess <= 0 and excess_bytes <= 0:
            break
        leaving.append((letter_id,))
        excess, excess_bytes = excess - 1, excess_bytes - size
    connection.executemany("DELETE FROM dead_letters WHERE id = ?", leaving)
    return len(leaving)
