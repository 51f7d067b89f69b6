"""An outbox in memory, for tests and simulation: the whole contract but durability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.outbox.bookkeeping import KeptDefinition, declared, note_dropped, superseded, unknown
from agent.outbox.contract import Draft, Dropped, GroupDefinition, Held, OutboxFull, OutboxStats, Stored


@dataclass
class _Machine:
    next: int = 1
    batches: dict[int, Stored] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    definitions: list[KeptDefinition] = field(default_factory=list)


class MemoryOutbox:
    """`full`: set it to rehearse a full disk."""

    def __init__(self, epoch: str = "00000000000000aa", limit_bytes: int = 1 << 30) -> None:
        self.epoch = epoch
        self.full = False
        self._limit_bytes = limit_bytes
        self._session = 0
        self._dropped = 0
        self._machines: dict[str, _Machine] = {}

    def next_session(self) -> int:
        self._session += 1
        return self._session

    def append(self, drafts: Sequence[Draft], now_us: int) -> Sequence[int]:
        if self.full:
            raise OutboxFull("the outbox in memory takes nothing more; it was told to be full")
        seqs = []
        for draft in drafts:
            machine = self._machines.setdefault(draft.machine, _Machine())
            encoded = draft.encode(self.epoch, machine.next)
            self._make_room(len(encoded.payload))
            new = unknown(machine.definitions, encoded.definitions)
            machine.definitions += [KeptDefinition(machine.next, one) for one in new]
            machine.batches[machine.next] = Stored(machine.next, encoded.payload, now_us)
            seqs.append(machine.next)
            machine.next += 1
        return seqs

    def _make_room(self, wanted: int) -> None:
        while self._bytes() + wanted > self._limit_bytes and any(m.batches for m in self._machines.values()):
            machine = min(
                (m for m in self._machines.values() if m.batches),
                key=lambda m: next(iter(m.batches.values())).appended_us,
            )
            seq = next(iter(machine.batches))
            del machine.batches[seq]
            self._prune(machine)
            note_dropped(machine.dropped, seq, seq, "outbox full")
            self._dropped += 1

    def _bytes(self) -> int:
        return sum(len(b.payload) for m in self._machines.values() for b in m.batches.values())

    def pending(self, machine: str, after: int, count_max: int) -> Sequence[Stored]:
        batches = self._machines.get(machine, _Machine()).batches
        return [batch for seq, batch in batches.items() if seq > after][:count_max]

    def release(self, machine: str, through: int) -> int:
        held = self._machines.get(machine, _Machine())
        gone = [seq for seq in held.batches if seq <= through]
        for seq in gone:
            del held.batches[seq]
        held.dropped[:] = [one for one in held.dropped if one.last > through]
        self._prune(held)
        return len(gone)

    @staticmethod
    def _prune(machine: _Machine) -> None:
        first = min(machine.batches, default=machine.next)
        gone = superseded(machine.definitions, first)
        machine.definitions = [kept for kept in machine.definitions if kept not in gone]

    def definition(self, machine: str, ref: bytes) -> GroupDefinition | None:
        kept = self._machines.get(machine, _Machine()).definitions
        return next((one.definition for one in kept if one.definition.ref == ref), None)

    def declare_dropped(self, machine: str, first: int, last: int, reason: str) -> None:
        dropped = self._machines[machine].dropped
        dropped[:] = declared(dropped, first, last, reason)

    def held(self) -> Mapping[str, Held]:
        return {
            name: Held(
                min(m.batches, default=m.next),
                m.next - 1,
                tuple(m.dropped),
                tuple(kept.definition.ref for kept in m.definitions),
            )
            for name, m in self._machines.items()
        }

    def stats(self) -> OutboxStats:
        every = [b for m in self._machines.values() for b in m.batches.values()]
        oldest_us = min((b.appended_us for b in every), default=None)
        return OutboxStats(len(every), self._bytes(), self._limit_bytes, oldest_us, self._dropped)

    def close(self) -> None:
        pass
