"""The definitions that telemetry refers to: remembered within bounds, fetched from the store when forgotten."""

from __future__ import annotations

from collections import OrderedDict

from cloud.store.contract import Store
from protocols.uplink import definition
from protocols.uplink.definition import Definition
from protocols.uplink.topics import MachineTopic

TAGS_MAX = 1_000_000
"""Definitions are remembered up to this many tags in all; those used least recently are forgotten first."""


class Definitions:
    """Used by one thread at a time."""

    def __init__(self, tags_max: int = TAGS_MAX) -> None:
        self._tags_max = tags_max
        self._tags = 0
        self._known: OrderedDict[tuple[MachineTopic, bytes], Definition] = OrderedDict()

    def learn(self, machine: MachineTopic, ref: bytes, found: Definition) -> None:
        """Remember one that has just arrived."""
        if (machine, ref) not in self._known:
            self._known[machine, ref] = found
            self._tags += len(found.tags)
        self._known.move_to_end((machine, ref))
        while self._tags > self._tags_max and len(self._known) > 1:
            _, forgotten = self._known.popitem(last=False)
            self._tags -= len(forgotten.tags)

    def find(self, store: Store, machine: MachineTopic, ref: bytes) -> Definition | None:
        """None where neither we nor the store know it. Raises StoreAway."""
        known = self._known.get((machine, ref))
        if known is None:
            message = store.definition(machine, ref)
            if message is None:
                return None
            known = definition.decode(message)
        self.learn(machine, ref, known)
        return known
