"""What is in an outbox on disk, without asking the program: every value in every table that decodes as telemetry.

Knows the wire (tests/support/independent_decoder.py), and of the outbox only that it is kept in SQLite files.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from tests.support.independent_decoder import Missing, Refused, decode_definition, decode_telemetry

MAGIC = b"SQLite format 3\0"
SHORTEST = 8  # bytes; no batch is so short
Counts = dict[str, set[int]]  # tag → numbers


class OutboxReader:
    """Remembers what it has decoded, because an outbox keeps most of its content from one look to the next."""

    def __init__(self) -> None:
        self._definitions: dict[str, dict[str, Any]] = {}
        self._seen: dict[bytes, Counts] = {}

    def numbers(self, directory: Path, *, live: bool = False) -> Counts:
        """The device's numbers in all the SQLite files below `directory`.

        `live`: ask the files in place, beside the program that works on them, so that only finished commits show;
        otherwise a copy is asked, which shows what the program will find when it starts.
        """
        blobs: list[bytes] = []
        for path in databases(directory):
            blobs += _blobs_live(path) if live else _blobs_of_copy(path)
        for blob in blobs:
            self._learn(blob)
        found: Counts = {}
        for blob in blobs:
            for tag, numbers in self._numbers(blob).items():
                found.setdefault(tag, set()).update(numbers)
        return found

    def _learn(self, blob: bytes) -> None:
        if (key := hashlib.blake2b(blob, digest_size=16).digest()) in self._seen:
            return
        for candidate in _inside(blob):
            try:
                definition = decode_definition(candidate)
            except Refused:
                continue
            self._definitions[definition["ref"]] = definition
            self._seen[key] = {}

    def _numbers(self, blob: bytes) -> Counts:
        key = hashlib.blake2b(blob, digest_size=16).digest()
        if key in self._seen:
            return self._seen[key]
        found: Counts = {}
        for candidate in _inside(blob):
            try:
                batch = decode_telemetry(candidate, self._definitions)
            except Refused:
                continue
            except Missing:
                return {}  # its definition may come to light later: it is not remembered
            for block in batch["blocks"]:
                for column in block["columns"]:
                    found.setdefault(column["name"], set()).update(int(v) for v in column["values"] if v is not None)
        self._seen[key] = found
        return found


def databases(directory: Path) -> list[Path]:
    """The SQLite files below it, those that were set aside left out."""
    found = []
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not any("damaged" in part for part in path.relative_to(directory).parts):
            with path.open("rb") as file:
                if file.read(16) == MAGIC:
                    found.append(path)
    return found


def _inside(blob: bytes) -> Iterator[bytes]:
    """The value itself, and values that it holds where it is MessagePack."""
    yield blob
    if 0x80 <= blob[0] <= 0x9F or 0xDC <= blob[0] <= 0xDF:
        try:
            value = msgpack.unpackb(blob, strict_map_key=False)
        except ValueError:
            return
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            if isinstance(inner, bytes) and inner:
                yield inner


def _blobs_live(path: Path) -> list[bytes]:
    return _blobs(f"file:{path}?mode=ro")


def _blobs_of_copy(path: Path) -> list[bytes]:
    with tempfile.TemporaryDirectory(prefix="holdfast-look-") as folder:
        for suffix in ("", "-wal", "-journal"):
            beside = path.with_name(path.name + suffix)
            if beside.exists():
                shutil.copyfile(beside, Path(folder) / beside.name)
        return _blobs(f"file:{folder}/{path.name}")


def _blobs(uri: str) -> list[bytes]:
    """Of a damaged database what can be read from either end of its tables."""
    connection = sqlite3.connect(uri, uri=True, timeout=10)
    found: dict[bytes, None] = {}
    try:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for order in ("ASC", "DESC"):
                try:
                    for row in connection.execute(f'SELECT * FROM "{table}" ORDER BY rowid {order}'):
                        found |= {bytes(v): None for v in row if isinstance(v, bytes) and len(v) > SHORTEST}
                    break  # it is whole
                except sqlite3.DatabaseError:
                    continue
    except sqlite3.DatabaseError:
        return []  # not even its list of tables can be read
    finally:
        connection.close()
    return list(found)
