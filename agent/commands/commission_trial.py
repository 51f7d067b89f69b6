"""What `holdfast commission` asks of one device: every tag, several times, over one connection."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from agent import drivers
from agent.commands.doubt import doubts
from agent.commands.findings import split
from agent.commands.polling import (
    ASK_AGAIN_S,
    FIRST_VALUES_S,
    NOTHING,
    RATE,
    Latest,
    Reading,
    as_field_error,
    iso,
    shown,
    why,
    word,
    written,
)
from agent.derived import Board, Derived
from agent.rules import GroupRules
from agent.shaping import shaping
from agent.toolbox.report import DeviceSheet, GroupSheet, Latency, TagSheet
from protocols.field.contract import Driver, Evidence, FieldError, Group, Inspects, Quality, Scan, Tag

if TYPE_CHECKING:
    from agent.settings import Configuration, Device

BETWEEN_S = 0.2
"""Between two reads of all groups: a device that is being signed for is not to be hurried."""


class Trial:
    """One device's part of the report, as it fills."""

    def __init__(self, configuration: Configuration, device: Device, board: Board) -> None:
        """`board`: what derived tags of its machine are made of."""
        self._device = device
        self._driver = drivers.make(device, device.groups, configuration.settings.data_dir)
        self._board = board
        self._shape = shaping(device, board, self._driver, reports_all=True).of
        self._written = written(configuration, device.name)
        self._address_key = device.address_key or ""
        self._latest = {group.name: Latest(group) for group in device.published}
        self._evidence: dict[str, Sequence[Evidence]] = {}
        self._requests: dict[str, int] = {}
        self._latencies_s: list[float] = []
        self._trouble = ""

    async def connect(self, stack: AsyncExitStack) -> None:
        """Until the stack ends. A fault is in the sheet."""
        stack.push_async_callback(self._driver.close)
        try:
            with as_field_error(self._device):
                await self._driver.connect()
        except FieldError as error:
            self._trouble = str(error)

    async def run(self, reads: int, done: Callable[[], None]) -> None:
        """Read every tag so many times. Faults are in the sheet. `done` is called for each read, made or not."""
        left = reads
        try:
            while left and not self._trouble:
                with as_field_error(self._device):
                    for group in self._device.groups:
                        await self._read(self._driver, group)
                left -= 1
                done()
                if left:
                    await asyncio.sleep(BETWEEN_S)
        except FieldError as error:
            self._trouble = str(error)
        for _ in range(left):
            done()

    async def _read(self, driver: Driver, group: Group) -> None:
        if not isinstance(driver, Inspects):
            await self._first_values(driver, group)
            return
        seen = await driver.inspect(group)
        self._take(group, seen.scans)
        self._evidence[group.name] = seen.evidence
        self._requests[group.name] = len(seen.latencies_s)
        self._latencies_s += seen.latencies_s

    async def _first_values(self, driver: Driver, group: Group) -> None:
        """Of a driver that is not to be looked into: as `holdfast read` does."""
        end_s = time.monotonic() + FIRST_VALUES_S
        while True:
            self._take(group, await driver.read(group))
            if self._latest[group.name].is_complete or time.monotonic() > end_s:
                return
            await asyncio.sleep(ASK_AGAIN_S)

    def _take(self, group: Group, scans: Sequence[Scan]) -> None:
        """Filtered, and what is derived of it, as the agent would do it."""
        for scan in self._shape(group, scans, time.monotonic(), time.time_ns() // 1000):
            self._latest[scan.group.name].take(scan)

    def sheet(self) -> DeviceSheet:
        """What came of it. Once all devices of the machine were read: a derived tag may be made of any of them."""
        device = self._device
        for group in device.derived * len(device.derived):  # as often as one group may be made of another
            if (scan := Derived(group, {}, self._board).of()) is not None:
                self._latest[group.name].take(scan)
        for group in device.derived:
            for at, tag in enumerate(group.tags):
                lacking = [name for name in tag.address.names if name not in self._board]
                self._latest[group.name].waiting[at] = (
                    f"it is made of {', '.join(lacking)}, not read" if lacking else RATE
                )
        trouble, fix = split(self._trouble) if self._trouble else ("", "")
        order = getattr(device.settings, "order", None)
        return DeviceSheet(
            device.name,
            device.machine,
            device.protocol,
            device.endpoint,
            self._driver.facts() if isinstance(self._driver, Inspects) else {},
            trouble,
            fix,
            _latency(self._latencies_s),
            [self._group(group) for group in device.published],
            [tag for group in device.published for tag in self._tags(group, trouble)],
            [doubt for group in device.groups for doubt in doubts(self._written, order, self._latest[group.name])],
        )

    def _group(self, group: Group) -> GroupSheet:
        plan = list(planned(self._device, group)) if group in self._device.groups else ["computed at each read"]
        return GroupSheet(group.name, group.period_s, len(group.tags), plan, self._requests.get(group.name))

    def _tags(self, group: Group, trouble: str) -> Iterator[TagSheet]:
        evidence = self._evidence.get(group.name) or [self._configured(tag) for tag in group.tags]
        latest, rules = self._latest[group.name], self._device.rules.get(group.name, GroupRules())
        for at, (tag, one) in enumerate(zip(group.tags, evidence, strict=True)):
            kind = f"{one.type}, filtered" if at in rules.filters else one.type
            yield _tag(group, tag, replace(one, type=kind), latest.reading(at), why(latest, at, trouble or NOTHING))

    def _configured(self, tag: Tag) -> Evidence:
        """Where the device itself has said nothing, or its driver does not tell: what the configuration says."""
        keys = self._written[tag.name]
        place = keys.get(self._address_key) or keys.get("expression") or keys.get("rate_of", "-")
        computed = {"expression": "derived", "rate_of": "change per second"}
        kind = next((what for key, what in computed.items() if key in keys), keys.get("type", "-"))
        return Evidence(str(place), str(kind), str(keys.get("order", "")))


def _tag(group: Group, tag: Tag, evidence: Evidence, reading: Reading | None, reason: str) -> TagSheet:
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
        reason=reason,
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
