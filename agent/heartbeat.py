"""What the gateway says of itself, from figures. Pure but for reading the kernel's clock state."""

from __future__ import annotations

import ctypes
import ipaddress
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from agent.outbox.contract import Held, OutboxStats
from agent.poller import DeviceState
from protocols.uplink.status import (
    Buffer,
    Clock,
    DeviceLink,
    GatewayInfo,
    Health,
    MachineNumbers,
    Status,
)

RATE_SAMPLES = 60
DROPPED_TOLD_MAX = 200
REASON_MAX = 500
REASONS_BYTES = 60_000  # of all devices together, so that the status stays below what the receiver takes


class FillRate:
    """How fast the outbox fills, from its size at the last heartbeats. Pure."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=RATE_SAMPLES)

    def full_in_s(self, now_s: float, held_bytes: int, limit_bytes: int) -> int | None:
        """Seconds until the limit is reached at the rate of the last ten minutes; None while it is not filling."""
        self._samples.append((now_s, held_bytes))
        first_s, first_bytes = self._samples[0]
        grown = held_bytes - first_bytes
        if grown <= 0 or now_s - first_s < 1:
            return None
        return int(max(0, limit_bytes - held_bytes) / (grown / (now_s - first_s)))


@dataclass(frozen=True, slots=True)
class Figures:
    """All that a heartbeat is made of. Times in microseconds since 1970, durations in seconds."""

    thing: str
    version: str
    session: int
    epoch: str
    now_us: int
    uptime_s: float
    broker_host: str
    stats: OutboxStats
    full_in_s: int | None
    held: Mapping[str, Held]
    sent: Mapping[str, int]
    devices: Mapping[str, tuple[str, DeviceState]]  # device → (machine, state)
    readings_lost: int
    clock_synchronised: bool | None
    config_hash: str


def build(f: Figures) -> Status:
    """The `online` status."""
    oldest_us = f.stats.oldest_us
    buffer = Buffer(
        queued_messages=f.stats.batches,
        bytes=f.stats.bytes,
        limit_bytes=f.stats.limit_bytes,
        oldest_sec=None if oldest_us is None else max(0, (f.now_us - oldest_us) // 1_000_000),
        full_in_sec=f.full_in_s,
    )
    machines = {
        name: MachineNumbers(
            last_seq=held.last,
            sent_seq=f.sent.get(name, 0),
            dropped=[(d.first, d.last, d.reason) for d in held.dropped[:DROPPED_TOLD_MAX]],
        )
        for name, held in f.held.items()
    }
    reason_max = min(REASON_MAX, REASONS_BYTES // max(1, len(f.devices)))
    devices = {
        name: DeviceLink(
            machine=machine,
            state=_link_state(state.state),
            since=state.since_us // 1000,
            reason=state.reason[:reason_max].encode(errors="replace").decode(),  # a driver's words: any text
            readings=state.readings,
        )
        for name, (machine, state) in f.devices.items()
    }
    return Status(
        timestamp=f.now_us // 1000,
        state="online",
        session=f.session,
        epoch=f.epoch,
        gateway=GatewayInfo(thing_name=f.thing, version=f.version, uptime_sec=int(f.uptime_s)),
        health=Health(internet=internet(f.broker_host), mqtt="ok", plc_link=_plc_link(f.devices), buffer=buffer),
        machines=machines,
        devices=devices,
        dropped_count=f.stats.dropped + f.readings_lost,
        clock=Clock(synchronised=f.clock_synchronised),
        config_hash=f.config_hash,
    )


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


def clock_synchronised() -> bool | None:
    """What the kernel says (adjtimex(2): TIME_ERROR = 5 means not synchronised); None where it says nothing."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state: int = libc.adjtimex(ctypes.create_string_buffer(512))  # struct timex of zeros: modes 0 only reads
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != 5
