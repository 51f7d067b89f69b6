"""The one oracle of every row: what the devices' own logs say was acquired, against what the database holds.

*Answered* is every number that a device gave out, by the device's log (tests/faults/plant.py). Each must stand in the
database exactly once, with these exceptions, which are counted in columns of their own and never as zero by default:

- *declared*: it is part of batches whose numbers the receiver's ledger has as dropped, declared by the gateway. What
  an operator has written off is no excuse: the program has not said that it lost it.
- *in hand*: the answer was given within IN_HAND_S before the agent died, so that the agent had it in memory and not yet
  on disk. Only the very last answers of that life can be in hand: an unbroken run at its end. What was found in the
  outbox on disk after the death (or, before a power cut, was visible there as committed) is never in hand.
  After an orderly stop at most one answer of a device, the one on the line, may be in hand.
- *destroyed*: it was in the outbox and not in the database when the row itself destroyed the outbox. The gateway cannot
  know of it any more; a row says which.

Everything else that is missing is *lost*. A number that stands there twice is *doubled*, one that no device gave is
*invented*. Batches that the ledger waits for and tracebacks are faults of their own; so are dead letters and programs
that end by themselves, unless the row expects them.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.outboxes import Counts
from tests.faults.services import Life

IN_HAND_S = 3.0  # an append takes milliseconds, and on a busy machine now and then a second
SPAN = 1_000_000_000  # how far apart the numbers of sources begin that share a tag
WRITTEN_OFF = "written off by the operator"
Answer = tuple[int, int]  # the number, and when it was given (monotonic µs)


def answered(log: Path) -> list[Answer]:
    """The device's log. A line that is being written at this moment is left out."""
    if not log.exists():
        return []
    return [
        (int(number), int(at_us))
        for line in log.read_text().splitlines(keepends=True)
        if line.endswith("\n")
        for number, at_us in [line.split()]
    ]


class Store:
    """The receiver's database as anybody may read it (docs/sql.md), and no more of it each time than what is new."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.forget()

    def forget(self) -> None:
        """It is another database now."""
        self.numbers: dict[str, Counter[int]] = {}
        self._highest: dict[tuple[str, int], int] = {}
        self._through = 0

    def refresh(self) -> None:
        """Take in what is new. While the database cannot be read, there is nothing new."""
        try:
            rows = self.ask(
                "SELECT readings.rowid, tag, value FROM readings JOIN series ON series.id = series_id"
                f" WHERE readings.rowid > {self._through} AND quality = 0 AND typeof(value) = 'integer'"
            )
        except sqlite3.Error:
            return
        for rowid, name, value in rows:
            tag, number = str(name), _whole(value)
            self._through = max(self._through, _whole(rowid))
            self.numbers.setdefault(tag, Counter())[number] += 1
            span = (tag, number // SPAN)
            self._highest[span] = max(self._highest.get(span, 0), number)

    def highest(self, tag: str, base: int) -> int:
        """The highest number that is stored of the source whose numbers begin above `base`."""
        return self._highest.get((tag, base // SPAN), 0)

    def ask(self, query: str) -> list[tuple[object, ...]]:
        """Some rows; raises sqlite3.Error."""
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


@dataclass
class Evidence:
    """Of one source. `on_disk`: what was seen in its gateway's outbox when it died, or was cut off."""

    tag: str
    log: Path
    lives: Sequence[Life]
    on_disk: set[int] = field(default_factory=set)
    destroyed: set[int] = field(default_factory=set)


@dataclass
class Verdict:
    """Numbers of readings. `faults`: sentences, empty where all is well. `in_hand_s_max`: the oldest in hand."""

    readings: int = 0
    lost: int = 0
    doubled: int = 0
    declared: int = 0
    in_hand: int = 0
    in_hand_s_max: float = 0.0
    destroyed: int = 0
    faults: list[str] = field(default_factory=list)


def judge(store: Store, sources: Iterable[Evidence]) -> Verdict:
    """Compare. The programs must have ended. All is read anew: what was seen before may have gone since."""
    store = Store(store.path)
    store.refresh()
    verdict = Verdict()
    told = _declared(store)
    for source in sources:
        _judge_source(verdict, source, store.numbers.get(source.tag, Counter()), told.get(source.tag, []))
    return verdict


def _judge_source(verdict: Verdict, source: Evidence, found: Counter[int], told: Sequence[tuple[int, int]]) -> None:
    given = answered(source.log)
    verdict.readings += len(given)
    numbers = {number for number, _ in given}
    ours = {number: count for number, count in found.items() if _same_source(number, given)}
    twice = sorted(number for number, count in ours.items() if count > 1)
    strange = sorted(set(ours) - numbers)
    missing = numbers - set(ours)
    declared = {number for number in missing if any(first <= number <= last for first, last in told)}
    missing -= declared
    destroyed = missing & source.destroyed
    missing -= destroyed
    in_hand, oldest_s = _in_hand(given, missing, source)
    lost = sorted(missing - in_hand)
    verdict.lost += len(lost)
    verdict.doubled += len(twice)
    verdict.declared += len(declared)
    verdict.destroyed += len(destroyed)
    verdict.in_hand += len(in_hand)
    verdict.in_hand_s_max = max(verdict.in_hand_s_max, oldest_s)
    if lost:
        verdict.faults.append(f"{source.log.stem}: lost {ranges(lost)}")
    if twice:
        verdict.faults.append(f"{source.log.stem}: stored more than once {ranges(twice)}")
    if strange:
        verdict.faults.append(f"{source.log.stem}: stored, and never given by the device {ranges(strange)}")


def _same_source(number: int, given: Sequence[Answer]) -> bool:
    """Sources of cloned gateways share a tag; each has its own thousand million of numbers."""
    return bool(given) and number // SPAN == given[0][0] // SPAN


def _in_hand(given: Sequence[Answer], missing: set[int], source: Evidence) -> tuple[set[int], float]:
    """The missing ones that the agent had not stored yet when it ended, and the age of the oldest in seconds."""
    in_hand: set[int] = set()
    oldest_us = 0
    starts = [life.start_us for life in source.lives[1:]] + [2**63]
    for life, next_start_us in zip(source.lives, starts, strict=True):
        begin_us = life.start_us if life is not source.lives[0] else 0
        answers = [one for one in given if begin_us <= one[1] < next_start_us]
        limit = 1 if life.end == "stopped" else len(answers)
        for number, at_us in reversed(answers[-limit:] if limit else []):
            too_old = life.end != "stopped" and life.end_us - at_us > IN_HAND_S * 1e6
            if number not in missing or number in source.on_disk or too_old or life.end == "running":
                break
            in_hand.add(number)
            oldest_us = max(oldest_us, life.end_us - at_us)
    return in_hand, oldest_us / 1e6


def _declared(store: Store) -> dict[str, list[tuple[int, int]]]:
    """By tag: from which to which number of the device readings were let go, by the ledger's dropped ranges.

    A machine has one tag here, and stores its readings in the order of its numbers. So the readings of its batches,
    in the order of epoch and seq, are the device's numbers in ascending order; a dropped range lies between two
    batches, and holds the device's numbers between the last reading of the one and the first reading of the other.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    dropped = store.ask("SELECT DISTINCT machine_id FROM sequence_ledger JOIN epochs ON epochs.id = epoch_id"
                        " WHERE dropped IS NOT NULL")  # fmt: skip
    for (machine,) in dropped:
        [(tag,)] = store.ask(f"SELECT DISTINCT tag FROM series WHERE machine_id = {machine}")
        events = store.ask(
            "SELECT epoch_id, seq, readings FROM telemetry_events JOIN epochs ON epochs.id = epoch_id"
            f" WHERE machine_id = {machine} ORDER BY epoch_id, seq"
        )
        ledger = store.ask(
            "SELECT epoch_id, first, last FROM sequence_ledger JOIN epochs ON epochs.id = epoch_id"
            f" WHERE dropped NOT LIKE '{WRITTEN_OFF}%' AND machine_id = {machine}"
        )
        numbers = sorted(store.numbers.get(str(tag), Counter()).elements())
        if sum(_whole(readings) for _, _, readings in events) == len(numbers):
            gaps = [(_whole(epoch), _whole(first), _whole(last)) for epoch, first, last in ledger]
            found[str(tag)] = _gaps([(_whole(e), _whole(s), _whole(r)) for e, s, r in events], gaps, numbers)
    return found


def _whole(value: object) -> int:
    assert isinstance(value, int)
    return value


def _gaps(
    events: Sequence[tuple[int, int, int]], dropped: Sequence[tuple[int, int, int]], numbers: Sequence[int]
) -> list[tuple[int, int]]:
    """The device's numbers in each gap between batches where every number of the gateway is declared."""
    told = {(epoch, seq) for epoch, first, last in dropped for seq in range(first, last + 1)}
    found = []
    at = 0
    before: tuple[int, int] = (0, 0)  # epoch and seq of the batch before
    for epoch, seq, readings in events:
        first_seq = before[1] + 1 if epoch == before[0] else 1
        between = [(epoch, number) for number in range(first_seq, seq)]
        trailing = bool(before[0]) and epoch != before[0] and (before[0], before[1] + 1) in told
        if (between or trailing) and all(one in told for one in between) and at < len(numbers):
            found.append((numbers[at - 1] + 1 if at else 0, numbers[at] - 1))
        before = (epoch, seq)
        at += readings
    if (before[0], before[1] + 1) in told:
        found.append(((numbers[-1] if numbers else 0) + 1, 2**62))
    return found


def missing_batches(store: Store) -> int:
    """How many of the gateways' numbers the ledger waits for: said to be given, neither stored nor dropped."""
    [(missing,)] = store.ask(
        "SELECT coalesce(sum(max(known, given, coalesce(top, 0)) - coalesce(covered, 0)), 0) FROM epochs LEFT JOIN ("
        " SELECT epoch_id, max(last) AS top, sum(last - first + 1) AS covered FROM sequence_ledger GROUP BY epoch_id)"
        " ON epoch_id = epochs.id"
    )
    return _whole(missing)


def dead_letters(store: Store) -> list[str]:
    """Each reason with its count, whatever number or epoch it names."""
    found: Counter[str] = Counter()
    for reason, count in store.ask("SELECT reason, count(*) FROM dead_letters GROUP BY reason"):
        found[re.sub(r"'[^']*'|[0-9]+", "…", str(reason))] += _whole(count)
    return [f"{count} dead letters: {reason}" for reason, count in found.items()]


def merged(*seen: Counts) -> Counts:
    """All of them together."""
    whole: Counts = {}
    for one in seen:
        for tag, numbers in one.items():
            whole.setdefault(tag, set()).update(numbers)
    return whole


def ranges(numbers: Sequence[int]) -> str:
    """For people: 1–5, 9, 12–14."""
    parts = []
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]))
    return ", ".join(parts[:12]) + (f" … ({len(numbers)} in all)" if len(parts) > 12 else f" ({len(numbers)})")
