"""What SQLite's log holds of a database whose file is gone: the newest batches, as a rule.

SQLite deletes a log that it finds without its database, unread. Its pages are put over those of an empty database here,
whose schema is the same; what still lacks is a hole, which salvage.py reads around.

The log's format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import struct
from pathlib import Path

_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoints, salt, salt, checksum, checksum
_FRAME = struct.Struct(">6I")  # page number, pages after a commit or 0, salt, salt, checksum, checksum
_MAGIC = (0x377F0682, 0x377F0683)
_PAGE_BYTES = 4096
_PAGES_MAX = 1 << 24  # 64 GiB; a number beyond that is damaged


def is_headless(queue: Path) -> bool:
    """Whether there is a log, and no database file that it belongs to."""
    return _size(queue / "cache.db") == 0 and _size(queue / "cache.db-wal") > _HEADER.size


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def pages(log: bytes) -> dict[int, bytes]:
    """Number → content, as the last transaction that was finished left it. Checksums are left to the rows. Pure."""
    finished: dict[int, bytes] = {}
    running: dict[int, bytes] = {}
    if len(log) < _HEADER.size:
        return finished
    magic, _, size, _, *salts, _, _ = _HEADER.unpack_from(log)
    if magic not in _MAGIC or size != _PAGE_BYTES:
        return finished
    for at in range(_HEADER.size, len(log) - _FRAME.size - size + 1, _FRAME.size + size):
        number, is_commit, *of_frame, _, _ = _FRAME.unpack_from(log, at)
        if of_frame != salts:  # of an earlier round
            break
        if 0 < number <= _PAGES_MAX:
            running[number] = log[at + _FRAME.size : at + _FRAME.size + size]
        if is_commit:
            finished |= running
            running = {}
    return finished


def restore(queue: Path, empty: Path, to: Path) -> None:
    """A database file of what the log in `queue` holds. `empty`: the file of an empty one. Raises OSError."""
    with to.open("wb") as file:
        file.write(empty.read_bytes())
        for number, content in pages((queue / "cache.db-wal").read_bytes()).items():
            file.seek((number - 1) * _PAGE_BYTES)
            file.write(content)
