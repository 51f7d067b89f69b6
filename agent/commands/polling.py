"""One read of a device for a person: connect, read each group once, close. And readings as people see them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent import drivers
from agent.settings import Configuration, Device
from protocols.field.contract import Driver, FieldError, Group, Quality, Scan, TagSettingsBase, Value, ValueType

FIRST_VALUES_S = 5.0
"""How long to wait until a subscription has reported every tag for the first time."""

NOTHING = f"nothing was reported within {FIRST_VALUES_S:g} s; look at it longer with: holdfast read --watch"
ASK_AGAIN_S = 0.1
PERIOD_S_MAX = 1.0
"""For a single read, a subscription with a longer period is asked to report this often: nobody waits an hour."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The last that is known of a tag. `time_us`: microseconds since 1970."""

    value: Value
    quality: int
    time_us: int
    reason: str


class Latest:
    """The last reading of each tag of a group, by position; None where none has come."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.readings: list[Reading | None] = [None] * len(group.tags)

    def take(self, scan: Scan) -> None:
        """Lay a scan over what is known."""
        indexes = range(len(self.readings)) if scan.indexes is None else scan.indexes
        quality = [Quality.GOOD] * len(scan) if scan.quality is None else scan.quality
        for index, value, code in zip(indexes, scan.values, quality, strict=True):
            self.readings[index] = Reading(value, code, scan.time_us, scan.reasons.get(index, ""))

    @property
    def is_complete(self) -> bool:
        """Whether every tag has had a reading."""
        return None not in self.readings


async def poll_once(device: Device, groups: Sequence[Group], data_dir: str | Path) -> list[Latest]:
    """Read each of the groups once, over one connection. Raises FieldError where nothing could be read.

    Of a subscription whatever is reported within FIRST_VALUES_S is taken.
    """
    asked = [replace(group, period_s=min(group.period_s, PERIOD_S_MAX)) for group in groups]
    async with driven(device, drivers.make(device, asked, data_dir)) as driver:
        return [await values(driver, group) for group in asked]


@asynccontextmanager
async def driven(device: Device, driver: Driver) -> AsyncIterator[Driver]:
    """The driver, connected; closed in the end. Raises FieldError, also for whatever a third party's driver raises."""
    try:
        await driver.connect()
        yield driver
    except FieldError:
        raise
    except Exception as error:  # a third party's driver is code that we do not know
        what = f"{type(error).__name__}: {error}"
        raise FieldError(f"{device.name}: the driver {device.protocol!r} failed ({what}); report it there") from error
    finally:
        await driver.close()


async def values(driver: Driver, group: Group) -> Latest:
    """The group's tags; of a subscription whatever is reported within FIRST_VALUES_S."""
    latest = Latest(group)
    end_s = time.monotonic() + FIRST_VALUES_S
    while True:
        for scan in await driver.read(group):
            latest.take(scan)
        if latest.is_complete or time.monotonic() > end_s:
            return latest
        await asyncio.sleep(ASK_AGAIN_S)


def reason(reading: Reading | None) -> str:
    """Why a reading is not good; "" where it is."""
    if reading is None:
        return NOTHING
    if reading.quality == Quality.GOOD:
        return ""
    return reading.reason or Quality.name(reading.quality)


def word(reading: Reading | None) -> str:
    """`good`, `uncertain`, `bad`, or `none` where nothing has come."""
    return "none" if reading is None else Quality.word(reading.quality)


def shown(value: Value, value_type: ValueType) -> str:
    """A value for people: a float without the digits that its type does not have."""
    match value:
        case None:
            return "-"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.7g}" if value_type is ValueType.FLOAT32 else f"{value:.12g}"
    return str(value)


def written(configuration: Configuration, device: str) -> dict[str, dict[str, Any]]:
    """Tag → its keys as the configuration has them."""
    return {
        tag["name"]: tag
        for settings in configuration.settings.devices
        if settings.name == device
        for group in settings.groups
        for tag in group.tags
    }


def address_key(device: Device) -> str | None:
    """The key that says where a tag is: the first that a driver demands beyond those of all tags."""
    fields = device.module.TagSettings.model_fields
    own = (name for name, field in fields.items() if field.is_required() and name not in TagSettingsBase.model_fields)
    return next(own, None)


def as_plain(device: Device, latest: Sequence[Latest]) -> dict[str, Any]:
    """One poll as plain values."""
    return {
        "device": device.name,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "tags": [
            {
                "name": tag.name,
                "group": one.group.name,
                "value": None if reading is None else reading.value,
                "unit": tag.unit,
                "quality": word(reading),
                "status": None if reading is None else Quality.name(reading.quality),
                "time": None if reading is None else iso(reading.time_us),
                "reason": reason(reading),
            }
            for one in latest
            for tag, reading in zip(one.group.tags, one.readings, strict=True)
        ],
    }


def iso(time_us: int) -> str:
    """A driver passes on what a server sends: a time beyond every calendar is told as a number."""
    try:
        return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{time_us} µs since 1970"
