"""A file that only takes up space, so that there is some when the disk is full."""

from __future__ import annotations

import os
from pathlib import Path

from protocols.program.logs import get_logger

_log = get_logger(part="outbox")


class Ballast:
    """`size_bytes` 0: no ballast at all."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes

    def lay(self) -> bool:
        """Take the space, if it is not taken yet and there is plenty; whether it was taken just now."""
        if self._size_bytes == 0 or self._path.exists():
            return False
        try:
            free = os.statvfs(self._path.parent)
            if free.f_bavail * free.f_frsize < 2 * self._size_bytes:
                return False
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, self._size_bytes)
            except OSError:
                self._path.unlink()
                raise
            finally:
                os.close(handle)
        except OSError as error:
            _log.warning("the outbox could not reserve space on the disk", error=error.strerror)
            return False
        return True

    def is_laid(self) -> bool:
        """As far as there is to be any."""
        return self._size_bytes == 0 or self._path.exists()

    def drop(self) -> bool:
        """Give the space back; whether there was any."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:  # read-only by now, perhaps
            _log.warning("the outbox could not use its reserve", error=error.strerror)
            return False
        _log.warning("the disk is full: the outbox uses its reserve", directory=str(self._path.parent))
        return True
