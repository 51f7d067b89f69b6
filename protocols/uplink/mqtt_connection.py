"""One MQTT connection on paho-mqtt 2.2, from the TCP connect to its end. Private to `mqtt.py`; both ends use it.

Rules:

1. A connection is used once. Its paho client dies with it, so nothing stays queued in paho, and nothing that refers to
   an old connection (an acknowledgement, a future) can touch a new one.
2. Everything runs on the caller's event loop: paho's reader and writer are called when the socket is ready. No thread,
   and a third of the processor time of paho's own thread (65 instead of 180 µs for a message of 2 KB, 50 in flight).
3. Whatever goes wrong ends the connection, once, in `_end`: the socket is closed, open publishes become LOST, and
   whoever waits is told why. There is no state between "up" and "gone".
4. A silent peer is found by paho's ping, after twice the keep alive and at most two ticks (an eighth of it each).
5. The broker sends at most RECEIVE_MAX messages unacknowledged (MQTT 5), or its own number of them (3.1.1).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from protocols.program.logs import get_logger
from protocols.uplink import mqtt_reasons as reasons
from protocols.uplink.link import Connected, LinkAway, LinkError, LinkHungUp, LinkRefused, Message, Outcome
from protocols.uplink.mqtt_client import MQTT_5, MQTT_311, Client, Line, Trouble
from protocols.uplink.mqtt_dial import dial, place, tls_error
from protocols.uplink.mqtt_inbox import Inbox, Receipt
from protocols.uplink.mqtt_settings import BrokerSettings

NAMES = {MQTT_5: "MQTT 5", MQTT_311: "MQTT 3.1.1"}

RECEIVE_MAX = 200
RECEIVE_BYTES_MAX = 16 * 1024 * 1024
"""A larger message to us is dropped by an MQTT 5 broker: nobody can fill our memory with one."""

PACKET_BYTES_MAX = 268_435_460
"""The protocol's own limit: the largest remaining length (MQTT 5, 2.1.4) and the five bytes before it."""

PACKETS_PER_TURN = 200
"""How many packets are read before the rest of the program has its turn again."""

GOODBYE_S = 2.0
"""How long `close` waits until DISCONNECT is sent and the broker has hung up."""

_log = get_logger(part="link")


class VersionRefused(LinkRefused):
    """The broker does not speak this version of MQTT, and says so."""


class NoAnswer(LinkAway):
    """The broker closed the connection instead of answering CONNECT: perhaps because of the version, perhaps not."""


class Connection:
    """See the module. `open` once, then the rest; after `gone` is set, nothing does anything any more."""

    def __init__(self, settings: BrokerSettings, client_id: str, version: MQTTProtocolVersion) -> None:
        self.gone: LinkError | None = None
        self._settings = settings
        self._client_id = client_id
        self._version = version
        self._where = place(settings)
        self._loop = asyncio.get_running_loop()
        self._line: Line | None = None
        self._client: Client | None = None
        self._trouble = Trouble()
        self._step = "the TCP connection" if settings.tls is None else "the TCP connection and TLS handshake"
        self._answer: asyncio.Future[Any] = self._loop.create_future()
        self._greeted = False
        self._writes_itself = self._waits_to_write = self._reads = False
        self._timer: asyncio.TimerHandle | None = None
        self._in_flight_max = settings.in_flight_max
        self._packet_bytes_max = PACKET_BYTES_MAX
        self._publishes: dict[int, asyncio.Future[Outcome]] = {}
        self._inbox = Inbox(lambda message_id, qos: self._client and self._client.ack(message_id, qos))
        self._dropped = 0
        self._news = asyncio.Event()

    # ── up ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def open(self, will: Message | None, filters: Sequence[str]) -> Connected:
        """Connect, keep the session, subscribe with QoS 1. Raises LinkAway or LinkRefused, and is gone then."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                self._line = Line(await dial(self._settings))
                connected = await self._greet(self._line, will)
                await self._subscribe(filters)
        except TimeoutError as error:
            raise LinkAway(
                f"{self._where}: no answer to {self._step} within {self._settings.connect_timeout_s:g} s; "
                "check host and port, and the network between"
            ) from error
        else:
            self._tick()
            return connected
        finally:
            if self._timer is None:  # refused, timed out or cancelled
                self._end(LinkAway(f"{self._where}: not connected"))

    async def _greet(self, line: Line, will: Message | None) -> Connected:
        self._expect("CONNECT")
        client = self._client = self._build(line, will)
        how: dict[str, Any] = {}
        if self._version == MQTT_5:
            wishes = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho types all but this
            wishes.SessionExpiryInterval = self._settings.session_expiry_s
            wishes.ReceiveMaximum = RECEIVE_MAX
            wishes.MaximumPacketSize = RECEIVE_BYTES_MAX
            how = {"clean_start": False, "properties": wishes}
        client.connect(self._settings.host, self._settings.port, self._settings.keep_alive_s, **how)
        flags, code, limits = await self._answer
        if code.is_failure:
            error = reasons.connect_error(self._where, self._client_id, code.value, str(code))
            raise VersionRefused(str(error)) if code.value == reasons.UNSUPPORTED_VERSION else error
        if getattr(limits, "MaximumQoS", 2) == 0:
            raise reasons.connect_error(self._where, self._client_id, reasons.NO_QOS_1, "QoS not supported")
        self._in_flight_max = min(self._in_flight_max, getattr(limits, "ReceiveMaximum", 65535))
        self._packet_bytes_max = getattr(limits, "MaximumPacketSize", PACKET_BYTES_MAX)
        return Connected(flags.session_present, self._in_flight_max, NAMES[self._version], line.certificate)

    def _build(self, line: Line, will: Message | None) -> Client:
        client = Client(self._client_id, self._version, line, self._trouble)
        client.username_pw_set(self._settings.username, self._password())
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_want_write
        client.on_socket_unregister_write = self._on_no_write
        return client

    def _password(self) -> str | None:
        file = self._settings.password_file
        if file is None:
            return None if self._settings.password is None else self._settings.password.get_secret_value()
        try:
            return file.read_text(encoding="utf-8").partition("\n")[0].removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise LinkRefused(f"{self._where}: password_file {file} cannot be read ({error})") from error

    async def _subscribe(self, filters: Sequence[str]) -> None:
        self._expect("SUBSCRIBE")
        if not filters or self._client is None:
            return
        if self._version == MQTT_5:
            # Retained messages come at every subscription and are marked so; what was published since comes unmarked.
            self._client.subscribe([(topic, SubscribeOptions(qos=1, retainAsPublished=False)) for topic in filters])
        else:
            self._client.subscribe([(topic, 1) for topic in filters])
        codes = await self._answer
        if len(codes) != len(filters):
            raise LinkAway(f"{self._where}: the broker answered {len(filters)} subscriptions with {len(codes)} codes")
        for topic, code in zip(filters, codes, strict=True):
            error = reasons.subscribe_error(self._where, self._client_id, topic, code.value, str(code))
            if error is not None:
                raise error

    def _expect(self, step: str) -> None:
        """Await the answer to `step` next. Raises when the connection has gone meanwhile: none would come."""
        if self.gone is not None:
            raise self.gone
        self._step = step
        self._answer = self._loop.create_future()

    # ── in use ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(self, message: Message) -> asyncio.Future[Outcome]:
        """See the contract. Raises RuntimeError when the caller has more open than was agreed."""
        future: asyncio.Future[Outcome] = self._loop.create_future()
        if self.gone is not None or self._client is None:
            future.set_result(Outcome.LOST)
        elif self._packet_bytes(message) > self._packet_bytes_max:
            future.set_result(Outcome.TOO_LARGE)
        elif len(self._publishes) >= self._in_flight_max:
            raise RuntimeError(f"{len(self._publishes)} publishes are open already, the limit is {self._in_flight_max}")
        else:
            self._hand_over(self._client, message, future)
        return future

    def _hand_over(self, client: Client, message: Message, future: asyncio.Future[Outcome]) -> None:
        """To paho, and from there to the socket at once if that takes it: a turn of the event loop is saved."""
        self._writes_itself = True
        try:
            info = client.publish(message.topic, message.payload, qos=1, retain=message.retain)
        finally:
            self._writes_itself = False
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            future.set_result(Outcome.LOST)
            return
        self._publishes[info.mid] = future
        if not self._waits_to_write:
            self._guarded(client.loop_write)
            if client.want_write():
                self._wait_to_write(client)

    def _packet_bytes(self, message: Message) -> int:
        """How long the PUBLISH will be (MQTT 5, 3.3): type, length in 1 to 4 bytes, topic, id, properties, payload."""
        remaining = 2 + len(message.topic.encode()) + 2 + (1 if self._version == MQTT_5 else 0) + len(message.payload)
        return 1 + -(-remaining.bit_length() // 7) + remaining

    async def receive(self, count_max: int) -> list[Receipt]:
        """Wait for at least one, give what is there up to `count_max`. Raises LinkAway once the connection is gone."""
        while self.gone is None and not self._inbox:
            await self._something()
        if self.gone is not None:
            kind = type(self.gone) if isinstance(self.gone, LinkAway) else LinkAway
            raise kind(str(self.gone)) from self.gone
        taken = self._inbox.take(count_max)
        self._resume()
        return taken

    def acknowledge(self, receipt: Receipt) -> None:
        """Acknowledge it as soon as all before it are. Harmless when the connection is gone."""
        if self.gone is None:
            self._inbox.done(receipt)
            self._resume()

    async def close(self) -> None:
        """Send DISCONNECT, so that the broker forgets the will, and end. Never raises."""
        try:
            if self.gone is None and self._client is not None and self._line is not None:
                async with asyncio.timeout(GOODBYE_S):
                    await self._say_goodbye(self._client, self._line.fileno())
        except TimeoutError:
            if self.gone is None:
                _log.warning("link.goodbye_unsent", where=self._where, hint="the broker will send the last will")
        finally:
            self._end(LinkAway(f"{self._where}: closed"))

    async def _say_goodbye(self, client: Client, number: int) -> None:
        """DISCONNECT, then wait until the broker has hung up.

        To close a socket with something unread in it resets the connection, and a broker that sees the reset before it
        has read DISCONNECT sends the will (NATS did, once in sixty). paho closes at once, hence the duplicate.
        """
        with socket.socket(fileno=os.dup(number)) as line, contextlib.suppress(OSError):  # OSError: hung up already
            line.setblocking(False)
            client.disconnect()
            while self.gone is None:
                await self._something()
            line.shutdown(socket.SHUT_WR)
            while await self._loop.sock_recv(line, 65536):
                pass

    async def _something(self) -> None:
        self._news.clear()
        await self._news.wait()

    # ── what paho says ──────────────────────────────────────────────────────────────────────────────────────────────

    def _on_connect(
        self, client: paho.Client, data: Any, flags: paho.ConnectFlags, code: ReasonCode, limits: Properties | None
    ) -> None:
        self._greeted = True
        self._answered((flags, code, limits))

    def _on_subscribe(
        self, client: paho.Client, data: Any, mid: int, codes: list[ReasonCode], properties: Properties | None
    ) -> None:
        self._answered(codes)

    def _answered(self, answer: object) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)

    def _on_publish(
        self, client: paho.Client, data: Any, mid: int, code: ReasonCode, properties: Properties | None
    ) -> None:
        future = self._publishes.pop(mid, None)
        if future is not None and not future.done() and self._client is not None:
            future.set_result(reasons.outcome(self._client.puback_code))

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        receipt = Receipt(message)
        if not self._inbox.put(receipt):
            if not self._dropped:
                _log.warning("link.qos0_dropped", where=self._where, topic=receipt.topic, hint="publish it with QoS 1")
            self._dropped += 1
        self._news.set()

    def _on_disconnect(
        self, client: paho.Client, data: Any, flags: paho.DisconnectFlags, code: ReasonCode, limits: Properties | None
    ) -> None:
        self._end(self._why(flags.is_disconnect_packet_from_server, code))

    def _why(self, from_broker: bool, code: ReasonCode) -> LinkError:
        """The sentence for an end that paho reports."""
        error = self._trouble.last
        if from_broker:
            return reasons.disconnect_error(self._where, self._client_id, code.value, str(code))
        if code.value == reasons.SUCCESS:
            return LinkAway(f"{self._where}: closed")
        if not self._greeted and isinstance(error, ssl.SSLError):
            return tls_error(self._settings, error)
        if not self._greeted:
            return NoAnswer(
                f"{self._where}: the broker closed the connection instead of answering; check port and mqtt_version, "
                "and whether it expects TLS"
            )
        if code.value == reasons.KEEP_ALIVE:
            return LinkAway(f"{self._where}: no sign of life for {self._settings.keep_alive_s} s; check the network")
        if code.value == reasons.PROTOCOL_ERROR:
            return LinkAway(f"{self._where}: the broker sent what MQTT does not allow; the connection was ended")
        how = "the broker closed the connection" if error is None else f"connection lost ({error.strerror or error})"
        kind = LinkHungUp if error is None or isinstance(error, ConnectionResetError | BrokenPipeError) else LinkAway
        return kind(
            f"{self._where}: {how}; if this repeats at once, look for another client with the id {self._client_id!r}"
        )

    # ── the socket on the event loop ────────────────────────────────────────────────────────────────────────────────

    def _on_socket_open(self, client: paho.Client, data: Any, opened: Any) -> None:
        self._reads = True
        self._loop.add_reader(opened.fileno(), self._guarded, self._read)

    def _on_socket_close(self, client: paho.Client, data: Any, closing: Any) -> None:
        self._forget_socket()

    def _on_want_write(self, client: paho.Client, data: Any, writing: Any) -> None:
        if not self._writes_itself:
            self._wait_to_write(client)

    def _wait_to_write(self, client: paho.Client) -> None:
        if self.gone is None and self._line is not None:
            self._waits_to_write = True
            self._loop.add_writer(self._line.fileno(), self._guarded, client.loop_write)

    def _on_no_write(self, client: paho.Client, data: Any, writing: Any) -> None:
        if self.gone is None and self._waits_to_write:
            self._waits_to_write = False
            self._loop.remove_writer(writing.fileno())

    def _forget_socket(self) -> None:
        if self._line is not None and self._line.fileno() >= 0:
            self._loop.remove_reader(self._line.fileno())
            self._loop.remove_writer(self._line.fileno())

    def _read(self) -> None:
        for _ in range(PACKETS_PER_TURN):
            if self._client is None or self._line is None or self.gone is not None:
                return
            if self._inbox.is_full:
                self._reads = False
                self._loop.remove_reader(self._line.fileno())
                return
            self._client.loop_read()
            if not self._line.buffered:
                return
        self._loop.call_soon(self._guarded, self._read)

    def _resume(self) -> None:
        """Read on, once there is room again. A line that was left alone for too long is taken for silent, and ended."""
        if self._reads or self._inbox.is_full or self.gone is not None or self._line is None:
            return
        self._reads = True
        self._loop.add_reader(self._line.fileno(), self._guarded, self._read)
        self._loop.call_soon(self._guarded, self._read)  # TLS may hold something that the socket knows nothing of

    def _tick(self) -> None:
        """Let paho look after the keep alive, often enough: a broker drops a client that is half of it late."""
        if self.gone is None and self._client is not None:
            self._guarded(self._client.loop_misc)
            self._timer = self._loop.call_later(self._client.keepalive / 8 or 1.0, self._tick)

    def _guarded(self, step: Callable[[], object]) -> None:
        """Every entry into paho from the event loop.

        An exception in there must end the connection, or paho would stay at the packet that caused it for ever.
        """
        try:
            step()
        except Exception as error:  # noqa: BLE001 - outermost edge: whatever paho raises on what a broker sends
            gone = LinkAway(
                f"{self._where}: what the broker sent cannot be handled ({error!r}); the connection was ended"
            )
            gone.__cause__ = error
            self._end(gone)
        if self.gone is None and self._client is not None and self._client.socket() is None:
            self._end(LinkAway(f"{self._where}: connection lost"))

    def _end(self, why: LinkError) -> None:
        """The one way out; what comes after the first time does nothing."""
        if self.gone is not None:
            return
        self.gone = why
        if self._timer is not None:
            self._timer.cancel()
        self._forget_socket()
        if self._line is not None:
            self._line.close()
        publishes, self._publishes = self._publishes, {}
        for future in publishes.values():
            if not future.done():
                future.set_result(Outcome.LOST)
        if not self._answer.done():
            self._answer.set_exception(why)
            self._answer.exception()  # taken note of, also where nobody waits
        self._inbox.clear()
        self._news.set()
