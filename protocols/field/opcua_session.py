"""One connection to an OPC UA server: socket, secure channel, session and subscriptions. Made anew for every connect.

This is the only file that talks through asyncua, and it is imported when the first connect needs it (the library
costs a third of a second). Of the library it uses the single steps of connecting and the services, and none of
its supervisors: those log errors instead of reporting them, and reconnect on their own.

How a dead connection is found, always by `check` or by a request, never in the background:

- the socket is closed: the library's client is no longer CONNECTED;
- nothing at all was heard for `timeout_s`: the server's state is read, with `timeout_s` as its deadline;
- a subscription is silent, was ended by the server, or lost a notification (see `Subscription`);
- a message grows beyond every bound.

A connection that failed once stays failed: every later call raises the same error, until a new connection is made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from asyncua import ua
from asyncua.client.client import Client
from asyncua.client.ua_client import UaClientState
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds

from protocols.field.contract import DeviceAway, DeviceTimeout, FieldError
from protocols.field.opcua_channel import count_requests, shut
from protocols.field.opcua_clock import Clock
from protocols.field.opcua_errors import ServiceFault, Step, connect_error, service_error
from protocols.field.opcua_identity import Identity
from protocols.field.opcua_nodes import NodeAddress
from protocols.field.opcua_raw import values_with_bytes
from protocols.field.opcua_security import User, secure
from protocols.field.opcua_settings import Settings, practical_nodes
from protocols.field.opcua_structures import Types, is_built_in
from protocols.field.opcua_subscription import Subscription, Watch, sample_of
from protocols.field.opcua_values import Sample, microseconds

T = TypeVar("T")
R = TypeVar("R")

CHANNEL_LIFETIME_S = 3600.0
DEPTH_MAX = 16  # of types in types
TYPES_MAX = 1000  # so many are asked for; tags of others are bad, with the reason
MAX_RECEIVED = 1 << 20  # bytes of an unfinished chunk; asyncua asks for chunks of 64 KiB and takes any

_FACTS = tuple(
    ua.NodeId(ua.Int32(number))
    for number in (
        ObjectIds.Server_NamespaceArray,
        ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
        ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
        ObjectIds.Server_ServerStatus_BuildInfo_ManufacturerName,
    )
)
_STATE = ua.NodeId(ua.Int32(ObjectIds.Server_ServerStatus_State))
_TIME = ua.NodeId(ua.Int32(ObjectIds.Server_ServerStatus_CurrentTime))
CLOCK_S = 10.0  # how often the server's clock is compared with ours


@dataclass
class Limit:
    """How many nodes go into one request: what was configured, announced and learned, whichever is the smallest."""

    configured: int
    announced: int = 0  # 0: the server announces none
    learned: int = 0

    @property
    def size(self) -> int:
        return min(n for n in (self.configured, self.announced, self.learned) if n > 0)


@dataclass
class Limits:
    """Of one server. What is learned is kept over connections."""

    read: Limit
    monitor: Limit


def node_id(address: NodeAddress, namespaces: Sequence[str]) -> ua.NodeId:
    """The node id of today. ValueError with a sentence when the server has no such namespace."""
    # asyncua annotates identifiers with its own subclasses of int, str and bytes, and takes the plain ones.
    return ua.NodeId(address.identifier, address.index(namespaces))  # type: ignore[arg-type]


class Session:
    """From `open` to `close`, once."""

    def __init__(
        self, settings: Settings, where: str, limits: Limits, longest_s: float, count: Callable[[], None]
    ) -> None:
        """`longest_s`: the longest period of a group; `count` is called for each request sent."""
        self._settings = settings
        self._where = where
        self._limits = limits
        self._timeout_s = settings.timeout_s
        self._subscriptions: list[Subscription] = []
        self._fault: FieldError | None = None
        self._heard_at = -math.inf
        self._renew_at = math.inf
        self._clock_at = math.inf
        self.clock = Clock(round(settings.clock_tolerance_s * 1_000_000))
        self.types = Types()
        self._client = Client(settings.endpoint, timeout=settings.timeout_s)
        self._client.name = self._client.description = "Holdfast"
        self._client.application_uri = "urn:holdfast:gateway"
        # Neither may end between two readings of a group with a long period.
        self._client.session_timeout = round(max(settings.session_timeout_s, 3 * longest_s) * 1000)
        self._client.secure_channel_timeout = round(max(CHANNEL_LIFETIME_S, 4 * longest_s) * 1000)
        self._identity: Identity | None = None
        count_requests(self._client, count)

    async def open(self, user: User, certificate: bytes = b"", identity: Identity | None = None) -> list[str]:
        """Connect, and return the server's namespaces by index. Raises DeviceAway or DeviceRefused.

        `certificate` (DER) is the server's and `identity` ours, where the connection is secured.
        """
        client, self._identity = self._client, identity
        if identity is not None:
            secure(client, self._settings, certificate, identity, self._where)
        client.user_private_key = user.key
        await self._step(Step.SOCKET, client.connect_socket())
        await self._step(Step.HELLO, client.send_hello())
        await self._step(Step.CHANNEL, client.open_secure_channel())
        await self._step(Step.SESSION, client.create_session())
        await self._step(Step.USER, client.activate_session(user.name, user.password, user.certificate))
        self._plan_renewal()
        return await self._facts()

    async def _step(self, step: Step, work: Awaitable[Any]) -> None:
        try:
            await work
        except Exception as error:  # the library's edge: its decoder raises whatever a stranger's bytes lead to
            raise connect_error(step, error, self._where, self._timeout_s, self._settings, self._identity) from error
        self._heard_at = time.monotonic()

    async def _facts(self) -> list[str]:
        """The namespaces; the limits are noted."""
        namespaces, read, monitor, manufacturer = [sample.value for sample in await self.read(_FACTS)]
        if "max_nodes_per_read" not in self._settings.model_fields_set:
            practical = practical_nodes(manufacturer if isinstance(manufacturer, str) else "")
            self._limits.read.configured = self._limits.monitor.configured = practical
        self._limits.read.announced = read if isinstance(read, int) else 0
        self._limits.monitor.announced = monitor if isinstance(monitor, int) else 0
        if not isinstance(namespaces, list):
            self._fail(DeviceAway(f"{self._where}: the server does not say which namespaces it has; see its log."))
        await self._compare_clocks()
        return [str(uri) for uri in namespaces]

    async def _compare_clocks(self) -> None:
        """How far the server's clock is ahead. Not known better than half of the time that the answer took."""
        self._clock_at = time.monotonic() + CLOCK_S
        before_ns, begun_s = time.time_ns(), time.monotonic()
        [sample] = await self.read([_TIME])
        took_us = round((time.monotonic() - begun_s) * 1_000_000)
        theirs_us = microseconds(sample.value) if isinstance(sample.value, datetime) else None
        if theirs_us is None:  # some small servers have none; then each time stamp is judged alone
            return
        ahead_us = theirs_us - (before_ns // 1000 + took_us // 2)
        if abs(ahead_us) > took_us // 2 + self.clock.tolerance_us:
            self.clock = replace(self.clock, ahead_us=ahead_us)
        else:
            self.clock = replace(self.clock, ahead_us=0)

    async def check(self, *, probe: bool) -> None:
        """Whether the connection is alive; renews the channel in time. Raises DeviceAway or DeviceTimeout.

        `probe`: look for silence too, and ask if nothing was heard for long. Not needed by a caller that asks anyway.
        """
        if self._fault is not None:
            self._fail(self._fault)
        if self._client.state is not UaClientState.CONNECTED:
            self._fail(DeviceAway(f"{self._where}: the server closed the connection; it is connected again."))
        protocol = self._client.uaclient.protocol
        if protocol is not None and len(protocol.receive_buffer or b"") > MAX_RECEIVED:
            self._fail(DeviceAway(f"{self._where}: the server sends a message without an end; it is connected again."))
        if time.monotonic() >= self._renew_at:
            await self._need(self._client.open_secure_channel(renew=True))
            self._client.uaclient.revolve_security_token()
            self._plan_renewal()
        if time.monotonic() >= self._clock_at:
            await self._compare_clocks()
        if not probe:
            return
        if time.monotonic() - self._heard_at > self._timeout_s:
            await self._need(self._read_service([_STATE]))
        for subscription in self._subscriptions:
            overdue = subscription.overdue(time.monotonic())
            if overdue is not None:
                self._fail(DeviceTimeout(f"{self._where}: {overdue}; it is connected again."))

    async def read(self, nodes: Sequence[ua.NodeId]) -> list[Sample]:
        """The values, in the order of the nodes; a node that failed has its status. Raises DeviceAway."""
        values = await self._in_chunks(nodes, self._limits.read, self._read_service, _failed_value)
        return [sample_of(value, self.types) for value in values]

    async def read_closely(self, nodes: Sequence[ua.NodeId]) -> tuple[list[tuple[Sample, bytes]], list[float]]:
        """As `read`, each with its bytes in the server's answer; and how many seconds each answer took."""
        latencies_s: list[float] = []

        async def service(chunk: Sequence[ua.NodeId]) -> list[tuple[ua.DataValue, bytes]]:
            request, begun_s = ua.ReadRequest(Parameters=_asked(chunk)), time.monotonic()
            # What the library's own `read` begins with; it would throw the bytes away.
            data = await self._client.uaclient._send_request(request)
            latencies_s.append(time.monotonic() - begun_s)
            return values_with_bytes(data)

        found = await self._in_chunks(nodes, self._limits.read, service, lambda code: (_failed_value(code), b""))
        return [(sample_of(value, self.types), raw) for value, raw in found], latencies_s

    async def subscribe(self, watch: Watch) -> list[tuple[int, int]]:
        """Monitor the nodes; returns position and status code of each that the server does not monitor."""
        subscription = Subscription(watch, self._timeout_s, time.monotonic())
        low = self._client.uaclient
        try:
            created = await self._request(
                low.create_subscription(watch.parameters(), lambda result: self._heard(subscription, result))
            )
        except ServiceFault as fault:
            return [(position, fault.code) for position, _ in watch.nodes]
        subscription.created(created)
        self._subscriptions.append(subscription)

        async def monitor(chunk: Sequence[tuple[int, ua.NodeId]]) -> list[int]:
            asked = ua.CreateMonitoredItemsParameters(
                SubscriptionId=created.SubscriptionId,
                TimestampsToReturn=ua.TimestampsToReturn.Both,
                ItemsToCreate=[watch.item(position, node) for position, node in chunk],
            )
            return [result.StatusCode.value for result in await low.create_monitored_items(asked)]

        codes = await self._in_chunks(watch.nodes, self._limits.monitor, monitor, int)
        failed = [(position, code) for (position, _), code in zip(watch.nodes, codes, strict=True) if code >> 31]
        subscription.monitored((position for position, _ in failed), time.monotonic())
        return failed

    def _heard(self, subscription: Subscription, result: ua.PublishResult) -> None:
        """A message of the subscription came. Called by the library, which would swallow what is raised here."""
        self._heard_at = time.monotonic()
        fault = subscription.heard(result.NotificationMessage, self._heard_at)
        if fault is not None:
            self._fault = self._fault or DeviceAway(f"{self._where}: {fault}; it is connected again.")

    async def describe(self, variables: Sequence[ua.NodeId]) -> None:
        """Learn the data types of these variables, and what they are made of. Raises DeviceAway."""
        kinds = await self._attributes(variables, AttributeIds.DataType)
        found = {node: kind for node, kind in zip(variables, kinds, strict=True) if isinstance(kind, ua.NodeId)}
        self.types.of_variable.update(found)
        wanted = set(found.values())
        asked: set[ua.NodeId] = set()
        for _ in range(DEPTH_MAX):
            fresh = sorted((kind for kind in wanted - asked if not is_built_in(kind)), key=ua.NodeId.to_string)
            if not fresh or len(asked) > TYPES_MAX:
                return
            asked.update(fresh)
            definitions = await self._attributes(fresh, AttributeIds.DataTypeDefinition)
            for kind, definition in zip(fresh, definitions, strict=True):
                self.types.add(kind, definition)
                if isinstance(definition, ua.StructureDefinition):
                    wanted.update(field.DataType for field in definition.Fields or ())
            wanted.update(await self._bases([kind for kind in fresh if kind not in self.types.structures]))

    async def _bases(self, kinds: Sequence[ua.NodeId]) -> list[ua.NodeId]:
        """The types that these are subtypes of, which are noted. What a server does not say is not known then."""
        if not kinds:
            return []
        asked = ua.BrowseParameters(
            NodesToBrowse=[
                ua.BrowseDescription(
                    NodeId=kind,
                    BrowseDirection=ua.BrowseDirection.Inverse,
                    ReferenceTypeId=ua.NodeId(ua.Int32(ObjectIds.HasSubtype)),
                    ResultMask=ua.UInt32(ua.BrowseResultMask.None_),
                )
                for kind in kinds
            ]
        )
        try:
            results = await self._request(self._client.uaclient.browse(asked))
        except ServiceFault:
            return []
        for kind, result in zip(kinds, results, strict=False):
            for above in (result.References or ())[:1]:
                self.types.bases[kind] = ua.NodeId(above.NodeId.Identifier, above.NodeId.NamespaceIndex)
        return [self.types.bases[kind] for kind in kinds if kind in self.types.bases]

    async def _attributes(self, nodes: Sequence[ua.NodeId], attribute: AttributeIds) -> list[Any]:
        """The attribute of each node as the library has it; None where there is none."""

        async def service(chunk: Sequence[ua.NodeId]) -> list[ua.DataValue]:
            return await self._read_service(chunk, attribute)

        values = await self._in_chunks(nodes, self._limits.read, service, _failed_value)
        return [None if value.Value is None else value.Value.Value for value in values]

    async def _read_service(
        self, nodes: Sequence[ua.NodeId], attribute: AttributeIds = AttributeIds.Value
    ) -> list[ua.DataValue]:
        return await self._client.uaclient.read(_asked(nodes, attribute))

    async def _request(self, service: Awaitable[T]) -> T:
        """The answer. Raises DeviceAway, which ends this session for good, or ServiceFault."""
        try:
            answer = await service
        except Exception as error:  # the library's edge: its decoder raises whatever a stranger's bytes lead to
            fault = service_error(error, self._where, self._timeout_s)
            if isinstance(fault, FieldError):
                self._fault = fault
            raise fault from error
        self._heard_at = time.monotonic()
        return answer

    async def _need(self, service: Awaitable[T]) -> T:
        """The answer to a request without which the session is of no use. Raises DeviceAway."""
        try:
            return await self._request(service)
        except ServiceFault as fault:
            self._fail(DeviceAway(f"{self._where}: the server refused a request with {fault}; it is connected again."))

    def _fail(self, fault: FieldError) -> NoReturn:
        """Fail now and ever after. A new exception each time: one that is raised twice collects tracebacks."""
        self._fault = fault
        raise type(fault)(*fault.args)

    async def _in_chunks(
        self,
        items: Sequence[T],
        limit: Limit,
        service: Callable[[Sequence[T]], Awaitable[list[R]]],
        failed: Callable[[int], R],
    ) -> list[R]:
        """The service's results for all items, asked for in portions. A portion that is refused as too large is
        halved, and the limit remembered; one that is refused for another reason gives `failed(code)` for its items."""
        results: list[R] = []
        while len(results) < len(items):
            chunk = items[len(results) : len(results) + limit.size]
            try:
                answers = await self._request(service(chunk)) or []
            except ServiceFault as fault:
                if fault.too_much and len(chunk) > 1:
                    limit.learned = len(chunk) // 2
                    continue
                answers = [failed(fault.code)] * len(chunk)
            if len(answers) != len(chunk):
                counted = f"the server gave {len(answers)} answers to {len(chunk)} questions"
                self._fail(DeviceAway(f"{self._where}: {counted}; it is connected again."))
            results += answers
        return results

    def _plan_renewal(self) -> None:
        """At half of the channel's lifetime, as the server revised it. The standard allows up to three quarters."""
        self._renew_at = time.monotonic() + self._client.secure_channel_timeout / 1000 / 2

    async def close(self) -> None:
        """Say goodbye if anyone listens, and leave no task and no socket. May be called twice."""
        low = self._client.uaclient
        try:
            if self._fault is None and low.state in (UaClientState.CHANNEL_OPEN, UaClientState.CONNECTED):
                with suppress(FieldError, ServiceFault):
                    await self._request(low.close_session(True))
                    await self._request(low.close_secure_channel())
        finally:
            await shut(self._client)


def _asked(nodes: Sequence[ua.NodeId], attribute: AttributeIds = AttributeIds.Value) -> ua.ReadParameters:
    return ua.ReadParameters(
        TimestampsToReturn=ua.TimestampsToReturn.Both,
        NodesToRead=[ua.ReadValueId(NodeId=node, AttributeId=attribute) for node in nodes],
    )


def _failed_value(code: int) -> ua.DataValue:
    return ua.DataValue(StatusCode=ua.StatusCode(ua.UInt32(code)))
