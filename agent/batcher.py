"""Scans in, drafts of batches out: rows become columns. Pure: no clock, no disk.

Collects per machine and poll group. A draft is closed when it might reach `bytes_max` by a safe estimate (8 bytes per
number, the length of each text), so that no batch is ever larger than what brokers take, however badly it compresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.outbox.contract import Draft
from protocols.field.contract import Group, Scan, Tag
from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.columns import TEXT_MAX
from protocols.uplink.envelope import encode
from protocols.values import Quality, Value, ValueType

BATCH_BYTES_MAX = 100_000
_NUMBER_BYTES = 9
_OVERHEAD_BYTES = 64  # per scan: time, and what exceptions cost
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
    """The batch of one machine that is being filled."""

    scans: dict[Group, list[Scan]] = field(default_factory=dict)
    bytes: int = 0
    readings: int = 0


@dataclass(frozen=True, slots=True)
class Filled:
    """A draft with how many readings it holds, and about how much memory."""

    draft: Draft
    readings: int
    bytes: int


class Batcher:
    """`machines`: device → machine."""

    def __init__(self, gateway: str, machines: dict[str, str], bytes_max: int = BATCH_BYTES_MAX) -> None:
        self._gateway = gateway
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
        for part in _parts(scan, max(1, (self._bytes_max - _OVERHEAD_BYTES) // _NUMBER_BYTES)):
            self._add(part)

    def _add(self, scan: Scan) -> None:
        machine = self._machines[scan.group.device]
        size = _estimate(scan)
        batch = self._open.setdefault(machine, _Open())
        if batch.readings and batch.bytes + size > self._bytes_max:
            self._close(machine)
            batch = self._open.setdefault(machine, _Open())
        batch.scans.setdefault(scan.group, []).append(scan)
        batch.bytes += size
        batch.readings += len(scan)

    def _close(self, machine: str) -> None:
        batch = self._open.pop(machine)
        if not batch.readings:
            return
        scans, gateway = batch.scans, self._gateway

        def encoded(epoch: str, seq: int) -> bytes:
            return encode(Batch(gateway, epoch, seq, [block(group, rows) for group, rows in scans.items()]))

        self._filled.append(Filled(Draft(machine, encoded), batch.readings, batch.bytes))

    def drain(self) -> list[Filled]:
        """All that was taken in so far, in order per machine."""
        for machine in list(self._open):
            self._close(machine)
        filled, self._filled = self._filled, []
        return filled


def _estimate(scan: Scan) -> int:
    texts = sum(len(value) * 4 for value in scan.values if type(value) is str)
    reasons = sum(len(reason) for reason in scan.reasons.values())
    return _OVERHEAD_BYTES + len(scan.values) * _NUMBER_BYTES + texts + reasons


def _parts(scan: Scan, readings_max: int) -> Iterator[Scan]:
    if len(scan) <= readings_max:
        yield scan
        return
    indexes = range(len(scan)) if scan.indexes is None else scan.indexes
    for start in range(0, len(scan), readings_max):
        cut = slice(start, start + readings_max)
        mine = set(indexes[cut])
        yield replace(
            scan,
            values=scan.values[cut],
            indexes=indexes[cut],
            quality=None if scan.quality is None else scan.quality[cut],
            reasons={at: reason for at, reason in scan.reasons.items() if at in mine},
        )


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
    if quality is not None and not any(quality):
        quality = None
    # A reason that only repeats the one before it says nothing new.
    told = {at: text for at, text in (reasons or {}).items() if (reasons or {}).get(at - 1) != text}
    return Column(tag.name, tag.value_type, values, tag.unit, rows, quality, told)


def _checked(column: Column) -> Column:
    """A driver is taken at its word only where it fits the tag's type; the rest becomes bad, with a reason."""
    if _all_fit(column.type, column.values):
        return column
    values, reasons = list(column.values), dict(column.reasons)
    quality = list(column.quality or [0] * len(values))
    for at, value in enumerate(column.values):
        if value is not None and not _all_fit(column.type, [value]):
            values[at], quality[at] = None, Quality.BAD_TYPE_MISMATCH
            reasons[at] = f"the driver gave {str(value)[:40]!r}, which is no {column.type}"
    return replace(column, values=values, quality=quality, reasons=reasons)


def _all_fit(value_type: ValueType, values: Sequence[Any]) -> bool:
    kinds = set(map(type, values)) - {type(None)}
    if not kinds <= _ALLOWED[value_type]:
        return False
    if kinds and value_type in _RANGE:
        low, high = _RANGE[value_type]
        present = [value for value in values if value is not None]
        return bool(low <= min(present) and max(present) <= high)
    return value_type is not ValueType.STRING or all(value is None or len(value) <= TEXT_MAX for value in values)
