"""How `holdfast browse` walks a server: breadth first, a portion of nodes at a time, within bounds.

Imported when it is needed: the OPC UA library takes a third of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asyncua import ua

from agent.toolbox.nodes import Seen, node_text
from protocols.field.contract import DeviceAway
from protocols.field.opcua import OpcuaDriver
from protocols.field.opcua_errors import ServiceFault, node_sentence
from protocols.field.opcua_nodes import parse_node
from protocols.field.opcua_session import Session, node_id
from protocols.field.opcua_settings import Settings

NAMESPACES = 2255
OBJECTS = 85
"""From there on the standard's own nodes are left out: hundreds of the server's diagnostics, nothing of the plant."""

HIERARCHICAL = 33
AT_ONCE = 25
REFERENCES_MAX = 1000
_KINDS = {ua.NodeIdType.String: "s", ua.NodeIdType.Guid: "g", ua.NodeIdType.ByteString: "b"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far to go: levels below the start, nodes in all; and whether the variables' values are read."""

    depth: int
    nodes: int
    reads: bool


class Browser(OpcuaDriver):
    """The driver without any tags: it connects as the agent would, security and certificates included, and browses."""

    async def children(self, nodes: Sequence[ua.NodeId]) -> list[list[ua.ReferenceDescription]]:
        """What stands below each node: objects and variables, by hierarchical references. Raises DeviceAway.

        A node that the server refuses to browse has nothing below it.
        """
        parameters = ua.BrowseParameters(
            RequestedMaxReferencesPerNode=ua.UInt32(REFERENCES_MAX),
            NodesToBrowse=[
                ua.BrowseDescription(
                    NodeId=node,
                    BrowseDirection=ua.BrowseDirection.Forward,
                    ReferenceTypeId=ua.NodeId(ua.Int32(HIERARCHICAL)),
                    IncludeSubtypes=True,
                    NodeClassMask=ua.UInt32(ua.NodeClass.Object | ua.NodeClass.Variable),
                    ResultMask=ua.UInt32(ua.BrowseResultMask.All),
                )
                for node in nodes
            ],
        )
        session = self.session
        try:
            # The session offers no browsing of its own, because the agent never browses.
            results = await session._request(session._client.uaclient.browse(parameters))
        except ServiceFault:
            return [[] for _ in nodes]
        return [await self._whole(result) for result in results]

    @property
    def session(self) -> Session:
        """The open session. Raises DeviceAway where there is none."""
        if self._session is None:
            raise DeviceAway(f"{self._where}: not connected.")
        return self._session

    async def _whole(self, result: ua.BrowseResult) -> list[ua.ReferenceDescription]:
        """With what did not fit into one answer."""
        found = list(result.References or [])
        more = result.ContinuationPoint
        session = self.session
        while more:
            asked = ua.BrowseNextParameters(ReleaseContinuationPoints=False, ContinuationPoints=[more])
            try:
                [following] = await session._request(session._client.uaclient.browse_next(asked))
            except (ServiceFault, ValueError):
                break
            found += following.References or []
            more = following.ContinuationPoint
        return found


async def walk(
    name: str,
    settings: Settings,
    directory: Path | None,
    start: str,
    bounds: Bounds,
    update: Callable[[str], None],
) -> tuple[Seen, list[str], bool]:
    """The tree below `start`, the server's namespaces, and whether it is whole. Raises FieldError, ValueError.

    `directory`: where the agent keeps its certificates, see OpcuaDriver.keep_in.
    """
    browser = Browser(name, settings, [])
    if directory is not None:
        browser.keep_in(directory)
    try:
        await browser.connect()
        [sample] = await browser.session.read([ua.NodeId(ua.Int32(NAMESPACES))])
        namespaces = [str(uri) for uri in sample.value]
        first = node_id(parse_node(start), namespaces)
        root = Seen(start, start, start, is_variable=False)
        ids: dict[str, ua.NodeId] = {}
        is_whole = await _grow(browser, root, first, namespaces, bounds, ids, update)
        if bounds.reads:
            await _read(browser.session, root, ids)
        return root, namespaces, is_whole
    finally:
        await browser.close()


async def _grow(
    browser: Browser,
    root: Seen,
    first: ua.NodeId,
    namespaces: Sequence[str],
    bounds: Bounds,
    ids: dict[str, ua.NodeId],
    update: Callable[[str], None],
) -> bool:
    """Level by level. Each node stands where it is first met: address spaces have loops."""
    level: list[tuple[Seen, ua.NodeId]] = [(root, first)]
    is_plant_only = (first.NamespaceIndex, first.Identifier) == (0, OBJECTS)
    met = {(first.NamespaceIndex, first.Identifier)}
    for depth in range(1, bounds.depth + 1):
        below: list[tuple[Seen, ua.NodeId]] = []
        for start in range(0, len(level), AT_ONCE):
            part = level[start : start + AT_ONCE]
            for (parent, _), references in zip(part, await browser.children([node for _, node in part]), strict=False):
                for reference in references:
                    node = reference.NodeId
                    key = (node.NamespaceIndex, node.Identifier)
                    is_foreign = bool(getattr(node, "ServerIndex", None))  # on another server
                    if key in met or is_foreign or (is_plant_only and node.NamespaceIndex == 0):
                        continue
                    if len(met) > bounds.nodes:
                        return False
                    met.add(key)
                    seen = _seen(reference, namespaces, parent, depth)
                    parent.children.append(seen)
                    ids[seen.node] = ua.NodeId(node.Identifier, node.NamespaceIndex)
                    below.append((seen, ids[seen.node]))
            update(f"{len(met)} nodes")
        level = below
        if not level:
            return True
    return not level


def _seen(reference: ua.ReferenceDescription, namespaces: Sequence[str], parent: Seen, depth: int) -> Seen:
    node = reference.NodeId
    kind, index = _KINDS.get(node.NodeIdType, "i"), node.NamespaceIndex
    identifier: object = node.Identifier
    if kind == "b":
        import base64

        identifier = base64.b64encode(bytes(node.Identifier)).decode()
    uri = namespaces[index] if 0 < index < len(namespaces) else None
    short = f"{kind}={identifier}" if index == 0 else f"ns={index};{kind}={identifier}"
    name = str(reference.BrowseName.Name or reference.DisplayName.Text or short)
    is_variable = reference.NodeClass == ua.NodeClass.Variable
    return Seen(
        name, node_text(uri, identifier, kind) if uri or index == 0 else short, short, is_variable, depth, parent
    )


async def _read(session: Session, root: Seen, ids: dict[str, ua.NodeId]) -> None:
    """The values of all variables, in as few requests as the server's limits allow; structures taken apart."""
    from agent.toolbox.nodes import walked

    variables = [seen for seen in walked(root) if seen.is_variable]
    await session.describe([ids[seen.node] for seen in variables])
    for seen, sample in zip(variables, await session.read([ids[seen.node] for seen in variables]), strict=True):
        if sample.status >> 31:
            seen.trouble = node_sentence(sample.status, seen.short)
        elif sample.value is None:
            seen.trouble = sample.trouble or "it has no value"
        seen.type_name, seen.is_array, seen.value = sample.type_name, sample.is_array, sample.value
