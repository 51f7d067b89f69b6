"""diskcache with the cache taken out: nothing is evicted, every commit is synced, and only bytes go in and out."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import diskcache

from agent.outbox.contract import OutboxError

_NEVER = 1 << 62


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
        return 0, diskcache.core.MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: object, value: object, read: bool) -> bytes:
        if mode != diskcache.core.MODE_RAW or filename is not None or not isinstance(value, bytes):
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
        sqlite_cache_size=500,
        sqlite_mmap_size=0,
        sqlite_wal_autocheckpoint=250,  # a log of 1 MB, well below the reserve
        disk_min_file_size=_NEVER,
    )
