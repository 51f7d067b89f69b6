"""The outbox on disk: diskcache, hardened into a queue.

diskcache as it comes is a cache: it evicts, syncs lazily, keeps large values in files that it never syncs, and pickles.
Here it neither evicts nor culls; SQLite syncs every commit (`synchronous=FULL` in WAL mode); every value lies in the
database; and nothing but integer keys and bytes values goes in or out, so that no pickle is ever read.

Keys: a batch is at `number of the machine << 48 | seq` (2^48 batches are 8,900 years at 1,000 a second). Records about
the outbox are JSON at negative keys: -1 for the whole, -2 - number for each machine; definitions are MessagePack at
-2^48 - their own number. A batch, its number, its definitions and its machine's record change in one transaction.

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
import msgpack

from agent.outbox.ballast import Ballast
from agent.outbox.bookkeeping import KeptDefinition, declared, note_dropped, superseded, unknown
from agent.outbox.cache import open_cache
from agent.outbox.contract import (
    Draft,
    Dropped,
    GroupDefinition,
    Held,
    OutboxError,
    OutboxFull,
    OutboxStats,
    Stored,
)
from protocols.program.logs import get_logger

T = TypeVar("T")

SCHEMA = 1
DROPPED_RANGES_MAX = 200
_SEQ_BITS = 48
_ROOM_BYTES = 1 << 20  # what is let go at a time on a full disk
_WHOLE = -1
_DEFINITIONS = -(1 << 48)
_PAGES_MAX = 1_073_741_823  # SQLite's own default

_log = get_logger(part="outbox")


@dataclass
class _Machine:
    """One machine's record: held are `first` to `next` - 1."""

    number: int
    first: int = 1
    next: int = 1
    bytes: int = 0
    dropped: list[Dropped] = field(default_factory=list)
    definitions: list[KeptDefinition] = field(default_factory=list)

    def key(self, seq: int) -> int:
        return self.number << _SEQ_BITS | seq

    def copy(self) -> _Machine:
        return _Machine(self.number, self.first, self.next, self.bytes, list(self.dropped), list(self.definitions))


class DiskOutbox:
    """`limit_bytes`: of payload held. `reserve_bytes`: the ballast. Raises OutboxError where it cannot be opened."""

    def __init__(self, directory: Path, *, limit_bytes: int = 1 << 30, reserve_bytes: int = 8 << 20) -> None:
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._ballast = Ballast(directory / "ballast", reserve_bytes)
        self._machines: dict[str, _Machine] = {}
        self._closed = False
        self._pressed = False  # the disk was full, and the ballast is not laid again yet
        self.damaged: Path | None = None
        """Where a damaged predecessor was set aside, if there was one."""
        self._lock = self._take_directory()
        try:
            self._cache = self._open()
            self._load()
        except BaseException:  # whatever ends the opening, the next attempt must find the lock free; it is passed on
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
            return open_cache(self._directory / "queue")
        except (sqlite3.OperationalError, diskcache.Timeout) as error:
            if not self._ballast.drop():
                raise OutboxError(f"outbox {self._directory}: {error}; check the disk and its free space") from None
            return open_cache(self._directory / "queue")
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            return open_cache(self._directory / "queue")

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
                refs = record.pop("definitions")
                machine = self._machines[name] = _Machine(number, **record, dropped=dropped)
                machine.definitions = [self._read_definition(machine, bytes.fromhex(ref)) for ref in refs]
        except sqlite3.Error as error:
            raise OutboxError(f"outbox {self._directory}: {error}; check the disk and its free space") from None
        self.epoch: str = whole["epoch"]
        self._session: int = whole["session"]
        self._dropped: int = whole["dropped"]

    def _record(self, key: int) -> Any:
        value = self._cache.get(key)
        return None if value is None else json.loads(value)

    # --- a full disk ---

    def _lay_ballast(self) -> None:
        if self._ballast.lay() and self._pressed:
            self._pressed = False
            self._cap_file()
            _log.info("the disk has space again: the outbox laid its reserve anew")

    def _press(self) -> None:
        """The disk is full: free the reserve for the log, keep the file from growing into it, empty the log."""
        self._pressed = True
        self._ballast.drop()
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
        except BaseException as error:  # an interrupt undoes it, too; it is passed on
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
        record = {
            "first": machine.first,
            "next": machine.next,
            "bytes": machine.bytes,
            "dropped": machine.dropped,
            "definitions": [kept.definition.ref.hex() for kept in machine.definitions],
        }
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
            encoded = draft.encode(self.epoch, seq)
            payload = encoded.payload
            excess = self._bytes() + len(payload) - self._limit_bytes
            if excess > 0:
                self._let_go(excess, "outbox full")
            self._cache.set(machine.key(seq), payload, tag=now_us)
            for definition in unknown(machine.definitions, encoded.definitions):
                machine.definitions.append(KeptDefinition(seq, definition))
                self._cache.set(_definition_key(machine, definition.ref), _pack_definition(seq, definition))
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
            self._prune(machine)
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

    def _prune(self, machine: _Machine) -> None:
        """Delete the definitions that nothing held refers to any more."""
        for gone in superseded(machine.definitions, machine.first):
            machine.definitions.remove(gone)
            if all(kept.definition.ref != gone.definition.ref for kept in machine.definitions):
                self._cache.delete(_definition_key(machine, gone.definition.ref))

    def pending(self, machine: str, after: int, count_max: int) -> Sequence[Stored]:
        found = self._machines.get(machine)
        if found is None:
            return []
        start = max(found.first, after + 1)
        return [Stored(seq, *self._read(found, seq)) for seq in range(start, min(found.next, start + count_max))]

    def definition(self, machine: str, ref: bytes) -> GroupDefinition | None:
        found = self._machines.get(machine)
        kept = [] if found is None else found.definitions
        return next((one.definition for one in kept if one.definition.ref == ref), None)

    def _read_definition(self, machine: _Machine, ref: bytes) -> KeptDefinition:
        packed = self._cache.get(_definition_key(machine, ref))
        if packed is None:
            raise OutboxError(f"outbox {self._directory}: definition {ref.hex()} is missing from the database")
        since, device, group, message = msgpack.unpackb(packed)
        return KeptDefinition(since, GroupDefinition(ref, device, group, message))

    def release(self, machine: str, through: int) -> int:
        found = self._machines.get(machine)
        if found is None or (through < found.first and all(one.last > through for one in found.dropped)):
            return 0

        def change() -> int:
            held = self._machines[machine]
            count = max(0, min(through, held.next - 1) - held.first + 1)
            held.dropped = [one for one in held.dropped if one.last > through]
            for _ in range(count):
                self._pop(held)
            self._prune(held)
            self._save(held)
            return count

        count = self._write(change)
        self._lay_ballast()
        return count

    def declare_dropped(self, machine: str, first: int, last: int, reason: str) -> None:
        def change() -> None:
            held = self._machines[machine]
            held.dropped = declared(held.dropped, first, last, reason)
            self._save(held)

        self._write(change)

    def held(self) -> Mapping[str, Held]:
        return {
            name: Held(m.first, m.next - 1, tuple(m.dropped), tuple(kept.definition.ref for kept in m.definitions))
            for name, m in self._machines.items()
        }

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


def _definition_key(machine: _Machine, ref: bytes) -> int:
    """Below every other key. A reference is 6 bytes long; 14 bits are left for the machine."""
    return _DEFINITIONS - (machine.number << 48 | int.from_bytes(ref))


def _pack_definition(since: int, definition: GroupDefinition) -> bytes:
    packed: bytes = msgpack.packb([since, definition.device, definition.group, definition.message])
    return packed


def _json(record: Mapping[str, Any]) -> bytes:
    def plain(value: object) -> object:
        if isinstance(value, Dropped):
            return [value.first, value.last, value.reason]
        raise TypeError(type(value).__name__)

    return json.dumps(record, default=plain, separators=(",", ":")).encode()
