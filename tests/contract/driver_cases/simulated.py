"""The simulated plant. It has no endpoint, so nothing can be cut."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from protocols.field.contract import Group, Value
from protocols.field.simulated import Settings, TagSettings, driver, tag
from tests.contract.driver_cases import DriverCase


@asynccontextmanager
async def case() -> AsyncIterator[DriverCase]:
    """Every signal."""
    tags = [
        tag(TagSettings(name="temperature", signal="sine", low=20, high=90, unit="°C")),
        tag(TagSettings(name="level", signal="ramp", low=0, high=1)),
        tag(TagSettings(name="vibration", signal="random_walk", low=-1, high=1)),
        tag(TagSettings(name="running", signal="square", period_s=4)),
        tag(TagSettings(name="parts", signal="counter", low=1, high=1000, period_s=1)),
        tag(TagSettings(name="recipe", signal="text", text="R-12")),
    ]
    groups = [Group("mixer", "all", 1.0, tuple(tags))]

    yield DriverCase(
        driver("mixer", Settings(seed=7), groups),
        groups,
        {
            "temperature": lambda value: _within(value, 20, 90),
            "level": lambda value: _within(value, 0, 1),
            "vibration": lambda value: _within(value, -1, 1),
            "running": lambda value: isinstance(value, bool),
            "parts": lambda value: _within(value, 1, 1000),
            "recipe": "R-12",
        },
    )


def _within(value: Value, low: float, high: float) -> bool:
    return isinstance(value, int | float) and low <= value <= high
