"""The OPC UA driver (OPC 10000): subscriptions or polling, one session per server, read only.

The way of a value: `Session` hands over what the server said (`Sample`), `reading` makes the tag's value, quality
and reason of it, the group's `Inbox` keeps it until `read` takes it as scans. Where things are:

    opcua_settings      what the configuration says
    opcua_nodes         node ids as text, and which namespace index a URI has today (pure)
    opcua_values        types, scaling, quality (pure)
    opcua_inbox         order, doubles, losses, scans (pure)
    opcua_errors        sentences
    opcua_subscription  which notifications came, and which should have
    opcua_session       one connection

After DeviceAway the poller closes and connects again; everything is then built anew but the inboxes, which keep
what had arrived and know what was reported before.
"""

from __future__ import annotations

import asyncio
import importlib
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from protocols.field.contract import DeviceAway, DeviceRefused, FieldError, Group, Quality, Scan, Tag
from protocols.field.opcua_errors import node_sentence
from protocols.field.opcua_inbox import Inbox
from protocols.field.opcua_nodes import NodeAddress, parse_node
from protocols.field.opcua_settings import Address, GroupSettings, Settings, TagSettings
from protocols.field.opcua_values import Reading, Sample, reading

if TYPE_CHECKING:
    from asyncua import ua

    from protocols.field.opcua_session import Limits, Session
    from protocols.field.opcua_subscription import Watch

__all__ = ["GroupSettings", "OpcuaDriver", "Settings", "TagSettings", "driver", "tag"]


def tag(settings: TagSettings) -> Tag:
    """The tag for the rest of the system. ValueError with a sentence on an impossible node."""
    address = Address(parse_node(settings.node), settings.scale, settings.offset)
    return Tag(settings.name, settings.type, settings.unit, address)


def driver(name: str, settings: Settings, groups: Sequence[Group]) -> OpcuaDriver:
    """The driver of one server, not yet connected."""
    return OpcuaDriver(name, settings, groups)


class OpcuaDriver:
    """One OPC UA server. `requests` counts every service request sent, publish requests included."""

    def __init__(self, name: str, settings: Settings, groups: Sequence[Group]) -> None:
        self.requests = 0
        self._settings = settings
        self._where = f"{name} (opcua {settings.endpoint})"
        self._groups = {group.name: group for group in groups}
        self._inboxes = {group.name: Inbox() for group in groups}
        self._polled: dict[str, list[tuple[int, ua.NodeId]]] = {}
        self._pinned: dict[NodeAddress, NodeAddress] = {}  # namespaces given by index → by the URI they had at first
        self._session: Session | None = None
        self._limits: Limits | None = None
        self._attempts = 0

    async def connect(self) -> None:
        self._attempts += 1
        await self.close()
        # The library takes long to import: in a thread, so that other devices are read meanwhile.
        await asyncio.to_thread(importlib.import_module, "protocols.field.opcua_session")
        from protocols.field.opcua_session import Limit, Limits, Session

        longest_s = max((group.period_s for group in self._groups.values()), default=0.0)
        cap = self._settings.max_nodes_per_read
        self._limits = self._limits or Limits(Limit(cap), Limit(cap))
        self._session = Session(self._settings, self._where, self._limits, longest_s, self._count)
        try:
            namespaces = await self._session.open(self._password())
            for group in self._groups.values():
                if self._attempts > 1:
                    self._inboxes[group.name].reconnected(_now_us())
                await self._watch(self._session, group, namespaces)
        except FieldError:
            await self.close()
            raise

    async def read(self, group: Group) -> Sequence[Scan]:
        inbox = self._inboxes[group.name]
        if self._session is None:
            raise DeviceAway(f"{self._where}: not connected.")
        try:
            polled = _options(group).mode == "poll"
            await self._session.check(probe=not polled)
            if polled:
                await self._poll(self._session, group)
        except DeviceAway:
            if not inbox:  # what arrived before the fault goes first; the next read raises
                raise
        return inbox.take(group)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()  # still ours if this is cancelled
            self._session = None

    def _count(self) -> None:
        self.requests += 1

    def _password(self) -> str | None:
        try:
            return self._settings.secret()
        except (OSError, UnicodeDecodeError) as error:
            raise DeviceRefused(
                f"{self._where}: the password file {self._settings.password_file} cannot be read ({error}); "
                "check that it exists and that the agent's user may read it."
            ) from error

    async def _watch(self, session: Session, group: Group, namespaces: Sequence[str]) -> None:
        """Resolve the group's nodes, and subscribe to them unless they are polled. Those that fail are reported bad."""
        nodes = self._resolve(group, namespaces)
        if _options(group).mode == "poll":
            self._polled[group.name] = nodes
        elif nodes:
            for index, code in await session.subscribe(self._subscription(group, nodes)):
                self._report_bad(group, index, code, node_sentence(code, group.tags[index].address.node.text))

    def _resolve(self, group: Group, namespaces: Sequence[str]) -> list[tuple[int, ua.NodeId]]:
        """The node ids of today by position in the group."""
        from protocols.field.opcua_session import node_id

        nodes = []
        for index, each in enumerate(group.tags):
            given: NodeAddress = each.address.node
            address = self._pinned.get(given, given).pinned(namespaces)
            self._pinned[given] = address
            try:
                nodes.append((index, node_id(address, namespaces)))
            except ValueError as error:
                self._report_bad(group, index, Quality.BAD_NODE_ID_UNKNOWN, str(error))
        return nodes

    def _subscription(self, group: Group, nodes: list[tuple[int, ua.NodeId]]) -> Watch:
        from protocols.field.opcua_subscription import Watch

        inbox, options = self._inboxes[group.name], _options(group)
        sampling_ms = group.period_s * 1000 if options.sampling_ms is None else options.sampling_ms
        per_period = math.ceil(group.period_s * 1000 / sampling_ms) if sampling_ms else 1

        def report(index: int, sample: Sample, first: bool) -> None:
            arrived = reading(index, group.tags[index], sample, _now_us(), node_sentence)
            (inbox.report_first if first else inbox.report)(arrived)

        def lost(reason: str) -> None:
            inbox.report_lost((index for index, _ in nodes), _now_us(), reason)

        def waiting(index: int) -> None:
            reason = (
                f"node {group.tags[index].address.node.text}: the server monitors it and has sent nothing for it yet"
            )
            self._report_bad(group, index, Quality.BAD_WAITING_FOR_INITIAL_DATA, reason)

        queue_size = max(options.queue_size, per_period)
        return Watch(group.period_s, sampling_ms, queue_size, nodes, report, lost, waiting)

    async def _poll(self, session: Session, group: Group) -> None:
        nodes = self._polled[group.name]
        samples = await session.read([node for _, node in nodes])
        now_us = _now_us()
        for (index, _), sample in zip(nodes, samples, strict=True):
            self._inboxes[group.name].report_poll(reading(index, group.tags[index], sample, now_us, node_sentence))

    def _report_bad(self, group: Group, index: int, code: int, reason: str) -> None:
        self._inboxes[group.name].report(Reading(index, _now_us(), None, code, reason))


def _options(group: Group) -> GroupSettings:
    return group.options if isinstance(group.options, GroupSettings) else GroupSettings()


def _now_us() -> int:
    return time.time_ns() // 1000
