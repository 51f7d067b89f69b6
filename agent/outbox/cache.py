"""diskcache with the cache taken out: nothing is evicted, every commit is synced, and only bytes go in and out.

Rows are written and read with SQL of our own, on diskcache's connection and table and in its transactions, because a
`get` or `set` a piece costs several statements each. Of the table's columns those that a cache without eviction has no
use for say more about a row: `tag` when the batch was appended, `size` how many readings it holds, and `access_count`
the CRC of key, tag and value, by which a damaged row is recognised; 0: none, as schema 1 wrote it.

Keys: a batch is at `number of the lane << 48 | seq` (2^48 batches are 8,900 years at 1,000 a second). The record of the
whole is at -1, a lane's at -2 - number; definitions are at -2^48 - (number << 48 | reference). See records.py.
"""

from __future__ import annotations

import itertools
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import diskcache

from agent.outbox.contract import GroupDefinition, OutboxError, Stored
from agent.outbox.lane import LaneState
from agent.outbox.records import pack_definition, pack_lane, pack_whole
from agent.outbox.rows import Size, Whole
from protocols.uplink.frames import FrameError, unpack

_NEVER = 1 << 62
_SEQ_BITS = 48
_SEQ = (1 << _SEQ_BITS) - 1
_WHOLE = -1
_LANES = -2
_LANES_END = -2 - (1 << 15)
_DEFINITIONS = -(1 << 48)
_RAW = diskcache.core.MODE_RAW


def _only(kind: str, column: str) -> str:
    """The column where it has this type: Python's sqlite3 raises on a text that damage made of something else."""
    return f"iif(typeof({column}) = '{kind}', {column}, NULL)"


_FIGURES = ", ".join(_only("integer", column) for column in ("tag", "size", "mode", "access_count"))
_VALUE = _only("blob", "value")
_BETWEEN = "FROM Cache WHERE key BETWEEN ? AND ? AND raw = 1"
_READ = f"SELECT key, {_FIGURES}, {_VALUE} {_BETWEEN} ORDER BY key"
_SIZES = f"SELECT key, length(value), {_FIGURES} {_BETWEEN} ORDER BY key LIMIT ?"
SALVAGE = f"""SELECT rowid, {_only("integer", "key")}, {_FIGURES}, iif(? OR key < 0, {_VALUE}, NULL)
    FROM Cache NOT INDEXED WHERE rowid BETWEEN ? AND ? AND raw = 1 ORDER BY rowid"""  # noqa: S608  # of constants
"""With batches or without, from rowid to rowid; not by the index, which may be what is damaged."""


class BytesDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache ships no types
    """Integer keys and bytes values in the database, and nothing else, in both directions."""

    def put(self, key: object) -> tuple[int, bool]:
        if type(key) is not int:
            raise TypeError(f"an outbox key is an integer, not {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: object) -> int:
        if type(key) is not int or not raw:
            raise OutboxError("the outbox holds a key that is not its own; it was not written by this program")
        return key

    def store(self, value: object, read: bool, key: object = None) -> tuple[int, int, None, sqlite3.Binary]:
        if type(value) is not bytes or read:
            raise TypeError(f"an outbox value is bytes, not {type(value).__name__}")
        return 0, _RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: object, value: object, read: bool) -> bytes:
        if mode != _RAW or filename is not None or not isinstance(value, bytes):
            raise OutboxError("the outbox holds a value that is not bytes; it was not written by this program")
        return value


def open_cache(directory: Path) -> Any:
    """Open or make it. Raises sqlite3.Error or diskcache.Timeout."""
    return diskcache.Cache(
        str(directory),
        timeout=10,
        disk=BytesDisk,
        eviction_policy="none",
        cull_limit=0,
        size_limit=_NEVER,
        statistics=0,
        tag_index=0,
        sqlite_journal_mode="wal",
        sqlite_synchronous=2,
        sqlite_auto_vacuum=0,
        sqlite_secure_delete=0,  # Debian's default writes zeros over what is deleted: a log as large again
        sqlite_cache_size=500,
        sqlite_mmap_size=0,
        sqlite_wal_autocheckpoint=250,  # a log of 1 MB, well below the reserve
        disk_min_file_size=_NEVER,
    )


def batch_key(number: int, seq: int) -> int:
    """Where a batch is."""
    return number << _SEQ_BITS | seq


def definition_key(number: int, ref: bytes) -> int:
    """Below every other key. A reference is 6 bytes long; 15 bits are left for the lane."""
    return _DEFINITIONS - (number << _SEQ_BITS | int.from_bytes(ref))


def lane_key(number: int) -> int:
    """Where a lane's record is."""
    return _LANES - number


def crc(key: int, tag: int, value: bytes) -> int:
    """What a row's `access_count` must be."""
    return zlib.crc32(value, zlib.crc32(b"%d %d" % (key, tag))) or 1


class Record(Enum):
    """What a row is."""

    BATCH = "batch"
    WHOLE = "whole"
    LANE = "lane"
    DEFINITION = "definition"


class Row(NamedTuple):
    """A row of the table as it was found: nothing of it is to be trusted before `is_sound`."""

    key: Any
    tag: Any
    size: Any
    mode: Any
    checksum: Any
    value: Any

    def is_sound(self) -> bool:
        """Whether it is as it was written. One of schema 1 has no CRC; its batches are zstd frames."""
        if type(self.key) is not int or self.mode != _RAW or type(self.value) is not bytes:
            return False
        if self.checksum:
            return bool(self.checksum == crc(self.key, self.tag or 0, self.value))
        if self.key < 0:
            return True
        try:
            unpack(self.value)
        except FrameError:
            return False
        return True

    def place(self) -> tuple[Record, int, bytes]:
        """(what it is, its lane's number, a definition's reference)."""
        if self.key >= 0:
            return Record.BATCH, self.key >> _SEQ_BITS, b""
        if self.key > _DEFINITIONS:
            return (Record.WHOLE, 0, b"") if self.key == _WHOLE else (Record.LANE, _LANES - self.key, b"")
        number, ref = divmod(_DEFINITIONS - self.key, 1 << _SEQ_BITS)
        return Record.DEFINITION, number, ref.to_bytes(6)

    def seq(self) -> int:
        """A batch's number."""
        return int(self.key & _SEQ)


class CacheRows:
    """The rows of one database, which it opens or makes. Any method may raise sqlite3.Error or diskcache.Timeout."""

    def __init__(self, directory: Path) -> None:
        self._cache = open_cache(directory)
        self._assured: Any = None  # the connection whose settings are known to hold

    @property
    def sql(self) -> Any:
        """The connection's `execute`."""
        return self._cache._sql

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        self._assure()
        with self._cache.transact():
            yield

    def _assure(self) -> None:
        """diskcache opens a connection anew by itself, and passes over settings that it cannot read then."""
        connection = self._cache._con
        if connection is not self._assured:
            connection.execute("PRAGMA synchronous = 2")
            connection.execute("PRAGMA wal_autocheckpoint = 250").fetchall()
            self._assured = connection

    def end_failed(self) -> None:
        """After a failed COMMIT the transaction is still open. (Closing would delete the log, and others its space.)

        Rolled back it is not there, unless the log is read anew: by whoever opens it after a crash, or after a ROLLBACK
        that failed.
        """
        try:
            if self._cache._con.in_transaction:
                self.sql("ROLLBACK")
        except sqlite3.Error:
            self._cache.close()

    def close(self) -> None:
        """The next call opens it again."""
        self._cache.close()

    def pages(self) -> int:
        """How large the file is, in pages."""
        [(count,)] = self.sql("PRAGMA page_count").fetchall()
        return int(count)

    def cap_pages(self, count: int) -> None:
        """The file must not grow beyond that."""
        self.sql(f"PRAGMA max_page_count = {count}").fetchall()

    def checkpoint(self) -> None:
        """Empty the log into the database."""
        self.sql("PRAGMA wal_checkpoint(RESTART)").fetchall()

    # --- batches ---

    def insert(self, number: int, batch: Stored, readings: int) -> None:
        key = batch_key(number, batch.seq)
        checksum = crc(key, batch.appended_us, batch.payload)
        self.sql(
            "INSERT INTO Cache(key, raw, tag, size, mode, access_count, value) VALUES (?, 1, ?, ?, ?, ?, ?)",
            (key, batch.appended_us, readings, _RAW, checksum, batch.payload),
        )

    def copy(self, row: Row) -> None:
        """A batch's row of another database, as it is."""
        self.insert(row.place()[1], Stored(row.seq(), row.value, row.tag or 0), row.size or 0)

    def read(self, number: int, first: int, last: int) -> list[Stored]:
        found = itertools.starmap(Row, self.sql(_READ, (batch_key(number, first), batch_key(number, last))))
        return [Stored(row.seq(), row.value, row.tag or 0) for row in found if row.is_sound()]

    def sizes(self, number: int, first: int, last: int, count_max: int) -> list[Size]:
        found = self.sql(_SIZES, (batch_key(number, first), batch_key(number, last), count_max))
        return [Size(key & _SEQ, size or 0, readings or 0, tag or 0) for key, size, tag, readings, _, _ in found]

    def measure(self, number: int, first: int, last: int) -> int:
        keys = batch_key(number, first), batch_key(number, last)
        [(size,)] = self.sql(f"SELECT sum(length(value)) {_BETWEEN}", keys)
        return int(size or 0)

    def delete(self, number: int, first: int, last: int) -> None:
        self.sql(f"DELETE {_BETWEEN}", (batch_key(number, first), batch_key(number, last)))

    # --- definitions and records ---

    def put_definition(self, number: int, since: int, definition: GroupDefinition) -> None:
        self._put(definition_key(number, definition.ref), pack_definition(since, definition))

    def delete_definition(self, number: int, ref: bytes) -> None:
        self._delete(definition_key(number, ref))

    def save_lane(self, state: LaneState) -> None:
        self._put(lane_key(state.number), pack_lane(state))

    def delete_lane(self, number: int) -> None:
        self._delete(lane_key(number))

    def save_whole(self, whole: Whole) -> None:
        self._put(_WHOLE, pack_whole(whole))

    def _put(self, key: int, value: bytes) -> None:
        self.sql(
            "INSERT INTO Cache(key, raw, mode, access_count, value) VALUES (?, 1, ?, ?, ?)"
            " ON CONFLICT(key, raw) DO UPDATE SET access_count = excluded.access_count, value = excluded.value",
            (key, _RAW, crc(key, 0, value), value),
        )

    def _delete(self, key: int) -> None:
        self.sql("DELETE FROM Cache WHERE key = ? AND raw = 1", (key,))

    def definition(self, number: int, ref: bytes) -> bytes | None:
        """None where it is not there, or damaged."""
        found = self._records(key := definition_key(number, ref), key)
        return found[0][1] if found else None

    def whole(self) -> bytes | None:
        """None where there is none, or it is damaged."""
        found = self._records(_WHOLE, _WHOLE)
        return found[0][1] if found else None

    def lanes(self) -> list[tuple[int, bytes]]:
        """(number, record) of every lane; a damaged one is left out."""
        return [(_LANES - key, value) for key, value in self._records(_LANES_END, _LANES)]

    def lane_count(self) -> int:
        """Of all lanes' records, damaged or not."""
        [(count,)] = self.sql(f"SELECT count(*) {_BETWEEN}", (_LANES_END, _LANES))
        return int(count)

    def _records(self, first: int, last: int) -> list[tuple[int, bytes]]:
        found = itertools.starmap(Row, self.sql(_READ, (first, last)))
        return [(row.key, row.value) for row in found if row.is_sound()]

    def is_new(self) -> bool:
        """Nothing was ever stored in it."""
        return not self.sql("SELECT 1 FROM Cache LIMIT 1").fetchall()
