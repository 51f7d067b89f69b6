"""SQLite's log, read by hand: against SQLite itself, and against anything."""

from __future__ import annotations

import sqlite3
import struct
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.outbox.wal import pages

PAGE = 4096


def written(transactions: list[list[bytes]]) -> tuple[bytes, bytes, bytes]:
    """(the database file before, its log, the file with the log in it)."""
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        path = Path(folder) / "some.db"
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE t (value BLOB)")
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        before = path.read_bytes()
        for values in transactions:
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
            connection.execute("COMMIT")
        log = path.with_name("some.db-wal").read_bytes()
        connection.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
        after = path.read_bytes()
        connection.close()
    return before, log, after


def over(file: bytes, found: dict[int, bytes]) -> bytes:
    size = max([len(file), *(number * PAGE for number in found)])
    content = bytearray(file.ljust(size, b"\0"))
    for number, page in found.items():
        content[(number - 1) * PAGE : number * PAGE] = page
    return bytes(content)


@given(st.lists(st.lists(st.binary(min_size=1, max_size=9000), min_size=1, max_size=4), min_size=1, max_size=4))
def test_the_pages_are_those_that_sqlite_finds(transactions: list[list[bytes]]) -> None:
    before, log, after = written(transactions)
    assert over(before, pages(log)) == after


def test_a_transaction_that_was_never_finished_is_not_there() -> None:
    before, log, after = written([[b"a" * 9000], [b"b" * 9000]])
    frames = range(32, len(log) - PAGE, PAGE + 24)
    ends = [at for at in frames if struct.unpack_from(">I", log, at + 4)[0]]
    assert len(ends) >= 2
    cut = log[: ends[-1]]
    assert over(before, pages(cut)) == over(before, pages(log[: ends[-2] + 24 + PAGE])) != after


@given(st.binary(max_size=200), st.integers(0, 9000), st.integers(0, 255))
def test_whatever_the_log_is_it_is_read(junk: bytes, at: int, byte: int) -> None:
    assert pages(junk) == {}
    _, log, _ = LOG
    damaged = log[:at] + bytes([byte]) + log[at + 1 :]
    assert all(len(page) == PAGE for page in pages(damaged).values())


LOG = written([[b"a" * 100], [b"b" * 5000]])
