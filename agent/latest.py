"""The last that is known of a device's tags. Pure.

A whole scan is kept as it is, which costs the same for one tag as for ten thousand; parts of a group, as subscriptions
report them, are laid over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from protocols.field.contract import Group, Quality, Scan, Value, ValueType


class Reading(NamedTuple):
    """The last that is known of a tag. `time_us`: microseconds since 1970."""

    value: Value
    quality: int
    time_us: int
    reason: str


class Latest:
    """The last reading of each tag of a group, by position; None where none has come."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._whole: Scan | None = None
        self._later: dict[int, Reading] = {}
        self.waiting: dict[int, str] = {}  # what tags wait for that nothing has come of, where that is known

    def take(self, scan: Scan) -> None:
        """Lay a scan over what is known."""
        if scan.indexes is None:
            self._whole = scan
            self._later.clear()
            return
        for at, index in enumerate(scan.indexes):
            self._later[index] = _reading(scan, at, index)

    def reading(self, index: int) -> Reading | None:
        """That of one tag."""
        later = self._later.get(index)
        if later is None and self._whole is not None:
            return _reading(self._whole, index, index)
        return later

    @property
    def readings(self) -> list[Reading | None]:
        """That of every tag."""
        return [self.reading(index) for index in range(len(self.group.tags))]

    @property
    def is_complete(self) -> bool:
        """Whether every tag has had a reading."""
        return self._whole is not None or len(self._later) == len(self.group.tags)

    def not_good(self) -> Sequence[int]:
        """The positions of the tags without a good reading, ascending."""
        if self._whole is None or self._later:
            return [
                index
                for index, reading in enumerate(self.readings)
                if reading is None or reading.quality != Quality.GOOD
            ]
        quality = self._whole.quality
        return () if quality is None else [index for index, code in enumerate(quality) if code != Quality.GOOD]


def word(reading: Reading | None) -> str:
    """`good`, `uncertain`, `bad`, or `none` where nothing has come."""
    return "none" if reading is None else Quality.word(reading.quality)


def shown(value: Value, value_type: ValueType) -> str:
    """A value for people: a float without the digits that its type does not have."""
    match value:
        case None:
            return "-"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.7g}" if value_type is ValueType.FLOAT32 else f"{value:.12g}"
    return str(value)


def _reading(scan: Scan, at: int, index: int) -> Reading:
    quality = Quality.GOOD if scan.quality is None else scan.quality[at]
    return Reading(scan.values[at], quality, scan.time_us, scan.reasons.get(index, ""))
