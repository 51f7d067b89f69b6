"""A connection to a Modbus endpoint: the small interface that every transport stands behind, and which there are.

| transport     | `client: pymodbus`             | `client: lean`                |
|---------------|--------------------------------|-------------------------------|
| tcp           | `modbus_line_pymodbus` (default) | `modbus_line_lean`          |
| rtu_over_tcp  | the same (default)             | the same                      |
| udp           | the same (default)             | the same                      |
| rtu           | would need pyserial            | `modbus_serial` (default)     |

Both clients send the same bytes for the same plan and hold every answer against its question in the same way
(`modbus_frame`). pymodbus is the library that the field knows; the lean one asks a whole series of requests within the
event loop's callbacks, without a task switch, a lock or a timer per request, and costs half the CPU time or less.

Rules for both. Each request has its own deadline. After anything unexpected, a time-out or a cancelled question, the
connection is closed and stays so: an answer that comes late must not answer the next question. Nor may one that a
gateway passes on to the next connection: transactions are numbered on from a random beginning, over all connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from protocols.field.contract import Tap
from protocols.field.modbus_request import Request

Transport = Literal["tcp", "rtu_over_tcp", "udp", "rtu"]
Client = Literal["pymodbus", "lean"]

GATEWAY_AWAY = frozenset({10, 11})
"""Exceptions of a gateway that does not reach the unit: asking it for more would only cost its time-out again."""


@dataclass(frozen=True, slots=True)
class Serial:
    """How a serial port is set."""

    baudrate: int
    parity: Literal["none", "even", "odd"]
    stop_bits: int

    @property
    def frame_gap_s(self) -> float:
        """The silence that separates two frames: 3.5 characters of 11 bits, above 19,200 baud 1.75 ms.

        Source: MODBUS over Serial Line V1.02, 2.5.1.1.
        """
        return 0.00175 if self.baudrate > 19_200 else 3.5 * 11 / self.baudrate


@dataclass(frozen=True, slots=True)
class Link:
    """Where the endpoint is, and how to speak with it. `host` is the path of the port where the line is serial.

    `pause_s`: between an answer and the next request; `connect_pause_s`: between connecting and the first request.
    """

    transport: Transport
    client: Client
    host: str
    port: int
    timeout_s: float
    in_flight_max: int = 1
    pause_s: float = 0.0
    connect_pause_s: float = 0.0
    serial: Serial | None = None

    def difference(self, other: Link) -> str:
        """The names of the settings in which they differ."""
        mine, theirs = asdict(self), asdict(other)
        return ", ".join(name for name in mine if mine[name] != theirs[name])


class Line(Protocol):
    """An open connection. It is opened once and never reopened; `close` may be called at any time, twice too.

    `fault`: why it is not to be used any more; "" while it is well. `sent`: how many requests it has sent.
    `tap` hears all that happens on it, if there is one.
    """

    fault: str
    sent: int
    tap: Tap | None

    async def ask(self, requests: Sequence[Request]) -> list[bytes | int]:
        """The answer to each request: its content, or the code of the device's exception. One at a time.

        After an exception of GATEWAY_AWAY no more is sent: what was not asked has its code. Raises TimeoutError when an
        answer did not come in time, ConnectionError when the line was lost or an answer does not fit its question.
        The connection is closed then, as it is when the asking is cancelled.
        """

    def close(self) -> None:
        """Closes the connection. The socket is gone one turn of the loop later."""


async def open_line(link: Link, transaction: int, tap: Tap | None = None) -> Line:
    """A new connection, whose requests are numbered from `transaction` + 1. `tap` hears it from its beginning.

    Raises OSError, and after the link's `timeout_s` TimeoutError, which is one.
    """
    # pymodbus takes 150 ms to import: `holdfast check` and `--help` need none of it.
    if link.transport == "rtu":
        from protocols.field.modbus_serial import open_serial

        return await open_serial(link, transaction, tap)
    if link.client == "pymodbus":
        from protocols.field.modbus_line_pymodbus import PymodbusLine

        return await PymodbusLine.open(link, transaction, tap)
    from protocols.field.modbus_line_lean import LeanLine

    return await LeanLine.open(link, transaction, tap)
