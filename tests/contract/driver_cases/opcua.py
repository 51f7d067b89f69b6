"""The OPC UA driver before asyncua's own server: one group subscribed to, one polled.

The driver reports what changed and the suite reads until it has seen every tag once more, so everything changes all
the time here, if only its source time or its bad status. What never changes again after the first report (a node
that does not exist) is in tests/integration/test_opcua.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from asyncua.ua.status_codes import StatusCodes

from protocols.field import opcua
from protocols.field.contract import Group, Value, ValueType
from tests.contract.driver_cases import DriverCase
from tests.support.opcua_server import NOON, OpcuaServer, opcua_server

SUBSCRIBED = {
    "temperature": ("nsu=urn:plant:press;s=Temperature", "float64"),
    "running": ("nsu=urn:plant:press;s=Running", "bool"),
    "broken": ("nsu=urn:plant:press;s=Broken", "float64"),
}
POLLED = {
    "count": ("nsu=urn:plant:press;s=Count", "uint"),
    "level": ("ns=2;s=Level", "int"),
    "recipe": ("nsu=urn:plant:press;s=Recipe", "string"),
    "curve": ("nsu=urn:plant:press;s=Curve", "float64"),
}


def _group(name: str, mode: str, tags: dict[str, tuple[str, str]]) -> Group:
    settings = [opcua.TagSettings(name=tag, node=node, type=ValueType(kind)) for tag, (node, kind) in tags.items()]
    options = opcua.GroupSettings.model_validate({"mode": mode})
    return Group("press", name, 0.05, tuple(opcua.tag(each) for each in settings), options)


async def _live(server: OpcuaServer) -> None:
    """A machine at work: every value or its status or its time moves on."""
    failures = (int(StatusCodes.BadSensorFailure), int(StatusCodes.BadDeviceFailure))
    for step in range(1_000_000):
        moment = NOON + timedelta(milliseconds=step)
        await server.set("Temperature", 70.0 + step % 10, source=moment)
        await server.set("Running", step % 2 == 0, source=moment)
        await server.set("Broken", None, status=failures[step % 2], source=moment)
        for name, value in {"Count": 42, "Level": -7, "Recipe": "Nougat", "Curve": [1.0, 2.0]}.items():
            await server.set(name, value, source=moment)
        await asyncio.sleep(0.02)


def _is_warm(value: Value) -> bool:
    return isinstance(value, float) and 70.0 <= value < 80.0


@asynccontextmanager
async def case() -> AsyncIterator[DriverCase]:
    async with opcua_server() as server:
        groups = [_group("fast", "subscribe", SUBSCRIBED), _group("slow", "poll", POLLED)]
        settings = opcua.Settings(url=server.url, timeout_s=2)
        machine = asyncio.create_task(_live(server), name="the machine behind the OPC UA server")
        try:
            yield DriverCase(
                opcua.driver("press-plc", settings, groups),
                groups,
                good={
                    "temperature": _is_warm,
                    "running": lambda value: isinstance(value, bool),
                    "count": 42,
                    "level": -7,
                    "recipe": "Nougat",
                },
                bad=frozenset({"broken", "curve"}),
                cut=server.cut,
                restore=server.restore,
            )
        finally:
            machine.cancel()
            with suppress(asyncio.CancelledError):
                await machine
