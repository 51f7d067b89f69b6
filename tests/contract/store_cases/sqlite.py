"""The SQLite store; its readings are looked at from beside it, as an SQL user would."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cloud.store.sqlite import SqliteStore
from tests.contract.store_cases import Reading, StoreCase


@contextmanager
def case(directory: Path, **options: Any) -> Iterator[StoreCase]:
    path = directory / "store.db"
    store = SqliteStore(path, **options)
    try:
        yield StoreCase(store, lambda: readings(path))
    finally:
        store.close()


def readings(path: Path) -> Counter[Reading]:
    """Every reading in the file, with how often it is there."""
    with closing(sqlite3.connect(path)) as connection:
        return Counter(
            connection.execute(
                "SELECT machines.name, tag, value_type, time, value, quality FROM readings"
                " JOIN series ON series.id = series_id JOIN machines ON machines.id = machine_id"
            )
        )
