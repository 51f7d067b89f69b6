"""A simulated OPC UA server with the nodes of a device's tags, on asyncua's own server. For rehearsals: no security.

Several tags of one node take elements of its array. Members of structures are left out: their types are the real
server's, and nothing here knows them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any

from agent.plant import plausible
from protocols.field.contract import Group, Quality, Tag, Value
from protocols.field.opcua_nodes import NodeAddress
from protocols.field.opcua_settings import Address

if TYPE_CHECKING:
    from asyncua.server.server import Server
    from asyncua.ua import DataValue, NodeId

CHANGE_S = 0.2
ELEMENTS_MAX = 1000
Show = Callable[[Tag, int], tuple[Value, int]]
"""What a tag shows at a time, microseconds since 1970: value and quality."""

_EMPTY: dict[str, Any] = {"bool": False, "int": 0, "uint": 0, "float32": 0.0, "float64": 0.0, "string": ""}
_VARIANTS = {
    "bool": "Boolean",
    "int": "Int64",
    "uint": "UInt64",
    "float32": "Float",
    "float64": "Double",
    "string": "String",
}


@dataclass(slots=True)
class Variable:
    """A node. `tags`: element of its array → the tag that takes it; None: the whole value."""

    address: NodeAddress
    tags: dict[int | None, Tag] = field(default_factory=dict)

    @property
    def variant(self) -> str:
        """The name of its data type."""
        return _VARIANTS[next(iter(self.tags.values())).value_type]

    def value(self, show: Show, time_us: int) -> tuple[Any, int]:
        """A scalar, or a list; and its status. Of several tags the first bad one's is that of all."""
        found = {at: show(tag, time_us) for at, tag in self.tags.items()}
        status = next((quality for _, quality in found.values() if quality), Quality.GOOD)
        raw = {at: _raw(self.tags[at], value) for at, (value, _) in found.items()}
        if None in raw:
            return raw[None], status
        empty = _EMPTY[next(iter(self.tags.values())).value_type]
        return [raw.get(at, empty) for at in range(max(at for at in raw if at is not None) + 1)], status


def made_up(tag: Tag, time_us: int) -> tuple[Value, int]:
    """A value as a plant might have it, always good."""
    return plausible.of_type(tag.name, tag.unit, tag.value_type, time_us), Quality.GOOD


def _raw(tag: Tag, value: Value) -> Any:
    """As the server has it: before scaling, and of the node's type, whatever was asked for."""
    address: Address = tag.address
    empty = _EMPTY[tag.value_type]
    if isinstance(empty, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return (value - address.offset) / address.scale
    return value if type(value) is type(empty) else empty


def variables(groups: Sequence[Group]) -> tuple[list[Variable], list[str]]:
    """The nodes of all tags, and the names of the tags that have no place in them."""
    found: dict[tuple[str | int, Any], Variable] = {}
    left_out = []
    for group in groups:
        for tag in group.tags:
            address: Address = tag.address
            node, part = address.node, address.part
            element = part[0] if part else None
            is_possible = len(part) <= 1 and not isinstance(element, str) and (element or 0) < ELEMENTS_MAX
            variable = found.setdefault((node.namespace, node.identifier), Variable(node))
            if node.namespace == 0:
                continue  # the server has it by itself
            if not is_possible or (variable.tags and (element is None) != (None in variable.tags)):
                left_out.append(tag.name)
            elif isinstance(element, int | None):
                variable.tags.setdefault(element, tag)
    return [variable for variable in found.values() if variable.tags], left_out


class OpcuaPlant:
    """One server. `left_out`: tags that it cannot show."""

    def __init__(self, groups: Sequence[Group], show: Show = made_up) -> None:
        self._show = show
        self._variables, self.left_out = variables(groups)
        self._nodes: list[tuple[NodeId, Variable]] = []
        self._server: Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Makes the nodes and listens; the port. Raises OSError."""
        from asyncua import ua
        from asyncua.server.server import Server

        logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # it logs what is its clients' fault
        server = Server()
        await server.init()
        server.set_endpoint(f"opc.tcp://{host}:{port}/")
        server.set_server_name("Holdfast, simulated plant")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        server.set_identity_tokens([ua.AnonymousIdentityToken])
        indexes = await self._namespaces(server)
        for variable in self._variables:
            node_id = ua.NodeId(variable.address.identifier, indexes[variable.address.namespace])  # type: ignore[arg-type]  # an identifier of one of the four kinds
            name = f"{node_id.NamespaceIndex}:{variable.address.text}"
            first = self._data_value(variable)
            if first.Value is None:
                raise TypeError("a variable has a value")
            await server.nodes.objects.add_variable(node_id, name, first.Value.Value, first.Value.VariantType)
            self._nodes.append((node_id, variable))
        await self._state(server)  # with their status, before anybody can read them
        await server.start()
        self._server = server
        if server.bserver is None:
            raise OSError("the server does not listen")
        return int(server.bserver.port)

    async def _namespaces(self, server: Server) -> dict[str | int, int]:
        """Each namespace, by URI or index → its index on this server. Those by index come first."""
        given = {variable.address.namespace for variable in self._variables}
        indexes: dict[str | int, int] = {}
        for index in range(2, max((one for one in given if isinstance(one, int)), default=1) + 1):
            await server.register_namespace(f"urn:holdfast:simulated:{index}")
        indexes |= {one: one for one in given if isinstance(one, int)}
        for uri in sorted(one for one in given if isinstance(one, str)):
            indexes[uri] = await server.register_namespace(uri)
        return indexes

    async def run(self) -> None:
        """Changes the values for ever. Call it after `start`."""
        if self._server is None:
            raise RuntimeError("start it first")
        while True:
            await asyncio.sleep(CHANGE_S)
            await self._state(self._server)

    async def _state(self, server: Server) -> None:
        """All values as they are now."""
        from asyncua.ua.attribute_ids import AttributeIds

        space = server.iserver.aspace
        for node_id, variable in self._nodes:
            (await space.write_attribute_value(node_id, AttributeIds.Value, self._data_value(variable))).check()

    async def stop(self) -> None:
        """Closes it and all its connections; takes up to a second, the period of the server's own clock."""
        if self._server is not None:
            await self._server.stop()

    def _data_value(self, variable: Variable) -> DataValue:
        from asyncua import ua

        value, status = variable.value(self._show, time.time_ns() // 1000)
        stamp = ua.DateTime.now(UTC)
        variant = ua.Variant(value, ua.VariantType[variable.variant])
        return ua.DataValue(variant, ua.StatusCode(ua.UInt32(status)), stamp, stamp)
