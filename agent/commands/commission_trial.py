"""What `holdfast commission` asks of one device: every tag, several times, over one connection."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from agent import drivers
from agent.commands.doubt import doubts
from agent.commands.findings import split
from agent.commands.polling import (
    Latest,
    Reading,
    driven,
    iso,
    reason,
    shown,
    values,
    word,
    written,
)
from agent.toolbox.report import DeviceSheet, GroupSheet, Latency, TagSheet
from protocols.field.contract import Driver, Evidence, FieldError, Group, Inspects, Quality, Tag

if TYPE_CHECKING:
    from agent.settings import Configuration, Device

BETWEEN_S = 0.2
"""Between two reads of all groups: a device that is being signed for is not to be hurried."""


class Trial:
    """One device's part of the report, as it fills."""

    def __init__(self, configuration: Configuration, device: Device) -> None:
        self._device = device
        self._data_dir = configuration.settings.data_dir
        self._written = written(configuration, device.name)
        self._address_key = device.address_key or ""
        self._latest = {group.name: Latest(group) for group in device.groups}
        self._evidence: dict[str, Sequence[Evidence]] = {}
        self._requests: dict[str, int] = {}
        self._latencies_s: list[float] = []
        self._trouble = ""

    async def run(self, reads: int, done: Callable[[], None]) -> DeviceSheet:
        """Connect, read every tag so many times, close. Faults are in the sheet. `done` is called after each read."""
        driver = drivers.make(self._device, self._device.groups, self._data_dir)
        try:
            async with driven(self._device, driver):
                for number in range(reads):
                    if number:
                        await asyncio.sleep(BETWEEN_S)
                    for group in self._device.groups:
                        await self._read(driver, group)
                    done()
        except FieldError as error:
            self._trouble = str(error)
        return self._sheet(driver.facts() if isinstance(driver, Inspects) else {})

    async def _read(self, driver: Driver, group: Group) -> None:
        if not isinstance(driver, Inspects):
            self._latest[group.name] = await values(driver, group)
            return
        seen = await driver.inspect(group)
        for scan in seen.scans:
            self._latest[group.name].take(scan)
        self._evidence[group.name] = seen.evidence
        self._requests[group.name] = len(seen.latencies_s)
        self._latencies_s += seen.latencies_s

    def _sheet(self, facts: Mapping[str, str]) -> DeviceSheet:
        device = self._device
        trouble, fix = split(self._trouble) if self._trouble else ("", "")
        order = getattr(device.settings, "order", None)
        return DeviceSheet(
            device.name,
            device.machine,
            device.protocol,
            device.endpoint,
            facts,
            trouble,
            fix,
            _latency(self._latencies_s),
            [self._group(group) for group in device.groups],
            [tag for group in device.groups for tag in self._tags(group, trouble)],
            [doubt for one in self._latest.values() for doubt in doubts(self._written, order, one)],
        )

    def _group(self, group: Group) -> GroupSheet:
        plan = list(planned(self._device, group))
        return GroupSheet(group.name, group.period_s, len(group.tags), plan, self._requests.get(group.name))

    def _tags(self, group: Group, trouble: str) -> Iterator[TagSheet]:
        evidence = self._evidence.get(group.name) or [self._configured(tag) for tag in group.tags]
        for tag, one, reading in zip(group.tags, evidence, self._latest[group.name].readings, strict=True):
            yield _tag(group, tag, one, reading, trouble)

    def _configured(self, tag: Tag) -> Evidence:
        """Where the device itself has said nothing, or its driver does not tell: what the configuration says."""
        keys = self._written[tag.name]
        return Evidence(str(keys.get(self._address_key, "-")), str(keys.get("type", "-")), str(keys.get("order", "")))


def _tag(group: Group, tag: Tag, evidence: Evidence, reading: Reading | None, trouble: str) -> TagSheet:
    return TagSheet(
        name=tag.name,
        group=group.name,
        place=evidence.place,
        type=evidence.type,
        order=evidence.order,
        raw=evidence.raw.hex(),
        value=None if reading is None else reading.value,
        shown="-" if reading is None else shown(reading.value, tag.value_type),
        unit=tag.unit,
        quality=word(reading),
        status="" if reading is None else Quality.name(reading.quality),
        reason=trouble if reading is None and trouble else reason(reading),
        time="" if reading is None else iso(reading.time_us),
    )


def _latency(seconds: Sequence[float]) -> Latency | None:
    if not seconds:
        return None
    found_ms = [round(one * 1000, 3) for one in (min(seconds), statistics.median(seconds), max(seconds))]
    return Latency(len(seconds), *found_ms)


def planned(device: Device, group: Group) -> Iterator[str]:
    """The requests of one read of the group in words, as far as they are known before anything is asked."""
    from agent.toolbox.reckoning import Way, cycle
    from protocols.field.modbus import Settings as ModbusSettings
    from protocols.field.modbus_address import place
    from protocols.field.modbus_plan import Limits
    from protocols.field.opcua_settings import GroupSettings as OpcuaGroup

    settings = device.settings
    if isinstance(settings, ModbusSettings):
        limits = Limits(settings.max_registers, settings.max_bits, settings.max_gap)
        for ask in cycle(group, settings.unit_id, limits, Way(0.0)).asks:
            block = ask.block
            yield f"unit {block.unit_id}, {place(block.table, block.address, block.count)}"
    elif isinstance(group.options, OpcuaGroup):
        yield "subscribed: the server reports changes" if group.options.mode == "subscribe" else "polled"
