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
halves again, until what is refused is refused alone, and remembers that for the following reads. RETRY_EVERY reads
later what was refused is tried once more, so that everything is found back when the device recovers. All of this
costs at most EXTRA_PER_READ requests in one `Round`; what they do not suffice for has its turn in the next read.

Pure: values in, values out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

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


def plan(spans: Sequence[Span], limits: Limits) -> list[Block]:
    """The fewest blocks that cover every span. Raises ValueError when one span alone is over the limit."""
    groups: list[list[int]] = []  # indexes into spans
    end = 0  # of the last group
    for index in sorted(range(len(spans)), key=spans.__getitem__):
        span = spans[index]
        largest = limits.largest(span.table)
        if span.size > largest:
            what = "bits" if span.table.holds_bits else "registers"
            raise ValueError(f"a tag of {span.size} {what} does not fit into one request of {largest}")
        if groups and _fits(span, spans[groups[-1][0]], end, limits):
            groups[-1].append(index)
            end = max(end, span.end)
        else:
            groups.append([index])
            end = span.end
    return [Block(tuple(group), tuple(spans[index] for index in group)) for group in groups]


def _fits(span: Span, first: Span, end: int, limits: Limits) -> bool:
    """Whether the block that begins with `first` and reaches to `end` can take `span` too."""
    return (
        span[:2] == first[:2]
        and span.end - first.address <= limits.largest(span.table)
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
        self._rest = 0  # reads until the block as a whole may be asked for again

    @property
    def is_retry(self) -> bool:
        """Whether asking for it as a whole repeats what was refused."""
        return self.halves is not None or self.code in DIVISIBLE

    def turn(self, may_retry: bool) -> Turn:
        """What to do with it in this read. Call it once per read."""
        self._rest = max(0, self._rest - 1)
        if not self.is_retry:
            return Turn.ASK
        due = may_retry and not self._rest
        if self.halves is None:
            return Turn.ASK if due else Turn.REST
        # Both halves are well: perhaps the whole is readable again.
        well = all(half.halves is None and not half.code for half in self.halves)
        return Turn.ASK if due and well else Turn.HALVES

    def answered(self) -> None:
        """The device sent the block's content: it is whole (again)."""
        self.halves = None
        self.code = self._rest = 0

    def refused(self, code: int, may_split: bool) -> bool:
        """The device refused the block with this exception code. True: it has now been divided."""
        self.code = code
        if code not in DIVISIBLE:
            return False
        halves = split(self.block) if self.halves is None else None
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
    """One read over the branches of a group: ask for `next()` until there is none, and report each outcome.

    An answer is reported with `Branch.answered`, an exception with `refuse`. In the end `refused` holds the branches
    whose tags could not be read; each carries the exception's code.
    """

    def __init__(self, branches: Sequence[Branch[ToolT]]) -> None:
        self.refused: list[Branch[ToolT]] = []
        self._todo = list(reversed(branches))
        self._extra = EXTRA_PER_READ

    def next(self) -> Branch[ToolT] | None:
        """The branch whose block to ask for now."""
        while self._todo:
            branch = self._todo.pop()
            turn = branch.turn(self._extra > 0)
            if turn is Turn.ASK:
                self._extra -= branch.is_retry
                return branch
            self._go_on(branch)
        return None

    def refuse(self, branch: Branch[ToolT], code: int) -> None:
        """The device answered that block with this exception code."""
        if branch.refused(code, may_split=self._extra > 0):
            self._extra -= 2
        self._go_on(branch)

    def _go_on(self, branch: Branch[ToolT]) -> None:
        if branch.halves is None:
            self.refused.append(branch)
        else:
            self._todo.extend(reversed(branch.halves))
