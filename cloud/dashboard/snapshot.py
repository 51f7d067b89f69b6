"""What the page shows, as plain values for JSON. Pure: rows of the store and the receiver's state in, dicts out.

Times are microseconds since 1970 (`…_us`), durations seconds (`…_s`). Gateways and machines are maps by
`tenant/province/plant/name`, so that a change can be told as the entries that differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cloud import overview
from cloud.dashboard import backlog, gateways, ledgers
from cloud.dashboard.ledgers import Books, books
from cloud.dashboard.text import plain
from cloud.receiver import ReceiverState
from cloud.store.contract import GatewayRow, LatestValue, MachineRow, Store
from protocols.uplink.presence import Presence
from protocols.uplink.topics import GatewayTopic, MachineTopic
from protocols.values import Quality, Value

GATEWAYS_MAX = 500
MACHINES_MAX = 1000
VALUES_MAX = 500

_WORST_FIRST = (Presence.LOST, Presence.SILENT, Presence.UNKNOWN, Presence.STOPPED, Presence.ONLINE)

State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """What is read from the store, once for all clients."""

    tenants: int
    plants: int
    gateways: Sequence[GatewayRow]
    machines: Sequence[tuple[MachineRow, Books | None]]
    dead_letters_waiting: int


def gather(store: Store) -> Rows:
    """Read it. Raises StoreError."""
    machines = store.machines()
    return Rows(
        tenants=len(store.tenants()),
        plants=len(store.plants()),
        gateways=store.gateways(),
        machines=[
            (row, books(store, MachineTopic(row.plant, row.machine)) if at < MACHINES_MAX else None)
            for at, row in enumerate(machines)
        ],
        dead_letters_waiting=len(store.waiting()),
    )


def build(
    rows: Rows,
    receiver: ReceiverState,
    readings_per_s: float | None,
    page_trouble: str,
    now_us: int,
    backlogs: backlog.Seen,
) -> State:
    """The whole of it. `page_trouble`: why `rows` are old, or empty."""
    since_us = now_us if receiver.listening_since_us is None else receiver.listening_since_us
    views = [(row, overview.gateway(row, now_us, since_us)) for row in rows.gateways]
    counts = {presence.word: 0 for presence in Presence}
    for _, view in views:
        counts[view.presence.word] += 1
    shown = sorted(views, key=_worst_first)[:GATEWAYS_MAX]
    return {
        "now_us": now_us,
        "receiver": _receiver(receiver, readings_per_s, page_trouble),
        "setup": {"tenants": rows.tenants, "plants": rows.plants},
        "dead_letters": {"waiting": rows.dead_letters_waiting},
        "totals": {
            "gateways": len(views),
            "machines": len(rows.machines),
            "pending": sum(row.state == "pending" for row, _ in rows.machines),
            "presence": counts,
            "fenced": sum(bool(view.fenced) for _, view in views),
            "ledger": ledgers.whole(found for _, found in rows.machines),
        },
        "notes": _notes(len(views), len(rows.machines)),
        "gateways": {
            f"{row.plant}/{row.thing}": gateways.gateway(
                row, view, backlog.trend(backlogs.get(GatewayTopic(row.plant, row.thing), ())), now_us
            )
            for row, view in shown
        },
        "machines": {f"{row.plant}/{row.machine}": _machine(row, found) for row, found in rows.machines[:MACHINES_MAX]},
    }


def _worst_first(one: tuple[GatewayRow, overview.GatewayView]) -> tuple[bool, int]:
    return not one[1].fenced, _WORST_FIRST.index(one[1].presence)


def change(before: State, after: State) -> State:
    """What a client that has `before` needs to have `after`: top-level entries that differ; None for those gone.

    `gateways` and `machines` hold only the entries that differ.
    """
    found: State = {"now_us": after["now_us"]}
    for key, value in after.items():
        if key in ("gateways", "machines"):
            entries = {name: entry for name, entry in value.items() if before[key].get(name) != entry}
            entries |= {name: None for name in before[key] if name not in value}
            if entries:
                found[key] = entries
        elif before[key] != value:
            found[key] = value
    return found


def values(latest: Sequence[LatestValue], tag: str) -> State:
    """The latest values whose tag contains `tag`, whatever its case; at most VALUES_MAX of them."""
    wanted = tag.casefold()
    found = [value for value in latest if wanted in value.tag.casefold()]
    return {
        "tags": len(latest),
        "found": len(found),
        "values": [
            {
                "tag": value.tag,
                "shown": plain(value.tag),
                "value": shown(value.value),
                "unit": plain(value.unit),
                "quality": Quality.word(value.quality),
                "code": Quality.name(value.quality),
                "reason": plain(value.reason),
                "time_us": value.time_us,
                "time_certain": value.time_certain,
            }
            for value in found[:VALUES_MAX]
        ],
    }


def shown(value: Value) -> str:
    """A value as people read it: seven digits of a fraction are enough, whole numbers keep all of theirs."""
    match value:
        case None:
            return "–"
        case bool():
            return "true" if value else "false"
        case float() if not math.isfinite(value):
            return str(value)
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case float() if 1e6 <= abs(value) < 1e15:
            return f"{value:.2f}"
        case float():
            return f"{value:.7g}"
    return plain(str(value))


def _receiver(receiver: ReceiverState, readings_per_s: float | None, page_trouble: str) -> State:
    since_us = receiver.listening_since_us
    if receiver.store_trouble:
        state = ("nothing is stored", "▲", "red")
    elif since_us is None and receiver.trouble:
        state = ("no connection to the broker", "▲", "red")
    elif since_us is None:
        state = ("connecting to the broker", "◆", "amber")
    else:
        state = ("receiving", "●", "green")
    return {
        "word": state[0],
        "shape": state[1],
        "colour": state[2],
        "connected_since_us": since_us,
        "started_us": receiver.started_us,
        "protocol": receiver.protocol,
        "trouble": receiver.store_trouble or receiver.trouble or page_trouble,
        "committed_us": receiver.committed_us,
        "readings_per_s": readings_per_s,
        "readings": receiver.readings,
        "messages": dict(sorted(receiver.outcomes.items())),
    }


def _machine(row: MachineRow, found: Books | None) -> State:
    return {
        "plant": str(row.plant),
        "machine": row.machine,
        "state": row.state,
        "gateway": plain(row.gateway),
        "last_event_us": row.last_event_us,
        "batches": row.batches,
        "tags": row.tags,
        "ledger": ledgers.shown(found),
    }


def _notes(all_gateways: int, all_machines: int) -> list[str]:
    notes = []
    if all_gateways > GATEWAYS_MAX:
        notes.append(
            f"{GATEWAYS_MAX} of {all_gateways:,} gateways are shown, the ones in trouble first; all: gateway list"
        )
    if all_machines > MACHINES_MAX:
        notes.append(f"{MACHINES_MAX} of {all_machines:,} machines are shown; all: machine list")
    return notes
