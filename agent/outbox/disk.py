"""The outbox on disk: diskcache, hardened into a queue.

diskcache as it comes is a cache: it evicts, syncs lazily, keeps large values in files that it never syncs, and pickles.
Here it neither evicts nor culls; SQLite syncs every commit (`synchronous=FULL` in WAL mode); every value lies in the
database; and nothing but integer keys and bytes values goes in or out, so that no pickle is ever read.

Keys: a batch is at `number of the machine << 48 | seq` (2^48 batches are 8,900 years at 1,000 a second). Records about
the outbox are JSON at negative keys: -1 for the whole, -2 - number for each machine. A batch, its number and its
machine's record change in one transaction.

A ballast file keeps space in reserve. On a full disk it is deleted first, because SQLite cannot even delete a row
without room for its log. From then on the database file may not grow, so that the reserve stays with the log, and the
oldest batches make room within the file. When there is space again, the ballast is laid anew and growth allowed. The
database file does not shrink: what it once took stays its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import diskcache

from agent.outbox.contract import Draft, Dropped, Held, OutboxError, OutboxFull, OutboxStats, Stored
from agent.outbox.memory import note_dropped
from protocols.program.logs import get_logger

T = TypeVar("T")

SCHEMA = 1
DROPPED_RANGES_MAX = 200
_SEQ_BITS = 48
_ROOM_BYTES = 1 << 20  # what is let go at a time on a full disk
_WHOLE = -1
_PAGES_MAX = 1_073_741_823  # SQLite's own default

_log = get_logger(part="outbox")


class _BytesDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache ships no types
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


@dataclass
class _Machine:
    """One machine's record: held are `first` to `next` - 1."""

    number: int
    first: int = 1
    next: int = 1
    bytes: int = 0
    dropped: list[Dropped] = field(default_factory=list)

    def key(self, seq: int) -> int:
        return self.number << _SEQ_BITS | seq

    def copy(self) -> _Machine:
        return _Machine(self.number, self.first, self.next, self.bytes, list(self.dropped))


class DiskOutbox:
    """`limit_bytes`: of payload held. `reserve_bytes`: the ballast. Raises OutboxError where it cannot be opened."""

    def __init__(self, directory: Path, *, limit_bytes: int = 1 << 30, reserve_bytes: int = 8 << 20) -> None:
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._reserve_bytes = reserve_bytes
        self._ballast = directory / "ballast"
        self._machines: dict[str, _Machine] = {}
        self._closed = False
        self._pressed = False  # the disk was full, and the ballast is not laid again yet
        self.damaged: Path | None = None
        """Where a damaged predecessor was set aside, if there was one."""
        self._lock = self._take_directory()
        try:
            self._cache = self._open()
            self._load()
        except BaseException:
            os.close(self._lock)
            raise
        self._lay_ballast()

    # --- opening ---

    def _take_directory(self) -> int:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory.chmod(0o700)
            lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OutboxError(
                f"outbox {self._directory}: {error.strerror}; check the path and its owner and rights"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise OutboxError(
                f"outbox {self._directory}: another agent is using it; stop that one first (two would share numbers)"
            ) from None
        return lock

    def _open(self) -> Any:
        """The cache, opened; on a full disk with the ballast gone; a damaged one set aside and begun anew."""
        try:
            return self._open_cache()
        except (sqlite3.OperationalError, diskcache.Timeout) as error:
            if not self._drop_ballast():
                raise OutboxError(f"outbox {self._directory}: {error}; check the disk and its free space") from None
            return self._open_cache()
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            return self._open_cache()

    def _open_cache(self) -> Any:
        return diskcache.Cache(
            str(self._directory / "queue"),
            timeout=10,
            disk=_BytesDisk,
            eviction_policy="none",
            cull_limit=0,
            size_limit=1 << 62,
            statistics=0,
            tag_index=0,
            sqlite_journal_mode="wal",
            sqlite_synchronous=2,
            sqlite_auto_vacuum=0,
            sqlite_cache_size=500,
            sqlite_mmap_size=0,
            sqlite_wal_autocheckpoint=250,  # a log of 1 MB, well below the reserve
            disk_min_file_size=1 << 62,
        )

    def _set_aside(self, error: Exception) -> None:
        aside = self._directory / time.strftime("damaged-%Y%m%dT%H%M%S", time.gmtime())
        (self._directory / "queue").rename(aside)
        self.damaged = aside
        _log.error(
            "the outbox is damaged and was set aside whole; a new epoch begins", aside=str(aside), error=str(error)
        )

    def _load(self) -> None:
        try:
            whole = self._record(_WHOLE)
            if whole is None:
                whole = {"schema": SCHEMA, "epoch": secrets.token_hex(8), "session": 0, "dropped": 0, "machines": []}
                with self._transaction():
                    self._cache.set(_WHOLE, _json(whole))
            if whole["schema"] != SCHEMA:
                raise OutboxError(
                    f"outbox {self._directory}: written by a newer version (schema {whole['schema']}); update the agent"
                )
            self._names: list[str] = whole["machines"]
            for number, name in enumerate(self._names):
                record = self._record(-2 - number)
                if record is None:
                    raise OutboxError(f"outbox {self._directory}: the record of machine {name} is missing")
                dropped = [Dropped(*parts) for parts in record.pop("dropped")]
                self._machines[name] = _Machine(number, **record, dropped=dropped)
        except sqlite3.Error as error:
            raise OutboxError(f"outbox {self._directory}: {error}; check the disk and its free space") from None
        self.epoch: str = whole["epoch"]
        self._session: int = whole["session"]
        self._dropped: int = whole["dropped"]

    def _record(self, key: int) -> Any:
        value = self._cache.get(key)
        return None if value is None else json.loads(value)

    # --- the ballast ---

    def _lay_ballast(self) -> None:
        """Reserve the space if there is plenty; otherwise later."""
        if self._ballast.exists() or self._reserve_bytes == 0:
            return
        free = os.statvfs(self._directory)
        if free.f_bavail * free.f_frsize < 2 * self._reserve_bytes:
            return
        handle = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, self._reserve_bytes)
        except OSError as error:
            _log.warning("the outbox could not reserve space on the disk", error=error.strerror)
            self._ballast.unlink()
        else:
            if self._pressed:
                self._pressed = False
                self._cap_file()
                _log.info("the disk has space again: the outbox laid its reserve anew")
        finally:
            os.close(handle)

    def _drop_ballast(self) -> bool:
        if not self._ballast.exists():
            return False
        self._ballast.unlink()
        _log.warning("the disk is full: the outbox uses its reserve", directory=str(self._directory))
        return True

    def _press(self) -> None:
        """The disk is full: free the reserve for the log, keep the file from growing into it, empty the log."""
        self._pressed = True
        self._drop_ballast()
        self._cap_file()
        self._cache.reset("sqlite_wal_checkpoint", "RESTART", update=False)

    def _cap_file(self) -> None:
        pages = self._cache.volume() // 4096 if self._pressed else _PAGES_MAX
        self._cache.reset("sqlite_max_page_count", pages, update=False)

    # --- transactions ---

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, in memory too: what is remembered of the machines goes back if the disk refuses."""
        kept = {name: machine.copy() for name, machine in self._machines.items()}
        names, session, dropped = (
            list(getattr(self, "_names", [])),
            getattr(self, "_session", 0),
            getattr(self, "_dropped", 0),
        )
        try:
            with self._cache.transact():
                yield
        except BaseException as error:
            self._machines, self._names, self._session, self._dropped = kept, names, session, dropped
            if isinstance(error, sqlite3.Error | diskcache.Timeout):
                self._cache.close()  # after a failed COMMIT the transaction is still open; this ends it
                self._cap_file()
            raise

    def _write(self, change: Callable[[], T]) -> T:
        """Run a change in a transaction; on a full disk use the reserve, and then try once more."""
        try:
            with self._transaction():
                return change()
        except (sqlite3.Error, diskcache.Timeout):
            pass  # most likely full; whatever it is, the second failure is told
        try:
            self._press()
            with self._transaction():
                return change()
        except (sqlite3.Error, diskcache.Timeout) as error:
            raise self._full(error) from None

    def _full(self, error: Exception) -> OutboxFull:
        what = str(error) or "the database is locked"
        return OutboxFull(f"outbox {self._directory}: {what}; free some space on this disk")

    def _read(self, machine: _Machine, seq: int) -> tuple[bytes, int]:
        """(payload, appended_us) of one batch."""
        try:
            payload, appended_us = self._cache.get(machine.key(seq), tag=True)
        except sqlite3.Error as error:
            raise OutboxError(f"outbox {self._directory}: {error}; check the disk") from None
        if payload is None:
            name = self._names[machine.number]
            raise OutboxError(f"outbox {self._directory}: batch {seq} of {name} is missing from the database")
        return payload, appended_us

    def _save(self, machine: _Machine) -> None:
        record = {"first": machine.first, "next": machine.next, "bytes": machine.bytes, "dropped": machine.dropped}
        self._cache.set(-2 - machine.number, _json(record))

    def _save_whole(self) -> None:
        whole = {
            "schema": SCHEMA,
            "epoch": self.epoch,
            "session": self._session,
            "dropped": self._dropped,
            "machines": self._names,
        }
        self._cache.set(_WHOLE, _json(whole))

    # --- the contract ---

    def next_session(self) -> int:
        """Also above the present Unix time, so that a new outbox on the same gateway counts on from the old one."""

        def change() -> int:
            self._session = max(self._session + 1, int(time.time()))
            self._save_whole()
            return self._session

        return self._write(change)

    def append(self, drafts: Sequence[Draft], now_us: int) -> Sequence[int]:
        try:
            seqs = self._write(lambda: self._append(drafts, now_us))
        except OutboxFull:
            # The disk is full, of others' files perhaps: the oldest batches make room within our own file.
            if not any(machine.first < machine.next for machine in self._machines.values()):
                raise
            self._write(lambda: self._let_go(_ROOM_BYTES, "disk full"))
            seqs = self._write(lambda: self._append(drafts, now_us))
        self._lay_ballast()
        return seqs

    def _append(self, drafts: Sequence[Draft], now_us: int) -> list[int]:
        seqs = []
        touched: dict[int, _Machine] = {}
        for draft in drafts:
            machine = self._machines.get(draft.machine)
            if machine is None:
                machine = self._machines[draft.machine] = _Machine(len(self._names))
                self._names.append(draft.machine)
                self._save_whole()
            seq = machine.next
            payload = draft.encode(self.epoch, seq)
            excess = self._bytes() + len(payload) - self._limit_bytes
            if excess > 0:
                self._let_go(excess, "outbox full")
            self._cache.set(machine.key(seq), payload, tag=now_us)
            machine.next += 1
            machine.bytes += len(payload)
            touched[machine.number] = machine
            seqs.append(seq)
        for machine in touched.values():
            self._save(machine)
        return seqs

    def _bytes(self) -> int:
        return sum(machine.bytes for machine in self._machines.values())

    def _let_go(self, wanted_bytes: int, reason: str) -> None:
        """Drop the oldest batches until `wanted_bytes` are free or none is left, and record it."""
        touched: dict[int, _Machine] = {}
        while wanted_bytes > 0 and (machine := self._oldest()) is not None:
            seq = machine.first
            size = self._pop(machine)
            wanted_bytes -= size
            note_dropped(machine.dropped, seq, seq, reason)
            if (
                len(machine.dropped) > DROPPED_RANGES_MAX
            ):  # a bound: the two oldest become one, the gap between was released
                first, second = machine.dropped[:2]
                machine.dropped[:2] = [Dropped(first.first, second.last, first.reason)]
            self._dropped += 1
            touched[machine.number] = machine
        for machine in touched.values():
            self._save(machine)
        self._save_whole()
        if touched:
            _log.warning("the outbox let go of its oldest batches", reason=reason, dropped_ever=self._dropped)

    def _oldest(self) -> _Machine | None:
        heads = [
            (self._read(machine, machine.first)[1], machine.number, machine)
            for machine in self._machines.values()
            if machine.first < machine.next
        ]
        return min(heads)[2] if heads else None

    def _pop(self, machine: _Machine) -> int:
        """Delete the machine's oldest batch; its size."""
        size = len(self._cache.pop(machine.key(machine.first), default=b""))
        machine.first += 1
        machine.bytes -= size
        return size

    def pending(self, machine: str, after: int, count_max: int) -> Sequence[Stored]:
        found = self._machines.get(machine)
        if found is None:
            return []
        start = max(found.first, after + 1)
        return [Stored(seq, *self._read(found, seq)) for seq in range(start, min(found.next, start + count_max))]

    def release(self, machine: str, through: int) -> int:
        found = self._machines.get(machine)
        if found is None or through < found.first:
            return 0

        def change() -> int:
            held = self._machines[machine]
            count = min(through, held.next - 1) - held.first + 1
            for _ in range(count):
                self._pop(held)
            self._save(held)
            return count

        count = self._write(change)
        self._lay_ballast()
        return count

    def forget_dropped(self, machine: str, through: int) -> None:
        found = self._machines.get(machine)
        if found is None or not any(d.last <= through for d in found.dropped):
            return

        def change() -> None:
            held = self._machines[machine]
            held.dropped = [d for d in held.dropped if d.last > through]
            self._save(held)

        self._write(change)

    def held(self) -> Mapping[str, Held]:
        return {name: Held(m.first, m.next - 1, tuple(m.dropped)) for name, m in self._machines.items()}

    def stats(self) -> OutboxStats:
        oldest = self._oldest()
        oldest_us = None if oldest is None else self._read(oldest, oldest.first)[1]
        batches = sum(m.next - m.first for m in self._machines.values())
        return OutboxStats(batches, self._bytes(), self._limit_bytes, oldest_us, self._dropped)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._cache.close()
            os.close(self._lock)


def _json(record: Mapping[str, Any]) -> bytes:
    def plain(value: object) -> object:
        if isinstance(value, Dropped):
            return [value.first, value.last, value.reason]
        raise TypeError(type(value).__name__)

    return json.dumps(record, default=plain, separators=(",", ":")).encode()
