"""Which units behind one endpoint are silent, and when each is asked again. Pure: takes the time, returns what is due.

A unit that does not answer costs everybody behind the same gateway a whole time-out. So it rests, PAUSE_S_FIRST at
first, twice as long after each further failure, PAUSE_S_MAX at most, while its neighbours keep their period.
"""

from __future__ import annotations

from dataclasses import dataclass

PAUSE_S_FIRST = 1.0
PAUSE_S_MAX = 30.0
FAILURES_PER_READ = 3  # then whoever has not been asked waits for the next read, so that no read takes for ever


@dataclass(slots=True)
class _Silence:
    quality: int
    reason: str
    is_mute: bool
    pause_s: float
    until_s: float


class Units:
    """The units of one device."""

    def __init__(self, unit_ids: frozenset[int]) -> None:
        self._unit_ids = unit_ids
        self._silent: dict[int, _Silence] = {}

    @property
    def all_mute(self) -> bool:
        """Not one of them has anything behind it that answers, be it with an exception: nothing can be read."""
        return all(unit_id in self._silent and self._silent[unit_id].is_mute for unit_id in self._unit_ids)

    def silence(self, unit_id: int) -> tuple[int, str] | None:
        """Quality and reason of its tags when it is silent; None: as far as is known it answers."""
        found = self._silent.get(unit_id)
        return None if found is None else (found.quality, found.reason)

    def is_due(self, unit_id: int, now_s: float) -> bool:
        """Whether it may be asked."""
        found = self._silent.get(unit_id)
        return found is None or now_s >= found.until_s

    def failed(self, unit_id: int, now_s: float, quality: int, reason: str, is_mute: bool) -> None:
        """It did not answer, or a gateway said so in its place (then it is not `is_mute`)."""
        before = self._silent.get(unit_id)
        pause_s = PAUSE_S_FIRST if before is None else min(2 * before.pause_s, PAUSE_S_MAX)
        self._silent[unit_id] = _Silence(quality, reason, is_mute, pause_s, now_s + pause_s)

    def answered(self, unit_id: int) -> None:
        if self._silent:
            self._silent.pop(unit_id, None)

    def wake(self) -> None:
        """After a reconnect: nothing is known."""
        self._silent.clear()
