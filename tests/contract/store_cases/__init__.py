"""One module here for each store: what `tests/contract/test_store_contract.py` runs over.

A module offers one context manager:

    @contextmanager
    def case(directory: Path, **options: Any) -> Iterator[StoreCase]: ...

It opens an empty store with the options (`future_tolerance_s`, `retention`), yields the case, and closes the
store. Modules are found by looking: a new store is one new file here, and no list anywhere needs a line.
"""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from importlib import import_module
from typing import Any

from cloud.store.contract import Beat, Store, Telemetry
from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.status import GatewayInfo, MachineNumbers, Status
from protocols.uplink.topics import GatewayTopic, MachineTopic, Plant
from protocols.values import ValueType

Reading = tuple[str, str, str, int, Any, int]
"""Machine, tag, type, time in µs, value as cloud/store/packing.py keeps it, quality."""


@dataclass(frozen=True)
class StoreCase:
    """An empty store, and a hand on every reading that it holds, with how often."""

    store: Store
    readings: Callable[[], Counter[Reading]]


Case = Callable[..., AbstractContextManager[StoreCase]]


def cases() -> dict[str, Case]:
    """Every case of this package by its module's name, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: import_module(f"{__name__}.{name}").case for name in names}


# --- messages to put in ---

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND

PLANT = Plant("acme", "hessen", "kassel")
ELSEWHERE = Plant("nobody", "hessen", "kassel")
PRESS = MachineTopic(PLANT, "press-1")
OVEN = MachineTopic(PLANT, "oven-1")
GATEWAY = GatewayTopic(PLANT, "gw-1")


def with_plant(store: Store) -> None:
    """Add PLANT and its tenant."""
    store.add_tenant(PLANT.tenant)
    store.add_plant(PLANT)


def one_column(value_type: ValueType, *values: Any, tag: str = "speed", **more: Any) -> Column:
    """A column of the tag."""
    return Column(tag, value_type, values, **more)


def telemetry(
    seq: int,
    *columns: Column,
    machine: MachineTopic = PRESS,
    epoch: str = "e1",
    gateway: str = "gw-1",
    times_us: Sequence[int] = (NOW,),
    received_us: int = NOW,
    content: str = "",
) -> Telemetry:
    """A message of one block; by default one reading of one tag. `content` makes another payload of the same key."""
    block = Block("plc-1", times_us, columns or (one_column(ValueType.FLOAT64, float(seq)),))
    payload = f"{machine.telemetry} {epoch} {seq} {content}".encode()
    batch = Batch(gateway, epoch, seq, [block])
    return Telemetry(machine, batch, payload, blake2b(payload, digest_size=16).digest(), received_us)


def beat(
    machines: Mapping[str, MachineNumbers] | None = None,
    *,
    gateway: GatewayTopic = GATEWAY,
    epoch: str = "e1",
    session: int = 1,
    retained: bool = False,
    received_us: int = NOW,
    state: Any = "online",
    reason: str | None = None,
    **more: Any,
) -> Beat:
    """A heartbeat; `more`: further keys of the status."""
    info = GatewayInfo(thing_name=gateway.thing, version="1.0", uptime_sec=1)
    status = Status(
        timestamp=received_us // 1000,
        state=state,
        reason=reason,
        session=session,
        epoch=epoch,
        gateway=info,
        machines=dict(machines or {}),
        **more,
    )
    return Beat(gateway, status, status.encode(), retained, received_us)
