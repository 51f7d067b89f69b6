"""How much is on its way: published, not confirmed, and not known to be lost; and how much of it there may be. Pure.

It is bounded over all lanes in count and bytes, so that the broker never has to hold more than that. The backlog never
takes more than BACKLOG_SHARE of it, so that there is always room for what is live.
"""

from __future__ import annotations

import math

LOAD_COUNT = 500
LOAD_BYTES = 16 << 20
BACKLOG_SHARE = 0.75
BACKLOG_MIN = 4
"""Where messages get lost on the way, the backlog is thinned by half, down to so many at a time; then it grows."""

THIN_PAUSE_S = 10.0
SHARE_MIN = 16
"""Each lane may have as much as its share, and always so many numbers."""


class Load:
    """`backlog_bytes`: of the backlog on its way."""

    def __init__(self, count_max: int = LOAD_COUNT, bytes_max: int = LOAD_BYTES) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._count = self._bytes = 0
        self._backlog_count = 0
        self._backlog_max = count_max
        self._thinned_s = -math.inf
        self.backlog_bytes = 0

    def takes(self) -> bool:
        """Whether there is room for anything more."""
        return self._count < self._count_max and self._bytes < self._bytes_max

    def takes_backlog(self) -> bool:
        """Whether there is room for more of the backlog."""
        return (
            self.takes()
            and self._backlog_count < min(BACKLOG_SHARE * self._count_max, self._backlog_max)
            and self.backlog_bytes < BACKLOG_SHARE * self._bytes_max
        )

    def share(self, lanes: int) -> int:
        """How many numbers one of so many lanes may have: one that is stuck must not hold up the others."""
        return max(SHARE_MIN, self._count_max // max(1, lanes))

    def backlog_share(self, lanes: int) -> int:
        """Likewise of its backlog."""
        return int(self.share(lanes) * BACKLOG_SHARE)

    def add(self, size: int, *, history: bool) -> None:
        """A message of so many bytes is on its way; `history`: of the backlog."""
        self._change(1, size, history=history)

    def remove(self, size: int, *, history: bool) -> None:
        """It is no longer."""
        self._change(-1, -size, history=history)

    def _change(self, count: int, size: int, *, history: bool) -> None:
        self._count += count
        self._bytes += size
        if history:
            self._backlog_count += count
            self.backlog_bytes += size

    def grow(self) -> None:
        """Some of the backlog has arrived."""
        self._backlog_max = min(self._count_max, self._backlog_max + max(1, self._backlog_max // 8))

    def thin(self, now_s: float) -> None:
        """What was published got lost on the way: most likely a queue of the broker ran over. Send less at a time."""
        if now_s - self._thinned_s >= THIN_PAUSE_S:
            self._thinned_s = now_s
            self._backlog_max = max(BACKLOG_MIN, min(self._backlog_max, self._count_max) // 2)
