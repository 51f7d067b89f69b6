"""What is known of gateways: their last word, who speaks under their name, and what was noted of them.

Presence follows protocols/uplink/presence.py, installations cloud/speakers.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cloud import speakers
from cloud.speakers import News, Speakers
from cloud.store.contract import GATEWAY_EVENTS_MAX, Beat, GatewayEvent, GatewayRow, StoreError
from cloud.store.sqlite_catalog import plant_id
from protocols.uplink.presence import Heard, Presence, came, hear, is_history, presence
from protocols.uplink.status import SILENCE_S, Status
from protocols.uplink.topics import GatewayTopic, Plant

_SILENCE_US = int(SILENCE_S * 1_000_000)


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    heard: Heard
    speakers: Speakers
    noted: str


class Taken(NamedTuple):
    """Of a status: whether it was overtaken by what is known, and the gateway's last one before that it can be held
    against: None where it is history, or one of two installations is fenced."""

    is_history: bool
    before: Status | None


def take(connection: sqlite3.Connection, beat: Beat, plant: int) -> Taken:
    """A status or will."""
    before = _row(connection, plant, beat.topic.thing)
    after = hear(before.heard, beat.status, retained=beat.retained, received_us=beat.received_us)
    history = is_history(before.heard, beat.status, retained=beat.retained)
    now: Speakers = before.speakers
    news: Sequence[News] = ()
    if beat.status.state == "online" and not beat.retained:
        now, news = speakers.heard(now, beat.status.instance, beat.status.host, beat.received_us)
    status_us = None if history or beat.status.gateway is None else beat.received_us
    connection.execute(
        "UPDATE gateways SET alive_us = ?, session = ?, ended = ?, ended_us = ?, status = ?, skew_us = ?,"
        " status_us = coalesce(?, status_us), speakers = ? WHERE id = ?",
        (
            *(after.alive_us, after.session, after.ended, after.ended_us),
            *(after.status.encode().decode() if after.status else None, after.skew_us),
            *(status_us, speakers.to_json(now) if now.known else "", before.id),
        ),
    )
    for one in news:
        _note(connection, before.id, beat.received_us, one.event, one.detail)
    _note_presence(connection, before, after, beat.received_us)
    return Taken(history, None if history or now.fenced else before.heard.status)


def _note_presence(connection: sqlite3.Connection, before: _Row, after: Heard, now_us: int) -> None:
    """Where it is not what it was. What only a retained message says is noted when it says that the session ended."""
    if not after.ended and after.alive_us != now_us:
        return
    found = presence(after, now_us=now_us, listening_since_us=now_us)
    if found.word != before.noted:
        detail = after.ended if after.ended else came(before.heard, before.noted, after)
        _set_noted(connection, before.id, now_us, found, detail)


def note_silent(connection: sqlite3.Connection, listening_since_us: int, now_us: int) -> None:
    """Note those that have fallen silent. A receiver that has listened for less than SILENCE_S does not know."""
    if now_us - listening_since_us < _SILENCE_US:
        return
    rows = connection.execute(
        "SELECT id, alive_us FROM gateways WHERE noted = ? AND alive_us < ?",
        (Presence.ONLINE.word, now_us - _SILENCE_US),
    ).fetchall()
    for gateway_id, alive_us in rows:
        since_us = max(alive_us, listening_since_us) + _SILENCE_US
        _set_noted(connection, gateway_id, since_us, Presence.SILENT, f"no heartbeat for {SILENCE_S:.0f} s")


def _set_noted(connection: sqlite3.Connection, gateway_id: int, at_us: int, found: Presence, detail: str) -> None:
    connection.execute("UPDATE gateways SET noted = ?, noted_us = ? WHERE id = ?", (found.word, at_us, gateway_id))
    _note(connection, gateway_id, at_us, found.word, detail)


def _note(connection: sqlite3.Connection, gateway_id: int, at_us: int, event: str, detail: str) -> None:
    connection.execute(
        "INSERT INTO gateway_events (gateway_id, at_us, event, detail) VALUES (?, ?, ?, ?)",
        (gateway_id, at_us, event, detail),
    )
    connection.execute(
        "DELETE FROM gateway_events WHERE gateway_id = ?1 AND id <= (SELECT id FROM gateway_events"
        " WHERE gateway_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        (gateway_id, GATEWAY_EVENTS_MAX),
    )


def _row(connection: sqlite3.Connection, plant: int, thing: str) -> _Row:
    """Made where it does not exist."""
    select = (
        "SELECT id, noted, speakers, alive_us, session, ended, ended_us, status, skew_us FROM gateways"
        " WHERE plant_id = ? AND name = ?"
    )
    row = connection.execute(select, (plant, thing)).fetchone()
    if row is None:
        made = connection.execute("INSERT INTO gateways (plant_id, name) VALUES (?, ?) RETURNING id", (plant, thing))
        return _Row(made.fetchone()[0], Heard(), Speakers(), "")
    return _Row(row[0], _heard(*row[3:]), speakers.from_json(row[2]), row[1])


def _heard(
    alive_us: int | None, session: int, ended: str, ended_us: int | None, status: str | None, skew_us: int | None
) -> Heard:
    said = None if status is None else Status.model_validate_json(status)
    return Heard(alive_us, session, ended, ended_us, said, skew_us)


def rows(connection: sqlite3.Connection) -> list[GatewayRow]:
    """By name."""
    found = connection.execute(
        "SELECT tenant, province, plant, name, registered, speakers, noted_us,"
        " coalesce(uncertain, 0), coalesce(corrected, 0), alive_us, session, ended, ended_us, status, skew_us"
        " FROM gateways JOIN plants_named USING (plant_id) LEFT JOIN"
        " (SELECT plant_id, gateway AS name, sum(batches - corrected) AS uncertain, sum(corrected) AS corrected"
        " FROM clock_spans GROUP BY plant_id, gateway) USING (plant_id, name) ORDER BY 1, 2, 3, 4"
    )
    return [
        GatewayRow(Plant(*row[:3]), row[3], bool(row[4]), _heard(*row[9:]), speakers.from_json(row[5]), *row[6:9])
        for row in found
    ]


def history(connection: sqlite3.Connection, gateway: GatewayTopic, limit: int) -> list[GatewayEvent]:
    """The newest first."""
    found = connection.execute(
        "SELECT at_us, event, detail FROM gateway_events WHERE gateway_id = (SELECT id FROM gateways"
        " WHERE plant_id = ? AND name = ?) ORDER BY id DESC LIMIT ?",
        (plant_id(connection, gateway.plant), gateway.thing, limit),
    )
    return [GatewayEvent(*row) for row in found]


def speaking(connection: sqlite3.Connection, gateway: GatewayTopic) -> Speakers:
    """Who speaks under its name."""
    row = connection.execute(
        "SELECT speakers FROM gateways WHERE plant_id = ? AND name = ?",
        (plant_id(connection, gateway.plant), gateway.thing),
    ).fetchone()
    return speakers.from_json(row[0]) if row else Speakers()


def accept(connection: sqlite3.Connection, gateway: GatewayTopic) -> str:
    """The fenced installation's host. Raises StoreError."""
    now = speaking(connection, gateway)
    fenced = now.find(now.fenced)
    if fenced is None:
        raise StoreError(f"gateway {gateway.thing} of plant {gateway.plant}: none of its installations is fenced.")
    connection.execute(
        "UPDATE gateways SET speakers = ? WHERE plant_id = ? AND name = ?",
        (speakers.to_json(speakers.accepted(now)), plant_id(connection, gateway.plant), gateway.thing),
    )
    return fenced.host
