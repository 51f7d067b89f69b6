"""A device without sockets whose tags look like a plant's: for demonstrations, load tests and first steps.

Every value is a function of the time, the seed and the tag's name: two runs, or two programs, that look at the same
moment see the same plant.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Literal

from pydantic import Field

from protocols.field.contract import (
    DeviceAway,
    Group,
    Scan,
    StrictModel,
    Tag,
    TagSettingsBase,
    Value,
    ValueType,
)

Signal = Literal["sine", "ramp", "random_walk", "square", "counter", "text"]


class Settings(StrictModel):
    """The keys of a device with `protocol: simulated`."""

    seed: int = Field(1, description="Devices with another seed show other values.")


class TagSettings(TagSettingsBase):
    """The keys of a tag of such a device."""

    signal: Signal = Field(
        "sine",
        description="sine, ramp (a sawtooth) and random_walk are floats between low and high; square is a bool that is "
        "true for half of each period; counter adds one each period and goes back to low after high; text is constant.",
    )
    low: float = Field(0.0, ge=-1e15, le=1e15, allow_inf_nan=False, description="Smallest value.")
    high: float = Field(100.0, ge=-1e15, le=1e15, allow_inf_nan=False, description="Largest value.")
    period_s: float = Field(60.0, gt=0, le=86_400, description="Length of one cycle, or of one step of a counter.")
    decimals: int = Field(2, ge=0, le=12, description="Decimal places of sine, ramp and random_walk.")
    text: str | None = Field(None, max_length=256, description="The value of a text.")


GroupSettings = StrictModel

_TYPES = {"square": ValueType.BOOL, "counter": ValueType.INT, "text": ValueType.STRING}


def tag(settings: TagSettings) -> Tag:
    """The tag of these settings. Raises ValueError with a sentence when they contradict each other."""
    if settings.low > settings.high:
        raise ValueError(f"tag {settings.name}: low ({settings.low:g}) is above high ({settings.high:g}); swap them")
    if (settings.signal == "text") != (settings.text is not None):
        raise ValueError(f"tag {settings.name}: `text` and `signal: text` belong together; give both or neither")
    return Tag(settings.name, _TYPES.get(settings.signal, ValueType.FLOAT64), settings.unit, settings)


def driver(name: str, settings: Settings, groups: Sequence[Group]) -> SimulatedDriver:
    """The driver of one device."""
    del groups  # read() gets the group
    return SimulatedDriver(name, settings.seed)


class SimulatedDriver:
    """See the contract. `clock` gives nanoseconds since 1970; `requests` counts reads."""

    def __init__(self, name: str, seed: int, clock: Callable[[], int] = time.time_ns) -> None:
        self.requests = 0
        self._name = name
        self._seed = seed
        self._clock = clock
        self._connected = False

    async def connect(self) -> None:
        self._connected = True

    async def read(self, group: Group) -> Sequence[Scan]:
        """One full scan of this moment."""
        if not self._connected:
            raise DeviceAway(f"{self._name} (simulated): not connected; connect first.")
        self.requests += 1
        time_us = self._clock() // 1000
        return [Scan(group, time_us, [value_at(tag.address, self._seed, time_us) for tag in group.tags])]

    async def close(self) -> None:
        self._connected = False


def value_at(settings: TagSettings, seed: int, time_us: int) -> Value:
    """What the tag shows at `time_us`, microseconds since 1970."""
    span = settings.high - settings.low
    cycles = time_us / 1e6 / settings.period_s + _noise(seed, settings.name, 0)  # each tag has its own phase
    match settings.signal:
        case "text":
            return settings.text or ""
        case "square":
            return cycles % 1 < 0.5
        case "counter":
            low, high = math.ceil(settings.low), math.floor(settings.high)
            return low + int(time_us / 1e6 / settings.period_s) % max(1, high - low + 1)
        case "sine":
            share = (1 + math.sin(2 * math.pi * cycles)) / 2
        case "ramp":
            share = cycles % 1
        case "random_walk":
            share = _walk(seed, settings.name, cycles)
    return round(settings.low + span * share, settings.decimals)


def _walk(seed: int, name: str, cycles: float) -> float:
    """Between 0 and 1: noise of five octaves, each twice as fast and half as high (value noise, as for landscapes)."""
    total = 0.0
    for octave in range(5):
        step, within = divmod(cycles * 2**octave, 1)
        here, there = (_noise(seed, f"{name}/{octave}", int(step) + ahead) for ahead in (0, 1))
        total += (here + (there - here) * within) / 2**octave
    return total / (2 - 2**-4)


def _noise(seed: int, name: str, step: int) -> float:
    """Evenly spread from 0 to below 1, and the same at each call."""
    digest = blake2b(f"{seed}/{name}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
