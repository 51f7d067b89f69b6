"""What a decoded value means to people: states and flags by name, limits, counters that go round. Pure, but for what a
counter remembers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from protocols.field.contract import Quality, Value


class Judged(NamedTuple):
    """A value with its quality; the reason is a phrase, "" where the quality is good."""

    value: Value
    quality: int = Quality.GOOD
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Meaning:
    """`states`: number → its name. `flags`: bit → its name. `low`, `high`: what the value is held within."""

    states: Mapping[int, str] | None = None
    flags: Mapping[int, str] | None = None
    low: float | None = None
    high: float | None = None

    def of(self, value: Value) -> Judged:
        """The judged value. None stays None, and keeps what was said of it."""
        if self.states is not None and isinstance(value, int):
            name = self.states.get(value)
            if name is None:
                return Judged(None, Quality.BAD_OUT_OF_RANGE, f"the device sent {value}, which `states` does not name")
            return Judged(name)
        if self.flags is not None and isinstance(value, int):
            return Judged(", ".join(name for bit, name in sorted(self.flags.items()) if value >> bit & 1))
        if isinstance(value, int | float):
            return self._held(value)
        return Judged(value)

    def _held(self, value: float) -> Judged:
        kind = type(value)  # an integer stays one
        if self.low is not None and value < self.low:
            return Judged(kind(self.low), Quality.UNCERTAIN, f"the device sent {value:g}, below clamp_min {self.low:g}")
        if self.high is not None and value > self.high:
            return Judged(
                kind(self.high), Quality.UNCERTAIN, f"the device sent {value:g}, above clamp_max {self.high:g}"
            )
        return Judged(value)


class Counter:
    """Turns a counter that goes round, or begins again, into a total that only grows.

    A reading below the one before it is a roll-over when, counted on over the end, it is at most `step_max` further;
    otherwise the device began again at 0. From 65,535 to 0 is one step; from 30,000 to 0 is a reset.
    """

    def __init__(self, size: int, step_max: int) -> None:
        self._size = size
        self._step_max = step_max
        self._last: int | None = None
        self._base = 0

    def total(self, raw: int) -> int:
        """The total at this reading. The first one is its own total."""
        last, self._last = self._last, raw
        if last is not None and raw < last:
            self._base += self._size if raw + self._size - last <= self._step_max else last
        return self._base + raw

    @property
    def state(self) -> tuple[int, int] | None:
        """Base and last reading; None before the first reading."""
        return None if self._last is None else (self._base, self._last)

    def restore(self, state: tuple[int, int]) -> None:
        """As it was when `state` was taken."""
        self._base, self._last = state


def total_of(state: object) -> tuple[int, int]:
    """A counter's state as it comes out of JSON. Raises ValueError on what is none."""
    if isinstance(state, list) and len(state) == 2 and all(type(part) is int and part >= 0 for part in state):
        return state[0], state[1]
    raise ValueError(f"{state!r} is no counter")
