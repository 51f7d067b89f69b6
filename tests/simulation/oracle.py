"""What was taken, against what is stored: each reading once, or declared dropped. Knows nothing of how it came about.

A reading is taken when the outbox's `append` has returned with the number of its batch. The account is kept by lane and
number, read from the outbox itself right after the append; what the store holds is read from the store itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Key = tuple[str, str, int]
"""Machine, epoch, number."""


class Broken(AssertionError):
    """The promise is broken; the text says how."""


@dataclass
class Account:
    """`taken`: the counters in each batch that ever got a number. `undone`: batches that a rollback of the outbox's
    disk took away; such a batch may be stored, because it may have been sent before, and may be missing for ever,
    because the gateway cannot tell whether a clone of it still has it. `destroyed`: those that were lost with the
    outbox's database; nobody is to wait for them. `ever`: (machine, counter) of all."""

    taken: dict[Key, tuple[int, ...]] = field(default_factory=dict)
    undone: set[Key] = field(default_factory=set)
    destroyed: set[Key] = field(default_factory=set)
    ever: set[tuple[str, int]] = field(default_factory=set)

    def note(self, key: Key, counters: Iterable[int]) -> None:
        found = tuple(counters)
        self.ever |= {(key[0], counter) for counter in found}
        if key in self.taken and self.taken[key] != found:
            raise Broken(f"number {key} was given twice, to {self.taken[key]} and to {found}")
        self.taken[key] = found
        self.undone.discard(key)


def check(
    account: Account, stored: Mapping[str, Counter[int]], dropped: set[Key], missing: set[Key], dead: set[int]
) -> Counter[str]:
    """`stored`: machine → how often each counter is in the store. `dropped`, `missing`: by the receiver's ledger.
    `dead`: counters that lie among the dead letters. None does: nothing here damages a message or gives a number twice.

    Gives the figures of the row. Raises Broken.
    """
    doubled = {machine: [n for n, times in found.items() if times > 1] for machine, found in stored.items()}
    if any(doubled.values()):
        raise Broken(f"stored more than once: { {machine: found for machine, found in doubled.items() if found} }")
    if missing - account.undone:
        raise Broken(f"still missing after everything healed: {sorted(missing - account.undone)[:10]}")
    if dead:
        raise Broken(f"in dead letters: {sorted(dead)[:10]}")
    figures = Counter(readings=0, declared=0, lost=0)
    known: dict[str, set[int]] = {}
    excused: dict[str, set[int]] = {}
    for key, counters in account.taken.items():
        known.setdefault(key[0], set()).update(counters)
        if key in account.undone or key in account.destroyed or key in dropped:
            excused.setdefault(key[0], set()).update(counters)
    for machine, taken in known.items():
        there = set(stored.get(machine, {}))
        figures["readings"] += len(taken)
        gone = taken - there
        lost = gone - excused.get(machine, set())
        figures["declared"] += len(gone) - len(lost)
        if lost:
            where = [key for key, counters in account.taken.items() if lost & set(counters)]
            raise Broken(f"taken of {machine}, and neither stored nor declared dropped: {sorted(lost)[:10]} in {where}")
    for machine, found in stored.items():
        strangers = {counter for counter in found if (machine, counter) not in account.ever}
        if strangers:
            raise Broken(f"stored of {machine}, and never taken: {sorted(strangers)[:10]}")
    return figures
