"""What drivers gave whose line is not recorded: readings as records, and back as a course of values. Pure.

A record is JSON: {"group": …, "time_us": …, "readings": {tag: [value, quality, reason]}}, the reason only where there
is one. A scan of many tags is several records.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from agent.capture.records import CONTENT_BYTES_MAX, Record
from protocols.field.contract import Happening, Quality, Scan, Value

_TEXT_MAX = 400  # characters; what is longer is cut, so that each reading fits into a record
_ROOM = CONTENT_BYTES_MAX - 300  # for the group's name and the time


class Shown(NamedTuple):
    """A reading, as far as it is shown again."""

    value: Value
    quality: int


def encoded(scan: Scan) -> Iterator[bytes]:
    """The contents of the records that hold this scan."""
    indexes = range(len(scan.values)) if scan.indexes is None else scan.indexes
    qualities = [Quality.GOOD] * len(scan) if scan.quality is None else scan.quality
    held: list[str] = []
    size = 0
    for index, value, quality in zip(indexes, scan.values, qualities, strict=True):
        reading: list[Any] = [value[:_TEXT_MAX] if isinstance(value, str) else value, int(quality)]
        if reason := scan.reasons.get(index):
            reading.append(reason[:_TEXT_MAX])
        text = f"{json.dumps(scan.group.tags[index].name)}: {json.dumps(reading)}"
        if held and size + len(text) > _ROOM:
            yield _record(scan, held)
            held, size = [], 0
        held.append(text)
        size += len(text) + 2
    if held:
        yield _record(scan, held)


def _record(scan: Scan, held: list[str]) -> bytes:
    head = f'"group": {json.dumps(scan.group.name)}, "time_us": {scan.time_us}'
    return f'{{{head}, "readings": {{{", ".join(held)}}}}}'.encode()


def decoded(content: bytes) -> dict[str, Shown]:
    """The readings of a record by tag; none where it is no such record."""
    try:
        readings = json.loads(content)["readings"]
        return {tag: Shown(_value(one[0]), int(one[1]) & 0xFFFFFFFF) for tag, one in readings.items()}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


def _value(value: object) -> Value:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError("no value of a tag")


class Course:
    """How tags went over a recording. `length_us`: of the recording."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.readings = 0
        self._of: dict[str, tuple[list[int], list[Shown]]] = {}
        first_us = last_us = None
        for record in records:
            first_us = record.time_us if first_us is None else first_us
            last_us = record.time_us
            if record.happening is Happening.READ:
                self._take(record.time_us - first_us, decoded(record.content))
        self.length_us = max(1, (last_us or 0) - (first_us or 0))

    def _take(self, at_us: int, readings: dict[str, Shown]) -> None:
        for tag, shown in readings.items():
            times, values = self._of.setdefault(tag, ([], []))
            times.append(at_us)
            values.append(shown)
            self.readings += 1

    @property
    def tags(self) -> dict[str, tuple[int, int]]:
        """Tag → how many readings, and how many of these are not good."""
        return {
            tag: (len(values), sum(shown.quality != Quality.GOOD for shown in values))
            for tag, (_, values) in self._of.items()
        }

    def at(self, tag: str, at_us: int) -> Shown:
        """What a tag showed so long after the beginning; at the end again from the beginning."""
        if tag not in self._of:
            return Shown(None, Quality.BAD_WAITING_FOR_INITIAL_DATA)
        times, values = self._of[tag]
        return values[max(0, bisect_right(times, at_us % self.length_us) - 1)]
