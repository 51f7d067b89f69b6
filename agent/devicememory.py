"""What a driver learned about its device, kept in a small JSON file over restarts.

Losing the file costs some requests until it is learned again, and no reading: so it is written without fsync, and one
that cannot be read is said once and left behind.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from protocols.field.contract import Driver, Remembers
from protocols.program.logs import get_logger

KEEP_S = 10.0  # at most one write in so many seconds

_log = get_logger(part="device")


class DeviceMemory:
    """The file of one device. A driver that remembers nothing has none."""

    def __init__(self, path: Path, device: str, driver: Driver) -> None:
        self._path = path
        self._device = device
        self._driver = driver if isinstance(driver, Remembers) else None
        self._written_s = -KEEP_S

    def recall(self) -> None:
        """Tell the driver what it knew; before its first connect."""
        if self._driver is None or not self._path.exists():
            return
        try:
            self._driver.recall(json.loads(self._path.read_bytes()))
        except (OSError, ValueError, TypeError, KeyError) as error:
            _log.warning(
                "what was learned about the device cannot be read and is learned anew",
                device=self._device,
                file=str(self._path),
                reason=f"{type(error).__name__}: {error}",
            )

    def keep(self, *, at_once: bool = False) -> None:
        """Write what is new, if anything. Called after each read, and with `at_once` at the end."""
        now_s = time.monotonic()
        if self._driver is None or (now_s - self._written_s < KEEP_S and not at_once):
            return
        state = self._driver.memory()
        if state is None:
            return
        self._written_s = now_s
        fresh = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps(state))
            fresh.replace(self._path)
        except OSError as error:
            _log.warning("what was learned about the device cannot be kept", device=self._device, reason=str(error))
