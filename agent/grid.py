"""The fixed time grid of a device's poll groups. Pure: takes the monotonic time, returns what is due.

Group g is due at start + k × period for whole k. A late read does not move the grid, so there is no drift; grid points
that passed meanwhile are skipped and counted, never caught up in a burst, because that would load the plant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from protocols.field.contract import Group


class Grid:
    """`start_s`: monotonic seconds of the first grid point."""

    def __init__(self, groups: Sequence[Group], start_s: float) -> None:
        self._start_s = start_s
        self._groups = list(groups)
        self._ticks = [0] * len(groups)
        self.skipped = 0

    def next_due(self) -> tuple[float, int]:
        """(monotonic seconds, position in groups) of what is due first."""
        return min((self._due(at), at) for at in range(len(self._groups)))

    def _due(self, at: int) -> float:
        return self._start_s + self._ticks[at] * self._groups[at].period_s

    def done(self, at: int, now_s: float) -> None:
        """Group `at` was read; its next point is the first one after `now_s`."""
        passed = math.floor((now_s - self._start_s) / self._groups[at].period_s)
        following = max(self._ticks[at], passed) + 1
        self.skipped += following - self._ticks[at] - 1
        self._ticks[at] = following

    def resume(self, now_s: float) -> None:
        """The device can be read now, for the first time or again: each group is due at once, once, then on its grid.

        Otherwise an hourly group would stay bad for an hour after each short outage. Not counted as skipped.
        """
        for at, group in enumerate(self._groups):
            self._ticks[at] = math.floor((now_s - self._start_s) / group.period_s)
