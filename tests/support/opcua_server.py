"""asyncua's own server, for tests: two namespaces with nodes of every kind, values set by the test.

Filling the standard's address space takes seconds, so one is built per process and shared by all tests, one after the
other; only what listens on the network is started and stopped. `cut` and `restore` take the server off the network
and bring it back at the same port; `swap_namespaces` makes it look like one that numbered them anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from asyncua import ua
from asyncua.common.callback import CallbackType
from asyncua.common.structures104 import new_enum, new_struct, new_struct_field
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.binary_server_asyncio import BinaryServer
from asyncua.server.server import Server
from asyncua.server.user_managers import UserManager
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.ua_binary import struct_to_binary
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)

PRESS = "urn:plant:press"  # namespace index 2, until the namespaces are swapped
OVEN = "urn:plant:oven"  # namespace index 3
SENSOR_FAILURE = int(StatusCodes.BadSensorFailure)
NOON = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
NOON_US = 1_772_366_400_250_000

_Type = ua.VariantType
_PRESS_NODES: dict[str, tuple[Any, ua.VariantType]] = {
    "Temperature": (71.5, _Type.Double),
    "Pressure": (2.5, _Type.Float),
    "Level": (-7, _Type.Int16),
    "Count": (42, _Type.UInt32),
    "Total": (2**63 + 1, _Type.UInt64),
    "Running": (True, _Type.Boolean),
    "Recipe": ("Nougat", _Type.String),
    "Label": (ua.LocalizedText("Presse", "de"), _Type.LocalizedText),
    "Since": (NOON, _Type.DateTime),
    "Code": (b"\x01\xab", _Type.ByteString),
    "Curve": ([1.0, 2.0], _Type.Double),
    "Broken": (0.0, _Type.Double),
    **{f"Item{number}": (number, _Type.Int32) for number in range(25)},
}

_built: Server | None = None
_Offer = ua.SecurityPolicyType
_POLICIES = [
    _Offer.NoSecurity,
    _Offer.Basic256Sha256_Sign,
    _Offer.Basic256Sha256_SignAndEncrypt,
    _Offer.Aes128Sha256RsaOaep_SignAndEncrypt,
    _Offer.Aes256Sha256RsaPss_SignAndEncrypt,
]


def self_signed(uri: str, name: str = "press") -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    """A key and a certificate for an application of this URI."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, made


class _Users(UserManager):
    """The users that the server admits; None: anybody."""

    def __init__(self) -> None:
        self.passwords: dict[str, str] | None = None
        self.certificates: set[bytes] = set()

    def get_user(
        self, iserver: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        if username is None and certificate is not None and certificate in self.certificates:
            return User(role=UserRole.User, name="by certificate")
        if self.passwords is None or (username is not None and self.passwords.get(username) == password):
            return User(role=UserRole.User, name=username)
        return None


def _named(name: str, namespace: int) -> ua.NodeId:
    return ua.NodeId.from_string(f"ns={namespace};s={name}")


def _standard(number: int) -> ua.NodeId:
    return ua.NodeId.from_string(f"i={number}")


async def _build() -> Server:
    """The server with its nodes, listening on nothing yet."""
    server = Server(user_manager=_Users())
    await server.init()
    server.disable_clock()  # it tells the time when asked instead, see `ahead`
    server.set_endpoint("opc.tcp://127.0.0.1:0/press")
    server.iserver.private_key, server.iserver.certificate = self_signed("urn:plant:server")
    server.set_security_policy(_POLICIES)
    press, oven = await server.register_namespace(PRESS), await server.register_namespace(OVEN)
    for name, (value, kind) in _PRESS_NODES.items():
        await server.nodes.objects.add_variable(_named(name, press), name, value, kind)
    await server.nodes.objects.add_variable(_named("Temperature", oven), "OvenTemperature", 900.0, _Type.Double)
    await _add_structures(server, press)
    await server.start()
    assert server.bserver is not None
    await server.bserver.stop()
    return server


def _packed(value: Any, encoding: ua.NodeId) -> ua.ExtensionObject:
    """As it goes over the line."""
    return ua.ExtensionObject(encoding, ua.ByteString(struct_to_binary(value)))


async def _add_structures(server: Server, press: int) -> None:
    """Types of the server's own, and variables of them: nothing changes these values."""
    state = await new_enum(server, press, "State", ["Idle", "Running", "Fault"])
    axis, [axis_encoding] = await new_struct(
        server,
        press,
        "Axis",
        [
            new_struct_field("Speed", _Type.Double),
            new_struct_field("State", state),
            new_struct_field("Warning", _Type.String, optional=True),
        ],
    )
    robot, [robot_encoding] = await new_struct(
        server,
        press,
        "Robot",
        [
            new_struct_field("Name", _Type.String),
            new_struct_field("Axes", axis, array=True),
            new_struct_field("Home", axis),
            new_struct_field("Limits", _Type.Int16, array=True),
            new_struct_field("Since", ua.NodeId(ua.Int32(ObjectIds.UtcTime))),
            new_struct_field("Id", _Type.Guid),
        ],
    )
    known: Any = await server.load_data_type_definitions()
    axes = [known["Axis"](Speed=1.5, State=known["State"].Running), known["Axis"](Speed=2.5, Warning="hot")]
    robot_now = known["Robot"](
        Name="Anna", Axes=axes, Home=known["Axis"](Speed=0.5), Limits=[-1, 7], Since=NOON, Id=UUID(int=5)
    )
    packed_robot = _packed(robot_now, robot_encoding.nodeid)
    packed_axes = [_packed(each, axis_encoding.nodeid) for each in axes]
    for encoding in (robot_encoding.nodeid, axis_encoding.nodeid):
        del ua.extension_objects_by_typeid[encoding]  # our driver, in the same process, must find out by itself
    for name, value, kind, data_type in (
        ("Robot", packed_robot, _Type.ExtensionObject, robot.nodeid),
        ("Axes", packed_axes, _Type.ExtensionObject, axis.nodeid),
        ("State", 1, _Type.Int32, state.nodeid),
        ("States", [2, 0], _Type.Int32, state.nodeid),
        ("Matrix", [[1, 2, 3], [4, 5, 6]], _Type.Int32, None),
        ("Range", ua.Range(Low=-1.0, High=99.0), _Type.ExtensionObject, None),
    ):
        await server.nodes.objects.add_variable(_named(name, press), name, value, kind, data_type)


class OpcuaServer:
    """The server on the network: from `start` to `stop`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._listener: BinaryServer | None = None
        self._port = 0
        self._most_nodes = 0
        self.ahead = timedelta(0)  # of the server's clock, before ours
        self.read_sizes: list[int] = []  # of every read request: how many nodes
        self.item_sizes: list[int] = []  # of every request to monitor: how many items

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self._port}/press"

    @property
    def port(self) -> int:
        return self._port

    @property
    def internal(self) -> Any:
        """asyncua's InternalServer, for tests that reach into subscriptions and sessions."""
        return self._server.iserver

    @property
    def connections(self) -> int:
        return len(self._listener.clients) if self._listener else 0

    @property
    def sessions(self) -> int:
        return len(self.internal._external_sessions)

    async def start(self) -> None:
        self.admit(None)
        self.show_certificate(self.certificate)
        self.internal.certificate_validator = None
        await self._name_namespaces([PRESS, OVEN])
        for name, (value, kind) in _PRESS_NODES.items():
            await self.set(name, value, kind)
        await self.set("Broken", None, status=SENSOR_FAILURE)
        await self.set("Temperature", 900.0, namespace=3)
        await self.announce(0, 0)
        self.internal.aspace.set_attribute_value_callback(
            _standard(ObjectIds.Server_ServerStatus_CurrentTime), AttributeIds.Value, self._tell_time
        )
        self.internal.callback_service.addListener(CallbackType.PreRead, self._before_read)
        self.internal.callback_service.addListener(CallbackType.ItemSubscriptionCreated, self._monitored)
        await self.restore()

    async def stop(self) -> None:
        await self.cut()
        self.internal.callback_service.removeListener(CallbackType.PreRead)
        self.internal.callback_service.removeListener(CallbackType.ItemSubscriptionCreated)

    def _tell_time(self, *_: object) -> ua.DataValue:
        return ua.DataValue(ua.Variant(datetime.now(UTC) + self.ahead, _Type.DateTime))

    async def restore(self) -> None:
        """Listen, at the same port as before."""
        self._listener = BinaryServer(self.internal, "127.0.0.1", self._port, self._server.limits)
        self._listener.set_policies(self._server._policies)
        await self._listener.start()
        self._port = self._listener.port

    async def cut(self) -> None:
        """As if the server's computer were switched off: no listener, no connection, no session."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        await listener.stop()
        while listener.clients:  # noqa: ASYNC110  # asyncua tells nobody when the last one has gone
            await asyncio.sleep(0)
        await listener._close_tasks()
        for session in list(self.internal._external_sessions.values()):
            await session.close_session(True)
        await asyncio.sleep(0)

    async def set(
        self,
        name: str,
        value: Any,
        kind: ua.VariantType | None = None,
        *,
        namespace: int = 2,
        source: datetime | None = NOON,
        status: int = 0,
    ) -> None:
        """A new value of a node, with this source time and status; of the type that the node has always had."""
        kind = _Type.Null if value is None else kind or _PRESS_NODES[name][1]
        data = ua.DataValue(ua.Variant(value, kind), ua.StatusCode(ua.UInt32(status)))
        data.SourceTimestamp = source  # type: ignore[assignment]  # asyncua's DateTime is its own name for datetime
        written = await self.internal.aspace.write_attribute_value(_named(name, namespace), AttributeIds.Value, data)
        written.check()

    async def swap_namespaces(self, press: float, oven: float, source: datetime) -> None:
        """The oven is index 2 now and the press is index 3; with their new temperatures."""
        await self._name_namespaces([OVEN, PRESS])
        await self.set("Temperature", oven, source=source)
        await self.set("Temperature", press, namespace=3, source=source)

    async def forget_press(self) -> None:
        """The press's namespace is gone."""
        await self._name_namespaces(["urn:plant:other", OVEN])

    async def _name_namespaces(self, plant: list[str]) -> None:
        node = self._server.get_node(_standard(ObjectIds.Server_NamespaceArray))
        standard = (await node.read_value())[:2]
        await node.write_value([*standard, *plant])

    async def announce(self, nodes_per_read: int, items_per_call: int) -> None:
        """The limits that the server announces; 0: none."""
        limits = {
            ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead: nodes_per_read,
            ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall: items_per_call,
        }
        for number, limit in limits.items():
            await self._server.get_node(_standard(number)).write_value(limit, _Type.UInt32)

    def limit_reads(self, most: int) -> None:
        """Refuse read requests of more nodes with BadTooManyOperations, whatever is announced."""
        self._most_nodes = most

    def _before_read(self, event: Any, _: Any) -> None:
        size = len(event.request_params.NodesToRead)
        if not event.is_external:
            return
        self.read_sizes.append(size)
        if self._most_nodes and size > self._most_nodes:
            raise ServiceError(StatusCodes.BadTooManyOperations)

    def _monitored(self, event: Any, _: Any) -> None:
        self.item_sizes.append(len(event.request_params.ItemsToCreate))

    @property
    def certificate(self) -> bytes:
        """The server's own (DER)."""
        return bytes(self.internal.certificate.public_bytes(Encoding.DER))

    def renew_certificate(self) -> None:
        """Another key and certificate, from the next `restore` on."""
        key, made = self_signed("urn:plant:server")
        self.internal.private_key, self.internal.certificate = key, made
        for policy in self._server._policies:
            policy.private_key, policy.certificate = key, made
        self.show_certificate(self.certificate)

    def show_certificate(self, certificate: bytes) -> None:
        """What the endpoints show, whether the server holds its key or not."""
        for endpoint in self.internal.endpoints:
            endpoint.ServerCertificate = certificate

    def trust_clients(self, *certificates: bytes) -> None:
        """Reject every client whose certificate (DER) is not among these."""

        async def validate(given: x509.Certificate, _: Any) -> None:
            if given.public_bytes(Encoding.DER) not in certificates:
                raise ServiceError(StatusCodes.BadCertificateUntrusted)

        self.internal.certificate_validator = validate

    def admit_certificate(self, certificate: bytes) -> None:
        """A user with this certificate (DER), and nobody else."""
        self.admit({})
        self.internal.user_manager.certificates = {certificate}

    def admit(self, passwords: dict[str, str] | None) -> None:
        """The users with their passwords; None: everybody, anonymous too."""
        self.internal.user_manager.passwords = passwords
        self.internal.user_manager.certificates = set()


@asynccontextmanager
async def opcua_server() -> AsyncIterator[OpcuaServer]:
    """A running server with its first values."""
    global _built
    if _built is None:
        _built = await _build()
    server = OpcuaServer(_built)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Wire:
    """A TCP proxy in front of a server: a line that can be frozen, as by a pulled cable, or cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._listener: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Wire:
        self._listener = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        self.cut()
        await _ended(self._tasks)
        await self._listener.wait_closed()

    def freeze(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._open.clear()

    def say(self, words: bytes) -> None:
        """Put bytes on the line, towards the client, as a broken server would."""
        for writer in self._clients:
            writer.write(words)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, there_writer}
        self._clients.add(writer)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                await self._open.wait()
                sink.write(data)
        sink.close()


async def _ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
