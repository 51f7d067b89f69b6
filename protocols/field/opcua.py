"""The OPC UA driver (OPC 10000): subscriptions or polling, one session per server, read only.

The way of a value: `Session` hands over what the server said (`Sample`), `reading` makes the tag's value, quality
and reason of it, the group's `Inbox` keeps it until `read` takes it as scans. Where things are:

    opcua_settings      what the configuration says
    opcua_nodes         node ids as text, and which namespace index a URI has today (pure)
    opcua_values        types, scaling, quality (pure)
    opcua_parts         elements of arrays, members of structures (pure)
    opcua_structures    structures by the server's description of them
    opcua_clock         which time stamps are believed (pure)
    opcua_inbox         order, doubles, losses, scans (pure)
    opcua_errors        sentences
    opcua_identity      our own certificate
    opcua_trust         which server certificates a person approved
    opcua_security      endpoint, policy and user
    opcua_channel       what all connections have in common
    opcua_subscription  which notifications came, and which should have
    opcua_raw           the bytes of single values in an answer (pure)
    opcua_session       one connection

After DeviceAway the poller closes and connects again; everything is then built anew but the inboxes, which keep
what had arrived and know what was reported before.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocols.field.contract import (
    DeviceAway,
    Evidence,
    FieldError,
    Group,
    Inspection,
    Quality,
    Scan,
    Tag,
    ValueType,
)
from protocols.field.opcua_errors import CertificateRejected, ChannelCut, node_sentence
from protocols.field.opcua_inbox import Inbox, scans
from protocols.field.opcua_nodes import NodeAddress, parse_node
from protocols.field.opcua_parts import parse_part, text_of
from protocols.field.opcua_settings import Address, GroupSettings, Settings, TagSettings
from protocols.field.opcua_trust import fingerprint
from protocols.field.opcua_values import Reading, Sample, reading

if TYPE_CHECKING:
    from asyncua import ua

    from protocols.field.opcua_identity import Identity
    from protocols.field.opcua_security import Access, User
    from protocols.field.opcua_session import Limits, Session
    from protocols.field.opcua_subscription import Watch

__all__ = ["GroupSettings", "OpcuaDriver", "Settings", "TagSettings", "driver", "tag"]


def tag(settings: TagSettings) -> Tag:
    """The tag for the rest of the system. ValueError with a sentence on an impossible node."""
    deadband = settings.deadband if isinstance(settings.deadband, int | float) else 0.0
    address = Address(
        parse_node(settings.node),
        settings.scale,
        settings.offset,
        parse_part(settings.part),
        deadband / abs(settings.scale) or None,
        settings.deadband_percent,
    )
    return Tag(settings.name, settings.type, settings.unit, address)


def driver(name: str, settings: Settings, groups: Sequence[Group]) -> OpcuaDriver:
    """The driver of one server, not yet connected. ValueError with a sentence where the package for it is missing."""
    if importlib.util.find_spec("asyncua") is None:
        raise ValueError(
            "protocol opcua needs the package asyncua, which is not installed here; install it with: "
            "pip install 'holdfast[opcua]', or from locks/gateway-opcua.txt"
        )
    for group in groups:
        by_range = [tag.name for tag in group.tags if tag.address.deadband_percent]
        if by_range and _options(group).mode == "poll":
            what = "has a deadband_percent, which only a server applies"
            raise ValueError(f"tag {by_range[0]} {what}; use mode: subscribe, or a deadband such as 2 %")
    return OpcuaDriver(name, settings, groups)


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of a group on a connection: each under the position of the first tag that takes it."""

    of: dict[int, ua.NodeId]
    shared: dict[int, list[int]]  # position of the first tag → those of all


class OpcuaDriver:
    """One OPC UA server. `requests` counts every service request sent, publish requests included."""

    def __init__(self, name: str, settings: Settings, groups: Sequence[Group]) -> None:
        self.requests = 0
        self._settings = settings
        self._name = name
        self._where = f"{name} (opcua {settings.endpoint})"
        self._directory: Path | None = None
        self._groups = {group.name: group for group in groups}
        self._inboxes = {group.name: Inbox() for group in groups}
        self._watched: dict[str, Nodes] = {}
        self._refused: dict[str, dict[int, Reading]] = {}  # group → position → why nothing will ever come of it
        self._seals: dict[str, str] = {}  # which certificates were shown and used, for people
        self._uris: dict[int, str] = {}  # namespaces given by index → the URI that they had at first
        self._kept: dict[int, str] = {}  # what of it was handed out to be remembered
        self._session: Session | None = None
        self._limits: Limits | None = None

    def keep_in(self, directory: Path) -> None:
        """Where certificates are kept; see opcua_identity and opcua_trust."""
        self._directory = directory

    def narrowed(self, group: Group) -> Collection[int]:
        """See `Narrows`: in a subscription the server applies absolute deadbands."""
        if _options(group).mode == "poll":
            return ()
        return [at for at, each in enumerate(group.tags) if each.address.deadband is not None]

    async def connect(self) -> None:
        await self.close()
        # The library takes long to import: in a thread, so that other devices are read meanwhile.
        await asyncio.to_thread(importlib.import_module, "protocols.field.opcua_session")
        from protocols.field.opcua_security import access
        from protocols.field.opcua_session import Limit, Limits

        cap = self._settings.max_nodes_per_read
        self._limits = self._limits or Limits(Limit(cap), Limit(cap))
        given = await asyncio.to_thread(access, self._settings, self._directory, self._where)
        try:
            namespaces, session = await self._opened(given, self._limits)
            for group in self._groups.values():
                self._inboxes[group.name].reconnected(_now_us())
                await self._watch(session, group, namespaces)
        except FieldError:
            await self.close()
            raise

    async def _opened(self, given: Access, limits: Limits) -> tuple[list[str], Session]:
        """The namespaces, and the session that is now ours. Raises DeviceAway or DeviceRefused."""
        from protocols.field.opcua_security import check_pin, chosen, endpoints

        self._seals = {}
        certificate = b""
        if given.identities:
            found = await endpoints(self._settings, self._where, self._count)
            certificate = chosen(found, self._settings, self._where)
            self._seals = {"server certificate, SHA-256": fingerprint(certificate)}
            check_pin(certificate, given, self._where, self._name)
        for identity in given.identities[:-1]:
            with suppress(
                CertificateRejected, ChannelCut
            ):  # renewed, and the server's administrator has yet to trust it
                return await self._open(given.user, limits, certificate, identity)
        last = given.identities[-1] if given.identities else None
        return await self._open(given.user, limits, certificate, last)

    async def _open(
        self, user: User, limits: Limits, certificate: bytes, identity: Identity | None
    ) -> tuple[list[str], Session]:
        from protocols.field.opcua_session import Session

        await self.close()
        if identity is not None:
            self._seals["client certificate, SHA-256"] = identity.fingerprint
        longest_s = max((group.period_s for group in self._groups.values()), default=0.0)
        self._session = session = Session(self._settings, self._where, limits, longest_s, self._count)
        return await session.open(user, certificate, identity), session

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

    async def inspect(self, group: Group) -> Inspection:
        """See `Inspects`. A node that the server reads and does not monitor is as bad as `read` says."""
        if self._session is None:
            raise DeviceAway(f"{self._where}: not connected.")
        session, nodes = self._session, self._watched[group.name]
        await session.check(probe=False)
        found, latencies_s = await session.read_closely(list(nodes.of.values()))
        now_us = _now_us()
        readings, evidence = dict[int, Reading](), dict[int, Evidence]()
        for first, (sample, raw) in zip(nodes.of, found, strict=True):
            for index in nodes.shared[first]:
                readings[index] = self._reading(session, group, nodes, first, index, sample, now_us, is_change=False)
                evidence[index] = _evidence(group.tags[index], nodes.of[first], sample, raw)
        readings |= self._refused[group.name]
        return Inspection(
            scans(group, [readings[index] for index in sorted(readings)]),
            [evidence.get(index, Evidence(tag.address.node.text, "-")) for index, tag in enumerate(group.tags)],
            latencies_s,
        )

    def facts(self) -> Mapping[str, str]:
        """See `Inspects`."""
        settings = self._settings
        protection = (
            f"{settings.security_policy}, {settings.mode}" if settings.is_secure else "none: nothing is encrypted"
        )
        user = "with a certificate" if settings.user_certificate else settings.username or "anonymous"
        return {"security": protection, "user": user, **self._seals}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()  # still ours if this is cancelled
            self._session = None

    def _count(self) -> None:
        self.requests += 1

    def recall(self, state: Mapping[str, Any]) -> None:
        """The namespaces by index, as they were at the very first connect to this server."""
        if state["endpoint"] == self._settings.endpoint:
            uris = {int(index): uri for index, uri in state["namespaces"].items()}
            if not all(isinstance(uri, str) for uri in uris.values()):
                raise TypeError("a namespace is no text")
            self._uris = uris
            self._kept = dict(uris)

    def memory(self) -> Mapping[str, Any] | None:
        if self._kept == self._uris:
            return None
        self._kept = dict(self._uris)
        return {"endpoint": self._settings.endpoint, "namespaces": {str(at): uri for at, uri in self._uris.items()}}

    async def _watch(self, session: Session, group: Group, namespaces: Sequence[str]) -> None:
        """Resolve the group's nodes, and subscribe to them unless they are polled. Those that fail are reported bad."""
        self._refused[group.name] = {}
        nodes = self._watched[group.name] = self._resolve(group, namespaces)
        typed = {nodes.of[at] for at in nodes.of if _needs_types(group.tags[at])}
        if typed:
            await session.describe(sorted(typed, key=str))
        if _options(group).mode == "subscribe" and nodes.of:
            for first, code in await session.subscribe(self._subscription(session, group, nodes)):
                for index in nodes.shared[first]:
                    self._refuse(group, index, code, node_sentence(code, group.tags[index].address.node.text))

    def _resolve(self, group: Group, namespaces: Sequence[str]) -> Nodes:
        """The node ids of today. Tags of the same node with the same deadband share one."""
        from protocols.field.opcua_session import node_id

        nodes = Nodes({}, {})
        firsts: dict[Any, int] = {}
        for index, each in enumerate(group.tags):
            address: Address = each.address
            try:
                node = node_id(self._pinned(address.node, namespaces), namespaces)
            except ValueError as error:
                self._refuse(group, index, Quality.BAD_NODE_ID_UNKNOWN, str(error))
                continue
            first = firsts.setdefault((node, address.deadband, address.deadband_percent), index)
            nodes.of.setdefault(first, node)
            nodes.shared.setdefault(first, []).append(index)
        return nodes

    def _pinned(self, given: NodeAddress, namespaces: Sequence[str]) -> NodeAddress:
        """The node by its namespace's URI, where it was given by an index: the URI that this index had at first."""
        if isinstance(given.namespace, int) and given.namespace > 0:
            if given.namespace < len(namespaces):
                self._uris.setdefault(given.namespace, namespaces[given.namespace])
            if given.namespace in self._uris:
                return replace(given, namespace=self._uris[given.namespace])
        return given

    def _subscription(self, session: Session, group: Group, nodes: Nodes) -> Watch:
        from protocols.field.opcua_subscription import Watch, deadband

        inbox, options = self._inboxes[group.name], _options(group)
        sampling_ms = group.period_s * 1000 if options.sampling_ms is None else options.sampling_ms
        per_period = math.ceil(group.period_s * 1000 / sampling_ms) if sampling_ms else 1

        def report(first: int, sample: Sample, is_first: bool) -> None:
            for index in nodes.shared.get(first, ()):
                arrived = self._reading(session, group, nodes, first, index, sample, _now_us(), is_change=not is_first)
                (inbox.report_first if is_first else inbox.report)(arrived)

        def lost(reason: str) -> None:
            inbox.report_lost((index for shared in nodes.shared.values() for index in shared), _now_us(), reason)

        def waiting(first: int) -> None:
            for index in nodes.shared[first]:
                node = group.tags[index].address.node.text
                reason = f"node {node}: the server monitors it and has sent nothing for it yet"
                self._report_bad(group, index, Quality.BAD_WAITING_FOR_INITIAL_DATA, reason)

        widths = {first: deadband(group.tags[first].address) for first in nodes.of}
        return Watch(
            group.period_s,
            sampling_ms,
            max(options.queue_size, per_period),
            list(nodes.of.items()),
            session.types,
            report,
            lost,
            waiting,
            options.discard == "oldest",
            {first: width for first, width in widths.items() if width is not None},
        )

    async def _poll(self, session: Session, group: Group) -> None:
        nodes, inbox = self._watched[group.name], self._inboxes[group.name]
        samples = await session.read(list(nodes.of.values()))
        now_us = _now_us()
        for first, sample in zip(nodes.of, samples, strict=True):
            for index in nodes.shared[first]:
                inbox.report_poll(self._reading(session, group, nodes, first, index, sample, now_us, is_change=True))

    def _reading(
        self,
        session: Session,
        group: Group,
        nodes: Nodes,
        first: int,
        index: int,
        sample: Sample,
        now_us: int,
        *,
        is_change: bool,
    ) -> Reading:
        previous_us = self._inboxes[group.name].source_us(index) if is_change else None
        names = session.types.names(nodes.of[first])
        return reading(index, group.tags[index], sample, now_us, node_sentence, session.clock, previous_us, names)

    def _refuse(self, group: Group, index: int, code: int, reason: str) -> None:
        """Nothing will come of this tag while this connection lasts."""
        self._refused[group.name][index] = Reading(index, _now_us(), None, code, reason)
        self._report_bad(group, index, code, reason)

    def _report_bad(self, group: Group, index: int, code: int, reason: str) -> None:
        self._inboxes[group.name].report(Reading(index, _now_us(), None, code, reason))


def _needs_types(tag: Tag) -> bool:
    """Whether its value may be a structure or an enumeration, whose description must be known."""
    return bool(tag.address.part) or tag.value_type is ValueType.STRING


def _evidence(tag: Tag, node: ua.NodeId, sample: Sample, raw: bytes) -> Evidence:
    """What the server said of the tag's node. Its place: as configured, and as it travels today."""
    address: Address = tag.address
    today = node.to_string()
    place = address.node.text if address.node.text == today else f"{address.node.text} ({today})"
    kind = f"{sample.type_name}[]" if sample.is_array else sample.type_name
    return Evidence(place, f"{kind}, part {text_of(address.part)}" if address.part else kind, "", raw)


def _options(group: Group) -> GroupSettings:
    return group.options if isinstance(group.options, GroupSettings) else GroupSettings()


def _now_us() -> int:
    return time.time_ns() // 1000
