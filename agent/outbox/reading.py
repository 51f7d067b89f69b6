"""When a disk that cannot be read is taken for a damaged outbox: late, and only where most of it can be read.

A cable, a card or a controller fails for a moment and then reads again; an outbox that was set aside for that would
lose nothing but its peace, and its readers the line. A sector that is gone stays gone: then the rest is salvaged. Where
not even the main record can be read there is nothing to salvage: that is waited out.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

_UNREADABLE = ("SQLITE_IOERR_CORRUPTFS", "SQLITE_IOERR_READ")
"""What SQLite makes of EIO, ERANGE and ENXIO, and of everything else that read(2) gives."""

_BLOCK_BYTES = 1 << 20
PATIENCE_S = 60.0
PEACE_S = 60.0
"""So long without a failure, and the disk counts as sound again."""

PAUSES_S = (0.05, 0.2)
"""Before a read is tried again at once."""

OPENING_PAUSES_S = (0.2, 0.5, 1.0, 1.0, 2.0, 2.0, 3.0)


def is_unreadable(error: Exception) -> bool:
    """Whether the disk could not be read, just now at least."""
    return getattr(error, "sqlite_errorname", "") in _UNREADABLE


def reads_whole(queue: Path) -> bool:
    """Whether the disk gives every byte; SQLite may make damage of one that it does not give. What it means is open."""
    try:
        for path in queue.glob("cache.db*"):
            with path.open("rb") as file:
                while file.read(_BLOCK_BYTES):
                    pass
    except OSError:
        return False
    return True


def is_partly_readable(queue: Path) -> bool:
    """Whether the main record can be read; by a connection that has nothing in its cache."""
    address = (queue / "cache.db").absolute().as_uri()
    try:
        with closing(sqlite3.connect(f"{address}?mode=ro", uri=True)) as connection:
            return bool(connection.execute("SELECT value FROM Cache WHERE key = -1 AND raw = 1").fetchall())
    except sqlite3.DatabaseError:
        return False


class Patience:
    """How long reads have failed by now. Pure."""

    def __init__(self) -> None:
        self._first_s = self._last_s = 0.0
        self._fails = False

    def failed(self, now_s: float) -> bool:
        """A read has failed again; whether this goes on for too long."""
        if not self._fails or now_s - self._last_s > PEACE_S:
            self._first_s = now_s
        self._fails, self._last_s = True, now_s
        return now_s - self._first_s >= PATIENCE_S
