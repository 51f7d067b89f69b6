"""A report of commissioning: what each device and each tag answered, for people who sign for it. Pure.

What is *open* keeps the report from being good; what is *noted* a person should know, and decide upon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from protocols.field.contract import Value

NAMES_MAX = 8
GOOD = "good"


@dataclass(frozen=True, slots=True)
class TagSheet:
    """One tag. `raw`: what the device sent for it, hexadecimal. `shown`: the value as people read it.

    `quality`: good, uncertain, bad or none; `status`: its code's name; `reason`: why it is not good.
    """

    name: str
    group: str
    place: str
    type: str
    order: str
    raw: str
    value: Value
    shown: str
    unit: str
    quality: str
    status: str
    reason: str
    time: str


@dataclass(frozen=True, slots=True)
class Latency:
    """Of all requests to a device that were answered. In milliseconds."""

    requests: int
    min_ms: float
    median_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class GroupSheet:
    """How a poll group is read: `plan` in words, and how many requests the last read of it took, where that is told."""

    name: str
    period_s: float
    tags: int
    plan: Sequence[str]
    requests: int | None


@dataclass(frozen=True, slots=True)
class DeviceSheet:
    """One device. `facts`: what to know of the connection. `trouble`: why not everything could be read, `fix`: what to
    do about it. `doubts`: values that are good and hardly true."""

    name: str
    machine: str
    protocol: str
    endpoint: str
    facts: Mapping[str, str]
    trouble: str
    fix: str
    latency: Latency | None
    groups: Sequence[GroupSheet]
    tags: Sequence[TagSheet]
    doubts: Sequence[str] = ()

    @property
    def good(self) -> int:
        """How many of its tags are."""
        return sum(tag.quality == GOOD for tag in self.tags)

    @property
    def result(self) -> str:
        """In two words."""
        if not self.trouble:
            return "read"
        return "broken off" if any(tag.status for tag in self.tags) else "not read"


@dataclass(frozen=True, slots=True)
class BrokerSheet:
    """The broker, and the certificates on the line to it, as SHA-256; empty where there are none."""

    endpoint: str
    security: str
    result: str
    trouble: str
    fix: str
    server_sha256: str = ""
    client_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All of it. `when`: ISO 8601; `by`: who did it, "" for the line to be filled in by hand."""

    gateway: Mapping[str, str]
    configuration: Mapping[str, str]
    when: str
    version: str
    by: str
    broker: BrokerSheet
    devices: Sequence[DeviceSheet]
    more_open: Sequence[str] = ()
    more_notes: Sequence[str] = field(default=())

    @property
    def tags(self) -> list[TagSheet]:
        return [tag for device in self.devices for tag in device.tags]

    @property
    def good(self) -> int:
        """How many tags are."""
        return sum(device.good for device in self.devices)

    @property
    def open(self) -> list[str]:
        """What has to be mended before anybody signs."""
        found = [*self.more_open]
        if self.broker.trouble:
            found.append(f"broker {self.broker.endpoint}: {with_fix(self.broker.trouble, self.broker.fix)}")
        return [*found, *(line for device in self.devices for line in _open(device))]

    @property
    def notes(self) -> list[str]:
        """What is good, and worth a look all the same."""
        return [*self.more_notes, *(f"{device.name}: {doubt}" for device in self.devices for doubt in device.doubts)]


def _open(device: DeviceSheet) -> Iterator[str]:
    if device.trouble:
        yield with_fix(device.trouble, device.fix)
    failing: dict[str, list[str]] = {}
    for tag in device.tags:
        if tag.quality != GOOD and tag.reason != device.trouble:
            failing.setdefault(tag.reason, []).append(tag.name)
    for reason, names in failing.items():
        yield f"{device.name}: {_names(names)}: {reason}"


def with_fix(trouble: str, fix: str) -> str:
    """A sentence without its end: what failed, and what to do."""
    return f"{trouble}; {fix}" if fix else trouble


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_MAX])
    return shown if len(names) <= NAMES_MAX else f"{shown} and {len(names) - NAMES_MAX} more"


def milliseconds(number: float | str) -> str:
    """For people: with a digit behind the point where that says something."""
    return number if isinstance(number, str) else f"{number:.1f} ms" if number < 100 else f"{number:.0f} ms"


def plain(report: Report) -> dict[str, Any]:
    """The report for machines: everything, and the summary first."""
    return {
        "ok": not report.open,
        "summary": {"tags": len(report.tags), "good": report.good, "open": report.open, "notes": report.notes},
        "gateway": report.gateway,
        "configuration": report.configuration,
        "when": report.when,
        "version": report.version,
        "by": report.by,
        "broker": report.broker,
        "devices": report.devices,
    }
