"""The last value of every tag, found by name. Pure.

Taking a scan costs the same for any number of tags; only what is asked for is made into rows.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from agent.derived import Formula
from agent.latest import Latest, Reading, shown, word
from agent.live.query import Query
from agent.settings import Configuration, Device
from protocols.field.contract import Group, Quality, Scan, Tag, Value
from protocols.program.terminal import clean

FOUND_KEPT_MAX = 8
"""So many filters' results are kept: the same few are asked for every second."""

WHOLE_MAX = 2**53 - 1
"""The largest whole number that a browser takes as it is."""

TEXT_MAX = 300


class Values:
    """Of the devices of a configuration, in its order."""

    def __init__(self, configuration: Configuration) -> None:
        self._groups = [
            (device, Latest(group), _written(configuration, device, group))
            for device in configuration.devices
            for group in device.published
        ]
        self._by_name = {(latest.group.device, latest.group.name): latest for _, latest, _ in self._groups}
        self._address_keys = {device.name: device.address_key for device in configuration.devices}
        self._starts = [0, *accumulate(len(latest.group.tags) for _, latest, _ in self._groups)]
        self._found: dict[str, Sequence[int]] = {}

    def __len__(self) -> int:
        """How many tags there are."""
        return self._starts[-1]

    def take(self, scan: Scan) -> None:
        """Something was read, or could not be."""
        self._by_name[scan.group.device, scan.group.name].take(scan)

    def group(self, device: str, tag: str) -> tuple[Group, int] | None:
        """Where a tag stands: its group and its position there."""
        for one, latest, _ in self._groups:
            if one.name == device:
                for index, found in enumerate(latest.group.tags):
                    if found.name == tag:
                        return latest.group, index
        return None

    def wrong(self) -> Mapping[str, int]:
        """Device → how many of its tags have no good value."""
        counts = {device.name: 0 for device, _, _ in self._groups}
        for device, latest, _ in self._groups:
            counts[device.name] += len(latest.not_good())
        return counts

    def asked(self, query: Query) -> dict[str, Any]:
        """The rows that are asked for, and how many there would be."""
        positions = self._matching(query.filter)
        if query.wrong:
            wanted = set(self._wrong_positions())
            positions = [position for position in positions if position in wanted]
        offset = max(0, min(query.offset, len(positions) - 1))
        rows = [self._row(position) for position in positions[offset : offset + query.limit]]
        return {"tags": len(self), "found": len(positions), "offset": offset, "rows": rows}

    def _matching(self, wanted: str) -> Sequence[int]:
        words = wanted.casefold().split()
        if not words:
            return range(len(self))
        key = " ".join(words)
        if key not in self._found:
            while len(self._found) >= FOUND_KEPT_MAX:
                del self._found[next(iter(self._found))]
            self._found[key] = [at for at, name in enumerate(self._names()) if all(word in name for word in words)]
        return self._found[key]

    def _names(self) -> Iterator[str]:
        for device, latest, _ in self._groups:
            for tag in latest.group.tags:
                yield f"{device.name}/{tag.name}".casefold()

    def _wrong_positions(self) -> Iterator[int]:
        for start, (_, latest, _) in zip(self._starts, self._groups, strict=False):
            for index in latest.not_good():
                yield start + index

    def _row(self, position: int) -> dict[str, Any]:
        at = bisect_right(self._starts, position) - 1
        device, latest, keys = self._groups[at]
        index = position - self._starts[at]
        tag = latest.group.tags[index]
        return {
            "device": device.name,
            "group": latest.group.name,
            "tag": tag.name,
            "unit": clean(tag.unit),
            "address": self._address(device, tag, keys[index] if keys else None),
            **_read(tag, latest.reading(index)),
        }

    def _address(self, device: Device, tag: Tag, keys: Mapping[str, Any] | None) -> str:
        """Where a tag is, or what it is derived from."""
        if keys is None:
            formula: Formula = tag.address
            return f"from {', '.join(formula.names)}"[:TEXT_MAX]
        key = self._address_keys[device.name]
        return "" if key is None else str(keys.get(key, ""))[:TEXT_MAX]


def _read(tag: Tag, reading: Reading | None) -> dict[str, Any]:
    if reading is None:
        return {"value": None, "shown": "-", "quality": "none", "status": "", "time_us": None, "reason": ""}
    name = Quality.name(reading.quality)
    return {
        "value": plain(reading.value),
        "shown": _short(clean(shown(reading.value, tag.value_type))),
        "quality": word(reading),
        "status": name,
        "time_us": reading.time_us,
        "reason": "" if reading.quality == Quality.GOOD else _short(clean(reading.reason or name)),
    }


def plain(value: Value) -> Value:
    """A value as JSON and JavaScript can hold it; None where they cannot, and for a text that is too long."""
    match value:
        case bool() | None:
            return value
        case int():
            return value if abs(value) <= WHOLE_MAX else None
        case float():
            return value if math.isfinite(value) else None
    return value if len(value) <= TEXT_MAX else None


def _short(text: str) -> str:
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}…"


def _written(configuration: Configuration, device: Device, group: Group) -> Sequence[Mapping[str, Any]]:
    """The keys of each of the group's tags as the configuration has them; nothing of what is derived."""
    settings = next(one for one in configuration.settings.devices if one.name == device.name)
    return next((one.tags for one in settings.groups if one.name == group.name), ())
