"""An outbox in memory, for tests and simulation: the whole contract but durability."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from agent.outbox.contract import (
    GRACE_S,
    NORMAL,
    NOTHING,
    Draft,
    Former,
    GroupDefinition,
    Held,
    Lane,
    OutboxFull,
    OutboxStats,
    Stored,
)
from agent.outbox.lanes import Lanes, Limits, new_epoch
from agent.outbox.rewrite import move
from agent.outbox.rows import MemoryRows, Whole
from protocols.uplink.ranges import Ranges


class MemoryOutbox:
    """`full`: set it to rehearse a full disk."""

    def __init__(
        self,
        epoch: str = "00000000000000aa",
        limit_bytes: int = 1 << 30,
        *,
        age_max_s: float = 0,
        grace_s: float = GRACE_S,
        thin_out: bool = False,
    ) -> None:
        self.full = False
        self.news: Sequence[str] = ()
        self.instance = secrets.token_hex(8)
        limits = Limits(limit_bytes, int(age_max_s * 1e6), int(grace_s * 1e6), thin_out)
        self._lanes = Lanes(MemoryRows(), Whole({NORMAL: epoch}), limits, new_epoch)

    @property
    def epoch(self) -> str:
        return self._lanes.epoch(NORMAL)

    def next_session(self) -> int:
        self._lanes.whole.session += 1
        return self._lanes.whole.session

    def append(self, drafts: Sequence[Draft], now_us: int) -> Sequence[int]:
        if self.full:
            raise OutboxFull("the outbox in memory takes nothing more; it was told to be full")
        numbers = self._lanes.append(drafts, now_us)
        self._lanes.flush()
        return numbers

    def pending(self, lane: Lane, first: int, last: int, count_max: int) -> Sequence[Stored]:
        return self._lanes.pending(lane, first, last, count_max)

    def offer(self, lane: Lane, first: int, last: int) -> None:
        self._lanes.offer(lane, first, last)

    def definition(self, lane: Lane, ref: bytes) -> GroupDefinition | None:
        return self._lanes.definition(lane, ref)

    def confirmed(self, lane: Lane, through: int, above: Ranges, now_us: int) -> None:
        self._lanes.confirmed(lane, through, above, now_us)

    def wanted(self, lane: Lane, missing: Ranges) -> Ranges:
        return self._lanes.wanted(lane, missing)

    def former(self, lane: Lane) -> Former | None:
        return self._lanes.former(lane)

    def formers(self) -> Mapping[Lane, int]:
        return self._lanes.formers()

    def declare_dropped(self, lane: Lane, first: int, last: int, reason: str) -> None:
        self._lanes.declare_dropped(lane, first, last, reason)

    def give_up(self, lane: Lane, seq: int, reason: str) -> None:
        self._lanes.give_up(lane, seq, reason)
        self._lanes.flush()

    def fork(self, reason: str, unsent: Mapping[Lane, Ranges] = NOTHING) -> None:
        for lane, run in self._lanes.fork(unsent):
            move(self._lanes, lane, run)
        self._lanes.flush()
        self.news = (*self.news, f"a new epoch begins: {reason}")

    def tend(self, now_us: int) -> None:
        self._lanes.tend(now_us)
        self._lanes.flush()

    def held(self) -> Mapping[Lane, Held]:
        return self._lanes.held()

    def stats(self) -> OutboxStats:
        return self._lanes.stats(self._lanes.oldest_us())

    def close(self) -> None:
        pass
