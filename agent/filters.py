"""Filters of single tags: the median, the mean, and a smooth line of the last readings. Pure, but for what they hold.

In this order, where a tag has several. A reading without a number (bad, NaN, infinite) passes as it is, and the filters
begin anew after it: what was before a gap says nothing of what comes after. Quality stays that of the reading. Whole
numbers stay whole, rounded.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean, median

from protocols.field.contract import Scan, Value


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a tag's keys say; 0: not wanted."""

    median_of: int = 0
    average_of: int = 0
    smooth_s: float = 0.0


class Filter:
    """Of one tag."""

    def __init__(self, wanted: Wanted) -> None:
        self._medians = deque[float](maxlen=wanted.median_of)
        self._means = deque[float](maxlen=wanted.average_of)
        self._smooth_s = wanted.smooth_s
        self._smooth: tuple[float, int] | None = None  # value and time of the last reading

    def of(self, value: Value, time_us: int) -> Value:
        """The filtered value."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            self._restart()
            return value
        found = self._smoothed(self._mean(self._median(float(value))), time_us)
        return found if isinstance(value, float) or not math.isfinite(found) else round(found)

    def _restart(self) -> None:
        self._medians.clear()
        self._means.clear()
        self._smooth = None

    def _median(self, value: float) -> float:
        if not self._medians.maxlen:
            return value
        self._medians.append(value)
        return median(self._medians)

    def _mean(self, value: float) -> float:
        if not self._means.maxlen:
            return value
        self._means.append(value)
        try:
            return fmean(self._means)
        except OverflowError:  # the sum, not the mean
            return math.fsum(one / len(self._means) for one in self._means)

    def _smoothed(self, value: float, time_us: int) -> float:
        if not self._smooth_s:
            return value
        last, last_us = self._smooth or (value, time_us)
        share = -math.expm1(-max(0, time_us - last_us) / 1e6 / self._smooth_s)
        self._smooth = last * (1 - share) + value * share, time_us
        return self._smooth[0]


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


class Filters:
    """Of one group. `wanted`: by position in the group, for the tags that have any."""

    def __init__(self, wanted: Mapping[int, Wanted]) -> None:
        self._of = {at: Filter(one) for at, one in wanted.items()}

    def of(self, scan: Scan) -> Scan:
        """The scan with the filtered values."""
        values = list(scan.values)
        if scan.indexes is None:
            for at, one in self._of.items():
                values[at] = one.of(values[at], scan.time_us)
        else:
            for number, at in enumerate(scan.indexes):
                if at in self._of:
                    values[number] = self._of[at].of(values[number], scan.time_us)
        return replace(scan, values=values)
