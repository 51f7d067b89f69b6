"""Which requests read all the tags of a poll group: as few as the device's limits allow.

A *span* is where one tag lives: a unit, a table, an address and a size (registers, or bits). A *block* is one
request that covers one or more spans. The rules:

- a block holds at most `limits.registers` registers or `limits.bits` bits (125 and 2,000 in the standard);
- a span is never divided over two blocks, for its halves would be from two moments;
- what lies between two spans and belongs to no tag is read through when it is at most `limits.gap` registers
  (or sixteen times as many bits, which are the same number of bytes), otherwise a new block begins.

Walking the spans in order of their address and beginning a new block only when the next one does not fit gives
the fewest blocks: a block can do no better than begin with the first span not yet covered, and whatever a
later block leaves uncovered an earlier one could not have covered either.

A device may refuse a block (exception 2 or 3) because of a single address in it, or because of a gap, or because
it serves fewer registers at a time than the standard allows. A `Branch` then divides the block in two, and the
halves again, until what is refused is refused alone; what that teaches is the matter of `modbus_search`. RETRY_EVERY
reads later what was refused alone is tried once more, so that it is found back when the device recovers. All of this
costs at most EXTRA_PER_READ requests in one `Round`; what they do not suffice for has its turn in the next read.

Pure: values in, values out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from typing import Generic, NamedTuple, Protocol, TypeVar

from protocols.field.modbus_address import Table

RETRY_EVERY = 60  # reads until a refused block is tried again
EXTRA_PER_READ = 32  # requests that one read may spend on dividing blocks and on trying refused ones again
DIVISIBLE = (2, 3)  # illegal data address, illegal data value: part of the block may be readable

ToolT = TypeVar("ToolT")


class Span(NamedTuple):
    """Where one tag lives. `address` from 0; `size` in registers, or in bits for coils and discrete inputs."""

    unit_id: int
    table: Table
    address: int
    size: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.address + self.size


class Limits(NamedTuple):
    """What one request may hold, and how many registers that no tag wants it may read through."""

    registers: int
    bits: int
    gap: int

    def largest(self, table: Table) -> int:
        """Largest block of this table, in registers or bits."""
        return self.bits if table.holds_bits else self.registers

    def widest_gap(self, table: Table) -> int:
        """Largest gap of this table that is read through, in registers or bits."""
        return self.gap * 16 if table.holds_bits else self.gap


@dataclass(frozen=True, eq=False)
class Block:
    """One request. `members` are the indexes of its spans in what was planned, in order of `spans`."""

    members: tuple[int, ...]
    spans: tuple[Span, ...]  # ascending by address

    @property
    def unit_id(self) -> int:
        return self.spans[0].unit_id

    @property
    def table(self) -> Table:
        return self.spans[0].table

    @property
    def address(self) -> int:
        return self.spans[0].address

    @cached_property
    def count(self) -> int:  # asked for at every request
        return max(span.end for span in self.spans) - self.address

    def part(self, first: int, last: int) -> Block:
        """The block of the spans from position `first` up to, not including, `last`."""
        return Block(self.members[first:last], self.spans[first:last])


class Barriers(Protocol):
    """What no block may hold whole."""

    def hit(self, unit_id: int, table: Table, address: int, end: int) -> bool:
        """Whether a block from `address` up to, not including, `end` would."""


def plan(
    spans: Sequence[Span],
    limits: Limits,
    barriers: Barriers | None = None,
    largest: Mapping[tuple[int, Table], int] | None = None,
) -> list[Block]:
    """The fewest blocks that cover every span. Raises ValueError when one span alone is over the limit.

    `largest`: lower limits of single units and tables, which only keep spans apart and never refuse one.
    """
    groups: list[list[int]] = []  # indexes into spans
    end = 0  # of the last group
    for index in sorted(range(len(spans)), key=spans.__getitem__):
        span = spans[index]
        if span.size > limits.largest(span.table):
            what = "bits" if span.table.holds_bits else "registers"
            most = limits.largest(span.table)
            raise ValueError(f"a tag of {span.size} {what} does not fit into one request of {most}")
        first = spans[groups[-1][0]] if groups else None
        if (
            first is not None
            and _fits(span, first, end, limits, (largest or {}).get(span[:2]))
            and not (barriers is not None and barriers.hit(*first[:3], max(end, span.end)))
        ):
            groups[-1].append(index)
            end = max(end, span.end)
        else:
            groups.append([index])
            end = span.end
    return [Block(tuple(group), tuple(spans[index] for index in group)) for group in groups]


def _fits(span: Span, first: Span, end: int, limits: Limits, largest: int | None) -> bool:
    """Whether the block that begins with `first` and reaches to `end` can take `span` too."""
    allowed = limits.largest(span.table)
    return (
        span[:2] == first[:2]
        and span.end - first.address <= (allowed if largest is None else min(allowed, largest))
        and span.address - end <= limits.widest_gap(span.table)
    )


def split(block: Block) -> tuple[Block, Block] | None:
    """The block in two: at its widest gap, which is the likeliest culprit, or without one in the middle.

    None when it cannot be divided: all its tags live at the same place.
    """
    best: tuple[int, int, int] | None = None
    end = block.spans[0].end
    for cut in range(1, len(block.spans)):
        span = block.spans[cut]
        gap = max(0, span.address - end)
        end = max(end, span.end)
        rank = (gap, -abs(2 * cut - len(block.spans)), cut)
        if span != block.spans[cut - 1] and (best is None or rank > best):
            best = rank
    if best is None:
        return None
    cut = best[2]
    return block.part(0, cut), block.part(cut, len(block.spans))


class Turn(Enum):
    """What to do with a branch in this read."""

    ASK = auto()  # send its block
    HALVES = auto()  # go on with its halves
    REST = auto()  # it was refused lately: do not ask


class Branch(Generic[ToolT]):
    """A block, or the two halves into which it was divided, and what the device last said to it.

    `tool` is the caller's, for whatever it prepares once per block.
    """

    __slots__ = ("_rest", "block", "code", "halves", "tool")

    def __init__(self, block: Block) -> None:
        self.block = block
        self.tool: ToolT | None = None
        self.halves: tuple[Branch[ToolT], Branch[ToolT]] | None = None
        self.code = 0  # the exception code with which it was last refused; 0: it was not
        self._rest = 0  # reads until the refused block may be asked for again

    @property
    def is_retry(self) -> bool:
        """Whether asking for it repeats what was refused."""
        return self.code in DIVISIBLE

    def turn(self, may_retry: bool) -> Turn:
        """What to do with it in this read. Call it once per read."""
        self._rest = max(0, self._rest - 1)
        if self.halves is not None:
            return Turn.HALVES
        return Turn.ASK if not self.is_retry or (may_retry and not self._rest) else Turn.REST

    def answered(self) -> None:
        """The device sent the block's content."""
        self.code = self._rest = 0

    def refused(self, code: int, may_split: bool) -> bool:
        """The device refused the block with this exception code. True: it has now been divided."""
        self.code = code
        if code not in DIVISIBLE:
            return False
        halves = split(self.block)
        if halves is not None and not may_split:
            return False  # and without a rest: it is divided in the next read
        self._rest = RETRY_EVERY
        if halves is not None:
            self.halves = (Branch(halves[0]), Branch(halves[1]))
        return halves is not None

    def wake(self) -> None:
        """Ends the rest of what was refused, as after a reconnect; the divisions are kept."""
        if self.halves is None:
            self._rest = 0
            return
        for half in self.halves:
            half.wake()


class Round(Generic[ToolT]):
    """One read over the branches of a group: ask for the branches of each `wave` until it is empty.

    An answer is reported with `Branch.answered`, an exception with `refuse`, each before the next wave. In the end
    `refused` holds the branches whose tags could not be read; each carries the exception's code.
    """

    def __init__(self, branches: Sequence[Branch[ToolT]]) -> None:
        self.refused: list[Branch[ToolT]] = []
        self.touched = False  # something was refused, or asked for again
        self._todo = list(reversed(branches))
        self._extra = EXTRA_PER_READ

    def wave(self) -> list[Branch[ToolT]]:
        """The branches whose blocks to ask for now."""
        found = []
        while self._todo:
            branch = self._todo.pop()
            turn = branch.turn(self._extra > 0)
            if turn is Turn.ASK:
                if branch.is_retry:
                    self._extra -= 1
                    self.touched = True
                found.append(branch)
            else:
                self._go_on(branch)
        return found

    def refuse(self, branch: Branch[ToolT], code: int) -> None:
        """The device answered that block with this exception code."""
        self.touched = True
        if branch.refused(code, may_split=self._extra > 0):
            self._extra -= 2
        self._go_on(branch)

    def _go_on(self, branch: Branch[ToolT]) -> None:
        if branch.halves is None:
            self.refused.append(branch)
        else:
            self._todo.extend(reversed(branch.halves))
