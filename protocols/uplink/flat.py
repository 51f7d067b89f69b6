"""Whole rows: blocks in which every tag has a good value at every time, which is nearly all of what is polled. Pure.

What a definition says of such a block is the same for each, so it is worked out once: a Layout. A block that keeps to
it is a RowBlock, which holds values only: what takes rows (a database) goes from `layout.key`, by which it has looked
up its own names of the tags before, and `rows` straight to its statements, without an object per tag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any

from protocols.uplink.batch import Block, Column
from protocols.uplink.streams import WIDTHS, XOR
from protocols.values import Value, ValueType

Tag = tuple[str, ValueType, str]
"""Name, type, unit."""

FLOATS = {ValueType.FLOAT32: ("f", "I", 4), ValueType.FLOAT64: ("d", "Q", 8)}
"""Letters of the array module for values and bit patterns, and their bytes."""
PATTERNS = {kind: XOR | WIDTHS.index(width) << 4 for kind, (_, _, width) in FLOATS.items()}
"""The mode of a float column whose values are kept as bit patterns."""
TEXTS = (ValueType.BOOL, ValueType.STRING)
"""What has no numbers, and no mode."""


class Layout:
    """Which tags the rows of a block hold, in order, and what their numbers are expected to be near.

    The same object for all blocks that refer to one Definition object and hold the same of its tags. `key` names device
    and tags within a machine: reference and positions; empty where the block names its tags itself.
    `exponents`, `firsts`: the base of each tag; `time_us`: that of the times.
    """

    def __init__(
        self,
        key: bytes,
        device: str,
        tags: Sequence[Tag],
        exponents: Sequence[int],
        firsts: Sequence[int],
        time_us: int = 0,
    ) -> None:
        self.key = key
        self.device = device
        self.tags = tags
        self.exponents = exponents
        self.firsts = firsts
        self.time_us = time_us
        self.plans: dict[bytes, Any] = {}
        """By modes: how one row is read, for protocols.uplink.one_row."""

    @cached_property
    def by_type(self) -> Mapping[ValueType, Sequence[int]]:
        """Positions in `tags` of each type that is there."""
        found: dict[ValueType, list[int]] = {}
        for at, (_, kind, _) in enumerate(self.tags):
            found.setdefault(kind, []).append(at)
        return found

    @cached_property
    def numbers(self) -> Sequence[int]:
        """The positions of the number columns."""
        return [at for at, (_, kind, _) in enumerate(self.tags) if kind not in TEXTS]

    @cached_property
    def expected(self) -> bytes:
        """The modes when times are milliseconds, every column has its base's exponent, and no differences."""
        exponents, tags = self.exponents, self.tags
        modes = [exponents[at] if exponents[at] != XOR else PATTERNS[tags[at][1]] for at in self.numbers]
        return bytes([3, *modes])


class RowBlock(Block):
    """A block of whole rows, all good. `patterns`: positions of float tags whose values came as bit patterns; no other
    value is a NaN or an infinity.
    """

    __slots__ = ("_by_tag", "_columns", "_rows", "layout", "patterns")

    layout: Layout
    patterns: Sequence[int]
    _rows: Sequence[Sequence[Value]] | None
    _by_tag: Sequence[Sequence[Value]] | None
    _columns: Sequence[Column] | None

    def __init__(
        self,
        layout: Layout,
        times_us: Sequence[int],
        patterns: Sequence[int],
        *,
        rows: Sequence[Sequence[Value]] | None = None,
        by_tag: Sequence[Sequence[Value]] | None = None,
    ) -> None:
        """Either `rows` or `by_tag`, the values of each tag; what else is wanted is made when asked for."""
        put = object.__setattr__  # the base class is frozen
        put(self, "layout", layout)
        put(self, "times_us", times_us)
        put(self, "patterns", patterns)
        put(self, "_rows", rows)
        put(self, "_by_tag", by_tag)
        put(self, "_columns", None)

    @property
    def device(self) -> str:
        return self.layout.device

    @property
    def rows(self) -> Sequence[Sequence[Value]]:
        """One per time, with a value for each of the layout's tags."""
        if self._rows is None:
            by_tag = self._tag_by_tag()
            rows = list(zip(*by_tag, strict=True)) if by_tag else [()] * len(self.times_us)
            object.__setattr__(self, "_rows", rows)
            return rows
        return self._rows

    @property
    def columns(self) -> Sequence[Column]:
        if self._columns is None:
            columns = [
                Column(name, kind, values, unit)
                for (name, kind, unit), values in zip(self.layout.tags, self._tag_by_tag(), strict=True)
            ]
            object.__setattr__(self, "_columns", columns)
            return columns
        return self._columns

    def _tag_by_tag(self) -> Sequence[Sequence[Value]]:
        if self._by_tag is None:
            return [[row[at] for row in self.rows] for at in range(len(self.layout.tags))]
        return self._by_tag

    def readings(self) -> int:
        """How many readings it holds."""
        return len(self.times_us) * len(self.layout.tags)


def picker(positions: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """What takes these positions, at least one, out of a sequence, quickly."""
    cut = slice(positions[0], positions[-1] + 1)
    if list(positions) == list(range(cut.start, cut.stop)):
        return lambda row: row[cut]
    return itemgetter(*positions)
