"""One read of a device for a person: connect, read each group once, close. And readings as people see them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent import drivers
from agent.derived import Board, Derived, Known
from agent.latest import Latest as Latest
from agent.latest import Reading as Reading
from agent.latest import shown as shown
from agent.latest import word as word
from agent.settings import Configuration, Device
from protocols.field.contract import Driver, FieldError, Group, Quality

FIRST_VALUES_S = 5.0
"""How long to wait until a subscription has reported every tag for the first time."""

NOTHING = f"nothing was reported within {FIRST_VALUES_S:g} s; look at it longer with: holdfast read --watch"
RATE = "a rate needs two readings; look at it with: holdfast read --watch"
ASK_AGAIN_S = 0.1
PERIOD_S_MAX = 1.0
"""For a single read, a subscription with a longer period is asked to report this often: nobody waits an hour."""


async def poll_once(device: Device, groups: Sequence[Group], data_dir: str | Path) -> list[Latest]:
    """Read each of the groups once, over one connection. Raises FieldError where nothing could be read.

    Of a subscription whatever is reported within FIRST_VALUES_S is taken.
    """
    asked = [replace(group, period_s=min(group.period_s, PERIOD_S_MAX)) for group in groups]
    async with driven(device, drivers.make(device, asked, data_dir)) as driver:
        return [await values(driver, group) for group in asked]


def derived_groups(device: Device, groups: Sequence[Group]) -> list[Group]:
    """The tags that are computed when these groups are read, with the periods of these."""
    found = ((group, device.rules[group.name].derived) for group in groups if group.name in device.rules)
    return [replace(made, period_s=group.period_s) for group, made in found if made is not None]


def derived(device: Device, read: Sequence[Latest]) -> list[Latest]:
    """The tags that are derived from groups that were just read; of those that cannot be computed it is said why."""
    board: Board = {
        tag.name: Known(reading.value, reading.quality, reading.time_us, reading.reason, reading.time_us)
        for one in read
        for tag, reading in zip(one.group.tags, one.readings, strict=True)
        if reading is not None
    }
    made = [(Latest(group), Derived(group, {}, board)) for group in derived_groups(device, [one.group for one in read])]
    for latest, computed in made * len(made):  # as often as one group may be made of another
        if (scan := computed.of()) is not None:
            latest.take(scan)
    for latest, _ in made:
        for at, tag in enumerate(latest.group.tags):
            lacking = [name for name in tag.address.names if name not in board]
            latest.waiting[at] = f"it is made of {', '.join(lacking)}, not read here" if lacking else RATE
    return [latest for latest, _ in made]


@asynccontextmanager
async def driven(device: Device, driver: Driver) -> AsyncIterator[Driver]:
    """The driver, connected; closed in the end. Raises FieldError, also for whatever a third party's driver raises."""
    try:
        with as_field_error(device):
            await driver.connect()
            yield driver
    finally:
        await driver.close()


@contextmanager
def as_field_error(device: Device) -> Iterator[None]:
    """Whatever a driver raises becomes a FieldError."""
    try:
        yield
    except FieldError:
        raise
    except Exception as error:  # a third party's driver is code that we do not know
        what = f"{type(error).__name__}: {error}"
        raise FieldError(f"{device.name}: the driver {device.protocol!r} failed ({what}); report it there") from error


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


def why(latest: Latest, at: int, waiting: str) -> str:
    """Why the reading at this position is not good; "" where it is. `waiting`: of one that has not come."""
    reading = latest.reading(at)
    return latest.waiting.get(at, waiting) if reading is None else reason(reading)


def is_waiting(reading: Reading | None) -> bool:
    """Whether it is a derived tag's, or its absence, for want of what it is made of."""
    return reading is None or reading.quality == Quality.BAD_WAITING_FOR_INITIAL_DATA


def written(configuration: Configuration, device: str) -> dict[str, dict[str, Any]]:
    """Tag → its keys as the configuration has them."""
    return {
        tag["name"]: tag
        for settings in configuration.settings.devices
        if settings.name == device
        for group in settings.groups
        for tag in (*group.tags, *(one.model_dump(exclude_unset=True) for one in group.derived))
    }


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
                "reason": why(one, at, NOTHING),
            }
            for one in latest
            for at, (tag, reading) in enumerate(zip(one.group.tags, one.readings, strict=True))
        ],
    }


def iso(time_us: int) -> str:
    """A driver passes on what a server sends: a time beyond every calendar is told as a number."""
    try:
        return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{time_us} µs since 1970"
