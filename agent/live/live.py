"""What the running agent shows of itself: the line, the devices, the values that are asked for.

Every scan passes `take`, at the same small cost whether anybody looks or not. All else is made when somebody asks, out
of what is known: nobody's question reaches a device or the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent import health, heartbeat
from agent.findings import Mark
from agent.live.line import Polled, Standing, line
from agent.live.query import Query
from agent.live.rate import Rate
from agent.live.values import Values
from agent.poller import DeviceState
from agent.settings import Configuration, Device
from protocols.program.version import program_version
from protocols.uplink.status import DeviceLink, Status

DEVICES_MAX = 100
LOOKED_S = 5.0
_WORST_FIRST = {"away": 0, "bad": 1, "starting": 2, "ok": 3}


class Polling(Protocol):
    """What is looked at of a device's poller."""

    state: DeviceState

    @property
    def requests(self) -> int: ...


@dataclass(slots=True)
class _Seen:
    """A device and how fast it is read."""

    device: Device
    polling: Polling
    requests: Rate = field(default_factory=Rate)
    readings: Rate = field(default_factory=Rate)


class Live:
    """`standing()`: how the agent stands. `look`: all that a viewer is shown, plain for JSON."""

    def __init__(
        self,
        configuration: Configuration,
        pollers: Mapping[str, Polling],
        standing: Callable[[], Standing] = lambda: Standing(None),
    ) -> None:
        self.values = Values(configuration)
        self.take = self.values.take
        self._configuration = configuration
        self._seen = {device.name: _Seen(device, pollers[device.name]) for device in configuration.devices}
        self._standing = standing
        self._started_s = time.monotonic()
        self._looked_s = -LOOKED_S

    @property
    def is_watched(self) -> bool:
        """Whether somebody has looked in the last few seconds."""
        return time.monotonic() - self._looked_s < LOOKED_S

    def look(self, query: Query) -> dict[str, Any]:
        """Times are microseconds since 1970 (`…_us`), durations seconds (`…_s`)."""
        self._looked_s = now_s = time.monotonic()
        wall_us = time.time_ns() // 1000
        standing, wrong = self._standing(), self.values.wrong()
        links = {
            name: heartbeat.device_link(seen.device.machine, seen.polling.state) for name, seen in self._seen.items()
        }
        devices = [self._device(name, links[name], wrong[name], now_s, wall_us) for name in self._seen]
        polled = Polled(
            devices=links,
            tags=len(self.values),
            wrong=wrong,
            requests_per_s=_sum(one["requests_per_s"] for one in devices),
            readings_per_s=_sum(one["readings_per_s"] for one in devices),
        )
        return {
            "now_us": wall_us,
            "agent": self._agent(standing, now_s),
            "line": [station.plain() for station in line(polled, standing, wall_us / 1e6)],
            "device_count": len(devices),
            "devices": sorted(devices, key=lambda one: _WORST_FIRST[one["state"]])[:DEVICES_MAX],
            "outbox": _outbox(standing.status),
            "wrong": sum(wrong.values()),
            "values": self.values.asked(query),
        }

    def _agent(self, standing: Standing, now_s: float) -> dict[str, Any]:
        gateway = self._configuration.settings.gateway
        return {
            "thing": gateway.thing,
            "plant": f"{gateway.tenant}/{gateway.province}/{gateway.plant}",
            "version": program_version(),
            "uptime_s": int(now_s - self._started_s),
            "config_hash": self._configuration.hash,
            "is_direct": standing.status is None,
        }

    def _device(self, name: str, link: DeviceLink, wrong: int, now_s: float, wall_us: int) -> dict[str, Any]:
        seen = self._seen[name]
        found = health.device(name, link, wall_us / 1e6)
        return {
            "name": name,
            "machine": seen.device.machine,
            "protocol": seen.device.protocol,
            "endpoint": seen.device.endpoint,
            "state": link.state,
            "since_us": seen.polling.state.since_us,
            "mark": found.mark.value,
            "text": "" if found.mark is Mark.OK else found.text,
            "fix": found.fix,
            "tags": sum(len(group.tags) for group in seen.device.published),
            "wrong": wrong,
            "requests_per_s": seen.requests.at(now_s, seen.polling.requests),
            "readings_per_s": seen.readings.at(now_s, seen.polling.state.readings),
        }


def _outbox(status: Status | None) -> dict[str, Any] | None:
    """The buffer in figures."""
    if status is None or status.health is None:
        return None
    return status.health.buffer.model_dump() | {
        "dropped_batches": status.dropped_count,
        "dropped_readings": status.dropped_readings,
    }


def _sum(rates: Iterable[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None
