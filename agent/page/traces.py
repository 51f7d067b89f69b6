"""Every reading of the few tags that somebody looks at closely, for as long as somebody does. Pure.

While nobody looks, a scan costs one look into an empty dictionary. What is kept is bounded, whoever asks for what.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from protocols.field.contract import Group, Scan
from protocols.values import Value

TRACES_MAX = 16
POINTS_MAX = 3000
KEPT_S = 15.0
"""A trace that nobody has asked for so long is over."""

Point = tuple[int, float | None]
"""Microseconds since 1970, and the value; None where there was no number."""


@dataclass(slots=True)
class _Trace:
    index: int
    asked_s: float
    points: deque[Point] = field(default_factory=lambda: deque(maxlen=POINTS_MAX))


class Traces:
    """`take` gets every scan. `now_s`: a steady clock."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], dict[int, _Trace]] = {}

    def take(self, scan: Scan) -> None:
        """Note the tags that are looked at."""
        if not self._of:
            return
        for trace in self._of.get((scan.group.device, scan.group.name), {}).values():
            at = _position(scan, trace.index)
            if at is not None:
                trace.points.append((scan.time_us, number(scan.values[at])))

    def points(self, group: Group, index: int, after_us: int, now_s: float) -> Sequence[Point]:
        """What came after that time. The first time that a tag is asked for its trace begins."""
        self._forget(now_s)
        traces = self._of.setdefault((group.device, group.name), {})
        if index not in traces:
            self._make_room()
            traces = self._of.setdefault((group.device, group.name), {})
            traces[index] = _Trace(index, now_s)
        trace = traces[index]
        trace.asked_s = now_s
        return [point for point in trace.points if point[0] > after_us]

    def __len__(self) -> int:
        """How many tags are looked at."""
        return sum(map(len, self._of.values()))

    def _forget(self, now_s: float) -> None:
        for key, traces in list(self._of.items()):
            kept = {index: trace for index, trace in traces.items() if now_s - trace.asked_s < KEPT_S}
            if kept:
                self._of[key] = kept
            else:
                del self._of[key]

    def _make_room(self) -> None:
        """The one that was not asked for the longest goes."""
        while len(self) >= TRACES_MAX:
            every = [(trace.asked_s, key, index) for key, traces in self._of.items() for index, trace in traces.items()]
            _, key, index = min(every)
            del self._of[key][index]


def number(value: Value) -> float | None:
    """A value's height in a plot; None where it has none."""
    if value is None or isinstance(value, str):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _position(scan: Scan, index: int) -> int | None:
    """Where a tag's value stands in a scan."""
    if scan.indexes is None:
        return index
    return scan.indexes.index(index) if index in scan.indexes else None
