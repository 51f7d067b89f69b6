"""A batch's columns as rows of a database. Pure.

A value column that holds every type, exactly, needs few rules: booleans are 0 and 1; integers beyond 2^63-1 are their
decimal digits as text, NaN is the text `NaN`, because SQLite has no such integers and turns a NaN into NULL. The
series' type says how to read them back. A value that is absent is NULL.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.flat import RowBlock
from protocols.values import Quality, Value, ValueType

Kept = int | float | str | None
"""A value as the database keeps it."""

UNKNOWN_US = 2**62
"""As `latest_us`: any time may be the newest."""

_INT_MAX = 2**63 - 1
_NAN = "NaN"
_FLOATS = (ValueType.FLOAT32, ValueType.FLOAT64)


class Unfit(ValueError):
    """The batch holds something that no database can keep; the text says what in one sentence."""


@dataclass(frozen=True, slots=True)
class Packed:
    """One tag's readings of one block, in order of arrival. All sequences have the same length.

    `newest`: the position of the reading that may become the tag's latest value; None: all are from the future.
    `reason`: that reading's, when it is not good.
    """

    device: str
    tag: str
    type: ValueType
    unit: str
    times_us: Sequence[int]
    values: Sequence[Kept]
    quality: Sequence[int]
    newest: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """Whole rows: a good reading of every tag at every time, in order of arrival.

    `rows`: one per time, with a value for each of `tags` (name, type, unit). `newest`: as in Packed, of every tag.
    `key`: names device and tags within their machine, so that series need not be looked up again; empty where nothing
    does.
    """

    device: str
    tags: Sequence[tuple[str, ValueType, str]]
    times_us: Sequence[int]
    rows: Sequence[Sequence[Kept]]
    newest: int | None
    key: bytes = b""
    reason: ClassVar[str] = ""


def pack(batch: Batch, latest_us: int, shift_us: int = 0) -> list[Sheet | Packed]:
    """What of the batch has readings, its times corrected by `shift_us`. Then one beyond `latest_us` is never the
    newest. Raises Unfit."""
    if shift_us:
        found = pack(batch, latest_us - shift_us)
        return [replace(part, times_us=[time_us + shift_us for time_us in part.times_us]) for part in found]
    packed: list[Sheet | Packed] = []
    for block in batch.blocks:
        if not block.times_us:
            continue  # from a stranger: a block of no rows
        newest = _newest(block.times_us, latest_us)
        if isinstance(block, RowBlock) and block.layout.tags:
            packed.append(_pack_rows(block, newest))
            continue
        regular = [column for column in block.columns if _is_regular(column)]
        if regular:
            packed.append(_pack_sheet(block, regular, newest))
        packed.extend(
            _pack_column(block, column, newest, latest_us)
            for column in block.columns
            if column.values and not _is_regular(column)
        )
    return packed


def _pack_rows(block: RowBlock, newest: int | None) -> Sheet:
    """Rows are taken as they are, but for the values that SQLite has no way to keep, or takes the long way round."""
    layout = block.layout
    uints = layout.by_type.get(ValueType.UINT, ())
    bools = layout.by_type.get(ValueType.BOOL, ())
    if not (uints or bools or block.patterns):
        return Sheet(layout.device, layout.tags, block.times_us, block.rows, newest, layout.key)
    kept: list[list[Kept]] = [list(row) for row in block.rows]
    for row, values in zip(kept, block.rows, strict=True):
        for at in bools:
            row[at] = int(values[at] is True)
        for at in uints:
            value = values[at]
            if isinstance(value, int) and value > _INT_MAX:
                row[at] = str(value)
        for at in block.patterns:
            if values[at] != values[at]:
                row[at] = _NAN
    return Sheet(layout.device, layout.tags, block.times_us, kept, newest, layout.key)


def _is_regular(column: Column) -> bool:
    return column.rows is None and column.quality is None and not column.reasons


def _pack_sheet(block: Block, columns: Sequence[Column], newest: int | None) -> Sheet:
    tags = [(column.name, column.type, column.unit) for column in columns]
    for name, _, unit in tags:
        _check_text(name, block.device, name, unit)
    values = [keep(column.type, column.values, column.name) for column in columns]
    return Sheet(block.device, tags, block.times_us, list(zip(*values, strict=True)), newest)


def _pack_column(block: Block, column: Column, newest: int | None, latest_us: int) -> Packed:
    times_us = block.times_us
    if column.rows is not None:
        times_us = [times_us[row] for row in column.rows]
        newest = _newest(times_us, latest_us)
    reason = "" if newest is None else _reason(column, newest)
    quality = [Quality.GOOD] * len(column.values) if column.quality is None else column.quality
    values = keep(column.type, column.values, column.name)
    _check_text(column.name, block.device, column.name, column.unit, reason)
    return Packed(block.device, column.name, column.type, column.unit, times_us, values, quality, newest, reason)


def _reason(column: Column, at: int) -> str:
    """The reading's own, or else that of the one before it while both are not good: a repeated reason is sent once."""
    good = [Quality.word(code) == "good" for code in column.quality or ()]
    while good and at > 0 and at not in column.reasons and not good[at] and not good[at - 1]:
        at -= 1
    return column.reasons.get(at, "")


def _newest(times_us: Sequence[int], latest_us: int) -> int | None:
    """The position of the newest time that is not from the future; of equal ones the last."""
    if times_us and times_us[-1] == max(times_us) <= latest_us:
        return len(times_us) - 1  # the rule: scans come in the order of their times
    candidates = [(time_us, at) for at, time_us in enumerate(times_us) if time_us <= latest_us]
    return max(candidates)[1] if candidates else None


def columns(parts: Sequence[Sheet | Packed]) -> Iterator[Packed]:
    """Everything tag by tag."""
    for part in parts:
        if isinstance(part, Packed):
            yield part
            continue
        quality = [Quality.GOOD] * len(part.times_us)
        for (tag, kind, unit), values in zip(part.tags, zip(*part.rows, strict=True), strict=True):
            yield Packed(part.device, tag, kind, unit, part.times_us, values, quality, part.newest, "")


def keep(value_type: ValueType, values: Sequence[Value], tag: str) -> Sequence[Kept]:
    """The values as a database keeps them. Raises Unfit."""
    if value_type in _FLOATS:
        if any(value != value for value in values):  # only a NaN differs from itself
            return [_NAN if isinstance(value, float) and math.isnan(value) else value for value in values]
    elif value_type is ValueType.BOOL:  # what is a bool exactly, SQLite's binding takes the long way round
        return [value if value is None else int(value) for value in values]
    elif value_type is ValueType.UINT:
        return [str(value) if isinstance(value, int) and value > _INT_MAX else value for value in values]
    elif value_type is ValueType.STRING:
        _check_text(tag, *(value for value in values if isinstance(value, str)))
    return values


def restore(value_type: ValueType, kept: Kept) -> Value:
    """The value that was kept."""
    if kept is None:
        return None
    match value_type:
        case ValueType.BOOL:
            return bool(kept)
        case ValueType.INT | ValueType.UINT:
            return int(kept)
        case ValueType.STRING:
            return str(kept)
    return float(kept)


def _check_text(tag: str, *texts: str) -> None:
    """JSON can write half of a surrogate pair, which is no character: nothing that stores Unicode takes it."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise Unfit(f"tag {tag!r:.80}: its name, unit, device or a text has half a surrogate pair in it") from None


def readable(text: str) -> str:
    """The text with whatever is no character written as an escape, so that it can be stored."""
    return text.encode(errors="backslashreplace").decode()
