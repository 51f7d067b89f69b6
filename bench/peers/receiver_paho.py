"""The least that a receiver must do: paho + json + sqlite3's executemany, one durable transaction per message.

    python -m bench.peers.receiver_paho PORT DATABASE

It has the same table and index of readings as ours, and the same durability (WAL, synchronous=FULL); it acknowledges
after its commit. It keeps no ledger, finds no duplicates, knows no latest values and confirms nothing.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench.processes import HOST

CLIENT_ID = "bench-plain"
TOPIC_FILTER = "factory/+/+/+/+/telemetry"
_INSERT = "INSERT INTO readings (series_id, time, value, quality) VALUES (?, ?, ?, ?)"
_TABLES = """
    PRAGMA journal_mode=WAL;
    PRAGMA synchronous=FULL;
    PRAGMA cache_size=-32768;
    CREATE TABLE series (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, tag TEXT NOT NULL, UNIQUE (topic, tag));
    CREATE TABLE readings (series_id INTEGER NOT NULL, time INTEGER NOT NULL, value, quality INTEGER NOT NULL);
    CREATE INDEX readings_by_time ON readings (time, series_id);
"""


class Plain:
    """`series`: (topic, tag) → id."""

    def __init__(self, database: str) -> None:
        self._connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        self._connection.executescript(_TABLES)
        self._series: dict[tuple[str, str], int] = {}

    def take(self, client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        """One message: decode, commit, acknowledge."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_INSERT, self._rows(message.topic, json.loads(message.payload)))
        self._connection.execute("COMMIT")
        client.ack(message.mid, message.qos)

    def _rows(self, topic: str, content: dict[str, Any]) -> list[tuple[int, int, Any, int]]:
        rows = []
        for scan in content["scans"]:
            time_us, quality = round(scan["timestamp"] * 1000), scan.get("quality", {})
            for tag, value in scan["values"].items():
                series = self._series.get((topic, tag)) or self._new(topic, tag)
                rows.append((series, time_us, value, quality.get(tag, 0)))
        return rows

    def _new(self, topic: str, tag: str) -> int:
        found = self._connection.execute("INSERT INTO series (topic, tag) VALUES (?, ?)", (topic, tag)).lastrowid
        assert found is not None
        self._series[topic, tag] = found
        return found


def _subscribe(client: paho.Client, _data: object, _flags: object, _code: object, _properties: object) -> None:
    client.subscribe(TOPIC_FILTER, qos=1)


def main(port: int, database: str) -> None:
    plain = Plain(database)
    client = paho.Client(CallbackAPIVersion.VERSION2, CLIENT_ID, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True)
    client.on_message = plain.take
    client.on_connect = _subscribe
    wishes = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho types all but this
    wishes.SessionExpiryInterval = 3600
    client.connect(HOST, port, clean_start=False, properties=wishes)
    client.loop_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
