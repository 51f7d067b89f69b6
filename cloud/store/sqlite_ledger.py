"""The account of numbers in one group of messages: what is stored, declared dropped, given and sent.

Ranges of what was stored are written once for the group; what a gateway says of its numbers only grows.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from cloud.sequence import Fall, Span, fall, given, overlay, said
from cloud.store.contract import Beat, Loss
from cloud.store.sqlite_catalog import Catalog, Epoch, Machine, plant_id
from protocols.uplink.batch import SEQ_MAX
from protocols.uplink.ranges import of
from protocols.uplink.status import Status
from protocols.uplink.topics import MachineTopic


@dataclass(slots=True)
class _Stored:
    """What the group has stored in one epoch."""

    epoch: Epoch
    numbers: list[int] = field(default_factory=list)
    readings: int = 0
    last_us: int = 0


class Numbers:
    """`store` and `say` in the order of receipt; `write` at the end of the group."""

    def __init__(self, connection: sqlite3.Connection, catalog: Catalog) -> None:
        self._connection = connection
        self._catalog = catalog
        self._stored: dict[int, _Stored] = {}

    def store(self, epoch: Epoch, seq: int, readings: int, received_us: int) -> None:
        """A batch was stored."""
        stored = self._stored.setdefault(epoch.id, _Stored(epoch))
        stored.numbers.append(seq)
        stored.readings += readings
        stored.last_us = max(stored.last_us, received_us)

    def is_stored(self, epoch: Epoch, seq: int) -> bool:
        """Whether the ledger has it, from before this group."""
        span = self._connection.execute(
            "SELECT last, dropped FROM sequence_ledger WHERE epoch_id = ? AND first <= ? ORDER BY first DESC LIMIT 1",
            (epoch.id, seq),
        ).fetchone()
        return span is not None and span[0] >= seq and span[1] is None

    def exists(self, epoch: Epoch, seq: int) -> bool:
        """Whether its gateway has said that it gave this number, or more is known of it."""
        ((given,),) = self._connection.execute("SELECT max(given, known) FROM epochs WHERE id = ?", (epoch.id,))
        return seq <= int(given)

    def lose(self, epoch: Epoch, first: int, last: int, reason: str) -> None:
        """Batches that can never be stored: nobody is to wait for them."""
        self._overlay(epoch.id, Span(first, last, reason))
        self._know(epoch, last)

    def say(self, beat: Beat, plant_id: int, before: Status | None, *, history: bool) -> None:
        """What a gateway's status says of its numbers. An old message makes no new epoch.

        `before`: the gateway's last status before, where this one can be held against it.
        """
        for name, epoch_name, numbers in said(beat.status):
            epoch = self._epoch(beat, MachineTopic(beat.topic.plant, name), epoch_name, plant_id, history=history)
            if epoch is None:
                continue
            known = max(numbers.sent_seq, numbers.sent_highest)
            for first, last, reason in numbers.dropped:
                if last >= max(first, 1):
                    self._overlay(epoch.id, Span(max(first, 1), last, reason))
                    known = max(known, last)
            self._know(epoch, known)
            ((highest,),) = self._connection.execute(
                "UPDATE epochs SET given = max(given, ?), sent = max(sent, ?) WHERE id = ? RETURNING given",
                (given(numbers), numbers.sent_seq, epoch.id),
            )
            if not history:
                fallen = fall(before, beat.status, name, epoch_name)
                self._name(epoch, beat.received_us, given(numbers), fallen, highest)

    def _name(self, epoch: Epoch, now_us: int, last: int, fallen: Fall, highest: int) -> None:
        """A status that is not history says that `last` was given in this epoch, and `highest` at some time."""
        self._connection.execute(
            "UPDATE epochs SET named_us = ?1, vouched = CASE WHEN ?3 THEN ?2 ELSE max(vouched, ?2) END WHERE id = ?4",
            (now_us, last, fallen is not Fall.NONE, epoch.id),
        )
        if fallen is Fall.OURS:
            self._know(epoch, highest)

    def write(self) -> None:
        """Everything that waits."""
        for stored in self._stored.values():
            for first, last in of(stored.numbers):
                self._overlay(stored.epoch.id, Span(first, last))
            self._know(stored.epoch, max(stored.numbers))
            self._connection.execute(
                "UPDATE epochs SET readings_ever = readings_ever + ?1, stored_us = max(coalesce(stored_us, 0), ?2)"
                " WHERE id = ?3",
                (stored.readings, stored.last_us, stored.epoch.id),
            )

    def _epoch(self, beat: Beat, topic: MachineTopic, name: str, plant_id: int, *, history: bool) -> Epoch | None:
        machine: Machine | None
        if history:
            machine = self._catalog.find_machine(self._connection, topic, plant_id)
            return None if machine is None else machine.epochs.get(name)
        machine = self._catalog.machine(self._connection, topic, plant_id)
        return self._catalog.epoch(self._connection, machine, name, beat.topic.thing, named=True)

    def _overlay(self, epoch_id: int, new: Span) -> None:
        """Put one span into the ledger: only the few that it touches are read and written."""
        rows = self._connection.execute(
            "SELECT first, last, dropped FROM sequence_ledger WHERE epoch_id = ?1 AND first <= ?3 AND first >="
            " coalesce((SELECT max(first) FROM sequence_ledger WHERE epoch_id = ?1 AND first < ?2), ?2)"
            " ORDER BY first",
            (epoch_id, new.first, min(new.last, SEQ_MAX - 1) + 1),
        )
        before = dict.fromkeys(Span(*row) for row in rows)
        after = dict.fromkeys(overlay(list(before), new))
        self._connection.executemany(
            "DELETE FROM sequence_ledger WHERE epoch_id = ? AND first = ?",
            [(epoch_id, span.first) for span in before if span not in after],
        )
        self._connection.executemany(
            "INSERT INTO sequence_ledger (epoch_id, first, last, dropped) VALUES (?, ?, ?, ?)",
            [(epoch_id, *span) for span in after if span not in before],
        )

    def _know(self, epoch: Epoch, known: int) -> None:
        if known > epoch.known:
            self._connection.execute("UPDATE epochs SET known = max(known, ?) WHERE id = ?", (known, epoch.id))
            epoch.known = known


def declare(connection: sqlite3.Connection, topic: MachineTopic, epoch_name: str, loss: Loss) -> None:
    """Numbers of an epoch that is there, if it is."""
    catalog = Catalog(version=0)  # of its own: nothing new is made
    plant = plant_id(connection, topic.plant)
    machine = None if plant is None else catalog.find_machine(connection, topic, plant)
    if machine is not None:
        Numbers(connection, catalog).lose(machine.epochs[epoch_name], loss.first, loss.last, loss.reason)
