"""How much the outbox may take of its disk: the reserve for a full one, and the bound on its file's growth."""

from __future__ import annotations

import sqlite3

from agent.outbox.ballast import Ballast
from agent.outbox.cache import CacheRows
from agent.outbox.opening import Place
from protocols.program.logs import get_logger

_PAGES_MAX = 1_073_741_823  # SQLite's own default
_SCARCE_BYTES = 2 << 20  # with more than that free, a disk that says it is full is taken to fail

_log = get_logger(part="outbox")


class Space:
    """`pressed`: the disk was full, and the reserve is not laid again yet. `free_disk_bytes`: to be left to others."""

    def __init__(self, place: Place, ballast: Ballast, free_disk_bytes: int) -> None:
        self._place = place
        self._ballast = ballast
        self._free_disk_bytes = free_disk_bytes
        self.pressed = False
        self._tight = False  # less is free than there should be
        self._capped = False

    def look(self, rows: CacheRows) -> None:
        """Lay the reserve again where there is space; grow no more where too little is left."""
        self._ballast.lay()
        free = self._place.free_bytes()
        if self.pressed and self._ballast.is_laid() and free >= _SCARCE_BYTES:
            self.pressed = False
            _log.info("the disk has space again: the outbox laid its reserve anew")
        tight = free < self._free_disk_bytes
        if tight != self._tight:
            self._tight = tight
            _log.warning("the disk is nearly full: the outbox grows no more" if tight else "the disk has space again")
        if (self.pressed or tight) != self._capped:
            try:
                self.cap(rows)
            except sqlite3.Error as error:  # what was to be done is done; the next look tries again
                self._capped = not (self.pressed or tight)
                _log.info("the outbox could not set how far its file may grow", error=str(error))

    def press(self, rows: CacheRows) -> None:
        """The disk is full: free the reserve for the log, keep the file from growing into it, empty the log."""
        self.pressed = True
        self._ballast.drop()
        self.cap(rows)
        rows.checkpoint()

    def cap(self, rows: CacheRows) -> None:
        """Bound the file's growth as it is to be now; a new connection does not know of it."""
        self._capped = self.pressed or self._tight
        rows.cap_pages(rows.pages() if self._capped else _PAGES_MAX)

    def is_own_limit(self) -> bool:
        """Whether it is only what is to be left to others that lacks."""
        return self._tight and self._place.free_bytes() > self._free_disk_bytes // 2

    def lacks(self, error: Exception) -> bool:
        """Whether this is because the disk is full, or nearly; not because it fails."""
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_IOERR") and not name.startswith("SQLITE_IOERR_SHM"):
            return False
        return self._capped or self._place.free_bytes() < _SCARCE_BYTES
