"""The outbox's own time, which goes on evenly while the clock of the gateway is set: ages are told by it.

A gateway without a battery for its clock begins in 1970 and is then set by NTP; others are set years ahead by mistake,
and back again. Neither may make everything too old, nor end the grace time of what is kept.
"""

from __future__ import annotations

from collections.abc import Callable

AWAY_MAX_US = 30 * 86_400 * 1_000_000
"""A longer time between two runs, by the wall clock, is a clock that was set: then none is taken to have passed."""

STEP_US = 60 * 1_000_000
"""The clock was set if it went so much more or less than the steady time."""


class SteadyClock:
    """`monotonic_s`: seconds since some moment. `steady_us`: 0 where it is still to begin; then it does so at the wall
    time. It was so at `wall_us`; both are microseconds since 1970, as they were last written down."""

    def __init__(self, monotonic_s: Callable[[], float], steady_us: int = 0, wall_us: int = 0) -> None:
        self._monotonic_s = monotonic_s
        self._at_s: float | None = None  # None: not asked in this run
        self.steady_us = steady_us
        self.wall_us = wall_us

    def now_us(self, wall_us: int) -> int:
        """The steady time at this wall time, which is now. Between two runs as much passed as by the wall clock."""
        at_s = self._monotonic_s()
        if self._at_s is not None:
            self.steady_us += round((at_s - self._at_s) * 1e6)
        elif self.steady_us == 0:
            self.steady_us = wall_us
        elif 0 <= wall_us - self.wall_us <= AWAY_MAX_US:
            self.steady_us += wall_us - self.wall_us
        self._at_s, self.wall_us = at_s, wall_us
        return self.steady_us

    @property
    def ahead_us(self) -> int:
        """By how much the wall clock is ahead of the steady time."""
        return self.wall_us - self.steady_us

    def was_set(self, steady_us: int, wall_us: int) -> bool:
        """Whether the wall clock was set since these were written down."""
        return abs(wall_us - steady_us - self.ahead_us) > STEP_US
