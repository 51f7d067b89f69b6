"""What one telemetry message carries, as values: columns, not rows.

A batch belongs to one machine and has one sequence number, meaningful within its epoch. It holds one block per
poll group; a block has the moments of its scans once, and a column per tag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from protocols.values import Value, ValueType

SEQ_MAX = 2**63 - 1
"""Numbers run from 1 to here, so that every database's signed 64-bit integer holds them."""


@dataclass(frozen=True, slots=True)
class Column:
    """One tag's readings within a block.

    `rows`: positions in the block's `times_us`, ascending, one per value; None: every row.
    `quality`: OPC UA status code per value; None: all good.
    `reasons`: position in `values` → one sentence, for values that are not good.
    """

    name: str
    type: ValueType
    values: Sequence[Value]
    unit: str = ""
    rows: Sequence[int] | None = None
    quality: Sequence[int] | None = None
    reasons: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Block:
    """The scans of one poll group. `times_us`: microseconds since 1970-01-01 UTC, in order of arrival."""

    device: str
    times_us: Sequence[int]
    columns: Sequence[Column]

    def readings(self) -> int:
        """How many readings it holds."""
        return sum(len(column.values) for column in self.columns)


@dataclass(frozen=True, slots=True)
class Batch:
    """One telemetry message. `epoch` and `gateway` are empty for senders that have none; `seq` is 1 or more."""

    gateway: str
    epoch: str
    seq: int
    blocks: Sequence[Block]

    def readings(self) -> int:
        """How many readings it holds."""
        return sum(block.readings() for block in self.blocks)
