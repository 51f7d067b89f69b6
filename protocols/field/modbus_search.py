"""The plan of one unit's requests in one poll group, as it learns what the device refuses. Pure.

While a refused request is being divided (`modbus_plan.Branch`), its parts are asked for as they are. Once every part is
either readable or a single refused place, what was found becomes facts (`modbus_learned`), and all is planned anew:
the fewest requests that hold no known barrier whole. A place that was refused is asked for alone every RETRY_EVERY
reads, which disturbs nobody. A barrier, or a limit below the configured one, is forgotten after as many reads, after
twice as many when it was found again, and so on up to PAUSE_MAX: if it is still there the search finds it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

from protocols.field.modbus_address import Table
from protocols.field.modbus_learned import Barrier, Learned
from protocols.field.modbus_plan import DIVISIBLE, RETRY_EVERY, Block, Branch, Limits, Round, Span, ToolT, plan, split

PAUSE_MAX = 64 * RETRY_EVERY  # reads

_Fact = Barrier | tuple[int, Table]  # a tuple: the key of a largest request


class UnitPlan(Generic[ToolT]):
    """`members`: the indexes of its spans in the poll group. Raises ValueError when a span is over the limit."""

    def __init__(self, members: Sequence[int], spans: Sequence[Span], limits: Limits, learned: Learned) -> None:
        self.members = tuple(members)
        self.branches: list[Branch[ToolT]] = []
        self._spans = tuple(spans)
        self._limits = limits
        self._learned = learned
        self._pause: dict[_Fact, int] = {}  # reads until it is forgotten next time
        self._left: dict[_Fact, int] = {}  # reads until it is forgotten this time
        plan(spans, limits)  # whatever was learned, the configuration must fit
        self._replan()

    def round(self) -> Round[ToolT]:
        """One read of it."""
        return Round(self.branches)

    def wake(self) -> None:
        """After a reconnect: what was refused is asked for again at once."""
        for branch in self.branches:
            branch.wake()

    def settle(self, done: Round[ToolT]) -> None:
        """After a read that was not broken off: draws its conclusions."""
        changed = done.touched and self._conclude()
        if self._left:
            changed = self._forget() or changed
        if changed:
            self._learned.changed = True
            self._replan()

    def _conclude(self) -> bool:
        """Turns finished searches into facts, and drops what is a fact no more. Whether anything changed."""
        before = (len(self._learned.refused), len(self._learned.barriers), dict(self._learned.largest))
        changed = False
        for branch in self.branches:
            if branch.halves is None and not branch.code:
                changed |= self._learned.refused.pop(branch.block.spans[0], None) is not None
            elif _is_decided(branch):
                changed |= branch.halves is not None
                self._explain(branch)
        return changed or before != (
            len(self._learned.refused),
            len(self._learned.barriers),
            dict(self._learned.largest),
        )

    def _explain(self, branch: Branch[ToolT]) -> bool:
        """Finds out why it was refused; False: it was not."""
        learned, block = self._learned, branch.block
        if branch.halves is None:
            if branch.code:
                learned.refused[block.spans[0]] = branch.code
            return bool(branch.code)
        left, right = branch.halves
        if self._explain(left) | self._explain(right):
            return True  # its parts say why
        left_end, right_start = left.block.address + left.block.count, right.block.address
        if left_end == right_start and block.count > (well := self._largest_well(block)):
            learned.largest[block.unit_id, block.table] = well
            self._note((block.unit_id, block.table))
            return True
        first, end = left_end - 1, right_start + 1
        if left_end > right_start:  # they overlap
            first, end = block.address, block.address + block.count
        barrier = Barrier(block.unit_id, block.table, first, end)
        learned.barriers.add(barrier)
        self._note(barrier)
        return True

    def _largest_well(self, like: Block) -> int:
        """The largest request of the same unit and table that was answered."""
        return max(
            leaf.block.count
            for branch in self.branches
            for leaf in _leaves(branch)
            if not leaf.code and leaf.block.spans[0][:2] == like.spans[0][:2]
        )

    def _note(self, fact: _Fact) -> None:
        self._left[fact] = self._pause.setdefault(fact, RETRY_EVERY)
        self._pause[fact] = min(2 * self._pause[fact], PAUSE_MAX)

    def _forget(self) -> bool:
        """Counts the read; forgets at most one fact."""
        for fact in self._left:
            self._left[fact] -= 1
        due = next((fact for fact, left in self._left.items() if left <= 0), None)
        if due is None or any(branch.halves is not None for branch in self.branches):
            return False
        del self._left[due]
        if isinstance(due, Barrier):
            self._learned.barriers.discard(due)
        else:
            self._learned.largest.pop(due, None)
        return True

    def _replan(self) -> None:
        learned = self._learned
        known = {leaf.block.members: leaf for branch in self.branches for leaf in _leaves(branch)}
        refused: dict[Span, list[int]] = {}
        readable: list[int] = []
        for at, span in enumerate(self._spans):
            (refused.setdefault(span, []) if span in learned.refused else readable).append(at)
        blocks = plan([self._spans[at] for at in readable], self._limits, learned.walls(), learned.largest)
        found = [Block(tuple(readable[at] for at in block.members), block.spans) for block in blocks]
        found += [Block(tuple(at), (span,) * len(at)) for span, at in refused.items()]
        self.branches = []
        for block in found:
            members = tuple(self.members[at] for at in block.members)
            branch = known.get(members) or Branch(Block(members, block.spans))
            branch.code = branch.code or learned.refused.get(block.spans[0], 0)
            self.branches.append(branch)
        for barrier in learned.barriers:
            if barrier not in self._left and any(barrier[:2] == span[:2] for span in self._spans):
                self._note(barrier)
        for key in learned.largest:
            if key not in self._left and any(key == span[:2] for span in self._spans):
                self._note(key)


def _leaves(branch: Branch[ToolT]) -> list[Branch[ToolT]]:
    if branch.halves is None:
        return [branch]
    return [*_leaves(branch.halves[0]), *_leaves(branch.halves[1])]


def _is_decided(branch: Branch[ToolT]) -> bool:
    """Whether each of its parts is readable, or refused and indivisible."""
    return all(not leaf.code or (leaf.code in DIVISIBLE and split(leaf.block) is None) for leaf in _leaves(branch))
