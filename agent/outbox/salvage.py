"""Reading what can still be read of a damaged database, into a new one.

Batches keep their lanes and numbers, because one that had reached the receiver before the damage would otherwise be
stored twice. Which numbers there should be is known from memory where the damage was found in operation, else from the
lanes' records; where a record is lost, the lane is known from the register, and its numbers are those that are found.
What waited and cannot be read is declared dropped.
"""

from __future__ import annotations

import itertools
import secrets
import sqlite3
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import diskcache

from agent.outbox.bookkeeping import KeptDefinition, bounded, note_dropped
from agent.outbox.cache import SALVAGE, CacheRows, Record, Row
from agent.outbox.contract import NORMAL, GroupDefinition, Lane, OutboxError
from agent.outbox.lane import LaneState
from agent.outbox.lanes import LANES_MAX, Lanes, Limits, new_epoch
from agent.outbox.records import RecordError, unpack_definition, unpack_lane, unpack_machine, unpack_whole
from agent.outbox.rows import DAMAGED_MAX, Whole
from protocols.uplink import ranges
from protocols.uplink.ranges import Ranges

LOST = "lost with a damaged outbox"
_FAILURES_MAX = 20_000  # and one more for every ten rows that were read: what is wholly unreadable is given up soon
_GROUP = 100


class Salvaged(NamedTuple):
    """`lanes`: over the new rows, a new epoch begun. How many waiting batches were read, and how many are lost."""

    lanes: Lanes
    read: int
    lost: int


class Wreck:
    """A damaged database, only ever read. It may be no database at all; then there is nothing in it."""

    def __init__(self, file: Path) -> None:
        self._connection: sqlite3.Connection | None = None
        address = file.absolute().as_uri()
        for mode in ("mode=ro", "immutable=1"):  # the second one does without a log that cannot be read either
            try:
                connection = sqlite3.connect(f"{address}?{mode}", uri=True)
            except sqlite3.DatabaseError:
                continue  # it is gone
            try:
                connection.execute("PRAGMA writable_schema = ON")  # or a file cut short is not read at all
                connection.execute("SELECT rowid FROM Cache LIMIT 0").fetchall()
                self._connection = connection
                break
            except sqlite3.DatabaseError:
                connection.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def rows(self, with_batches: bool) -> Iterator[Row]:
        """Every sound row that can be read; without their payloads, or all. Around a damaged page row by row.

        From both ends in turn, so that what is missing at one of them is not given up together with the other.
        """
        connection = self._connection
        if connection is None:
            return
        spans = deque([(0, self._highest(connection))])
        left: float = _FAILURES_MAX
        is_first = False
        while spans and left > 0:
            is_first = not is_first
            low, high = spans.popleft() if is_first else spans.pop()
            try:
                for rowid, *row in connection.execute(SALVAGE, (with_batches, low, high)):
                    low = rowid + 1
                    found = Row(*row)
                    left += 0.1
                    if found.is_sound():
                        yield found
            except sqlite3.DatabaseError:
                left -= 1
                middle = (low + high) // 2
                if low < high and is_first:
                    spans.extendleft([(middle + 1, high), (low, middle)])
                elif low < high:
                    spans.extend([(low, middle), (middle + 1, high)])

    @staticmethod
    def _highest(connection: sqlite3.Connection) -> int:
        """The highest rowid; where the end of the table cannot be read, about how far it may go."""
        for query in ("SELECT max(rowid) FROM Cache", "SELECT max(rowid) FROM Cache INDEXED BY Cache_key_raw"):
            try:
                [(highest,)] = connection.execute(query).fetchall()
                return int(highest or 0)
            except sqlite3.DatabaseError:
                continue
        readable = 0
        for exponent in range(40):
            try:
                connection.execute("SELECT rowid FROM Cache WHERE rowid = ?", (1 << exponent,)).fetchall()
                readable = 1 << exponent
            except sqlite3.DatabaseError:
                continue
        return 4 * readable + 256


def salvage(
    wreck: Wreck,
    rows: CacheRows,
    limits: Limits,
    known: Lanes | None,
    register: Mapping[int, tuple[Lane, int]],
    with_kept: bool,
) -> Salvaged:
    """Fill `rows`, which are new. `known`: the lanes as they were in memory. `with_kept`: confirmed batches, too."""
    if known is not None:
        whole, by_number = known.whole.copy(), {state.number: state.copy() for state in known.states.values()}
        exact = set(by_number)
    else:
        records = _Records(wreck)
        whole, by_number = records.lanes()
        exact = set(by_number)
        names = {state.name for state in by_number.values()}
        for number, (name, priority) in register.items():
            if number not in exact and name not in names:
                by_number[number] = LaneState(name, number, priority)
                records.define(by_number[number])
    if not with_kept:
        for state in by_number.values():
            state.keep_only(())
    found, newest_us = _copy(wreck, rows, by_number, exact)
    whole.steady_us = whole.steady_us or newest_us
    lost = 0
    for number, state in by_number.items():
        if number not in exact:
            _guess(state, found.get(number, ()))
        lost += _settle(state, rows, found.get(number, ()))
    whole.damaged = (*whole.damaged, *whole.epochs.values())[-DAMAGED_MAX:]
    whole.epochs = {NORMAL: new_epoch()}
    if not whole.id:  # the main record is lost
        whole.id = secrets.token_hex(8)
        whole.next_lane = (max(by_number, default=-1) + 1) % LANES_MAX  # what is made now is newer than these
    whole.dropped += lost
    lanes = Lanes(rows, whole, limits, new_epoch, list(by_number.values()))
    lanes.touch_whole()
    with rows.transaction():
        for state in by_number.values():
            lanes.touch(state.name)
            for kept in state.definitions:
                rows.put_definition(state.number, kept.since, kept.definition)
        lanes.flush()
    return Salvaged(lanes, sum(ranges.count(state.waiting) for state in by_number.values()), lost)


class _Records:
    """The records of a damaged database, as far as they can be read."""

    def __init__(self, wreck: Wreck) -> None:
        self._whole: bytes | None = None
        self._lanes: dict[int, bytes] = {}
        self._definitions: dict[int, dict[bytes, tuple[int, GroupDefinition]]] = {}
        for row in wreck.rows(with_batches=False):
            match row.place():
                case Record.WHOLE, _, _:
                    self._whole = row.value
                case Record.LANE, number, _:
                    self._lanes[number] = row.value
                case Record.DEFINITION, number, ref:
                    self._take_definition(number, ref, row.value)

    def _take_definition(self, number: int, ref: bytes, packed: bytes) -> None:
        try:
            self._definitions.setdefault(number, {})[ref] = unpack_definition(ref, packed)
        except RecordError:
            return  # its CRC was right: it is of a version that we do not know

    def lanes(self) -> tuple[Whole, dict[int, LaneState]]:
        """What concerns all lanes, and each lane by its number; what is lost is left out."""
        whole, machines = Whole({}), None
        try:
            if self._whole is not None:
                whole, machines = unpack_whole(self._whole)
        except (RecordError, OutboxError):
            pass  # as good as lost
        states = {}
        for number, packed in self._lanes.items():
            there = {ref: definition for ref, (_, definition) in self._definitions.get(number, {}).items()}

            try:
                if machines is None:
                    state = unpack_lane(number, packed, there.get)
                else:
                    state = unpack_machine(number, machines[number], whole.epochs[NORMAL], packed, there.get)
            except (RecordError, IndexError):
                continue
            states[number] = state
        return whole, states

    def define(self, state: LaneState) -> None:
        """Give a lane whose record is lost all the definitions that are there."""
        there = sorted(self._definitions.get(state.number, {}).values(), key=lambda one: one[0])
        state.definitions = tuple(KeptDefinition(since, definition) for since, definition in there)


def _copy(
    wreck: Wreck, rows: CacheRows, by_number: Mapping[int, LaneState], exact: set[int]
) -> tuple[dict[int, Ranges], int]:
    """(lane's number → the numbers that were read and are in the new database, as many as it takes; when the newest
    batch of them was appended)."""
    found: dict[int, Ranges] = {}
    newest_us = 0
    here = {number: by_number[number].here() for number in exact}

    def is_wanted(row: Row) -> bool:
        kind, number, _ = row.place()
        if kind is not Record.BATCH or number not in by_number or ranges.contains(found.get(number, ()), row.seq()):
            return False
        return number not in exact or ranges.contains(here[number], row.seq())

    batches = wreck.rows(with_batches=True)
    while group := list(itertools.islice(batches, _GROUP)):
        wanted = list({row.key: row for row in group if is_wanted(row)}.values())  # a damaged tree gives rows twice
        try:
            with rows.transaction():
                for row in wanted:
                    rows.copy(row)
        except (sqlite3.OperationalError, diskcache.Timeout):
            rows.close()  # full: what is not copied stays where it was set aside
            break
        for row in wanted:
            number = row.place()[1]
            found[number] = ranges.add(found.get(number, ()), row.seq())
            newest_us = max(newest_us, row.tag or 0)
    return found, newest_us


def _guess(state: LaneState, found: Ranges) -> None:
    """A lane whose record is lost: all that was found may wait, and may have been offered."""
    if found:
        state.last = found[-1][1]
        state.waiting = ((found[0][0], state.last),)
        state.marked = ((1, state.last),)


def _settle(state: LaneState, rows: CacheRows, found: Ranges) -> int:
    """Make the lane's state agree with what was found; how many waiting ones are lost."""
    lost = ranges.minus(state.waiting, found)
    for first, last in lost:
        state.dropped = note_dropped(state.dropped, first, last, LOST)
    state.waiting = ranges.common(state.waiting, found)
    state.dropped = bounded(state.dropped, state.waiting)
    state.waiting_bytes = sum(rows.measure(state.number, *one) for one in state.waiting)
    slots = [slot._replace(numbers=ranges.common(slot.numbers, found)) for slot in state.kept]
    state.keep_only(
        [slot._replace(bytes=sum(rows.measure(state.number, *one) for one in slot.numbers)) for slot in slots]
    )
    state.doomed = ()
    state.doomed_refs = ()
    state.fresh = state.last + 1
    state.offered = ranges.common(ranges.union(state.marked, state.offered), ((1, state.last),))
    state.oldest = state.view = None
    return ranges.count(lost)
