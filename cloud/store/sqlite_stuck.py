"""Finding what cloud/stuck.py is about: dead letters that keep coming, and numbers that keep missing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import groupby

from cloud import stuck
from cloud.completeness import statement
from cloud.store import sqlite_queries
from cloud.store.sqlite_ledger import declare
from protocols.uplink.ranges import Ranges
from protocols.uplink.topics import MachineTopic, TopicError, parse

_SECOND_US = 1_000_000


class Stuck:
    """Looks now and then. What was missing since when is remembered, and not kept over a restart."""

    def __init__(self) -> None:
        self._since_us: dict[tuple[MachineTopic, str, Ranges], int] = {}

    def settle(self, connection: sqlite3.Connection, now_us: int) -> None:
        """Declare as dropped what can never be read."""
        before, self._since_us = self._since_us, {}
        for machine, letters in _coming(connection, now_us):
            gaps = [
                (ledger.epoch, found.missing_ranges)
                for ledger in sqlite_queries.ledgers(connection, machine)
                if ledger.named and (found := statement(ledger)).missing
            ]
            if len(gaps) != 1:  # of several lanes nobody can tell which
                continue
            [(epoch, missing)] = gaps
            key = (machine, epoch, missing)
            since_us = self._since_us[key] = before.get(key, now_us)
            for loss in stuck.losses(letters, missing, (now_us - since_us) / _SECOND_US):
                declare(connection, machine, epoch, loss)


def _coming(connection: sqlite3.Connection, now_us: int) -> Iterator[tuple[MachineTopic, list[int]]]:
    """Machine → its telemetry's dead letters that came several times, and lately."""
    rows = connection.execute(
        "SELECT topic, id FROM dead_letters WHERE state = 'waiting' AND last_us >= ? AND count >= ? ORDER BY topic, id",
        (now_us - int(stuck.FRESH_S * _SECOND_US), stuck.TIMES_MIN),
    ).fetchall()
    for topic, found in groupby(rows, key=_topic):
        try:
            machine = parse(topic)
        except TopicError:
            continue
        if isinstance(machine, MachineTopic):
            yield machine, [letter for _, letter in found]


def _topic(row: tuple[str, int]) -> str:
    return row[0]
