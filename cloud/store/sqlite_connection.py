"""One connection to a SQLite file: opened safely, its transactions, and SQLite's errors as ours.

WAL lets others read while we write; `synchronous=FULL` makes a commit survive a power cut (with NORMAL it may not).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloud.store.contract import StoreAway, StoreError
from cloud.store.sqlite_schema import APPLICATION_ID, MIGRATIONS

_CACHE_KIB = 32 * 1024
_WAL_BYTES_MAX = 64 * 1024 * 1024  # what a WAL file that grew larger is cut back to

# What SQLite says → what failed and what to do. In the first table waiting helps, or making room.
_AWAY = {
    sqlite3.SQLITE_BUSY: "another program holds its lock; it is tried again, or stop that program",
    sqlite3.SQLITE_LOCKED: "another program holds its lock; it is tried again, or stop that program",
    sqlite3.SQLITE_PROTOCOL: "another program holds its lock; it is tried again, or stop that program",
    sqlite3.SQLITE_FULL: "the disk is full; make room on it",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written; check its space and its health",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; check that it and its directory are there and may be written",
    sqlite3.SQLITE_NOMEM: "there is not enough memory; free some",
}
_BROKEN = {
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database; name another file",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged; restore it from a backup",
    sqlite3.SQLITE_READONLY: "the file is read-only; give this user the right to write it and its directory",
    sqlite3.SQLITE_PERM: "the file may not be accessed; give this user the right to",
    sqlite3.SQLITE_AUTH: "the file may not be accessed; give this user the right to",
}


class Connection:
    """A connection for one caller at a time, from whatever thread. Every method raises StoreError or StoreAway only."""

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        """Open the file, or make it (mode 0600), and bring its tables up to date."""
        self._path = path
        _make_file(path)
        with self.translated():
            self._sqlite = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(busy_timeout_s)
        except StoreError:
            self._sqlite.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that writes: all of it, durably, or nothing at all."""
        with self._begun("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A transaction that reads: every query within it sees the same moment."""
        with self._begun("BEGIN") as connection:
            yield connection

    def close(self) -> None:
        """Twice is fine."""
        with self.translated():
            self._sqlite.close()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """SQLite's exceptions as ours."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bytes only give detail
            if code in _AWAY:
                raise StoreAway(f"store {self._path}: {_AWAY[code]} ({error}).") from error
            what = _BROKEN.get(code, "SQLite refuses")
            raise StoreError(f"store {self._path}: {what} ({error}).") from error

    @contextmanager
    def _begun(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self.translated():
            self._sqlite.execute(begin)
            try:
                yield self._sqlite
                self._sqlite.execute("COMMIT")
            finally:
                if self._sqlite.in_transaction:  # something was raised, and SQLite has not rolled back by itself
                    self._sqlite.execute("ROLLBACK")

    def _prepare(self, busy_timeout_s: float) -> None:
        with self.translated():
            self._check_ours()
            self._use_wal(busy_timeout_s)
            self._pragma("synchronous=FULL")
            self._pragma("foreign_keys=ON")
            self._pragma(f"cache_size=-{_CACHE_KIB}")
            self._pragma(f"journal_size_limit={_WAL_BYTES_MAX}")
            if self._pragma("user_version") < len(MIGRATIONS):
                self._migrate()

    def _use_wal(self, busy_timeout_s: float) -> None:
        """SQLite does not wait when two programs switch a new file to WAL at once; so we do."""
        deadline_s = time.monotonic() + busy_timeout_s
        while self._pragma("journal_mode") != "wal":
            try:
                if self._pragma("journal_mode=WAL") != "wal":
                    raise StoreError(f"store {self._path}: its file system cannot do WAL; keep it on a local disk.")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.01)

    def _check_ours(self) -> None:
        with self.snapshot() as connection:  # another program may be making the tables at this moment
            version = self._pragma("user_version")
            application = self._pragma("application_id")
            ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
        if application != APPLICATION_ID and (application or version or tables):
            raise StoreError(f"store {self._path}: this is another program's SQLite database; name another file.")
        if version > len(MIGRATIONS):
            raise StoreError(
                f"store {self._path}: its schema has version {version}, this program knows up to {len(MIGRATIONS)}; "
                "use the newer program that made it."
            )

    def _migrate(self) -> None:
        with self.transaction() as connection:
            version = self._pragma("user_version")  # again: another program may have been first
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    connection.execute(statement)
            self._pragma(f"application_id={APPLICATION_ID}")
            self._pragma(f"user_version={len(MIGRATIONS)}")

    def _pragma(self, pragma: str) -> Any:
        row = self._sqlite.execute(f"PRAGMA {pragma}").fetchone()
        return row[0] if row else None


def _make_file(path: Path) -> None:
    """An empty file that only its owner may read, before SQLite would make one that everybody may.

    Made by root, it belongs to the owner of its directory: an operator's `sudo` must not shut the service out.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            if os.geteuid() == 0:
                directory = path.parent.stat()
                os.fchown(descriptor, directory.st_uid, directory.st_gid)
        finally:
            os.close(descriptor)
    except FileExistsError:
        return
    except FileNotFoundError:
        raise StoreError(f"store {path}: the directory {path.parent} does not exist; make it.") from None
    except OSError as error:
        raise StoreError(f"store {path}: the file cannot be made ({error.strerror}); check its directory.") from error
