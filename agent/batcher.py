"""Scans in, drafts of batches out: rows become columns. Pure: no clock, no disk.

Collects per machine and poll group. A draft is closed when it might pass `bytes_max` by a safe estimate (each number
and text in full, each name once), so that no batch is ever larger than what brokers take, however badly it compresses.
What a driver gave, whatever it is, becomes something that can be encoded and decoded: a batch that the broker or the
receiver refuses would be sent for ever.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.definitions import Encoder
from agent.outbox.contract import Draft, Encoded
from protocols.field.contract import Group, Scan, Tag
from protocols.uplink.batch import Block, Column
from protocols.uplink.columns import STATUS_MAX, TEXT_MAX
from protocols.values import Quality, Value, ValueType

BATCH_BYTES_MAX = 100_000
REASON_MAX = 500
_GROUP_BYTES = 256  # a block's own parts, and the message's frame
_NAME_BYTES = 8  # a column's parts beside name and unit
_SCAN_BYTES = 32  # its time
_READING_BYTES = 9
_ROW_BYTES = 4  # a reading's row, where the scan does not hold the whole group
_FAULT_BYTES = 24  # what a reading's quality, absence and reason cost beside the reason's text
_ALLOWED: dict[ValueType, frozenset[type]] = {
    ValueType.BOOL: frozenset({bool}),
    ValueType.INT: frozenset({int}),
    ValueType.UINT: frozenset({int}),
    ValueType.FLOAT32: frozenset({float, int}),
    ValueType.FLOAT64: frozenset({float, int}),
    ValueType.STRING: frozenset({str}),
}
_RANGE = {ValueType.INT: (-(1 << 63), (1 << 63) - 1), ValueType.UINT: (0, (1 << 64) - 1)}


@dataclass
class _Open:
    """The batch of one machine that is being filled. Groups by identity, because to hash one is to hash all its tags.

    `named`: the tags of each group whose names it pays for already, by position.
    """

    scans: dict[int, list[Scan]] = field(default_factory=dict)
    named: dict[int, set[int]] = field(default_factory=dict)
    bytes: int = 0
    readings: int = 0

    def cost(self, scan: Scan) -> int:
        """By how many bytes it grows with this scan, at most."""
        group, named = scan.group, self.named.get(id(scan.group))
        size = _scan_bytes(scan)
        if named is None:
            return size + _GROUP_BYTES + _name_bytes(group, _indexes(scan))
        if len(named) == len(group.tags):
            return size
        return size + _name_bytes(group, set(_indexes(scan)) - named)

    def take(self, scan: Scan, cost: int) -> None:
        """Put it in."""
        self.scans.setdefault(id(scan.group), []).append(scan)
        named = self.named.setdefault(id(scan.group), set())
        if len(named) < len(scan.group.tags):
            named.update(_indexes(scan))
        self.bytes += cost
        self.readings += len(scan)


@dataclass(frozen=True, slots=True)
class Filled:
    """A draft with how many readings it holds, and about how much memory."""

    draft: Draft
    readings: int
    bytes: int


class Batcher:
    """`encoder` makes the messages. `machines`: device → machine."""

    def __init__(self, encoder: Encoder, machines: dict[str, str], bytes_max: int = BATCH_BYTES_MAX) -> None:
        self._encoder = encoder
        self._machines = machines
        self._bytes_max = bytes_max
        self._open: dict[str, _Open] = {}
        self._filled: list[Filled] = []

    @property
    def full(self) -> bool:
        """A batch is complete: drain soon."""
        return bool(self._filled)

    def add(self, scan: Scan) -> None:
        """Take one scan in. One that is larger than a batch is split."""
        if not len(scan):
            return
        machine = self._machines[scan.group.device]
        batch = self._open.setdefault(machine, _Open())
        cost = batch.cost(scan)
        if batch.bytes + cost <= self._bytes_max:
            batch.take(scan, cost)
        elif batch.readings:
            self._close(machine)
            self.add(scan)
        elif len(scan) > 1:
            evenly = cost * 10 // (self._bytes_max * 9) + 1  # readings differ in size: aim at nine tenths
            for piece in _pieces(scan, min(len(scan), evenly)):
                self.add(piece)
        else:
            batch.take(scan, cost)

    def _close(self, machine: str) -> None:
        batch = self._open.pop(machine)
        groups, encoder = list(batch.scans.values()), self._encoder

        def encoded(epoch: str, seq: int) -> Encoded:
            return encoder.encode(epoch, seq, [(scans[0].group, block(scans[0].group, scans)) for scans in groups])

        self._filled.append(Filled(Draft(machine, encoded), batch.readings, batch.bytes))

    def drain(self) -> list[Filled]:
        """All that was taken in so far, in order per machine."""
        for machine in list(self._open):
            self._close(machine)
        filled, self._filled = self._filled, []
        return filled


def _indexes(scan: Scan) -> Sequence[int]:
    return range(len(scan.values)) if scan.indexes is None else scan.indexes


def _scan_bytes(scan: Scan) -> int:
    each = _READING_BYTES if scan.indexes is None else _READING_BYTES + _ROW_BYTES
    texts = sum(_text_bytes(value, TEXT_MAX) for value in scan.values if type(value) is str)
    reasons = sum(_text_bytes(reason, REASON_MAX) for reason in scan.reasons.values())
    faults = 0 if scan.quality is None else sum(1 for code in scan.quality if code)
    return _SCAN_BYTES + len(scan) * each + texts + reasons + faults * _FAULT_BYTES


def _name_bytes(group: Group, positions: Iterable[int]) -> int:
    tags = (group.tags[at] for at in positions)
    return sum(_NAME_BYTES + _text_bytes(tag.name, TEXT_MAX) + _text_bytes(tag.unit, TEXT_MAX) for tag in tags)


def _text_bytes(text: str, length_max: int) -> int:
    return min(len(text), length_max) * (1 if text.isascii() else 4)


def _pieces(scan: Scan, count: int) -> list[Scan]:
    indexes, cuts = _indexes(scan), [len(scan) * at // count for at in range(count + 1)]
    pieces = []
    for cut in itertools.starmap(slice, itertools.pairwise(cuts)):
        mine = set(indexes[cut])
        pieces.append(
            replace(
                scan,
                values=scan.values[cut],
                indexes=indexes[cut],
                quality=None if scan.quality is None else scan.quality[cut],
                reasons={at: reason for at, reason in scan.reasons.items() if at in mine},
            )
        )
    return pieces


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
    if all(scan.quality is None for scan in scans):
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
    found: dict[int, tuple[list[int], list[Value], list[int], dict[int, str]]] = {}
    for row, scan in enumerate(scans):
        indexes = range(len(group.tags)) if scan.indexes is None else scan.indexes
        for position, at in enumerate(indexes):
            rows, values, quality, reasons = found.setdefault(at, ([], [], [], {}))
            if at in scan.reasons:
                reasons[len(rows)] = scan.reasons[at]
            rows.append(row)
            values.append(scan.values[position])
            quality.append(0 if scan.quality is None else scan.quality[position])
    return [
        _column(group.tags[at], values, None if len(rows) == len(scans) else rows, quality, reasons)
        for at, (rows, values, quality, reasons) in sorted(found.items())
    ]


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
    present = [value for value in values if value is not None]
    if not set(map(type, present)) <= _ALLOWED[value_type]:
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
