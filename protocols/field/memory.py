"""A device in memory, for tests and for trying out: code sets its values and makes it fail.

device = MemoryDriver("press", [group])
device.set("temperature", 71.5)
device.fail("pressure", Quality.BAD_DEVICE_FAILURE, "the sensor is broken")
device.cut()                       # from now on: DeviceAway
device.cut(DeviceTimeout("…"))     # or another error
device.restore()
device.hold()                      # reads wait …
device.release()                   # … until now
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from pydantic import Field

from protocols.field.contract import (
    DeviceAway,
    FieldError,
    Group,
    Quality,
    Scan,
    StrictModel,
    Tag,
    TagSettingsBase,
    Value,
    ValueType,
)

_PYTHON_TYPES: dict[ValueType, type] = {
    ValueType.BOOL: bool,
    ValueType.INT: int,
    ValueType.UINT: int,
    ValueType.FLOAT32: float,
    ValueType.FLOAT64: float,
    ValueType.STRING: str,
}


class Settings(StrictModel):
    """A device with `protocol: memory` has no keys of its own."""


class TagSettings(TagSettingsBase):
    """The keys of a tag of such a device."""

    type: ValueType = Field(ValueType.FLOAT64, strict=False, description="Type of its values.")
    value: bool | int | float | str | None = Field(
        None, description="The value until code sets another; without it: false, 0 or empty."
    )


GroupSettings = StrictModel


def tag(settings: TagSettings) -> Tag:
    """The tag of these settings. Raises ValueError with a sentence when the value is not of the type."""
    tag = Tag(settings.name, settings.type, settings.unit, settings.value)
    _first(tag)
    return tag


def driver(name: str, settings: Settings, groups: Sequence[Group]) -> MemoryDriver:
    """The driver of one device."""
    del settings  # has no keys
    return MemoryDriver(name, groups)


class MemoryDriver:
    """See the contract. A tag's address is its first value, or None. `clock` gives nanoseconds since 1970."""

    def __init__(self, name: str, groups: Sequence[Group], clock: Callable[[], int] = time.time_ns) -> None:
        self.requests = 0
        self.connects = 0  # how often it was connected
        self._name = name
        self._clock = clock
        self._types = {tag.name: tag.value_type for group in groups for tag in group.tags}
        self._values = {tag.name: _first(tag) for group in groups for tag in group.tags}
        self._bad: dict[str, tuple[int, str]] = {}
        self._fault: FieldError | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._connected = False

    def set(self, name: str, value: Value) -> None:
        """Gives a tag a good value. Raises KeyError for an unknown tag, ValueError for a value of another type."""
        self._values[name] = _fitting(name, self._types[name], value)
        self._bad.pop(name, None)

    def fail(self, name: str, quality: int, reason: str) -> None:
        """Makes a tag bad until it is set again. Raises KeyError for an unknown tag."""
        self._bad[self._known(name)] = (quality, reason)

    def cut(self, fault: FieldError | None = None) -> None:
        """Takes the device away: `connect` and `read` raise `fault` until `restore`."""
        self._fault = fault or DeviceAway(f"{self._name} (memory): it was cut off; restore it.")

    def restore(self) -> None:
        """Brings the device back; it must be connected again."""
        self._fault = None

    def hold(self) -> None:
        """Makes reads wait until `release`, as a slow device would."""
        self._open.clear()

    def release(self) -> None:
        """Lets waiting and later reads go on."""
        self._open.set()

    async def connect(self) -> None:
        """Raises the fault of `cut`."""
        self._connected = False
        if self._fault is not None:
            raise self._fault
        self.connects += 1
        self._connected = True

    async def read(self, group: Group) -> Sequence[Scan]:
        """One full scan, or the fault of `cut`."""
        if not self._connected:
            raise DeviceAway(f"{self._name} (memory): not connected; connect first.")
        self.requests += 1
        await self._open.wait()
        if self._fault is not None:
            self._connected = False
            raise self._fault
        names = [tag.name for tag in group.tags]
        bad = {index: self._bad[name] for index, name in enumerate(names) if name in self._bad}
        values = [None if index in bad else self._values[name] for index, name in enumerate(names)]
        quality = [bad[index][0] if index in bad else Quality.GOOD for index in range(len(names))] if bad else None
        reasons = {index: reason for index, (_, reason) in bad.items()}
        return [Scan(group, self._clock() // 1000, values, None, quality, reasons)]

    async def close(self) -> None:
        self._connected = False

    def _known(self, name: str) -> str:
        if name not in self._types:
            raise KeyError(name)
        return name


def _first(tag: Tag) -> Value:
    """The value until code sets another: the tag's own, or its type's zero."""
    if tag.address is None:
        return _PYTHON_TYPES[tag.value_type]()  # type: ignore[no-any-return]  # bool, int, float and str all take none
    return _fitting(tag.name, tag.value_type, tag.address)


def _fitting(name: str, value_type: ValueType, value: Value) -> Value:
    """The value as its type has it (an integer becomes a float where floats are expected)."""
    wanted = _PYTHON_TYPES[value_type]
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ValueError(f"tag {name}: {value!r} is not of type {value_type}; give one of type {wanted.__name__}")
    return value
