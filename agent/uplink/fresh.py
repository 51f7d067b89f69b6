"""What was just appended, kept in memory for the moment until it is published: the disk need not be read for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from agent.outbox.contract import NORMAL, GroupDefinition, Lane

FRESH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Fresh:
    """A batch that the outbox has just taken, byte for byte as it stands there."""

    lane: Lane
    seq: int
    payload: bytes
    definitions: Sequence[GroupDefinition] = ()
    priority: int = NORMAL


class FreshBatches:
    """The newest `bytes_max` of them."""

    def __init__(self, bytes_max: int = FRESH_BYTES) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._batches: OrderedDict[tuple[Lane, int], Fresh] = OrderedDict()

    def put(self, batch: Fresh) -> None:
        """Keep it; the oldest go where there are too many."""
        self.pop(batch.lane, batch.seq)
        self._batches[batch.lane, batch.seq] = batch
        self._bytes += len(batch.payload)
        while self._bytes > self._bytes_max:
            _, oldest = self._batches.popitem(last=False)
            self._bytes -= len(oldest.payload)

    def get(self, lane: Lane, seq: int) -> Fresh | None:
        """It, where it is still here."""
        return self._batches.get((lane, seq))

    def pop(self, lane: Lane, seq: int) -> None:
        """It is needed no longer."""
        batch = self._batches.pop((lane, seq), None)
        if batch is not None:
            self._bytes -= len(batch.payload)

    def clear(self) -> None:
        """None is needed any longer."""
        self._batches.clear()
        self._bytes = 0
