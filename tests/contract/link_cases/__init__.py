"""One module here for each link, or broker: what `tests/contract/test_link_contract.py` runs its rows over.

A module offers one asynchronous context manager:

    @asynccontextmanager
    async def case(folder: Path) -> AsyncIterator[LinkCase]: ...

It starts the real broker, yields the case, and stops the broker. Modules are found by looking: a new link is one new
file here, and no list anywhere needs a line. A name that begins with an underscore is none.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from protocols.uplink.link import AgentLink, CloudLink

CLIENTS = ("gw-1", "gw-2", "receiver")
"""The client ids that a case can give links to."""


@dataclass(frozen=True)
class LinkCase:
    """How to get links to one broker, and hands on what can happen to them."""

    agent: Callable[[str], AgentLink]
    cloud: Callable[[str], CloudLink]
    protocol: str  # what `Connected` must say
    knows_subscribers: bool  # whether a publish that nobody gets is told so
    cut: Callable[[str], None]  # that client's connection is lost without a goodbye
    freeze: Callable[[], None]  # the broker answers nothing any more; ends with `kill`
    kill: Callable[[], Awaitable[None]]  # the broker dies
    restart: Callable[[], Awaitable[None]]  # and comes back at the same address


Case = Callable[[Path], AbstractAsyncContextManager[LinkCase]]


def cases() -> dict[str, Case]:
    """Every case of this package by its module's name, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return {name: import_module(f"{__name__}.{name}").case for name in names}
