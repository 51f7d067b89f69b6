"""Report by exception: of each scan what says something new. Pure, but for what it remembers; time is passed in.

A reading of a tag with a rule is reported when

- it is the tag's first,
- its quality is another than before,
- its value is further than the deadband from the value that was reported last (texts, booleans, infinities and NaN:
  when it is another),
- or the tag would otherwise be silent for longer than `max_silence_s`: when the next read would come too late.

So a series that holds each reported value until the next is never further than the deadband from what was read. The
deadband is measured from the value that was *reported* last, so that a slow drift cannot hide. A tag without a rule is
reported with every read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from operator import ne

from protocols.field.contract import Group, Scan, Value, ValueType

JITTER = 0.1
"""A read may be early by so much of its period, and is then as good as on time."""

_PLAIN = frozenset({bool, int, float, str, type(None)})
_STEP_US = 1000
_EXACT = 2**53
"""Below this a whole number and a float are the same."""


_NUMBERS = frozenset({ValueType.INT, ValueType.UINT, ValueType.FLOAT32, ValueType.FLOAT64})


@dataclass(frozen=True, slots=True)
class Rule:
    """`deadband` is in the tag's unit; `percent` is of the value reported last. The larger of the two counts."""

    deadband: float = 0.0
    percent: float = 0.0
    max_silence_s: float = math.inf

    def differs(self, value: Value, told: Value) -> bool:
        """Whether a value says something new where `told` was reported last."""
        if value == told:
            return False
        if isinstance(value, int | float) and isinstance(told, int | float):
            return self._is_beyond(value, told)
        return True

    def _is_beyond(self, value: float, told: float) -> bool:
        if value != value or told != told:  # NaN
            return (value != value) is not (told != told)
        try:
            return abs(value - told) > self._width(told) or math.isinf(told)
        except OverflowError:  # a whole number beyond every float
            return True

    def _width(self, told: float) -> float:
        return max(self.deadband, self.percent / 100 * abs(told))

    def band(self, told: Value) -> tuple[float, float]:
        """From where to where no value differs for certain; NaN where that is not known.

        Rounded inwards: a value in it is never further than the deadband, to the last bit.
        """
        if not isinstance(told, int | float) or not abs(told) < _EXACT:
            return math.nan, math.nan
        width = self._width(told)
        if width == 0:
            return told, told
        return math.nextafter(told - width, told), math.nextafter(told + width, told)


class Changes:
    """What is new in the scans of one group. `rules`: of each of its tags; None: it is reported with every read."""

    def __init__(self, group: Group, rules: Sequence[Rule | None]) -> None:
        count = len(group.tags)
        self._group = group
        self._rules = [
            rule if rule is None or tag.value_type in _NUMBERS else Rule(max_silence_s=rule.max_silence_s)
            for tag, rule in zip(group.tags, rules, strict=True)
        ]
        self._always = [at for at, rule in enumerate(rules) if rule is None]
        self._patience_s = [
            math.inf if rule is None else max(0.0, rule.max_silence_s - (1 - JITTER) * group.period_s) for rule in rules
        ]
        self._told: list[Value] = [None] * count
        self._told_us = [0] * count
        self._stated_us: dict[int, int] = {}  # of tags whose readings must come after that
        self._low, self._high = [math.nan] * count, [math.nan] * count  # the bands of these
        self._due_s = [math.inf if rule is None else -math.inf for rule in rules]  # -inf: never reported
        self._first_due_s = -math.inf  # never later than the earliest of these
        self._seen: list[Value] = [None] * count
        self._quality = [0] * count
        self._reasons: dict[int, str] = {}

    def of(self, scan: Scan, now_s: float) -> Scan | None:
        """What is to be reported of the scan; None where that is nothing. `now_s`: monotonic."""
        found = self._new(scan, now_s)
        return found if found is None or not self._stated_us else self._after_what_was_stated(found)

    def _new(self, scan: Scan, now_s: float) -> Scan | None:
        if not _PLAIN.issuperset(map(type, scan.values)):  # the batcher says what is wrong with it
            return scan
        quality = [0] * len(scan.values) if scan.quality is None else list(scan.quality)
        if scan.indexes is not None:
            positions = list(scan.indexes)
            return _only(scan, self._news(positions, scan.values, quality, scan, now_s))
        values = list(scan.values)
        if values == self._seen and quality == self._quality and now_s < self._first_due_s:
            return _only(scan, self._always)
        moved = self._moved(values, quality, now_s)
        news = self._news(moved, [values[at] for at in moved], [quality[at] for at in moved], scan, now_s)
        self._seen, self._quality = values, quality
        return _only(scan, sorted({*self._always, *news}) if self._always else news)

    def overdue(self, now_s: float, now_us: int) -> Scan | None:
        """The last readings, stated again, of tags that were silent for too long; `now_us`: since 1970.

        For subscriptions, which say nothing of what stays the same; to be asked after a read that went well. Stated is
        what held a period ago: a newer change may be on its way still, and must not seem to be older than this.
        """
        if now_s < self._first_due_s:
            return None
        positions = [at for at in self._overdue(now_s) if self._due_s[at] != -math.inf]
        values, quality = [self._seen[at] for at in positions], [self._quality[at] for at in positions]
        told_us = [self._told_us[at] + _STEP_US for at in positions]
        time_us = max(now_us - round(self._group.period_s * 1e6), *told_us, 0)
        for at, value in zip(positions, values, strict=True):
            self._tell(at, value, now_s, time_us)
            self._stated_us[at] = time_us
        self._first_due_s = min(self._due_s)
        reasons = {at: self._reasons[at] for at in positions if at in self._reasons}
        stated = Scan(self._group, time_us, values, positions, quality if any(quality) else None, reasons)
        return stated if positions else None

    def _after_what_was_stated(self, scan: Scan) -> Scan:
        """A change that was on its way when the value before it was stated again comes after that."""
        indexes = range(len(scan)) if scan.indexes is None else scan.indexes
        stated_us = max(self._stated_us.get(at, -1) for at in indexes)
        if scan.time_us > stated_us:
            for at in indexes:
                self._stated_us.pop(at, None)
            return scan
        time_us = stated_us + _STEP_US
        for at in indexes:
            self._told_us[at] = self._stated_us[at] = time_us
        return replace(scan, time_us=time_us)

    def _moved(self, values: list[Value], quality: list[int], now_s: float) -> list[int]:
        """Positions of tags that differ from the last scan, or are due, ascending. The rest was judged then."""
        everywhere = range(len(values))
        found = set(self._beyond(values, compress(everywhere, map(ne, values, self._seen))))
        if quality != self._quality:
            found.update(compress(everywhere, map(ne, quality, self._quality)))
        if now_s >= self._first_due_s:
            found.update(self._overdue(now_s))
        return sorted(found)

    def _beyond(self, values: Sequence[Value], positions: Iterable[int]) -> Iterable[int]:
        """Those of the positions whose values may differ: most signals that move do so within their deadbands."""
        low, high = self._low, self._high
        changed = list(positions)
        try:
            return [at for at in changed if not low[at] <= values[at] <= high[at]]  # type: ignore[operator]
        except TypeError:  # one is a text, or missing
            return changed

    def _overdue(self, now_s: float) -> Iterable[int]:
        return [at for at, due_s in enumerate(self._due_s) if due_s <= now_s]

    def _news(
        self, positions: Sequence[int], values: Sequence[Value], quality: Sequence[int], scan: Scan, now_s: float
    ) -> list[int]:
        """Which of these readings are to be reported, as positions. They are remembered."""
        told = []
        for at, value, code in zip(positions, values, quality, strict=True):
            rule = self._rules[at]
            is_new = now_s >= self._due_s[at] or code != self._quality[at]
            if rule is None or is_new or rule.differs(value, self._told[at]):
                told.append(at)
                self._tell(at, value, now_s, scan.time_us)
            self._seen[at], self._quality[at] = value, code
            if at in scan.reasons:
                self._reasons[at] = scan.reasons[at]
            else:
                self._reasons.pop(at, None)
        if now_s >= self._first_due_s:
            self._first_due_s = min(self._due_s)
        return told

    def _tell(self, at: int, value: Value, now_s: float, time_us: int) -> None:
        rule = self._rules[at]
        if rule is not None:
            self._told[at], self._told_us[at] = value, time_us
            self._low[at], self._high[at] = rule.band(value)
            self._due_s[at] = now_s + self._patience_s[at]


def _only(scan: Scan, told: Sequence[int]) -> Scan | None:
    """The readings of the scan at these positions in the group; None where that is none."""
    if len(told) == len(scan):
        return scan
    if not told:
        return None
    numbers = told
    if scan.indexes is not None:
        kept = set(told)
        numbers = [number for number, at in enumerate(scan.indexes) if at in kept]
    return Scan(
        scan.group,
        scan.time_us,
        [scan.values[number] for number in numbers],
        told,
        None if scan.quality is None else [scan.quality[number] for number in numbers],
        {at: scan.reasons[at] for at in told if at in scan.reasons} if scan.reasons else {},
    )
