"""Where an outbox keeps its batches and records: what the lanes' rules need of a store. One transaction at a time.

A lane is named by its `number` here. Whoever calls has begun a transaction, or only reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from agent.outbox.contract import GroupDefinition, Stored
from agent.outbox.lane import LaneState

DAMAGED_MAX = 32


class RowsMissing(Exception):
    """Rows that must be there are not: the store is damaged."""


class Size(NamedTuple):
    """What there is to know of a batch without reading it."""

    seq: int
    bytes: int
    readings: int
    appended_us: int


@dataclass(slots=True)
class Whole:
    """What concerns all lanes. `epochs`: priority → the present epoch, of those in use. `next_lane`: its number.

    `dropped`, `dropped_readings`: ever let go unconfirmed. `signs`: what this outbox is recognised by
    (agent/outbox/identity.py), with `id`, which is new whenever it is not. `commits`: how many transactions there were,
    this one included. `steady_us` was the steady time (agent/outbox/steady.py) when the wall clock said `wall_us`.
    `damaged`: the epochs that ended with a damaged database, the newest last; at most DAMAGED_MAX.
    """

    epochs: dict[int, str]
    session: int = 0
    dropped: int = 0
    dropped_readings: int = 0
    next_lane: int = 0
    id: str = ""
    signs: dict[str, Any] = field(default_factory=dict)
    commits: int = 0
    steady_us: int = 0
    wall_us: int = 0
    damaged: tuple[str, ...] = ()

    def copy(self) -> Whole:
        """One that later changes of this one leave alone."""
        return Whole(
            dict(self.epochs),
            self.session,
            self.dropped,
            self.dropped_readings,
            self.next_lane,
            self.id,
            dict(self.signs),
            self.commits,
            self.steady_us,
            self.wall_us,
            self.damaged,
        )


class Rows(Protocol):
    """Numbers are closed ranges of a lane's batches."""

    def insert(self, number: int, batch: Stored, readings: int) -> None: ...

    def read(self, number: int, first: int, last: int) -> list[Stored]:
        """Ascending; what cannot be read, or is not as it was written, is left out."""

    def sizes(self, number: int, first: int, last: int, count_max: int) -> list[Size]:
        """The lowest ones, ascending."""

    def measure(self, number: int, first: int, last: int) -> int:
        """Bytes of payload."""

    def delete(self, number: int, first: int, last: int) -> None: ...

    def put_definition(self, number: int, since: int, definition: GroupDefinition) -> None: ...

    def delete_definition(self, number: int, ref: bytes) -> None: ...

    def save_lane(self, state: LaneState) -> None: ...

    def delete_lane(self, number: int) -> None: ...

    def save_whole(self, whole: Whole) -> None: ...


class MemoryRows:
    """Batches in a dictionary; records need no saving."""

    def __init__(self) -> None:
        self._batches: dict[int, dict[int, tuple[Stored, int]]] = {}

    def insert(self, number: int, batch: Stored, readings: int) -> None:
        self._batches.setdefault(number, {})[batch.seq] = batch, readings

    def _found(self, number: int, first: int, last: int) -> list[tuple[Stored, int]]:
        lane = self._batches.get(number, {})
        if last - first < len(lane):
            return [lane[seq] for seq in range(first, last + 1) if seq in lane]
        return [lane[seq] for seq in sorted(lane) if first <= seq <= last]

    def read(self, number: int, first: int, last: int) -> list[Stored]:
        return [batch for batch, _ in self._found(number, first, last)]

    def sizes(self, number: int, first: int, last: int, count_max: int) -> list[Size]:
        found = self._found(number, first, last)[:count_max]
        return [Size(batch.seq, len(batch.payload), readings, batch.appended_us) for batch, readings in found]

    def measure(self, number: int, first: int, last: int) -> int:
        return sum(len(batch.payload) for batch, _ in self._found(number, first, last))

    def delete(self, number: int, first: int, last: int) -> None:
        for batch, _ in self._found(number, first, last):
            del self._batches[number][batch.seq]

    def put_definition(self, number: int, since: int, definition: GroupDefinition) -> None:
        pass

    def delete_definition(self, number: int, ref: bytes) -> None:
        pass

    def save_lane(self, state: LaneState) -> None:
        pass

    def delete_lane(self, number: int) -> None:
        pass

    def save_whole(self, whole: Whole) -> None:
        pass
