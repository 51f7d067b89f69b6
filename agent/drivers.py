"""Finds a protocol's driver by its name: the module protocols/field/{name}.py, or an entry point `holdfast.drivers`."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from typing import cast

from protocols import field
from protocols.field.contract import DriverModule

ENTRY_POINTS = "holdfast.drivers"
_OFFERS = ("Settings", "TagSettings", "GroupSettings", "tag", "driver")


def find(protocol: str) -> DriverModule | None:
    """The driver module of this protocol; None where there is none."""
    if protocol in {module.name for module in pkgutil.iter_modules(field.__path__)}:
        module = importlib.import_module(f"{field.__name__}.{protocol}")
        if all(hasattr(module, offer) for offer in _OFFERS):
            return cast("DriverModule", module)
    for entry_point in entry_points(group=ENTRY_POINTS, name=protocol):
        return cast("DriverModule", entry_point.load())
    return None


def known() -> list[str]:
    """The names that `find` knows, sorted."""
    own = [module.name for module in pkgutil.iter_modules(field.__path__) if find(module.name) is not None]
    return sorted({*own, *entry_points(group=ENTRY_POINTS).names})
