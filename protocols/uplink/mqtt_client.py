"""paho's client as our connections need it, and nothing else. Private to `mqtt_connection.py`.

It overrides two private methods of paho-mqtt 2.2; the contract suite over real brokers notices when a later paho
changes them.
"""

from __future__ import annotations

import logging
import socket
import ssl
from typing import Literal

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

MQTT_5 = MQTTProtocolVersion.MQTTv5
MQTT_311 = MQTTProtocolVersion.MQTTv311

READ_BYTES = 65536
"""More than a TLS record holds (16 KB), so that nothing decrypted is left inside TLS."""


class Trouble(logging.Logger):
    """A logger that keeps the last socket error that paho logs: paho tells nobody else."""

    def __init__(self) -> None:
        super().__init__("paho", logging.ERROR)
        self.last: OSError | None = None

    def handle(self, record: logging.LogRecord) -> None:
        """Keep it. Nothing is printed: whoever waits for the connection is told."""
        if isinstance(record.args, tuple) and record.args and isinstance(record.args[-1], OSError):
            self.last = record.args[-1]


class Line:
    """The connected socket as paho sees it. It reads in large pieces, because paho asks for one byte at a time.

    `buffered`: how many bytes were read and not yet taken; no readiness of the socket will tell of them.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected
        self._piece = b""
        self._at = 0

    @property
    def buffered(self) -> int:
        """See the class."""
        return len(self._piece) - self._at

    @property
    def certificate(self) -> bytes:
        """The other end's (DER); b"" without TLS."""
        return (isinstance(self._connected, ssl.SSLSocket) and self._connected.getpeercert(binary_form=True)) or b""

    def recv(self, buffer_size: int) -> bytes:
        """At most `buffer_size` bytes; none: the peer has closed. Raises as a non-blocking socket does."""
        if not self.buffered:
            self._piece, self._at = b"", 0
            self._piece = self._connected.recv(READ_BYTES)
        taken = self._piece[self._at : self._at + buffer_size]
        self._at += len(taken)
        return taken

    def send(self, buffer: bytes | bytearray) -> int:
        """As the socket does."""
        return self._connected.send(buffer)

    def close(self) -> None:
        """As the socket does."""
        self._connected.close()

    def fileno(self) -> int:
        """As the socket does."""
        return self._connected.fileno()

    def setblocking(self, flag: bool) -> None:
        """As the socket does."""
        self._connected.setblocking(flag)


class Client(paho.Client):
    """paho's client on a line that is connected already, so that nothing in it blocks. It never reconnects."""

    def __init__(self, client_id: str, version: MQTTProtocolVersion, line: Line, trouble: logging.Logger) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if version == MQTT_5 else False,
            protocol=version,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self.puback_code = 0
        """The reason code of the PUBACK that `on_publish` is being told of."""
        self.max_inflight_messages = 0  # no limit here: beyond one, paho would queue
        self.enable_logger(trouble)
        self._line = line

    def _create_socket(self) -> Line:
        return self._line

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        # paho ends the connection at a PUBACK code that it does not know, and Mosquitto sends such a one (0x95, packet
        # too large): the message would come back at every reconnect, for ever. So we read the code, and paho does not.
        packet = self._in_packet["packet"]
        self.puback_code = packet[2] if len(packet) > 2 else 0
        if self.protocol == MQTT_5:
            del packet[2:]
        return super()._handle_pubackcomp(cmd)
