"""Keeping every second scan: several batches become one that holds half of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from protocols.uplink.batch import Batch, Block, Column
from protocols.values import Value, ValueType


def every_second(batches: Sequence[Batch]) -> list[Block]:
    """Of each poll group the first scan, the third, and so on, over all the batches, in as few blocks as possible.

    The n-th block of a device is taken to be the same poll group in every batch.
    """
    groups: dict[tuple[str, int], _Group] = {}
    for batch in batches:
        nth: dict[str, int] = {}
        for block in batch.blocks:
            at = nth[block.device] = nth.get(block.device, -1) + 1
            groups.setdefault((block.device, at), _Group(block.device)).take(block)
    return [block for group in groups.values() for block in group.blocks()]


@dataclass(slots=True)
class _Joined:
    """A tag's readings. `rows` are positions in the joined block's times."""

    name: str
    type: ValueType
    unit: str
    values: list[Value] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    quality: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)

    def take(self, column: Column, rows_before: int, skip: int) -> None:
        """The readings of every second row, beginning with row `skip` of the column's block."""
        for at, row in enumerate(range(len(column.values)) if column.rows is None else column.rows):
            if row % 2 != skip:
                continue
            if at in column.reasons:
                self.reasons[len(self.values)] = column.reasons[at]
            self.rows.append(rows_before + row // 2)
            self.values.append(column.values[at])
            self.quality.append(column.quality[at] if column.quality else 0)

    def column(self, row_count: int) -> Column:
        """As it stands in a block of so many rows."""
        rows = None if len(self.rows) == row_count else self.rows
        quality = self.quality if any(self.quality) else None
        return Column(self.name, self.type, self.values, self.unit, rows, quality, self.reasons)


@dataclass(slots=True)
class _Group:
    """One poll group's scans, `seen` of them so far. A tag whose type or unit changes begins a new block."""

    device: str
    seen: int = 0
    times_us: list[int] = field(default_factory=list)
    columns: dict[str, _Joined] = field(default_factory=dict)
    complete: list[Block] = field(default_factory=list)

    def take(self, block: Block) -> None:
        """Half of its scans."""
        if any(self._differs(column) for column in block.columns):
            self._finish()
        skip = self.seen % 2
        for column in block.columns:
            joined = self.columns.get(column.name)
            if joined is None:
                joined = self.columns[column.name] = _Joined(column.name, column.type, column.unit)
            joined.take(column, len(self.times_us), skip)
        self.times_us += block.times_us[skip::2]
        self.seen += len(block.times_us)

    def _differs(self, column: Column) -> bool:
        joined = self.columns.get(column.name)
        return joined is not None and (joined.type, joined.unit) != (column.type, column.unit)

    def _finish(self) -> None:
        columns = [joined.column(len(self.times_us)) for joined in self.columns.values() if joined.values]
        if columns:
            self.complete.append(Block(self.device, self.times_us, columns))
        self.times_us, self.columns = [], {}

    def blocks(self) -> list[Block]:
        """All that was kept."""
        self._finish()
        return self.complete
