"""One module here for each driver: what `tests/contract/test_driver_contract.py` runs its rows over.

A module offers one asynchronous context manager:

    @asynccontextmanager
    async def case() -> AsyncIterator[DriverCase]: ...

It starts the real device (a server on a free port of 127.0.0.1), yields the case, and stops the device.
The driver is handed over unconnected; the suite connects and closes it. Modules are found by looking:
a new driver is one new file here, and no list anywhere needs a line.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib import import_module

from protocols.field.contract import Driver, Group, Value

Expected = Value | Callable[[Value], bool]
"""A good value: itself, or a predicate where the value is not known beforehand."""

Hook = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class DriverCase:
    """A driver, what it must read, and hands on the device behind it."""

    driver: Driver
    groups: Sequence[Group]
    good: Mapping[str, Expected]  # tag name → what it must read; together with `bad`: every tag of every group
    bad: frozenset[str] = field(default_factory=frozenset)  # names of tags that must come back bad, with a reason
    cut: Hook | None = None  # takes the device away, connections too; None: there is no endpoint
    restore: Hook | None = None  # brings it back at the same address, with the same values


Case = Callable[[], AbstractAsyncContextManager[DriverCase]]


def cases() -> dict[str, Case]:
    """Every case of this package by its module's name, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: import_module(f"{__name__}.{name}").case for name in names}
