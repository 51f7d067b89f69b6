"""Scans of one poll group → a block of columns. Pure.

What a driver gave, whatever it is, becomes something that can be encoded and decoded: a batch that the broker or the
receiver refuses would be sent for ever.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import NoneType
from typing import Any

from protocols.field.contract import Group, Scan, Tag
from protocols.uplink.batch import Block, Column
from protocols.uplink.columns import STATUS_MAX, TEXT_MAX
from protocols.values import Quality, Value, ValueType

REASON_MAX = 500
_ALLOWED: dict[ValueType, frozenset[type]] = {
    ValueType.BOOL: frozenset({bool}),
    ValueType.INT: frozenset({int}),
    ValueType.UINT: frozenset({int}),
    ValueType.FLOAT32: frozenset({float, int}),
    ValueType.FLOAT64: frozenset({float, int}),
    ValueType.STRING: frozenset({str}),
}
_RANGE = {ValueType.INT: (-(1 << 63), (1 << 63) - 1), ValueType.UINT: (0, (1 << 64) - 1)}


def block(group: Group, scans: Sequence[Scan]) -> Block:
    """The scans of one group as columns; tags that no scan holds have none."""
    times_us = [scan.time_us for scan in scans]
    if all(scan.indexes is None for scan in scans):
        columns = _full_columns(group, scans)
    else:
        columns = _sparse_columns(group, scans)
    return Block(group.device, times_us, [_checked(column) for column in columns])


def _full_columns(group: Group, scans: Sequence[Scan]) -> list[Column]:
    values = zip(*(scan.values for scan in scans), strict=True)
    if _all_good(scans):
        return [_column(tag, found) for tag, found in zip(group.tags, values, strict=True)]
    good = [0] * len(group.tags)
    quality = zip(*(good if scan.quality is None else scan.quality for scan in scans), strict=True)
    reasons: dict[int, dict[int, str]] = {}
    for row, scan in enumerate(scans):
        for at, reason in scan.reasons.items():
            reasons.setdefault(at, {})[row] = reason
    return [
        _column(tag, found, None, codes, reasons.get(at))
        for at, (tag, found, codes) in enumerate(zip(group.tags, values, quality, strict=True))
    ]


def _sparse_columns(group: Group, scans: Sequence[Scan]) -> list[Column]:
    """Two plain appends a reading, and more only for what is not good: subscriptions make nothing but such blocks."""
    rows: list[list[int]] = [[] for _ in group.tags]
    values: list[list[Value]] = [[] for _ in group.tags]
    add_row, add_value = [found.append for found in rows], [found.append for found in values]
    faults: dict[int, dict[int, int]] = {}
    reasons: dict[int, dict[int, str]] = {}
    for row, scan in enumerate(scans):
        indexes = range(len(group.tags)) if scan.indexes is None else scan.indexes
        for at, code in zip(indexes, scan.quality or (), strict=False):
            if code:
                faults.setdefault(at, {})[len(rows[at])] = code
        for at in indexes if scan.reasons else ():
            if at in scan.reasons:
                reasons.setdefault(at, {})[len(rows[at])] = scan.reasons[at]
        for at, value in zip(indexes, scan.values, strict=True):
            add_row[at](row)
            add_value[at](value)
    return [
        _column(
            tag,
            values[at],
            None if len(rows[at]) == len(scans) else rows[at],
            _codes(faults[at], len(rows[at])) if at in faults else None,
            reasons.get(at),
        )
        for at, tag in enumerate(group.tags)
        if rows[at]
    ]


def _codes(faults: Mapping[int, int], count: int) -> list[int]:
    return [faults.get(at, Quality.GOOD) for at in range(count)]


def _all_good(scans: Sequence[Scan]) -> bool:
    return all(scan.quality is None for scan in scans)


def _column(
    tag: Tag,
    values: Sequence[Value],
    rows: Sequence[int] | None = None,
    quality: Sequence[int] | None = None,
    reasons: dict[int, str] | None = None,
) -> Column:
    if quality is not None and quality.count(Quality.GOOD) == len(quality):
        quality = None
    # A reason that only repeats the one before it says nothing new.
    told = {at: _carried(text) for at, text in (reasons or {}).items() if (reasons or {}).get(at - 1) != text}
    return Column(tag.name, tag.value_type, values, tag.unit, rows, quality, told)


def _carried(reason: str) -> str:
    """As much of it as the receiver takes, without what is no character."""
    return reason[:REASON_MAX].encode(errors="replace").decode()


def _checked(column: Column) -> Column:
    """A driver is taken at its word only where that can be carried; the rest becomes bad, with a reason."""
    if _all_fit(column.type, column.values) and _all_sound(column):
        return column
    values, reasons = list(column.values), dict(column.reasons)
    quality = list(column.quality or [0] * len(values))
    for at, value in enumerate(column.values):
        if value is not None and not _all_fit(column.type, [value]):
            values[at], quality[at] = None, Quality.BAD_TYPE_MISMATCH
            reasons[at] = f"the driver gave a value of type {type(value).__name__} that does not fit {column.type}"
        elif not _is_sound(value, quality[at]):
            quality[at] = Quality.BAD
            reasons.setdefault(at, "the driver gave no value" if value is None else "the driver gave no status code")
    return replace(column, values=values, quality=quality, reasons=reasons)


def _all_sound(column: Column) -> bool:
    if column.quality is None:
        return None not in column.values
    return all(map(_is_sound, column.values, column.quality))


def _is_sound(value: Value, code: int) -> bool:
    """No value only with bad quality, and that a status code."""
    if isinstance(code, bool) or not isinstance(code, int) or not 0 <= code <= STATUS_MAX:
        return False
    return value is not None or Quality.word(code) == "bad"


def _all_fit(value_type: ValueType, values: Sequence[Any]) -> bool:
    kinds = set(map(type, values))
    present = [value for value in values if value is not None] if NoneType in kinds else values
    if not kinds - {NoneType} <= _ALLOWED[value_type]:
        return False
    match value_type:
        case ValueType.INT | ValueType.UINT:
            low, high = _RANGE[value_type]
            return not present or bool(low <= min(present) and max(present) <= high)
        case ValueType.FLOAT32 | ValueType.FLOAT64:
            return _all_floats_fit("f" if value_type is ValueType.FLOAT32 else "d", present)
        case ValueType.STRING:
            return all(len(text) <= TEXT_MAX for text in present) and _is_unicode("".join(present))
    return True


def _all_floats_fit(code: str, present: Sequence[float]) -> bool:
    """None is so large that it would become infinite."""
    try:
        carried = array(code, present)
    except OverflowError:  # a whole number beyond every float
        return False
    return all(map(math.isfinite, carried)) or list(map(math.isinf, carried)) == list(map(math.isinf, present))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True
