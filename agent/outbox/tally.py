"""How many transactions and sessions there were, beside the database: one that knows of fewer has lost its end.

SQLite's log is read as far as it is sound, and what follows is taken for a transaction that was never finished. A log
that was cut short, damaged or deleted leaves a sound database as it was some time ago, which gives numbers again. So
they are counted here after each COMMIT, in place and without a sync: after a kill this is exact, after a power cut it
may say fewer, never more.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from protocols.program.logs import get_logger

_COUNT = struct.Struct("<QQ")
_CHECKSUM = struct.Struct("<I")  # of the count

_log = get_logger(part="outbox")


class Count(NamedTuple):
    """`commits`: so many transactions there were. `session`: the last one's number. As in the main record."""

    commits: int = 0
    session: int = 0


class Tally:
    """Not being able to write is told and no more: then it says fewer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        self._fails = False

    def read(self) -> Count:
        """Zeros where nothing is known."""
        try:
            found = self._path.read_bytes()
        except OSError:
            return Count()
        count, checksum = found[: _COUNT.size], found[_COUNT.size :]
        is_whole = len(count) == _COUNT.size and checksum == _CHECKSUM.pack(zlib.crc32(count))
        return Count(*_COUNT.unpack(count)) if is_whole else Count()

    def note(self, count: Count) -> None:
        """So many there are now."""
        packed = _COUNT.pack(*count)
        try:
            if self._handle is None:
                self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._handle, packed + _CHECKSUM.pack(zlib.crc32(packed)), 0)
        except OSError as error:
            if not self._fails:
                _log.warning("the outbox could not count its transactions", path=str(self._path), error=error.strerror)
            self._fails = True
        else:
            self._fails = False

    def close(self) -> None:
        """The next note opens it again."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
