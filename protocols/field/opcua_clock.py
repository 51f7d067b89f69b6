"""Whether a server's time stamps are believed. Pure: no clock, it is given the time.

A reading's time is the source's. That is worth something only while the source's clock is right, and small PLCs start
in the year 2000 when their battery is empty. So the server's clock is compared with ours again and again, and what it
stamps while it is out of line is not believed:

    the server's clock is off          our time, as far as the distance of the clocks gives it; quality Uncertain
    a time lies ahead of our clock     the time of arrival; Uncertain: nothing is measured in the future
    a tag's time went back             the time of arrival; Uncertain: a clock was set back just now

A quality that is not good anyway stays as it is. Times are microseconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass

_UNITS = ((86_400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))


@dataclass(frozen=True, slots=True)
class Clock:
    """The server's clock: how far it is ahead of ours, and how much of that is tolerated."""

    tolerance_us: int
    ahead_us: int = 0

    def judge(self, stated_us: int, now_us: int, previous_us: int | None) -> tuple[int, str]:
        """The time to go by, and why it is not the stated one; empty where it is.

        `previous_us`: what the same source stated before, where this is a later value of it.
        """
        if abs(self.ahead_us) > self.tolerance_us:
            way = "ahead" if self.ahead_us > 0 else "behind"
            return min(stated_us - self.ahead_us, now_us), (
                f"the server's clock is about {_length(abs(self.ahead_us))} {way}; set it, best by NTP"
            )
        if stated_us > now_us + self.tolerance_us:
            return now_us, "its time stamp lies in the future; check the clocks of the server and of what feeds it"
        if previous_us is not None and stated_us < previous_us - self.tolerance_us:
            return now_us, "its time stamp went back; check the clocks of the server and of what feeds it"
        return stated_us, ""


def _length(us: int) -> str:
    """Rounded, so that a sentence does not change with every measurement."""
    seconds = us / 1_000_000
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= 2 * size), _UNITS[-1])
    return f"{round(seconds / size)} {unit}"
