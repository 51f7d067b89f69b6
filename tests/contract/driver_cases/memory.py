"""The driver in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from protocols.field.contract import Group, Quality, ValueType
from protocols.field.memory import Settings, TagSettings, driver, tag
from tests.contract.driver_cases import DriverCase, Expected


@asynccontextmanager
async def case() -> AsyncIterator[DriverCase]:
    """Every type, one tag that fails, and a cut."""
    tags = [
        tag(TagSettings(name="running", type=ValueType.BOOL, value=True)),
        tag(TagSettings(name="offset", type=ValueType.INT, value=-5)),
        tag(TagSettings(name="parts", type=ValueType.UINT, value=2**64 - 1)),
        tag(TagSettings(name="pressure", type=ValueType.FLOAT32, value=1.5)),
        tag(TagSettings(name="temperature", value=71)),
        tag(TagSettings(name="recipe", type=ValueType.STRING, value="R-12")),
        tag(TagSettings(name="broken", value=3.0)),
    ]
    groups = [Group("press", "fast", 1.0, tuple(tags[:4])), Group("press", "slow", 10.0, tuple(tags[4:]))]
    device = driver("press", Settings(), groups)
    device.fail("broken", Quality.BAD_DEVICE_FAILURE, "the sensor is broken; replace it")

    async def cut() -> None:
        device.cut()

    async def restore() -> None:
        device.restore()

    good: dict[str, Expected] = {
        "running": True,
        "offset": -5,
        "parts": 2**64 - 1,
        "pressure": 1.5,
        "temperature": 71.0,
        "recipe": "R-12",
    }
    yield DriverCase(device, groups, good, frozenset({"broken"}), cut, restore)
