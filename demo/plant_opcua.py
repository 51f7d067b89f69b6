"""An oven with an OPC UA server. Its nodes change at different speeds, each change with its own source timestamp.

One node's sensor is broken for good (BadSensorFailure), another one's value is uncertain for 2 s in every 10 s.
The server offers no security: it listens on 127.0.0.1 and everything in it is made up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

from demo.signals import TICK_S, Moment, Signal, alternating, constant, counter, wave

if TYPE_CHECKING:  # asyncua takes most of a second to import
    from asyncua.server.server import Server
    from asyncua.ua import DataValue, NodeId

HOST = "127.0.0.1"
NAMESPACE_URI = "urn:holdfast:demo:plant"
GOOD = 0x00000000
UNCERTAIN_SENSOR_NOT_ACCURATE = 0x40930000
BAD_SENSOR_FAILURE = 0x808C0000


def _always_good(_moment: Moment) -> int:
    return GOOD


def _broken(_moment: Moment) -> int:
    return BAD_SENSOR_FAILURE


def _now_and_then(moment: Moment) -> int:
    return UNCERTAIN_SENSOR_NOT_ACCURATE if 30 <= moment.tick % 100 < 50 else GOOD


@dataclass(frozen=True, slots=True)
class OvenNode:
    """A variable of the server, and the tag that an agent is configured with to subscribe to it.

    `type` is the agent's word, `variant` the OPC UA data type. A new value comes every `period_ticks` ticks.
    `status` gives the OPC UA status code of a moment.
    """

    name: str
    node: str
    type: str
    variant: str
    period_ticks: int
    signal: Signal
    unit: str = ""
    status: Callable[[Moment], int] = _always_good

    def tag(self) -> dict[str, Any]:
        """The tag as the agent's configuration has it."""
        tag = {"name": self.name, "node": f"nsu={NAMESPACE_URI};s={self.node}", "type": self.type}
        return tag | ({"unit": self.unit} if self.unit else {})


OVEN: tuple[OvenNode, ...] = (
    OvenNode("zone_1_temp", "Oven.Zone1.Temperature", "float64", "Double", 2, wave(412, 6, 40, 0.4, seed=11), "°C"),
    OvenNode("zone_2_temp", "Oven.Zone2.Temperature", "float32", "Float", 5, wave(436, 4, 55, 0.3, seed=12), "°C"),
    OvenNode("zone_3_temp", "Oven.Zone3.Temperature", "float32", "Float", 10, wave(398, 8, 70, 0.3, seed=13), "°C"),
    OvenNode("setpoint", "Oven.Setpoint", "float32", "Float", 50, alternating((415.0, 440.0), 60), "°C"),
    OvenNode("heater_power", "Oven.Heater.Power", "float32", "Float", 2, wave(62, 18, 12, 1.5, seed=14), "kW"),
    OvenNode(
        *("gas_flow", "Oven.Gas.Flow", "float32", "Float", 2, wave(7.4, 0.8, 9, 0.1, seed=15), "m³/h"),
        status=_now_and_then,
    ),
    OvenNode("chamber_pressure", "Oven.Chamber.Pressure", "int", "Int16", 2, wave(-35, 12, 6, 3, seed=16), "Pa"),
    OvenNode("door_open", "Oven.Door.Open", "bool", "Boolean", 10, alternating((False,) * 9 + (True,), 2)),
    OvenNode("program", "Oven.Program", "string", "String", 50, alternating(("T5-TEMPER", "HARDEN-860"), 30)),
    OvenNode("batch_number", "Oven.Batch.Number", "int", "Int32", 50, counter(20_417, 0.2)),
    OvenNode("parts_total", "Oven.Parts.Total", "uint", "UInt32", 10, counter(1_204_311, 1)),
    OvenNode("energy_total", "Oven.Energy.Total", "uint", "UInt64", 10, counter(7_481_203_355, 17), "Wh"),
    OvenNode("oxygen", "Oven.Oxygen", "float32", "Float", 10, constant(0.0), "%", status=_broken),
)


class Oven:
    """The server on a real socket of 127.0.0.1. `now` gives the current moment, `at` that of a tick."""

    def __init__(self, now: Callable[[], Moment], at: Callable[[int], Moment]) -> None:
        self._now = now
        self._at = at
        self._server: Server | None = None
        self._node_ids: dict[str, NodeId] = {}

    async def start(self, port: int) -> int:
        """Create the nodes, listen, and return the port (a free one for 0). Raises OSError."""
        from asyncua import ua
        from asyncua.server.server import Server

        server = Server()
        await server.init()
        server.set_endpoint(f"opc.tcp://{HOST}:{port}/")
        server.set_server_name("Holdfast demo oven")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        server.set_identity_tokens([ua.AnonymousIdentityToken])
        namespace = await server.register_namespace(NAMESPACE_URI)
        oven = await server.nodes.objects.add_object(f"ns={namespace};s=Oven", f"{namespace}:Oven")
        now = self._now()
        for node in OVEN:
            node_id = self._node_ids[node.node] = ua.NodeId.from_string(f"ns={namespace};s={node.node}")
            name = f"{namespace}:{node.node.removeprefix('Oven.')}"
            first = _data_value(node, self._at(now.tick - now.tick % node.period_ticks)).Value
            assert first is not None  # noqa: S101 — for the type checker: we have just set it
            await oven.add_variable(node_id, name, first.Value, first.VariantType)
        await self._publish(server, OVEN, now.tick)
        await server.start()
        assert server.bserver is not None  # noqa: S101 — for the type checker: start() has set it
        self._server = server
        return int(server.bserver.port)

    async def run(self) -> None:
        """Change the nodes' values for ever, each at its own pace. Call it after `start`."""
        assert self._server is not None  # noqa: S101 — for the type checker: see above
        last = self._now().tick
        while True:
            await asyncio.sleep(TICK_S)
            tick = self._now().tick
            due = [node for node in OVEN if tick // node.period_ticks > last // node.period_ticks]
            await self._publish(self._server, due, tick)
            last = tick

    async def stop(self) -> None:
        """Close the server and all connections; takes up to a second, the period of the server's own clock."""
        if self._server:
            await self._server.stop()

    async def _publish(self, server: Server, nodes: Iterable[OvenNode], tick: int) -> None:
        """Write what `nodes` show at a tick: the value of their latest whole period."""
        from asyncua.ua.attribute_ids import AttributeIds

        for node in nodes:
            value = _data_value(node, self._at(tick - tick % node.period_ticks))
            # The server's own short cuts drop this status code, and with it a refused type.
            space = server.iserver.aspace
            (await space.write_attribute_value(self._node_ids[node.node], AttributeIds.Value, value)).check()


def _data_value(node: OvenNode, moment: Moment) -> DataValue:
    from asyncua import ua

    value = node.signal(moment)
    if node.type in ("int", "uint"):
        value = round(float(value))
    stamp = ua.DateTime.now(UTC)
    variant = ua.Variant(value, ua.VariantType[node.variant])
    return ua.DataValue(variant, ua.StatusCode(ua.UInt32(node.status(moment))), stamp, stamp)
