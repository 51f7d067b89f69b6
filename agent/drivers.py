"""Finds a protocol's driver by its name: the module protocols/field/{name}.py, or an entry point `holdfast.drivers`.

And makes the driver of a device.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, cast

from protocols import field
from protocols.field.contract import Driver, DriverModule, Group, KeepsFiles

if TYPE_CHECKING:
    from agent.settings import Device

ENTRY_POINTS = "holdfast.drivers"
_OFFERS = ("Settings", "TagSettings", "GroupSettings", "tag", "driver")


def find(protocol: str) -> DriverModule | None:
    """The driver module of this protocol; None where there is none."""
    if protocol in _own():
        module = importlib.import_module(f"{field.__name__}.{protocol}")
        if all(hasattr(module, offer) for offer in _OFFERS):
            return cast("DriverModule", module)
    for entry_point in entry_points(group=ENTRY_POINTS, name=protocol):
        return cast("DriverModule", entry_point.load())
    return None


def known() -> list[str]:
    """The names that `find` knows, sorted."""
    own = [name for name in _own() if find(name) is not None]
    return sorted({*own, *entry_points(group=ENTRY_POINTS).names})


def _own() -> set[str]:
    """The modules of `protocols.field` that may be drivers.

    `opcua_session` is a part of `opcua`, as its name says; its package is only installed where OPC UA is wanted.
    """
    names = {module.name for module in pkgutil.iter_modules(field.__path__)}
    return {name for name in names if not any(name.startswith(f"{other}_") for other in names)}


def make(device: Device, groups: Sequence[Group], data_dir: str | Path) -> Driver:
    """The driver of a device for some of its groups, not yet connected."""
    driver = device.module.driver(device.name, device.settings, groups)
    if isinstance(driver, KeepsFiles):
        driver.keep_in(files(data_dir, device.protocol))
    return driver


def files(data_dir: str | Path, protocol: str) -> Path:
    """Where the drivers of a protocol keep their files."""
    return Path(data_dir) / protocol
