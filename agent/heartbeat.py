"""What the gateway says of itself, from figures. Pure."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from agent.outbox.contract import Held, Lane, OutboxStats
from agent.poller import DeviceState
from agent.uplink.track import Sent
from protocols.uplink.status import (
    OTHERS_MAX,
    Buffer,
    Clock,
    DeviceLink,
    GatewayInfo,
    Health,
    MachineNumbers,
    Status,
)

RATE_SAMPLES = 150
DROPPED_TOLD_MAX = 200
DROPPED_TOLD_OF_ALL = 1000
OTHER_LANES_MAX = 200
REASON_MAX = 500
REASONS_BYTES = 60_000  # of all devices together, so that the status stays below what the receiver takes


class FillRate:
    """How fast batches come, from how many bytes were ever stored, told every few seconds, in one place. Pure."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=RATE_SAMPLES)

    def stored(self, now_s: float, bytes_ever: int) -> None:
        """So many bytes were stored since the start."""
        self._samples.append((now_s, bytes_ever))

    def lasts_s(self, room_bytes: int) -> int | None:
        """Seconds for which the room would last at the rate of the last minutes; None while nothing comes."""
        if not self._samples:
            return None
        (first_s, first_bytes), (last_s, last_bytes) = self._samples[0], self._samples[-1]
        if last_bytes <= first_bytes or last_s - first_s < 1:
            return None
        return int(room_bytes / ((last_bytes - first_bytes) / (last_s - first_s)))


def room_bytes(stats: OutboxStats, free_disk_bytes: int) -> int:
    """What the outbox could still take if nothing were confirmed: kept batches give way.

    `free_disk_bytes`: what is to stay free of the disk.
    """
    room = stats.limit_bytes - stats.bytes
    if stats.disk_free_bytes is not None:
        room = min(room, stats.disk_free_bytes - free_disk_bytes + stats.kept_bytes)
    return max(0, room)


@dataclass(frozen=True, slots=True)
class Figures:
    """All that a heartbeat is made of. Times in microseconds since 1970, durations in seconds."""

    thing: str
    version: str
    session: int
    epoch: str
    instance: str
    host: str
    now_us: int
    uptime_s: float
    broker_host: str
    stats: OutboxStats
    full_in_s: int | None
    held: Mapping[Lane, Held]
    sent: Mapping[Lane, Sent]
    devices: Mapping[str, tuple[str, DeviceState]]  # device → (machine, state)
    readings_lost: int
    clock: Clock
    config_hash: str
    certificate_days_left: int | None = None
    formers: Mapping[Lane, int] = field(default_factory=dict)  # empty lanes of earlier lives → the last number given


def build(f: Figures) -> Status:
    """The `online` status."""
    reason_max = min(REASON_MAX, REASONS_BYTES // max(1, len(f.devices)))
    devices = {name: device_link(machine, state, reason_max) for name, (machine, state) in f.devices.items()}
    numbers = _numbers(f)
    return Status(
        timestamp=f.now_us // 1000,
        state="online",
        session=f.session,
        epoch=f.epoch,
        instance=f.instance,
        host=f.host,
        gateway=GatewayInfo(thing_name=f.thing, version=f.version, uptime_sec=int(f.uptime_s)),
        health=Health(internet=internet(f.broker_host), mqtt="ok", plc_link=_plc_link(f.devices), buffer=_buffer(f)),
        machines={lane.machine: one for lane, one in numbers.items() if lane.epoch == f.epoch},
        others=_others(f, numbers),
        devices=devices,
        dropped_count=f.stats.dropped,
        dropped_readings=f.stats.dropped_readings + f.readings_lost,
        clock=f.clock,
        config_hash=f.config_hash,
        certificate_days_left=f.certificate_days_left,
    )


def device_link(machine: str, state: DeviceState, reason_max: int = REASON_MAX) -> DeviceLink:
    """One device's link, its reason cut to so many characters."""
    return DeviceLink(
        machine=machine,
        state=_link_state(state.state),
        since=state.since_us // 1000,
        reason=state.reason[:reason_max].encode(errors="replace").decode(),  # a driver's words: any text
        readings=state.readings,
    )


def _buffer(f: Figures) -> Buffer:
    oldest_us = f.stats.oldest_us
    return Buffer(
        queued_messages=f.stats.batches,
        bytes=f.stats.bytes,
        kept_bytes=f.stats.kept_bytes,
        limit_bytes=f.stats.limit_bytes,
        oldest_sec=None if oldest_us is None else max(0, (f.now_us - oldest_us) // 1_000_000),
        full_in_sec=f.full_in_s,
    )


def _numbers(f: Figures) -> dict[Lane, MachineNumbers]:
    told_max = min(DROPPED_TOLD_MAX, max(1, DROPPED_TOLD_OF_ALL // max(1, len(f.held))))
    return {lane: _told(held, f.sent.get(lane, Sent()), told_max) for lane, held in f.held.items()}


def _told(held: Held, sent: Sent, told_max: int) -> MachineNumbers:
    return MachineNumbers(
        last_seq=held.last,
        sent_seq=sent.through,
        sent_highest=sent.highest,
        dropped=[(d.first, d.last, d.reason) for d in held.dropped[:told_max]],
    )


def _others(f: Figures, numbers: Mapping[Lane, MachineNumbers]) -> dict[str, dict[str, MachineNumbers]]:
    """Of the other epochs, first those that somebody waits for, last those that are empty: all of them was sent."""
    lanes = [lane for lane in f.held if lane.epoch != f.epoch]
    lanes.sort(key=lambda lane: not (f.held[lane].waiting or f.held[lane].dropped))
    told = {lane: numbers[lane] for lane in lanes}
    told |= {lane: MachineNumbers(last_seq=n, sent_seq=n, sent_highest=n) for lane, n in f.formers.items()}
    others: dict[str, dict[str, MachineNumbers]] = {}
    for lane, one in islice(told.items(), OTHER_LANES_MAX):
        of_machine = others.setdefault(lane.machine, {})
        if len(of_machine) < OTHERS_MAX:
            of_machine[lane.epoch] = one
    return others


def _link_state(state: str) -> Literal["ok", "bad", "away", "starting"]:
    match state:
        case "ok" | "bad" | "away":
            return state
    return "starting"


def _plc_link(devices: Mapping[str, tuple[str, DeviceState]]) -> Literal["ok", "degraded", "down"]:
    states = [state.state for _, state in devices.values()]
    if states and all(state == "away" for state in states):
        return "down"
    return "degraded" if any(state in ("away", "bad") for state in states) else "ok"


def internet(broker_host: str) -> Literal["ok", "unknown"]:
    """A connected broker outside the plant's own network proves the internet; one inside proves nothing.

    Only called while connected. A host given by name is taken to be outside unless it is this machine or a local name.
    """
    try:
        return "unknown" if ipaddress.ip_address(broker_host).is_private else "ok"
    except ValueError:
        local = "." not in broker_host or broker_host.endswith((".local", ".lan", ".internal"))
        return "unknown" if local else "ok"
